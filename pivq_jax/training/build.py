"""What a config needs: data, the weights of the perceptual loss."""

import jax
from jax.sharding import Mesh

from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import check_alike, check_same_arrays, replicated
from pivq_jax.common.params import Params
from pivq_jax.config.fields import Config
from pivq_jax.data import Dataset, load_dataset
from pivq_jax.losses.lpips_weights import load_lpips

__all__ = ["dataset_from_config"]


def dataset_from_config(config: Config) -> Dataset:
    """Builds or opens the data set of a config, with at least two training images.

    All processes must call this, and all fail if they have other images.

    Raises:
        InputError: if the data is missing or damaged, or has fewer than two training images; see
            `load_dataset`.
    """
    data = config.data
    dataset = load_dataset(data.name, image_size=data.image_size, path=data.path, group=data.group)
    if (count := len(dataset.train)) < 2:
        total = count + len(dataset.validation) + len(dataset.test)
        raise InputError(
            f"{data.path or data.name} has {total} images, only {count} of them for training, too"
            " few to recombine two: add images"
        )
    if jax.process_count() > 1:
        check_alike({"data": dataset.identity}, "copy the data again")
    return dataset


def networks_of(config: Config) -> dict[str, str]:
    """The frozen networks that losses use, by name, with the file of their weights, or ''."""
    networks = {"vgg": ""} if config.adversarial.is_used else {}
    if config.loss.perceptual:
        networks[config.loss.perceptual_network] = config.loss.perceptual_weights
    return networks


def load_networks(config: Config, mesh: Mesh) -> dict[str, Params]:
    """Loads the networks of `networks_of`, a full copy for each device."""
    networks = {name: load_lpips(name, path) for name, path in networks_of(config).items()}
    remedy = "give loss.perceptual_weights as the same file to all"
    check_same_arrays("weights of the perceptual loss", networks, remedy)
    return jax.device_put(networks, replicated(mesh))
