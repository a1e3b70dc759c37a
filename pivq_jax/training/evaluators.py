"""What makes the evaluations during training."""

from typing import Protocol

import numpy as np
from jax.sharding import Mesh

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
