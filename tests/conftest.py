"""Fixtures that several tests share: commands, folders of faces, one trained run."""

import dataclasses
import errno
import gc
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pytest

# Models are tiny: compilation is all the time there is. XLA's older CPU emitters (jaxlib 0.10) take
# half of it, one module of LLVM less than its usual 32, and most optimizations are left out.
# `XLA_FLAGS= pytest` compiles as users do.
QUICK = ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]


def known_flags(flags: list[str]) -> list[str]:
    """Those of XLA's flags that this jaxlib knows; with any other one, JAX aborts the process."""
    listing = subprocess.run(  # XLA lists its flags and ends
        [sys.executable, "-c", "import jax; jax.devices()"],
        env={**os.environ, "XLA_FLAGS": "--help"},
        capture_output=True,
        text=True,
    )
    listed = re.findall(r"(--xla_\w+)=", listing.stdout + listing.stderr)
    for flag in (unknown := [flag for flag in flags if flag.partition("=")[0] not in listed]):
        print(f"tests compile without {flag}, which this jaxlib does not know", file=sys.stderr)
    return [flag for flag in flags if flag not in unknown]


# Before jax is imported; a worker inherits what its parent has set.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = " ".join(known_flags(QUICK))
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
XLA_FLAGS = os.environ["XLA_FLAGS"]
STARTED = time.monotonic()
# On a busy machine any example may stall.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
# Tracing makes millions of small objects that live long: collecting cycles as often as Python does
# takes a quarter of its time. `command_server.py` does the same.
gc.set_threshold(100_000, 20, 100)
# In the background of a shell Ctrl-C is ignored, and the tests' commands would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent

