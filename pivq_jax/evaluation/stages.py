"""The stages of an evaluation: each computes metrics and pictures of a trained model.

Those in `STAGES` form the report: they return metrics for `metrics.json` (JSON values by name, None
if undefined; docs/metrics.md describes them) and save pictures for the report. The others write
pictures to the workdir, as the section `sample` of the model's config says.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from pivq_jax.common import pictures
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import check_new_folder, local_path, new_folder
from pivq_jax.common.output import progress_bar
from pivq_jax.common.parallel import check_in_first_process, print_once
from pivq_jax.common.psnr import psnr
from pivq_jax.data.images import images_to_float, images_to_uint8
from pivq_jax.data.pipeline import eval_batches
from pivq_jax.data.sources import Source, Subset, first_images
from pivq_jax.evaluation import atlas
from pivq_jax.evaluation.attributes import attribute_metrics
from pivq_jax.evaluation.copies import COPIES, copied_share, mean_share
from pivq_jax.evaluation.features import Features
from pivq_jax.evaluation.frechet import frechet_distance
from pivq_jax.evaluation.neighbours import nearest_neighbours
from pivq_jax.evaluation.prdc import compare_images, prdc
from pivq_jax.evaluation.reconstruction import WINDOW, mean_lpips, ssim
from pivq_jax.evaluation.session import Draw, Session, alex_weights
from pivq_jax.inference import Encoded, decode_batches, encode_batches, encode_labelled, images_of
from pivq_jax.sampling import capacity, informative_codes, random_parents

ATLAS_CODES = 12  # most codes in the atlas
# Second k of PRDC, since papers differ: 3 in Kynkäänniemi et al., 5 in Naeem et al.
FEW_NEIGHBOURS = 3
SHOWN = 24  # samples shown between their parents
MOST_IN_GRID = 4_096  # samples in one picture
WRITERS = 8  # threads that write samples while others are decoded


def reconstruction(session: Session) -> dict[str, Any]:
    """Measures reconstruction, of output rounded to uint8, and use of the codebook on the test
    split.
    """
    model, test = session.model, session.dataset.test
    has_windows = session.dataset.image_size >= WINDOW
    parts: list[list[np.ndarray]] = []
    for batch, batch_codes, _ in encode_batches(model, test):
        rounded, originals = images_to_uint8(model.decode(batch_codes)), jnp.asarray(batch["image"])
        outputs, targets = images_to_float(rounded), images_to_float(originals)
        difference = jnp.mean(jnp.abs(outputs - targets), (1, 2, 3))
        values = [batch_codes, psnr(rounded, originals, 255.0), difference]
        if has_windows:
            values.append(ssim(outputs, targets))
        parts.append([np.asarray(value)[batch["mask"]] for value in values])
    codes, psnrs, differences, *similarities = map(np.concatenate, zip(*parts, strict=True))
    session.test_codes = codes
    shown = images_of(test, range(min(32, len(test))))
    decoded = session.decode(codes[: len(shown)])
    picture = pictures.reconstruction_grid(shown, decoded, 8)
    session.save("reconstructions", picture)
    session.save("usage", pictures.usage_chart(codes, model.space.codebook_size))
    return {
        "psnr": float(np.mean(psnrs)),
        "l1": float(np.mean(differences)),
        "ssim": float(np.mean(similarities[0])) if has_windows else None,
        **capacity(model.space, codes),
    }


def perceptual(session: Session) -> dict[str, Any]:
    """Measures `lpips` of reconstructions of the test split; the weights may be missing."""
    batch_size = session.settings.batch_size
    batches = eval_batches(session.dataset.test, batch_size)
    originals = (batch["image"][batch["mask"]] for batch in batches)
    rebuilt = decode_batches(session.model, session.test_codes)
    pairs = zip(originals, rebuilt, strict=True)
    path = alex_weights(session.model.config.loss)
    return {"lpips": mean_lpips(pairs, batch_size, path)}


def distribution(session: Session) -> dict[str, Any]:
    """Compares samples, reconstructions and two baselines with the test split in feature space."""
    test, k = session.dataset.test, session.settings.neighbours
    if (least := min(len(test), len(session.training_images))) <= k:
        raise InputError(f"{least} images are too few for k = {k} neighbours")
    batches = decode_batches(session.model, session.test_codes)
    rebuilt = session.extractor.extract(batches, len(test))
    sampled = session.sample_features
    if jax.process_index():
        return {}  # what follows is of one process, and reads many images
    real = session.features_of(test)
    parents = session.samples.parents
    averaged = average_pixels(session.pool, parents, session.settings.batch_size)

    def compare(features: Features) -> dict[str, Any]:
        figures: dict[str, Any] = {"sample_images": len(features.whole)}
        figures |= compare_images(real, features, k)
        if least > FEW_NEIGHBOURS != k:
            figures["k3"] = prdc(real.whole, features.whole, FEW_NEIGHBOURS)._asdict()
        return figures

    return {
        **compare(sampled),
        "rfid": frechet_distance(real.whole, rebuilt),
        "baselines": {
            "training images": compare(session.training_features),
            "averaged pairs": compare(session.extractor.extract_all(averaged, len(parents))),
        },
        "feature_network": session.extractor.network,
        "feature_preprocessing": session.extractor.preprocessing,
        "real_images": len(real.whole),
        "neighbours": k,
    }


def copies(session: Session) -> dict[str, Any]:
    """Measures which share of samples, and of test images, is in one training image."""
    sampled = session.decode(session.samples.codes[:COPIES])
    if jax.process_index():
        return {}  # as in `distribution`
    train, test = session.dataset.train, first_images(session.dataset.test, COPIES)
    images = {"copied_share": sampled, "copied_share_test": images_of(test, range(len(test)))}
    both = np.concatenate([*images.values()])
    shares = np.split(copied_share(both, session.batches_of(train)), [len(sampled)])
    return {name: mean_share(each) for name, each in zip(images, shares, strict=True)}


def average_pixels(source: Source, parents: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Averages the pixels of parents, integers [S, P] into `source`: a baseline without a model.

    Yields uint8 [s, H, W, 3], rounded half to even, `batch_size` at a time.
    """
    count = parents.shape[1]
    for batch in eval_batches(Subset(source, parents.ravel()), count * batch_size):
        images = batch["image"][batch["mask"]]
        mean = images.reshape(-1, count, *images.shape[1:]).mean(1)
        yield np.rint(mean).astype(np.uint8)


