"""FID's Inception-v3 against pytorch-fid's, with the same random weights."""

import hashlib
import http.server
import io
import threading
from functools import partial

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
import torch.nn.functional as F
from pytorch_fid import inception as authors

from pivq_jax.common.errors import InputError
from pivq_jax.common.weights import download
from pivq_jax.evaluation import inception


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    """pytorch-fid's network with random weights and statistics that keep activations near 1."""
    generator = torch.Generator().manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(authors, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *a, **k: None)
        for name in ("kaiming_uniform_", "uniform_"):  # they would take seconds
            patch.setattr(torch.nn.init, name, lambda tensor, *a, **k: tensor)
        network = authors.fid_inception_v3()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 0
            low, high = (0.5, 1.5) if name.endswith(("bn.weight", "running_var")) else (-0.2, 0.2)
            if fan_in:
                low, high = -((6 / fan_in) ** 0.5), (6 / fan_in) ** 0.5
            tensor.uniform_(low, high, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def state_dict(theirs) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}


@pytest.fixture(scope="module")
def params(state_dict):
    return inception.fold_batch_norms(state_dict, "test")


def images(count: int, height: int, width: int) -> np.ndarray:
    shape = (count, height, width, 3)
    return np.random.default_rng(height).integers(0, 256, shape).astype(np.uint8)


def as_torch(x: np.ndarray) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> f32 [B, 3, H, W] in [0, 1], as `ToTensor` gives it."""
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).float() / 255


@pytest.mark.parametrize("size", [(37, 90), (400, 301)])
def test_resizes_as_pytorch_fid_does(size):
    x = images(2, *size)
    resized = F.interpolate(as_torch(x), size=(299, 299), mode="bilinear", align_corners=False)
    expected = (2 * resized - 1).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(jax.jit(inception.prepare)(x), expected, atol=1e-5)


def test_all_four_blocks_equal_pytorch_fids(theirs, params, monkeypatch):
    x = images(2, 64, 48)
    monkeypatch.setattr(authors, "fid_inception_v3", lambda: theirs)
    network = authors.InceptionV3(output_blocks=[0, 1, 2, 3]).eval()
    with torch.no_grad():
        expected = [block.numpy().transpose(0, 2, 3, 1) for block in network(as_torch(x))]

    @jax.jit
    def apply(params, x):
        return inception.InceptionV3().apply({"params": params}, inception.prepare(x))

    result = apply(params, x)
    assert [block.shape[-1] for block in result] == list(inception.BLOCK_DIMS)
    for ours, reference in zip(result, expected, strict=True):
        assert ours.shape == reference.shape
        assert reference.std(axis=0).max() > 0.01  # the two images are told apart
        np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-4 * reference.std())


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_reads_pytorch_fids_file(theirs, state_dict, params, tmp_path, name):
    if name == "w.pth":  # in the format of 2019, which theirs has
        torch.save(theirs.state_dict(), tmp_path / name, _use_new_zipfile_serialization=False)
    else:
        safetensors.numpy.save_file(state_dict, tmp_path / name)
    result = inception.load_inception(str(tmp_path / name))
    jax.tree.map(np.testing.assert_array_equal, result, params)


def test_torchvisions_inception_is_refused(state_dict):
    """Its convolutions have the same shapes, but it is another network."""
    other = {**state_dict, "fc.weight": np.zeros((1000, 2048), np.float32)}
    other["AuxLogits.conv0.conv.weight"] = np.zeros((128, 768, 1, 1), np.float32)
    with pytest.raises(InputError, match=r"(?s)AuxLogits.*unexpected.*fc\.weight has shape"):
        inception.fold_batch_norms(other, "file")


def test_a_file_or_url_that_cannot_be_used_says_where_to_get_it_and_which_flag_to_set(tmp_path):
    remedy = r": fetch https://github\.com/mseitzer/.*--config\.evaluate\.features_path=PATH"
    with pytest.raises(InputError, match="no such.pth.*" + remedy):
        inception.load_inception(str(tmp_path / "no such.pth"))
    for name in ("damaged.pth", "damaged.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(InputError, match=name + ".*" + remedy):
            inception.load_inception(str(tmp_path / name))
    with pytest.raises(InputError, match="write https://"):
        inception.load_inception("https://example.org/w.pth")


def test_a_file_is_downloaded_once_and_not_kept_with_another_checksum(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PIVQ_WEIGHTS_DIR", str(tmp_path / "weights"))
    (tmp_path / "served").mkdir()
    content = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "served" / "w.pth").write_bytes(content)
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_):
            asked.append(self.path)

    handler = partial(Handler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}"
        for _ in range(2):
            checksum = hashlib.sha256(content).hexdigest()
            path = download(f"{address}/w.pth#sha256={checksum}", 2**22, "")
            assert path.name == "w.pth" and path.read_bytes() == content
            assert path.is_relative_to(tmp_path / "weights")
        assert asked == ["/w.pth"] and "w.pth: 100%" in capsys.readouterr().err
        for name, message in (("w", "has the SHA-256 [0-9a-f]{64}, not 0{64}"), ("none", "404")):
            with pytest.raises(InputError, match=rf"{name}\.pth .*{message}.*: fetch https"):
                inception.load_inception(f"{address}/{name}.pth#sha256={'0' * 64}")
        running.shutdown()
    assert [*tmp_path.rglob("weights/**/*.pth")] == [path]


@pytest.mark.parametrize("told", [True, False])  # whether the server tells the size
def test_no_more_is_downloaded_than_the_file_may_have(tmp_path, monkeypatch, told):
    monkeypatch.setenv("PIVQ_WEIGHTS_DIR", str(tmp_path))
    sent = []

    class Answer(io.BytesIO):
        length = 10**12 if told else None

        def read(self, size=-1):
            sent.append(size)
            return bytes(size)

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer())
    with pytest.raises(InputError, match=r"has more than 134,217,728 bytes: fetch https"):
        inception.load_inception(f"https://a/w.pth#sha256={'0' * 64}")
    assert sum(sent) <= (0 if told else 2**27 + 2**20) and not [*tmp_path.rglob("*.pth")]


def test_inception_downloads_what_a_url_names(monkeypatch, state_dict, params, tmp_path):
    """The default URL too, with the checksum of pytorch-fid's file."""
    asked = []
    safetensors.numpy.save_file(state_dict, tmp_path / "w.safetensors")

    def fetched(url, most, remedy):
        asked.append(url)
        return tmp_path / "w.safetensors"

    monkeypatch.setattr(inception, "download", fetched)
    for path in ("https://example.org/w", ""):
        jax.tree.map(np.testing.assert_array_equal, inception.load_inception(path), params)
    assert asked == ["https://example.org/w", inception.WEIGHTS_URL]
    name, _, checksum = inception.WEIGHTS_URL.rpartition("#sha256=")
    assert name.endswith(f"-{checksum[:8]}.pth")  # it carries the first digits itself
