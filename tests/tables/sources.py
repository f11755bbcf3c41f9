"""The data source table: one row a way of storing data, with what each batch must be.

A row's files are written without kdnet's own writers, and what it expects is worked out here.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
from PIL import Image

from kdnet.net import LayerModel
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.reader import read_text

Build = Callable[[Path], None]
Expect = Callable[[int], tuple[np.ndarray, ...]]

COUNT = 10
PIXELS = np.random.default_rng(7).integers(0, 256, (COUNT, 3, 6, 5), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 130, 70000])
NO_LEVELDB = "plyvel is not installed, so no LevelDB can be made"
NUMBERS = (PIXELS.astype(np.float32) - 100) / 8


@dataclass(frozen=True)
class SourceCase:
    """A layer with ``@`` for its folder, the files there, and its batches.

    ``expect`` is None where a batch is random and its test is elsewhere.
    """

    id: str
    prototxt: str
    build: Build
    shapes: tuple[tuple[int, ...], ...]
    expect: Expect | None = None
    phase: int = pb.TRAIN

    @property
    def type(self) -> str:
        """The Caffe type of the layer."""
        return layer_of(self.prototxt, Path("x")).type


def layer_of(prototxt: str, folder: Path, phase: int = pb.TRAIN) -> LayerModel:
    """The layer that a prototxt in ``folder`` describes."""
    text = prototxt.replace("@", str(folder))
    read = read_text(text, str(folder / "net.prototxt"), pb.LayerParameter)
    found = read.message
    tops = tuple(found.top)
    return LayerModel(found.name, found.type, (), tops, phase, found, read.source)


def datum(row: int, **more: object) -> pb.Datum:
    """Row ``row`` as Caffe's tools write it."""
    made = pb.Datum(channels=3, height=6, width=5, label=int(LABELS[row]))
    made.data = PIXELS[row].tobytes()
    for name, value in more.items():
        setattr(made, name, value)
    return made


def as_floats(row: int) -> pb.Datum:
    """Row ``row`` as numbers."""
    made = pb.Datum(channels=3, height=6, width=5, label=int(LABELS[row]))
    made.float_data.extend(NUMBERS[row].ravel().tolist())
    return made


def png(pixels: np.ndarray) -> bytes:
    """A colour image, given as blue, green, red planes, as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[::-1].transpose(1, 2, 0))).save(file, "PNG")
    return file.getvalue()


def as_png(row: int) -> pb.Datum:
    """Row ``row`` as an encoded record, without the sizes that Caffe's tools leave out too."""
    return pb.Datum(data=png(PIXELS[row]), label=int(LABELS[row]), encoded=True)


def write_lmdb(folder: Path, values: Iterable[bytes]) -> None:
    """Records with the keys that Caffe's tools make."""
    environment = lmdb.open(str(folder), map_size=2**24)
    with environment, environment.begin(write=True) as transaction:
        for row, value in enumerate(values):
            transaction.put(b"%08d" % row, value)


def database(make: Callable[[int], pb.Datum] = datum) -> Build:
    """Builds the folder ``db``."""
    return lambda folder: write_lmdb(
        folder / "db", (make(row).SerializeToString() for row in range(COUNT))
    )


def leveldb(rows: Iterable[int]) -> Build:
    """Builds the folder ``db`` as a LevelDB of some rows."""

    def build(folder: Path) -> None:
        plyvel = pytest.importorskip("plyvel", reason=NO_LEVELDB)
        made = plyvel.DB(str(folder / "db"), create_if_missing=True)
        for row in rows:
            made.put(b"%08d" % row, datum(row).SerializeToString())
        made.close()

    return build


def write_hdf5(folder: Path) -> None:
    for name, rows in (("a.h5", slice(0, 4)), ("b.h5", slice(4, 10))):
        with h5py.File(folder / name, "w") as file:
            file["data"] = NUMBERS[rows]
            file["label"] = LABELS[rows]
    (folder / "list.txt").write_text(f"{folder / 'a.h5'}\nb.h5\n")


def write_npz(folder: Path) -> None:
    np.savez(folder / "m.npz", data=PIXELS, label=LABELS)


def write_images(folder: Path) -> None:
    """Colour images, one of them with a space in its name, and the list ``list.txt``."""
    lines = []
    for row in range(COUNT):
        (folder / f"an image{row}.png").write_bytes(png(PIXELS[row]))
        lines.append(f"an image{row}.png {LABELS[row]}\n")
    (folder / "list.txt").write_text("".join(lines))


def window_file(*windows: str) -> str:
    """A window file of ``image0.png``."""
    return "\n".join(["# 0", "image0.png", "3", "6", "5", str(len(windows)), *windows, ""])


def write_windows(folder: Path) -> None:
    """An image, and ``windows.txt`` with two objects, a background and what is neither."""
    (folder / "image0.png").write_bytes(png(PIXELS[0]))
    windows = ("2 0.9 1 1 4 4", "3 0.5 0 2 3 5", "1 0.4 1 1 2 2", "1 0.2 0 0 3 3")
    (folder / "windows.txt").write_text(window_file(*windows))


def nothing(_folder: Path) -> None:
    pass


def in_order(values: np.ndarray, size: int) -> Expect:
    """Batches of ``size`` consecutive rows, around the end."""

    def batch(index: int) -> tuple[np.ndarray, ...]:
        rows = np.arange(index * size, (index + 1) * size) % COUNT
        return values[rows].astype(np.float32), LABELS[rows].astype(np.float32)

    return batch


