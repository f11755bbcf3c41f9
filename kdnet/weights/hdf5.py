"""HDF5 files: which kind one is, and reading arrays of numbers from it with care."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdnet.errors import KdnetError, WeightsError, fail
from kdnet.weights.blobs import as_float
from kdnet.weights.files import check_memory
from kdnet.weights.lazy_numpy import np
from kdnet.weights.model import Array
from kdnet.weights.tensors import check_text

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Deflate, the strongest of HDF5's own filters, cannot pack more than this many bytes into one.
_BEST_PACKING = 1032


@contextlib.contextmanager
def open_hdf5(path: str) -> Iterator[Any]:
    """The file, open for reading; whatever libhdf5 says of it is a named fault.

    Raises:
        WeightsError: ``truncated-weights`` or ``corrupt-weights``.
    """
    import h5py

    if _names_a_driver(path):
        fail(WeightsError, "corrupt-weights", f'"{path}" is damaged: it is part of several files')
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (KdnetError, GeneratorExit):
        raise
    except Exception as error:  # libhdf5's faults arrive as a dozen kinds of exception
        reason = " ".join(str(error).split()) or type(error).__name__
        cut = "truncated file" in reason
        fail(
            WeightsError,
            "truncated-weights" if cut else "corrupt-weights",
            f'"{path}" is {"cut short" if cut else "damaged"}: {reason}',
        )


def _names_a_driver(path: str) -> bool:
    """Whether the file says how it is spread over several: libhdf5 takes its word for the size.

    Source: HDF5 File Format Specification, version 3.0, II.A and II.B.
    """
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        head = file.read(64)
        place = {0: 48, 1: 52}.get(head[8] if len(head) == 64 else -1)
        return place is not None and head[place : place + 8] != b"\xff" * 8
    return False


def kind_of(path: str) -> str:
    """Whose file it is: "keras", "solverstate", else "caffe"; damaged ones are "caffe" too."""
    import h5py

    if _names_a_driver(path):
        return "caffe"
    try:
        with h5py.File(path, "r") as file:
            # A Keras model may have a layer called data, so that the attribute is asked first.
            if "layer_names" in file.attrs:
                return "keras"
            if "data" not in file and {"model_weights", "layers"} & set(file):
                return "keras"
            return "solverstate" if "history" in file and "iter" in file else "caffe"
    except Exception:  # as in open_hdf5; the reader says what is wrong
        return "caffe"


def child(parent: Any, path: str) -> Any:
    """A group or dataset below ``parent``, never one in another file; None where there is none."""
    import h5py

    found = parent
    for part in filter(None, path.split("/")):
        if not isinstance(found, h5py.Group):
            return None
        if not isinstance(found.get(part, getlink=True), h5py.HardLink):
            return None
        found = found[part]
    return found


def read_array(path: str, where: str, dataset: Any) -> tuple[Array, str]:
    """The array of a dataset as float32 or float64, and the name of its stored type.

    Raises:
        WeightsError: ``corrupt-weights``: it is no plain array of numbers in this file;
            ``weights-too-large``.
    """
    reason = None
    if getattr(getattr(dataset, "dtype", None), "kind", "") not in tuple("fiu"):
        reason = "it is not an array of numbers"
    elif dataset.is_virtual or dataset.external:
        reason = "its values are kept in another file"
    elif dataset.nbytes > _BEST_PACKING * dataset.id.get_storage_size():
        reason = f"it takes {dataset.nbytes} bytes, more than the file can hold"
    if reason:
        fail(WeightsError, "corrupt-weights", f'"{path}" is damaged: {where}: {reason}')
    check_memory(path, dataset.nbytes)
    return as_float(np.asarray(dataset[()])), dataset.dtype.name


def blob_names(group: Any) -> list[str]:
    """The numbers among a group's names; a group of that name is another layer's.

    A link out of the file counts: whoever reads it finds nothing there.
    """
    import h5py

    return [n for n in group if n.isdecimal() and not isinstance(child(group, n), h5py.Group)]


def layer_groups(path: str, root: Any) -> Iterator[tuple[str, Any]]:
    """The groups below ``root`` that hold numbered blobs, and empty ones, by name."""
    import h5py

    seen = {h5py.h5o.get_info(root.id).addr}
    waiting = [("", root)]
    while waiting:
        prefix, parent = waiting.pop()
        for name in reversed(list(parent)):
            check_text(path, name)
            found = child(parent, name)
            if isinstance(found, h5py.Group):
                address = h5py.h5o.get_info(found.id).addr
                if address not in seen:
                    seen.add(address)
                    waiting.append((f"{prefix}{name}/", found))
        if parent is not root and (blob_names(parent) or not len(parent)):
            yield prefix[:-1], parent
