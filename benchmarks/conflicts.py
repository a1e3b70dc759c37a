"""How often latents of an image want the same codebook entry, and what it costs to keep them apart.

    python -m benchmarks.conflicts WORKDIR ... [--images=1000]

For each kept checkpoint with a trained codebook (`--config.checkpoints.keep` of the training says
how many are kept), encodes test images with the averaged weights, as evaluation does, and prints
means over the images of

  distinct  entries that are nearest to a latent of the image, of N
  shared    latents of which another latent of the image has the same nearest entry
  moved     latents whose code is not their nearest entry (0 for nearest neighbour)
  excess    squared distance of latents to their codes over that to their nearest entries, less
            one: what one-to-one assignment adds to the quantization error

and the entries in use and the perplexity of the codes, as in docs/metrics.md.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import pivq_jax
from benchmarks.common import markdown, markdown_row, parser_for
from pivq_jax.config.check import config_of_model, read_config
from pivq_jax.data.sources import Source, first_images
from pivq_jax.inference import TrainedModel, encode_batches
from pivq_jax.model.quantizer import assign, squared_distances
from pivq_jax.sampling import capacity
from pivq_jax.training.build import dataset_from_config
from pivq_jax.training.checkpoints import Checkpoints

AT_ONCE = 50  # images; distances to all entries are AT_ONCE * N * K floats
COLUMNS = ("step", "distinct", "shared", "moved", "excess", "entries used", "perplexity")


@partial(jax.jit, static_argnames="kind")
def conflicts(latents: jax.Array, codebook: jax.Array, kind: str) -> dict[str, jax.Array]:
    """Compares the codes of images with the nearest entries of their latents, float32 [B, N, D].

    Returns:
        'codes' int32 [B, N]; 'distinct', 'shared' and 'moved' int32 [B]; and 'cost' and 'least'
        float32 [B], the sums of squared distances to the codes and to the nearest entries.
    """
    distances = squared_distances(latents, codebook)
    nearest = jnp.argmin(distances, -1)
    codes, _ = assign(latents, codebook, kind)
    wanted = jax.nn.one_hot(nearest, len(codebook), dtype=jnp.int32).sum(1)
    cost = jnp.take_along_axis(distances, codes[..., None], -1)
    return {
        "codes": codes,
        "distinct": jnp.sum(wanted > 0, -1),
        "shared": jnp.sum(jnp.where(wanted > 1, wanted, 0), -1),
        "moved": jnp.sum(codes != nearest, -1),
        "cost": jnp.sum(cost, (1, 2)),
        "least": jnp.sum(distances.min(-1), -1),
    }


def measure(model: TrainedModel, tests: Source) -> tuple[float, ...]:
    """Returns the values of `COLUMNS` from 'distinct' on."""
    parts = []
    for batch, _, latents in encode_batches(model, tests, AT_ONCE):
        part = conflicts(latents, model.codebook, model.space.kind)
        parts.append({name: np.asarray(values)[batch["mask"]] for name, values in part.items()})
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    use = capacity(model.space, found["codes"])
    return (
        *(float(found[name].mean()) for name in ("distinct", "shared", "moved")),
        float(found["cost"].sum() / found["least"].sum()) - 1,
        use["codes_used"],
        use["perplexity"],
    )


def main() -> None:
    """Prints a table for each workdir."""
    parser = parser_for(__doc__)
    parser.add_argument("workdirs", type=Path, nargs="+", metavar="WORKDIR")
    parser.add_argument("--images", type=int, default=1_000, help="number of test images")
    options = parser.parse_args()
    for workdir in options.workdirs:
        config = config_of_model(read_config(workdir), str(workdir))
        with Checkpoints(workdir, read_only=True) as checkpoints:
            steps = [step for step in checkpoints.steps() if step > config.init_step]
        tests = first_images(dataset_from_config(config).test, options.images)
        n, size = config.model.num_codes, config.quantizer.codebook_size
        print(f"\n{workdir}: {config.quantizer.kind}, N = {n}, K = {size}\n")
        print(markdown(COLUMNS, texts=0))
        for step in steps:
            model = pivq_jax.load(workdir, step)
            distinct, shared, moved, excess, used, perplexity = measure(model, tests)
            cells = [f"{step:,}", f"{distinct:.1f}", f"{shared:.1f}", f"{moved:.1f}"]
            cells += [f"{100 * excess:.2f} %", f"{used:.0f}", f"{perplexity:.0f}"]
            print(markdown_row(cells), flush=True)


if __name__ == "__main__":
    main()
