"""Work on many items in processes of their own, which end with the one that started them.

A worker imports what the work needs and no more, neither JAX nor tensorflow-datasets as a whole, so
it starts quickly.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

from pivq_jax.common.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run(
    function: Callable[[Item], Iterable[Result]], items: Sequence[Item], workers: int
) -> Generator[Result]:
    """Yields the results of a function, which are not None, on items in worker processes.

    Closing the generator, or any exception, ends the workers. They are no children as those of
    `multiprocessing`, which would import the script of the caller.
    """
    if not workers:
        for item in items:
            yield from function(item)
        return
    running: dict[Connection, subprocess.Popen[bytes]] = {}
    processes = []
    try:
        for _ in range(min(workers, len(items))):
            connection, process = _start()
            processes.append(process)
            running[connection] = process
        for index, process in enumerate(processes):
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin:  # it is dead: seen below
                pickle.dump((function, items[index::workers]), process.stdin)
        while running:
            for ready in multiprocessing.connection.wait(list(running)):
                assert isinstance(ready, Connection)
                try:
                    message = ready.recv()
                except EOFError:
                    status, reason = running[ready].wait(), ": see its error above"
                    if status == -signal.SIGKILL:
                        reason = ", perhaps for lack of memory: use fewer cores, as with taskset"
                    raise OSError(f"a worker process ended with status {status}{reason}") from None
                if isinstance(message, Exception):
                    raise message
                if message is None:
                    del running[ready]
                else:
                    yield message
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _start() -> tuple[Connection, "subprocess.Popen[bytes]"]:
    """Starts a process that runs `main`, and returns the connection for its messages."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    # Workers find the package where this process found it. Each has its own process group, which
    # Ctrl-C does not reach; this process ends them. `-m` would warn that the package has already
    # imported this module.
    program = "from pivq_jax.data.worker import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, str(theirs.fileno())],
        stdin=subprocess.PIPE,
        pass_fds=[theirs.fileno()],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        process_group=0,
    )
    theirs.close()
    return ours, process


def main() -> None:
    """Works on what stdin has; sends results, then None, or an exception, to a file descriptor."""
    connection = Connection(int(sys.argv[1]), readable=False)
    function, items = pickle.load(sys.stdin.buffer)
    try:
        for item in items:
            for result in function(item):
                connection.send(result)
        connection.send(None)
    except BrokenPipeError:  # the parent is gone
        return
    except Exception as error:
        if not isinstance(error, OSError | InputError):
            traceback.print_exc()
        connection.send(error)
