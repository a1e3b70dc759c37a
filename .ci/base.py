"""What the base dependencies must do: match, make a model, publish and open it, encode, decode.

And write codes to a file and read them.
"""

import tempfile

import jax
import numpy as np

import pivq_jax
from pivq_jax import codec
from pivq_jax.common.parallel import make_mesh
from pivq_jax.config import load_config
from pivq_jax.inference import TrainedModel
from pivq_jax.matching import METHODS, match
from pivq_jax.model.pivq import pivq_from_config

rng = np.random.default_rng(0)
cost = rng.uniform(size=(2, 8, 16)).astype(np.float32)
totals = {method: np.asarray(match(cost, method=method).cost) for method in METHODS}
np.testing.assert_allclose(totals["auto"], totals["shortest_path"], rtol=1e-5)

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
