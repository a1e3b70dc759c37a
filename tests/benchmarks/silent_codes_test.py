"""Why exchanges of single codes are not seen, with a decoder whose reasons are known."""

from types import SimpleNamespace

import numpy as np

from benchmarks import silent_codes
from benchmarks.silent_codes import exchanges, reason

OWN, PARTNERS = np.arange(6), np.arange(10, 16)
# What makes each row of the image white: any of these codes.
ROWS = [(0, 10), (1, 2), (4,), (5, 1, 15)]


def decode(model, sets, batch_size):
    images = np.zeros((len(sets), len(ROWS), 5, 3), np.uint8)
    for codes, image in zip(sets, images, strict=True):
        for row, codes_of_row in enumerate(ROWS):
            image[row] = 255 * np.isin(codes_of_row, codes).any()
    return images


def test_the_reason_of_each_exchange_is_found(monkeypatch):
    monkeypatch.setattr(silent_codes, "decode_batched", decode)
    pairs = OWN, PARTNERS, np.zeros(6)
    monkeypatch.setattr(silent_codes, "pair_codes", lambda *given: pairs)
    model = SimpleNamespace(space=SimpleNamespace(codebook_size=40), codebook=None)
    found = exchanges(model, OWN, PARTNERS, np.random.default_rng(0))  # type: ignore[arg-type]
    assert [each.seen for each in found] == [False, False, False, False, True, False]
    assert [*map(reason, found[:4])] == ["the same", "covered", "covered", "idle"]
    assert found[0].random == 1 and found[3].random_halfway == 0
    # 5 and its partner say the same, which 1 says, too, where it is there.
    assert found[5].random == 0 and not found[5].halfway and found[5].random_halfway > 0
    assert reason(found[5]._replace(random_halfway=0.5)) == "both"
