"""Checkpoints: whole ones come back bit for bit, the newest first, a part alone on request."""

import errno
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from pivq_jax.common.errors import InputError
from pivq_jax.common.parallel import make_mesh, replicated
from pivq_jax.training import checkpoints as module
from pivq_jax.training.checkpoints import Checkpoints
from tests.conftest import checkpoint_steps, start_pair


def make_state(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "step": jnp.int32(seed),
        "params": {"a": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)},
        "uses": jnp.asarray(rng.integers(0, 9, 5), jnp.int32),
    }


LIKE = jax.eval_shape(lambda: make_state(0))


def save(workdir, *steps: int, **options) -> None:
    with Checkpoints(workdir, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), {"score": float(step)})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with checkpoints of steps 1 and 2."""
    workdir = tmp_path_factory.mktemp("saved")
    save(workdir, 1, 2)
    return workdir


@pytest.fixture
def two_steps(saved, tmp_path):
    """A copy of it."""
    return shutil.copytree(saved, tmp_path / "run")


def test_the_newest_whole_state_or_a_part_of_it_comes_back_on_the_mesh(two_steps):
    (two_steps / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir()  # of a killed run
    mesh = make_mesh()
    with Checkpoints(two_steps) as checkpoints:
        assert checkpoints.latest_step() == 2
        checkpoints.save(2, make_state(6), {"score": 6.0})  # a step that is saved already stays
        state, progress = checkpoints.restore(LIKE, mesh)
        part, _ = checkpoints.restore({"step": LIKE["step"]}, mesh)
    assert progress == {"score": 2.0} and part == {"step": 2}
    jax.tree.map(np.testing.assert_array_equal, state, make_state(2))
    for leaf, original in zip(jax.tree.leaves(state), jax.tree.leaves(make_state(2)), strict=True):
        assert leaf.dtype == original.dtype
        assert leaf.sharding.is_equivalent_to(replicated(mesh), leaf.ndim)


@pytest.mark.parametrize(
    "workdir, read_only, message",
    [
        ("br[1]", False, "are lost: choose another --workdir"),
        ("back\\slash", True, "are lost"),
        ("s3://b/run", False, "keeps checkpoints in gs://"),
    ],
)
def test_places_where_checkpoints_would_be_lost_are_refused(tmp_path, workdir, read_only, message):
    place = epath.Path(workdir) if "://" in workdir else tmp_path / workdir
    with pytest.raises(InputError, match=message):
        Checkpoints(place, read_only=read_only)
    assert not any(tmp_path.iterdir())


def test_a_renamed_workdir_can_be_read(two_steps, tmp_path):
    two_steps.rename(tmp_path / "br[1]")
    with Checkpoints(tmp_path / "br[1]", read_only=True) as checkpoints:
        state, _ = checkpoints.restore(LIKE, make_mesh())
    jax.tree.map(np.testing.assert_array_equal, state, make_state(2))


def test_a_run_without_checkpoints_is_refused_and_reading_makes_none(tmp_path):
    with (
        pytest.raises(InputError, match="holds no checkpoint: train first"),
        Checkpoints(tmp_path / "run", read_only=True) as checkpoints,
    ):
        checkpoints.restore(LIKE, make_mesh())
    assert not (tmp_path / "run").exists()


def test_a_write_that_failed_costs_no_later_checkpoint(tmp_path, monkeypatch, capsys):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {})
        waited, failures = checkpoints._manager.wait_until_finished, [OSError("disk full")]

        def wait():
            waited()
            if failures:
                raise failures.pop()

        monkeypatch.setattr(checkpoints._manager, "wait_until_finished", wait)
        checkpoints.save(2, make_state(2), {})
        said = capsys.readouterr().err
        assert "disk full" in said and "that of step 2 is written" in said
        assert checkpoint_steps(tmp_path) == [1, 2]
        failures[:] = [OSError("disk full")] * 2
        with pytest.raises(OSError, match="disk full"):
            checkpoints.save(3, make_state(3), {})


def test_orbax_does_not_ask_jax_whether_to_stop(tmp_path, monkeypatch):
    """For a step that is long past, which would set JAX's count of steps back."""
    asked = "jax.experimental.multihost_utils.reached_preemption_sync_point"
    monkeypatch.setattr(asked, lambda step: pytest.fail("asked"))
    save(tmp_path, 1)


