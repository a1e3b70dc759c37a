"""Evaluations during training: what makes them, and how much of the time they may take."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from jax.sharding import Mesh

from pivq_jax.common.parallel import worst_of_processes
from pivq_jax.data import Dataset
from pivq_jax.training.objective import Params


class Evaluator(Protocol):
    """Measures weights; `evaluation.evaluator` has that of the command."""

    images: int  # number of validation images that it wants, at least 1

    def __call__(
        self,
        dataset: Dataset,
        mesh: Mesh,
        step: int,
        params: Params | None,
        shown: np.ndarray,
        made: np.ndarray,
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Returns figures and pictures, uint8 [H, W, 3], by name; all processes call it alike.

        Args:
            dataset: data of the run.
            mesh: devices of the run.
            step: number of completed steps.
            params: averaged parameters with a copy on every device, or None before the codebook.
            shown: validation images, uint8 [M, H, W, 3].
            made: their reconstructions, without quantization before the codebook.
        """
        ...


@dataclasses.dataclass
class Clock:
    """The time spent on a run and on the evaluations within, which resumed runs add to."""

    train_seconds: float = 0.0  # before this process, with evaluations
    evaluate_seconds: float = 0.0  # until now
    last: float = 0.0  # of the newest evaluation of this process
    started: float = dataclasses.field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        """The seconds spent on the run until now."""
        return self.train_seconds + time.perf_counter() - self.started

    def share(self) -> float:
        """The share of evaluations in them."""
        return self.evaluate_seconds / self.seconds()

    def allows(self, share: float) -> bool:
        """Whether evaluations remain within a share if one more takes as long as the last one.

        The first one of a run is always made. All processes must call this, and agree.
        """
        over = self.evaluate_seconds + self.last > share * (self.seconds() + self.last)
        return not worst_of_processes(over)

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Counts what is done within as an evaluation."""
        started = time.perf_counter()
        yield
        self.last = time.perf_counter() - started
        self.evaluate_seconds += self.last
