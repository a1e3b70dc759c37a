"""Published models: directories in the layout of the Hugging Face hub.

`model.safetensors` contains the weights and, in its metadata, the description needed to use them.
`config.json` repeats the description for the hub and for readers; `README.md` is the model card.
"""

import json
import re
from pathlib import Path
from typing import Any

from pivq_jax.common.errors import InputError
from pivq_jax.common.files import write_atomically, write_json
from pivq_jax.interop.safetensors_file import read_model, write_model
from pivq_jax.interop.weights import Params

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
# Config fields that hold paths of the machine on which the model was trained.
PATHS = (("data", "path"), ("loss", "perceptual_weights"), ("evaluate", "features_path"))


def without_paths(description: dict[str, Any]) -> dict[str, Any]:
    """Returns a description with emptied paths, as they are only valid on this machine.

    Args:
        description: JSON values, with at least `config`, which may be of another version.
    """
    config = {**description["config"]}
    for section, field in PATHS:
        if field in config.get(section, {}):
            config[section] = {**config[section], field: ""}
    return {**description, "config": config}


def write_pretrained(directory: Path, params: Params, description: dict[str, Any]) -> None:
    """Writes the three files of a published model, replacing existing ones.

    Args:
        directory: local directory, created if missing.
        params: the weights, a tree of float32 arrays.
        description: JSON values `config`, `step`, `progress` and `metrics`.

    Raises:
        InputError: if `directory` is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file: give a directory")
    write_model(directory / WEIGHTS, params, description)
    write_json(directory / CONFIG, description)
    write_atomically(directory / CARD, model_card(description).encode())


def read_pretrained(where: str | Path) -> tuple[Params, dict[str, Any]]:
    """Reads a published model from a directory or from the hub.

    Args:
        where: a directory written by `write_pretrained`, or a hub id, 'owner/name'.

    Returns:
        the parameters, a tree of float32 NumPy arrays, and the description; see `read_model`.

    Raises:
        InputError: if there is no such directory or model, the hub cannot be reached, or the files
            are damaged.
    """
    directory = Path(where).expanduser()
    if not directory.is_dir():
        directory = _download(str(where))
    if not (directory / WEIGHTS).is_file():
        raise InputError(f"{where} holds no {WEIGHTS}: give what save_pretrained wrote")
    return read_model(directory / WEIGHTS)


def _download(name: str) -> Path:
    """Downloads the files of a model from the hub, or finds them in its local cache."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"{name} is neither a directory nor a hub id such as owner/name")
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            f"{name} is not a directory here, and fetching it from the hub needs huggingface_hub:"
            " pip install huggingface_hub"
        ) from error
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=[WEIGHTS, CONFIG]))
    # Raised if there is no network or no such model, or if the id is invalid.
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{name} is not a directory here and could not be fetched from the hub ({reason}):"
            " check the id and the network, or give a directory"
        ) from error


def model_card(description: dict[str, Any]) -> str:
    """Returns the text of a model card (README.md) with usage and metrics.

    Args:
        description: JSON values `config`, `step` and `metrics`; the config must be complete.

    Returns:
        Markdown, with YAML metadata for the hub.
    """
    config, metrics = description["config"], description["metrics"]
    data, model, quantizer = config["data"], config["model"], config["quantizer"]
    numbers = {
        name: value
        for name, value in metrics.items()
        if type(value) in (int, float) and name != "step"
    }
    head: dict[str, Any] = {
        "library_name": "pivq_jax",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["jax", "vector-quantization", "autoencoder", "image-generation"],
    }
    if numbers:
        head["model-index"] = [
            {
                "name": config["name"],
                "results": [
                    {
                        "task": {"type": head["pipeline_tag"]},
                        "dataset": {"type": data["name"], "name": data["name"], "split": "test"},
                        "metrics": [{"type": n, "value": value} for n, value in numbers.items()],
                    }
                ],
            }
        ]
    front = "\n".join(
        f"{name}: {json.dumps(value)}" for name, value in head.items()
    )  # JSON is YAML
    rows = "\n".join(
        f"| {name} | {value:.4g} |" if isinstance(value, float) else f"| {name} | {value} |"
        for name, value in numbers.items()
    )
    measured = f"## Test split\n\n| metric | value |\n| --- | --- |\n{rows}\n" if numbers else ""
    form = {
        "matching": "a set of distinct codes",
        "nearest": "a multiset of codes",
        "positional": "a code for each of its latents",
    }[quantizer["kind"]]
    size, count, kind = data["image_size"], model["num_codes"], quantizer["kind"]
    return f"""---
{front}
---

# {config["name"]}

A PI-VQ autoencoder ([arXiv 2604.01843](https://arxiv.org/abs/2604.01843)) for images of
{size}x{size} pixels, trained with pivq_jax on `{data["name"]}` for {description["step"]} steps.
An image is {form}: {count} of {quantizer["codebook_size"]} (`quantizer.kind = "{kind}"`).

```python
import jax
import pivq_jax

model = pivq_jax.from_pretrained("path/or/hub-id")
codes = model.encode(images)  # f32 [B, {size}, {size}, 3] in [-1, 1] -> int32 [B, {count}]
images = model.decode(codes)
mixed = model.decode(model.recombine(codes, codes[::-1], jax.random.key(0)))
```

The names and layouts of the weights are PyTorch's.

{measured}"""
