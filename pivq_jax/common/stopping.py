"""Ctrl-C, SIGTERM and a closed terminal: all processes of a run stop after the same step."""

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from pivq_jax.common.output import ignore_output_errors

_CALLS = itertools.count(1)


class Interrupted(Exception):
    """The run was stopped by a signal after a checkpoint was written."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped at step {step}; the same command continues from there")
        self.exit_code = 128 + signal_number  # as in shells: 130 after Ctrl-C


def end_on_sigterm() -> None:
    """Makes SIGTERM end the process outside of `stop_requests`.

    JAX installs a handler that only records the signal, if processes were joined, even if it was
    one; this removes it.
    """
    if jax.distributed.is_initialized():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], int]]:
    """Handles Ctrl-C, SIGTERM and SIGHUP (a closed terminal) while the context is open.

    Yields a function that returns the number of the signal to stop for, or 0. All processes call it
    before the first step and after each: if one receives a signal, JAX's coordination service
    notifies the others, and all agree on the next call that none has made.
    """
    several = jax.process_count() > 1
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:  # a second Ctrl-C ends at once
            raise KeyboardInterrupt
        received.append(number)
        if number == signal.SIGHUP:
            ignore_output_errors()  # writing to a closed terminal is an error
        with contextlib.suppress(RuntimeError):  # of a print that the signal has interrupted
            print(
                "\nstopping after this step, which may be compiling; writing a checkpoint. Ctrl-C"
                " again ends it at once",
                flush=True,
            )
        if several:
            signal.raise_signal(signal.SIGTERM)  # JAX's own handler

    def asked() -> int:
        if not several:
            return received[0] if received else 0
        # JAX counts calls, not steps: before the first one, a signal would mean to stop at step 1,
        # which a run that resumes never reaches.
        if not multihost_utils.reached_preemption_sync_point(next(_CALLS)):
            return 0
        return received[0] if received else signal.SIGTERM

    handled = [signal.SIGINT]
    if not several:  # otherwise it is left to JAX's handler
        handled.append(signal.SIGTERM)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        handled.append(signal.SIGHUP)
    previous = {number: signal.signal(number, receive) for number in handled}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            # None is one that was not installed from Python, which cannot give it back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        end_on_sigterm()
