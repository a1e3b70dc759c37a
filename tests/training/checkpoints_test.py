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


def test_newest_state_and_progress_come_back_on_the_mesh(saved):
    mesh = make_mesh()
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.latest_step() == 2
        state, progress = checkpoints.restore(LIKE, mesh)
        part, _ = checkpoints.restore({"step": LIKE["step"]}, mesh)
    assert progress == {"score": 2.0} and part == {"step": 2}
    jax.tree.map(np.testing.assert_array_equal, state, make_state(2))
    for leaf, original in zip(jax.tree.leaves(state), jax.tree.leaves(make_state(2)), strict=True):
        assert leaf.dtype == original.dtype
        assert leaf.sharding.is_equivalent_to(replicated(mesh), leaf.ndim)


@pytest.mark.parametrize("name", ["br[1]", "a*", "a?", "back\\slash", "[b]/below"])
def test_names_under_which_checkpoints_are_lost_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"contains one of \[ \* \? \\, .* another --workdir"):
        Checkpoints(tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_storage_in_which_orbax_cannot_write_is_refused():
    with pytest.raises(InputError, match=r"s3://b/run: Orbax keeps checkpoints in gs:// or"):
        Checkpoints(epath.Path("s3://b/run"))


def test_a_renamed_workdir_can_be_read(two_steps, tmp_path):
    two_steps.rename(tmp_path / "br[1]")
    with Checkpoints(tmp_path / "br[1]", read_only=True) as checkpoints:
        state, _ = checkpoints.restore(LIKE, make_mesh())
    jax.tree.map(np.testing.assert_array_equal, state, make_state(2))
    (tmp_path / "br[1]").rename(tmp_path / "back\\slash")
    with pytest.raises(InputError, match="are lost"):
        Checkpoints(tmp_path / "back\\slash", read_only=True)


def test_reading_writes_nothing(tmp_path):
    with (
        pytest.raises((InputError, FileNotFoundError, ValueError)),
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
        assert "disk full" in said and said.endswith("; that of step 2 is written\n")
        assert checkpoint_steps(tmp_path) == [1, 2]
        failures[:] = [OSError("disk full")] * 2
        with pytest.raises(OSError, match="disk full"):
            checkpoints.save(3, make_state(3), {})


def test_orbax_does_not_ask_jax_whether_to_stop(tmp_path, monkeypatch):
    """For a step that is long past, which would set JAX's count of steps back."""
    asked = "jax.experimental.multihost_utils.reached_preemption_sync_point"
    monkeypatch.setattr(asked, lambda step: pytest.fail("asked"))
    save(tmp_path, 1)


def test_a_step_that_is_saved_already_stays(two_steps):
    with Checkpoints(two_steps) as checkpoints:
        checkpoints.save(2, make_state(6), {"score": 6.0})
        _, progress = checkpoints.restore(LIKE, make_mesh())
    assert progress == {"score": 2.0}


def test_what_a_killed_run_left_half_written_does_not_count(two_steps):
    (two_steps / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(two_steps) as checkpoints:
        assert checkpoints.latest_step() == 2


def test_no_checkpoint_is_refused_with_what_to_do(tmp_path):
    with (
        pytest.raises(InputError, match=r"run holds no checkpoint: train first.*--mode=train"),
        Checkpoints(tmp_path / "run") as checkpoints,
    ):
        checkpoints.restore(LIKE, make_mesh())


@pytest.mark.parametrize("waits", [True, False])  # at the end of a training of the prior, none does
def test_what_was_written_last_survives_a_power_cut(tmp_path, monkeypatch, waits):
    synced = []
    monkeypatch.setattr(module, "sync_tree", synced.append)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {})
        if waits:
            checkpoints.wait()
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
    assert len(files) > 5
    reported = 0
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
            errors = capfd.readouterr().err
            assert ("the checkpoint of step 2" in errors) == (step == 1), errors
            if step == 1 and not reported:
                checkpoints.save(2, make_state(2), {"score": 2.0})
        reported += step == 1
        if step == 1 and reported == 1:
            assert checkpoint_steps(workdir) == [1, 2]
            with Checkpoints(workdir) as checkpoints:
                state, _ = checkpoints.restore(LIKE, make_mesh())
            jax.tree.map(np.testing.assert_array_equal, state, make_state(2))
    assert reported >= 3


def test_a_step_damaged_again_is_set_aside_beside_the_first(tmp_path):
    for _ in range(2):
        save(tmp_path, 1, 2)
        (tmp_path / "checkpoints" / "2" / "state" / "_METADATA").write_text("{")
        with Checkpoints(tmp_path) as checkpoints:
            assert checkpoints.restore(LIKE, make_mesh())[0]["step"] == 1
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names >= {"1", "2.damaged", "2.damaged2"} and "2" not in names


def test_reading_reports_damage_and_changes_nothing(two_steps, capfd):
    (two_steps / "checkpoints" / "2" / "progress" / "metadata").write_text("{")
    with Checkpoints(two_steps, read_only=True) as checkpoints:
        state, _ = checkpoints.restore(LIKE, make_mesh())
        assert state["step"] == 1 and checkpoint_steps(two_steps) == [1, 2]
        errors = capfd.readouterr().err
        assert "the checkpoint of step 2" in errors and "trying the one before" in errors
        with pytest.raises(InputError, match=r"no checkpoint in .* can be read"):
            checkpoints.restore(LIKE, make_mesh(), step=2)
        errors = capfd.readouterr().err
        assert "the checkpoint of step 2" in errors and "trying" not in errors
    assert checkpoint_steps(two_steps) == [1, 2]


def test_nothing_readable_is_refused_and_stays_where_it_is(two_steps):
    with Checkpoints(two_steps) as checkpoints:
        shapes = jax.eval_shape(lambda: {"params": {"b": jnp.zeros((3, 4))}})
        with pytest.raises(InputError, match=r"no checkpoint in .* can be read with this config"):
            checkpoints.restore(shapes, make_mesh())
    assert checkpoint_steps(two_steps) == [1, 2]


def fail(checkpoints, errors: list[Exception]) -> None:
    """The next reads of these checkpoints end in these errors."""
    real, left = checkpoints._reader.restore, iter(errors)

    def restore(*arguments, **options):
        if error := next(left, None):
            raise error
        return real(*arguments, **options)

    checkpoints._reader.restore = restore


def read_error(text: str) -> Exception:
    """As Orbax wraps one of TensorStore."""
    error = Exception("Encountered error while reading array index: (slice(0, 4, 1),)")
    error.__cause__ = ValueError(text)
    return error


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError("reason"),
        OSError(errno.EIO, "reason"),
        read_error("DEADLINE_EXCEEDED: reason"),
        read_error("PERMISSION_DENIED: reason"),
        PermissionError(errno.EACCES, "reason"),
    ],
)
def test_a_read_that_fails_without_evidence_of_damage_changes_nothing(two_steps, error):
    with Checkpoints(two_steps) as checkpoints:
        fail(checkpoints, [error])
        with pytest.raises(
            OSError, match=r"step 2 in .* cannot be read .*; it may be whole"
        ) as end:
            checkpoints.restore(LIKE, make_mesh())
        assert "\n" not in str(end.value)
        assert checkpoint_steps(two_steps) == [1, 2] and not list(two_steps.rglob("*.damaged*"))
        # With the storage back, the same command goes on from the newest.
        assert checkpoints.restore(LIKE, make_mesh())[0]["step"] == 2


