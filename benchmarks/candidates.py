"""Changes the model and its losses one at a time, in short runs.

    python -m benchmarks.candidates [--only=NAME ...] [--seeds=1] [--steps=1000]

`benchmarks.screen` describes how rows are run; they are appended to docs/tables/candidates.jsonl.
The seconds of training stand beside each row.
"""

from pathlib import Path

from benchmarks import screen

ROWS: dict[str, dict[str, str]] = {
    "as the config has it": {},
    "convolutional stem": {"model.stem": "conv"},
    "patches, N = 64": {"model.latents": "patches", "model.num_codes": "64"},
    "rotation trick": {"quantizer.gradient": "rotation"},
    "Muon of 3 iterations, AOL": {
        "optimizer.iterations": "3",
        "optimizer.preconditioning": "aol",
    },
    "random queries": {"model.latents": "random"},
    "loss of differences": {"loss.gradient": "0.5"},
    "focal frequency loss": {"loss.frequency": "1.0"},
    "decoder of 3 blocks": {"model.decoder_depth": "3"},
    "N = 24": {"model.num_codes": "24"},
    "N = 32": {"model.num_codes": "32"},
    "K = 1,024": {"quantizer.codebook_size": "1024"},
    "patches, N = 16": {"model.latents": "patches"},
    "perceptual loss, weight 0.2": {"loss.perceptual": "0.2"},
    "Muon of 4 iterations": {"optimizer.iterations": "4"},
    "width 192": {"model.width": "192"},
    "momentum 0.9, weight decay 0.1": {
        "optimizer.momentum": "0.9",
        "optimizer.weight_decay": "0.1",
    },
    "batches of 8": {"train.batch_size": "8"},
    "memory of 256 images": {"loss.memory": "256"},
    "mixtures encode to their codes, 0.1": {"loss.cycle": "0.1"},
}

if __name__ == "__main__":
    screen.main(
        __doc__,
        ROWS,
        Path("docs/tables/candidates.jsonl"),
        Path("runs/candidates"),
        (*screen.COLUMNS, ("seconds", "train_seconds", 0)),
    )
