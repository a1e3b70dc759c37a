"""What a new run takes of other weights, and what it says of the rest."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from pivq_jax.common.errors import InputError
from pivq_jax.inference.opening import initial_arrays
from pivq_jax.interop.pretrained import Published, write_pretrained
from pivq_jax.interop.safetensors_file import model_shapes
from tests.parameters import make_model


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config.with_fields({"quantizer.init_at": 0.0})


@pytest.fixture(scope="module")
def params(config):
    return make_model(config).params


@pytest.fixture(scope="module")
def published(config, params, tmp_path_factory):
    directory = tmp_path_factory.mktemp("published")
    description = {"config": config.to_dict(), "step": 7, "progress": {}, "metrics": {}}
    write_pretrained(directory, Published(params, description))
    return directory


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_all_is_taken_of_the_same_model(config, params, published, capsys, name):
    source = published / name
    taken = initial_arrays(str(source), config)
    held = flatten_dict(params)
    assert taken.keys() == held.keys()
    for path, array in held.items():
        np.testing.assert_array_equal(taken[path], array)
    (line,) = capsys.readouterr().out.splitlines()
    count, total = len(held), sum(array.size for array in held.values())
    assert line == (
        f"starting from {source}, step 7: {count} of {count} arrays are taken,"
        f" {total:,} of {total:,} parameters"
    )


def not_taken(config, published, capsys) -> tuple[str, list[str]]:
    """What is said of the config, the first line and the others, which miss no array."""
    taken = initial_arrays(str(published), config)
    line, *left = capsys.readouterr().out.splitlines()
    assert all(line.startswith("  not taken: ") for line in left)
    left = [line.removeprefix("  not taken: ") for line in left]
    wanted = {path: x.shape for path, x in flatten_dict(model_shapes(config)).items()}
    assert all(array.shape == wanted[path] for path, array in taken.items())
    named = {tuple(line.partition(":")[0].split("/")) for line in left}
    assert wanted.keys() - taken.keys() <= named and not named & taken.keys()
    return line, left


@pytest.mark.parametrize(
    "field, value, there, left",
    [
        ("model.num_codes", 4, 8, "encoder/queries: [8, 16] there, [4, 16] here"),
        ("model.local_output", True, False, "kernels: none there, [16, 16, 48] here"),
        ("model.output", "patch", "conv", "conv/kernel: [3, 3, 8, 8] there, none here"),
    ],
)
def test_what_does_not_fit_is_named(config, published, capsys, field, value, there, left):
    line, others = not_taken(config.with_fields({field: value}), published, capsys)
    assert line.endswith(f"; it has {field} = {there}")
    assert any(each.endswith(left) for each in others)
    assert len(others) == 1 or field == "model.output"


def test_the_codebook_is_left_to_k_means_if_the_run_begins_without_one(config, published, capsys):
    continuous = config.with_fields({"quantizer.init_at": 0.125})
    (line,) = not_taken(continuous, published, capsys)[1]
    assert line.startswith("quantizer/codebook: k-means makes one at step 20 ")
    assert "--config.quantizer.init_at=0 " in line


def test_weights_of_which_nothing_fits_and_missing_ones_are_refused(config, published):
    other = {"width": 32, "code_dim": 16, "patch_size": 8, "output": "patch", "mlp_ratio": 3}
    other = {f"model.{name}": value for name, value in other.items()}
    other["quantizer.codebook_size"] = 64
    error = r"nothing in .* fits this config \(it has model.code_dim = 8, .*codebook_size = 32\)"
    with pytest.raises(InputError, match=error):
        initial_arrays(str(published), config.with_fields(other))
    with pytest.raises(InputError, match=r"no_such is no directory here, no model of the package"):
        initial_arrays("no_such", config)
