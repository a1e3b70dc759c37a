"""The discriminator's heads: against PyTorch, and no coupling of the images of a batch."""

import jax
import numpy as np
import torch

from pivq_jax.interop.weights import to_torch
from pivq_jax.model.discriminator import Discriminator
from tests.reference.discriminator import Discriminator as Reference

# Side and channels of images, and of the maps of a small network.
SIZES = ((16, 3), (16, 16), (8, 24), (4, 32), (2, 32))


def test_its_logits_are_those_of_pytorch_and_each_image_is_judged_alone():
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(3, side, side, n)).astype(np.float32) for side, n in SIZES]
    network = Discriminator(channels=8)
    params = jax.jit(network.init)(jax.random.key(1), maps)["params"]
    apply = jax.jit(network.apply)
    logits = apply({"params": params}, maps)
    reference = Reference([n for _, n in SIZES[1:]], 8)
    reference.load_state_dict({n: torch.from_numpy(a) for n, a in to_torch(params).items()})
    with torch.no_grad():
        theirs = reference([torch.from_numpy(x).permute(0, 3, 1, 2) for x in maps]).numpy()
    assert logits.shape == (3, 4 * 4 + 4 * 4 + 2 * 2 + 2 * 2 + 2 * 2)
    np.testing.assert_allclose(logits, theirs, atol=1e-5)
    alone = apply({"params": params}, [x[1:2] for x in maps])
    np.testing.assert_allclose(logits[1:2], alone, atol=1e-5)
