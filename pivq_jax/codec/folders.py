"""Folders of images to files of codes, and back."""

import contextlib
from pathlib import Path

import jax
import numpy as np

from pivq_jax.codec.container import check_size, pack, pack_list
from pivq_jax.codec.files import batches_of, check_code, contents_of, open_file
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import (
    check_directory,
    check_lengths,
    check_new_folder,
    new_folder,
    write_atomically,
)
from pivq_jax.common.output import progress_bar
from pivq_jax.common.parallel import check_in_first_process, print_once
from pivq_jax.common.pictures import encode_png
from pivq_jax.common.psnr import psnr
from pivq_jax.data import is_image, list_images, png_names
from pivq_jax.inference import TrainedModel, decode_batched, describe_psnr, encoded_images
from pivq_jax.sampling import capacity


def compress(model: TrainedModel, source: Path, target: Path, code: str = "fixed") -> None:
    """Writes the codes of all images of a local folder to a file, local or remote; replaces it.

    One batch of images is in memory at a time, and the codes of all.
    """
    check_code(model, code)
    files = [Path(file).as_posix() for file in list_images(source)]
    pack_list(files)  # refuses names that no file can hold
    check_lengths(png_names(files), "give the image a shorter one")
    if code == "fixed":
        check_size(model.space.bytes_per_image * len(files), len(files))
    check_directory(target.parent, "--output")
    if target.is_dir():
        raise InputError(f"{target} is a folder: give the name of a file as --output")
    if isinstance(target, Path) and target.exists() and not target.is_file():  # such as /dev/null
        raise InputError(f"{target} is no file, and would become one: choose another --output")
    if is_image(target.name):  # it may be one of those to compress
        raise InputError(f"{target} is named like an image: give a name such as faces.pivq")
    names: list[str] = []
    codes: list[np.ndarray] = []
    psnrs: list[jax.Array] = []
    for images, encoded in encoded_images(model, source, files, "compressing"):
        names += images
        codes.append(encoded.astype(model.space.smallest_dtype))
        decoded = decode_batched(model, encoded)
        psnrs.append(psnr(decoded, np.stack([*images.values()]), 255.0))
    first = jax.process_index() == 0
    whole = np.concatenate(codes)
    with progress_bar(desc="coding", total=len(names), unit=" images", disable=not first) as bar:
        contents = contents_of(model, whole, names, code, bar.update)
    content = pack(contents)
    if first:
        write_atomically(target, content)
    measured, count = capacity(model.space, whole), len(names)
    code_bytes = len(contents.data)
    bits = " and ".join(
        f"{name} = {measured[name]:.1f} ({measured[name] / 8:.1f} bytes)"
        for name in ("ceiling_bits", "marginal_bits")
    )
    print_once(
        f"{count:,} images in {target}: {len(content):,} bytes; {code_bytes / count:.2f} bytes an"
        f" image for codes ({contents.code}), beside {bits}, and"
        f" {(len(content) - code_bytes) / count:.2f} for names and the rest"
    )
    if contents.code != code:
        print_once(
            f"written with the {contents.code} code, which is shorter here than the {code} one"
        )
    for line in describe_psnr(model, np.concatenate(psnrs)):
        print_once(line)


def decompress(model: TrainedModel, source: Path, target: Path) -> None:
    """Decodes a file of codes to a folder of PNG files, which appears once it is complete.

    The file may be remote; the folder is local, new or empty.
    """
    contents = open_file(source, model)
    files = list(png_names(contents.names))
    check_lengths(files, "read the file with pivq_jax.codec.read")
    check_in_first_process(lambda: check_new_folder(target, "--output"))
    first, names = jax.process_index() == 0, iter(files)
    with (
        new_folder(target) if first else contextlib.nullcontext(target) as folder,
        progress_bar(
            desc="decompressing", total=len(files), unit=" images", disable=not first
        ) as bar,
    ):
        for codes in batches_of(contents, model, model.config.evaluate.batch_size, str(source)):
            for image, name in zip(decode_batched(model, codes), names):
                if first:
                    _write_new(folder / name, encode_png(image))
            bar.update(len(codes))
    print_once(f"{len(files):,} images in {target}")


def _write_new(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError as error:  # upper and lower case, or two forms of an accent
        raise InputError(
            f"two images are named {path.name!r} on this file system: decompress them on one that"
            " tells upper from lower case"
        ) from error
