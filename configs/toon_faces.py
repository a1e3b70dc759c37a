"""The first config to try: cartoon faces at 64x64, on a laptop's CPU.

    python -m pivq_jax.main --config=configs/toon_faces.py --workdir=runs/toon_faces

docs/results.md has the time that this takes and its results. All faces are drawn at the same place,
so each patch of the output has a linear layer of its own: eleven decibels more than with one layer
for all places (docs/trials.md). The faces vary in ten factors, about 24 bits. Sixteen codes are
enough for them; with 32, several codes share an attribute and may come from different parents.
K = 32 N, as each query tends to use K / N entries of its own. The loss on recombined sets
(docs/method.md) keeps samples consistent and free of noise. docs/training.md explains the other
settings.

Variants: `:large` (wider, longer and with a perceptual loss: twice the time, for four decibels
more; samples as good), `:smoke` (a check, no model), `:nearest`, `:positional`; also several, with
commas.
"""

from ml_collections import ConfigDict

from pivq_jax.config import base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """Returns the config of the experiment with the given variants, see `with_variants`."""
    config = base_config()
    config.name = "toon_faces"
    config.data.name = "toon_faces"
    config.model.num_codes = 16
    config.model.width = 96
    config.model.output = "patch"
    config.model.local_output = True
    config.quantizer.codebook_size = 512
    config.quantizer.init_at = 0.5
    config.quantizer.noise = 0.2
    config.quantizer.init_batches = 96
    config.loss.l2 = 0.5
    config.loss.recombination = 1.0
    config.adversarial.start_at = 0.625
    config.train.steps = 8_000
    large = {
        "model.width": 128,
        "loss.perceptual": 0.05,
        "loss.recombination": 0.5,
        "adversarial.start_at": 0.667,
        "optimizer.warmup": 0.0222,
        "train.steps": 9_000,
    }
    return with_variants(config, variants, {"large": large})
