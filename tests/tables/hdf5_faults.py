"""HDF5 files and lists of them that a data source refuses: one row a fault."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from tables.database_faults import FaultCase, text_file
from tables.sources import COUNT, HDF5, LABELS, NUMBERS, Build, write_hdf5


def _hdf5_with(**datasets: np.ndarray | list[str]) -> Build:
    def build(folder: Path) -> None:
        write_hdf5(folder)
        with h5py.File(folder / "b.h5", "w") as file:
            for name, values in datasets.items():
                file[name] = values

    return build


def _hdf5_group(folder: Path) -> None:
    write_hdf5(folder)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_group("data")
        file["label"] = LABELS


def _hdf5_file(content: bytes) -> Build:
    def build(folder: Path) -> None:
        write_hdf5(folder)
        (folder / "a.h5").write_bytes(content)

    return build


LIST = '"@/list.txt"'

HDF5_FAULTS = [
    FaultCase(
        "hdf5-damaged",
        "bad-hdf5",
        HDF5,
        _hdf5_file(b"x" * 100),
        LIST,
        'layer "h": "@/a.h5" cannot be read as HDF5: ',
    ),
    FaultCase(
        "hdf5-dataset",
        "missing-dataset",
        HDF5.replace('top: "label"', 'top: "labels"'),
        write_hdf5,
        LIST,
        'layer "h": "@/a.h5" has no dataset "labels"; it has data, label',
        help='did you mean "label"?',
    ),
    FaultCase(
        "hdf5-group",
        "bad-dataset",
        HDF5,
        _hdf5_group,
        LIST,
        'layer "h": dataset "data" of "@/a.h5" is a group; it must be numbers with rows',
    ),
    FaultCase(
        "hdf5-kind",
        "bad-dataset",
        HDF5,
        _hdf5_with(data=NUMBERS, label=["a"] * COUNT),
        LIST,
        'layer "h": dataset "label" of "@/b.h5" is object (10,); it must be numbers',
    ),
    FaultCase(
        "hdf5-list-binary",
        "bad-hdf5-list",
        HDF5,
        lambda folder: (folder / "list.txt").write_bytes(b"\x89HDF\xff") and None,
        LIST,
        'layer "h": "@/list.txt" cannot be read as a list of files: ',
        help="the source of HDF5Data is a text file that lists the .h5 files",
    ),
    FaultCase(
        "hdf5-list-empty",
        "bad-hdf5-list",
        HDF5,
        text_file("list.txt", "\n"),
        LIST,
        'layer "h": "@/list.txt" lists no file',
    ),
    FaultCase(
        "hdf5-missing",
        "missing-hdf5",
        HDF5,
        text_file("list.txt", "no.h5\n"),
        "no.h5",
        '"no.h5" does not exist',
    ),
    FaultCase(
        "hdf5-rows",
        "dataset-rows",
        HDF5,
        _hdf5_with(data=NUMBERS, label=LABELS[:3]),
        LIST,
        'layer "h": the datasets of "@/b.h5" have different numbers of rows: [3, 10]',
    ),
    FaultCase(
        "hdf5-shape",
        "dataset-shape",
        HDF5,
        _hdf5_with(data=NUMBERS[:, 0], label=LABELS),
        LIST,
        'layer "h": rows of "@/b.h5" have the shapes ((6, 5), ()), not ((3, 6, 5), ())',
    ),
    FaultCase(
        "hdf5-stated",
        "item-shape",
        HDF5.replace("4 }", "4 shape { dim: 2 } shape { } }"),
        write_hdf5,
        "shape",
        'layer "h": rows have the shapes ((3, 6, 5), ()), but ((2,), ()) are stated',
    ),
    FaultCase(
        "hdf5-stated-count",
        "bad-item-shape",
        HDF5.replace("4 }", "4 shape { dim: 2 } }"),
        write_hdf5,
        "shape",
        'layer "h": shape is [(2,)] for 2 tops',
        help="give the shape of a row once for each top",
    ),
    FaultCase(
        "hdf5-transform",
        "transform-not-allowed",
        HDF5 + "transform_param { }",
        write_hdf5,
        "transform_param",
        'layer "h": HDF5Data does not transform its data',
    ),
]
