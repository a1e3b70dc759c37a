"""The file of codes, to the bit: docs/codec.md has a table of its parts.

It is a head of numbers, their most significant byte first; a compressed list of what the code needs
and of the names; the codes; and a checksum, the first bytes of SHA-256 of all before it.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from pivq_jax.codec.fingerprints import PRIOR_BYTES
from pivq_jax.codec.names import MAX_NAMES, check_names
from pivq_jax.common.errors import InputError

MAGIC = b"PIVQ"
VERSIONS = (1, 2)
KINDS = ("matching", "nearest", "positional")
CODES = ("fixed", "short", "prior")
# Bytes of the list before compression, and of a whole file. With `MAX_NAMES`, a reader takes less
# than 256 MiB whatever a file claims.
MAX_LIST = 2**24
MAX_FILE = 3 * 2**24
CHECKSUM_BYTES = 8

# "PIVQ"; version, kind, code; fingerprint; N, K, image size, M, and the length of the list.
_HEAD = struct.Struct(">4sBBB8s5I")


class Contents(NamedTuple):
    """What a file holds."""

    kind: str  # one of `KINDS`
    code: str  # one of `CODES`
    fingerprint: bytes  # of the model, 8 bytes; see `fingerprint`
    num_codes: int  # N, of an image
    codebook_size: int  # K
    image_size: int  # height and width of the images in pixels
    table: bytes  # `short`: level of each entry; `prior`: its fingerprint; otherwise empty
    names: tuple[str, ...]  # of the images, M
    data: bytes  # the codes of the images, one after another


def pack(contents: Contents) -> bytes:
    """Returns the bytes of a file; refuses no images, names as `check_names` does, and too much."""
    if not contents.names:
        raise InputError("there are no images: give at least one")
    check_names(contents.names)
    listed = contents.table + b"".join(name.encode() + b"\0" for name in contents.names)
    check_listed(len(listed), len(contents.names))
    compressed = zlib.compress(listed, 9)
    head = _HEAD.pack(
        MAGIC,
        _version(contents.code),
        KINDS.index(contents.kind),
        CODES.index(contents.code),
        contents.fingerprint,
        contents.num_codes,
        contents.codebook_size,
        contents.image_size,
        len(contents.names),
        len(compressed),
    )
    body = head + compressed + contents.data
    check_size(len(body) + CHECKSUM_BYTES, f"{len(contents.names):,} images")
    return body + _checksum(body)


def check_listed(size: int, images: int) -> None:
    """Checks the bytes of a list of names."""
    if size > MAX_LIST:
        raise InputError(
            f"the names of {images:,} images take {size:,} bytes, more than {MAX_LIST:,}: write"
            " several files"
        )


def check_size(size: int, what: str) -> None:
    """Checks that a file is not too large to be read; `what` takes the bytes, for the message."""
    if size > MAX_FILE:
        raise InputError(
            f"{what} take {size:,} bytes, more than {MAX_FILE:,} in a file: write several files"
        )


def parse(content: bytes, origin: str) -> Contents:
    """Reads the bytes of a file, whose head is believed only as far as bytes are there.

    Nothing is known about `data` but that it is what was written.
    """
    if len(content) > MAX_FILE:
        raise InputError(f"{origin} has more than {MAX_FILE:,} bytes: give one of fewer images")
    if content[:4] != MAGIC:
        raise InputError(f"{origin} is not a file of codes: give one that --mode=compress wrote")
    version = content[4:5]
    if version and version[0] not in VERSIONS:
        raise InputError(
            f"{origin} has version {version[0]} of the format and this program reads versions"
            f" {' and '.join(map(str, VERSIONS))}: use the version of pivq_jax that wrote it"
        )
    body, checksum = memoryview(content)[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    if len(body) < _HEAD.size or _checksum(body) != checksum:
        raise InputError(f"{origin} is damaged or incomplete: copy it again")
    _, _, kind, code, fingerprint, n, k, image_size, count, listed = _HEAD.unpack_from(body)
    end = _HEAD.size + listed
    known = kind < len(KINDS) and code < len(CODES) and version[0] == _version(CODES[code])
    if not known or end > len(body):
        raise InputError(f"{origin} is damaged: its head is wrong")
    size = {"fixed": 0, "short": k, "prior": PRIOR_BYTES}[CODES[code]]
    try:
        table, names = _read_list(body[_HEAD.size : end], size, count)
    except InputError as error:
        raise InputError(f"{origin} is damaged: {error}") from error
    return Contents(
        KINDS[kind], CODES[code], fingerprint, n, k, image_size, table, names, bytes(body[end:])
    )


def _version(code: str) -> int:
    """The first version with this code, so that older programs read all that they can."""
    return 2 if code == "prior" else 1


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
