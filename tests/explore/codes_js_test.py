"""docs/explorer/codes.js beside `pivq_jax.codec`: each reads what the other writes."""

import numpy as np

from pivq_jax.codec.container import Contents, pack, parse
from pivq_jax.sampling import CodeSpace
from tests.explore.node import run_js

ID = "0123456789abcdef"
SIZES = [("matching", 16, 512), ("matching", 3, 4), ("matching", 6, 7), ("matching", 64, 2048)]
SIZES += [("nearest", 16, 512), ("nearest", 5, 2), ("nearest", 1, 9), ("positional", 16, 512)]
WRITE = """
const files = [];
for (const [codes, model] of given.images) files.push([...await writeCodes(codes, model)]);
answer(files);
"""
READ = """
const read = async ([file, model]) => {
  try { return await readCodes(Uint8Array.from(file), model); }
  catch (error) { return `${error.name}: ${error.message}`; }
};
answer(await Promise.all(given.files.map(read)));
"""


def model(kind: str = "matching", num_codes: int = 16, size: int = 512) -> dict:
    return {
        "id": ID,
        "kind": kind,
        "numCodes": num_codes,
        "codebookSize": size,
        "imageSize": 64,
    }


def draw(kind: str, num_codes: int, size: int) -> np.ndarray:
    """Codes, among them the first and the last ones of all."""
    rng = np.random.default_rng(0)
    codes = [rng.choice(size, num_codes, replace=kind != "matching") for _ in range(6)]
    if kind == "matching":
        codes += [np.arange(num_codes), np.arange(size)[-num_codes:]]
    else:
        codes += [np.zeros(num_codes, int), np.full(num_codes, size - 1)]
    return np.array(codes)


def written(codes: np.ndarray, **fields) -> bytes:
    """A file that Python writes, with other fields than those of `model()` if some are given."""
    contents = Contents("matching", "fixed", bytes.fromhex(ID), 16, 512, 64, b"", (), b"")
    names = tuple(f"{i}.png" for i in range(len(codes)))
    contents = contents._replace(names=names, **fields)
    if not contents.data:
        space = CodeSpace(codes.shape[1], contents.codebook_size, contents.kind)
        data = space.rank(codes).tobytes()
        contents = contents._replace(data=data)
    return pack(contents)


def test_each_reads_what_the_other_writes(tmp_path):
    images, spaces, canonical, theirs = [], [], [], []
    for kind, num_codes, size in SIZES:
        codes, given = draw(kind, num_codes, size), model(kind, num_codes, size)
        fields = {"kind": kind, "num_codes": num_codes, "codebook_size": size}
        canonical += (codes if kind == "positional" else np.sort(codes, axis=1)).tolist()
        for i in range(len(codes)):
            spaces.append(CodeSpace(num_codes, size, kind))
            images.append([codes[i].tolist(), given])
            theirs.append([list(written(codes[i:], **fields)), given])
    files = run_js("codes.js", "writeCodes", WRITE, tmp_path, images=images)
    for file, space, expected in zip(files, spaces, canonical, strict=True):
        contents = parse(bytes(file), "the file")
        assert contents.fingerprint.hex() == ID and contents.names == ("face",)
        assert (contents.kind, contents.code, contents.image_size) == (space.kind, "fixed", 64)
        ranks = np.frombuffer(contents.data, np.uint8)[None]
        assert space.unrank(ranks)[0].tolist() == expected
    assert run_js("codes.js", "readCodes", READ, tmp_path, files=theirs) == canonical


def test_other_files_are_refused(tmp_path):
    codes = draw("matching", 16, 512)
    whole = written(codes)
    files = {
        "is not a file of codes": b"",
        "is not a file of codes ": b"\x89PNG\r\n",
        "has version 9": whole[:4] + b"\x09" + whole[5:],
        "is damaged or incomplete": whole[:-1],
        "is damaged or incomplete ": whole[:60] + bytes([whole[60] ^ 1]) + whole[61:],
        "is damaged or incomplete: ": b"PIVQ\x01",
        "is of another model, fedcba9876543210": written(
            codes, fingerprint=bytes.fromhex("fedcba9876543210")
        ),
        "is of another model, 0123": written(codes, image_size=32),
        "is written with a prior": written(codes, code="prior", prior=bytes(4)),
        "is damaged": written(codes, data=b"\xff" * 13 * len(codes)),
        "is damaged or": written(codes, data=b"\x00"),
    }
    given = [[list(file), model()] for file in files.values()]
    answers = run_js("codes.js", "readCodes", READ, tmp_path, files=given)
    for expected, answer in zip(files, answers, strict=True):
        assert answer.startswith("BackendError: The file ") and expected.strip() in answer
