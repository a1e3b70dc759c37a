"""Compares samples from a prior over sets with recombined parents, on a trained run.

    python -m benchmarks.prior --workdir runs/toon_faces [--samples=1000]

The run must have a prior (`--mode=train_prior`). Prints, for recombination and for the prior at
several temperatures and numbers of passes, FID, precision, recall, density and
coverage against the test images, and how new the samples are: the number of codes (of N) that a
sample has in common with the most similar training image, where test images show what is usual. The
last lines compare the bits of a set on the test split: under the prior, with independent codes
(`marginal_bits`) and of the set alone (`ceiling_bits`). Writes to --output: prior.json, and
prior.png with the samples of the prior.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

import pivq_jax
from pivq_jax.common.pictures import grid, save_png
from pivq_jax.evaluation.capacity import capacity
from pivq_jax.evaluation.distribution import compare_features
from pivq_jax.evaluation.reconstruction import decode_batched
from pivq_jax.evaluation.session import Session, Settings
from pivq_jax.sampling import prior_bits
from pivq_jax.training.build import dataset_from_config

SETTINGS = ((16, 1.0), (16, 0.9), (16, 0.8), (8, 1.0), (4, 1.0))  # passes, temperature


def shared_codes(sets: np.ndarray, training: np.ndarray, codebook_size: int) -> np.ndarray:
    """Returns the largest number of codes that each set has in common with a training set."""

    def membership(codes: np.ndarray) -> np.ndarray:
        holds = np.zeros((len(codes), codebook_size), np.float32)
        np.put_along_axis(holds, codes, 1, axis=1)
        return holds

    return (membership(sets) @ membership(training).T).max(1)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True, help="a finished run")
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--output", type=Path, help="default <workdir>/prior_comparison")
    options = parser.parse_args()
    model = pivq_jax.load(options.workdir)
    prior, config, size = model.prior, model.config, model.config.quantizer.codebook_size
    if prior is None:
        raise SystemExit(f"{options.workdir} has no prior: train one with --mode=train_prior")
    session = Session(
        model,
        dataset_from_config(config),
        Settings(**{**config.evaluate, "samples": options.samples}, lpips_path=""),
        options.workdir,
    )
    batch_size = session.settings.batch_size
    train = session.pool_codes
    real = session.features_of(session.dataset.test)
    key = jax.random.key(config.seed)
    n = train.shape[1]

    rows: dict[str, dict[str, float]] = {}

    def measure(name: str, codes: np.ndarray, images: np.ndarray) -> None:
        found = compare_features(
            real, session.extractor.extract(images), session.settings.neighbours
        )
        shared = shared_codes(codes, train, size)
        rows[name] = {k: float(v) for k, v in found.items() if isinstance(v, float)}
        rows[name] |= {
            "shared": float(shared.mean()),
            "copies": int((shared == n).sum()),
        }
        print(name, {k: round(v, 4) for k, v in rows[name].items()}, flush=True)

    measure("recombined", session.samples.codes, session.samples.images)
    shown = []
    for passes, temperature in SETTINGS:
        codes = np.asarray(model.sample_prior(key, options.samples, temperature, passes))
        started = time.perf_counter()  # of a second draw, without compilation
        jax.block_until_ready(model.sample_prior(key, options.samples, temperature, passes))
        speed = options.samples / (time.perf_counter() - started)
        images = decode_batched(model, codes, batch_size)
        name = f"prior, {passes} passes, temperature {temperature}"
        measure(name, codes, images)
        rows[name]["sets_per_second"] = speed
        shown.append(images)
    test = session.test_codes
    print("test images share", shared_codes(test, train, size).mean())
    bits = prior_bits(prior.network, prior.params, test, key, orders=16)
    used = capacity(test, size, model.kind)
    rows["bits"] = {
        "prior": float(bits.mean()),
        "marginal": used["marginal_bits"],
        "ceiling": used["ceiling_bits"],
    }
    print(rows["bits"])
    output = options.output or options.workdir / "prior_comparison"
    output.mkdir(parents=True, exist_ok=True)
    (output / "prior.json").write_text(json.dumps(rows, indent=2))
    save_png(output / "prior.png", grid(shown[0][:64], 8, session.scale))


if __name__ == "__main__":
    main()
