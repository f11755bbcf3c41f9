"""Arguments that several commands on weight files share."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from kdnet.errors import UsageError, fail
from kdnet.net.input_shapes import input_shapes
from kdnet.weights import format_names
from weights_tools.nets import NetChoice
from weights_tools.progress import bar
from weights_tools.writing import Output


def add_output(parser: argparse.ArgumentParser) -> None:
    """``-o`` and ``--to``."""
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write")
    parser.add_argument(
        "--to",
        metavar="FORMAT",
        choices=format_names(writable=True),
        help=f"its format, one of {', '.join(format_names(writable=True))} (by OUT's ending, "
        "else a .caffemodel)",
    )


def add_state(parser: argparse.ArgumentParser) -> None:
    """What a net definition leaves open: phase, level, stages and the shapes of data."""
    parser.add_argument(
        "--phase", choices=("TRAIN", "TEST"), default="TRAIN", help="the net's phase (TRAIN)"
    )
    parser.add_argument("--level", type=int, metavar="N", help="the net's level")
    parser.add_argument(
        "--stage", action="append", default=[], metavar="S[,S]", help="the net's stages"
    )
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        metavar="TOP=CxHxW",
        help="the item shape of a data layer, where neither net nor data say it",
    )


def add_flatten(parser: argparse.ArgumentParser) -> None:
    """``--flatten``."""
    parser.add_argument(
        "--flatten",
        metavar="LAYER=CHANNELS",
        action="append",
        default=[],
        help="of a Keras file of weights alone: dense layer LAYER follows a Flatten of maps of "
        "CHANNELS channels, the last number of their shape",
    )


def flattened(args: argparse.Namespace) -> dict[str, int]:
    """The channels by layer that the flags of :func:`add_flatten` say.

    Raises:
        UsageError: ``bad-flatten``.
    """
    found: dict[str, int] = {}
    for text in args.flatten:
        layer, _, channels = text.rpartition("=")
        if not layer or not re.fullmatch("[1-9][0-9]{0,8}", channels):
            fail(UsageError, "bad-flatten", f'"{text}" is not LAYER=CHANNELS')
        if found.setdefault(layer, int(channels)) != int(channels):
            fail(UsageError, "bad-flatten", f'two --flatten differ on layer "{layer}"')
    return found


def net_choice(path: str, args: argparse.Namespace) -> NetChoice:
    """The net that ``path`` and the flags of :func:`add_state` name.

    Raises:
        UsageError: ``bad-input-shape``.
    """
    stages = tuple(part for value in args.stage for part in value.split(",") if part)
    return NetChoice(path, args.phase, args.level, stages, input_shapes(args.input_shape))


@contextmanager
def output(args: argparse.Namespace, what: str) -> Iterator[Output]:
    """The output of ``-o`` and ``--to``, with a bar on a terminal while the block runs."""
    chosen = Output(args.output, args.to)
    with bar(what) as progress:
        yield replace(chosen, progress=progress)


def say(line: str) -> None:
    """One line of the result, to stdout."""
    sys.stdout.write(f"{line}\n")


def say_mapped(pairs: Iterable[tuple[str, str]]) -> None:
    """``mapped A to B`` for each rename, as the first tool of this kind said it."""
    for old, new in pairs:
        say(f"mapped {old} to {new}")


def say_notes(notes: Iterable[str]) -> None:
    """What a user should know of how files were understood, and what was not kept, to stderr."""
    for note in notes:
        sys.stderr.write(f"note: {note}\n")
