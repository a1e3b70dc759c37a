"""Ctrl-C and SIGTERM: asked once, every process of a run stops after the same step."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C or SIGTERM) and has written a checkpoint.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM, as shells have it.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped at step {step}; the same command continues from there")
        self.exit_code = 128 + signal_number


def end_on_sigterm() -> None:
    """Where nobody asks for stops: SIGTERM ends the process, also one of several.

    There JAX has installed a handler of its own, which only remembers the signal.
    """
    if jax.process_count() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], int]]:
    """A function to ask after every step: (steps done) -> the signal to stop for, or 0.

    A second Ctrl-C interrupts at once. Of several processes one alone may get the signal, as when
    one host of a slice is preempted. JAX's coordination service then tells the others, and all
    agree on the next step that none has done yet; without a signal nothing is sent.
    """
    several = jax.process_count() > 1
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        print("\nstopping after this step; writing a checkpoint", flush=True)
        if several:
            signal.raise_signal(signal.SIGTERM)  # JAX's own handler

    def asked(step: int) -> int:
        if not several:
            return received[0] if received else 0
        if not multihost_utils.reached_preemption_sync_point(step):
            return 0
        return received[0] if received else signal.SIGTERM

    # Of several processes SIGTERM is left to the handler that JAX has installed.
    handled = (signal.SIGINT,) if several else (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, receive) for number in handled}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        end_on_sigterm()
