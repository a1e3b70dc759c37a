"""Published models: directories in the layout of the Hugging Face hub.

`model.safetensors` contains the weights and, in its metadata, the description needed to use them.
`parents.safetensors` contains code sets of training images, from which new images are made, with
the labels of these images if there are any, and `prior.safetensors` a prior over such sets; both
may be missing. `config.json` repeats the description for the hub and for readers; `README.md` is
the model card. The package brings such directories itself, see `shipped_models`.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pivq_jax.common.errors import InputError, brief
from pivq_jax.common.files import expanded, write_atomically, write_json
from pivq_jax.interop.card import model_card
from pivq_jax.interop.parents import read_parents, write_parents
from pivq_jax.interop.prior import read_prior, write_prior
from pivq_jax.interop.safetensors_file import FORMAT_VERSION, read_model, write_model
from pivq_jax.interop.weights import Params
from pivq_jax.sampling.edit import Labels
from pivq_jax.sampling.prior import Prior
from pivq_jax.sampling.space import CodeSpace

WEIGHTS, PARENTS, PRIOR = "model.safetensors", "parents.safetensors", "prior.safetensors"
CONFIG, CARD = "config.json", "README.md"


class Published(NamedTuple):
    """A published model."""

    params: Params  # a tree of float32 NumPy arrays
    description: dict[str, Any]  # see `read_model`
    parents: np.ndarray | None  # int32 [M, N], the codes of training images
    labels: Labels | None  # of these images
    prior: Prior | None


def shipped_models() -> dict[str, Path]:
    """Returns the directories of the published models in the package, by name."""
    folder = Path(__file__).parents[1] / "pretrained"
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{WEIGHTS}"))}


def check_target(directory: Path) -> None:
    """Checks that a published model can be written to a local directory, which need not exist.

    The workdir of a run is refused, as it has a config.json, too.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file: give a directory")
    if (directory / "checkpoints").exists():
        raise InputError(f"{directory} holds a run: give another directory")


def write_pretrained(
    directory: Path,
    params: Params,
    description: dict[str, Any],
    parents: np.ndarray | None = None,
    prior: Prior | None = None,
    labels: Labels | None = None,
) -> None:
    """Writes the files of a published model to a local directory, replacing existing ones."""
    check_target(directory)
    for name in (PARENTS, PRIOR):  # never beside weights of which they are not
        (directory / name).unlink(missing_ok=True)
    write_model(directory / WEIGHTS, params, description)
    if parents is not None:
        space = CodeSpace.of(description["config"])
        write_parents(directory / PARENTS, parents, space, labels)
    if prior is not None:
        write_prior(directory / PRIOR, prior)
    write_json(directory / CONFIG, {"format_version": FORMAT_VERSION, **description})
    card = model_card(description, 0 if parents is None else len(parents))
    write_atomically(directory / CARD, card.encode())


def read_pretrained(where: str | Path) -> Published:
    """Reads a published model from a directory, from the package or from the hub, in this order."""
    shipped = shipped_models()
    directory = expanded(where)
    if not directory.is_dir():
        if (name := str(where)) not in shipped and not _is_hub_id(name):
            raise InputError(
                f"{name} is no directory here, no model of the package ({', '.join(shipped)}) and"
                " no hub id such as owner/name: give one of these"
            )
        directory = shipped.get(name) or _download(name)
    return _read(directory)


def _read(directory: Path) -> Published:
    if not (directory / WEIGHTS).is_file():
        raise InputError(f"{directory} holds no {WEIGHTS}: give what save_pretrained wrote")
    params, description = read_model(directory / WEIGHTS)
    parents, labels, prior = None, None, None
    space = CodeSpace.of(description["config"])
    if (directory / PARENTS).is_file():
        parents, labels = read_parents(directory / PARENTS, space)
    if (directory / PRIOR).is_file():
        prior = read_prior(directory / PRIOR, space, params["quantizer"]["codebook"])
    return Published(params, description, parents, labels, prior)


def upload_pretrained(directory: Path, name: str) -> str:
    """Uploads a published model in one commit, whose address is returned; see `check_upload`."""
    check_upload(name)
    _read(directory)  # nothing damaged is published
    hub = _library(f"uploading to {name}")
    try:
        hub.create_repo(name, exist_ok=True)
        patterns = [WEIGHTS, PARENTS, PRIOR, CONFIG, CARD]
        commit = hub.upload_folder(repo_id=name, folder_path=directory, allow_patterns=patterns)
    # Raised if there is no network or no token, or if the hub refuses the id or the token.
    except (OSError, ValueError) as error:
        raise InputError(
            f"{directory} could not be uploaded to {name} ({brief(error)}): check the id, the"
            " network and `hf auth login`"
        ) from error
    return str(commit)


def _is_hub_id(name: str) -> bool:
    """Returns whether a name has the form 'owner/name'."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def check_upload(name: str) -> None:
    """Checks, before work starts, that an upload to the hub id 'owner/name' is possible."""
    if not _is_hub_id(name):
        raise InputError(f"{name} is no hub id: give one such as owner/name")
    _library(f"uploading to {name}")


def _download(name: str) -> Path:
    """Downloads the files of a model, or finds them in the hub's cache."""
    hub = _library(f"{name} is not a directory here, and fetching it from the hub")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=[WEIGHTS, PARENTS, PRIOR, CONFIG]))
    # Raised if there is no network or no such model, or if the id is invalid.
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name} is not a directory here and could not be fetched from the hub"
            f" ({brief(error)}): check the id and the network, or give a directory"
        ) from error


def _library(task: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(f"{task} needs huggingface_hub: pip install huggingface_hub") from error
    return huggingface_hub
