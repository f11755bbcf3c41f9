"""What damaged and hostile files of named arrays say: safetensors, ONNX, Keras."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from tables.formats import CASES, message

from kdnet.errors import WeightsError
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import read_weights, stream_weights


def fault(path: Path) -> tuple[str, str]:
    """The code and the message of reading ``path``."""
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    (diagnostic,) = caught.value.diagnostics
    assert str(path) in diagnostic.message
    return diagnostic.code, diagnostic.message


# A caffemodel that ends where a layer ends is a whole file.
OTHERS = [case for case in CASES if case.format != "caffemodel"]


@pytest.mark.parametrize("case", OTHERS, ids=[case.id for case in OTHERS])
def test_every_cut_is_a_named_fault(case: Any, tmp_path: Path) -> None:
    path = tmp_path / "a"
    case.build(path)
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        assert fault(path)[0] in ("truncated-weights", "corrupt-weights", "foreign-weights")


# --- safetensors


def _safetensors(header: object, numbers: bytes = bytes(8), size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + numbers


def _entry(**changes: object) -> dict[str, dict[str, object]]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


SAFETENSORS: dict[str, tuple[bytes, str, str]] = {
    "cut": (_safetensors(_entry(), bytes(4)), "truncated-weights", "take 8 bytes, and 4"),
    "deep": (_safetensors(b'{"a":' * 100_000), "corrupt-weights", "its header"),
    "float8": (_safetensors(_entry(dtype="F8_E4M3")), "unsupported-weights", "F8_E4M3"),
    "gap": (
        _safetensors(_entry(data_offsets=[8, 16]), bytes(16)),
        "corrupt-weights",
        "begins at byte 8, not 0",
    ),
    "header-cut": (_safetensors(_entry(), size=5000), "truncated-weights", "a header of 5000"),
    "header-huge": (
        _safetensors(_entry(), bytes(1 << 20), size=(1 << 24) + 1),
        "corrupt-weights",
        "a header of",
    ),
    "list": (_safetensors({"a": [1]}), "corrupt-weights", 'nothing sensible of array "a"'),
    "many-axes": (_safetensors(_entry(shape=[1] * 33)), "corrupt-weights", "has shape"),
    "negative": (_safetensors(_entry(shape=[-2])), "corrupt-weights", "shape [-2]"),
    "no-text": (_safetensors(b'{"\xff": 1}'), "corrupt-weights", "utf-8"),
    "overlap": (
        _safetensors({**_entry(), "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}),
        "corrupt-weights",
        "begins at byte 4, not 8",
    ),
    "rest": (_safetensors(_entry(), bytes(12)), "corrupt-weights", "4 bytes at its end"),
    "shape-2-63": (_safetensors(_entry(shape=[2**63])), "weights-too-large", "GiB"),
    "size": (_safetensors(_entry(shape=[3])), "corrupt-weights", "takes 12 bytes, not 8"),
    "surrogate": (
        _safetensors(b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
        "corrupt-weights",
        "is no text",
    ),
    "true": (_safetensors(_entry(shape=[True, 2])), "corrupt-weights", "nothing sensible"),
    "twice": (
        _safetensors(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{}}', b""),
        "corrupt-weights",
        '"a" is there twice',
    ),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors(name: str, tmp_path: Path) -> None:
    content, code, text = SAFETENSORS[name]
    path = tmp_path / "a"
    path.write_bytes(content)
    found, said = fault(path)
    assert found == code
    assert text in said


# --- ONNX


def _model(*tensors: onnx.TensorProto, **more: Any) -> bytes:
    graph = onnx.helper.make_graph([], "g", [], [], list(tensors), **more)
    return onnx.helper.make_model(graph).SerializeToString()


def _tensor(**changes: object) -> onnx.TensorProto:
    tensor = onnx.numpy_helper.from_array(np.zeros(2, np.float32), "a")
    for name, value in changes.items():
        if name == "dims":
            tensor.ClearField("dims")
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    return tensor


def _outside(**said: str) -> onnx.TensorProto:
    tensor = _tensor()
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in said.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _sparse() -> onnx.SparseTensorProto:
    return onnx.helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(np.ones(1, np.float32), "s"),
        onnx.numpy_helper.from_array(np.zeros(1, np.int64), "i"),
        [3],
    )


ONNX: dict[str, tuple[bytes, str, str]] = {
    "absolute": (_model(_outside(location="/etc/passwd")), "unsafe-weights", "/etc/passwd"),
    "beyond": (_model(_outside(location="w.bin", offset="12")), "corrupt-weights", "from byte 12"),
    "complex": (_model(_tensor(data_type=14)), "unsupported-weights", "number 14"),
    "device": (_model(_outside(location="device")), "unsafe-weights", "'device'"),
    "link": (_model(_outside(location="link.bin")), "unsafe-weights", "'link.bin'"),
    "link-of-folder": (
        _model(_outside(location="folder/w.bin")),
        "unsafe-weights",
        "folder/w.bin",
    ),
    "many-axes": (_model(_tensor(dims=[1] * 33)), "corrupt-weights", "more than 32 axes"),
    "negative": (_model(_tensor(dims=[-2])), "corrupt-weights", "shape [-2]"),
    "no-floats": (
        _model(onnx.numpy_helper.from_array(np.zeros(2, np.int64), "a")),
        "foreign-weights",
        "without arrays of floats",
    ),
    "no-location": (_model(_outside()), "unsafe-weights", "''"),
    "nul": (_model(_outside(location="a\0b")), "unsafe-weights", "a\\x00b"),
    "offset": (_model(_outside(location="w.bin", offset="-4")), "corrupt-weights", "no number"),
    "pieces": (
        b"\x08\x08" + message(7, message(5, message(8, b"a"), *[message(9, bytes(4))] * 2)),
        "corrupt-weights",
        "in more than one piece",
    ),
    "shape-2-62": (_model(_tensor(dims=[2**62])), "weights-too-large", "GiB"),
    "size": (_model(_tensor(dims=[3])), "corrupt-weights", "has 8 bytes"),
    "sparse": (_model(sparse_initializer=[_sparse()]), "corrupt-weights", "a sparse array"),
    "traversal": (_model(_outside(location="../w.bin")), "unsafe-weights", "../w.bin"),
    "traversal-within": (_model(_outside(location="x/../w.bin")), "unsafe-weights", "x/../w.bin"),
    "twice": (_model(_tensor(), _tensor()), "corrupt-weights", '"a" is there twice'),
    "unpacked": (
        b"\x08\x08" + message(7, message(5, message(8, b"a"), b"\x25" + bytes(4))),
        "corrupt-weights",
        "not packed",
    ),
}


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    (tmp_path / "w.bin").write_bytes(bytes(8))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "w.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "device").symlink_to("/dev/zero")
    return folder


@pytest.mark.parametrize("name", ONNX)
def test_onnx(name: str, model_folder: Path) -> None:
    content, code, text = ONNX[name]
    path = model_folder / "a"
    path.write_bytes(content)
    found, said = fault(path)
    assert found == code
    assert text in said


def test_a_missing_data_file_is_named(model_folder: Path) -> None:
    (model_folder / "a").write_bytes(_model(_outside(location="none.bin")))
    with pytest.raises(WeightsError, match=r'no weight file ".*none\.bin".*missing-weights'):
        read_weights(model_folder / "a")


def test_arrays_may_not_share_bytes_without_end(model_folder: Path) -> None:
    (model_folder / "w.bin").write_bytes(bytes(1 << 20))
    tensors = []
    for index in range(200):
        tensor = _outside(location="w.bin")
        tensor.name = f"a{index}"
        del tensor.dims[:]
        tensor.dims.append(1 << 18)
        tensors.append(tensor)
    (model_folder / "a").write_bytes(_model(*tensors))
    code, text = fault(model_folder / "a")
    assert code == "corrupt-weights"
    assert "its arrays take" in text


def test_whole_numbers_are_left_out_and_said(tmp_path: Path) -> None:
    shape = onnx.numpy_helper.from_array(np.zeros(2, np.int64), "shape")
    (tmp_path / "a").write_bytes(_model(_tensor(), shape))
    _, stream = stream_weights(tmp_path / "a")
    assert [layer.name for layer in stream.layers] == ["a"]
    assert stream.notes == ("left out 1 arrays of whole numbers",)


# --- what damaged bytes may look like


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        (message(1, b"n") + b"\xa2\x06\x00" * 60, "kdnet.weights.caffemodel_wire._MOST_PARTS"),
        (b"\x08\x08" + message(7, b"\x0a\x00" * 60), "kdnet.weights.onnx_wire._MOST"),
        (
            b"\x08\x03" + b"\x1a\x00" * 60,
            "kdnet.weights.formats.solverstate._MOST_BLOBS",
        ),
    ],
)
def test_millions_of_empty_parts_are_refused(
    content: bytes, limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit, 50)
    (tmp_path / "a").write_bytes(content)
    code, text = fault(tmp_path / "a")
    assert code == "corrupt-weights"
    assert "more than 50" in text


# --- Keras


def _keras(file: h5py.File) -> None:
    file.attrs["layer_names"] = [b"fc"]
    file["fc/fc/kernel:0"] = np.zeros((2, 3), np.float32)
    file["fc"].attrs["weight_names"] = [b"fc/kernel:0"]


def _elsewhere(file: h5py.File) -> None:
    _keras(file)
    del file["fc/fc/kernel:0"]
    file["fc/fc/kernel:0"] = h5py.ExternalLink("elsewhere.h5", "/a")


def _no_array(file: h5py.File) -> None:
    _keras(file)
    file["fc"].attrs["weight_names"] = [b"fc"]


def _no_name(file: h5py.File) -> None:
    _keras(file)
    file["fc"].attrs["weight_names"] = [b"/"]


def _not_text(file: h5py.File) -> None:
    _keras(file)
    file["fc"].attrs["weight_names"] = [b"\xff"]


def _gone(file: h5py.File) -> None:
    file["layers/dense/vars/0"] = np.zeros((2, 3), np.float32)
    file["layers/dense/vars/7"] = np.zeros(3, np.float32)


KERAS = {
    "elsewhere": _elsewhere,
    "gone": _gone,
    "no-array": _no_array,
    "no-name": _no_name,
    "not-text": _not_text,
}


@pytest.mark.parametrize("name", KERAS)
def test_keras(name: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a", "w") as file:
        KERAS[name](file)
    assert fault(tmp_path / "a")[0] == "corrupt-weights"


@pytest.mark.parametrize("config", ["{", "[]", '{"class_name": "Sequential"}', "[" * 100_000])
def test_a_configuration_that_says_nothing_is_told(config: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a", "w", libver="latest") as file:
        _keras(file)
        file.attrs["model_config"] = config
    _, stream = stream_weights(tmp_path / "a")
    assert "does not say where a Flatten is" in stream.notes[0]
    assert [layer.name for layer in stream.layers] == ["fc"]


def test_what_a_caffemodel_cannot_keep_is_told(tmp_path: Path) -> None:
    net = pb.NetParameter(name="n", input=["data"], force_backward=True)
    net.layer.add(name="a", type="X")
    (tmp_path / "a").write_bytes(net.SerializeToString())
    _, stream = stream_weights(tmp_path / "a")
    assert stream.notes == ("fields of the net that are not kept: force_backward, input",)
    net = pb.NetParameter(name="n")
    net.layers.add(name="a")
    (tmp_path / "a").write_bytes(net.SerializeToString())
    _, stream = stream_weights(tmp_path / "a")
    assert stream.notes == ("the settings of 1 layers of the old kind (V0, V1) are not kept",)
    assert read_weights(tmp_path / "a").doubts == ()
