"""The benchmark of completions, with a model of a moment."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import completion
from pivq_jax.data.images import images_to_uint8


@pytest.mark.parametrize("images", [3, 11])
def test_seconds_are_without_compilation_and_images_those_that_exist(images, tmp_path, monkeypatch):
    """A clock that completions of eight move on: by a minute where a shape is new."""
    now, seen, rng = 0.0, set(), np.random.default_rng(0)

    def complete(x, visible, use_prior):
        nonlocal now
        for start in range(0, len(x), 8):
            shape = len(x[start : start + 8]), use_prior
            now += 0.5 if shape in seen else 60.0
            seen.add(shape)
        return images_to_uint8(x)

    pixels = rng.integers(0, 256, (images, 16, 16, 3), dtype=np.uint8)
    source = [{"image": image} for image in pixels]
    model = SimpleNamespace(
        config=SimpleNamespace(evaluate=SimpleNamespace(batch_size=4)),
        parents=pixels,
        prior=True,
        complete=complete,
    )
    data = SimpleNamespace(train=source, test=source, image_size=16)
    for name, value in {
        "open_model": lambda options: model,
        "dataset_from_config": lambda config: data,
        "encode_split": lambda model, source, size: np.stack([x["image"] for x in source]),
        "decode_batched": lambda model, codes, size: codes,
    }.items():
        monkeypatch.setattr(completion, name, value)
    monkeypatch.setattr(completion.time, "perf_counter", lambda: now)
    given = ["--pretrained=none", "--images=20", f"--output={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["completion", *given])
    completion.main()
    for row in json.loads((tmp_path / "completion.json").read_text()).values():
        for how in ("without", "with"):
            assert row[f"{how} the prior, s an image"] == 0.5 * -(-images // 8) / images
            assert row[f"{how} the prior"] == pytest.approx(58.9, abs=0.1)  # the images themselves
