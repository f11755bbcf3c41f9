"""Turn images into an LMDB of Datum records, as Caffe's own tools make it.

SOURCE is one of
  a folder or a pair of idx files, gzipped or not (MNIST, Fashion-MNIST)
  CIFAR-10's .bin batches, their folder, or the .tar.gz
  an .npz of images (x, images or data) and labels (y, labels or label)
  an .npz of JPEG files (jpeg, offsets, labels)
  a text file with an image path and an integer label on each line
  a folder with train.npz and test.npz

Channels keep the order of idx, CIFAR-10 (red, green, blue) and array files. JPEG, PNG and other
image files are stored blue, green, red, as Caffe has them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kdnet.cli.data._bar import bar

NAME = "lmdb"
HELP = "images to LMDB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("sources", metavar="SOURCE", type=Path, nargs="+")
    parser.add_argument("out", metavar="OUT", type=Path, help="the LMDB folder to make")
    parser.add_argument("--part", choices=("train", "test"), help="of a collection with both")
    parser.add_argument(
        "--resize", metavar=("H", "W"), type=_pixels, nargs=2, help="resize to H x W pixels"
    )
    parser.add_argument("--gray", action="store_true", help="decode images to one channel")
    parser.add_argument("--encoded", action="store_true", help="keep JPEG and PNG compressed")
    parser.add_argument("--root", default="", help="put before every path of a list, as it is")
    parser.add_argument("--shuffle", action="store_true", help="put a list in random order")
    parser.add_argument("--seed", type=int, default=0, help="of that order (0)")
    parser.add_argument("--force", action="store_true", help="replace a database that is there")


def run(options: argparse.Namespace) -> None:
    """Write the database."""
    from kdnet.data.convert import convert
    from kdnet.data.importers.images import Options

    wanted = Options(
        part=options.part,
        gray=options.gray,
        encoded=options.encoded,
        shuffle=options.shuffle,
        seed=options.seed,
        root=options.root,
    )
    size = tuple(options.resize) if options.resize else None
    with bar("images") as start:
        written = convert(
            options.sources, options.out, wanted, size=size, force=options.force, start=start
        )
    shape = " x ".join(map(str, written.shape))
    print(f"{options.out}: {written.count} images, {shape}")


def _pixels(text: str) -> int:
    value = int(text)
    if not 0 < value < 2**16:
        raise ValueError
    return value
