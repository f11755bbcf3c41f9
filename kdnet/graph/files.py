"""Models as files: arrays embedded, large ones beside the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# protobuf cannot hold 2 GiB; above this size the arrays go into a file beside the model.
EXTERNAL_FROM_BYTES = 1_500_000_000


def embed_arrays(
    model: onnx.ModelProto,
    arrays: Mapping[str, np.ndarray[Any, Any]],
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """A copy of ``model`` with ``arrays`` as initializers, replacing declarations of the name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [tensor for tensor in copy.graph.initializer if tensor.name not in arrays]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    for name, array in arrays.items():
        copy.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    helper.set_model_props(copy, dict(metadata))
    return copy


def save_model(model: onnx.ModelProto, path: str) -> list[str]:
    """Write a model, and the arrays of a large one as ``<path>.data``, into a fresh folder.

    Fresh, since ONNX appends to a data file that is there already.

    Returns:
        The paths written, the model first.
    """
    if model.ByteSize() <= EXTERNAL_FROM_BYTES:
        Path(path).write_bytes(model.SerializeToString(deterministic=True))
        return [path]
    data = f"{path}.data"
    onnx.save_model(model, path, save_as_external_data=True, location=Path(data).name)
    return [path, data]
