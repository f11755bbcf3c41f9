"""ONNX models: the float arrays of their graph, inside the file or in data files beside it.

The file is walked as wire data, so that a model of any size is read without a second copy.

Source: onnx.proto.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from math import prod
from pathlib import Path
from typing import BinaryIO

from kdnet.errors import WeightsError, fail
from kdnet.weights import onnx_wire as wire
from kdnet.weights.account import KEY
from kdnet.weights.caffemodel_wire import damaged
from kdnet.weights.files import Buffer, open_buffer
from kdnet.weights.lazy_numpy import np
from kdnet.weights.model import Array
from kdnet.weights.nodes import layers_of_nodes
from kdnet.weights.registry import Stream, weight_format
from kdnet.weights.tensors import (
    Tensor,
    accounted,
    as_values,
    check_shape,
    corrupt,
    decode,
    little_endian,
    size_bytes,
    storage_type,
    unsupported,
)
from kdnet.weights.wire import LENGTH, VARINT, Field, WireError, varints, write_tag, write_varint

_FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
_CODES = {name: code for code, name in _FLOATS.items()}
# Whole numbers, truth values and texts: shapes and settings, no weights.
_OTHERS = frozenset((2, 3, 4, 5, 6, 7, 8, 9, 12, 13))
# Where numbers of a type lie that are not raw bytes: float_data, int32_data, double_data.
_TYPED = {"float32": 4, "float16": 5, "bfloat16": 5, "float64": 10}
_MOST_BYTES = (1 << 31) - 1
# Arrays may share a data file's bytes, but not without end.
_MOST_SHARING = 64
_IR_VERSION, _OPSET = 8, 17


def _is_onnx(path: str, head: bytes) -> bool:
    # Every model has the version of its format, and writers put it first.
    return head[:1] == b"\x08" and wire.looks_like_model(open_buffer(path))


def _write(
    file: BinaryIO, arrays: Iterable[tuple[str, Array]], account: Callable[[], str]
) -> None:
    """The graph's length comes before it and is known last: it waits in a file without a name."""
    with tempfile.TemporaryFile(dir=Path(file.name).parent) as graph:
        for name, array in arrays:
            graph.writelines(_encode_array(name, array))
        graph.writelines(_field(2, b"weights"))
        size = graph.tell()
        _check_size(file.name, size)
        file.write(write_tag(1, VARINT) + write_varint(_IR_VERSION))
        file.write(write_tag(wire.GRAPH, LENGTH) + write_varint(size))
        graph.seek(0)
        shutil.copyfileobj(graph, file, 1 << 20)
    file.writelines(_field(8, write_tag(2, VARINT) + write_varint(_OPSET)))
    text = account().encode()
    if text:
        file.writelines(_field(wire.METADATA, *_field(1, KEY.encode()), *_field(2, text)))


def _check_size(path: str, size: int) -> None:
    if size > _MOST_BYTES:
        fail(
            WeightsError,
            "weights-too-large",
            f'"{path}": {size / 2**30:.1f} GiB of arrays do not fit an .onnx file, which ends at '
            "2 GiB",
            help=("write a .safetensors or an .npz file",),
        )


def _encode_array(name: str, blob: Array) -> tuple[bytes | memoryview, ...]:
    dims = b"".join(write_varint(size) for size in blob.shape)
    facts = write_tag(2, VARINT) + write_varint(_CODES[blob.dtype.name])
    head = (*_field(1, dims), facts, *_field(8, name.encode()))
    return _field(wire.INITIALIZER, *head, *_field(wire.RAW_DATA, little_endian(blob)))


