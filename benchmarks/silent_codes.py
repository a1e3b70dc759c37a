"""Asks why the exchange of a single code often changes nothing in an image.

    python -m benchmarks.silent_codes --pretrained=toon_faces [--pairs=100]

Training images, as they decode, are paired at random, and their codes as in recombination. A change
is seen if at least 0.2 % of the pixels change by more than 30 of 255 grey levels, as in the
explorer. An exchange of a single code of A for its partner in B that is not seen is

  the same        if random entries in the place of the code are seen in at least half of the draws:
                  the code is needed, and its partner says the same
  covered         if not, but the exchange is seen in one of eight images halfway between A and B,
                  where a random half of the other pairs is exchanged: other codes of A say what
                  this one says
  both            if neither, but random entries are seen in at least half of the images halfway:
                  other codes of A say it, and so does the partner
  idle            otherwise: whatever stands there, hardly anything is seen

Prints the share of each, and for codes that are seen and not how often a random entry is seen in
their place.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from benchmarks.common import add_model, markdown, open_model, parser_for
from pivq_jax.inference import TrainedModel, decode_batched
from pivq_jax.sampling import pair_codes

LEVELS, SHARE = 30, 0.002  # as the page of the explorer has them
DRAWS, CONTEXTS = 12, 8  # random entries, and images halfway, for each exchange
BATCH = 100  # sets decoded at once
REASONS = ("the same", "covered", "both", "idle")


class Exchange(NamedTuple):
    """What becomes of the exchange of one code for its partner."""

    seen: bool
    random: float  # share of random entries that are seen in the place of the code
    halfway: bool  # whether it is seen in an image halfway to B
    random_halfway: float  # share of random entries that are seen there


def visible(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Whether changes of images uint8 [M, H, W, 3] are seen: bool [M]."""
    levels = np.abs(before.astype(np.int16) - after).max(-1)
    return (levels > LEVELS).mean((-2, -1)) >= SHARE


def exchanges(
    model: TrainedModel, a: np.ndarray, b: np.ndarray, rng: np.random.Generator
) -> list[Exchange]:
    """Tries the exchange of each code of A, int [N], for its partner in B where they differ."""
    own, partners, _ = map(np.asarray, pair_codes(model.space, model.codebook, a, b))
    slots = np.flatnonzero(own != partners)
    others = np.setdiff1d(np.arange(model.space.codebook_size), [*own, *partners])
    sets = [own]
    for slot in slots:
        single = np.where(np.arange(len(own)) == slot, partners, own)
        drawn = np.tile(own, (DRAWS, 1))
        drawn[:, slot] = rng.choice(others, DRAWS, replace=False)
        half = np.where(rng.random((CONTEXTS, len(own))) < 0.5, partners, own)
        before, after, other = half.copy(), half.copy(), half.copy()
        before[:, slot], after[:, slot] = own[slot], partners[slot]
        other[:, slot] = rng.choice(others, CONTEXTS, replace=False)
        sets += [single, *drawn, *before, *after, *other]
    images = decode_batched(model, np.array(sets, np.int32), BATCH)
    parts = images[1:].reshape(len(slots), -1, *images.shape[1:])
    found = []
    for part in parts:
        alone = visible(images[:1], part[: 1 + DRAWS])
        before, after, other = np.split(part[1 + DRAWS :], 3)
        halfway, random = visible(before, after).any(), visible(before, other).mean()
        found.append(
            Exchange(bool(alone[0]), float(alone[1:].mean()), bool(halfway), float(random))
        )
    return found


def reason(exchange: Exchange) -> str:
    """Returns why an exchange is not seen, one of `REASONS`."""
    if exchange.random >= 0.5:
        return "the same"
    if exchange.halfway:
        return "covered"
    return "both" if exchange.random_halfway >= 0.5 else "idle"


def main() -> None:
    """Prints the tables."""
    parser = parser_for(__doc__)
    add_model(parser)
    parser.add_argument("--pairs", type=int, default=100, help="pairs of images (%(default)s)")
    options = parser.parse_args()
    model, rng = open_model(options), np.random.default_rng(0)
    if model.parents is None:
        parser.error("the model has no parents: give a published one")
    if not model.space.distinct:
        parser.error("exchanges are those of sets, and the model has none")
    drawn = rng.choice(len(model.parents), (options.pairs, 2), replace=False)
    found = [e for a, b in model.parents[drawn] for e in exchanges(model, a, b, rng)]
    unseen = [each for each in found if not each.seen]
    counts = Counter(map(reason, unseen))
    print(f"{len(unseen) / len(found):.1%} of {len(found):,} exchanges are not seen: of these")
    rows = [(name, f"{counts[name] / len(unseen):.1%}") for name in REASONS]
    print(markdown(["", "share"], rows))
    for name, part in (("seen", [e for e in found if e.seen]), ("not seen", unseen)):
        draws = np.mean([each.random for each in part])
        print(f"random entries are seen in {draws:.1%} of the draws where the partner is {name}")


if __name__ == "__main__":
    main()
