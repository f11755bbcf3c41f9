"""The weight format table: one row a way of storing the same two layers."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import onnx

from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import LayerBlobs, write_weights

# Whole multiples of 1/4 that float16 holds exactly, so that every row reads back the same.
CONV = (np.arange(18).reshape(2, 1, 3, 3) / 4 - 2).astype(np.float32)
CONV_BIAS = np.array([0.5, -0.25], np.float32)
IP = (np.arange(24).reshape(4, 6) / 4 - 3).astype(np.float32)
LAYERS = {"conv1": (CONV, CONV_BIAS), "ip1": (IP,)}
LEGACY_SHAPES = {"conv1": ((2, 1, 3, 3), (1, 1, 1, 2)), "ip1": ((1, 1, 4, 6),)}
TYPES = {"conv1": "Convolution", "ip1": "InnerProduct"}

SAMPLE = tuple(LayerBlobs(name, TYPES[name], blobs) for name, blobs in LAYERS.items())

DENSE = {"ip1": "InnerProduct"}
# The usual names of their arrays.
USUAL = ("conv1.weight", "conv1.bias", "ip1.weight")

FillBlob = Callable[[pb.BlobProto, np.ndarray], None]


@dataclass(frozen=True)
class FormatCase:
    """How to make the file, what reads it, and the types its layers and numbers then have.

    ``shapes`` are given where they are not those of the arrays, ``prefix`` where the layers'
    names have one, ``types`` and ``layers`` where they are not those above.
    """

    id: str
    format: str
    build: Callable[[Path], None]
    stored: str = "float32"
    shapes: dict[str, tuple[tuple[int, ...], ...]] | None = None
    prefix: str = ""
    types: dict[str, str] = field(default_factory=lambda: TYPES)
    layers: dict[str, tuple[np.ndarray, ...]] = field(default_factory=lambda: LAYERS)


def _shape(blob: pb.BlobProto, array: np.ndarray) -> None:
    blob.shape.dim.extend(array.shape)


def _float(blob: pb.BlobProto, array: np.ndarray) -> None:
    _shape(blob, array)
    blob.data.extend(array.ravel().tolist())


def _double(blob: pb.BlobProto, array: np.ndarray) -> None:
    _shape(blob, array)
    blob.double_data.extend(array.ravel().tolist())
    # Caffe looks at double_data first.
    blob.data.extend([9.0] * array.size)


def _legacy(blob: pb.BlobProto, array: np.ndarray) -> None:
    padded = (1,) * (4 - array.ndim) + array.shape
    blob.num, blob.channels, blob.height, blob.width = padded
    blob.data.extend(array.ravel().tolist())


def _raw(kind: int, dtype: str) -> FillBlob:
    def fill(blob: pb.BlobProto, array: np.ndarray) -> None:
        _shape(blob, array)
        blob.raw_data_type = kind
        blob.raw_data = array.astype(dtype).tobytes()

    return fill


def _v2(fill: FillBlob) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        net = pb.NetParameter(name="net")
        net.layer.add(name="data", type="Input", top=["data"])
        for name, blobs in LAYERS.items():
            layer = net.layer.add(name=name, type=TYPES[name], bottom=["b"], top=["t"])
            for array in blobs:
                fill(layer.blobs.add(), array)
        path.write_bytes(net.SerializeToString())

    return build


def _v1(fill: FillBlob) -> Callable[[Path], None]:
    kinds = pb.V1LayerParameter.LayerType

    def build(path: Path) -> None:
        net = pb.NetParameter(name="net")
        net.layers.add(name="data", type=kinds.DATA)
        for name, blobs in LAYERS.items():
            kind = kinds.CONVOLUTION if name == "conv1" else kinds.INNER_PRODUCT
            layer = net.layers.add(name=name, type=kind, bottom=["b"], blobs_lr=[1, 2])
            for array in blobs:
                fill(layer.blobs.add(), array)
        path.write_bytes(net.SerializeToString())

    return build


def _v0(path: Path) -> None:
    net = pb.NetParameter(name="net")
    net.layers.add(layer=pb.V0LayerParameter(name="data", type="data"), top=["data"])
    for name, blobs in LAYERS.items():
        inner = pb.V0LayerParameter(name=name, type="conv" if name == "conv1" else "innerproduct")
        for array in blobs:
            _legacy(inner.blobs.add(), array)
        net.layers.add(layer=inner, bottom=["b"], top=["t"])
    path.write_bytes(net.SerializeToString())


def message(number: int, *parts: bytes) -> bytes:
    """A length-delimited field below number 16 whose payload is below 2^14 bytes."""
    payload = b"".join(parts)
    size = len(payload)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | 2]) + length + payload


def wire_net(*layers: bytes) -> bytes:
    """A net named "net" of these V2 layer payloads, without any protobuf library."""
    tag = b"\xa2\x06"
    return message(1, b"net") + b"".join(tag + message(1, layer)[1:] for layer in layers)


def _wire(values: Callable[[np.ndarray], bytes]) -> Callable[[Path], None]:
    """Blobs whose shape and values are written field by field."""

    def build(path: Path) -> None:
        layers = []
        for name, blobs in LAYERS.items():
            fields = [message(1, name.encode()), message(2, TYPES[name].encode())]
            for array in blobs:
                dims = b"".join(b"\x08" + bytes([size]) for size in array.shape)
                fields.append(message(7, message(7, dims), values(array)))
            layers.append(b"".join(fields))
        path.write_bytes(wire_net(*layers))

    return build


def _unpacked(array: np.ndarray) -> bytes:
    return b"".join(b"\x2d" + struct.pack("<f", value) for value in array.ravel())


def _pieces(array: np.ndarray) -> bytes:
    """Packed pieces between unpacked numbers, as a merge of messages leaves them."""
    flat = array.ravel()
    pieces = [message(5, flat[:1].tobytes()), _unpacked(flat[1:-1])]
    return b"".join([*pieces, message(5), message(5, flat[-1:].tobytes())])


def _hdf5(prefix: str) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_group("data/data")
            for name, blobs in LAYERS.items():
                for index, array in enumerate(blobs):
                    file[f"data/{prefix}{name}/{index}"] = array

    return build


def _npz(save: Callable[..., None], order: str) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        arrays = {
            f"{name}/{index}": np.array(array, order=order)
            for name, blobs in LAYERS.items()
            for index, array in enumerate(blobs)
        }
        with path.open("wb") as file:
            save(file, **arrays)

    return build


def _written(name: str) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        write_weights(path, SAMPLE, format=name, net_name="net")

    return build


def _safetensors(*names: str, code: str = "F32", dtype: str = "<f4") -> Callable[[Path], None]:
    """By hand, from the description of the format."""

    def build(path: Path) -> None:
        header, numbers = {}, b""
        for name, array in zip(names, (CONV, CONV_BIAS, IP), strict=True):
            # The upper halves of a float32 are a bfloat16.
            halves = array.view("<u2").reshape(*array.shape, 2)[..., 1]
            content = (halves if code == "BF16" else array.astype(dtype)).tobytes()
            place = [len(numbers), len(numbers) + len(content)]
            header[name] = {"dtype": code, "shape": array.shape, "data_offsets": place}
            numbers += content
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + numbers)

    return build


def _onnx(path: Path) -> None:
    """By ONNX's own library, without nodes: the names say which layers there are."""
    arrays = zip(USUAL, (CONV, CONV_BIAS, IP), strict=True)
    held = [onnx.numpy_helper.from_array(array, name) for name, array in arrays]
    graph = onnx.helper.make_graph([], "net", [], [], held)
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())