def _field(number: int, *parts: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    return write_tag(number, LENGTH) + write_varint(sum(map(len, parts))), *parts


@weight_format("onnx", sniff=_is_onnx, write_arrays=_write, suffixes=(".onnx",))
def read_onnx(path: str) -> Stream:
    """Read the float arrays that an ONNX model holds as initializers.

    The nodes that read them say which layers they are; arrays of whole numbers are settings and
    are left out.

    Raises:
        WeightsError: ``foreign-weights`` without such arrays, ``unsafe-weights`` for a data file
            that is not below the model's folder, ``truncated-weights``, ``corrupt-weights``,
            ``unsupported-weights``, ``weights-too-large``.
    """
    data = open_buffer(path)
    try:
        model = wire.read_model(data)
    except WireError as error:
        damaged(path, len(data), error, "the model")
    held = [array for array in model.arrays if array.kind not in _OTHERS]
    if not held:
        text = f'"{path}" is an ONNX model without arrays of floats'
        fail(WeightsError, "foreign-weights", text)
    files = _Files(path, data)
    tensors = [files.tensor(array) for array in held]
    files.check_sharing(tensors)
    found = model.texts.get(KEY)
    stream = accounted(path, tensors, data[found.start : found.stop] if found else None)
    left_out = len(model.arrays) - len(held)
    lost = (f"left out {left_out} arrays of whole numbers",) if left_out else ()
    if stream is not None:
        return Stream(stream.net_name, stream.layers, lost)
    return Stream("", layers_of_nodes(model.nodes, tensors), lost)


class _Files:
    """The model's bytes and those of its data files, each opened once."""

    def __init__(self, path: str, data: Buffer) -> None:
        self._path = path
        self._data = data
        self._others: dict[str, Buffer] = {}

    def tensor(self, array: wire.Array) -> Tensor:
        """An array whose size is that of its shape."""
        if array.kind not in _FLOATS:
            unsupported(self._path, array.name, f"number {array.kind}")
        dtype = _FLOATS[array.kind]
        size = check_shape(self._path, array.name, array.shape, dtype)
        shape = tuple(array.shape)
        if array.is_external:
            other, start = self._external(array, size)
            return Tensor(array.name, shape, dtype, partial(decode, other, start, shape, dtype))
        raw = array.numbers.get(wire.RAW_DATA)
        found = raw or array.numbers.get(_TYPED[dtype])
        if found is None or (raw is None and _TYPED[dtype] == 5):
            load = partial(self._load_small, array.name, shape, dtype, found)
            return Tensor(array.name, shape, dtype, load)
        if found.stop - found.start != size:
            held = found.stop - found.start
            corrupt(self._path, f'array "{array.name}" of shape {array.shape} has {held} bytes')
        load = partial(decode, self._data, found.start, shape, dtype)
        return Tensor(array.name, shape, dtype, load)

    def check_sharing(self, tensors: Iterable[Tensor]) -> None:
        """Refuse arrays that make far more of the files' bytes than there are."""
        taken = sum(size_bytes(tensor.shape, tensor.dtype) for tensor in tensors)
        held = len(self._data) + sum(map(len, self._others.values()))
        if taken > _MOST_SHARING * held:
            corrupt(self._path, f"its arrays take {taken} bytes, {held} are there")

    def _load_small(
        self, name: str, shape: tuple[int, ...], dtype: str, found: Field | None
    ) -> Array:
        """16-bit floats, each in a number of its own, or no numbers at all."""
        fits = found is not None and found.stop - found.start <= 10 * prod(shape)
        try:
            values = varints(self._data, found) if found is not None and fits else []
        except WireError as error:
            damaged(self._path, len(self._data), error, f'array "{name}"')
        if len(values) != prod(shape) or not all(0 <= value < 1 << 16 for value in values):
            corrupt(self._path, f'array "{name}" of shape {list(shape)} has other numbers')
        bits = np.array(values, "<u2").view(storage_type(dtype)) if values else np.empty(0, "<f4")
        return as_values(bits.reshape(shape), dtype if values else "float32")

    def _external(self, array: wire.Array, size: int) -> tuple[Buffer, int]:
        """The data file of an array, and where its numbers begin there."""
        said = array.external
        location = self._below(array.name, said.get("location", ""))
        if location not in self._others:
            self._others[location] = open_buffer(location)
        other = self._others[location]
        try:
            start, length = (_natural(said.get(key, "")) for key in ("offset", "length"))
        except ValueError:
            corrupt(self._path, f'array "{array.name}": an offset or a length is no number')
        if length not in (0, size) or start + size > len(other):
            corrupt(
                self._path,
                f'array "{array.name}" takes {size} bytes; the model says {length} from byte '
                f'{start} on, and "{location}" has {len(other)}',
            )
        return other, start

    def _below(self, name: str, location: str) -> str:
        """A file below the model's folder, reached through no link: a model may read no others."""
        folder = os.path.realpath(Path(self._path).parent)
        plain = os.path.normpath(os.path.join(folder, location))
        parts = Path(location).parts
        inside = parts and not Path(location).is_absolute() and ".." not in parts
        if not inside or "\0" in location or os.path.realpath(plain) != plain:
            fail(
                WeightsError,
                "unsafe-weights",
                f'"{self._path}": array "{name}" lies in {location!a}, which is not a file below '
                f'"{folder}"',
            )
        return plain


def _natural(text: str) -> int:
    """The number that a text says, 0 where it says nothing."""
    if text and not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ValueError
    return int(text or 0)
