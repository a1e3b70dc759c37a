"""The default: cartoon faces at 64x64, on a laptop's CPU.

    python -m pivq_jax.main --config=configs/toon_faces.py --workdir=runs/toon_faces

Cost and result: see the README's table, measured with this command. The faces vary in ten factors,
about 24 bits together. K = 16 N: with learned queries a latent tends to own K / N entries, and at
this ratio matching no longer costs reconstruction. Few codes, so that each says something of its
own and recombined sets make whole faces.

Variants: `:smoke` (a minute), `:nearest`, `:positional`; several with commas.
"""

from ml_collections import ConfigDict

from configs.common import base_config, with_variants


def get_config(variants: str = "") -> ConfigDict:
    """The experiment's config."""
    config = base_config()
    config.name = "toon_faces"
    config.data.name = "toon_faces"
    return with_variants(config, variants)
