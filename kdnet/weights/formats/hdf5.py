"""Caffe's HDF5 weight files: one dataset a blob, ``data/<layer>/<index>``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kdnet.errors import KdnetError, WeightsError, fail
from kdnet.weights.blobs import as_float
from kdnet.weights.files import check_memory
from kdnet.weights.model import LayerBlobs
from kdnet.weights.registry import Stream, weight_format

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Deflate, the strongest of HDF5's own filters, cannot pack more than this many bytes into one.
_BEST_PACKING = 1032


@weight_format("hdf5", sniff=lambda _path, head: head.startswith(_SIGNATURE))
def read_hdf5(path: str) -> Stream:
    """Read a file written by Caffe with ``snapshot_format: HDF5``.

    Layers come in the order of their names, as Caffe reads them. A layer's name may contain
    ``/``: its groups are nested. Links that leave the file are not followed.

    Raises:
        WeightsError: ``foreign-weights`` without a group ``data``, ``corrupt-weights``,
            ``weights-too-large``, or ``missing-blob`` where Caffe left a shared blob out.
    """
    return Stream("", _layers(path))


def _layers(path: str) -> Iterator[LayerBlobs]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            root = file.get("data")
            if not isinstance(root, h5py.Group):
                groups = ", ".join(f'"{name}"' for name in list(file)[:5])
                fail(
                    WeightsError,
                    "foreign-weights",
                    f'"{path}" is an HDF5 file without the group "data" that Caffe writes; '
                    f"it has {groups or 'nothing'}",
                )
            for name, group in _groups(h5py, root):
                yield _read_layer(path, name, group)
    except KdnetError:
        raise
    except Exception as error:  # libhdf5's faults arrive as a dozen kinds of exception
        reason = " ".join(str(error).split()) or type(error).__name__
        cut = "truncated file" in reason
        fail(
            WeightsError,
            "truncated-weights" if cut else "corrupt-weights",
            f'"{path}" is {"cut short" if cut else "damaged"}: {reason}',
        )


def _groups(h5py: Any, root: Any) -> Iterator[tuple[str, Any]]:
    """The layers' groups: those that hold datasets, and empty ones."""
    seen = set()
    waiting = [("", root)]
    while waiting:
        prefix, parent = waiting.pop()
        for name in reversed(list(parent)):
            if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
                continue
            child = parent[name]
            address = h5py.h5o.get_info(child.id).addr
            if isinstance(child, h5py.Group) and address not in seen:
                seen.add(address)
                waiting.append((f"{prefix}{name}/", child))
        holds_blobs = any(isinstance(parent[name], h5py.Dataset) for name in parent)
        if parent is not root and (holds_blobs or not len(parent)):
            yield prefix[:-1], parent


def _read_layer(path: str, name: str, group: Any) -> LayerBlobs:
    count = len(group)
    blobs = []
    stored = []
    for index in range(count):
        if str(index) not in group:
            fail(
                WeightsError,
                "missing-blob",
                f'"{path}": layer "{name}" has no blob {index}, though it has later ones',
                help=(
                    "Caffe leaves shared blobs out of HDF5 files: save the net as a .caffemodel",
                ),
            )
        dataset = group[str(index)]
        _check_dataset(path, f'layer "{name}", blob {index}', dataset)
        stored.append(dataset.dtype.name)
        blobs.append(as_float(dataset[()]))
    return LayerBlobs(name, "", tuple(blobs), tuple(stored))


def _check_dataset(path: str, where: str, dataset: Any) -> None:
    """Refuse what is no plain array of numbers in this file, before memory is taken for it."""
    reason = None
    if not hasattr(dataset, "dtype") or dataset.dtype.kind not in "fiu":
        reason = "it is not an array of numbers"
    elif dataset.is_virtual or dataset.external:
        reason = "its values are kept in another file"
    elif dataset.nbytes > _BEST_PACKING * dataset.id.get_storage_size():
        reason = f"it takes {dataset.nbytes} bytes, more than the file can hold"
    if reason:
        fail(WeightsError, "corrupt-weights", f'"{path}" is damaged: {where}: {reason}')
    check_memory(path, dataset.nbytes)
