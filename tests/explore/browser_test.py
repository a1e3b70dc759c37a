"""The explorer without a server, in Chromium: the same codes and images as with one."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.explore_browser import serving
from docs.build_explorer import album, main
from pivq_jax import sampling
from pivq_jax.explore.engine import read_image
from tests.explore.browser import assert_same_image

pytestmark = pytest.mark.slow

BACKEND = """
async (given) => {
  const { BrowserBackend } = await import("/browser.js");
  const backend = globalThis.tested ??= new BrowserBackend();
  globalThis.opened ??= await backend.open(() => {});
  const plain = (value) => {
    if (value instanceof ImageData) return { width: value.width, data: [...value.data] };
    if (Array.isArray(value)) return value.map(plain);
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, plain(part)]));
    }
    return value;
  };
  if (given.method === "open") return globalThis.opened;
  if (given.method === "encode") {
    const bytes = Uint8Array.from(atob(given.arguments[0]), (letter) => letter.charCodeAt(0));
    given.arguments[0] = new Blob([bytes]);
  }
  try {
    return plain(await backend[given.method](...given.arguments));
  } catch (error) {
    if (error.name === "BackendError") return { error: error.message };
    throw error;
  }
}
"""


@pytest.fixture(scope="module")
def page(folder, browser) -> Iterator[Any]:
    """The page, open; at the end it must have reported no error."""
    faults: list[str] = []
    with serving(folder) as address:
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.on("console", lambda it: faults.append(it.text) if it.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#explorer:not([hidden])")
        yield page
        page.close()
    assert faults == []


def call(page: Any, method: str, *arguments: Any) -> Any:
    return page.evaluate(BACKEND, {"method": method, "arguments": arguments})


def pixels(image: dict) -> np.ndarray:
    rgba = np.reshape(image["data"], (image["width"], image["width"], 4))
    assert (rgba[..., 3] == 255).all()
    return rgba[..., :3]


def random_sets(count: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.permutation(32)[:8].tolist() for _ in range(count)]


def test_the_model_is_described_as_by_the_server(page, engine):
    found, expected = call(page, "open"), engine.describe()
    assert found == expected and found["examples"] == 128


def test_the_folder_names_no_path_of_this_machine(folder, engine):
    assert json.loads((folder / "explorer.json").read_text())["testCodes"]
    for file in folder.iterdir():
        assert str(folder.parent).encode() not in file.read_bytes()


def test_images_to_choose_from_are_those_of_the_server(page, engine):
    for found, expected in zip(call(page, "examples", 3, 5), engine.examples(3, 5), strict=True):
        np.testing.assert_array_equal(pixels(found), expected)
    assert len(call(page, "examples", 120, 48)) == 8
    assert "no test image 128" in call(page, "example", 128)["error"]
    for index in (0, 127):
        found, expected = call(page, "example", index), engine.example(index)
        assert (found["name"], found["codes"]) == (expected.name, expected.codes.tolist())
        np.testing.assert_array_equal(pixels(found["image"]), expected.image)


def test_sets_are_decoded_to_the_same_images(page, engine):
    sets = random_sets(4)
    for found, expected in zip(
        call(page, "decode", sets), engine.decode(np.array(sets)), strict=True
    ):
        assert_same_image(pixels(found), expected)
    (shuffled,) = call(page, "decode", [sets[0][::-1]])
    assert shuffled == call(page, "decode", sets[:1])[0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_own_image_has_the_same_codes(page, engine, kind):
    content = io.BytesIO()
    noise = np.random.default_rng(2).integers(0, 256, (30, 41, 3), np.uint8)
    Image.fromarray(noise).save(content, kind, quality=95)
    found = call(page, "encode", base64.b64encode(content.getvalue()).decode(), "own.png")
    image = read_image(content.getvalue(), engine.size)
    assert found["name"] == "own.png" and found["codes"] == engine.encode(image).tolist()
    if kind == "PNG":
        np.testing.assert_array_equal(pixels(found["image"]), image)
    else:  # decoders round differently
        assert np.abs(pixels(found["image"]) - image.astype(int)).max() <= 3


def test_what_is_no_image_is_refused(page):
    for content in (b"GIF89a", b"\x89PNG\r\n\x1a\n and nothing of use", b""):
        answer = call(page, "encode", base64.b64encode(content).decode(), "x.png")
        assert answer["error"].startswith("The file is no PNG or JPEG image")


def test_sets_are_paired_alike(page, engine):
    for a, b in zip(random_sets(10), random_sets(20)[10:], strict=True):
        found, expected = call(page, "pair", a, b), engine.pair(np.array(a), np.array(b))
        assert found["a"] == expected.a.tolist() and found["b"] == expected.b.tolist()
        np.testing.assert_allclose(found["cost"], expected.cost, rtol=1e-4, atol=1e-5)


def test_a_new_face_is_of_two_training_images(page, engine):
    codes = engine.pool.codes.tolist()
    for _ in range(5):
        face = call(page, "recombine")
        a, b = face["a"], face["b"]
        for parent in (a, b):
            index = int(parent["name"].removeprefix("training image "))
            assert parent["codes"] == codes[index]
            np.testing.assert_array_equal(
                pixels(parent["image"]), engine.dataset.train[index]["image"]
            )
        assert a["name"] != b["name"]
        paired, partners, _ = map(
            np.asarray,
            sampling.pair_codes(
                engine.model.space,
                engine.model.codebook,
                np.array(a["codes"]),
                np.array(b["codes"]),
            ),
        )
        assert face["pairs"]["a"] == paired.tolist() and face["pairs"]["b"] == partners.tolist()
        exchanged = np.array(face["codes"]) != paired
        assert (np.where(exchanged, partners, paired) == face["codes"]).all()
        pairs = (paired != partners).sum()
        assert abs(exchanged.sum() - round(pairs / 2)) <= round(pairs / 8)


def test_the_nearest_training_image_is_the_same(page, engine):
    for codes in random_sets(3):
        found, expected = call(page, "nearest", codes), engine.nearest(np.array(codes))
        assert found["picture"]["name"] == expected.picture.name
        assert found["picture"]["codes"] == expected.picture.codes.tolist()
        assert found["searched"] == expected.searched == len(engine.pool.codes)
        assert abs(found["difference"] - expected.difference) < 0.1


def test_a_file_of_codes_is_the_same_on_both_sides(page, engine):
    (codes,) = random_sets(1)
    both = """async (codes) => {
      const { name, file } = await globalThis.tested.writeCodes(codes);
      const read = await globalThis.tested.readCodes(file);
      return { name, read, file: [...new Uint8Array(await file.arrayBuffer())] };
    }"""
    found = page.evaluate(both, codes)
    assert found["name"] == "face.pivq" and found["read"] == sorted(codes)
    assert engine.read_codes(bytes(found["file"])).tolist() == sorted(codes)
    read = """async (file) =>
      globalThis.tested.readCodes(new Blob([Uint8Array.from(file)]))"""
    theirs = engine.write_codes(np.array(codes))
    assert page.evaluate(read, list(theirs)) == sorted(codes)


def test_neighbours_are_the_same(page, engine):
    for code in (0, 31):
        assert call(page, "neighbours", code) == engine.neighbours(code).tolist()


def test_images_lie_in_rows():
    images = [{"image": np.full((2, 2, 3), i, np.uint8)} for i in range(1, 6)]
    picture = album(images)[..., 0]
    assert picture.shape == (4, 6)
    np.testing.assert_array_equal(picture[::2, ::2], [[1, 2, 3], [4, 5, 0]])


@pytest.mark.parametrize(
    "model, output, message",
    [
        ("--workdir={}/none", "new", "holds no run"),
        ("--pretrained={}/none", "new", "none"),
        ("--pretrained=toon_faces", "full", "exists and is no explorer"),
    ],
)
def test_what_cannot_be_built_is_refused(capsys, tmp_path, model, output, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("precious")
    assert main([model.format(tmp_path), f"--output={tmp_path / output}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
