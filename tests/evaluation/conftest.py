"""What several tests of metrics compare with."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.linalg


@pytest.fixture
def pytorch_fid(monkeypatch: pytest.MonkeyPatch) -> Callable[..., float]:
    """pytorch-fid's distance of two means and covariances.

    It calls `sqrtm(disp=False)` for the root and an error, which SciPy 1.18 no longer has.
    """
    fid_score = pytest.importorskip("pytorch_fid.fid_score")

    def sqrtm(matrix: np.ndarray, disp: bool = True) -> Any:
        root = scipy.linalg.sqrtm(matrix)
        return root if disp else (root, None)

    monkeypatch.setattr(fid_score, "linalg", SimpleNamespace(sqrtm=sqrtm))
    return fid_score.calculate_frechet_distance
