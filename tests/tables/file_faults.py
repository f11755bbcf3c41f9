"""Lists, arrays and made-up data that a data source refuses: one row a fault."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from tables.database_faults import FaultCase, text_file
from tables.sources import (
    COUNT,
    DUMMY,
    IMAGES,
    LABELS,
    MEMORY,
    PIXELS,
    Build,
    nothing,
    png,
    write_images,
    write_npz,
)


def _images_with(name: str, content: bytes) -> Build:
    def build(folder: Path) -> None:
        write_images(folder)
        (folder / name).write_bytes(content)

    return build


def _wide_png(folder: Path) -> None:
    write_images(folder)
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(folder / "an image0.png")


def _bomb(folder: Path) -> None:
    """A PNG whose header claims 60,000 x 60,000 pixels."""
    write_images(folder)
    path = folder / "an image0.png"
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    path.write_bytes(data)


def _arrays(**arrays: np.ndarray) -> Build:
    return lambda folder: np.savez(folder / "m.npz", **arrays)


def _objects(folder: Path) -> None:
    data = np.array([None] * COUNT)
    np.savez(folder / "m.npz", data=data, label=LABELS, allow_pickle=True)


def _lying_header(folder: Path) -> None:
    """An archive whose array claims 10^15 rows."""
    write_npz(folder)
    path = folder / "m.npz"
    # Stored without compression or a check that covers the header before it is read.
    path.write_bytes(path.read_bytes().replace(b"(10, 3, 6, 5)", b"(10**9,)     "[:13], 1))


LIST = '"@/list.txt"'

FILE_FAULTS = [
    FaultCase(
        "dummy-both",
        "dummy-shapes",
        DUMMY + "dummy_data_param { num: 1 shape { dim: 1 } }",
        nothing,
        "shape",
        'layer "u": shape and the legacy num, channels, height, width exclude each other',
    ),
    FaultCase(
        "dummy-empty",
        "dummy-shapes",
        DUMMY + "dummy_data_param { shape { dim: 0 } }",
        nothing,
        "dummy_data_param",
        'layer "u": the shape (0,) is empty',
    ),
    FaultCase(
        "dummy-fillers",
        "dummy-fillers",
        DUMMY + "dummy_data_param { shape { dim: 1 } "
        "data_filler { } data_filler { } data_filler { } }",
        nothing,
        "data_filler",
        'layer "u": data_filler is given 3 times for 2 tops',
        help="give it never, once, or once for each top",
    ),
    FaultCase(
        "dummy-shapes",
        "dummy-shapes",
        DUMMY + "dummy_data_param { num: 1 num: 2 channels: 1 }",
        nothing,
        "dummy_data_param",
        'layer "u": height is given 0 times for 2 tops',
        help="give it once, or once for each top",
    ),
    FaultCase(
        "images-bomb",
        "corrupt-image",
        IMAGES,
        _bomb,
        "an image0.png 3",
        '"an image0.png" cannot be decoded as an image: ',
    ),
    FaultCase(
        "images-corrupt",
        "corrupt-image",
        IMAGES,
        _images_with("an image2.png", b"x" * 99),
        "an image2.png 4",
        '"an image2.png" cannot be decoded as an image: ',
        later=True,
    ),
    FaultCase(
        "images-cut",
        "corrupt-image",
        IMAGES,
        _images_with("an image1.png", png(PIXELS[1])[:-40]),
        "an image1.png 1",
        '"an image1.png" cannot be decoded as an image: ',
        later=True,
    ),
    FaultCase(
        "images-deep",
        "corrupt-image",
        IMAGES,
        _wide_png,
        "an image0.png 3",
        '"an image0.png" cannot be decoded as an image: it has more than 8 bits a '
        "channel (mode I;16)",
    ),
    FaultCase(
        "images-empty",
        "bad-image-list",
        IMAGES,
        text_file("list.txt", "\n\n"),
        LIST,
        'layer "i": "@/list.txt" lists no image',
    ),
    FaultCase(
        "images-list",
        "bad-image-list",
        IMAGES,
        text_file("list.txt", "a.png 1\nb.png x\n"),
        "b.png x",
        "not a path and an integer label",
    ),
    FaultCase(
        "images-list-label",
        "bad-image-list",
        IMAGES,
        text_file("list.txt", "a.png 2147483648\n"),
        "a.png",
        "not a path and an integer label",
    ),
    FaultCase(
        "images-missing",
        "missing-image",
        IMAGES,
        text_file("list.txt", "list.tx 1\n"),
        "list.tx",
        '"list.tx" does not exist',
        help='did you mean "list.txt"?',
    ),
    FaultCase(
        "images-resize",
        "resize-one-side",
        IMAGES.replace("4 }", "4 new_width: 7 }"),
        write_images,
        "7 }",
        'layer "i": new_height and new_width must be given together',
    ),
    FaultCase(
        "images-shape",
        "record-shape",
        IMAGES,
        _images_with("an image1.png", png(PIXELS[1][:, :4])),
        LIST,
        'layer "i": "an image1.png" (line 2 of "@/list.txt") has shape (3, 4, 5); '
        "the first has (3, 6, 5)",
        help="give crop_size, or new_height and new_width",
        later=True,
    ),
    FaultCase(
        "images-skip",
        "skip-too-large",
        IMAGES.replace("4 }", "4 rand_skip: 1000000 }"),
        write_images,
        "1000000",
        'layer "i": rand_skip came to ',
    ),
    FaultCase(
        "input-data",
        "input-without-data",
        'name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } }',
        nothing,
        "name",
        'layer "in": an Input layer has no data for batch 0',
        later=True,
    ),
    FaultCase(
        "input-empty",
        "input-shapes",
        'name: "in" type: "Input" top: "x" input_param { shape { dim: 0 } }',
        nothing,
        "shape",
        'layer "in": the shape (0,) is empty',
    ),
    FaultCase(
        "input-shapes",
        "input-shapes",
        'name: "in" type: "Input" top: "x"',
        nothing,
        "name",
        'layer "in": shape is given 0 times for 1 tops',
    ),
    FaultCase(
        "memory-array",
        "missing-array",
        MEMORY,
        _arrays(data=PIXELS, labels=LABELS),
        '"@/m.npz',
        'layer "m": "@/m.npz" has no array "label"; it has data, labels',
        help='did you mean "labels"?',
    ),
    FaultCase(
        "memory-axes",
        "bad-memory-data",
        MEMORY,
        _arrays(data=PIXELS[0], label=LABELS),
        '"@/m.npz',
        'layer "m": data is uint8 (3, 6, 5); it must be numbers (N, C, H, W)',
    ),
    FaultCase(
        "memory-header",
        "bad-npz",
        MEMORY,
        _lying_header,
        '"@/m.npz',
        'layer "m": "@/m.npz" cannot be read as an .npz archive: ',
    ),
    FaultCase(
        "memory-labels",
        "bad-memory-data",
        MEMORY,
        _arrays(data=PIXELS, label=LABELS[:3]),
        '"@/m.npz',
        'layer "m": label is int64 (3,); it must be 10 numbers',
    ),
    FaultCase(
        "memory-no-archive",
        "bad-npz",
        MEMORY,
        text_file("m.npz", "x"),
        '"@/m.npz',
        'layer "m": "@/m.npz" cannot be read as an .npz archive: ',
    ),
    FaultCase(
        "memory-no-source",
        "no-data-source",
        MEMORY.replace('source: "@/m.npz"', ""),
        nothing,
        "memory_data_param",
        'layer "m": memory_data_param.source is not given',
    ),
    FaultCase(
        "memory-objects",
        "bad-npz",
        MEMORY,
        _objects,
        '"@/m.npz',
        'layer "m": "@/m.npz" cannot be read as an .npz archive: data.npy holds Python objects',
    ),
    FaultCase(
        "memory-shape",
        "item-shape",
        MEMORY.replace("width: 5", "width: 4"),
        write_npz,
        "3 height",
        'layer "m": items have the shape (3, 6, 5), but (3, 6, 4) is stated',
    ),
    FaultCase(
        "source-type",
        "unknown-source",
        'name: "w" type: "Windows" top: "data"',
        nothing,
        '"Windows"',
        'layer "w": there is no data source of type "Windows"',
    ),
]
