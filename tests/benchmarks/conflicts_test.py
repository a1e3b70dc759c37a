"""Conflicts over entries, counted one by one."""

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import conflicts
from pivq_jax.model.quantizer import assign


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["matching", "nearest"])
def test_conflicts_are_counted(kind):
    rng = np.random.default_rng(0)
    latents, codebook = (
        rng.normal(size=shape).astype(np.float32) for shape in ((3, 8, 4), (12, 4))
    )
    found = conflicts.conflicts(jnp.asarray(latents), jnp.asarray(codebook), kind)
    indices = np.asarray(assign(jnp.asarray(latents), jnp.asarray(codebook), kind)[0])
    np.testing.assert_array_equal(found["codes"], indices)

    apart = np.square(latents[:, :, None] - codebook).sum(-1)  # [B, N, K]
    nearest = apart.argmin(-1)
    counts = [np.bincount(row, minlength=len(codebook)) for row in nearest]
    assert found["distinct"].tolist() == [int((count > 0).sum()) for count in counts]
    assert found["shared"].tolist() == [int(count[count > 1].sum()) for count in counts]
    assert found["moved"].tolist() == (nearest != indices).sum(1).tolist()
    np.testing.assert_allclose(found["least"], apart.min(-1).sum(1), rtol=1e-4)
    cost = np.take_along_axis(apart, indices[..., None], -1).sum((1, 2))
    np.testing.assert_allclose(found["cost"], cost, rtol=1e-4)
