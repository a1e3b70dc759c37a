"""The format of files in docs/codec_format.md: its test vectors, and what is refused."""

import hashlib
import struct
import zlib

import numpy as np
import pytest

from pivq_jax.codec import bits_back, container
from pivq_jax.codec.container import MAX_LIST, Contents, pack, parse
from pivq_jax.codec.exact_prior import ExactPrior
from pivq_jax.common.errors import InputError
from pivq_jax.sampling import CodeSpace
from pivq_jax.sampling.prior import SetPrior
from tests.codec.priors import counted_prior

CODES = np.array([[0, 1, 2], [1, 4, 7], [0, 1, 7]])
FIXED = Contents(
    kind="matching",
    code="fixed",
    fingerprint=bytes(range(1, 9)),
    num_codes=3,
    codebook_size=8,
    image_size=16,
    prior=b"",
    names=("a.png", "b/c.jpg", "ü.png"),
    data=bytes([0, 32, 5]),
)
PRIOR = FIXED._replace(
    code="prior", prior=bytes.fromhex("61bde0d8"), data=bytes.fromhex("0b4539831a")
)
TEXTS = {
    FIXED: "50495651 01 00 00 0102030405060708 00000003 00000008 00000010 00000003 0000001a"
    " 78da4bd42bc84b6748d24fd6cb2a486738bc07cc05004d0c072a"
    " 002005 8c1e2684ca462d2c",
    PRIOR: "50495651 01 00 01 0102030405060708 00000003 00000008 00000010 00000003 0000001e"
    " 78da4bdcfbe046a25e415e3a43927eb25e56413ac3e13d602e008ef10a00"
    " 0b4539831a e4d218dfcdb04719",
}
VECTORS = [(contents, bytes.fromhex(text)) for contents, text in TEXTS.items()]
each_vector = pytest.mark.parametrize("contents, content", VECTORS, ids=("fixed", "prior"))


def finish(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()[:8]


def head(listed: bytes, *, kind=0, code=0, n=3, k=8, size=16, count=3, length=None) -> bytes:
    numbers = (n, k, size, count, len(listed) if length is None else length)
    start = struct.pack(">4sBBB8s5I", b"PIVQ", 1, kind, code, bytes(8), *numbers)
    return start + listed


@each_vector
def test_the_vectors_are_read_and_written(contents, content):
    assert parse(content, "file") == contents
    written = pack(contents)
    assert parse(written, "file") == contents
    # Another zlib may compress the list otherwise.
    assert written[:31] == content[:31]
    (length,) = struct.unpack(">I", written[31:35])
    listed = b"a.png\0b/c.jpg\0\xc3\xbc.png\0"
    assert zlib.decompress(written[35 : 35 + length]) == contents.prior + listed
    assert written[35 + length :] == finish(written[:-8])[35 + length :]
    assert written[35 + length : -8] == contents.data


def test_the_codes_of_the_vectors():
    np.testing.assert_array_equal(
        CodeSpace(3, 8).unrank(np.array([[0], [32], [5]], np.uint8)), CODES
    )
    assert CodeSpace(3, 8).rank(CODES).tobytes() == FIXED.data
    prior = ExactPrior(counted_prior(SetPrior(8, width=4, depth=1, heads=2)), 3)
    assert prior.fingerprint == PRIOR.prior
    assert bits_back.encode_sets(CODES, prior) == PRIOR.data
    assert list(bits_back.decode_sets(PRIOR.data, 3, prior)) == CODES.tolist()


@each_vector
def test_every_change_cut_and_addition_is_noticed(contents, content):
    wrong = [content + b"\0", *(content[:length] for length in range(len(content)))]
    for index, byte in enumerate(content):
        wrong += [content[:index] + bytes([byte ^ x]) + content[index + 1 :] for x in (1, 128, 255)]
    for each in wrong:
        with pytest.raises(InputError):
            parse(each, "file")


def test_another_version_and_another_kind_of_file_are_named():
    content = bytes.fromhex(TEXTS[FIXED])
    with pytest.raises(InputError, match=r"version 2 of the format .* reads 1: use"):
        parse(finish(content[:4] + b"\2" + content[5:-8]), "file")
    with pytest.raises(InputError, match=r"photo\.png is not a file of codes"):
        parse(b"\x89PNG\r\n\x1a\n", "photo.png")


NAMES = zlib.compress(b"a\0b\0c\0")


@pytest.mark.parametrize(
    "body, words",
    [
        (head(NAMES, kind=3), "its head is wrong"),
        (head(NAMES, code=2), "its head is wrong"),
        (head(NAMES, length=2**32 - 1), "its head is wrong"),
        (head(NAMES, length=3), "its list has another length"),
        (head(NAMES + b"x"), "its list has another length"),
        (head(zlib.compress(bytes(MAX_LIST + 1), 1), count=MAX_LIST), "another length"),
        (head(b"no zlib"), "cannot be decompressed"),
        (head(zlib.compress(b"123"), code=1, count=1), "does not hold 1 names"),
        (head(NAMES, count=2**32 - 1), "does not hold 4,294,967,295 names"),
        (head(zlib.compress(b""), count=0), "does not hold 0 names"),
        (head(zlib.compress(b"a\0b\0c\0d")), "does not hold 3 names"),
        (head(zlib.compress(b"a\0\xff\0c\0")), "not UTF-8"),
        (head(zlib.compress(b"a\0../b\0c\0")), "not a path below a folder"),
        (head(zlib.compress(b"a\0b\0a\0")), "two images would become 'a.png'"),
    ],
    ids=range(14),
)
def test_claims_of_a_head_are_believed_only_as_far_as_bytes_are_there(body, words):
    with pytest.raises(InputError, match=f"^file is damaged: .*{words}"):
        parse(finish(body), "file")


def test_no_images_and_too_long_names_are_refused(monkeypatch):
    monkeypatch.setattr(container, "MAX_LIST", 100)
    with pytest.raises(InputError, match="no images"):
        pack(FIXED._replace(names=()))
    with pytest.raises(InputError, match="names of 2 images take 101 bytes, more than 100"):
        pack(FIXED._replace(names=("x" * 49, "y" * 50)))