def _only_images(expect: Expect) -> Expect:
    return lambda index: expect(index)[:1]


BOTH = ((4, 3, 6, 5), (4,))
DATA = 'name: "d" type: "Data" top: "data" top: "label" '
LMDB = DATA + 'data_param { source: "@/db" batch_size: 4 backend: LMDB } '
HDF5 = (
    'name: "h" type: "HDF5Data" top: "data" top: "label" '
    'hdf5_data_param { source: "@/list.txt" batch_size: 4 } '
)
IMAGES = (
    'name: "i" type: "ImageData" top: "data" top: "label" '
    'image_data_param { source: "@/list.txt" batch_size: 4 } '
)
MEMORY = (
    'name: "m" type: "MemoryData" top: "data" top: "label" memory_data_param '
    '{ source: "@/m.npz" batch_size: 4 channels: 3 height: 6 width: 5 } '
)
WINDOWS = (
    'name: "w" type: "WindowData" top: "data" top: "label" window_data_param '
    '{ source: "@/windows.txt" bg_threshold: 0.3 batch_size: 8 } transform_param { crop_size: 4 } '
)
DUMMY = 'name: "u" type: "DummyData" top: "data" top: "label" '
TRANSFORM = "transform_param { scale: 0.5 mean_value: 1 mean_value: 2 mean_value: 3 crop_size: 4 }"


def _transformed(size: int) -> Expect:
    mean = np.array([1, 2, 3], np.float32)[:, None, None]
    return in_order(((PIXELS - mean) * np.float32(0.5))[:, :, 1:5, 0:4], size)


SOURCES = [
    SourceCase("data", LMDB, database(), BOTH, in_order(PIXELS, 4)),
    SourceCase(
        "data-crop-test",
        LMDB + TRANSFORM,
        database(),
        ((4, 3, 4, 4), (4,)),
        _transformed(4),
        pb.TEST,
    ),
    SourceCase("data-encoded", LMDB, database(as_png), BOTH, in_order(PIXELS, 4)),
    SourceCase("data-floats", LMDB, database(as_floats), BOTH, in_order(NUMBERS, 4)),
    SourceCase(
        "data-images-only",
        LMDB.replace(' top: "label"', ""),
        database(),
        BOTH[:1],
        _only_images(in_order(PIXELS, 4)),
    ),
    SourceCase(
        "data-leveldb",
        LMDB.replace("backend: LMDB", ""),
        leveldb(range(COUNT)),
        BOTH,
        in_order(PIXELS, 4),
    ),
    SourceCase(
        "data-more-than-all",
        LMDB.replace("batch_size: 4", "batch_size: 23"),
        database(),
        ((23, 3, 6, 5), (23,)),
        in_order(PIXELS, 23),
    ),
    SourceCase(
        "data-random",
        LMDB + "transform_param { crop_size: 3 mirror: true }",
        database(),
        ((4, 3, 3, 3), (4,)),
    ),
    SourceCase(
        "data-stated",
        LMDB.replace("4 backend", "4 shape { dim: 3 dim: 6 dim: 5 } backend"),
        database(),
        BOTH,
        in_order(PIXELS, 4),
    ),
    SourceCase(
        "dummy-constant",
        DUMMY + "dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } "
        'data_filler { value: 3 } data_filler { type: "constant" } }',
        nothing,
        ((2, 3), (2,)),
        lambda _index: (np.full((2, 3), 3, np.float32), np.zeros(2, np.float32)),
    ),
    SourceCase(
        "dummy-legacy",
        DUMMY + "dummy_data_param { num: 2 num: 5 channels: 1 height: 3 width: 4 width: 1 }",
        nothing,
        ((2, 1, 3, 4), (5, 1, 3, 1)),
        lambda _index: (np.zeros((2, 1, 3, 4), np.float32), np.zeros((5, 1, 3, 1), np.float32)),
    ),
    SourceCase(
        "dummy-random",
        DUMMY + 'dummy_data_param { shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } }',
        nothing,
        ((2, 3), (2, 3)),
    ),
    SourceCase("hdf5", HDF5, write_hdf5, BOTH, in_order(NUMBERS, 4)),
    SourceCase("hdf5-shuffle", HDF5.replace("4 }", "4 shuffle: true }"), write_hdf5, BOTH),
    SourceCase(
        "hdf5-stated",
        HDF5.replace("4 }", "4 shape { dim: 3 dim: 6 dim: 5 } shape { } }"),
        write_hdf5,
        BOTH,
        in_order(NUMBERS, 4),
    ),
    SourceCase("images", IMAGES, write_images, BOTH, in_order(PIXELS, 4)),
    SourceCase(
        "images-resized",
        IMAGES.replace("4 }", "4 new_height: 3 new_width: 5 }"),
        write_images,
        ((4, 3, 3, 5), (4,)),
    ),
    SourceCase("images-shuffle", IMAGES.replace("4 }", "4 shuffle: true }"), write_images, BOTH),
    SourceCase("lmdb-shuffle", LMDB.replace("4 b", "4 shuffle: true b"), database(), BOTH),
    SourceCase("memory", MEMORY, write_npz, BOTH, in_order(PIXELS, 4)),
    SourceCase(
        "memory-crop",
        MEMORY.replace("height: 6 width: 5", "height: 4 width: 4") + TRANSFORM,
        write_npz,
        ((4, 3, 4, 4), (4,)),
        _transformed(4),
        pb.TEST,
    ),
    SourceCase("windows", WINDOWS, write_windows, ((8, 3, 4, 4), (8,))),
]
