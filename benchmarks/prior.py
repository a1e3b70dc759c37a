"""Compares samples from a prior over sets with recombined parents, on a trained model.

    python -m benchmarks.prior --workdir runs/toon_faces [--samples=1000]
    python -m benchmarks.prior --pretrained toon_faces

The model must have a prior (`pivq_jax.prior train`). Prints rows for recombination with and without
the log lift, alone or where the prior picks the best of several exchanges, and for the prior alone
at several temperatures and numbers of passes. Each has FID, precision, recall, density and coverage
against the test images, and tells how new the samples are: how many codes (of N) a sample has in
common with the most similar training image and, if it has parents, how far it is from the
reconstruction of the nearer one (`new`). It also has sets per second,
without decoding and the choice of parents, which is made once before. Test images show how many
common codes are usual.

The last lines compare the bits of a set on the test split: under the prior, with independent codes
(`marginal_bits`) and of the set alone (`ceiling_bits`). Writes prior.json to --output.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from benchmarks.common import add_model, open_model, output_of, parser_for
from pivq_jax import sampling
from pivq_jax.common.files import write_json
from pivq_jax.evaluation.prdc import compare_features
from pivq_jax.evaluation.session import Session
from pivq_jax.inference import decode_batched
from pivq_jax.prior.report import known_sets, nearest_sets
from pivq_jax.sampling import capacity, prior_bits
from pivq_jax.training.build import dataset_from_config

SETTINGS = ((16, 1.0), (16, 0.9), (16, 0.8), (16, 0.7), (8, 1.0), (4, 1.0))  # passes, temperature
# Exchanges compared by the prior, none of them for recombination without it; with log lift or not.
CANDIDATES = ((0, True), (16, True), (0, False), (16, False))


def newness(made: np.ndarray, parents: tuple[np.ndarray, np.ndarray]) -> float:
    """Mean absolute difference from the nearer of two images; all uint8 [S, H, W, 3]."""
    apart = [np.abs(made.astype(np.float32) - parent).mean((1, 2, 3)) for parent in parents]
    return float(np.mean(np.minimum(*apart)))


def main() -> None:
    """Prints the tables."""
    parser = parser_for(__doc__)
    add_model(parser, "prior_comparison")
    parser.add_argument("--samples", type=int, default=1_000)
    options = parser.parse_args()
    output = output_of(options, "prior_comparison")
    model = open_model(options)
    config = model.config.with_fields({"evaluate.samples": options.samples})
    model, prior = dataclasses.replace(model, config=config), model.prior
    if prior is None:
        parser.error("the model has no prior: train one with pivq_jax.prior train")
    session = Session(model, dataset_from_config(config), output)
    train = session.pool_codes
    real = session.features_of(session.dataset.test).whole
    key = jax.random.key(config.seed)
    key_parents, key_mix = jax.random.split(key)  # the parents are those of an evaluation
    n = train.shape[1]
    pool = key_parents, options.samples, train, model.codebook
    pairs = sampling.near_parents(model.space, *pool, nearest_of=config.sample.nearest_of)
    a, b = train[pairs].swapaxes(0, 1)
    parents = decode_batched(model, a), decode_batched(model, b)

    rows: dict[str, dict[str, float]] = {}

    def measure(name: str, draw: Callable[[], jax.Array], new: bool = False) -> None:
        codes = np.asarray(draw())
        started = time.perf_counter()  # of a second draw, without compilation
        jax.block_until_ready(draw())
        speed = options.samples / (time.perf_counter() - started)
        images = decode_batched(model, codes)
        found = compare_features(
            real, session.extractor.extract(images), session.settings.neighbours
        )
        _, shared = nearest_sets(model.space, codes, known_sets(session))
        rows[name] = {k: float(v) for k, v in found.items() if isinstance(v, float)}
        rows[name] |= {"new": newness(images, parents)} if new else {}
        rows[name] |= {
            "shared": float(shared.mean()),
            "copies": int((shared == n).sum()),
            "sets_per_second": speed,
        }
        print(name, {k: round(v, 4) for k, v in rows[name].items()}, flush=True)

    recombine = partial(sampling.recombine, model.space, model.codebook, a, b, key_mix)
    for count, with_lift in CANDIDATES:
        name = f"two parents recombined, {'with' if with_lift else 'without'} log lift"
        draw = partial(recombine, lift=session.lift if with_lift else None)
        if count:
            name += f", best of {count}"
            draw = partial(draw, prior=prior, candidates=count)
        measure(name, draw, new=True)
    for passes, temperature in SETTINGS:
        draw = partial(model.sample_prior, key, options.samples, temperature, passes)
        measure(f"prior, {passes} passes, temperature {temperature}", draw)
    test = session.test_codes
    print("test images share", nearest_sets(model.space, test, known_sets(session))[1].mean())
    bits = np.asarray(prior_bits(prior.network, prior.params, test, key, orders=16))
    used = capacity(model.space, test)
    rows["bits"] = {
        "prior": float(bits.mean()),
        "marginal": used["marginal_bits"],
        "ceiling": used["ceiling_bits"],
    }
    print(rows["bits"])
    write_json(output / "prior.json", rows)


if __name__ == "__main__":
    main()