def test_the_last_checkpoint_is_synced_also_if_nobody_waits_for_it(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(module, "sync_tree", synced.append)
    save(tmp_path, 1)
    assert synced == [tmp_path / "checkpoints" / "1"]


def test_the_newest_and_the_best_are_kept(tmp_path):
    scores = {1: None, 2: 21.0, 3: 25.0, 4: 22.0, 5: 24.0, 6: 20.0, 7: None}

    def save_scored(*steps: int) -> None:
        with Checkpoints(tmp_path, keep=1, keep_best=2) as checkpoints:
            for step in steps:
                score = {} if scores[step] is None else {"score": scores[step]}
                checkpoints.save(step, make_state(step), score)

    save_scored(1, 2, 3, 4)
    assert checkpoint_steps(tmp_path) == [3, 4]
    save_scored(5, 6, 7)  # the scores of a run before are known
    assert checkpoint_steps(tmp_path) == [3, 5, 7]
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        for step in (3, 5, 7):
            assert checkpoints.restore(LIKE, make_mesh(), step)[1].get("score") == scores[step]
        with pytest.raises(InputError, match="no checkpoint of step 4; kept: 3, 5, 7"):
            checkpoints.restore(LIKE, make_mesh(), 4)


def test_whichever_file_is_truncated_training_has_a_state_to_go_on_from(saved, tmp_path, capfd):
    files = [p for p in (saved / "checkpoints" / "2").rglob("*") if p.is_file()]
    reported = []
    for number, file in enumerate(files):
        workdir = shutil.copytree(saved, tmp_path / str(number))
        content = file.read_bytes()
        (workdir / file.relative_to(saved)).write_bytes(content[: len(content) // 2])
        with Checkpoints(workdir) as checkpoints:
            state, progress = checkpoints.restore(LIKE, make_mesh())
        step = int(state["step"])
        # What was read is one of the two states, whole; a file may be redundant.
        jax.tree.map(np.testing.assert_array_equal, state, make_state(step))
        assert progress == {"score": float(step)}
        assert ("the checkpoint of step 2" in capfd.readouterr().err) == (step == 1)
        if step == 1:
            reported.append(workdir)
    assert len(files) > 5 and len(reported) >= 3
    # The damaged one is set aside, so that its step is saved again; so is one damaged again.
    folder = reported[0] / "checkpoints"
    save(reported[0], 2)
    (folder / "2" / "state" / "_METADATA").write_text("{")
    with Checkpoints(reported[0]) as checkpoints:
        assert checkpoints.restore(LIKE, make_mesh())[0]["step"] == 1
    names = {path.name for path in folder.iterdir()}
    assert names >= {"1", "2.damaged", "2.damaged2"} and "2" not in names


def test_reading_reports_damage_and_changes_nothing(two_steps, capfd):
    (two_steps / "checkpoints" / "2" / "progress" / "metadata").write_text("{")
    with Checkpoints(two_steps, read_only=True) as checkpoints:
        state, _ = checkpoints.restore(LIKE, make_mesh())
        assert state["step"] == 1
        assert "trying the one before" in capfd.readouterr().err
        with pytest.raises(InputError, match=r"no checkpoint in .* can be read"):
            checkpoints.restore(LIKE, make_mesh(), step=2)
        assert "trying" not in capfd.readouterr().err
    assert checkpoint_steps(two_steps) == [1, 2]


def test_checkpoints_of_other_arrays_are_refused_and_stay(two_steps):
    with Checkpoints(two_steps) as checkpoints:
        shapes = jax.eval_shape(lambda: {"params": {"b": jnp.zeros((3, 4))}})
        with pytest.raises(InputError, match="can be read with this config"):
            checkpoints.restore(shapes, make_mesh())
    assert checkpoint_steps(two_steps) == [1, 2]


def read_error(text: str) -> Exception:
    """As Orbax wraps one of TensorStore."""
    error = Exception("Encountered error while reading array index: (slice(0, 4, 1),)")
    error.__cause__ = ValueError(text)
    return error


@pytest.mark.parametrize(
    "error, raised, message",
    [
        (OSError(errno.EIO, "reason"), OSError, "step 2 .* it may be whole"),
        (read_error("PERMISSION_DENIED: reason"), OSError, "step 2 .* it may be whole"),
        (MemoryError("of this process"), MemoryError, "of this process"),
    ],
)
def test_a_read_that_fails_without_evidence_of_damage_changes_nothing(
    two_steps, monkeypatch, error, raised, message
):
    def fail(*_, **__):
        raise error

    with Checkpoints(two_steps) as checkpoints:
        with monkeypatch.context() as patch, pytest.raises(raised, match=message):
            patch.setattr(checkpoints._reader, "restore", fail)
            checkpoints.restore(LIKE, make_mesh())
        assert checkpoint_steps(two_steps) == [1, 2]
        # With the storage back, the same command goes on from the newest.
        assert checkpoints.restore(LIKE, make_mesh())[0]["step"] == 2


@pytest.mark.parametrize("sent, step", [("1 ", 1), ("2 1", 2)])  # the latter is cut
def test_the_checkpoints_are_those_that_the_first_process_finds(two_steps, monkeypatch, sent, step):
    monkeypatch.setattr(module, "from_first_process", lambda text: sent)
    with Checkpoints(two_steps, read_only=True) as checkpoints:
        assert checkpoints.steps() == [step] == [checkpoints.latest_step()]
        assert checkpoints.restore(LIKE, make_mesh())[0]["step"] == step


TWO_PROCESSES = """
from pathlib import Path
import jax, jax.numpy as jnp, orbax.checkpoint as ocp
from pivq_jax.common.parallel import join_processes, make_mesh
from pivq_jax.training.checkpoints import Checkpoints

join_processes({processes!r})
real = ocp.PyTreeCheckpointHandler.restore
errors = [TimeoutError("slow")] if jax.process_index() == 1 else []

def restore(*arguments, **options):
    if errors:
        raise errors.pop()
    return real(*arguments, **options)

ocp.PyTreeCheckpointHandler.restore = restore
with Checkpoints(Path({workdir!r}), read_only=True) as checkpoints:
    print(checkpoints.steps())
    shapes = {{"step": jax.ShapeDtypeStruct((), jnp.int32)}}
    try:
        checkpoints.restore(shapes, make_mesh())
    except OSError as error:
        print(error)
    print(checkpoints.restore(shapes, make_mesh())[0]["step"])
"""


@pytest.mark.slow
def test_processes_that_find_different_checkpoints_read_one_and_fail_together(
    commands, saved, tmp_path
):
    workdirs = [shutil.copytree(saved, tmp_path / name) for name in "01"]
    save(workdirs[1], 3, keep=9)

    def start(index: int, how: str):
        code = TWO_PROCESSES.format(processes=how, workdir=str(workdirs[index]))
        return commands.start(code=code)

    for done in [command.wait() for command in start_pair(start)]:
        assert done.code == 0, done.stderr
        steps, failed, step = done.stdout.splitlines()[-3:]
        assert steps == "[1, 2]" and step == "2"
        assert "step 2" in failed and "it may be whole" in failed


def test_a_score_that_cannot_be_read_costs_no_checkpoint(two_steps, monkeypatch):
    def restore(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(ocp.Checkpointer, "restore", restore)
    with pytest.raises(OSError, match="may be whole"):
        Checkpoints(two_steps, keep=1, keep_best=1)
    assert checkpoint_steps(two_steps) == [1, 2]


def test_a_reader_beside_a_run_goes_on_with_what_the_run_has_not_deleted(two_steps, capfd):
    with Checkpoints(two_steps, read_only=True) as checkpoints:
        save(two_steps, 3, keep=1)
        with pytest.raises(InputError, match="no checkpoint of step 2; kept: 3"):
            checkpoints.restore(LIKE, make_mesh(), 2)
        state, _ = checkpoints.restore(LIKE, make_mesh())
    assert state["step"] == 3 and not capfd.readouterr().err


FILL = """
import resource
from pathlib import Path
import numpy as np
from pivq_jax.training.checkpoints import Checkpoints

state = {{"x": np.random.default_rng(0).random(400_000, np.float32)}}
with Checkpoints(Path({workdir!r})) as checkpoints:
    checkpoints.save(1, state, {{}})
    checkpoints.wait()
    # No file may grow beyond this: writing fails in the middle, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    for step in (2, 3):
        try:
            checkpoints.save(step, state, {{}})
            checkpoints.wait()
        except OSError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(commands, tmp_path):
    done = commands.run(code=FILL.format(workdir=str(tmp_path)))
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("could not be written" in x and "step 1 is whole" in x for x in lines), lines
    assert checkpoint_steps(tmp_path) == [1]
    with Checkpoints(tmp_path) as checkpoints:
        shapes = {"x": jax.ShapeDtypeStruct((400_000,), jnp.float32)}
        state, _ = checkpoints.restore(shapes, make_mesh())
        expected = np.random.default_rng(0).random(400_000, np.float32)
        np.testing.assert_array_equal(state["x"], expected)
        checkpoints.save(2, state, {})
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert checkpoint_steps(tmp_path) == [1, 2] and not any("tmp" in name for name in names)
