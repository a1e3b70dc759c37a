"""A disk of 2 MiB that is nearly full: each command ends with one line, and not with status 0."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.parameters import make_model

pytestmark = pytest.mark.slow

SCRIPT = """
import os, runpy, sys
import jax

os.environ.update({environment!r})
if cache := {environment!r}.get("JAX_COMPILATION_CACHE_DIR"):  # jax was imported before
    jax.config.update("jax_compilation_cache_dir", cache)
sys.argv = [{module!r}, *{arguments!r}]
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of its own, which only the administrator may make."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if (
        os.name != "posix"
        or not shutil.which("mount")
        or subprocess.run(command, capture_output=True).returncode
    ):
        pytest.skip("mount -t tmpfs is not permitted: run the tests as root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, left: int) -> None:
    """Leaves so many bytes free."""
    status = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(max(status.f_bavail * status.f_bsize - left, 0)))


def one_line(done) -> str:
    """The error of a command that failed; what is said before, as of images, is no error."""
    assert done.code in (1, 2), done
    assert "Traceback" not in done.stderr + done.stdout, done
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def ran(commands, module: str, *arguments: str, **environment: str):
    code = SCRIPT.format(environment=environment, module=module, arguments=arguments)
    return commands.run(code=code)


def test_a_workdir(commands, tiny_arguments, disk):
    fill(disk, 0)
    line = one_line(commands.run(*tiny_arguments, f"--workdir={disk / 'run'}"))
    assert str(disk) in line or "No space left on device" in line
    (disk / "filler").unlink()


@pytest.mark.parametrize("left", [0, 20_000])
def test_prepared_data(commands, disk, left):
    fill(disk, left)
    arguments = ["--config=configs/toon_faces.py:smoke", f"--workdir={disk.parent / 'run'}"]
    line = one_line(ran(commands, "pivq_jax.main", *arguments, PIVQ_DATA_DIR=str(disk)))
    assert str(disk) in line


def test_compiled_programs_are_only_a_cache(commands, tiny_run, small_folder, disk):
    """Where they cannot be kept, the command goes on."""
    fill(disk, 0)
    output = disk.parent / "faces.pivq"
    arguments = ["compress", f"--workdir={tiny_run.workdir}", f"--input={small_folder}"]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(disk / "cache")}
    done = ran(commands, "pivq_jax.codec", *arguments, f"--output={output}", **cache)
    assert done.code == 0 and output.is_file() and "Traceback" not in done.stderr, done
    assert "No space left on device" in done.stderr  # it was tried


@pytest.mark.parametrize("how", ["cut", "empty", "garbage"])
def test_compiled_programs_that_are_damaged_are_compiled_again(
    commands, tiny_config, small_folder, tmp_path, how
):
    make_model(tiny_config, scale=0.1).save_pretrained(tmp_path / "model")
    given = [f"--pretrained={tmp_path / 'model'}", "--mode=reconstruct", f"--input={small_folder}"]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    rng, codes = np.random.default_rng(0), []
    for name in ("whole", "again"):
        output = tmp_path / name
        done = ran(commands, "pivq_jax.main", *given, f"--output={output}", **cache)
        assert done.code == 0 and "Traceback" not in done.stderr, done
        codes.append((output / "codes.json").read_bytes())
        kept = list((tmp_path / "cache").glob("*-cache"))
        assert kept
        for file in kept:
            content = file.read_bytes()
            left = {"cut": content[: len(content) // 2], "empty": b""}
            file.write_bytes(left.get(how, rng.bytes(len(content))))
    assert codes[0] == codes[1]
    assert "persistent compilation cache" in done.stderr  # it was tried


def test_weights_of_an_evaluation(commands, tiny_arguments, disk):
    fill(disk, 0)
    arguments = [*tiny_arguments, f"--workdir={disk.parent / 'run'}"]
    line = one_line(ran(commands, "pivq_jax.main", *arguments, PIVQ_WEIGHTS_DIR=str(disk)))
    assert str(disk) in line and "PIVQ_WEIGHTS_DIR" in line


@pytest.mark.parametrize(
    "mode, left",
    [("compress", 0), ("decompress", 5_000), ("reconstruct", 5_000), ("convert", 0)],
)
def test_output(commands, tiny_run, small_folder, disk, mode, left):
    workdir, output = f"--workdir={tiny_run.workdir}", disk / "out"
    if mode == "decompress":
        file = disk.parent / "faces.pivq"
        done = commands.run(
            *("compress", workdir, f"--input={small_folder}", f"--output={file}"), module="codec"
        )
        assert done.code == 0, done
    fill(disk, left)
    if mode == "convert":
        arguments = [f"--from={tiny_run.workdir}", f"--to={output}.safetensors"]
        line = one_line(ran(commands, "pivq_jax.convert", *arguments))
    else:
        given = file if mode == "decompress" else small_folder
        places = [workdir, f"--input={given}", f"--output={output}"]
        which = (f"--mode={mode}", "main") if mode == "reconstruct" else (mode, "codec")
        line = one_line(commands.run(which[0], *places, module=which[1]))
    assert "No space left on device" in line and str(disk) in line
    assert not output.exists() or mode == "reconstruct"
    assert not output.with_suffix(".safetensors").exists()
