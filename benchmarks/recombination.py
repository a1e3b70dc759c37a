"""Times what recombination does per image: pairing, the exchange, its moves, and edits.

    python -m benchmarks.recombination [--sizes=16:512,256:4096] [--images=32]

For each N:K, draws code sets whose codes depend on each other (the N largest of K random scores of
rank 16) and a random codebook, and prints milliseconds per image, for a single image and for a
batch: medians of the time that passes, in turns, after compilation. No model is needed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import markdown, milliseconds_in_turns, parser_for
from pivq_jax import sampling
from pivq_jax.sampling.edit import edit, factor_table

RANK, FACTORS, DIMENSIONS = 16, 4, 32
COUNTED = 4_000  # sets that log lifts are counted in
REPEATS = 7


def measure(num_codes: int, codebook_size: int, images: int) -> dict[str, tuple[float, float]]:
    """Returns milliseconds per image of each operation: a single image, and one of a batch."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(COUNTED, RANK))
    noise = rng.gumbel(size=(COUNTED, codebook_size))
    scores = hidden @ rng.normal(size=(RANK, codebook_size)) + noise
    codes = np.sort(np.argpartition(-scores, num_codes, 1)[:, :num_codes], 1).astype(np.int32)
    codebook = jnp.asarray(rng.normal(size=(codebook_size, DIMENSIONS)), jnp.float32)
    space = sampling.CodeSpace(num_codes, codebook_size)
    lift = sampling.log_lift(space, codes)
    labels = np.digitize(hidden[:, :FACTORS], (-0.8, -0.25, 0.25, 0.8)).astype(np.int32)
    names = {f"factor {i}": tuple("abcde") for i in range(FACTORS)}
    table = factor_table(space, codes, sampling.Labels(labels, names))
    wanted = np.array([0] + [-1] * (FACTORS - 1), np.int32)
    recombine = partial(sampling.recombine, space, codebook, key=jax.random.key(0))
    operations: dict[str, Callable[[Any, Any], Any]] = {
        "pair": lambda a, b: sampling.pair_codes(space, codebook, a, b),
        "recombine": lambda a, b: recombine(codes_a=a, codes_b=b),
        "recombine with log lifts": lambda a, b: recombine(codes_a=a, codes_b=b, lift=lift),
        "edit": lambda a, b: edit(space, codebook, a, wanted, table, lift),
    }

    def milliseconds(a: jax.Array, b: jax.Array) -> dict[str, float]:
        def waited(run: Callable[[Any, Any], Any]) -> Callable[[], Any]:
            return lambda: jax.block_until_ready(run(a, b))

        calls = {name: waited(run) for name, run in operations.items()}
        return milliseconds_in_turns(calls, REPEATS)

    a, b = (jnp.asarray(each) for each in (codes[:images], codes[-images:]))
    single, batched = milliseconds(a[:1], b[:1]), milliseconds(a, b)
    return {name: (single[name], batched[name] / images) for name in operations}


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--sizes", default="16:512,256:4096", help="N:K, several with commas")
    parser.add_argument("--images", type=int, default=32, help="images of a batch")
    options = parser.parse_args()
    rows = []
    for size in options.sizes.split(","):
        num_codes, codebook_size = map(int, size.split(":"))
        for name, times in measure(num_codes, codebook_size, options.images).items():
            rows.append([size, name, *(f"{ms:.2f}" for ms in times)])
    print(markdown(["N:K", "", "one image ms", "of a batch ms"], rows, texts=2))


if __name__ == "__main__":
    main()
