"""Caffe's solver states: the history blobs of the update rule, binary or HDF5."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kdnet.errors import WeightsError, fail
from kdnet.weights.blobs import decode_blob
from kdnet.weights.caffemodel_wire import damaged
from kdnet.weights.files import Buffer, open_buffer
from kdnet.weights.hdf5 import SIGNATURE, child, kind_of, open_hdf5, read_array
from kdnet.weights.model import LayerBlobs
from kdnet.weights.registry import Stream, weight_format
from kdnet.weights.wire import LENGTH, VARINT, Field, WireError, fields, read_text

_ITERATION, _LEARNED_NET, _HISTORY, _STEP, _SEED, _NAMES = 1, 2, 3, 4, 10000, 10001
_WIRES = {
    _ITERATION: VARINT,
    _LEARNED_NET: LENGTH,
    _HISTORY: LENGTH,
    _STEP: VARINT,
    _SEED: VARINT,
    _NAMES: LENGTH,
}
_MOST_BLOBS = 1 << 18


def _is_state(path: str, head: bytes) -> bool:
    if head.startswith(SIGNATURE):
        return kind_of(path) == "solverstate"
    return head[:1] == b"\x08" and _has_history(open_buffer(path))


def _has_history(data: Buffer) -> bool:
    """Whether the fields are those of a SolverState, with a learned net or history among them."""
    found = None
    try:
        for found in fields(data, 0, len(data)):
            if _WIRES.get(found.number) != found.wire:
                return False
            if found.number == _HISTORY:
                return True
            if found.number == _LEARNED_NET and b".caffemodel" in data[found.start : found.stop]:
                return True
    except WireError:
        return False
    return False


@weight_format("solverstate", sniff=_is_state)
def read_solverstate(path: str) -> Stream:
    """Read the history of a solver state: a layer a blob, named as kdnet noted or ``history/N``.

    Raises:
        WeightsError: ``truncated-weights``, ``corrupt-weights``, ``missing-blob``.
    """
    with open(path, "rb") as file:
        is_hdf5 = file.read(len(SIGNATURE)) == SIGNATURE
    note = (
        "a solver state holds the history of the update rule; the weights are in its .caffemodel"
    )
    if is_hdf5:
        return Stream("", _read_hdf5(path), doubts=(note,))
    data = open_buffer(path)
    try:
        blobs, names = _parts(data)
    except WireError as error:
        damaged(path, len(data), error, "the state")
    if len(names) != len(blobs):
        names = [f"history/{index}" for index in range(len(blobs))]
    return Stream("", _read(path, data, blobs, names), doubts=(note,))


def _parts(data: Buffer) -> tuple[list[Field], list[str]]:
    blobs, names = [], []
    for found in fields(data, 0, len(data)):
        if (found.number, found.wire) == (_HISTORY, LENGTH):
            blobs.append(found)
        elif (found.number, found.wire) == (_NAMES, LENGTH):
            names.append(read_text(data, found))
        if len(blobs) + len(names) > _MOST_BLOBS:
            raise WireError(found.at, f"more than {_MOST_BLOBS} blobs and names")
    return blobs, names


def _read(path: str, data: Buffer, blobs: list[Field], names: list[str]) -> Iterator[LayerBlobs]:
    for name, blob in zip(names, blobs, strict=True):
        try:
            values, stored = decode_blob(data, blob.start, blob.stop)
        except WireError as error:
            damaged(path, len(data), error, f'blob "{name}"')
        yield LayerBlobs(name, "", (values,), (stored,))


def _read_hdf5(path: str) -> Iterator[LayerBlobs]:
    with open_hdf5(path) as file:
        history: Any = child(file, "history")
        for index in range(len(history)):
            name = f"history/{index}"
            dataset = child(file, name)
            if dataset is None:
                fail(WeightsError, "missing-blob", f'"{path}": blob "{name}" is not there')
            values, stored = read_array(path, f'blob "{name}"', dataset)
            yield LayerBlobs(name, "", (values,), (stored,))
