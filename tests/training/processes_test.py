"""Two processes that are not the same run are refused before anything is written, both of them."""

import shutil

import numpy as np
import pytest
from PIL import Image

from pivq_jax.interop.safetensors_file import pack_model
from tests.conftest import start_pair
from tests.parameters import make_model

pytestmark = pytest.mark.slow

COMMAND = """
import importlib.metadata, runpy, sys
import jax
import pivq_jax

def pretend(package, version):
    real = importlib.metadata.version
    importlib.metadata.version = lambda name: version if name == package else real(name)

{before}
sys.argv = ["pivq_jax", *{arguments!r}]
runpy.run_module("pivq_jax.main", run_name="__main__", alter_sys=True)
"""

# What the second process has of its own: a field, or code that it runs before; and what is said.
DIFFERING = {
    "rate": ("--config.optimizer.learning_rate=0.5", "", "optimizer.learning_rate = 0.5, but"),
    "seed": ("--config.seed=1", "", "seed = 1, but process 0 seed = 0"),
    "batch": ("--config.train.batch_size=32", "", "train.batch_size = 32"),
    "steps": ("--config.train.steps=170", "", "train.steps = 170, but process 0 train.steps = 160"),
    "entries": ("--config.quantizer.codebook_size=48", "", "quantizer.codebook_size = 48"),
    "mesh": ("--config.mesh.fsdp=2", "", "mesh.fsdp = 2, but process 0 mesh.fsdp = 1"),
    "evaluation": ("--config.evaluate.samples=39", "", "evaluate.samples = 39"),
    "workdir": ("--workdir={other}", "", "workdir = '"),
    "mode": ("--mode=evaluate", "", "mode = 'evaluate'"),
    "package": ("", "pivq_jax.__version__ = '0.0.9'", "version = '0.0.9, code "),
    "jax": ("", "pretend('jax', '0.9.1')", "version of jax = '0.9.1', but process 0 version of"),
    "flax": ("", "pretend('flax', '0.1')", "version of flax = '0.1'"),
    "precision": (
        "",
        "jax.config.update('jax_default_matmul_precision', 'bfloat16')",
        "jax_default_matmul_precision = 'bfloat16', but",
    ),
    "data": ("--config.data.path={other}", "", "images, digest "),
    "weights": ("--init_from={other}/1.safetensors", "", "weights to begin with = "),
}


@pytest.mark.parametrize("which", DIFFERING)
def test_both_are_refused_before_the_first_step(
    commands, tiny_arguments, tiny_config, small_folder, tmp_path, which
):
    own, before, said = DIFFERING[which]
    other = tmp_path / "other"
    if which == "data":  # the same names, and one pixel differs
        shutil.copytree(small_folder, other)
        image = np.asarray(Image.open(other / "0.png")).copy()
        image[0, 0] ^= 1
        Image.fromarray(image).save(other / "0.png")
    started = []
    if which == "weights":
        other.mkdir()
        for seed in (0, 1):
            model = make_model(tiny_config, seed)
            content = pack_model(model.params, {"config": tiny_config.to_dict()})
            (other / f"{seed}.safetensors").write_bytes(content)
        started = [f"--init_from={other / '0.safetensors'}"]
    workdir = tmp_path / "run"
    arguments = [*tiny_arguments, "--config.train.batch_size=16", f"--workdir={workdir}"]

    def start(index: int, how: str):
        mine = [own.format(other=other)] if index and own else []
        given = [*arguments, *started, f"--distributed={how}", *mine]
        code = COMMAND.format(arguments=given, before=before if index else "")
        return commands.start(code=code, devices=4)

    for done in [command.wait() for command in start_pair(start)]:
        assert done.code == 2 and "Traceback" not in done.stderr, done
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert line.startswith("error: process 1 has ") and said in line, line
        assert "compiling" not in done.stdout
    assert not workdir.exists() and (which in ("data", "weights") or not other.exists())


def test_processes_of_other_numbers_of_devices_are_refused(commands, tiny_arguments, tmp_path):
    arguments = [*tiny_arguments, f"--workdir={tmp_path / 'run'}", "--config.train.batch_size=24"]

    def start(index: int, how: str):
        return commands.start(*arguments, f"--distributed={how}", devices=4 - 2 * index)

    for done in [command.wait() for command in start_pair(start)]:
        assert done.code == 2 and "the processes have 4, 2 devices: give each" in done.stderr, done
    assert not (tmp_path / "run").exists()
