"""Portraits: labels from prompts, splits by prompt, and the list of what is left out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pivq_jax.config import load_config
from pivq_jax.data import load_dataset, portraits
from pivq_jax.data.skip_list import read_skip_list
from pivq_jax.data.splits import groups_by
from tests.data.conftest import examples

SKIP = Path(portraits.__file__).parents[2] / "configs" / "portraits_skip.txt"


@pytest.mark.parametrize(
    "prompt, labels",
    [
        ("a-YOUNG-Woman", {"gender": "woman", "age": "young"}),
        ("Old-elf-blue-eyed-with-black-hair", {"eyes": "blue", "hair": "black", "kind": "elf"}),
        ("green-eyes-and-long-curly-red-hair", {"eyes": "green", "hair": "red"}),
        ("pale-skin-black-eyes-white-haired", {"eyes": "black", "hair": "grey"}),
        ("half-pink-half-purple-hair", {"hair": "unknown"}),
        ("redhead-with-golden-eyes", {"hair": "red", "eyes": "yellow"}),
        ("bald-man-with-black-beard", {"hair": "bald", "beard": "yes", "gender": "man"}),
        ("knight-without-beard-no-beard", {"beard": "no"}),
        ("30-year-old-orc", {"age": "unknown", "kind": "orc"}),
        ("old-painting-of-a-vampire", {"age": "unknown", "kind": "vampire"}),
        ("man-like-a-princess", {"gender": "unknown"}),
        ("blue-skinned-warrior-hair", {"hair": "unknown"}),
        ("womanizer-orchard-goldfish", {"gender": "unknown", "kind": "unknown", "eyes": "unknown"}),
    ],
)
def test_labels_are_what_the_prompt_says(prompt, labels):
    found = portraits.labels_of(f"man-with-a-beard/{prompt}-1200.png")
    assert {name: found[name] for name in labels} == labels
    assert [*found] == ["gender", "age", "kind", "beard", "hair", "eyes"]


def test_the_command_labels_a_folder_for_training(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i, prompt in enumerate(["old-elf", "young-elf", "orc, old", "orc", "a-caf\u00e9"]):
        path = tmp_path / "images" / f"{i:02d}" / f"{prompt}-{i}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).save(path)
    assert portraits.main([f"--source={tmp_path / 'images'}"]) == 0
    out = capsys.readouterr().out
    assert "kind: elf 2, orc 2, unknown 1\n" in out and "age: old 2, unknown 2, young 1\n" in out
    data = load_dataset("image_folder", image_size=8, path=tmp_path / "images", data_dir=tmp_path)
    assert data.factors["kind"] == ("elf", "orc", "unknown")
    found = [
        " ".join(data.factors[name][example[name]] for name in ("kind", "age"))
        for split in (data.train, data.validation, data.test)
        for example in examples(split)
    ]
    labels = ["elf old", "elf young", "orc old", "orc unknown", "unknown unknown"]
    assert sorted(found) == labels
    assert portraits.main([f"--source={tmp_path / 'gone'}"]) == 2
    assert "no directory" in capsys.readouterr().err


def test_images_of_a_prompt_are_a_group_whatever_their_folder():
    group = groups_by(load_config("portraits").data.group)
    for name in ("00/Old-elf-1200.png", "Old-elf-1.jpg", "a/b/Old-elf-2.png"):
        assert group(name) == "Old-elf"
    assert group("00/Old-elf-2-1200.png") == "Old-elf-2"


def test_the_skip_list_has_names_no_descriptions_and_no_expression_within_another():
    skip = read_skip_list(SKIP)
    for prompt in ("Gillian-Anderson-as-an-elf", "old-donald-TRUMP", "Mad-Max"):
        assert skip.find(f"00/{prompt}-1200.jpg")
    for prompt in ("Old-elf-with-short-grey-hair", "mad-scientist-with-a-maximum-of-hair"):
        assert not skip.find(f"00/{prompt}-1200.jpg")
    lines = SKIP.read_text().splitlines()
    expressions = [line for line in lines if line and not line.startswith("#")]
    assert len({*expressions}) == len(expressions) > 3_000
    words = {tuple(text.split()) for text in expressions}
    for text in words:
        parts = {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
        assert parts & words == {text}
