"""Work on many items in processes of their own, which end with the one that started them.

A worker imports what the work needs and no more, neither JAX nor tensorflow-datasets as a whole, so
it starts quickly.
"""

import contextlib
import multiprocessing.connection
import os
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
    with contextlib.ExitStack() as stack:
        running = dict(_start(stack) for _ in range(min(workers, len(items))))
        for index, connection in enumerate(running):
            with contextlib.suppress(ConnectionError):  # it is dead: seen below
                connection.send((function, items[index :: len(running)]))
        while running:
            for ready in multiprocessing.connection.wait(list(running)):
                assert isinstance(ready, Connection)
                try:
                    message = ready.recv()
                except (EOFError, ConnectionError):
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


def _start(stack: contextlib.ExitStack) -> tuple[Connection, "subprocess.Popen[bytes]"]:
    """Starts a process that runs `main` until `stack` ends; returns a connection to it."""
    ours, theirs = multiprocessing.connection.Pipe()
    # Workers find the package where this process found it. Each has its own process group, which
    # Ctrl-C does not reach; this process ends them. `-m` would warn that the package has already
    # imported this module.
    program = "from pivq_jax.data.worker import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        process_group=0,
    )
    stack.enter_context(process)  # waits for its end
    stack.callback(process.kill)
    theirs.close()
    return ours, process


def main() -> None:
    """Works on what it receives; sends results, then None, or an exception."""
    connection = Connection(int(sys.argv[1]))
    function, items = connection.recv()
    last: Exception | None = None
    try:
        for item in items:
            for result in function(item):
                connection.send(result)
    except Exception as error:
        if not isinstance(error, OSError | InputError):
            traceback.print_exc()
        last = error
    with contextlib.suppress(ConnectionError):  # the parent is gone
        connection.send(last)
