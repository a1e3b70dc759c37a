"""The file of codes, to the bit: docs/codec_format.md has a table of its parts.

It has a head of numbers, most significant byte first; a compressed list of what the code needs and
of the names; the codes; and a checksum, which is the first bytes of SHA-256 of all before it.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from flax import traverse_util

from pivq_jax.common.errors import InputError
from pivq_jax.common.weights import digest
from pivq_jax.data import MAX_NAMES, check_names

MAGIC = b"PIVQ"
KINDS = ("matching", "nearest", "positional")
VERSION = 1  # of the format
CODES = ("fixed", "prior")
# Bytes of the list before compression, and of a whole file. With `MAX_NAMES`, a reader takes less
# than 256 MiB whatever a file claims.
MAX_LIST = 2**24
MAX_FILE = 3 * 2**24
PRIOR_BYTES = 4
CHECKSUM_BYTES = 8

# "PIVQ"; version, kind, code; fingerprint; N, K, image size, M, and the length of the list.
_HEAD = struct.Struct(">4sBBB8s5I")


class Contents(NamedTuple):
    """What a file holds."""

    kind: str  # one of `KINDS`
    code: str  # one of `CODES`
    fingerprint: bytes  # `TrainedModel.fingerprint`, 8 bytes
    num_codes: int  # N, of an image
    codebook_size: int  # K
    image_size: int  # height and width of the images in pixels
    prior: bytes  # fingerprint of the prior, 4 bytes; of the fixed code: empty
    names: tuple[str, ...]  # of the images, M
    data: bytes  # the codes of the images, one after another


def prior_fingerprint(params: Any) -> bytes:
    """Returns a fingerprint of the weights of a prior: that of its published `prior.safetensors`.

    It has 4 bytes, half the length, as it only tells priors over the codes of one model apart.
    """
    return digest(traverse_util.flatten_dict(params, sep="/"))[:PRIOR_BYTES]


def pack(contents: Contents) -> bytes:
    """Returns the bytes of a file; refuses no images, names as `check_names` does, and too much."""
    if not contents.names:
        raise InputError("there are no images: give at least one")
    listed = zlib.compress(pack_list(contents.names, contents.prior), 9)
    kinds = VERSION, KINDS.index(contents.kind), CODES.index(contents.code)
    sizes = contents.num_codes, contents.codebook_size, contents.image_size
    counts = len(contents.names), len(listed)
    body = _HEAD.pack(MAGIC, *kinds, contents.fingerprint, *sizes, *counts) + listed + contents.data
    check_size(len(body) + CHECKSUM_BYTES, len(contents.names))
    return body + _checksum(body)


def pack_list(names: Sequence[str], prior: bytes = b"") -> bytes:
    """Returns the list before compression; refuses names as `check_names` does, and too much."""
    check_names(names)
    size = len(prior) + sum(len(name.encode()) + 1 for name in names)
    if size > MAX_LIST:
        raise InputError(
            f"the names of {len(names):,} images take {size:,} bytes, more than {MAX_LIST:,}: write"
            " several files"
        )
    return prior + b"".join(name.encode() + b"\0" for name in names)


def check_size(size: int, images: int) -> None:
    """Checks that a file is not too large to be read."""
    if size > MAX_FILE:
        raise InputError(
            f"{images:,} images take {size:,} bytes, more than {MAX_FILE:,} in a file: write"
            f" several files, of some {MAX_FILE * images // size:,} images at most"
        )


def parse(content: bytes, origin: str, most: int | None = None) -> Contents:
    """Reads the bytes of a file of up to `most` images.

    Its head is believed only as far as bytes are there. Nothing is known of `data` but that it is
    what was written.
    """
    if content[:4] != MAGIC:
        raise InputError(
            f"{origin} is not a file of codes: give one that pivq_jax.codec compress wrote"
        )
    if len(content) > MAX_FILE:
        raise InputError(f"{origin} has more than {MAX_FILE:,} bytes: give one of fewer images")
    if content[4:5] not in (b"", bytes([VERSION])):
        raise InputError(
            f"{origin} has version {content[4]} of the format and this program reads {VERSION}: use"
            " the version of pivq_jax that wrote it"
        )
    body, checksum = memoryview(content)[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    if len(body) < _HEAD.size or _checksum(body) != checksum:
        raise InputError(f"{origin} is damaged or incomplete: copy it again")
    _, _, kind, number, model, n, k, image_size, count, listed = _HEAD.unpack_from(body)
    end = _HEAD.size + listed
    if number >= len(CODES) or kind >= len(KINDS) or end > len(body):
        raise InputError(f"{origin} is damaged: its head is wrong")
    if most is not None and count > most:
        raise InputError(f"{origin} has {count:,} images, more than {most:,}: give one of fewer")
    code = CODES[number]
    size = PRIOR_BYTES if code == "prior" else 0
    try:
        prior, names = _read_list(body[_HEAD.size : end], size, count)
    except InputError as error:
        raise InputError(f"{origin} is damaged: {error}") from error
    return Contents(KINDS[kind], code, model, n, k, image_size, prior, names, bytes(body[end:]))


def _read_list(compressed: memoryview, size: int, count: int) -> tuple[bytes, tuple[str, ...]]:
    stream = zlib.decompressobj()
    try:
        listed = stream.decompress(compressed, MAX_LIST + 1)
    except zlib.error as error:
        raise InputError("its list cannot be decompressed") from error
    if not stream.eof or stream.unused_data or len(listed) > MAX_LIST:
        raise InputError("its list has another length than its head says")
    if not 0 < count <= MAX_NAMES or listed.count(b"\0", size) != count or listed[-1:] != b"\0":
        raise InputError(f"its list does not hold {count:,} names")
    check_names(_split(listed, size))
    return listed[:size], tuple(_split(listed, size))


def _split(listed: bytes, start: int) -> Iterator[str]:
    """Yields the names one at a time, so that no more are taken apart than are good."""
    while start < len(listed):
        end = listed.index(b"\0", start)
        try:
            yield listed[start:end].decode()
        except UnicodeDecodeError as error:
            raise InputError("a name is not UTF-8") from error
        start = end + 1


def _checksum(body: bytes | memoryview) -> bytes:
    return hashlib.sha256(body).digest()[:CHECKSUM_BYTES]
