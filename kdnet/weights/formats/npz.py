"""NumPy archives as weight files: one array a blob, named ``<layer>/<index>``."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from math import prod
from typing import IO

import numpy as np

from kdnet.errors import KdnetError, WeightsError, fail
from kdnet.weights.blobs import as_float
from kdnet.weights.files import check_memory, zip_names
from kdnet.weights.model import Array, LayerBlobs
from kdnet.weights.registry import Stream, weight_format

_ZIP = b"PK\x03\x04"
_SUFFIX = ".npy"


def _is_npz(path: str, head: bytes) -> bool:
    if not head.startswith(_ZIP):
        return False
    names = zip_names(path)
    if names is None:
        # A damaged archive is still known by the name of its first member.
        size = int.from_bytes(head[26:28], "little")
        return head[30 : 30 + size].endswith(_SUFFIX.encode())
    return all(name.endswith(_SUFFIX) for name in names)


@weight_format("npz", sniff=_is_npz)
def read_npz(path: str) -> Stream:
    """Read what ``numpy.savez(path, **{"conv1/0": weight, "conv1/1": bias})`` writes.

    Layers come in the order of their first array. Nothing is ever unpickled.

    Raises:
        WeightsError: ``foreign-weights`` for arrays of other names, ``truncated-weights``,
            ``corrupt-weights``, ``weights-too-large``, or ``missing-blob``.
    """
    return Stream("", _layers(path))


def _layers(path: str) -> Iterator[LayerBlobs]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name, members in _by_layer(path, archive).items():
                arrays = [_read_array(path, archive, member) for member in members]
                yield LayerBlobs(
                    name,
                    "",
                    tuple(as_float(array) for array in arrays),
                    tuple(array.dtype.name for array in arrays),
                )
    except KdnetError:
        raise
    except Exception as error:  # zlib, zipfile and numpy each raise several kinds
        cut = zip_names(path) is None
        fail(
            WeightsError,
            "truncated-weights" if cut else "corrupt-weights",
            f'"{path}" is {"cut short" if cut else "damaged"}: {error}',
        )


def _by_layer(path: str, archive: zipfile.ZipFile) -> dict[str, list[zipfile.ZipInfo]]:
    found: dict[str, dict[str, zipfile.ZipInfo]] = {}
    for member in archive.infolist():
        layer, _, index = member.filename.removesuffix(_SUFFIX).rpartition("/")
        if not layer or not index.isdecimal():
            fail(
                WeightsError,
                "foreign-weights",
                f'"{path}": array "{member.filename.removesuffix(_SUFFIX)}" is not named '
                '"<layer>/<index>", as the arrays of a weight file are',
            )
        found.setdefault(layer, {})[index] = member
    for layer, blobs in found.items():
        missing = [index for index in map(str, range(len(blobs))) if index not in blobs]
        if missing:
            fail(
                WeightsError,
                "missing-blob",
                f'"{path}": layer "{layer}" has no blob {missing[0]}, though it has later ones',
            )
    return {layer: [blobs[str(i)] for i in range(len(blobs))] for layer, blobs in found.items()}


def _read_array(path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as file:
        shape, fortran_order, dtype = _read_header(file)
        size_bytes = prod(shape) * dtype.itemsize
        if dtype.kind not in "fiu":
            raise ValueError(f'"{member.filename}" is not an array of numbers')
        # The claimed size is held against the bytes that are there before memory is taken.
        if size_bytes > member.file_size or member.file_size > 1032 * member.compress_size:
            raise ValueError(f'"{member.filename}": shape {shape} needs more bytes than it has')
        check_memory(path, size_bytes)
        content = file.read(size_bytes)
    values = np.frombuffer(content, dtype, prod(shape))
    return values.reshape(shape, order="F" if fortran_order else "C")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)
