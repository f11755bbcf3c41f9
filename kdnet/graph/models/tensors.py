"""The arrays of a model: inside its file, or in data files below its folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from kdnet.errors import GraphError, fail

Kind = onnx.TensorProto
FLOATS = (Kind.FLOAT, Kind.FLOAT16, Kind.DOUBLE)
WHOLE = (Kind.INT8, Kind.INT16, Kind.INT32, Kind.INT64)
NATURAL = (Kind.UINT8, Kind.UINT16, Kind.UINT32, Kind.UINT64)
SUPPORTED = (*FLOATS, *WHOLE, *NATURAL, Kind.BOOL)


@dataclass(frozen=True)
class Held:
    """An array that a model holds; nothing is decoded before ``read``."""

    proto: onnx.TensorProto
    folder: Path

    @property
    def name(self) -> str:
        """Its name in the model."""
        return self.proto.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.proto.dims)

    @property
    def kind(self) -> str:
        """Its element type, as ONNX writes it in lower case."""
        return Kind.DataType.Name(self.proto.data_type).lower()

    @property
    def is_float(self) -> bool:
        """Whether its elements are of a float type."""
        return self.proto.data_type in FLOATS

    def read(self, dtype: Any = None) -> NDArray[Any]:
        """The array, cast to ``dtype`` where one is given.

        Raises:
            GraphError: corrupt-model.
        """
        try:
            proto = _inline(self.proto, self.folder)
            found = np.asarray(numpy_helper.to_array(proto))
        except (OSError, ValueError, TypeError, OverflowError) as error:
            fail(GraphError, "corrupt-model", f'array "{self.name}": {error}')
        with np.errstate(over="ignore"):
            return found if dtype is None else found.astype(dtype)

    def check(self) -> None:
        """Refuse an array whose type is not known or whose size is not what its file holds.

        Raises:
            GraphError: unsupported-model, corrupt-model, unsafe-model-path.
        """
        if self.proto.data_type not in SUPPORTED:
            known = self.proto.data_type in Kind.DataType.values()
            kind = self.kind if known else f"element type {self.proto.data_type}"
            _refuse_kind(f'array "{self.name}"', kind)
        if any(size < 0 for size in self.proto.dims):
            text = f'array "{self.name}" has shape {self.shape}'
            fail(GraphError, "corrupt-model", text)
        self._check_size()

    def _check_size(self) -> None:
        wanted = prod(self.shape) * helper.tensor_dtype_to_np_dtype(self.proto.data_type).itemsize
        if self.proto.data_location == Kind.EXTERNAL:
            _external(self.proto, self.folder, wanted)
            return
        if self.proto.HasField("raw_data"):
            found, unit = len(self.proto.raw_data), "bytes"
        else:
            field = helper.tensor_dtype_to_field(self.proto.data_type)
            found, wanted, unit = len(getattr(self.proto, field)), prod(self.shape), "numbers"
        if found != wanted:
            text = f'array "{self.name}" of shape {self.shape} has {found} {unit}, not {wanted}'
            fail(GraphError, "corrupt-model", text)


def _refuse_kind(what: str, kind: str) -> None:
    fail(
        GraphError,
        "unsupported-model",
        f"{what} is {kind}: kdnet computes in float32",
        help=("export the model in float32",),
    )


def _inline(proto: onnx.TensorProto, folder: Path) -> onnx.TensorProto:
    """The tensor with its bytes inside."""
    if proto.data_location != Kind.EXTERNAL:
        return proto
    item = helper.tensor_dtype_to_np_dtype(proto.data_type).itemsize
    path, offset, length = _external(proto, folder, prod(proto.dims) * item)
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(length)
    if len(content) != length:
        raise ValueError(f'"{path}" has become shorter')
    return Kind(name=proto.name, dims=proto.dims, data_type=proto.data_type, raw_data=content)


def _external(proto: onnx.TensorProto, folder: Path, wanted: int) -> tuple[Path, int, int]:
    """Where an external tensor lies: the file, the offset and the length in bytes."""
    said = {entry.key: entry.value for entry in proto.external_data}
    path = _below(proto.name, folder, said.get("location", ""))
    try:
        offset, length = int(said.get("offset") or 0), int(said.get("length") or wanted)
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        fail(GraphError, "corrupt-model", f'array "{proto.name}" in "{path}": {reason}')
    if length != wanted or offset < 0 or offset + length > size:
        text = (
            f'array "{proto.name}" takes {wanted} bytes; the model says {length} from byte '
            f'{offset} on, and "{path}" has {size}'
        )
        fail(GraphError, "corrupt-model", text)
    return path, offset, length


def _below(name: str, folder: Path, location: str) -> Path:
    """A file below the model's folder, reached through no link: a model may not read others."""
    path = folder / location
    inside = location and not Path(location).is_absolute() and ".." not in Path(location).parts
    plain = os.path.normpath(os.path.join(os.path.realpath(folder), location))
    if not inside or os.path.realpath(path) != plain:
        text = f'array "{name}" lies in "{location}", which is not a file below "{folder}"'
        fail(GraphError, "unsafe-model-path", text)
    if not path.is_file():
        text = f'array "{name}" lies in "{path}", which is not there'
        fail(GraphError, "corrupt-model", text, help=("copy the data file beside the model",))
    return path
