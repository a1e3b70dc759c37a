"""From official files to metrics: prepare, train `:smoke`, restore, evaluate, as commands."""

import json

import pytest

from tests.conftest import TINY, checkpoint_steps
from tests.data.conftest import prepare_arguments

PREPARE = "import sys; from pivq_jax.data.prepare import main; sys.exit(main({arguments}))"

# They are one program, compiled once; their own losses have tests of their own.
FIELDS = {
    **TINY,
    "model.dtype": "float32",
    "quantizer.kind": "nearest",
    "quantizer.init_at": 0.333,
    "quantizer.init_batches": 2,
    "loss.l2": 0.5,
    "loss.recombination": 0.0,
    "loss.perceptual": 0.0,
    "adversarial.weight": 0.0,
    "adversarial.recombined_weight": 0.0,
    "optimizer.warmup": 0.167,
    "optimizer.learning_rate": 1e-3,
    "train.steps": 6,
    "train.ema_decay": 0.9,
    "train.log_every": 1,
    "train.checkpoint_every": 3,
    "train.picture_every": 100,
    "evaluate.samples": 8,
    "evaluate.neighbours": 2,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        # VGG16 takes no images below 16, so the report goes without what needs its features.
        ("celeba", 12),
        ("ffhq", 16),  # whose validation images are the test images
    ],
)
def test_official_files_to_metrics(commands, sources, tmp_path, name, image_size):
    data, workdir = tmp_path / "data", tmp_path / "run"
    arguments = prepare_arguments(name, sources[name], data)
    done = commands.run(code=PREPARE.format(arguments=arguments))
    assert done.code == 0, done.stderr
    manifest = json.loads((data / name / "32px" / "prepared.json").read_text())
    counts = manifest["images"]
    train, test = counts["train"], counts.get("test", counts["validation"])

    # Prepared at 32 pixels, trained at fewer.
    fields = {
        **FIELDS,
        "data.name": name,
        "data.path": data,
        "data.image_size": image_size,
        "data.workers": 1,
    }
    chosen = [f"--config.{field}={value}" for field, value in fields.items()]
    command = [f"--config=configs/{name}.py:smoke", f"--workdir={workdir}", *chosen]
    done = commands.run(*command)
    assert done.code == 0, done.stderr
    assert f"{train} training images" in done.stdout
    assert checkpoint_steps(workdir)[-1] == 6

    (workdir / "metrics.json").unlink()
    done = commands.run(*command, "--mode=evaluate")
    assert done.code == 0, done.stderr
    assert f"evaluating step 6 on {test} test images" in done.stdout
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["images"] == test and metrics["step"] == 6
