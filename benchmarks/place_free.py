"""Whether codes have a place: what single codes change, what tells of them, does order count.

    python -m benchmarks.place_free --workdir=runs/faces [--images=64]
    python -m benchmarks.place_free --pretrained=toon_faces

Writes place_free.json and place_free.png to --output, by default in the run:

  change     One code of a test image is exchanged for its partner in another image, as
             recombination pairs them (`pair_codes`), sixteen random codes of each image.
             `participation` is the share of the image in which the change lies: with e the sum of
             squared changes in each of 8x8 patches, (sum e)^2 / (64 sum e^2), which is 1/64 if one
             patch changes and 1 if all change alike. Median, and quartiles, over all exchanges;
             those that change no pixel are counted apart. The picture shows nine test images, each
             with one code exchanged and, around grey, the change, scaled to its largest value.
  entries    Of random entries that 1 % to 50 % of training images hold, each is exchanged in eight
             of them. `place`: how often the patch that changes most is the one that the other seven
             exchanges change most often, beside how often it is the most frequent patch of all
             entries. `patch`: whether an image holds the entry, told from the pixels of the patch
             that the entry changes most, by the nearer of two means, those of the training images
             with and without the entry; mean balanced accuracy on test images, 0.5 by chance,
             beside that from a random other patch and from the image as a whole.
  order      Whether codes in random order decode to the same bits, and the largest difference, of
             pixels in [-1, 1], if the networks get them without being sorted before.
  matching   The share of latents whose nearest entry is that of another latent of the image, too;
             the share of codes that are not the nearest entry, and of images with such a code.
"""

import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import add_model, open_model, output_of, parser_for, pixels_of
from pivq_jax.common.files import write_json
from pivq_jax.common.parallel import map_over_batch
from pivq_jax.common.pictures import Pixels, sample_grid, save_png
from pivq_jax.data import Dataset
from pivq_jax.data.images import images_to_uint8
from pivq_jax.data.sources import Source, first_images
from pivq_jax.inference import TrainedModel, encode_batches, encode_split
from pivq_jax.inference.opening import data_of
from pivq_jax.inference.splits import in_batches
from pivq_jax.model.pivq import pivq_from_config
from pivq_jax.model.quantizer import assign, squared_distances
from pivq_jax.sampling import exchange_code, pair_codes, random_parents

AT_ONCE = 50  # images whose latents are compared with all entries
GRID = 8  # patches of a side
CODES = 16  # of each image
SHOWN = 9
TRAINING_IMAGES, TEST_IMAGES = 2_000, 1_000  # at most, for what tells of entries
ENTRIES = 64  # at most
EXCHANGES = 8  # of each of these entries
LEAST_SHARE, MOST_SHARE = 0.01, 0.5  # of training images that hold an entry


