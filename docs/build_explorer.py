"""python -m docs.build_explorer --workdir=WORKDIR | --pretrained=NAME [--output=DIR]

Builds the explorer as a folder of static files: its page with a model that runs in the visitor's
browser. Any web server can serve it, such as

    python -m http.server --directory docs/_build/explorer

(a browser does not load the model from file:// addresses). The folder holds the page, the networks
as ONNX files, their runtime (WebAssembly), 200 test images and 1,000 training images. The
runtime is installed from npm to docs/explorer/node_modules first, in the version of
package-lock.json, if that is not there; this needs Node. The documentation contains the page of
toon_faces, the model in the package (docs/conf.py).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pivq_jax import sampling
from pivq_jax.codes import pairing
from pivq_jax.common.command_line import CommandParser, exit_code
from pivq_jax.common.errors import InputError
from pivq_jax.common.files import as_path, local_path, write_json
from pivq_jax.common.parallel import print_once
from pivq_jax.common.pictures import encode_png
from pivq_jax.common.weights import pack_arrays
from pivq_jax.config.description import without_paths
from pivq_jax.data.sources import Source, first_images
from pivq_jax.explore.engine import PARENTS, Engine
from pivq_jax.explore.pool import SEARCH_SIZE
from pivq_jax.inference import TrainedModel, encode_split
from pivq_jax.inference.opening import data_of, from_pretrained, load
from pivq_jax.interop.onnx_file import onnx_paths, write_onnx
from pivq_jax.interop.onnx_graph import import_onnx
from pivq_jax.sampling import choice
from pivq_jax.sampling.edit import KEPT_WEIGHT, LEAST_EVIDENCE, WANTED_WEIGHT, factor_table
from pivq_jax.sampling.edit import LIFT_WEIGHT as EDIT_LIFT_WEIGHT

DOCS = Path(__file__).parent
EXPLORER = DOCS / "explorer"
PAGE = DOCS.parent / "pivq_jax" / "explore" / "page"
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
TEST_IMAGES, TRAINING_IMAGES = 200, 1_000


def build(open_model: Callable[[], TrainedModel], output: Path, data_path: str = "") -> None:
    """Builds the folder.

    Args:
        open_model: returns the model; called when all else is known to be there.
        output: local directory, replaced if it is one of this program.
        data_path: where the model's data is, if not where its config says.

    Raises:
        InputError: if the model cannot be opened, its data is missing, a package is missing, or
            `output` is something else.
    """
    import_onnx()
    if output.exists() and any(output.iterdir()) and not (output / "explorer.json").is_file():
        raise InputError(f"{output} exists and is no explorer: give a new --output")
    runtime = find_runtime()
    model = open_model()
    if model.space.own_entries:
        raise InputError(
            "a model of principal components needs the server: python -m pivq_jax.explore"
        )
    engine = Engine(model, data_of(model, data_path))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".explorer.", dir=output.parent) as temporary:
        folder = Path(temporary) / "explorer"
        write_folder(folder, engine, runtime)
        if output.exists():
            output.rename(Path(temporary) / "before")
        folder.rename(output)


def write_folder(folder: Path, engine: Engine, runtime: Path) -> None:
    """Writes the files of the explorer.

    Args:
        folder: a new directory.
        engine: the trained model with its data set.
        runtime: the directory of onnxruntime-web's files.

    Raises:
        InputError: as in `write_onnx`.
    """
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("server.js", "start.js"))
    for file in (*EXPLORER.glob("*.js"), *(runtime / name for name in RUNTIME)):
        shutil.copy(file, folder)
    (folder / "constants.js").write_text(constants())

    model, dataset, pool = engine.model, engine.dataset, engine.pool
    tests = first_images(dataset.test, TEST_IMAGES)
    training = first_images(dataset.train, min(TRAINING_IMAGES, len(pool.codes)))
    # The log lift counts all images; other codes are those of the images that have pictures.
    codes = pool.codes[: len(training)] if model.space.ordered else pool.codes
    write_onnx(folder / "model.onnx", model.params, without_paths(model.description), codes)
    for name, images in (("test.png", tests), ("training.png", training)):
        (folder / name).write_bytes(encode_png(album(images)))
    files = [*onnx_paths(folder / "model.onnx"), folder / RUNTIME[1]]
    if labelled := engine.labelled:
        assert labelled.parents is not None and labelled.labels
        table = factor_table(labelled.space, labelled.parents, labelled.labels)
        file = folder / "factors.safetensors"
        assert engine.probe
        arrays = {**table._asdict(), **engine.probe._asdict()}
        file.write_bytes(pack_arrays(arrays))
        files.append(file)
    own = {"examples": len(tests), "trainingImages": len(training), "prior": False}
    write_json(
        folder / "explorer.json",
        {
            "model": {**engine.describe(), **own},
            "sizes": {file.name: file.stat().st_size for file in files},
            "parents": parents(engine, len(training)),
            "testCodes": encode_split(model, tests).tolist(),
        },
    )


def parents(engine: Engine, count: int) -> list[list[int]]:
    """Returns pairs of the first `count` training images that are alike, as in samples; none if the
    config lets any two be parents.
    """
    model, pool, nearest_of = engine.model, engine.pool, engine.model.config.sample.nearest_of
    if nearest_of == 1 or count < 2:
        return []
    key, codes = jax.random.key(int(model.config.seed)), pool.codes[:count]
    drawn = sampling.near_parents(
        model.space, key, PARENTS, codes, model.codebook, nearest_of=nearest_of
    )
    return np.asarray(drawn).tolist()


def constants() -> str:
    """Returns the module constants.js: the numbers that the page has in common with the package."""
    shared = {
        "PAIRING_LIFT_WEIGHT": pairing.LIFT_WEIGHT,
        "SLACK": choice.SLACK,
        "EDIT_LIFT_WEIGHT": EDIT_LIFT_WEIGHT,
        "WANTED_WEIGHT": WANTED_WEIGHT,
        "KEPT_WEIGHT": KEPT_WEIGHT,
        "LEAST_EVIDENCE": LEAST_EVIDENCE,
        "SEARCH_SIZE": SEARCH_SIZE,
    }
    return "".join(f"export const {name} = {value};\n" for name, value in shared.items())


def find_runtime() -> Path:
    """Returns the directory of onnxruntime-web's files in the version of package-lock.json.

    It is installed if it is missing or of another version.

    Raises:
        InputError: if it cannot be installed.
    """
    name = "node_modules/onnxruntime-web"
    lock = json.loads((EXPLORER / "package-lock.json").read_text())
    folder = EXPLORER / name / "dist"
    if not folder.is_dir() or _version(EXPLORER / name) != lock["packages"][name]["version"]:
        npm = shutil.which("npm")
        if npm is None:
            raise InputError("npm is not installed: install Node, from https://nodejs.org")
        print_once("installing onnxruntime-web")
        install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=EXPLORER, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise InputError(f"npm ci failed in {EXPLORER} ({reason}): is there a network?")
    return folder


def _version(package: Path) -> str | None:
    """The version of an installed package, None if an installation was cut short."""
    try:
        return json.loads((package / "package.json").read_text())["version"]
    except (OSError, ValueError, KeyError):
        return None


def album(images: Source) -> np.ndarray:
    """Lays images out in rows, in one picture that is about square.

    Args:
        images: M images uint8 [S, S, 3], M >= 1.

    Returns:
        uint8 [R S, C S, 3]; row by row, the last row filled with black.
    """
    columns = int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    size = images[0]["image"].shape[0]
    picture = np.zeros((rows, size, columns, size, 3), np.uint8)
    for i in range(len(images)):
        picture[i // columns, :, i % columns] = images[i]["image"]
    return picture.reshape(rows * size, columns * size, 3)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: arguments of the command line, by default those of the process.

    Returns:
        the exit code, 0, 2 for invalid input, or 1 if the output cannot be written.
    """
    parser = CommandParser(
        prog="python -m docs.build_explorer",
        usage="%(prog)s --workdir=WORKDIR | --pretrained=NAME [--data_path=DIR] [--output=DIR]",
        description=(__doc__ or "").partition("\n\n")[2],
    )
    add: Any = parser.add_argument
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--workdir", help="the workdir of a run")
    model.add_argument("--pretrained", metavar="NAME", help="a published model, such as toon_faces")
    add(
        "--data_path",
        default="",
        metavar="DIR",
        help="the model's data, if it is elsewhere now, or published without its place",
    )
    add("--output", default=str(DOCS / "_build" / "explorer"), help="the folder (%(default)s)")
    options = parser.parse_args(arguments)
    return exit_code(partial(_build, options))


def _build(options: argparse.Namespace) -> int:
    output = local_path(options.output)
    if options.pretrained:
        open_model = partial(from_pretrained, options.pretrained)
    else:
        open_model = partial(load, as_path(options.workdir))
    build(open_model, output, options.data_path)
    print(f"{output} holds the explorer: python -m http.server --directory {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
