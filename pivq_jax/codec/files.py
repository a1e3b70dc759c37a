"""Files of codes, written and read with the model that the codes belong to."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pivq_jax.codec import bits_back, container
from pivq_jax.codec.container import Contents
from pivq_jax.codec.exact_prior import ExactPrior
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path, write_atomically
from pivq_jax.inference import TrainedModel

# Codes that `read` returns at most, 128 MiB. A file may have more: sets of nearly all entries take
# next to nothing.
MAX_CODES = 2**25
# Codes that are ranked before progress is told: where N is large, within half a minute.
_RANKED = 2**18


class ImageCodes(NamedTuple):
    """The codes of images with their names."""

    codes: npt.NDArray[np.int32]  # [M, N]
    names: tuple[str, ...]  # M of them


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
        names: M different names of up to 4,096 characters, which may be paths below a folder, with
            `/` between the parts. At most 2^20, and what they take in the file is limited too.
        code: `fixed`; or, for sets of a model with a prior, `prior` for the shorter of the two.

    Raises:
        InputError: if a name cannot be stored, there are no images, or the model does not have
            this code, or a prior that is still in training.
        ValueError: if the codes are not those of M images of this model.
    """
    write_atomically(as_path(str(path)), to_bytes(model, codes, names, code))


def to_bytes(
    model: TrainedModel, codes: npt.ArrayLike, names: Sequence[str], code: str = "fixed"
) -> bytes:
    """Returns what `write` writes; see there."""
    return container.pack(contents_of(model, codes, names, code))


def read(path: str | Path, model: TrainedModel) -> ImageCodes:
    """Reads a file of codes, local or remote, with the model that made them.

    Raises:
        InputError: if there is no such file, it is not a file of codes, is damaged, of another
            version, of another model, or written with a prior that the model does not have; or if
            it has more than 2^25 codes, which `pivq_jax.codec decompress` decodes.
    """
    return _decoded(open_file(path, model), model, str(path))


def from_bytes(
    content: bytes,
    model: TrainedModel,
    images: int | None = None,
    most: int | None = None,
) -> ImageCodes:
    """Reads the content of a file of codes, of the first `images` only if given; see `read`.

    A file of more than `most` images is refused before their names are read, a million of which
    take ten seconds. Raises ValueError if `images` is below 1.
    """
    if images is not None and images < 1:
        raise ValueError(f"images = {images}: read at least 1")
    return _decoded(_parse_own(content, model, "the file", most), model, "the file", images)


