"""Changes the model and its losses one at a time, in short runs.

    python -m benchmarks.candidates [--only=NAME ...] [--seeds=1] [--steps=1000]

`benchmarks.screen` describes how rows are run; they are appended to docs/tables/candidates.jsonl.
The seconds of training stand beside each row.
"""

from pathlib import Path

from benchmarks import screen

# Steps are relative to those of the default, by the measured time of a step, so that all rows train
# for the same time: `python -m benchmarks.candidate_times`, one process
# on each of two cores of an AMD EPYC.
ROWS: dict[str, dict[str, str]] = {
    "as the config has it": {},
    "convolutional stem": {"model.stem": "conv", "train.steps": "0.892x"},
    "patches, N = 64": {
        "model.latents": "patches",
        "model.num_codes": "64",
        "train.steps": "0.849x",
    },
    "patches averaged to N = 16": {"model.latents": "patches", "train.steps": "0.982x"},
    "random queries": {"model.latents": "random"},
    "N = 24": {"model.num_codes": "24", "train.steps": "0.932x"},
    "K = 1,024": {"quantizer.codebook_size": "1024", "train.steps": "0.967x"},
    "width 96": {"model.width": "96", "train.steps": "1.227x"},
    "width 192": {"model.width": "192", "train.steps": "0.558x"},
    "decoder of 1 block": {"model.decoder_depth": "1", "train.steps": "1.23x"},
    "decoder of 3 blocks": {"model.decoder_depth": "3", "train.steps": "0.834x"},
    "4 heads": {"model.heads": "4"},
    "rotation trick": {"quantizer.gradient": "rotation", "train.steps": "0.981x"},
    "loss of differences, 0.5": {"loss.gradient": "0.5", "train.steps": "0.989x"},
    "focal frequency loss, 1": {"loss.frequency": "1.0", "train.steps": "0.991x"},
    "L2, weight 2": {"loss.l2": "2"},
    "perceptual loss, weight 0.2": {"loss.perceptual": "0.2"},
    "Muon of 4 iterations": {"optimizer.iterations": "4", "train.steps": "1.028x"},
    "momentum 0.9, weight decay 0.1": {
        "optimizer.momentum": "0.9",
        "optimizer.weight_decay": "0.1",
    },
    "batches of 8": {"train.batch_size": "8", "train.steps": "1.63x"},
    "memory of 256 images": {"loss.memory": "256", "train.steps": "0.922x"},
    "mixtures encode to their codes, 0.1": {"loss.cycle": "0.1", "train.steps": "0.94x"},
}

if __name__ == "__main__":
    screen.main(
        __doc__,
        ROWS,
        Path("docs/tables/candidates.jsonl"),
        Path("runs/candidates"),
        (*screen.COLUMNS, ("steps", "step", 0), ("seconds", "train_seconds", 0)),
    )
