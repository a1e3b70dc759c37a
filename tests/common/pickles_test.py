"""Arrays from pickled files; PyTorch writes the files it would read itself."""

import collections
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pivq_jax.common.errors import InputError
from pivq_jax.common.pickles import read_numpy_pickle, read_torch_file


class Payload:
    """Runs a command when it is unpickled, unless this is refused."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def state_dict() -> dict[str, torch.Tensor]:
    """Every kind of tensor that a state dict of a network holds."""
    base = torch.arange(24.0).reshape(2, 3, 4)
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    tensors = module.state_dict()  # ordered, with metadata
    tensors.update(
        transposed=base.permute(2, 0, 1),
        row=base[1, 1],  # a view into the middle of a shared storage
        scalar=torch.tensor(2.5),
        half=torch.ones(3, dtype=torch.float16),
        double=torch.ones(3, dtype=torch.float64) / 3,
        empty=torch.zeros(2, 0),
        parameter=torch.nn.Parameter(torch.ones(2, 2)),
    )
    return tensors


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_torch_writes(tmp_path, zipped):
    expected = state_dict()
    torch.save(expected, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    result = read_torch_file(tmp_path / "w.pth", "")
    assert list(result) == list(expected)
    for name, tensor in expected.items():
        array = tensor.detach().numpy()
        assert result[name].dtype == array.dtype and result[name].shape == array.shape
        np.testing.assert_array_equal(result[name], array)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_a_truncated_file_is_named_with_the_remedy(tmp_path, zipped, share):
    path = tmp_path / "w.pth"
    torch.save(state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"w\.pth is not a whole PyTorch .*: fetch it again"):
        read_torch_file(path, "fetch it again")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.pth.*No such file.*: fetch it"):
        read_torch_file(tmp_path / "none.pth", "fetch it")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_cannot_run_code(tmp_path, zipped):
    marker, path = tmp_path / "marker", tmp_path / "w.pth"
    torch.save({"w": Payload(marker)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"asks for \w+\.system"):
        read_torch_file(path, "")
    assert not marker.exists()


@pytest.mark.parametrize(
    "value",
    [torch.nn.Linear(2, 2), {"w": torch.ones(2, dtype=torch.bfloat16)}, {"epoch": 3}, [1], "text"],
)
def test_anything_but_a_state_dict_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(InputError, match="not a whole PyTorch state dict"):
        read_torch_file(tmp_path / "w.pth", "")


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (4,), (1,)),
        (0, (2, 3), (3, 1)),
        (-1, (2,), (1,)),
        (3, (2,), (-1,)),
        (0, (1 << 40,), (1,)),
    ],
)
def test_a_tensor_outside_of_its_storage_is_refused(tmp_path, offset, shape, strides):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if value == "here" else None

    class Tensor:
        def __reduce__(self):
            hooks = collections.OrderedDict()
            arguments = ("here", offset, shape, strides, False, hooks)
            return torch._utils._rebuild_tensor_v2, arguments

    pickled = io.BytesIO()
    Pickler(pickled, protocol=2).dump({"w": Tensor()})
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", pickled.getvalue())
        archive.writestr("w/data/0", np.zeros(4, np.float32).tobytes())
    with pytest.raises(InputError, match="not a whole PyTorch"):
        read_torch_file(tmp_path / "w.pth", "")


def test_a_numpy_pickle_cannot_run_code(tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "w").write_bytes(pickle.dumps({"w": Payload(marker)}))
    with pytest.raises(InputError, match=r"asks for \w+\.system"):
        read_numpy_pickle(tmp_path / "w", "")
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i4", "u1", "bool"])
def test_reads_the_arrays_that_numpy_writes(tmp_path, dtype, order, protocol):
    array = np.arange(12).reshape(3, 4).astype(dtype, order=order)
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"a": {"b": array}, "c": 2.5}, protocol))
    result = read_numpy_pickle(path, "")
    assert list(result) == ["a.b", "c"]
    np.testing.assert_array_equal(result["a.b"], array)
    assert result["a.b"].dtype == array.dtype.newbyteorder("=") and result["c"] == 2.5


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"w": torch.ones(1).expand(1 << 10, 1 << 12)}, path)
    with pytest.raises(InputError, match=r"a tensor of shape \(1024, 4096\) in 1 numbers"):
        read_torch_file(path, "")


@pytest.mark.parametrize("value", [b"text", "text", None])
def test_anything_but_numbers_beside_arrays_is_refused(tmp_path, value):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": value}))
    with pytest.raises(InputError, match="which is not an array"):
        read_numpy_pickle(tmp_path / "w.pkl", "")
