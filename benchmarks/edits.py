"""Measures edits of faces with a classifier of pixels, which the edits do not use.

    python -m benchmarks.edits --pretrained=toon_faces [--seed=0]
    python -m benchmarks.edits --workdir=runs/faces

The classifier, or judge, is a convolutional network that is trained here on the training images and
kept in --output. Each test image gets another value of one factor, both drawn at random, from the
values that the judge does not see in its reconstruction. Prints, in all and by factor, how often
the judge reads the edited image as asked, how many of the other factors it reads as before, how
many edits lose at least one of them, how many codes changed, and how often it reads images and
reconstructions right. Writes edits.json and edits.png, one face with all values, of which it names
the edits that lose a factor.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization

from benchmarks.common import add_model, markdown, open_model, output_of, parser_for
from pivq_jax.common.files import write_atomically, write_json
from pivq_jax.common.output import progress_bar
from pivq_jax.common.pictures import save_png
from pivq_jax.data.images import images_to_float
from pivq_jax.data.sources import Source, first_images
from pivq_jax.edits.editing import all_values, learn_factors
from pivq_jax.evaluation.session import Session
from pivq_jax.inference import TrainedModel, decode_batched, encode_split
from pivq_jax.training.build import dataset_from_config

STEPS, BATCH = 1_250, 64


class Judge(nn.Module):
    """Classifier of images, for all factors at once."""

    classes: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float32 [B, H, W, 3] to logits [B, A, C], -inf beyond the values of a factor."""
        for width in (32, 64, 128, 128):
            x = nn.gelu(nn.GroupNorm(8)(nn.Conv(width, (3, 3), strides=(2, 2))(x)))
        x = nn.gelu(nn.Dense(256)(x.reshape(len(x), -1)))
        logits = nn.Dense(len(self.classes) * max(self.classes))(x)
        exists = jnp.arange(max(self.classes)) < jnp.array(self.classes)[:, None]
        return jnp.where(exists, logits.reshape(-1, *exists.shape), -jnp.inf)


