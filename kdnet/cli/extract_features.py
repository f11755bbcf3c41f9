"""Write what a net makes of its TEST data: blobs as databases or arrays.

The arguments stand in the order of Caffe's extract_features, which may end with lmdb or leveldb,
with CPU or GPU, and with DEVICE_ID=0. A database gets a Datum of floats for each item under its
number in ten digits, as Caffe writes it; an .npz or .h5 file one array under the blob's name.
The form is the one that --to or that word says, else what OUT ends with, else LMDB.

The data is what the net's TEST data layer reads; after its last item it begins anew.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from kdnet.cli._arguments import add_device, add_state, input_shapes, positive, split
from kdnet.cli._python import add_python, python_layers
from kdnet.cli.data._bar import bar
from kdnet.errors import UsageError, fail

NAME = "extract-features"
HELP = "write a net's blobs as databases or arrays"
_FORMS = ("lmdb", "leveldb", "npz", "hdf5")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("weights", metavar="WEIGHTS[,F]", help="weight files")
    parser.add_argument("path", metavar="NET", help="a net prototxt")
    parser.add_argument("blobs", metavar="BLOB[,BLOB]", help="the blobs to write")
    parser.add_argument("outs", metavar="OUT[,OUT]", help="a file or database for each")
    parser.add_argument("batches", metavar="BATCHES", type=positive, help="batches to run")
    parser.add_argument(
        "caffe", nargs="*", metavar="WORD", help="lmdb or leveldb, CPU or GPU, DEVICE_ID=N"
    )
    parser.add_argument("--to", choices=_FORMS, help="the form of every OUT")
    parser.add_argument("--force", action="store_true", help="replace databases that are there")
    parser.add_argument(
        "--allow-unloaded", action="store_true", help="run frozen layers that no file fills"
    )
    add_device(parser)
    add_state(parser)
    add_python(parser)


def run(options: argparse.Namespace) -> int:
    """Extract; what was written goes to stdout."""
    from kdnet.runtime import CaffeLog
    from kdnet.runtime.features import FeatureOptions, extract_features

    form, device = _words(options.caffe)
    wanted = FeatureOptions(
        path=options.path,
        blobs=split([options.blobs]),
        outs=tuple(map(Path, split([options.outs]))),
        batches=options.batches,
        weights=split([options.weights]),
        form=options.to or form,
        force=options.force,
        device=options.device or device or "auto",
        level=options.level,
        stages=split(options.stage),
        allow_unloaded=options.allow_unloaded,
        input_shapes=input_shapes(options.input_shape),
    )
    with python_layers(options), bar("batches") as start:
        written = extract_features(wanted, CaffeLog(sys.stderr), start)
    for found in written:
        shape = "x".join(map(str, found.shape)) or "1"
        print(f"{found.out}: {found.count} rows of {found.blob}, {shape}, {found.form}")
    return 0


def _words(given: list[str]) -> tuple[str, str]:
    """The form and the device that Caffe's own words say.

    Raises:
        UsageError: unknown-word.
    """
    words = list(given)
    form = words.pop(0) if words and words[0] in _FORMS else ""
    device = words.pop(0).lower() if words and words[0].upper() in ("CPU", "GPU") else ""
    number = re.fullmatch(r"(?:DEVICE_ID=)?(\d+)", words[0]) if words and device else None
    if number:
        words.pop(0)
    if words:
        text = f'"{words[0]}" is neither a form, nor CPU or GPU, nor the number of one'
        hint = ("as in: lmdb GPU DEVICE_ID=0",)
        fail(UsageError, "unknown-word", text, help=hint)
    return form, f"cuda:{number[1] if number else 0}" if device == "gpu" else device
