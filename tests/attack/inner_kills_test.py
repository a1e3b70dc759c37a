"""SIGKILL within what is short: a checkpoint's save, and the alignment of photographs."""

import random
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from pivq_jax.common.parallel import make_mesh
from pivq_jax.training.checkpoints import Checkpoints
from tests.attack.kills_test import files_in
from tests.conftest import ended
from tests.data.alignment_test import photograph
from tests.training.checkpoints_test import LIKE, make_state, save

pytestmark = pytest.mark.slow

# Saves steps 3 and 4, and is killed some time after the given change of a file of its checkpoints;
# otherwise it prints how many changes there are.
SAVES = """
import os, signal, sys, threading
from pathlib import Path
from tests.training.checkpoints_test import save

changes = 0

def count(event, arguments):
    global changes
    changed = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate") or (
        event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wax"
    )
    if changed and "checkpoints" in str(arguments[0]):
        changes += 1
        if changes == {number}:
            if {delay} == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGKILL)).start()

sys.addaudithook(count)
save(Path({workdir!r}), 3, 4)
sys.setswitchinterval(1)
print(changes)
"""


def test_a_kill_within_a_save_costs_that_save_alone(commands, tmp_path, pytestconfig):
    kills = pytestconfig.getoption("kills") or 6
    begun, rng = tmp_path / "begun", random.Random(41)
    save(begun, 1, 2)

    def saves(workdir: Path, number: int, delay: float):
        shutil.copytree(begun, workdir)
        code = SAVES.format(workdir=str(workdir), number=number, delay=delay)
        return commands.run(code=code)

    done = saves(tmp_path / "whole", 0, 0)
    assert done.code == 0, done
    changes, found = int(done.stdout), []
    assert changes >= 10
    for index in range(kills):
        workdir = tmp_path / f"run_{index}"
        delay = index % 2 * rng.uniform(0, 0.02)
        done = saves(workdir, rng.randint(1, changes), delay)
        assert done.code in (-signal.SIGKILL, 0 if delay else None), done
        assert "Traceback" not in done.stderr, done
        with Checkpoints(workdir) as checkpoints:
            step = checkpoints.latest_step()
            assert step in (2, 3, 4)
            assert len(checkpoints.steps()) >= 2
            # One that is older may have been in deletion.
            for held in checkpoints.steps()[-2:]:
                state, progress = checkpoints.restore(LIKE, make_mesh(), held)
                assert progress == {"score": float(held)}
                jax.tree.map(np.testing.assert_array_equal, state, make_state(held))
        save(workdir, 3, 4, 5)  # as the run that goes on does, which deletes what is left of others
        names = sorted(path.name for path in (workdir / "checkpoints").iterdir())
        assert names == ["4", "5"]
        found.append((done.code, step))
    print(f"of {changes} changes: {found}")
    assert sum(code != 0 for code, _ in found) >= kills / 2


# With the detector of drawn faces, in one process.
ALIGN = """
import sys
from pivq_jax.data import align, alignment, landmarks
from tests.data.alignment_test import eyes_of

landmarks.find_eyes, landmarks.versions = eyes_of, dict
alignment._PHOTOGRAPHS_PER_WORKER = 1_000
sys.exit(align.main({arguments!r}))
"""


def test_align_killed_at_random_aligns_the_same(commands, tmp_path, pytestconfig):
    kills = pytestconfig.getoption("kills") or 3
    source, rng = tmp_path / "photographs", random.Random(42)
    for i in range(12):
        photograph(source / f"part {i % 2}" / f"{i}.png", 40 + 4 * i, 0.3 * i)

    def start(output: Path):
        given = [f"--source={source}", f"--output={output}", "--size=32"]
        return commands.start(code=ALIGN.format(arguments=given))

    def aligned(output: Path) -> dict[str, str]:
        done = start(output).wait()
        assert done.code == 0 and "12 of 12" in done.stdout and "Traceback" not in done.stderr, done
        return files_in(output)

    began = time.monotonic()
    whole = aligned(tmp_path / "whole")
    seconds, killed, output = time.monotonic() - began, 0, tmp_path / "out"
    assert len([name for name in whole if name.endswith(".png")]) == 12
    while killed < kills:
        command = start(output)
        while not output.exists():
            assert not ended(command.pid)
            time.sleep(0.002)
        time.sleep(rng.uniform(0, seconds))
        if not ended(command.pid):
            command.kill_when(lambda: True, signal.SIGKILL)
        killed += command.wait().code == -signal.SIGKILL
        images = {name: own for name, own in files_in(output).items() if name.endswith(".png")}
        assert images.items() <= whole.items()
        assert aligned(output) == whole
        shutil.rmtree(output)