def images_and_labels(source: Source, factors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of a split, uint8 [M, H, W, 3], and their labels, int [M, A]."""
    examples = [source[i] for i in range(len(source))]
    labels = np.array([[int(each[name]) for name in factors] for each in examples])
    return np.stack([each["image"] for each in examples]), labels


def judge_of(
    factors: Mapping[str, Sequence[str]], images: np.ndarray, labels: np.ndarray, path: Path
) -> Callable[[np.ndarray, int], np.ndarray]:
    """Returns the judge, a function of uint8 images [B, H, W, 3] and the size of its batches.

    The values that it sees are int [B, A]. It is trained unless `path` holds its parameters.
    """
    judge = Judge(tuple(map(len, factors.values())))
    params = judge.init(jax.random.key(0), jnp.zeros((1, *images.shape[1:])))
    if path.exists():
        params = serialization.from_bytes(params, path.read_bytes())
    else:
        params = train_judge(judge, params, images, labels)
        write_atomically(path, serialization.to_bytes(params))

    @jax.jit
    def apply(batch: jax.Array) -> jax.Array:
        logits: Any = judge.apply(params, images_to_float(batch))
        return logits.argmax(-1)

    def see(images: np.ndarray, size: int) -> np.ndarray:
        batches = [images[i : i + size] for i in range(0, len(images), size)]
        return np.concatenate([np.asarray(apply(batch)) for batch in batches])

    return see


def train_judge(judge: Judge, params: Any, images: np.ndarray, labels: np.ndarray) -> Any:
    """Returns the trained parameters."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, 100, STEPS)
    optimizer = optax.adamw(schedule, weight_decay=0.01)

    @jax.jit
    def update(params: Any, state: Any, images: jax.Array, labels: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            logits = judge.apply(params, images_to_float(images))
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.sum(1).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state, rng = optimizer.init(params), np.random.default_rng(0)
    for _ in progress_bar(range(STEPS), desc="training the judge", unit="step"):
        batch = rng.integers(0, len(images), BATCH)
        params, state = update(params, state, images[batch], labels[batch])
    return params


def ask(
    before: np.ndarray, counts: Sequence[int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws what each image is asked for: a factor, and a value that the judge does not see.

    `before` are the values that the judge sees, int [M, A], and `counts` the numbers of values of
    the factors; those with a single one are left out. Returns factors and values, int [M].
    """
    editable = np.flatnonzero(np.asarray(counts) > 1)
    chosen = editable[rng.integers(0, len(editable), len(before))]
    others = [np.setdiff1d(range(counts[a]), row[a]) for a, row in zip(chosen, before, strict=True)]
    return chosen, np.array([rng.choice(values) for values in others])


def rows_of(
    names: list[str],
    chosen: np.ndarray,
    asked: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    changed: np.ndarray,
    right: dict[str, np.ndarray],
) -> dict[str, dict[str, float | None]]:
    """The rows of the table, of all A factors and of each; None is the mean of nothing.

    Each image has a factor that is edited, `chosen` [M], its new value, `asked` [M], what the judge
    sees in its reconstruction, `before` [M, A], and in the edited image, `after` [M, A], the number
    of codes that changed [M], and by column of the table whether it is right, bool [M, A].
    """

    def mean(values: np.ndarray) -> float | None:
        return float(values.mean()) if values.size else None

    as_asked = after[np.arange(len(asked)), chosen] == asked
    other = chosen[:, None] != np.arange(len(names))
    rows: dict[str, dict[str, float | None]] = {}
    for factor, name in enumerate(["all factors", *names], -1):
        which = chosen == factor if factor >= 0 else np.ones(len(chosen), bool)
        column = slice(None) if factor < 0 else factor
        rows[name] = {
            "edits": int(which.sum()),
            "asked": mean(as_asked[which]),
            "kept": mean((after == before)[which][other[which]]),
            "lost": int(((after != before) & other)[which].any(1).sum()),
            "changed": mean(changed[which]),
            **{of: mean(is_right[:, column]) for of, is_right in right.items()},
        }
    return rows


def lost_in_picture(
    model: TrainedModel,
    codes: np.ndarray,
    factors: Mapping[str, Sequence[str]],
    see: Callable[[np.ndarray, int], np.ndarray],
) -> list[str]:
    """Names the edits of one image, of codes int32 [N], that lose another factor by the judge.

    Returns a line with their number, and one for each.
    """
    asked = [(name, value) for name, values in factors.items() for value in values]
    edited = [np.asarray(model.edit(codes[None], **{name: value}))[0] for name, value in asked]
    images = decode_batched(model, np.stack([codes, *edited]), len(asked) + 1)
    before, *after = see(images, len(images))
    names, lines = np.array([*factors]), []
    for (name, value), values in zip(asked, after, strict=True):
        if lost := names[(values != before) & (names != name)].tolist():
            lines.append(f"  {name} = {value} loses {', '.join(lost)}")
    return [f"edits.png: {len(lines)} of {len(asked)} edits lose another factor", *lines]


def main() -> None:
    """Prints the table."""
    parser = parser_for(__doc__)
    add_model(parser, "edits")
    parser.add_argument("--seed", type=int, default=0, help="of the values asked for")
    options = parser.parse_args()
    output = output_of(options, "edits")
    model = open_model(options)
    dataset = dataset_from_config(model.config)
    session = Session(model, dataset, output)
    model = learn_factors(session, {})
    factors, size = dataset.factors, session.settings.batch_size

    train = images_and_labels(first_images(dataset.train, 10_000), factors)
    see = judge_of(factors, *train, output / "judge.msgpack")
    images, labels = images_and_labels(dataset.test, factors)
    codes = encode_split(model, dataset.test, size)
    before = see(decode_batched(model, codes, size), size)
    rng, names = np.random.default_rng(options.seed), list(factors)
    chosen, asked = ask(before, [*map(len, factors.values())], rng)
    edited = codes.copy()
    for factor, name in enumerate(names):
        for value, wanted in enumerate(factors[name]):
            rows = (chosen == factor) & (asked == value)
            if rows.any():
                edited[rows] = model.edit(codes[rows], **{name: wanted})
    after = see(decode_batched(model, edited, size), size)

    changed = np.array([len({*new} - {*old}) for new, old in zip(edited, codes, strict=True)])
    right = {"images": see(images, size) == labels, "reconstructions": before == labels}
    rows = rows_of(names, chosen, asked, before, after, changed, right)
    head = ["edits", "read as asked", "others kept", "edits that lose one", "codes changed"]
    head += ["images", "reconstructions"]
    cells = []
    for name, row in rows.items():
        values = ("" if x is None else f"{x:.3f}" if type(x) is float else x for x in row.values())
        cells.append([name, *map(str, values)])
    print(markdown(["", *head], cells))
    write_json(output / "edits.json", rows)
    save_png(output / "edits.png", all_values(model, codes[0]))
    print("\n" + "\n".join(lost_in_picture(model, codes[0], factors, see)))


if __name__ == "__main__":
    main()
