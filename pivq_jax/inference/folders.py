"""Folders of images through a trained model: encoded, and decoded to PNG files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from pivq_jax.common import files
from pivq_jax.common.errors import InputError
from pivq_jax.common.output import progress_bar
from pivq_jax.common.parallel import check_in_first_process, print_once
from pivq_jax.common.pictures import save_png
from pivq_jax.common.psnr import psnr
from pivq_jax.data import check_names, list_images, load_image, png_names
from pivq_jax.inference.splits import decode_batched, describe_psnr, encode_split
from pivq_jax.inference.trained_model import TrainedModel


def encoded_images(
    model: TrainedModel, source: Path, names: Sequence[str], doing: str
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yields the images of each batch of files by name, and their codes, int32 [B, N].

    Those that cannot be read are reported and left out. Raises InputError at the end if there was
    none to yield.
    """
    size, batch_size = model.config.data.image_size, model.config.evaluate.batch_size
    first, any_read = jax.process_index() == 0, False
    with progress_bar(desc=doing, total=len(names), unit=" images", disable=not first) as bar:
        for start in range(0, len(names), batch_size):
            images = {}
            for file in (batch := names[start : start + batch_size]):
                try:
                    images[file] = load_image(source / file, size)
                except InputError as error:
                    if first:
                        bar.write(f"skipped: {error}")
            if images:
                any_read = True
                yield images, encode_split(model, [{"image": x} for x in images.values()])
            bar.update(len(batch))
    if not any_read:
        raise InputError(f"no readable image in {source}: see the lines above")


def names_of_copies(source: Path, target: Path) -> dict[str, str]:
    """Returns the names that PNG files for the images of a folder have in another, by image.

    Raises InputError if a name cannot be written, or the other folder is one of the first, or holds
    other images.
    """
    files.check_apart(source, target, "--input")
    inputs = [Path(file).as_posix() for file in list_images(source)]
    check_names(inputs)
    names = dict(zip(inputs, png_names(inputs), strict=True))
    files.check_lengths(names.values(), "give the image a shorter one")
    check_in_first_process(lambda: files.check_no_others(target, {*names.values()}))
    return names


def write_decoded(
    model: TrainedModel,
    source: Path,
    target: Path,
    names: Mapping[str, str],
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """Writes the images of a folder, encoded and decoded, to another, and codes to `codes.json`.

    `names` are those of `names_of_copies`. Codes, int32 [B, N], are decoded as `change` returns
    them; without it, the PSNR is told. Files that cannot be read are reported and left out.
    """
    writes, psnrs = jax.process_index() == 0, []
    codes: dict[str, np.ndarray] = {}
    doing = "editing" if change else "reconstructing"
    for images, encoded in encoded_images(model, source, [*names], doing):
        if change:
            encoded = change(encoded)
        decoded = decode_batched(model, encoded)
        if not change:
            psnrs.append(psnr(decoded, np.stack([*images.values()]), 255.0))
        if writes and not codes:  # a killed command must not leave old codes beside new images
            (target / "codes.json").unlink(missing_ok=True)
        encoded = encoded.astype(model.space.smallest_dtype)
        for file, image, row in zip(images, decoded, encoded, strict=True):
            if writes:
                save_png(target / names[file], image)
            codes[file] = row
    if writes:
        for file in names.keys() - codes.keys():  # skipped: an earlier image may be there
            (target / names[file]).unlink(missing_ok=True)
        files.write_atomically(target / "codes.json", files.json_rows(codes))
    print_once(f"{len(codes):,} images and codes.json in {target}")
    if not change:
        for line in describe_psnr(model, np.concatenate(psnrs)):
            print_once(line)
