"""Compares bfloat16 with float32 at the time when the codebook is initialized.

    python -m benchmarks.precision [--config=configs/toon_faces.py] [--images=1000]

Trains the model of the config in float32 until its codebook is initialized, then encodes validation
images again with activations in bfloat16, with the same parameters and codebook. Prints the
fraction of codes that are equal, as sets, and the difference in matching cost. For the result of
training in bfloat16, add --config.model.dtype=bfloat16 to the training command.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import parser_for, training_images
from pivq_jax.common.parallel import make_mesh
from pivq_jax.config import load_config
from pivq_jax.data.images import images_to_float
from pivq_jax.data.pipeline import eval_batches
from pivq_jax.data.sources import first_images
from pivq_jax.matching import match
from pivq_jax.model.pivq import pivq_from_config
from pivq_jax.model.quantizer import squared_distances
from pivq_jax.training.build import (
    dataset_from_config,
    lpips_weights_from_config,
    steps_from_config,
)
from pivq_jax.training.objective import Phase


def main() -> None:
    """Trains, compares and prints."""
    parser = parser_for(__doc__)
    parser.add_argument("--config", default="configs/toon_faces.py")
    parser.add_argument("--images", type=int, default=1_000)
    options = parser.parse_args()

    config = load_config(options.config).with_fields({"model.dtype": "float32"})
    if config.model.stages > 1:
        parser.error(
            f"--config={options.config} has {config.model.stages} stages, and the codes of one"
            " depend on those before: give a config with model.stages=1"
        )
    mesh = make_mesh()
    dataset, lpips = dataset_from_config(config), lpips_weights_from_config(config, mesh)
    steps = steps_from_config(config, mesh)
    state, latents = steps.create(), []
    batches = training_images(config, dataset.train, mesh, config.seed)
    settings = config.quantizer
    for step in range(settings.init_step + settings.init_batches):
        images = next(batches)
        if step < settings.init_step:
            state, metrics = steps.train(state, images, lpips, Phase.CONTINUOUS)
            if step % 100 == 0:
                print(f"step {step:>6}  PSNR {float(metrics['psnr']):.2f} dB", flush=True)
        else:
            latents.append(steps.latents(state.params, images))
    params = steps.initialise(state, jnp.concatenate(latents)).params
    codebook = params["quantizer"]["codebook"]

    source = first_images(dataset.validation, options.images)
    assigned: dict[str, list[Any]] = {}
    for dtype in ("float32", "bfloat16"):
        model = pivq_from_config(config.with_fields({"model.dtype": dtype}))

        @jax.jit
        def assign(images: jax.Array, model: Any = model) -> Any:
            latents = model.apply({"params": params}, images_to_float(images), method="latents")
            return match(squared_distances(latents, codebook))

        def assign_real(batch: Any, assign: Any = assign) -> Any:
            """Assigns the real images of a batch; the last batch is padded."""
            return jax.tree.map(lambda x: x[batch["mask"]], assign(batch["image"]))

        held_out = eval_batches(source, config.train.batch_size)
        assigned[dtype] = [assign_real(batch) for batch in held_out]
    pairs = list(zip(*assigned.values(), strict=True))
    equal = [
        len(np.intersect1d(x, y))
        for a, b in pairs
        for x, y in zip(a.columns, b.columns, strict=True)
    ]
    costs = [np.sum([np.sum(result.cost) for result in results]) for results in assigned.values()]
    print(f"{jax.devices()[0].device_kind}; {len(source):,} images at step {settings.init_step}")
    print(f"codes equal in both: {np.mean(equal) / config.model.num_codes:.2%}")
    print(f"matching cost in bfloat16: {costs[1] / costs[0] - 1:+.3%} of that in float32")


if __name__ == "__main__":
    main()
