"""The command: its help, its flags, and what it prints."""

import shlex
import sys

import numpy as np
import pytest
from PIL import Image

from pivq_jax.config.check import check_config
from pivq_jax.config.loader import load_config
from pivq_jax.data import align, alignment


def test_wrong_values_are_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    arguments = [f"--source={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--size=64"]
    assert align.main([*arguments, "--workers=0"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: --workers is 0") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_the_extra_it_is_named_before_any_work(tmp_path, capsys, monkeypatch):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "in" / "a.png")
    monkeypatch.setitem(sys.modules, "dlib", None)
    arguments = [f"--source={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--size=64"]
    assert align.main(arguments) == 2
    err = capsys.readouterr().err
    assert err == "error: dlib is not installed: pip install dlib-bin face-recognition-models\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_the_command_for_training_is_one_that_training_takes(tmp_path, capsys, monkeypatch, size):
    monkeypatch.setattr(alignment, "align_folder", lambda *_, **__: (3, []))
    out = tmp_path / "my faces"
    assert align.main([f"--source={tmp_path}", f"--output={out}", f"--size={size}"]) == 0
    found, *hints = capsys.readouterr().out.splitlines()
    assert found.startswith("3 of 3 photographs aligned") and len(hints) == (size in (64, 128))
    for hint in hints:
        command, config, path = shlex.split(hint.removeprefix("train on them: "))[2:]
        assert command == "pivq_jax.main" and path == f"--config.data.path={out}"
        config = load_config(config.removeprefix("--config=")).with_fields({"data.path": str(out)})
        assert config.data.image_size == size
        check_config(config, training=True)


def test_what_was_skipped_is_counted(tmp_path, capsys):
    pytest.importorskip("dlib")
    image = pytest.importorskip("skimage.data").astronaut()
    (tmp_path / "in").mkdir()
    Image.fromarray(image).save(tmp_path / "in" / "a.jpg")
    Image.fromarray(np.zeros_like(image)).save(tmp_path / "in" / "b.jpg")
    (tmp_path / "in" / "c.jpg").write_bytes(b"")
    arguments = [f"--source={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--size=64"]
    for _ in range(2):  # the second call does what is left, which is nothing
        assert align.main(arguments) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0] == f"1 of 3 photographs aligned at 64 pixels in {tmp_path / 'out'}"
        assert out[1] == "2 skipped (1 no face, 1 unreadable): see skipped.tsv there"
        assert out[2].startswith("train on them: python -m pivq_jax.main ") and len(out) == 3
