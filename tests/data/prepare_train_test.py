"""From official files to metrics: prepare, train `:smoke`, restore, evaluate, as commands."""

import json

import pytest

from tests.conftest import TINY, checkpoint_steps
from tests.data.conftest import prepare_arguments

PREPARE = "import sys; from pivq_jax.data.prepare import main; sys.exit(main({arguments}))"

# The losses have tests of their own. Prepared at 32 pixels, trained at fewer: VGG16 takes no images
# below 16, so the report goes without what needs its features.
FIELDS = {
    **TINY,
    "data.image_size": 12,
    "data.workers": 1,
    "quantizer.kind": "nearest",
    "quantizer.init_at": 0.333,
    "quantizer.init_batches": 2,
    "loss.recombination": 0.0,
    "loss.perceptual": 0.0,
    "adversarial.weight": 0.0,
    "adversarial.recombined_weight": 0.0,
    "train.steps": 6,
    "train.checkpoint_every": 3,
    "evaluate.samples": 8,
}


@pytest.mark.slow
def test_official_files_to_metrics(commands, sources, tmp_path):
    data, workdir = tmp_path / "data", tmp_path / "run"
    arguments = prepare_arguments("celeba", sources["celeba"], data)
    done = commands.run(code=PREPARE.format(arguments=arguments))
    assert done.code == 0, done.stderr
    counts = json.loads((data / "celeba" / "32px" / "prepared.json").read_text())["images"]

    fields = {**FIELDS, "data.name": "celeba", "data.path": data}
    chosen = [f"--config.{field}={value}" for field, value in fields.items()]
    command = ["--config=configs/celeba.py:smoke", f"--workdir={workdir}", *chosen]
    done = commands.run(*command)
    assert done.code == 0, done.stderr
    assert f"{counts['train']} training images" in done.stdout
    assert checkpoint_steps(workdir)[-1] == 6

    (workdir / "metrics.json").unlink()
    done = commands.run(*command, "--mode=evaluate")
    assert done.code == 0, done.stderr
    assert f"evaluating step 6 on {counts['test']} test images" in done.stdout
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["images"] == counts["test"] and metrics["step"] == 6
