"""Arrays of .npz archives, checked before any memory is taken; nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import NoReturn

import numpy as np

from kdnet.errors import DataError, did_you_mean, fail
from kdnet.weights.model import Array

_SUFFIX = ".npy"


def array_names(path: Path) -> tuple[str, ...]:
    """The names of an archive's arrays, in the order of the file.

    Raises:
        DataError: bad-npz.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        _bad(path, str(error))
    return tuple(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def read_arrays(path: Path, names: Mapping[str, str]) -> dict[str, Array]:
    """The arrays ``names[k]`` of an archive, under the keys ``k``.

    Raises:
        DataError: bad-npz: no archive, damaged, or Python objects inside; missing-array.
    """
    known = array_names(path)
    for name in names.values():
        if name not in known:
            text = f'"{path}" has no array "{name}"; it has {", ".join(known) or "none"}'
            fail(DataError, "missing-array", text, help=did_you_mean(name, known))
    try:
        with zipfile.ZipFile(path) as archive:
            return {key: _read(archive, name + _SUFFIX) for key, name in names.items()}
    except Exception as error:
        # zlib, zipfile and numpy each raise several kinds for damaged bytes.
        _bad(path, str(error))


def _read(archive: zipfile.ZipFile, member: str) -> Array:
    """One array; its header must account for exactly the bytes that the archive says it has."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"{member}: unknown version {version}")
        shape, _, kind = readers[version](file)
        header_bytes = file.tell()
    if kind.hasobject:
        raise ValueError(f"{member} holds Python objects")
    expected = header_bytes + prod(shape) * kind.itemsize
    found = archive.getinfo(member).file_size
    if found != expected:
        raise ValueError(f"{member} has {found} bytes; its shape {shape} needs {expected}")
    with archive.open(member) as file:
        values: Array = np.lib.format.read_array(file, allow_pickle=False)
        return values


def _bad(path: Path, reason: str) -> NoReturn:
    fail(DataError, "bad-npz", f'"{path}" cannot be read as an .npz archive: {reason}')