def _onnx_typed(kind: int) -> Callable[[Path], None]:
    """Numbers in the field of their type instead of raw bytes."""

    def build(path: Path) -> None:
        held = [
            onnx.helper.make_tensor(name, kind, array.shape, array.ravel().tolist())
            for name, array in zip(USUAL, (CONV, CONV_BIAS, IP), strict=True)
        ]
        graph = onnx.helper.make_graph([], "net", [], [], held)
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())

    return build


def _onnx_beside(path: Path) -> None:
    numbers, held = b"", []
    for name, array in zip(USUAL, (CONV, CONV_BIAS, IP), strict=True):
        tensor = onnx.numpy_helper.from_array(array, name)
        onnx.external_data_helper.set_external_data(tensor, "w.bin", len(numbers), array.nbytes)
        numbers += array.tobytes()
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        held.append(tensor)
    (path.parent / "w.bin").write_bytes(numbers)
    graph = onnx.helper.make_graph([], "net", [], [], held)
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())


def _keras_named(place: str) -> Callable[[Path], None]:
    """As Keras 2 wrote them: names in attributes, kernels HWIO and IO."""

    def build(path: Path) -> None:
        kernels = {"conv1": CONV.transpose(2, 3, 1, 0), "ip1": IP.T}
        with h5py.File(path, "w") as file:
            root = file.require_group(place) if place else file
            root.attrs["layer_names"] = [b"data", b"conv1", b"ip1"]
            root.create_group("data").attrs["weight_names"] = np.zeros(0)
            for name, kernel in kernels.items():
                root[f"{name}/{name}/kernel:0"] = kernel
                names = [f"{name}/kernel:0"]
                if name == "conv1":
                    root[f"{name}/{name}/bias:0"] = CONV_BIAS
                    names.append(f"{name}/bias:0")
                root[name].attrs["weight_names"] = [text.encode() for text in names]

    return build


def _keras_numbered(path: Path) -> None:
    """As Keras 3 writes them: numbered arrays in groups named after the layers' classes."""
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = CONV.transpose(2, 3, 1, 0)
        file["layers/conv2d/vars/1"] = CONV_BIAS
        file["layers/conv2d/vars"].attrs["name"] = "conv1"
        file["layers/dense/vars/0"] = IP.T
        file["layers/dense/vars"].attrs["name"] = "ip1"
        file["optimizer/vars/0"] = np.zeros(3)


