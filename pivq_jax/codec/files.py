"""Files of codes, written and read with the model that the codes belong to."""

import hashlib
import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pivq_jax.codec.conditional import decode_sets, encode_sets, inclusion_table
from pivq_jax.codec.container import CODES, MAGIC, Contents, pack, parse
from pivq_jax.codec.enumeration import bytes_per_image, check_codes, rank, unrank
from pivq_jax.codec.frequencies import entry_levels, weights_of
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path, write_atomically
from pivq_jax.inference import TrainedModel
from pivq_jax.interop import to_torch

# Entries of the largest table of probabilities: seconds and 64 MiB.
MAX_TABLE = 2**24


class ImageCodes(NamedTuple):
    """The codes of images with their names.

    Attributes:
        codes: int32 [M, N].
        names: M names.
    """

    codes: npt.NDArray[np.int32]
    names: tuple[str, ...]


def fingerprint(params: Any) -> bytes:
    """Returns a fingerprint of the weights of a model; the step and the config do not matter.

    It is that of the arrays of a published `model.safetensors`: the first bytes of SHA-256 of, for
    each array in order of its name, the name and its shape as in `(2, 3)`, each followed by a line
    break, and its values as float32, the least significant byte first.

    Args:
        params: parameters, a tree of float32 arrays.

    Returns:
        8 bytes.
    """
    digest = hashlib.sha256()
    for name, array in sorted(to_torch(params).items()):
        digest.update(f"{name}\n{array.shape}\n".encode())
        digest.update(array.astype("<f4", copy=False).tobytes())
    return digest.digest()[:8]


def write(
    path: str | Path,
    model: TrainedModel,
    codes: npt.ArrayLike,
    names: Sequence[str],
    code: str = "fixed",
) -> None:
    """Writes codes of images to a file, atomically.

    Args:
        path: the file, local or remote, replaced if it exists; the usual suffix is `.pivq`.
        model: the model that made the codes.
        codes: integers [M, N], M at least 1, as `TrainedModel.encode` returns them.
        names: M names, all different; see `check_names`.
        code: `fixed`, or `short` for the shorter one of the two, for sets only.

    Raises:
        InputError: if a name cannot be stored, there are no images, or the model has no short code.
        ValueError: if the codes are not those of M images of this model.
    """
    write_atomically(as_path(str(path)), pack(contents_of(model, codes, names, code)))


def read(path: str | Path, model: TrainedModel) -> ImageCodes:
    """Reads a file of codes.

    Args:
        path: the file, local or remote.
        model: the model that made the codes.

    Returns:
        The codes and the names.

    Raises:
        InputError: if there is no such file, it is not a file of codes, is damaged, of another
            version or of another model.
    """
    contents = open_file(path, model)
    codes = list(batches_of(contents, len(contents.names), str(path)))
    return ImageCodes(np.concatenate(codes), contents.names)


def contents_of(
    model: TrainedModel, codes: npt.ArrayLike, names: Sequence[str], code: str
) -> Contents:
    """Encodes the codes of images; see `write`.

    Args:
        model: the model that made the codes.
        codes: integers [M, N].
        names: M names.
        code: `fixed` or `short`.

    Returns:
        The contents of a file. For `short`, their `code` is `fixed` if that is shorter.

    Raises:
        InputError: if the model has no short code.
        ValueError: if the codes are not those of M images of this model.
    """
    config, codes = model.config, np.asarray(codes)
    num_codes, size = config.model.num_codes, config.quantizer.codebook_size
    check_short(model, code)
    check_codes(codes, size, model.kind)
    if codes.shape != (len(names), num_codes):
        raise ValueError(
            f"codes have shape {codes.shape}: give [{len(names)}, {num_codes}] for the names"
        )
    data, levels = rank(codes, size, model.kind).tobytes(), b""
    if code == "short" and len(codes):
        found = entry_levels(codes, size)
        table = inclusion_table(weights_of(found), num_codes)
        shorter = encode_sets(np.sort(codes, axis=1), table)
        if len(shorter) + len(zlib.compress(found, 9)) < len(data):
            data, levels = shorter, found
    return Contents(
        model.kind,
        "short" if levels else "fixed",
        fingerprint(model.params),
        num_codes,
        size,
        config.data.image_size,
        levels,
        tuple(names),
        data,
    )


