"""What the base dependencies must do: match, make a model, publish and open it, encode, decode.

And write codes to a file and read them, draw the first faces with the model in the package, and run
every mode that needs no more than that model; what needs an extra must name it.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

import pivq_jax
from pivq_jax import codec
from pivq_jax.common.parallel import make_mesh
from pivq_jax.common.pictures import save_png
from pivq_jax.config import load_config
from pivq_jax.data import images_to_uint8
from pivq_jax.inference import TrainedModel
from pivq_jax.matching import METHODS, match
from pivq_jax.model.pivq import pivq_from_config

rng = np.random.default_rng(0)
cost = rng.uniform(size=(2, 8, 16)).astype(np.float32)
own = [method for method in METHODS if method != "sinkhorn"]  # that one is of ott-jax
totals = {method: np.asarray(match(cost, method=method).cost) for method in own}
np.testing.assert_allclose(totals["auto"], totals["shortest_path"], rtol=1e-5)
try:
    match(cost, method="sinkhorn")
except ImportError as error:
    assert "pip install ott-jax" in str(error), error
else:
    raise AssertionError("sinkhorn ran without ott-jax")

config = load_config("toon_faces:smoke")
images = rng.uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
params = pivq_from_config(config).init(jax.random.key(0), images)["params"]
model = TrainedModel(config, make_mesh(), params, step=1, progress={})
codes = model.encode(images)
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    again = pivq_jax.from_pretrained(folder)
    codec.write(f"{folder}/two.pivq", model, codes, ["a.png", "b.png"])
    np.testing.assert_array_equal(codec.read(f"{folder}/two.pivq", again).codes, codes)
np.testing.assert_array_equal(again.encode(images), codes)
np.testing.assert_array_equal(again.decode(codes), model.decode(codes))
print(f"{pivq_jax.__file__}: codes {codes.shape}, images {again.decode(codes).shape}")

faces = pivq_jax.from_pretrained("toon_faces")
drawn = faces.decode(faces.sample(jax.random.key(0), 16))
with tempfile.TemporaryDirectory() as folder:
    picture = Path(folder) / "faces.png"
    pivq_jax.save_grid(picture, drawn)
    print(f"16 faces, a PNG of {picture.stat().st_size:,} bytes")


def command(module: str, *arguments: str, refused: str = "") -> None:
    """Runs a command, which must succeed or, with `refused`, end with an error of that text."""
    call = [sys.executable, "-m", f"pivq_jax.{module}", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, env=os.environ | {"COLUMNS": "100"})
    print("$", module, *arguments, *done.stdout.splitlines()[-1:], sep=" ", flush=True)
    good = done.returncode == 2 and refused in done.stderr if refused else done.returncode == 0
    assert good and "Traceback" not in done.stderr, done.stderr


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    os.environ["PIVQ_DATA_DIR"] = f"{folder}/data"  # which holds nothing
    Path("in").mkdir()
    for number, face in enumerate(np.asarray(images_to_uint8(drawn[:4]))):
        save_png(Path("in") / f"{number}.png", face)
    for mode in (
        ["sample"],
        ["interpolate"],
        ["reconstruct", "--input=in"],
    ):
        command(
            "main", "--pretrained=toon_faces", "--workdir=faces", f"--mode={mode[0]}", *mode[1:]
        )
    for tool, word, *options in (
        ["edits", "edit"],
        ["edits", "edit", "--set=hair=bun"],
        ["edits", "edit", "--set=hair=bun", "--input=in"],
        ["edits", "complete"],
        ["prior", "sample", "--workdir=faces"],
        ["codec", "compress", "--input=in", "--output=in.pivq"],
        ["codec", "decompress", "--input=in.pivq", "--output=out"],
    ):
        command(tool, word, "--pretrained=toon_faces", *options)
    command("convert", "--help")
    command(
        *("explore", "--pretrained=toon_faces", "--port=0"),
        refused="pip install '.[explore]'",
    )
    command(*("main", "--config=toon_faces:smoke"), refused="pip install '.[train,faces]'")
    try:
        pivq_jax.data.load_dataset("toon_faces", image_size=64)
    except pivq_jax.common.errors.InputError as error:
        assert "pip install array-record tensorflow-datasets" in str(error), error
    else:
        raise AssertionError("toon_faces was drawn without the packages that draw it")
