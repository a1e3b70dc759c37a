"""Changes the training settings of the default run one at a time, in short runs.

    python -m benchmarks.sweep [--only=NAME ...] [--seeds SEED ...] [--steps=1000]

`benchmarks.screen` describes how rows are run; they are appended to docs/tables/sweep.jsonl. In all
rows, the short runs initialize the codebook early (step 250) and average their weights over few
steps.
"""

from pathlib import Path

from benchmarks import screen

ADAMW = {"optimizer.name": "adamw"}
ROWS: dict[str, dict[str, str]] = {
    "as the config has it": {},
    "AdamW": ADAMW,
    "AdamW, rate 7.5e-4": ADAMW | {"optimizer.learning_rate": "7.5e-4"},
    "AdamW, rate 3e-3": ADAMW | {"optimizer.learning_rate": "3e-3"},
    "Muon's rate 3e-3": {"optimizer.muon_learning_rate": "3e-3"},
    "Muon's rate 1.2e-2": {"optimizer.muon_learning_rate": "1.2e-2"},
    "rate of all else 3e-3": {"optimizer.learning_rate": "3e-3"},
    "momentum 0.9": {"optimizer.momentum": "0.9"},
    "momentum 0.98": {"optimizer.momentum": "0.98"},
    "warm-up of 50 steps": {"optimizer.warmup_steps": "50"},
    "no weight decay": {"optimizer.weight_decay": "0"},
    "weight decay 0.1": {"optimizer.weight_decay": "0.1"},
    "batches of 8, twice the steps": {
        "train.batch_size": "8",
        "train.steps": "2x",
        "quantizer.init_step": "500",
    },
    "batches of 32, half the steps": {
        "train.batch_size": "32",
        "train.steps": "0.5x",
        "quantizer.init_step": "125",
    },
    "averages over 1,000 steps": {"train.ema_decay": "0.999"},
    "no clipping": {"optimizer.clip_norm": "1e9"},
    "codebook from step 100": {"quantizer.init_step": "100"},
    "codebook from step 500": {"quantizer.init_step": "500"},
    "recombination's weight 2": {"loss.recombination": "2.0"},
    "recombination at full weight at once": {"loss.recombination_warmup": "0"},
}

if __name__ == "__main__":
    screen.main(__doc__, ROWS, Path("docs/tables/sweep.jsonl"), Path("runs/sweep"))
