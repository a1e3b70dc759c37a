"""The report's figures and pictures of a prior, for an untrained model whose sets are known."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from pivq_jax.common.pictures import reconstruction_grid
from pivq_jax.data import load_dataset
from pivq_jax.data.images import images_to_float
from pivq_jax.evaluation import report
from pivq_jax.evaluation.session import Samples, Session
from pivq_jax.inference import TrainedModel, decode_batched
from pivq_jax.prior import report as module
from pivq_jax.sampling import CodeSpace, Prior, SetPrior, prior_bits
from tests.codec.priors import random_prior
from tests.parameters import make_model, with_settings

N, K = 4, 32


def sets(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.sort([rng.permutation(K)[:N] for _ in range(count)]).astype(np.int32)


def prior_of(seed: int) -> Prior:
    return random_prior(SetPrior(K, width=8, depth=1, heads=2), seed)


@pytest.fixture(scope="module")
def model(tiny_config: Any) -> TrainedModel:
    untrained = make_model(tiny_config.with_fields({"model.num_codes": N}), scale=0.2)
    return dataclasses.replace(untrained, prior=prior_of(0))


def session_of(model: TrainedModel, workdir: Any) -> Session:
    """Nothing is encoded: 30 training and 11 test images, 20 samples of which four are copies."""
    data = load_dataset("random", image_size=16)
    model = with_settings(model, batch_size=8, samples=20, neighbours=1)
    session = Session(model, data, workdir)
    session.pool_codes, session.test_codes = sets(1, 30), sets(2, 11)
    codes = np.concatenate([session.pool_codes[:4], sets(3, 16)])
    images = np.zeros((20, 16, 16, 3), np.uint8)
    session.samples = Samples(images, codes, np.zeros((20, 2), np.int32))
    return session


def test_sets_of_mirrored_images_are_known_too(model, tmp_path):
    np.testing.assert_array_equal(module.known_sets(session_of(model, tmp_path)), sets(1, 30))
    config = model.config.with_fields({"data.flip": True})
    session = session_of(dataclasses.replace(model, config=config), tmp_path)
    flipped = [session.pool[i]["image"][:, ::-1] for i in range(8)]
    mirrored = np.asarray(model.encode(images_to_float(np.stack(flipped))))
    assert len(module.known_sets(session)) == 30 + len(session.pool)
    np.testing.assert_array_equal(module.known_sets(session)[:38], [*sets(1, 30), *mirrored])


def shared_with(codes: np.ndarray, pool: np.ndarray) -> list[int]:
    return [max(len({*row} & {*other}) for other in pool.tolist()) for row in codes.tolist()]


@pytest.fixture(scope="module")
def described(model: TrainedModel, tmp_path_factory: Any) -> tuple[Session, dict]:
    session = session_of(model, tmp_path_factory.mktemp("described"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GIVEN", (3 / 4,))  # each fraction is compiled
        metrics = module.describe_prior(session)
    return session, metrics


def test_the_bits_are_those_of_the_whole_test_split(described):
    session, metrics = described
    prior = session.model.prior
    each = [
        prior_bits(prior.network, prior.params, session.test_codes, jax.random.key(i), orders=4)
        for i in range(8)
    ]
    assert metrics["prior_bits"] == pytest.approx(np.mean(each), abs=6 * np.std(np.mean(each, 1)))


def test_shared_codes_and_copies_are_counted(described):
    session, metrics = described
    found = metrics["prior_sets"]
    assert set(found) == {"test images", "recombined", "temperature 1", "temperature 0.9"}
    assert [found[name]["sets"] for name in ("test images", "temperature 1")] == [11, 20]
    for name, codes in (
        ("test images", session.test_codes),
        ("recombined", session.samples.codes),
    ):
        shared = shared_with(codes, session.pool_codes)
        assert found[name]["shared_codes"] == pytest.approx(np.mean(shared))
        assert found[name]["copies"] == shared.count(N)
    assert found["recombined"]["copies"] == 4


def test_the_pictures_are_of_sets_above_the_nearest_training_images(described):
    session, _ = described
    assert session.pictures == [
        *("prior_recombined", "prior_temperature_1", "prior_temperature_0.9", "prior_completions"),
    ]
    codes = session.samples.codes[:16]
    shared = [[len({*a} & {*b}) for b in session.pool_codes.tolist()] for a in codes.tolist()]
    nearest = session.pool_codes[np.argmax(shared, axis=1)]
    decoded = (decode_batched(session.model, each, 8) for each in (codes, nearest))
    picture = np.asarray(Image.open(session.report / "prior_recombined.png"))
    np.testing.assert_array_equal(picture, reconstruction_grid(*decoded, 8))


def test_completions_keep_ever_fewer_codes(model, tmp_path, monkeypatch):
    session = session_of(model, tmp_path)
    asked: list[np.ndarray] = []

    def complete(_: TrainedModel, codes: np.ndarray, key: jax.Array) -> np.ndarray:
        asked.append(codes)
        return sets(len(asked), len(codes))

    monkeypatch.setattr(TrainedModel, "complete_sets", complete)
    picture = module._completions(session)
    assert [codes.shape for codes in asked] == [(16, 3), (16, 2), (16, 1)]
    for codes in asked:
        np.testing.assert_array_equal(codes[:8], codes[8:])  # two ways each
        for given, whole in zip(codes[:8], session.test_codes[:8], strict=True):
            assert {*given.tolist()} <= {*whole.tolist()}
    side = 16 * 8 + 2
    assert picture.shape == (7 * side + 2, 8 * side + 2, 3)  # all codes, then three times two rows
    first = decode_batched(model, session.test_codes[:1], 1)[0]
    shown = picture[2:side:8, 2:side:8]
    assert np.abs(shown.astype(int) - first).max() <= 1


def test_the_stage_is_done_again_for_another_prior_and_leaves_none_behind(
    model, tmp_path, monkeypatch
):
    done = []
    monkeypatch.setattr(report, "STAGES", {"counted": lambda it: done.append("counted") or {}})

    def describe(session: Session) -> dict[str, Any]:
        done.append("prior")
        session.save("prior_completions", np.zeros((4, 4, 3), np.uint8))
        row = {"sets": 1, "shared_codes": 2.5, "copies": 0}
        return {"prior_bits": 3.25, "prior_sets": {"recombined": row}}

    def write(model: TrainedModel) -> dict[str, Any]:
        prior, session = model.prior, session_of(model, tmp_path)
        depends_on = {"prior": report.checksum(prior.params)} if prior else {}
        stage = report.Stage(describe, depends_on)
        return report.write_report(session, {"prior": stage} if prior else {})

    folder = tmp_path / "report"
    other, without = (dataclasses.replace(model, prior=prior) for prior in (prior_of(1), None))

    assert "prior_bits" not in write(without)
    assert not list(folder.glob("*prior*")) and "Prior" not in (folder / "index.html").read_text()
    for prior, expected in ((model, 1), (model, 1), (other, 2), (other, 2), (model, 3)):
        metrics = write(prior)
        assert done == ["counted"] + expected * ["prior"]
        assert metrics["prior_bits"] == 3.25 and metrics["left_out"] == {}
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    page = (folder / "index.html").read_text()
    assert "<h2>Prior</h2>" in page and all(f"<td>{x}</td>" in page for x in (3.25, 2.5))
    assert page.index("<h2>Samples") < page.index("<h2>Prior") < page.index("<h2>What codes mean")
    # The model was trained on, or the prior deleted.
    assert "prior_sets" not in write(without)
    assert not list(folder.glob("prior*.png"))
    assert "Prior" not in (folder / "index.html").read_text()


def test_nearest_sets_have_most_codes_in_common(monkeypatch):
    rows, multi_hot = [], CodeSpace.multi_hot

    def noted(space, codes):
        rows.append(len(codes))
        return multi_hot(space, codes)

    monkeypatch.setattr(CodeSpace, "multi_hot", noted)
    monkeypatch.setattr(module, "COMPARED", 8)
    rng = np.random.default_rng(0)
    sets, pool = (np.stack([rng.permutation(20)[:5] for _ in range(n)]) for n in (30, 40))
    pool[7] = sets[3][::-1]  # a copy, in another order
    nearest, shared = module.nearest_sets(CodeSpace(5, 20), sets, pool)
    common = np.array([[len({*a} & {*b}) for b in pool.tolist()] for a in sets.tolist()])
    np.testing.assert_array_equal(nearest, common.argmax(1))
    np.testing.assert_array_equal(shared, common.max(1))
    assert max(rows) == 8  # an array of all images by entries may take gigabytes
    assert (nearest[3], shared[3]) == (7, 5)
