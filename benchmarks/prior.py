"""Compares samples from a prior over sets with recombined parents, on a trained run.

    python -m benchmarks.prior --workdir runs/toon_faces [--samples=1000]

Trains the prior of the run first if it has none (`--mode=train_prior`). Prints, for recombination
and for the prior at several temperatures and numbers of passes, FID, precision, recall, density and
coverage against the test images, and how new the samples are: the number of codes (of N) that a
sample has in common with the most similar training image, where test images show what is usual. The
last lines compare the bits of a set on the test split: under the prior, with independent codes
(`marginal_bits`) and of the set alone (`ceiling_bits`). Writes to --output: prior.json, and
prior.png with the samples of the prior.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import pivq_jax
from pivq_jax.common.pictures import grid, save_png
from pivq_jax.evaluation.capacity import capacity
from pivq_jax.evaluation.distribution import compare_features
from pivq_jax.evaluation.reconstruction import decode_batched, encode_split
from pivq_jax.evaluation.session import Session, Settings
from pivq_jax.sampling.prior import complete_sets, prior_bits
from pivq_jax.training.build import dataset_from_config
from pivq_jax.training.prior import train_prior
from pivq_jax.training.prior_files import PRIOR

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
    config, size = model.config, model.config.quantizer.codebook_size
    session = Session(
        model,
        dataset_from_config(config),
        Settings(**{**config.evaluate, "samples": options.samples}, lpips_path=""),
        options.workdir,
    )
    batch_size = session.settings.batch_size
    train = session.pool_codes
    validation = encode_split(model, session.dataset.validation, batch_size)
    started = time.perf_counter()
    prior = train_prior(
        *(config.prior, size, train, validation),
        directory=options.workdir / PRIOR,
        seed=config.seed,
        model_step=model.step,
    )
    print(f"trained in {time.perf_counter() - started:.0f} s", flush=True)
    real = session.features_of(session.dataset.test)
    key = jax.random.key(config.seed)
    n = train.shape[1]
    blank = jnp.zeros((options.samples, n), jnp.int32)

    rows: dict[str, dict[str, float]] = {}

    def measure(name: str, codes: np.ndarray, images: np.ndarray) -> None:
        found = compare_features(
            real, session.extractor.extract(images), session.settings.neighbours
        )
        shared = shared_codes(codes, train, size)
        rows[name] = {k: float(v) for k, v in found.items() if isinstance(v, float)}
        rows[name] |= {
            "shared": float(shared.mean()),
            "copies": int((shared == shared.max()).sum()),
        }
        print(name, {k: round(v, 4) for k, v in rows[name].items()}, flush=True)

    measure("recombined", session.samples.codes, session.samples.images)
    shown = None
    for passes, temperature in SETTINGS:
        draw = partial(
            complete_sets,
            *(prior.network, prior.params, blank),
            temperature=temperature,
            passes=passes,
        )
        codes = np.asarray(draw(key))
        started = time.perf_counter()
        jax.block_until_ready(draw(key))
        speed = options.samples / (time.perf_counter() - started)
        images = decode_batched(model, codes, batch_size)
        name = f"prior, {passes} passes, temperature {temperature}"
        measure(name, codes, images)
        rows[name]["sets_per_second"] = speed
        shown = images if shown is None else shown
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
    assert shown is not None
    save_png(output / "prior.png", grid(shown[:64], 8, session.scale))


if __name__ == "__main__":
    main()
