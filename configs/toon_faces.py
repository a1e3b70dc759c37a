"""The default: cartoon faces at 64x64, on a laptop's CPU.

    python -m pivq_jax.main --config=configs/toon_faces.py --workdir=runs/toon_faces

Cost and result: see the README's table, measured with this command. The faces vary in ten factors,
about 24 bits together. Sixteen codes are enough for them, and few codes make whole faces when sets
are recombined: with 32, one attribute is spread over several codes and parents disagree within it.
K = 32 N: with learned queries a latent tends to own K / N entries. The loss on recombined sets
(docs/method.md) keeps what sampling decodes free of noise. The perceptual loss makes a step a sixth
longer; in 14 % fewer steps LPIPS is a fifth lower than without it. docs/training.md has what the
other settings were chosen by.

Variants: `:smoke` (a minute), `:nearest`, `:positional`; several with commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """The experiment's config."""
    config = base_config()
    config.name = "toon_faces"
    config.data.name = "toon_faces"
    config.model.num_codes = 16
    config.quantizer.codebook_size = 512
    config.quantizer.init_step = 1_500
    config.quantizer.init_batches = 96
    config.loss.l2 = 0.5
    config.loss.perceptual = 0.05
    config.loss.recombination = 0.5
    config.train.steps = 7_000
    return with_variants(config, variants)