def _decoded(
    contents: Contents, model: TrainedModel, origin: str, images: int | None = None
) -> ImageCodes:
    names = contents.names[:images]
    count, num_codes = len(names), contents.num_codes
    if count * num_codes > MAX_CODES:
        raise InputError(
            f"{origin} has {count * num_codes:,} codes, more than {MAX_CODES:,}: read it with"
            " pivq_jax.codec decompress"
        )
    codes, start = np.empty((count, num_codes), np.int32), 0
    size = min(max(2**20 // num_codes, 1), count)
    for batch in batches_of(contents, model, size, origin):
        codes[start : start + size] = batch[: count - start]
        start += size
        # A file that is read to its end is checked for what follows the last code.
        if images is not None and start >= count:
            break
    return ImageCodes(codes, names)


def contents_of(
    model: TrainedModel,
    codes: npt.ArrayLike,
    names: Sequence[str],
    code: str,
    advance: Callable[[int], object] = lambda images: None,
) -> Contents:
    """Encodes codes, integers [M, N], as the contents of a file; see `write`.

    `advance` is called with numbers of images that are done.
    """
    check_code(model, code)
    space, codes = model.space, model.space.check(codes)
    if len(codes) != len(names):
        raise ValueError(
            f"codes have shape {codes.shape}: give [{len(names)}, {space.num_codes}] for the names"
        )
    ranks, size = [], max(_RANKED // space.num_codes, 1)
    for start in range(0, len(codes), size):
        part = codes[start : start + size]
        ranks.append(space.rank(part).tobytes())
        if code != "prior":  # which takes longer, and tells its own progress
            advance(len(part))
    fixed = Contents(
        kind=space.kind,
        code="fixed",
        fingerprint=model.fingerprint,
        num_codes=space.num_codes,
        codebook_size=space.codebook_size,
        image_size=model.config.data.image_size,
        prior=b"",
        names=tuple(names),
        data=b"".join(ranks),
    )
    if code == "fixed" or not len(codes):
        return fixed
    prior = ExactPrior(model.prior, space.num_codes)
    data = bits_back.encode_sets(codes, prior, advance)
    by_prior = fixed._replace(code="prior", prior=prior.fingerprint, data=data)
    return min(fixed, by_prior, key=lambda each: len(each.prior) + len(each.data))


def check_code(model: TrainedModel, code: str, to_write: bool = True) -> None:
    """Checks that a model has this code; to write, that training will not make it unreadable."""
    space = model.space
    if code not in container.CODES:
        raise InputError(f"code = {code!r} is unknown: use one of {', '.join(container.CODES)}")
    if code == "fixed":
        return
    if not space.distinct:
        raise InputError(
            f"the {code} code is for sets of distinct codes and this model is {space.kind}:"
            " use the fixed one"
        )
    ExactPrior(model.prior, space.num_codes)  # refuses what it cannot code with
    if to_write and model.prior and not model.prior.finished:
        raise InputError(
            "the prior of this model is not trained to its end, and its files could not be read"
            " after that: continue with pivq_jax.prior train, or use the fixed code"
        )


def open_file(path: str | Path, model: TrainedModel) -> Contents:
    """Reads and checks a file whose codes are not yet decoded."""
    file = as_path(str(path))
    if not file.is_file():
        raise InputError(f"no file {file}: give one that pivq_jax.codec compress wrote")
    with file.open("rb") as opened:
        content = opened.read(len(container.MAGIC))
        if content == container.MAGIC:  # otherwise it may be anything, and larger than the memory
            content += opened.read(container.MAX_FILE + 1 - len(content))
    return _parse_own(content, model, str(file))


def _parse_own(
    content: bytes, model: TrainedModel, origin: str, most: int | None = None
) -> Contents:
    """Parses a file and checks that its codes are those of a model, before they are decoded."""
    contents = container.parse(content, origin, most)
    space, own = model.space, model.fingerprint
    if contents.fingerprint != own:
        raise InputError(
            f"{origin} is of a model with fingerprint {contents.fingerprint.hex()}, and this one"
            f" has {own.hex()}: give the model that wrote it"
        )
    sizes = space.num_codes, space.codebook_size, model.config.data.image_size
    claimed = contents.num_codes, contents.codebook_size, contents.image_size
    if (contents.kind, *claimed) != (space.kind, *sizes):
        raise InputError(
            f"{origin} is of {contents.kind} codes with N, K and image size {claimed}, and this"
            f" model is {space.kind} with {sizes}: give the model that wrote it"
        )
    if contents.code == "fixed":
        expected = len(contents.names) * space.bytes_per_image
        if len(contents.data) != expected:
            raise InputError(
                f"{origin} is damaged: {len(contents.data)} bytes of codes, not {expected}"
            )
    else:
        prior = model.prior
        fingerprint = container.prior_fingerprint(prior.params).hex() if prior else "none"
        if contents.prior.hex() != fingerprint:
            raise InputError(
                f"{origin} is written with the prior with fingerprint {contents.prior.hex()}, and"
                f" that of this model is {fingerprint}: give the model with the prior that wrote it"
            )
    check_code(model, contents.code, to_write=False)
    return contents


def batches_of(
    contents: Contents, model: TrainedModel, batch_size: int, origin: str
) -> Iterator[npt.NDArray[np.int32]]:
    """Decodes the codes of a file: yields int32 [m, N] with m <= batch_size."""
    count, space = len(contents.names), model.space
    try:
        if contents.code == "fixed":
            ranks = np.frombuffer(contents.data, np.uint8).reshape(count, space.bytes_per_image)
            for start in range(0, count, batch_size):
                yield space.unrank(ranks[start : start + batch_size], start)
            return
        prior = ExactPrior(model.prior, space.num_codes)
        sets = bits_back.decode_sets(contents.data, count, prior)
        while batch := list(itertools.islice(sets, batch_size)):
            yield np.array(batch, np.int32)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error