def patch_energies(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Sums the squared changes of images float [M, H, W, C] in each patch: float64 [M, 64]."""
    change = np.square(after.astype(np.float64) - before).sum(-1)
    for axis in (1, 2):
        edges = np.arange(GRID) * change.shape[axis] // GRID
        change = np.add.reduceat(change, edges, axis)
    return change.reshape(len(change), -1)


def participation(energies: np.ndarray) -> np.ndarray:
    """The share of patches [M, P] in which energy lies: float64 [M], NaN without any."""
    with np.errstate(invalid="ignore"):
        return energies.sum(1) ** 2 / (energies.shape[1] * np.square(energies).sum(1))


def decoded(model: TrainedModel, codes: np.ndarray) -> np.ndarray:
    """Decodes codes in batches without rounding, float32 [M, H, W, 3]."""
    size = model.config.evaluate.batch_size
    parts = [np.asarray(model.decode(batch)) for batch in in_batches(codes, size)]
    return np.concatenate(parts)[: len(codes)]


def change(model: TrainedModel, codes: np.ndarray, key: jax.Array) -> tuple[dict, Pixels]:
    """Exchanges single codes of images, int32 [M, N]; returns the figures and the picture."""
    key_parents, key_codes = jax.random.split(key)
    pairs = np.asarray(random_parents(key_parents, len(codes), len(codes)))
    a, b = codes[pairs.T]
    first, partners, _ = map(np.asarray, pair_codes(model.space, model.codebook, a, b))
    order = jax.random.uniform(key_codes, first.shape)
    differing = np.argsort(np.where(first != partners, order, 2.0), 1)[:, :CODES]
    images = np.arange(len(codes)).repeat(differing.shape[1])
    places = differing.ravel()
    exchanged = first[images, places] != partners[images, places]
    images, places = images[exchanged], places[exchanged]
    edited = first[images]
    edited[range(len(images)), places] = partners[images, places]
    before, after = decoded(model, first), decoded(model, edited)
    shares = participation(patch_energies(before[images], after))
    changed = np.isfinite(shares)
    quartiles = np.percentile(shares[changed], (25, 50, 75)) if changed.any() else [None] * 3
    figures = {
        "participation": quartiles[1],
        "participation_quartiles": [quartiles[0], quartiles[2]],
        "exchanges": len(shares),
        "without_change": int((~changed).sum()),
        "mean_change": float(np.abs(after - before[images]).mean() * 127.5),  # grey levels
    }
    shown = np.unique(images, return_index=True)[1][:SHOWN]
    pair = before[images[shown]], after[shown]
    difference = pair[1] - pair[0]
    largest = np.abs(difference).max((1, 2, 3), keepdims=True)
    scaled = difference / np.maximum(largest, 1e-6)
    rows = [np.asarray(images_to_uint8(jnp.asarray(x))) for x in (*pair, scaled)]
    return figures, sample_grid(rows[0], rows[1], rows[2])


def entries(
    model: TrainedModel, train: Source, test: Source, key: jax.Array
) -> dict[str, float | int | None]:
    """Tells entries from the patch that they change most, and the patch from the entry."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    codes = [encode_split(model, split) for split in (train, test)]
    size = model.space.codebook_size
    holds = [np.stack([np.bincount(row, minlength=size) > 0 for row in each]) for each in codes]
    held, held_test = holds[0].mean(0), holds[1].sum(0)
    enough = (held >= LEAST_SHARE) & (held <= MOST_SHARE) & (holds[0].sum(0) >= EXCHANGES)
    known = np.flatnonzero(enough & (held_test > 0) & (held_test < len(test)))
    found: dict[str, float | int | None] = {"entries": min(len(known), ENTRIES)}
    if not len(known):
        return found
    chosen = rng.permutation(known)[:ENTRIES]
    energies = []
    for entry in chosen:
        has = holds[0][:, entry]
        own = rng.permutation(np.flatnonzero(has))[:EXCHANGES]
        others = rng.choice(np.flatnonzero(~has), EXCHANGES)
        a, b = codes[0][own], codes[0][others]
        edited = np.asarray(exchange_code(model.space, model.codebook, a, b, int(entry)))
        energies.append(patch_energies(decoded(model, a), decoded(model, edited)))
    most = np.argmax(energies, -1)  # [E, EXCHANGES], patches
    counts = np.stack([np.bincount(row, minlength=GRID**2) for row in most])
    without = counts[:, None] - np.eye(GRID**2, dtype=int)[most]  # by the other exchanges
    found["place"] = float(np.mean(without.argmax(-1) == most))
    found["place_by_frequency"] = float(counts.sum(0).max() / counts.sum())

    pixels = [pixels_of(split) for split in (train, test)]
    patch_of = np.sum([e / np.maximum(e.sum(1, keepdims=True), 1e-12) for e in energies], 1)
    scores: dict[str, list[float]] = {"patch": [], "other_patch": [], "image": []}
    for entry, places in zip(chosen, patch_of.argmax(1), strict=True):
        other = (places + rng.integers(1, GRID**2)) % GRID**2
        for name, where in {"patch": places, "other_patch": other, "image": None}.items():
            seen = [_pixels_in(x, where) for x in pixels]
            scores[name].append(_accuracy(*seen, *(x[:, entry] for x in holds)))
    return found | {name: float(np.mean(values)) for name, values in scores.items()}


def _pixels_in(images: np.ndarray, patch: int | None) -> np.ndarray:
    """The pixels of a patch of images [M, H, W, C], or all: float32 [M, F]."""
    if patch is not None:
        row, column = divmod(int(patch), GRID)
        height, width = images.shape[1:3]
        rows = slice(row * height // GRID, (row + 1) * height // GRID)
        images = images[:, rows, column * width // GRID : (column + 1) * width // GRID]
    return images.reshape(len(images), -1).astype(np.float32)


def _accuracy(
    train: np.ndarray, test: np.ndarray, held: np.ndarray, held_test: np.ndarray
) -> float:
    """Balanced accuracy of the nearer of two means, of the rows that hold an entry and others."""
    means = train[held].mean(0), train[~held].mean(0)
    apart = [np.square(test - mean).sum(1) for mean in means]
    told = apart[0] < apart[1]
    return float((told[held_test].mean() + (~told[~held_test]).mean()) / 2)


def order(model: TrainedModel, codes: np.ndarray, key: jax.Array) -> dict[str, Any]:
    """Decodes images, int32 [M, N], from codes in their order and in random orders."""
    shuffled = np.asarray(jax.random.permutation(key, codes, axis=1, independent=True))
    networks = pivq_from_config(model.config, partial(map_over_batch, mesh=model.mesh))

    @jax.jit
    def unsorted(codes: jax.Array) -> jax.Array:
        return networks.apply({"params": model.params}, codes, method="decode")  # type: ignore[return-value]

    size = model.config.evaluate.batch_size
    batches = zip(in_batches(codes, size), in_batches(shuffled, size), strict=True)
    apart = [float(jnp.abs(unsorted(a) - unsorted(b)).max()) for a, b in batches]
    equal = np.array_equal(decoded(model, codes), decoded(model, shuffled))
    return {"bit_equal": equal, "largest_difference_unsorted": max(apart)}


@partial(jax.jit, static_argnames="kind")
def conflicts(latents: jax.Array, codebook: jax.Array, kind: str) -> tuple[jax.Array, jax.Array]:
    """Counts latents float32 [B, N, D] that want the same entry as another one of their image.

    Returns int32 [B]: the number of those, and that of latents whose code is not their nearest one.
    """
    nearest = jnp.argmin(squared_distances(latents, codebook), -1)
    same = (nearest[:, :, None] == nearest[:, None]).sum(-1)
    return (same > 1).sum(-1), (assign(latents, codebook, kind)[0] != nearest).sum(-1)


def matching(model: TrainedModel, source: Source) -> dict[str, float]:
    """How often latents share their nearest entry, and codes are not the nearest ones."""
    parts = []
    for batch, _, latents in encode_batches(model, source, AT_ONCE):
        found = conflicts(latents, model.codebook, model.space.kind)
        parts.append(np.stack(found)[:, batch["mask"]])
    shared, moved = np.concatenate(parts, 1)
    return {
        "latents_that_share_their_nearest": float(shared.mean() / model.space.num_codes),
        "codes_not_nearest": float(moved.mean() / model.space.num_codes),
        "images_with_such_codes": float((moved > 0).mean()),
    }


def measure(model: TrainedModel, dataset: Dataset, images: int) -> tuple[dict[str, Any], Pixels]:
    """Returns all figures, and the picture of single codes."""
    keys = jax.random.split(jax.random.key(model.config.seed), 3)
    few, test = first_images(dataset.test, images), first_images(dataset.test, TEST_IMAGES)
    train = first_images(dataset.train, TRAINING_IMAGES)
    codes = encode_split(model, few)
    changed, picture = change(model, codes, keys[0])
    figures = {
        "images": len(few),
        "change": changed,
        "entries": entries(model, train, test, keys[1]),
        "order": order(model, codes, keys[2]),
        "matching": matching(model, test),
    }
    return figures, picture


def main() -> None:
    """Measures a model, prints the figures and writes the files."""
    parser = parser_for(__doc__)
    add_model(parser, "place_free")
    parser.add_argument("--data", default="", help="folder of the images, if it has moved")
    parser.add_argument("--images", type=int, default=64, help="test images with codes exchanged")
    options = parser.parse_args()
    if options.images < 2:
        parser.error(f"--images={options.images}: give at least 2")
    model = open_model(options)
    figures, picture = measure(model, data_of(model, options.data), options.images)
    folder = output_of(options, "place_free")
    write_json(folder / "place_free.json", figures)
    save_png(folder / "place_free.png", picture)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
