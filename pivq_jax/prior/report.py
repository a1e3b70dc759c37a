"""The report's section on a prior over sets: its bits, sets drawn from it, and completions."""

from typing import Any

import jax
import numpy as np

from pivq_jax.common.output import progress_bar
from pivq_jax.common.parallel import to_first_device
from pivq_jax.common.pictures import Pixels, grid, reconstruction_grid
from pivq_jax.data.sources import Mirrored
from pivq_jax.evaluation.session import Draw, Session
from pivq_jax.inference import encode_split
from pivq_jax.inference.splits import in_batches
from pivq_jax.sampling import CodeSpace, prior_bits

ORDERS = 4  # of the codes of a set, over which its probability is averaged
TEMPERATURES = (1.0, 0.9)
AT_ONCE = 256  # sets drawn or judged at once, which bounds the memory used
COMPARED = 1_024  # sets compared at once; fewer take longer
SHOWN = 16  # sets of each kind in the pictures
# Test images whose sets are completed, and how often, and the fractions of their codes given.
COMPLETED, TIMES, GIVEN = 8, 2, (3 / 4, 1 / 2, 1 / 4)


def known_sets(session: Session) -> np.ndarray:
    """Returns what the prior is trained on, int32 [M, N]: codes of the pool and, if images are
    flipped, of their mirror images.
    """
    if not session.model.config.data.flip:
        return session.pool_codes
    mirrored = encode_split(session.model, Mirrored(session.pool))
    return np.concatenate([session.pool_codes, mirrored])


def describe_prior(session: Session) -> dict[str, Any]:
    """Measures the prior of a model on the test split, and draws sets and completions."""
    codes_by_name = {"test images": session.test_codes, "recombined": session.samples.codes}
    codes_by_name |= {
        f"temperature {t:g}": draw_sets(session, session.settings.samples, t) for t in TEMPERATURES
    }
    sets, known = {}, known_sets(session)
    for name, codes in codes_by_name.items():
        nearest, shared = nearest_sets(session.model.space, codes, known)
        sets[name] = {
            "sets": len(codes),
            "shared_codes": float(shared.mean()),
            "copies": int(np.sum(shared == codes.shape[1])),
        }
        if name != "test images":
            images = session.decode(np.concatenate([codes[:SHOWN], known[nearest[:SHOWN]]]))
            above, below = np.split(images, 2)
            picture = reconstruction_grid(above, below, 8)
            session.save(f"prior_{name.replace(' ', '_')}", picture)
    session.save("prior_completions", _completions(session))
    return {**describe_bits(session), "prior_sets": sets}


def draw_sets(session: Session, count: int, temperature: float, first: int = 0) -> np.ndarray:
    """Draws sets from the prior, int32 [count, N]: those of numbers `first` and following."""
    key, at_once = session.key(Draw.PRIOR_SETS), min(AT_ONCE, count)
    starts = progress_bar(
        range(0, count, at_once),
        desc="drawing sets",
        unit=f" x {at_once}",
        delay=5,
        leave=False,
        disable=jax.process_index() > 0,
    )
    batches = [
        session.model.sample_prior(jax.random.fold_in(key, first + start), at_once, temperature)
        for start in starts
    ]
    return np.concatenate(batches)[:count]


def nearest_sets(
    space: CodeSpace, sets: np.ndarray, pool: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the set of a pool that has most codes in common with each: its row, and how many.

    In parts, as an array of all images by entries may take gigabytes.
    """
    nearest, shared = [], []
    starts = progress_bar(
        range(0, len(sets), COMPARED),
        desc="comparing sets",
        unit=f" x {COMPARED:,}",
        delay=5,
        disable=jax.process_index() > 0,
    )
    for start in starts:
        some = space.multi_hot(sets[start : start + COMPARED])
        parts = (pool[i : i + COMPARED] for i in range(0, len(pool), COMPARED))
        common = np.concatenate([some @ space.multi_hot(part).T for part in parts], axis=1)
        nearest.append(common.argmax(1))
        shared.append(common.max(1))
    return np.concatenate(nearest), np.concatenate(shared).astype(np.int64)


def describe_bits(session: Session) -> dict[str, Any]:
    """Measures the mean bits of the test sets under the prior."""
    prior, codes, key = session.model.prior, session.test_codes, session.key(Draw.PRIOR_BITS)
    assert prior is not None
    params, at_once = to_first_device(prior.params), min(AT_ONCE, len(codes))
    bits = [
        prior_bits(prior.network, params, batch, jax.random.fold_in(key, i * at_once), ORDERS)
        for i, batch in enumerate(in_batches(codes, at_once))
    ]
    return {"prior_bits": float(np.mean(np.concatenate(bits)[: len(codes)], dtype=np.float64))}


def _completions(session: Session) -> Pixels:
    """A picture: test images from all their codes, then from ever fewer given ones, completed."""
    key_order, key_drawn = jax.random.split(session.key(Draw.PRIOR_COMPLETIONS))
    whole = session.test_codes[:COMPLETED]
    # More given codes include the fewer ones.
    order = np.asarray(jax.random.permutation(key_order, whole, axis=1, independent=True))
    rows = [whole]
    for i, fraction in enumerate(GIVEN):
        given = np.tile(order[:, : round(fraction * whole.shape[1])], (TIMES, 1))
        completions = session.model.complete_sets(given, jax.random.fold_in(key_drawn, i))
        rows.append(np.asarray(completions))
    return grid(session.decode(np.concatenate(rows)), len(whole))
