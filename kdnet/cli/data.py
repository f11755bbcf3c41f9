"""Make the databases, mean images and answers that nets read, and fetch image collections."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kdnet.cli._arguments import (
    add_device,
    add_state,
    add_weights,
    input_shapes,
    positive,
    split,
)

NAME = "data"
HELP = "make databases, mean images and soft labels, fetch image collections"

COLLECTIONS = ("cifar10", "fashion-mnist", "mnist")

_LMDB = """Turn images into an LMDB of Datum records, as Caffe's own tools make it.

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

_ANSWERS = """Write what a net says of every record of its data layer.

The net runs in TEST phase, on the records of its TRAIN data layer unless --data says test. OUT
holds one row a record in their order: array "logits" (or "probabilities"), and with --top-k
"logits_classes" and "logits_rest" as well, just as a SoftLabels layer reads them.
"""

_Advance = Callable[[int], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands lmdb, mean, download and soft-labels."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _declare_lmdb(
        commands.add_parser(
            "lmdb",
            help="images to LMDB",
            description=_LMDB,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    mean = commands.add_parser("mean", help="the mean image of an LMDB, for mean_file")
    mean.add_argument("database", metavar="LMDB", type=Path)
    mean.add_argument("out", metavar="OUT", type=Path, help="the .binaryproto file to write")
    mean.set_defaults(work=_mean)
    download = commands.add_parser(
        "download", help="fetch a collection; every file is checked by its SHA-256"
    )
    download.add_argument("collection", choices=COLLECTIONS)
    download.add_argument(
        "out", metavar="OUT", type=Path, nargs="?", help="the folder (the collection's name)"
    )
    download.add_argument(
        "--from", dest="source", metavar="DIR", type=Path, help="files that are already there"
    )
    download.set_defaults(work=_download)
    _declare_answers(
        commands.add_parser(
            "soft-labels",
            help="a net's answers to every record, for SoftLabels",
            description=_ANSWERS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )


def run(options: argparse.Namespace) -> int:
    """Run the sub-command; what was made goes to stdout."""
    options.work(options)
    return 0


def _declare_lmdb(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--force", action="store_true", help="replace an LMDB that is there")
    parser.set_defaults(work=_lmdb)


def _declare_answers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("net", metavar="NET", help="a net prototxt")
    parser.add_argument("--blob", required=True, metavar="B", help="the blob with the scores")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUT", help="the .npz or .h5 file"
    )
    parser.add_argument(
        "--data", choices=("train", "test"), default="train", help="whose data layer (train)"
    )
    parser.add_argument(
        "--form", choices=("logits", "probabilities"), default="logits", help="(logits)"
    )
    parser.add_argument(
        "--top-k", type=positive, default=0, metavar="K", help="keep the K largest of each record"
    )
    parser.add_argument("--fp16", action="store_true", help="keep them as float16")
    add_weights(parser)
    add_device(parser)
    add_state(parser)
    parser.set_defaults(work=_answers)


def _pixels(text: str) -> int:
    value = int(text)
    if not 0 < value < 2**16:
        raise ValueError
    return value


def _lmdb(options: argparse.Namespace) -> None:
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
    with _bar("images") as start:
        written = convert(
            options.sources, options.out, wanted, size=size, force=options.force, start=start
        )
    shape = " x ".join(map(str, written.shape))
    print(f"{options.out}: {written.count} images, {shape}")


def _mean(options: argparse.Namespace) -> None:
    from kdnet.data.mean import mean_of, write_mean

    with _bar("records") as start:
        mean = mean_of(options.database, start)
    write_mean(options.out, mean.image)
    shape = " x ".join(map(str, mean.image.shape))
    values = " ".join(f"mean_value: {value:.6g}" for value in mean.channels)
    print(f"{options.out}: mean of {mean.count} images, {shape}; {values}")


def _download(options: argparse.Namespace) -> None:
    from kdnet.data.download import PUBLISHED, obtain

    collection = PUBLISHED[options.collection]
    folder = options.out or Path(options.collection)
    with _bar("bytes") as start:
        paths = obtain(collection, folder, source=options.source, start=start)
    for path in paths:
        print(path)


def _answers(options: argparse.Namespace) -> None:
    from kdnet.runtime import CaffeLog
    from kdnet.runtime.soft_labels import AnswerOptions, write_answers

    wanted = AnswerOptions(
        path=options.net,
        blob=options.blob,
        out=options.output,
        weights=split(options.weights),
        train=options.data == "train",
        form=options.form,
        top_k=options.top_k,
        fp16=options.fp16,
        device=options.device or "auto",
        level=options.level,
        stages=split(options.stage),
        allow_unloaded=options.allow_unloaded,
        input_shapes=input_shapes(options.input_shape),
    )
    with _bar("records") as start:
        written = write_answers(wanted, CaffeLog(sys.stderr), start)
    (classes,), stored = written.stored.shape, written.stored.stored
    print(f"{options.output}: {written.count} answers of {classes} {options.form}, {stored}")


@contextmanager
def _bar(unit: str) -> Iterator[Callable[[int], _Advance]]:
    """A progress bar for steps to come, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _total: lambda _step: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeLeft())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def start(total: int) -> _Advance:
            task = bar.add_task("", total=total)
            return lambda step: bar.advance(task, step)

        yield start