def samples(session: Session) -> dict[str, Any]:
    """Draws samples, samples between their parents, samples of many parents, and interpolations;
    measures the speed of sampling.
    """
    drawn, many = session.samples, min(4, len(session.pool_codes))
    session.save("samples", pictures.grid(drawn.images, 8))
    session.save("parents", drawn.between_parents(session.pool, SHOWN))
    mixed = session.recombined(16, session.key(Draw.MANY_PARENTS), many)
    session.save("many_parents", pictures.grid(mixed.images, 8))
    session.save("interpolations", _interpolations(session, 8, 9))
    return {"parents_of_many": many, "sample_images_per_second": _speed(session)}


def _speed(session: Session) -> float:
    """Images recombined and decoded per second: the median of ten batches, once compiled."""
    model, size, codes = session.model, session.settings.batch_size, session.samples.codes
    fraction = model.config.sample.fraction
    batch = jnp.asarray(np.resize(codes, (size, codes.shape[1])))
    times = []
    for i in range(11):
        started = time.perf_counter()
        mixed = model.recombine(batch, batch[::-1], jax.random.key(i), fraction, session.lift)
        jax.block_until_ready(model.decode(mixed))
        times.append(time.perf_counter() - started)
    return size / float(np.median(times[1:]))


def _interpolations(session: Session, count: int, steps: int) -> pictures.Pixels:
    """A picture of paths between random pairs of images of the pool, a row for each."""
    pairs = random_parents(session.key(Draw.INTERPOLATIONS), count, len(session.pool_codes))
    first, last = session.pool_codes[np.asarray(pairs)].swapaxes(0, 1)
    paths = np.asarray(session.model.interpolate(first, last, steps))
    images = session.decode(paths.reshape(-1, paths.shape[-1]))
    rows = images.reshape(steps, count, *images.shape[1:]).swapaxes(0, 1)
    return pictures.grid(rows.reshape(images.shape), steps)


def neighbours(session: Session) -> dict[str, Any]:
    """Draws samples beside their nearest training images, parents or not, to reveal copies."""
    drawn, count = session.samples, len(session.training_images)
    shown = min(10, len(drawn.images))
    sampled = session.sample_features.whole[:shown]
    if jax.process_index():
        return {}  # as in `distribution`
    others = np.unique(drawn.parents[:shown])
    searched = Subset(
        session.dataset.train, np.concatenate([np.arange(count), others[others >= count]])
    )
    near = min(5, len(searched))
    features = session.training_features.whole
    if len(searched) > count:
        added = session.features_of(Subset(searched, range(count, len(searched)))).whole
        features = np.concatenate([features, added])
    nearest = nearest_neighbours(sampled, features, near)
    rows = [
        np.concatenate([image[None], images_of(searched, row)])
        for image, row in zip(drawn.images, nearest.indices, strict=False)
    ]
    session.save("neighbours", pictures.grid(np.concatenate(rows), 2 * (near + 1)))
    return {"nearest_training_images": len(searched)}


