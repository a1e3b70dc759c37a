"""What a training costs, planned or measured, in the same rows; peaks of devices."""

from collections.abc import Mapping
from typing import NamedTuple

# FLOP/s of a device by what its `device_kind` begins with: dense products of bfloat16 (float16 on
# V100 and T4), with sums in float32. TPUs: cloud.google.com/tpu/docs, the page of each version.
# GPUs: NVIDIA's data sheets and white papers, halved where they give what sparse matrices reach.
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,  # v5e
    "TPU v5": 459e12,  # v5p
    "TPU v6 lite": 918e12,  # v6e
    "Tesla V100-PCIE": 112e12,
    "Tesla V100": 125e12,
    "Tesla T4": 65e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L4": 121e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA RTX A6000": 155e12,
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA GeForce RTX 4090": 165e12,
}

# What time is lost to, and how the table calls it. The rest of a run is in its steps.
LOSSES = {
    "start": "start and compilation",
    "restarts": "restarts",
    "input": "waiting for images",
    "evaluations": "evaluations",
    "checkpoints": "checkpoints",
    "pictures": "pictures",
}


class Cost(NamedTuple):
    """What a run costs, planned or measured; None for what is not known."""

    devices: str  # their number and kind
    peak: float | None  # FLOP/s of a device
    flops: float | None  # FLOPs of a step of the last phase for each device
    share: float | None  # of the peak, with the time of waiting for images
    step_seconds: float  # with it, too
    batch_size: int  # images of a step, over all devices
    steps: int
    lost: Mapping[str, float]  # seconds by keys of `LOSSES`
    total: float  # seconds in steps and lost


def format_duration(seconds: float) -> str:
    """Formats seconds as h:mm:ss, or m:ss below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def cost_table(columns: Mapping[str, Cost]) -> str:
    """Formats costs as a table in Markdown, with the same rows for plans and runs."""

    def duration(seconds: float | None, total: float) -> str:
        return "-" if seconds is None else f"{format_duration(seconds)} ({seconds / total:.1%})"

    def number(value: float | None, form: str, scale: float = 1.0) -> str:
        return "-" if value is None else format(value / scale, form)

    rows: dict[str, list[str]] = {}
    for cost in columns.values():
        in_steps = cost.total - sum(cost.lost.values())
        for label, cell in {
            "devices": cost.devices,
            "peak of a device, TFLOP/s": number(cost.peak, ".3g", 1e12),
            "model TFLOPs of a step, a device": number(cost.flops, ".3g", 1e12),
            "share of the peak, waiting included": number(cost.share, ".1%"),
            "milliseconds of a step": f"{1e3 * cost.step_seconds:.1f}",
            "images per second, waiting included": f"{cost.batch_size / cost.step_seconds:,.1f}",
            "steps": f"{cost.steps:,}",
            "time": format_duration(cost.total),
            "in steps (goodput)": duration(in_steps, cost.total),
            **{name: duration(cost.lost.get(x), cost.total) for x, name in LOSSES.items()},
        }.items():
            rows.setdefault(label, []).append(cell)
    head = ["cost", *columns]
    lines = [head, ["---", *["---:"] * len(columns)], *([label, *x] for label, x in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