# A model so small that its run is a matter of compilation. Dotted fields of image_folder.py:smoke.
TINY = {
    "data.image_size": 16,
    "model.patch_size": 4,
    "model.num_codes": 8,
    "model.code_dim": 8,
    "model.width": 16,
    "quantizer.codebook_size": 32,
    "quantizer.init_at": 0.375,
    "quantizer.noise": 0.1,
    "quantizer.init_batches": 8,
    "quantizer.revive_every": 10,
    "loss.l2": 0.0,
    "loss.recombination": 0.5,
    "adversarial.weight": 0.1,
    "adversarial.recombined_weight": 0.1,
    "adversarial.start_at": 0.375,
    "optimizer.warmup": 0.0625,
    "train.steps": 160,
    "train.batch_size": 8,
    "train.log_every": 5,
    "train.checkpoint_every": 20,
    "train.picture_every": 150,
    "evaluate.batch_size": 8,  # VGG takes a tenth of a second for each image of a batch
    "evaluate.samples": 40,  # more than there are training images
    "evaluate.neighbours": 1,
    "evaluate.every": 0,
    "sample.count": 8,
    "sample.interpolations": 2,
    "sample.steps": 3,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options --minutes and --kills."""
    parser.addoption("--minutes", type=float, help="skip what is not begun after so many minutes")
    parser.addoption("--kills", type=int, help="kills at each stage in tests/attack; else one")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose turn comes too late."""
    minutes = item.config.getoption("--minutes")
    if minutes is not None and time.monotonic() - STARTED > 60 * minutes:
        pytest.skip(f"not begun after {minutes:g} minutes")


def pytest_collection_finish() -> None:
    """Leaves what imports have made out of all later collections of cycles."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what is costly to make go to one worker: a trained run, or their file's."""
    for item in items:
        costly = {"trained", "tiny_run", "engine"}
        if item.get_closest_marker("slow"):
            costly.remove("engine")  # made in seconds, while its tests in a browser take minutes
        # A test that uses both runs belongs to one group, too.
        shared = costly & set(getattr(item, "fixturenames", ()))
        item.add_marker(pytest.mark.xdist_group(max(shared, default=str(item.path))))


class Finished(NamedTuple):
    """What a command left."""

    code: int
    stdout: str
    stderr: str


def ended(pid: int) -> bool:
    """Whether a child of the command server has ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return Path("/proc/self").exists()  # otherwise not known, as on macOS


class Command(NamedTuple):
    """A running command."""

    pid: int
    wait: Callable[[], Finished]

    def kill_when(self, ready: Callable[[], bool], number: int, patience: float = 1_800.0) -> None:
        """Send a signal as soon as `ready()`, which must come true while the command runs."""
        deadline = time.monotonic() + patience
        while not ready():
            came = time.monotonic() < deadline and not ended(self.pid)
            assert came, "the moment to send the signal never came"
            time.sleep(0.005)
        os.kill(self.pid, number)


class Commands:
    """Runs `python -m pivq_jax.main` or a tool with arguments, or a script: `command_server.py`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "HOME": str(directory / "home"),  # holds the compilation cache
            "PIVQ_DATA_DIR": str(directory / "data"),
            "PYTHONPATH": str(ROOT),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self._server = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "command_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment,
        )
        self._count = 0

    def _ask(self, request: dict) -> int:
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(
        self,
        *arguments: str,
        directory: Path = ROOT,
        module: str = "main",
        code: str | None = None,
        devices: int = 1,
    ) -> Command:
        """Start a module with arguments (or `code`) and the given number of fake devices."""
        self._count += 1
        streams = [self.directory / f"{self._count}.{name}" for name in ("stdout", "stderr")]
        request = {
            "arguments": arguments,
            "module": f"pivq_jax.{module}",
            "directory": str(directory),
            "environment": {
                "XLA_FLAGS": f"{XLA_FLAGS} --xla_force_host_platform_device_count={devices}"
            },
            "stdout": str(streams[0]),
            "stderr": str(streams[1]),
            **({} if code is None else {"code": code}),
        }
        pid = self._ask(request)

        def wait() -> Finished:
            return Finished(self._ask({"wait": pid}), *(path.read_text() for path in streams))

        return Command(pid, wait)

    def run(self, *arguments: str, **options: Any) -> Finished:
        """Start and wait."""
        return self.start(*arguments, **options).wait()

    def close(self) -> None:
        """End the server."""
        self._server.communicate()


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What takes long to compile is compiled once in a session, also if it is jitted anew."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session", autouse=True)
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps what tests prepare out of the user's cache."""
    os.environ["PIVQ_DATA_DIR"] = str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs commands with a home and data directory of this session."""
    server = Commands(tmp_path_factory.mktemp("commands"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def faces() -> np.ndarray:
    """Toon faces, uint8 [40, 48, 48, 3]."""
    from PIL import Image

    from pivq_jax.data import toon_faces

    seeds = toon_faces.face_seeds("train", 40)
    files = [toon_faces.render_face(seed, 48) for seed in seeds]
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])


@pytest.fixture(scope="session")
def mixed_folder(faces: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 PNG and JPEG files of mixed sizes: one corrupt, one grey, one with alpha, some nested."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("mixed") / "my faces"
    (folder / "nested" / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(160):
        image = Image.fromarray(np.roll(faces[i % 40], i, axis=2))
        image = image.resize(tuple(int(side) for side in rng.integers(20, 97, 2)))
        where = folder / "nested" / "deep" if i % 5 == 0 else folder
        if i == 123:
            (where / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing of use")
        elif i == 124:
            image.convert("L").save(where / f"{i}.jpg")
        elif i == 126:
            image.putalpha(128)
            image.save(where / f"{i}.png")
        else:
            image.save(where / f"{i}.{'jpg' if i % 3 else 'png'}")
    return folder


@pytest.fixture(scope="session")
def small_folder(faces: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 faces of 16x16 pixels."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("small")
    for i, face in enumerate(faces):
        Image.fromarray(face).resize((16, 16)).save(folder / f"{i}.png")
    return folder


class Run(NamedTuple):
    """A run that has ended well."""

    workdir: Path
    arguments: list[str]  # of the command, but for --mode
    finished: Finished
    metrics: dict[str, Any]


@pytest.fixture(scope="session")
def trained(commands: Commands, mixed_folder: Path, tmp_path_factory: Any) -> Run:
    """`image_folder.py:smoke` on `mixed_folder` at 32 pixels, from the training to the report."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    arguments = [
        "--config=configs/image_folder.py:smoke",
        f"--config.data.path={mixed_folder}",
        "--config.data.image_size=32",  # as small as images for LPIPS may be
        "--config.evaluate.samples=20",
        "--config.evaluate.batch_size=20",
        # What other runs have: less to compile.
        "--config.quantizer.init_at=0",
        "--config.loss.recombination=0",
        "--config.optimizer.name=adamw",
        f"--workdir={workdir}",
    ]
    done = commands.run(*arguments)
    assert done.code == 0, done.stderr
    return Run(workdir, arguments, done, json.loads((workdir / "metrics.json").read_text()))