@pytest.mark.parametrize("kind", [TypeError, RuntimeError, MemoryError])
def test_what_neither_storage_nor_damage_explains_is_raised_as_it_is(two_steps, kind):
    with Checkpoints(two_steps) as checkpoints:
        fail(checkpoints, [kind("RESOURCE_EXHAUSTED: reason")])
        with pytest.raises(kind, match="reason"):
            checkpoints.restore(LIKE, make_mesh())
        assert checkpoints.restore(LIKE, make_mesh())[0]["step"] == 2
    assert checkpoint_steps(two_steps) == [1, 2]


TWO_PROCESSES = """
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np, orbax.checkpoint as ocp
from pivq_jax.common.parallel import join_processes, make_mesh, replicated
from pivq_jax.training.checkpoints import Checkpoints

join_processes({processes!r})
workdir, state = Path({workdir!r}), jax.device_put({{"step": np.int32(2)}}, replicated(make_mesh()))
with Checkpoints(workdir) as checkpoints:
    checkpoints.save(2, state, {{"score": 1.5}})
real = ocp.PyTreeCheckpointHandler.restore
errors = [TimeoutError("slow")] if jax.process_index() == 1 else []

def restore(*arguments, **options):
    if errors:
        raise errors.pop()
    return real(*arguments, **options)

ocp.PyTreeCheckpointHandler.restore = restore
with Checkpoints(workdir) as checkpoints:
    shapes = {{"step": jax.ShapeDtypeStruct((), jnp.int32)}}
    try:
        checkpoints.restore(shapes, make_mesh())
    except OSError as error:
        print(error)
    found, progress = checkpoints.restore(shapes, make_mesh())
print(int(found["step"]), progress["score"], len(errors))
"""


@pytest.mark.slow
def test_a_read_that_fails_in_one_process_fails_in_both(commands, tmp_path):
    workdir = str(tmp_path / "run")
    pair = start_pair(
        lambda _, how: commands.start(code=TWO_PROCESSES.format(processes=how, workdir=workdir))
    )
    for done in [command.wait() for command in pair]:
        assert done.code == 0, done.stderr
        *_, failed, last = done.stdout.splitlines()
        assert "step 2" in failed and "it may be whole" in failed and last == "2 1.5 0"