def check_short(model: TrainedModel, code: str) -> None:
    """Checks that the codes of a model can be encoded as asked for.

    Args:
        model: the model.
        code: `fixed` or `short`.

    Raises:
        InputError: if they cannot.
    """
    if code not in CODES:
        raise InputError(f"code = {code!r} is unknown: use one of {', '.join(CODES)}")
    if code == "fixed":
        return
    if model.kind != "matching":
        raise InputError(
            f"the short code is for sets of distinct codes and this model is {model.kind}: use"
            " the fixed one"
        )
    entries = model.config.model.num_codes * model.config.quantizer.codebook_size
    if entries > MAX_TABLE:
        raise InputError(
            f"the short code needs a table of N x K = {entries:,} probabilities, more than"
            f" {MAX_TABLE:,}: use the fixed one"
        )


def open_file(path: str | Path, model: TrainedModel) -> Contents:
    """Reads and checks a file whose codes are not yet decoded.

    Args:
        path: the file, local or remote.
        model: the model that made the codes.

    Returns:
        The contents.

    Raises:
        InputError: as in `read`.
    """
    file = as_path(str(path))
    if not file.is_file():
        raise InputError(f"no file {file}: give one that --mode=compress wrote")
    with file.open("rb") as opened:
        start = opened.read(len(MAGIC))
        # Any other file may be larger than the memory.
        contents = parse(start + opened.read() if start == MAGIC else start, str(file))
    check_contents(contents, model, str(file))
    return contents


def check_contents(contents: Contents, model: TrainedModel, origin: str) -> None:
    """Checks that the codes of a file are those of a model, before they are decoded.

    Args:
        contents: a result of `parse`.
        model: the model that made the codes.
        origin: name of the file for error messages.

    Raises:
        InputError: as in `read`.
    """
    config, own = model.config, fingerprint(model.params)
    if contents.fingerprint != own:
        raise InputError(
            f"{origin} is of a model with fingerprint {contents.fingerprint.hex()}, and this one"
            f" has {own.hex()}: give the model that wrote it"
        )
    sizes = config.model.num_codes, config.quantizer.codebook_size, config.data.image_size
    claimed = contents.num_codes, contents.codebook_size, contents.image_size
    if (contents.kind, *claimed) != (model.kind, *sizes):
        raise InputError(
            f"{origin} is of {contents.kind} codes with N, K and image size {claimed}, and this"
            f" model is {model.kind} with {sizes}: give the model that wrote it"
        )
    if contents.code == "fixed":
        expected = len(contents.names) * bytes_per_image(*sizes[:2], model.kind)
        if len(contents.data) != expected:
            raise InputError(
                f"{origin} is damaged: {len(contents.data)} bytes of codes, not {expected}"
            )
    else:
        check_short(model, "short")


def batches_of(contents: Contents, batch_size: int, origin: str) -> Iterator[npt.NDArray[np.int32]]:
    """Decodes the codes of a file.

    Args:
        contents: the result of `open_file`.
        batch_size: number of images decoded at once.
        origin: name of the file for error messages.

    Yields:
        int32 [m, N] with m <= batch_size.

    Raises:
        InputError: if the codes are damaged.
    """
    count, n, k = len(contents.names), contents.num_codes, contents.codebook_size
    try:
        if contents.code == "fixed":
            size = bytes_per_image(n, k, contents.kind)
            ranks = np.frombuffer(contents.data, np.uint8).reshape(count, size)
            for start in range(0, count, batch_size):
                yield unrank(ranks[start : start + batch_size], n, k, contents.kind)
            return
        table = inclusion_table(weights_of(contents.levels), n)
        sets = decode_sets(contents.data, count, n, table)
        while batch := list(itertools.islice(sets, batch_size)):
            yield np.array(batch, np.int32)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error