@pytest.fixture(scope="session")
def tiny_arguments(small_folder: Path) -> list[str]:
    """The arguments of a tiny run on `small_folder`, but for --workdir."""
    fields = [f"--config.{name}={value}" for name, value in TINY.items()]
    folder = f"--config.data.path={small_folder}"
    return ["--config=configs/image_folder.py:smoke", folder, *fields]


@pytest.fixture(scope="session")
def tiny_run(commands: Commands, tiny_arguments: list[str], tmp_path_factory: Any) -> Run:
    """A tiny run from start to end without interruption."""
    workdir = tmp_path_factory.mktemp("tiny") / "run"
    arguments = [*tiny_arguments, f"--workdir={workdir}"]
    done = commands.run(*arguments)
    assert done.code == 0, done.stderr
    return Run(workdir, arguments, done, json.loads((workdir / "metrics.json").read_text()))


@pytest.fixture(scope="session")
def tiny_config() -> Any:
    """The config of the tiny run, without its data."""
    from pivq_jax.config import load_config

    return load_config("image_folder:smoke").with_fields(TINY)


@pytest.fixture(scope="session")
def tiny_model(tiny_run: Run) -> Any:
    """`pivq_jax.load` of the tiny run."""
    import pivq_jax

    return pivq_jax.load(tiny_run.workdir)


@pytest.fixture(scope="session")
def published(commands: Commands, tiny_run: Run, tmp_path_factory: Any) -> Path:
    """The tiny run, published by the command."""
    directory = tmp_path_factory.mktemp("published") / "tiny"
    arguments = [f"--from={tiny_run.workdir}", f"--to={directory}"]
    done = commands.run(
        code=f"import sys; from pivq_jax import convert\nsys.exit(convert.main({arguments}))"
    )
    assert done.code == 0, done.stderr
    assert done.stdout == f"{directory} holds the model of {tiny_run.workdir}\n"
    return directory


@pytest.fixture
def with_parents(tiny_model: Any) -> Any:
    """The tiny model with forty sets of training images, as a published model has them."""
    rng, space = np.random.default_rng(0), tiny_model.space
    parents = [rng.choice(space.codebook_size, space.num_codes, False) for _ in range(40)]
    return dataclasses.replace(tiny_model, parents=np.sort(np.int32(parents)))


@pytest.fixture(scope="session")
def trained_model(trained: Run) -> Any:
    """`pivq_jax.load` of the trained run."""
    import pivq_jax

    return pivq_jax.load(trained.workdir)


@pytest.fixture(scope="session")
def engine(tiny_config: Any) -> Any:
    """An explorer of a tiny untrained model: 8 of 32 codes, 64 + 128 images of noise."""
    from tests.explore.engines import untrained_engine

    return untrained_engine(tiny_config)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """gs://bucket/run, kept in memory."""
    import fsspec
    from etils import epath

    from pivq_jax.common import files

    memory = fsspec.filesystem("memory")
    monkeypatch.setitem(files._REMOTE, "gs", "fsspec")  # instead of gcsfs
    monkeypatch.setattr(epath.backend.fsspec_backend, "fs", lambda path: memory)
    yield epath.Path("gs://bucket/run")
    memory.store.clear()


