"""The card of a published model: README.md with usage, licence and metrics."""

import json
from typing import Any

from pivq_jax.common.terms import TERMS

# Metrics that say nothing about the model, or that the card has elsewhere.
LEFT_OUT = ("step", "train_seconds", "train_images_per_second", "sample_images_per_second")

_FORMS = {
    "matching": "a set of distinct codes",
    "nearest": "a multiset of codes",
    "positional": "a code for each of its latents",
}


def model_card(description: dict[str, Any], parents: int = 0) -> str:
    """Returns a model card: Markdown with YAML metadata for the hub, usage, licence and metrics."""
    config, metrics = description["config"], description["metrics"]
    data, model, quantizer = config["data"], config["model"], config["quantizer"]
    size, kind = data["image_size"], quantizer["kind"]
    count = model["num_codes"]
    numbers = {
        name: value
        for name, value in metrics.items()
        if type(value) in (int, float) and name not in LEFT_OUT
    }
    task = "unconditional-image-generation"
    metadata: dict[str, Any] = {
        "library_name": "pivq_jax",
        "pipeline_tag": task,
        "tags": ["jax", "vector-quantization", "autoencoder", "image-generation"],
    }
    new = licence = measured = ""
    if parents:
        command = "new = model.decode(model.sample(jax.random.key(0), 16))"
        new = f"{command}  # of {parents:,} images' codes\n"
    if terms := TERMS.get(data["name"]):
        metadata["license"] = terms.identifier
        licence = f"\n## Licence\n\n{terms.text}\n"
    if numbers:
        results = {
            "task": {"type": task},
            "dataset": {"type": data["name"], "name": data["name"], "split": "test"},
            "metrics": [{"type": name, "value": value} for name, value in numbers.items()],
        }
        metadata["model-index"] = [{"name": config["name"], "results": [results]}]
        rows = "".join(
            f"| {name} | {value:.4g} |\n" if isinstance(value, float) else f"| {name} | {value} |\n"
            for name, value in numbers.items()
        )
        measured = f"\n## Test split\n\n| metric | value |\n| --- | --- |\n{rows}"
    # As JSON, each value is YAML, too.
    front = "\n".join(f"{name}: {json.dumps(value)}" for name, value in metadata.items())
    return f"""---
{front}
---

# {config["name"]}

A PI-VQ autoencoder ([arXiv 2604.01843](https://arxiv.org/abs/2604.01843)) for images of
{size}x{size} pixels, trained with pivq_jax on `{data["name"]}` for {description["step"]} steps.
An image is {_FORMS[kind]}: {count} of {quantizer["codebook_size"]} (`quantizer.kind = "{kind}"`).

```python
import jax
import pivq_jax

model = pivq_jax.from_pretrained("OWNER/NAME")  # on the hub, or its directory
{new}codes = model.encode(images)  # f32 [B, {size}, {size}, 3] in [-1, 1] -> int32 [B, {count}]
images = model.decode(codes)
mixed = model.decode(model.recombine(codes, codes[::-1], jax.random.key(0)))
```

The names and layouts of the weights are PyTorch's.
{licence}{measured}"""
