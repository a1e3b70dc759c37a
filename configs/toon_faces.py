from configs.common import base_config, with_variants


def get_config(variants: str = ""):
    config = base_config()
    config.name = "toon_faces"
    config.data.name = "toon_faces"
    return with_variants(config, variants)
