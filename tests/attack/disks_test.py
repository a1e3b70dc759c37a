"""A disk of 2 MiB that is full: each command ends with one line, and not with status 0."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    """A full file system of its own, which only the administrator may make."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mount -t tmpfs is not permitted: run the tests as root")
    status = os.statvfs(place)
    (place / "filler").write_bytes(bytes(status.f_bavail * status.f_bsize))
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def ran(commands, module: str, *arguments: str, **environment: str):
    code = SCRIPT.format(environment=environment, module=module, arguments=arguments)
    return commands.run(code=code)


@pytest.mark.parametrize("full", ["workdir", "data", "weights", "output"])
def test_a_full_disk_is_one_error_that_names_it(
    commands, tiny_arguments, tiny_run, small_folder, disk, full
):
    module, arguments, environment = "pivq_jax.main", [*tiny_arguments], {}
    workdir = f"--workdir={disk.parent / 'run'}"
    if full == "workdir":
        arguments.append(f"--workdir={disk / 'run'}")
    elif full == "data":
        arguments = ["--config=configs/toon_faces.py:smoke", workdir]
        environment["PIVQ_DATA_DIR"] = str(disk)
    elif full == "weights":
        arguments.append(workdir)
        environment["PIVQ_WEIGHTS_DIR"] = str(disk)
    else:
        module, output = "pivq_jax.codec", disk / "out"
        given = [f"--workdir={tiny_run.workdir}", f"--input={small_folder}"]
        arguments = ["compress", *given, f"--output={output}"]
    done = ran(commands, module, *arguments, **environment)
    assert done.code in (1, 2) and "Traceback" not in done.stderr + done.stdout, done
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    named = {"weights": ["PIVQ_WEIGHTS_DIR"], "output": ["No space left on device"]}
    assert all(name in line for name in [str(disk), *named.get(full, [])]), line
    assert not (disk / "out").exists()


def test_compiled_programs_are_only_a_cache(commands, tiny_run, small_folder, disk):
    """Where they cannot be kept, the command goes on."""
    output = disk.parent / "faces.pivq"
    arguments = ["compress", f"--workdir={tiny_run.workdir}", f"--input={small_folder}"]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(disk / "cache")}
    done = ran(commands, "pivq_jax.codec", *arguments, f"--output={output}", **cache)
    assert done.code == 0 and output.is_file() and "Traceback" not in done.stderr, done
    assert "No space left on device" in done.stderr  # it was tried
