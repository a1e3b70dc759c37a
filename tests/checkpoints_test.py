"""Checkpoints: whole ones come back bit for bit, the newest first, a part alone on request."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivq_jax.checkpoints import Checkpoints
from pivq_jax.errors import InputError
from pivq_jax.parallel import make_mesh, replicated


def make_state(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "step": jnp.int32(seed),
        "params": {"a": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)},
        "uses": jnp.asarray(rng.integers(0, 9, 5), jnp.int32),
    }


def test_newest_state_and_progress_come_back_on_the_mesh(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    for step in (1, 2):
        checkpoints.save(step, make_state(step), {"train_seconds": step / 8})
    checkpoints.close()

    mesh = make_mesh()
    again = Checkpoints(tmp_path / "run")
    assert again.latest_step() == 2
    state, progress = again.restore(jax.eval_shape(lambda: make_state(0)), mesh)
    again.close()
    assert progress == {"train_seconds": 0.25}
    jax.tree.map(np.testing.assert_array_equal, state, make_state(2))
    for leaf, original in zip(jax.tree.leaves(state), jax.tree.leaves(make_state(2)), strict=True):
        assert leaf.dtype == original.dtype
        assert leaf.sharding.is_equivalent_to(replicated(mesh), leaf.ndim)


def test_a_part_of_the_state_comes_back_alone(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(7, make_state(7), {})
    part, _ = checkpoints.restore({"step": jax.ShapeDtypeStruct((), jnp.int32)}, make_mesh())
    checkpoints.close()
    assert set(part) == {"step"} and part["step"] == 7


def test_old_checkpoints_make_room(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, make_state(step), {})
    checkpoints.close()
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names & {"1", "2", "3"} == {"2", "3"}


def test_reading_writes_nothing(tmp_path):
    with (
        pytest.raises((InputError, FileNotFoundError, ValueError)),
        Checkpoints(tmp_path / "run", read_only=True) as checkpoints,
    ):
        checkpoints.restore(jax.eval_shape(lambda: make_state(0)), make_mesh())
    assert not (tmp_path / "run").exists()


def test_a_step_that_is_saved_already_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, make_state(5), {"train_seconds": 1.0})
    checkpoints.save(5, make_state(6), {"train_seconds": 2.0})
    _, progress = checkpoints.restore(jax.eval_shape(lambda: make_state(0)), make_mesh())
    checkpoints.close()
    assert progress == {"train_seconds": 1.0}


def test_what_a_killed_run_left_half_written_does_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, make_state(5), {})
    checkpoints.close()
    (tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir()
    again = Checkpoints(tmp_path)
    latest = again.latest_step()
    again.close()
    assert latest == 5


def test_no_checkpoint_is_refused_with_what_to_do(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    with pytest.raises(InputError, match=r"run holds no checkpoint: train first.*--mode=train"):
        checkpoints.restore(jax.eval_shape(lambda: make_state(0)), make_mesh())
    checkpoints.close()
