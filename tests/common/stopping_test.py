"""Stop requests: one process answers its own signals, several agree on a step."""

import io
import signal
import sys
import time

import pytest

from pivq_jax.common.stopping import Interrupted, stop_requests
from tests.conftest import start_pair


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_one_process_stops_after_the_step_and_gives_the_handlers_back(number, code, capsys):
    before = signal.getsignal(number)
    with stop_requests() as asked:
        assert asked() == 0
        signal.raise_signal(number)
        assert asked() == number == asked()
    assert signal.getsignal(number) == before
    assert "stopping after this step" in capsys.readouterr().out
    assert Interrupted(number, 2).exit_code == code
    assert "stopped at step 2; the same command continues" in str(Interrupted(number, 2))


def test_a_second_ctrl_c_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), stop_requests():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_signal_during_a_print_stops_the_run_as_any_other(monkeypatch):
    class Pipe(io.RawIOBase):
        """Full until the signal comes."""

        def writable(self):
            return True

        def write(self, data):
            if not asked():
                signal.raise_signal(signal.SIGTERM)
            return len(data)

    with stop_requests() as asked:
        stdout = io.TextIOWrapper(io.BufferedWriter(Pipe()))
        monkeypatch.setattr(sys, "stdout", stdout)
        print("step 1", flush=True)
        assert asked() == signal.SIGTERM


def test_under_nohup_a_closed_terminal_is_no_reason():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert asked() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


IN_A_TERMINAL = """
import os, pty, sys, time
from pathlib import Path

child, terminal = pty.fork()
if child == 0:
    from pivq_jax.common.stopping import stop_requests

    with stop_requests() as asked:
        Path({ready!r}).touch()
        while not (stop := asked()):
            print("step", flush=True)
            time.sleep(0.01)
        print("stopped", flush=True)
    os._exit(128 + stop)
while not Path({ready!r}).exists():
    time.sleep(0.01)
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_terminal_that_is_closed_stops_the_run_after_the_step(commands, tmp_path):
    done = commands.run(code=IN_A_TERMINAL.format(ready=str(tmp_path / "ready")))
    assert done.code == 129, (done.stdout, done.stderr)


# Steps of different length, so that the processes are at different ones when the signal comes; of
# a run that has resumed.
AGREE = """
import sys, time
from pathlib import Path
from pivq_jax.common.parallel import join_processes
from pivq_jax.common.stopping import Interrupted, stop_requests

join_processes({how!r})
try:
    with stop_requests() as asked:
        for step in range(5_000, 100_000):
            time.sleep(0.01 + 0.02 * {index})
            if step == 5_020:
                Path("{folder}", "{index}").touch()
            if stop := asked():
                raise Interrupted(stop, step)
except Interrupted as interrupted:
    print(interrupted)
    sys.exit(interrupted.exit_code)
"""


def test_several_processes_stop_at_one_step(commands, tmp_path):
    pair = start_pair(
        lambda index, how: commands.start(code=AGREE.format(how=how, index=index, folder=tmp_path))
    )
    pair[1].kill_when(lambda: all((tmp_path / name).exists() for name in "01"), signal.SIGTERM)
    done = [command.wait() for command in pair]
    assert [one.code for one in done] == [143, 143], [one.stderr for one in done]
    last = [one.stdout.splitlines()[-1] for one in done]
    assert last[0] == last[1] and last[0].startswith("stopped at step 5")


FAIL = """
import sys
import jax
from pivq_jax import main, modes
from pivq_jax.common import parallel
from pivq_jax.common.errors import InputError

def sample(task):
    parallel.max_over_processes(0)
    if jax.process_index() == 1:
        raise InputError("damaged")
    parallel.max_over_processes(0)

modes.sample, parallel.GRACE = sample, 1.0
sys.argv = ["", "--config=toon_faces:smoke", "--mode=sample", "--distributed={how}"]
main.run()
"""


def test_one_of_several_that_fails_does_not_wait_for_the_others(commands):
    started = time.monotonic()
    pair = start_pair(lambda _, how: commands.start(code=FAIL.format(how=how)))
    done = [command.wait() for command in pair]
    assert time.monotonic() - started < 200
    assert done[1].code == 2 and "damaged" in done[1].stderr, done[1].stderr
    assert done[0].code != 0
