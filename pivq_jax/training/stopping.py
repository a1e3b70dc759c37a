"""Ctrl-C, SIGTERM and a closed terminal: all processes of a run stop after the same step."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from pivq_jax.common.output import outlive_output
from pivq_jax.common.parallel import worst_of_processes

__all__ = ["Interrupted"]

_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none


class Interrupted(Exception):
    """The run was stopped by a signal after a checkpoint was written.

    Args:
        signal_number: the signal.
        step: number of completed steps.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, as in shells.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped at step {step}; the same command continues from there")
        self.exit_code = 128 + signal_number


def end_on_sigterm() -> None:
    """Makes SIGTERM end the process outside of `stop_requests`.

    With several processes, JAX installs a handler that only records the signal; this removes it.
    """
    if jax.process_count() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], int]]:
    """Handles Ctrl-C, SIGTERM and SIGHUP (a closed terminal) while the context is open.

    Yields a function to call after every step with the number of completed steps, which returns the
    number of the signal to stop for, or 0. With several processes, a single one may receive it, for
    example if one host of a slice is preempted; JAX's coordination service then notifies the
    others, and all agree on the next step that none has completed. A second Ctrl-C interrupts
    immediately, and SIGHUP stays ignored where it is, as under nohup. Without a signal, there is no
    communication but that of the beginning: all agree whether there was one before.
    """
    several = jax.process_count() > 1
    # JAX would stop such a run at step 1, which one that resumes never reaches.
    early = worst_of_processes(several and multihost_utils.reached_preemption_sync_point(1))
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        if number == _HANGUP:
            outlive_output()  # writing to a closed terminal is an error
        print(
            "\nstopping after this step, which may be compiling; writing a checkpoint. Ctrl-C again"
            " ends it at once",
            flush=True,
        )
        if several:
            signal.raise_signal(signal.SIGTERM)  # JAX's own handler

    def asked(step: int) -> int:
        if not several:
            return received[0] if received else 0
        if not (early or multihost_utils.reached_preemption_sync_point(step)):
            return 0
        return received[0] if received else signal.SIGTERM

    handled = [signal.SIGINT]
    if not several:  # otherwise it is left to JAX's handler
        handled.append(signal.SIGTERM)
    if _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN:
        handled.append(_HANGUP)
    previous = {number: signal.signal(number, receive) for number in handled}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            # None is one that was not installed from Python, which cannot give it back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        end_on_sigterm()
