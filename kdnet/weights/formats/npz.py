"""NumPy archives as weight files: one array a blob, named ``<layer>/<index>``."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from typing import IO, BinaryIO

from kdnet.errors import KdnetError, WeightsError, fail
from kdnet.weights.account import KEY, AccountLayer, read_account
from kdnet.weights.blobs import as_float
from kdnet.weights.files import check_memory, zip_names
from kdnet.weights.lazy_numpy import np
from kdnet.weights.model import Array, LayerBlobs
from kdnet.weights.registry import Stream, weight_format
from kdnet.weights.tensors import little_endian

_ZIP = b"PK\x03\x04"
_SUFFIX = ".npy"
_ACCOUNT = KEY + _SUFFIX
_LONGEST_ACCOUNT = 1 << 24
_EPOCH = (1980, 1, 1, 0, 0, 0)


def _is_npz(path: str, head: bytes) -> bool:
    if not head.startswith(_ZIP):
        return False
    names = zip_names(path)
    if names is None:
        # A damaged archive is still known by the name of its first member.
        size = int.from_bytes(head[26:28], "little")
        return head[30 : 30 + size].endswith(_SUFFIX.encode())
    return all(name.endswith(_SUFFIX) for name in names)


def _write(
    file: BinaryIO, arrays: Iterable[tuple[str, Array]], account: Callable[[], str]
) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays:
            _write_array(archive, name, array)
        text = account().encode()
        if text:
            _write_array(archive, KEY, np.frombuffer(text, np.uint8))


def _write_array(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    """One member, as ``numpy.savez`` makes it but for its date, which is always the same."""
    head = io.BytesIO()
    little = array.dtype.newbyteorder("<")
    facts = {"descr": little.str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(head, facts)
    member = zipfile.ZipInfo(name + _SUFFIX, _EPOCH)
    member.file_size = len(head.getvalue()) + array.nbytes
    with archive.open(member, "w") as file:
        file.write(head.getvalue())
        file.write(little_endian(array))


@weight_format("npz", sniff=_is_npz, write_arrays=_write, separator="/", suffixes=(".npz",))
def read_npz(path: str) -> Stream:
    """Read what ``numpy.savez(path, **{"conv1/0": weight, "conv1/1": bias})`` writes.

    Layers come in the order of their first array, or as the account in array ``kdnet`` says.
    Nothing is ever unpickled.

    Raises:
        WeightsError: ``foreign-weights`` for arrays of other names, ``truncated-weights``,
            ``corrupt-weights``, ``weights-too-large``, or ``missing-blob``.
    """
    with _named_faults(path), zipfile.ZipFile(path) as archive:
        plan, net_name = _plan(path, archive)
    return Stream(net_name, _layers(path, plan))


Plan = list[tuple[AccountLayer, list[zipfile.ZipInfo]]]


def _layers(path: str, plan: Plan) -> Iterator[LayerBlobs]:
    with _named_faults(path), zipfile.ZipFile(path) as archive:
        for layer, members in plan:
            arrays = [_read_array(path, archive, member) for member in members]
            yield LayerBlobs(
                layer.name,
                layer.type,
                tuple(as_float(array) for array in arrays),
                tuple(array.dtype.name for array in arrays),
                layer.message,
            )


@contextlib.contextmanager
def _named_faults(path: str) -> Iterator[None]:
    try:
        yield
    except (KdnetError, GeneratorExit):
        raise
    except Exception as error:  # zlib, zipfile and numpy each raise several kinds
        cut = zip_names(path) is None
        fail(
            WeightsError,
            "truncated-weights" if cut else "corrupt-weights",
            f'"{path}" is {"cut short" if cut else "damaged"}: {error}',
        )


def _plan(path: str, archive: zipfile.ZipFile) -> tuple[Plan, str]:
    """The layers, the members that are their blobs, and the net's name."""
    members = {info.filename.removesuffix(_SUFFIX): info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise ValueError("an array is there twice")
    account = None
    if KEY in members:
        text = _account_text(path, archive, members.pop(KEY))
        account = read_account(text)
    if account is not None and account.lists(members):
        named = [(layer, [members[name] for name in layer.arrays]) for layer in account.layers]
        return named, account.net_name
    found = _by_layer(path, members)
    return [(AccountLayer(name, "", b"", ()), blobs) for name, blobs in found.items()], ""


def _account_text(path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > _LONGEST_ACCOUNT:
        raise ValueError(f'"{member.filename}" is of {member.file_size} bytes')
    return _read_array(path, archive, member).tobytes()


def _by_layer(
    path: str, members: Mapping[str, zipfile.ZipInfo]
) -> dict[str, list[zipfile.ZipInfo]]:
    found: dict[str, dict[str, zipfile.ZipInfo]] = {}
    for name, member in members.items():
        layer, _, index = name.rpartition("/")
        if not layer or not index.isdecimal():
            fail(
                WeightsError,
                "foreign-weights",
                f'"{path}": array "{name}" is not named '
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