@pytest.fixture
def second_process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a check as process 0 of two, then another one as process 1, which hears the first."""
    import jax

    from pivq_jax.common import parallel

    sent: list[str] = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(parallel, "_from_process", lambda index, text: text)
    monkeypatch.setattr(parallel.multihost_utils, "process_allgather", lambda x: np.array([x]))

    def run(first: Callable[[], Any], second: Callable[[], Any]) -> None:
        sent.clear()
        monkeypatch.setattr(jax, "process_index", lambda: 0)
        monkeypatch.setattr(parallel, "from_first_process", lambda text: sent.append(text) or text)
        first()
        monkeypatch.setattr(jax, "process_index", lambda: 1)
        monkeypatch.setattr(parallel, "from_first_process", lambda text: sent[0])
        second()

    return run


def start_pair(start: Callable[[int, str], Command]) -> list[Command]:
    """Two processes of one run; `start` gets the index and what --distributed says of each."""
    taken = True
    while taken:
        port = random.SystemRandom().randrange(20_000, 32_000)  # others are given higher ones
        with socket.socket() as listener:
            taken = listener.connect_ex(("127.0.0.1", port)) == 0
    return [start(index, f"127.0.0.1:{port},2,{index}") for index in range(2)]


def full_disk(*_: object) -> None:
    """Fails as a write to a full disk does."""
    raise OSError(errno.ENOSPC, "No space left on device")


def stop_at_second_file(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Ctrl-C, when the second complete file would move to its place in the folder."""
    replace, moved = Path.replace, []

    def stop(path: Path, target: Path) -> Path:
        if target.parent == folder:
            moved.append(target.name)
            if len(moved) == 2:
                raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", stop)


def read_lines(file: Any) -> list[dict[str, Any]]:
    """Of a file of JSON lines."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def checkpoint_steps(workdir: Path) -> list[int]:
    """The steps of the complete checkpoints."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return sorted(int(name) for name in names if name.isdigit())


def interrupt_at(command: Command, workdir: Path, step: int, number: int) -> Finished:
    """Send the signal once a checkpoint of `step` or later is complete; what the command left."""
    command.kill_when(lambda: max(checkpoint_steps(workdir), default=-1) >= step, number)
    return command.wait()


# Goes on with a run as --mode=train does, and leaves its evaluation out.
TRAIN_ONLY = """
from pathlib import Path
import jax
from pivq_jax.common.files import cache_folder
from pivq_jax.config.check import read_config
from pivq_jax.config.fields import Config
from pivq_jax.training.loop import train
jax.config.update("jax_compilation_cache_dir", str(cache_folder("compilation")))
workdir = Path({workdir!r})
train(Config.from_dict(read_config(workdir)), workdir)
"""


@pytest.fixture(scope="session")
def interrupted(commands: Commands, tiny_run: Run, tmp_path_factory: Any) -> dict[str, Any]:
    """The tiny run once more: killed before codebook initialization, Ctrl-C with all losses.

    It is trained to its end but not evaluated. The directory `early` beside the workdir is a copy
    from after the first.
    """
    workdir = tmp_path_factory.mktemp("interrupted") / "run"
    arguments = [*tiny_run.arguments[:-1], f"--workdir={workdir}"]
    moments = [(20, signal.SIGKILL), (100, signal.SIGINT)]
    parts, steps = [], []
    for step, number in moments:
        command = commands.start(*arguments)
        parts.append(interrupt_at(command, workdir, step, number))
        steps.append(checkpoint_steps(workdir)[-1])
        if len(steps) == 1:
            shutil.copytree(workdir, workdir.with_name("early"))
    parts.append(commands.run(code=TRAIN_ONLY.format(workdir=str(workdir))))
    return {"workdir": workdir, "arguments": arguments, "parts": parts, "steps": steps}
