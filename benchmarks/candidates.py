"""Changes the model and its losses one at a time, in short runs of about equal time.

    python -m benchmarks.candidates [--only=NAME ...] [--seeds=1] [--steps=1000]

`benchmarks.screen` describes how rows are run; they are appended to docs/tables/candidates.jsonl.
The steps of each row are scaled by the time of a step, so that all train as long as the default
config does in --steps steps.
"""

from pathlib import Path

from benchmarks import screen

PATCHES = {"model.latents": "patches", "model.num_codes": "64"}
ROWS: dict[str, dict[str, str]] = {
    "as the config has it": {},
    "convolutional stem": {"model.stem": "conv"},
    "patches, N = 64": PATCHES,
    "patches, N = 16": {"model.latents": "patches"},
    "random queries": {"model.latents": "random"},
    "N = 24": {"model.num_codes": "24"},
    "N = 32": {"model.num_codes": "32"},
    "N = 64": {"model.num_codes": "64"},
    "K = 256": {"quantizer.codebook_size": "256"},
    "K = 1,024": {"quantizer.codebook_size": "1024"},
    "N = 32, K = 1,024": {"model.num_codes": "32", "quantizer.codebook_size": "1024"},
    "width 96": {"model.width": "96"},
    "width 192": {"model.width": "192"},
    "encoder of 3 blocks": {"model.encoder_depth": "3"},
    "decoder of 3 blocks": {"model.decoder_depth": "3"},
    "decoder of 1 block": {"model.decoder_depth": "1"},
    "no decoder blocks over the set": {"model.set_depth": "0"},
    "MLPs of ratio 2": {"model.mlp_ratio": "2"},
    "rotation trick": {"quantizer.gradient": "rotation"},
    "loss of differences": {"loss.gradient": "0.5"},
    "focal frequency loss": {"loss.frequency": "1.0"},
    "perceptual loss, weight 0.2": {"loss.perceptual": "0.2"},
    "no perceptual loss": {"loss.perceptual": "0"},
    "batches of 8": {"train.batch_size": "8"},
    "4 iterations": {"optimizer.iterations": "4"},
    "4 iterations, AOL": {"optimizer.iterations": "4", "optimizer.preconditioning": "aol"},
    "3 iterations, AOL": {"optimizer.iterations": "3", "optimizer.preconditioning": "aol"},
    "3 iterations, Schatten": {
        "optimizer.iterations": "3",
        "optimizer.preconditioning": "schatten",
    },
}
