"""Fetch an image collection; every file is checked by its SHA-256."""

from __future__ import annotations

import argparse
from pathlib import Path

from kdnet.cli.data._bar import bar

NAME = "download"
HELP = "fetch a collection; every file is checked by its SHA-256"

COLLECTIONS = ("cifar10", "fashion-mnist", "mnist")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("collection", choices=COLLECTIONS)
    parser.add_argument(
        "out", metavar="OUT", type=Path, nargs="?", help="the folder (the collection's name)"
    )
    parser.add_argument(
        "--from", dest="source", metavar="DIR", type=Path, help="files that are already there"
    )


def run(options: argparse.Namespace) -> None:
    """Fetch the files."""
    from kdnet.data.download import PUBLISHED, obtain

    collection = PUBLISHED[options.collection]
    folder = options.out or Path(options.collection)
    with bar("bytes") as start:
        paths = obtain(collection, folder, source=options.source, start=start)
    for path in paths:
        print(path)