def attributes(session: Session) -> dict[str, Any]:
    """Fits probes for every labelled factor, computes DCI, and draws the atlas of codes."""
    model, dataset = session.model, session.dataset
    factors, key = dataset.factors, session.key(Draw.ATLAS)

    def encode(split: Source) -> Encoded:
        return encode_labelled(model, split, tuple(factors), latents=bool(factors))

    train = encode(session.pool)
    session.pool_codes = train.codes  # so that no stage encodes them again
    chosen = informative_codes(model.space, train.codes, train.labels, factors, ATLAS_CODES)
    exchanges = [
        (meaning, atlas.exchange(model, train.codes, meaning.code, 50, key)) for meaning in chosen
    ]
    if exchanges:
        session.save("atlas", atlas.atlas_picture(dataset.train, exchanges))
    if not factors:
        return {}
    held_out = encode(dataset.validation), encode(dataset.test)
    if jax.process_index():
        return {}  # what follows is of the host, and takes its memory
    metrics = attribute_metrics(train, *held_out, factors, model.space)
    if rows := metrics["attributes"].values():
        metrics["probe_accuracy"] = float(np.mean([row["codes"] for row in rows]))
        metrics["probe_majority"] = float(np.mean([row["majority"] for row in rows]))
    return metrics


def sample(session: Session) -> None:
    """Writes `samples.png` of recombined code sets, and `parents.png` of some and their parents."""
    count = min(session.model.config.sample.count, MOST_IN_GRID)
    drawn = session.recombined(count, jax.random.key(session.seed))
    session.write("samples.png", pictures.grid(drawn.images, 8))
    session.write("parents.png", drawn.between_parents(session.pool, SHOWN))


def folder_for_samples(count: int, output: str) -> Path | None:
    """Returns the new folder for a file of each of so many samples, None for one picture of all."""
    if not output:
        if count > MOST_IN_GRID:
            raise InputError(
                f"sample.count = {count:,} images are more than the {MOST_IN_GRID:,} of one"
                " picture: give --output=DIR for a file each"
            )
        return None
    target = local_path(output)
    check_in_first_process(lambda: check_new_folder(target, "--output"))
    return target


def recombined_codes(session: Session, count: int, start: int) -> np.ndarray:
    """Returns the codes of `count` samples, int32 [count, N], from that of number `start` on."""
    key = jax.random.key(session.seed)
    codes, _ = session.recombined_codes(count, jax.random.fold_in(key, start) if start else key)
    return codes


def write_samples(
    session: Session, target: Path, draw: Callable[[Session, int, int], np.ndarray]
) -> None:
    """Writes new images to a new folder, each as a PNG file, `000000.png` and so on.

    `draw` returns so many codes from a number on, such as `recombined_codes`. They are drawn in
    parts, of which the first has the images of `samples.png`.
    """
    count, first = session.model.config.sample.count, jax.process_index() == 0
    digits = max(6, len(str(count - 1)))
    with (
        new_folder(target) if first else contextlib.nullcontext(target) as folder,
        ThreadPoolExecutor(WRITERS) as writers,
        progress_bar(desc="sampling", total=count, unit=" images", disable=not first) as bar,
    ):
        writing: Iterable[None] = ()
        for start in range(0, count, MOST_IN_GRID):
            size = min(MOST_IN_GRID, count - start)
            for images in decode_batches(session.model, draw(session, size, start)):
                list(writing)  # waits for the batch before, and raises its errors
                paths = [folder / f"{start + i:0{digits}d}.png" for i in range(len(images))]
                writing = writers.map(_write_png, paths, images) if first else ()
                start += len(images)
                bar.update(len(images))
        list(writing)
    print_once(f"{count:,} images in {target}")


def _write_png(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path, compress_level=1)  # a seventh larger, in a third of the time


def interpolate(session: Session) -> None:
    """Writes `interpolations.png`, one row per pair of images, exchanging codes step by step."""
    settings = session.model.config.sample
    picture = _interpolations(session, settings.interpolations, settings.steps)
    session.write("interpolations.png", picture)


STAGES: dict[str, Callable[[Session], dict[str, Any]]] = {
    "reconstruction": reconstruction,
    "perceptual": perceptual,
    "attributes": attributes,  # first of those that encode training images, only for speed
    "samples": samples,
    "distribution": distribution,
    "neighbours": neighbours,
    "copies": copies,
}
