"""Compute the mean image of a database, and write it for mean_file, as compute_image_mean does.

Without OUT only the means of the channels are told. Sums are exact; Caffe adds single numbers up
and loses digits above some 65000 images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kdnet.cli._caffe_flags import add_glog, as_in_caffe
from kdnet.cli.data._bar import bar

NAME = "mean"
ALIASES = ("compute-mean", "compute-image-mean", "compute_image_mean")
HELP = "the mean image of a database, for mean_file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("database", metavar="DB", type=Path)
    parser.add_argument(
        "out", metavar="OUT", type=Path, nargs="?", help="the .binaryproto file to write"
    )
    backend = parser.add_argument(
        "--backend",
        choices=("lmdb", "leveldb"),
        help="what DB is said to be; its folder tells it",
    )
    as_in_caffe(parser, backend)
    add_glog(parser)


def run(options: argparse.Namespace) -> None:
    """Compute and write."""
    from kdnet.data.mean import mean_of, write_mean

    with bar("records") as start:
        mean = mean_of(options.database, start)
    if options.out:
        write_mean(options.out, mean.image)
    shape = " x ".join(map(str, mean.image.shape))
    values = " ".join(f"mean_value: {value:.6g}" for value in mean.channels)
    print(f"{options.out or options.database}: mean of {mean.count} images, {shape}; {values}")
