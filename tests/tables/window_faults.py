"""Window files and windows that WindowData refuses: one row a fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdnet.schema import kdnet_pb2 as pb
from tables.database_faults import FaultCase, text_file
from tables.sources import WINDOWS, Build, window_file, write_windows

SOURCE = '"@/windows.txt"'
HEAD = "# 0\nimage0.png\n3\n6\n5\n"


def _file(text: str) -> Build:
    def build(folder: Path) -> None:
        write_windows(folder)
        text_file("windows.txt", text)(folder)

    return build


def _windows(*rows: str) -> Build:
    return _file(window_file(*rows))


def _mean(*shape: int) -> Build:
    def build(folder: Path) -> None:
        write_windows(folder)
        blob = pb.BlobProto(shape=pb.BlobShape(dim=shape))
        blob.data.extend([0.0] * int(np.prod(shape)))
        (folder / "mean.binaryproto").write_bytes(blob.SerializeToString())

    return build


BACKGROUND = "0 0.1 0 0 2 2"
MEAN = WINDOWS.replace("crop_size: 4", 'crop_size: 4 mean_file: "@/mean.binaryproto"')

WINDOW_FAULTS = [
    FaultCase(
        "windows-channels",
        "bad-window-file",
        WINDOWS,
        _file("# 0\na.png\n1\n6\n5\n0\n"),
        "1",
        "windows are cut out of colour images: channels must be 3",
    ),
    FaultCase(
        "windows-class",
        "bad-window-file",
        WINDOWS,
        _windows("0 0.9 0 0 2 2", BACKGROUND),
        BACKGROUND,
        "a window that overlaps an object has no class above 0",
    ),
    FaultCase(
        "windows-context",
        "bad-window-parameter",
        WINDOWS.replace("batch_size", "context_pad: 2 batch_size"),
        write_windows,
        "2 batch_size",
        'layer "w": context_pad 2 leaves nothing of crop_size 4',
    ),
    FaultCase(
        "windows-crop",
        "not-positive",
        WINDOWS.replace("crop_size: 4", "mirror: true"),
        write_windows,
        "transform_param",
        'layer "w": transform_param.crop_size must be positive',
    ),
    FaultCase(
        "windows-empty",
        "bad-window",
        WINDOWS,
        _windows("1 0.9 3 3 2 4", BACKGROUND),
        "image0.png",
        'window (3, 3) to (2, 4) of "image0.png" is empty',
        later=True,
    ),
    FaultCase(
        "windows-end",
        "bad-window-file",
        WINDOWS,
        _file(f"{HEAD}2\n{BACKGROUND}"),
        BACKGROUND,
        "the file ends in the 2 windows of an image",
    ),
    FaultCase(
        "windows-fraction",
        "bad-window-parameter",
        WINDOWS.replace("batch_size", "fg_fraction: 1.5 batch_size"),
        write_windows,
        "1.5",
        'layer "w": fg_fraction is 1.5; it must be from 0 to 1',
    ),
    FaultCase(
        "windows-hash",
        "bad-window-file",
        WINDOWS,
        _file("0\na.png\n"),
        "0",
        'an image begins with "#"',
    ),
    FaultCase(
        "windows-huge",
        "bad-window-file",
        WINDOWS,
        _file(f"{HEAD}1\n1 0.9 0 0 9e30 2\n"),
        "1 0.9",
        "a number of a window is out of range",
    ),
    FaultCase(
        "windows-image",
        "missing-image",
        WINDOWS,
        _file(f"# 0\nimag0.png\n3\n6\n5\n2\n1 0.9 0 0 2 2\n{BACKGROUND}\n"),
        "imag0.png",
        '"imag0.png" does not exist',
        later=True,
    ),
    FaultCase(
        "windows-mean",
        "mean-shape",
        MEAN,
        _mean(1, 3, 3, 8),
        '"@/mean',
        'layer "w": the mean image "@/mean.binaryproto" has shape (3, 3, 8); '
        "windows of 4 do not fit in",
    ),
    FaultCase(
        "windows-mode",
        "bad-window-parameter",
        WINDOWS.replace("batch_size", 'crop_mode: "sqare" batch_size'),
        write_windows,
        '"sqare"',
        'layer "w": crop_mode is "sqare"; it may be "warp" or "square"',
    ),
    FaultCase(
        "windows-no-object",
        "no-windows",
        WINDOWS,
        _windows(BACKGROUND),
        SOURCE,
        'layer "w": "@/windows.txt" has no foreground window, and a batch needs 2',
    ),
    FaultCase(
        "windows-none",
        "bad-window-file",
        WINDOWS,
        _file("\n"),
        SOURCE,
        'layer "w": "@/windows.txt" lists no image',
    ),
    FaultCase(
        "windows-number",
        "bad-window-file",
        WINDOWS,
        _file(f"{HEAD}0\n# 2\n"),
        "# 2",
        "this image has number 2 where 1 follows",
    ),
    FaultCase(
        "windows-outside",
        "bad-window",
        WINDOWS,
        _windows("1 0.9 0 0 5 2", BACKGROUND),
        "image0.png",
        'window (0, 0) to (5, 2) of "image0.png" leaves the image of 5 x 6 pixels',
        later=True,
    ),
    FaultCase(
        "windows-part",
        "bad-window-file",
        WINDOWS,
        _windows("1 0.9 0 0 2.5 2", BACKGROUND),
        BACKGROUND,
        "class and corners of a window must be whole numbers",
    ),
    FaultCase(
        "windows-tops",
        "top-count",
        WINDOWS.replace('top: "label"', ""),
        write_windows,
        '"data"',
        'layer "w": WindowData has 2 tops, not 1',
    ),
    FaultCase(
        "windows-words",
        "bad-window-file",
        WINDOWS,
        _windows("1 0.9 0 0 2 x", BACKGROUND),
        BACKGROUND,
        "a window is not six numbers, class overlap x1 y1 x2 y2: ",
    ),
]
