"""The VQ-VAE beside PI-VQ: the same conditions, and codes of the same bits."""

import numpy as np
import pytest
import torch

from benchmarks import vq_vae


@pytest.mark.parametrize(
    "bits, residual, form, found",
    [
        (576, False, (8, 512, 1), 576),
        (1_024, False, (4, 16, 1), 1_024),
        (2_048, True, (8, 256, 4), 2_048),
    ],
)
def test_codes_have_the_bits_asked_for(bits, residual, form, found):
    made = vq_vae.form_of(bits, 64, residual)
    assert made == form
    assert found - 0.1 < made.bits(64) <= bits + 1e-6


@pytest.mark.parametrize("form", [(4, 16, 1), (8, 32, 2)])
def test_images_are_those_of_their_codes(form):
    torch.manual_seed(0)
    model = vq_vae.VQVAE(16, form=vq_vae.Form(*form))
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    model(vq_vae.to_torch(images))  # starts the codebook
    model.eval()
    codes = vq_vae.encode(model, images, 4)
    assert codes.shape == (6, (64 // form[0]) ** 2, form[2]) and codes.max() < form[1]
    with torch.inference_mode():
        expected, _ = model(vq_vae.to_torch(images))
    made = vq_vae.decode(model, codes, 4)
    pixels = ((expected.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(made, pixels, atol=0.51)
    assert (made != made[:, :1, :1]).any()