@pytest.mark.parametrize("sent, step", [("1 ", 1), ("2 1", 2)])  # the latter is cut
def test_the_checkpoints_are_those_that_the_first_process_finds(two_steps, monkeypatch, sent, step):
    monkeypatch.setattr(module, "from_first_process", lambda text: sent)
    with Checkpoints(two_steps, read_only=True) as checkpoints:
        assert checkpoints.steps() == [step] == [checkpoints.latest_step()]
        assert checkpoints.restore(LIKE, make_mesh())[0]["step"] == step


READ_TOGETHER = """
from pathlib import Path
import jax, jax.numpy as jnp
from pivq_jax.common.parallel import join_processes, make_mesh
from pivq_jax.training.checkpoints import Checkpoints

join_processes({processes!r})
with Checkpoints(Path({workdir!r}), read_only=True) as checkpoints:
    print(checkpoints.steps())
    found, _ = checkpoints.restore({{"step": jax.ShapeDtypeStruct((), jnp.int32)}}, make_mesh())
print(int(found["step"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("theirs, expected", [([1, 2, 3], "2"), ([1], "1")])
def test_processes_that_find_different_checkpoints_restore_one(
    commands, saved, tmp_path, theirs, expected
):
    workdirs = [shutil.copytree(saved, tmp_path / name) for name in "01"]
    save(workdirs[1], 3, keep=9)
    for step in {1, 2, 3}.difference(theirs):
        shutil.rmtree(workdirs[1] / "checkpoints" / str(step))
    places = [str(workdir) for workdir in workdirs]
    pair = start_pair(
        lambda i, how: commands.start(code=READ_TOGETHER.format(processes=how, workdir=places[i]))
    )
    for done in [command.wait() for command in pair]:
        assert done.stdout.splitlines()[-2:] == ["[1, 2]", expected], done.stderr


def test_a_score_that_cannot_be_read_costs_no_checkpoint(two_steps, monkeypatch):
    def restore(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(ocp.Checkpointer, "restore", restore)
    with pytest.raises(OSError, match="may be whole"):
        Checkpoints(two_steps, keep=1, keep_best=1)
    assert checkpoint_steps(two_steps) == [1, 2]


@pytest.mark.slow
def test_whichever_file_is_missing_or_flipped_is_damage_or_does_not_matter(two_steps):
    """But for flips in the arrays themselves, of which there is no checksum."""
    folder, reported = two_steps / "checkpoints" / "2", set()
    rng = np.random.default_rng(0)
    for file in [p for p in folder.rglob("*") if p.is_file()]:
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[rng.integers(len(flipped))] ^= 128
        for damaged in (None, flipped):
            if damaged is None:
                file.unlink()
            else:
                file.write_bytes(damaged)
            with Checkpoints(two_steps, read_only=True) as checkpoints:
                step = int(checkpoints.restore(LIKE, make_mesh())[0]["step"])
            if step == 1:
                reported.add((file.name, damaged is None))
            file.write_bytes(content)
    found = {name for name, _ in reported}
    assert {"_METADATA", "metadata", "manifest.ocdbt", "process_0"} <= found
    assert len({name for name, missing in reported if missing}) >= 3


def test_a_reader_beside_a_run_goes_on_with_what_the_run_has_not_deleted(two_steps, capfd):
    with Checkpoints(two_steps, read_only=True) as checkpoints:
        save(two_steps, 3, keep=1)
        assert checkpoint_steps(two_steps) == [3]
        with pytest.raises(InputError, match=r"no checkpoint of step 2; kept: 3"):
            checkpoints.restore(LIKE, make_mesh(), 2)
        state, _ = checkpoints.restore(LIKE, make_mesh())
    assert state["step"] == 3 and not capfd.readouterr().err


FILL = """
import resource, sys
from pathlib import Path
import jax.numpy as jnp, numpy as np
from pivq_jax.training.checkpoints import Checkpoints

state = {{"step": jnp.int32(0), "x": np.random.default_rng(0).random(400_000, np.float32)}}
with Checkpoints(Path({workdir!r})) as checkpoints:
    checkpoints.save(1, state, {{}})
    checkpoints.wait()
    # No file may grow beyond this: writing fails in the middle, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    for step in (2, 3, 4):
        try:
            checkpoints.save(step, state, {{}})
            checkpoints.wait()
        except OSError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_a_write_that_fails_leaves_the_earlier_ones(commands, tmp_path):
    done = commands.run(code=FILL.format(workdir=str(tmp_path)))
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("could not be written" in x and "step 1 is whole" in x for x in lines), lines
    assert checkpoint_steps(tmp_path) == [1]
    with Checkpoints(tmp_path) as checkpoints:
        shapes = {
            "step": jax.ShapeDtypeStruct((), jnp.int32),
            "x": jax.ShapeDtypeStruct((400_000,), jnp.float32),
        }
        state, _ = checkpoints.restore(shapes, make_mesh())
        expected = np.random.default_rng(0).random(400_000, np.float32)
        np.testing.assert_array_equal(state["x"], expected)
        checkpoints.save(2, state, {})
    assert checkpoint_steps(tmp_path) == [1, 2]
    assert not [p for p in (tmp_path / "checkpoints").iterdir() if "tmp" in p.name]