def _solverstate(*names: str) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        state = pb.SolverState(iter=3, learned_net="net.caffemodel", history_name=names)
        for array in (CONV, CONV_BIAS, IP):
            _float(state.history.add(), array)
        path.write_bytes(state.SerializeToString())

    return build


def _solverstate_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["iter"] = 3
        for index, array in enumerate((CONV, CONV_BIAS, IP)):
            file[f"history/{index}"] = array


HISTORY = {f"history/{index}": (array,) for index, array in enumerate((CONV, CONV_BIAS, IP))}

CASES = (
    FormatCase("caffemodel/v0", "caffemodel", _v0, shapes=LEGACY_SHAPES),
    FormatCase("caffemodel/v1", "caffemodel", _v1(_legacy), shapes=LEGACY_SHAPES),
    FormatCase("caffemodel/v1-double", "caffemodel", _v1(_double), stored="float64"),
    FormatCase("caffemodel/v2", "caffemodel", _v2(_float)),
    FormatCase("caffemodel/v2-double", "caffemodel", _v2(_double), stored="float64"),
    FormatCase("caffemodel/v2-legacy", "caffemodel", _v2(_legacy), shapes=LEGACY_SHAPES),
    FormatCase("caffemodel/v2-pieces", "caffemodel", _wire(_pieces)),
    FormatCase("caffemodel/v2-raw-double", "caffemodel", _v2(_raw(0, "<f8")), stored="float64"),
    FormatCase("caffemodel/v2-raw-float", "caffemodel", _v2(_raw(1, "<f4"))),
    FormatCase("caffemodel/v2-raw-half", "caffemodel", _v2(_raw(2, "<f2")), stored="float16"),
    FormatCase("caffemodel/v2-unpacked", "caffemodel", _wire(_unpacked)),
    FormatCase("hdf5", "hdf5", _hdf5(""), types={}),
    FormatCase("hdf5/nested", "hdf5", _hdf5("teacher/"), types={}, prefix="teacher/"),
    FormatCase("hdf5/written", "hdf5", _written("hdf5")),
    FormatCase("keras/model", "keras", _keras_named("model_weights"), types=DENSE),
    FormatCase("keras/named", "keras", _keras_named(""), types=DENSE),
    FormatCase("keras/numbered", "keras", _keras_numbered, types=DENSE),
    FormatCase("npz", "npz", _npz(np.savez, "C"), types={}),
    FormatCase("npz/compressed", "npz", _npz(np.savez_compressed, "C"), types={}),
    FormatCase("npz/fortran", "npz", _npz(np.savez, "F"), types={}),
    FormatCase("npz/written", "npz", _written("npz")),
    FormatCase("onnx", "onnx", _onnx, types={}),
    FormatCase("onnx/beside", "onnx", _onnx_beside, types={}),
    FormatCase(
        "onnx/bfloat16",
        "onnx",
        _onnx_typed(onnx.TensorProto.BFLOAT16),
        stored="bfloat16",
        types={},
    ),
    FormatCase(
        "onnx/double", "onnx", _onnx_typed(onnx.TensorProto.DOUBLE), stored="float64", types={}
    ),
    FormatCase("onnx/float", "onnx", _onnx_typed(onnx.TensorProto.FLOAT), types={}),
    FormatCase(
        "onnx/half", "onnx", _onnx_typed(onnx.TensorProto.FLOAT16), stored="float16", types={}
    ),
    FormatCase("onnx/written", "onnx", _written("onnx")),
    FormatCase("safetensors", "safetensors", _safetensors(*USUAL), types={}),
    FormatCase(
        "safetensors/bfloat16",
        "safetensors",
        _safetensors(*USUAL, code="BF16"),
        stored="bfloat16",
        types={},
    ),
    FormatCase(
        "safetensors/double",
        "safetensors",
        _safetensors(*USUAL, code="F64", dtype="<f8"),
        stored="float64",
        types={},
    ),
    FormatCase(
        "safetensors/half",
        "safetensors",
        _safetensors(*USUAL, code="F16", dtype="<f2"),
        stored="float16",
        types={},
    ),
    FormatCase("safetensors/written", "safetensors", _written("safetensors")),
    FormatCase("solverstate", "solverstate", _solverstate(), types={}, layers=HISTORY),
    FormatCase("solverstate/hdf5", "solverstate", _solverstate_hdf5, types={}, layers=HISTORY),
    FormatCase(
        "solverstate/named",
        "solverstate",
        _solverstate("a", "b", "c"),
        types={},
        layers=dict(zip("abc", HISTORY.values(), strict=True)),
    ),
    FormatCase("torch/written", "torch", _written("torch")),
)
