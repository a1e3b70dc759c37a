"""Trains the config for photographs of faces with each of several changes, for a table.

    python -m benchmarks.faces --data=ALIGNED [--only NAME ...] [--seeds SEED ...] [--steps=1500]

ALIGNED is what `pivq_jax.data.align` has made (docs/photographs.md). `benchmarks.screen` describes
how rows are run, on a core of the CPU each; they are appended to runs/faces/rows.jsonl. Rows have
the same number of steps; `seconds` is their time of training, as it was.
"""

from pathlib import Path

from benchmarks import screen

ROWS: dict[str, screen.Changes] = {
    "as the config has it": {},
    "loss on recombined images": {"loss.recombination": 0.5},
    "nearest entries": {"quantizer.kind": "nearest"},
    "LPIPS of images in place": {"loss.perceptual_shift": 0},
    "image_folder's settings": {
        "data.flip": False,
        "model.num_codes": 32,
        "model.width": 128,
        "model.encoder_depth": 2,
        "model.decoder_depth": 2,
        "quantizer.codebook_size": 512,
        "quantizer.noise": 0.0,
        "loss.l2": 0.5,
        "loss.perceptual": 0.0,
        "loss.perceptual_shift": 0,
        "loss.recombination": 0.5,
    },
    "a layer for each patch": {"model.local_output": True},
    "matched parents": {"sample.nearest_of": 1_000},
    "discriminator": {
        "adversarial.weight": 0.02,
        "adversarial.recombined_weight": 0.05,
        "adversarial.start_at": 0.667,
    },
}
COLUMNS: screen.Columns = (
    ("seconds", "train_seconds", 0),
    ("bits", "ceiling_bits", 0),
    ("PSNR dB", "psnr", 2),
    ("LPIPS", "lpips", 4),
    ("rFID", "rfid", 4),
    ("FID", "fid", 4),
    ("precision", "precision", 3),
    ("recall", "recall", 3),
    ("density", "density", 3),
    ("coverage", "coverage", 3),
    ("used", "codes_used", 0),
)

if __name__ == "__main__":
    screen.main(
        __doc__,
        ROWS,
        Path("runs/faces"),
        COLUMNS,
        steps=1_500,
        config="configs/faces.py",
        settings={"quantizer.init_at": 0.2, "train.checkpoint_every": 1500},
        data="directory of aligned images, of which a person's are named NAME_0001.png and so on",
    )
