"""Caffe's HDF5 weight files: one dataset a blob, ``data/<layer>/<index>``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from kdnet.errors import WeightsError, fail
from kdnet.weights.account import KEY, Account, AccountLayer, Naming, read_account
from kdnet.weights.hdf5 import (
    SIGNATURE,
    blob_names,
    child,
    kind_of,
    layer_groups,
    open_hdf5,
    read_array,
)
from kdnet.weights.lazy_numpy import np
from kdnet.weights.model import LayerBlobs
from kdnet.weights.registry import Stream, weight_format

_ROOT = "data"
_DIFFS = "diff"
_LONGEST_ACCOUNT = 1 << 24


def _is_caffe(path: str, head: bytes) -> bool:
    return head.startswith(SIGNATURE) and kind_of(path) == "caffe"


def _write(file: BinaryIO, layers: Iterable[LayerBlobs], net_name: str) -> None:
    """As Caffe does; the account stands beside the group that Caffe looks into."""
    import h5py

    account, naming = Account(net_name), Naming("the HDF5 file")
    with h5py.File(file.name, "w") as out:
        root = out.create_group(_ROOT)
        for layer in layers:
            _check_name(layer.name)
            names = naming.names(layer)
            account.add(layer, names)
            try:
                root.require_group(layer.name)
                for name, blob in zip(names, layer.blobs, strict=True):
                    root.create_dataset(name, data=blob)
                for name, diff in zip(names, layer.diffs, strict=False):
                    out.create_dataset(f"{_DIFFS}/{name}", data=diff)
            except (KeyError, TypeError, ValueError):
                _unwritable(layer.name, "another layer's blob has its name")
        out.create_dataset(KEY, data=np.frombuffer(account.text().encode(), np.uint8))


def _check_name(name: str) -> None:
    parts = name.split("/")
    if "" in parts or "." in parts or "\0" in name:
        _unwritable(name, "HDF5 groups have no such name")


def _unwritable(name: str, reason: str) -> None:
    fail(
        WeightsError,
        "unwritable-layer",
        f'layer "{name}" cannot be written to an HDF5 file: {reason}',
        help=("rename the layer, or write a .caffemodel",),
    )


@weight_format("hdf5", sniff=_is_caffe, write=_write, suffixes=(".h5", ".hdf5"))
def read_hdf5(path: str) -> Stream:
    """Read a file written by Caffe with ``snapshot_format: HDF5``, or by kdnet.

    Layers come in the order of their names, as Caffe reads them, or as the account in dataset
    ``kdnet`` says. A layer's name may contain ``/``: its groups are nested. Links that leave the
    file are not followed.

    Raises:
        WeightsError: ``foreign-weights`` without a group ``data``, ``corrupt-weights``,
            ``weights-too-large``, or ``missing-blob`` where Caffe left a shared blob out.
    """
    import h5py

    with open_hdf5(path) as file:
        root = child(file, _ROOT)
        if not isinstance(root, h5py.Group):
            groups = ", ".join(f'"{name}"' for name in list(file)[:5])
            fail(
                WeightsError,
                "foreign-weights",
                f'"{path}" is an HDF5 file without the group "data" that Caffe writes; '
                f"it has {groups or 'nothing'}",
            )
        found = list(_layers(path, root))
        account = _read_account(path, file)
    names = [name for layer in found for name in layer.arrays]
    if account is not None and account.lists(names):
        return Stream(account.net_name, _read(path, account.layers))
    return Stream("", _read(path, found))


def _layers(path: str, root: Any) -> Iterator[AccountLayer]:
    for name, group in layer_groups(path, root):
        count = len(blob_names(group))
        for index in range(count):
            if str(index) not in group:
                fail(
                    WeightsError,
                    "missing-blob",
                    f'"{path}": layer "{name}" has no blob {index}, though it has later ones',
                    help=(
                        "Caffe leaves shared blobs out of HDF5 files: "
                        "save the net as a .caffemodel",
                    ),
                )
        yield AccountLayer(name, "", b"", tuple(f"{name}/{index}" for index in range(count)))


def _read_account(path: str, file: Any) -> Account | None:
    dataset = child(file, KEY)
    if dataset is None or getattr(dataset, "nbytes", 1 << 62) > _LONGEST_ACCOUNT:
        return None
    values, _ = read_array(path, "the account", dataset)
    return read_account(values.astype(np.uint8).tobytes())


def _read(path: str, layers: Iterable[AccountLayer]) -> Iterator[LayerBlobs]:
    with open_hdf5(path) as file:
        for layer in layers:
            blobs = [
                read_array(path, f'layer "{layer.name}", blob {index}', child(file[_ROOT], name))
                for index, name in enumerate(layer.arrays)
            ]
            yield LayerBlobs(
                layer.name,
                layer.type,
                tuple(values for values, _ in blobs),
                tuple(stored for _, stored in blobs),
                layer.message,
            )
