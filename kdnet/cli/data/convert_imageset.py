"""Write the image files of a list to a database, with the arguments of Caffe's convert_imageset.

LIST has a path, a space and a label on each line; ROOT is put before each path as it is, so a
folder ends with "/". Records are Datum, keys 00000000_PATH, colours blue, green, red. A file that
cannot be read is left out with a warning.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kdnet.cli._arguments import count
from kdnet.cli._caffe_flags import TRUTHS, add_glog, as_in_caffe
from kdnet.cli.data._bar import bar
from kdnet.errors import LIMIT, Diagnostic, UsageError, fail, render

if TYPE_CHECKING:
    from kdnet.data.imageset import ImagesetOptions

NAME = "convert-imageset"
ALIASES = ("convert_imageset",)
HELP = "a list of image files to LMDB or LevelDB, as Caffe's tool of this name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("root", metavar="ROOT", help="put before every path, as it is")
    parser.add_argument("list", metavar="LIST", type=Path, help="the list of files and labels")
    parser.add_argument("out", metavar="DB", type=Path, help="the folder to make")
    _add_switch(parser, "gray", "decode to one channel")
    _add_switch(parser, "shuffle", "put the list in a random order")
    _add_switch(parser, "check-size", "refuse images of another size than the first")
    _add_switch(parser, "encoded", "store compressed files, as they are where they stay so")
    for name in ("resize-height", "resize-width"):
        size = parser.add_argument(
            f"--{name}", type=count, default=0, metavar="N", help="pixels; 0 keeps the size (0)"
        )
        as_in_caffe(parser, size)
    kind = parser.add_argument(
        "--encode-type", default="", metavar="png|jpg|...", help="how files are compressed anew"
    )
    as_in_caffe(parser, kind)
    backend = parser.add_argument(
        "--backend", choices=("lmdb", "leveldb"), default="lmdb", help="the database (lmdb)"
    )
    as_in_caffe(parser, backend)
    parser.add_argument("--seed", type=int, default=0, help="of the random order (0)")
    parser.add_argument("--force", action="store_true", help="replace a database that is there")
    add_glog(parser)


def run(options: argparse.Namespace) -> None:
    """Write the database."""
    from kdnet.data.imageset import convert_imageset

    warn = _Warner()
    with bar("images") as start:
        written = convert_imageset(
            options.root, options.list, options.out, _wanted(options), warn, start
        )
    if warn.hidden:
        print(f"note: {warn.hidden} more not shown", file=sys.stderr)
    left_out = f", {written.skipped} left out" if written.skipped else ""
    shape = " x ".join(map(str, written.shape))
    print(f"{options.out}: {written.count} images{left_out}, {shape}")


def _wanted(options: argparse.Namespace) -> ImagesetOptions:
    """What the flags say.

    Raises:
        UsageError: resize-one-side.
    """
    from kdnet.data.imageset import ImagesetOptions

    size = (options.resize_height, options.resize_width)
    if any(size) and not all(size):
        text = "--resize-height and --resize-width must be given together"
        hint = ("with one of them Caffe keeps the size without a word",)
        fail(UsageError, "resize-one-side", text, help=hint)
    return ImagesetOptions(
        gray=options.gray,
        shuffle=options.shuffle,
        seed=options.seed,
        backend=options.backend,
        size=size if any(size) else None,
        check_size=options.check_size,
        encoded=options.encoded,
        encode_type=options.encode_type,
        force=options.force,
    )


class _Warner:
    """Prints the first warnings; ``hidden`` counts the others."""

    def __init__(self) -> None:
        self._shown = 0
        self.hidden = 0

    def __call__(self, found: Diagnostic) -> None:
        if self._shown == LIMIT:
            self.hidden += 1
            return
        self._shown += 1
        print(render(Diagnostic(**{**vars(found), "severity": "warning"})), file=sys.stderr)


def _add_switch(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """A flag without a value, also as gflags take it: -name, --name=true, --noname."""
    target = name.replace("-", "_")
    parser.add_argument(f"--{name}", action="store_true", dest=target, help=text)
    forms = {f"{dash}{form}" for form in (name, target) for dash in ("-", "--")} - {f"--{name}"}
    truths = [f"{form}={truth}" for form in (f"--{name}", *forms) for truth in TRUTHS]
    on = [form for form in truths if form.endswith(("=1", "=true"))]
    off = [form for form in truths if form not in on]
    off += [f"{dash}no{target}" for dash in ("-", "--")]
    for spellings, action in (([*sorted(forms), *on], "store_true"), (off, "store_false")):
        parser.add_argument(
            *spellings,
            action=action,
            dest=target,
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
