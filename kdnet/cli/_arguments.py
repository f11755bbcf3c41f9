"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from kdnet.cli._caffe_flags import as_in_caffe
from kdnet.errors import UsageError, fail
from kdnet.net.input_shapes import input_shapes

if TYPE_CHECKING:
    from kdnet.runtime import TrainOptions

__all__ = [
    "add_device",
    "add_model",
    "add_state",
    "add_synthetic",
    "add_weights",
    "count",
    "input_shapes",
    "positive",
    "seed",
    "split",
    "the_path",
    "training",
]


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``."""
    parser.add_argument(
        "--device", metavar="auto|cpu|cuda[:N]", help="where to run; auto takes CUDA if it answers"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """``--model``, Caffe's way to name the net."""
    help_text = "the net, where NET is not given"
    as_in_caffe(parser, parser.add_argument("--model", metavar="NET", help=help_text))


def the_path(options: argparse.Namespace, command: str, wanted: str) -> str:
    """The one file that ``--model`` or the command's argument names.

    Raises:
        UsageError: usage, when there is none or they are two.
    """
    given = [path for path in (options.path, options.model) if path]
    if len(given) != 1:
        text = f"the following arguments are required: {wanted}"
        text = f'"{given[0]}" and --model "{given[1]}" both name the net' if given else text
        fail(UsageError, "usage", text, help=(f"kdnet {command} --help",))
    return str(given[0])


def add_weights(parser: argparse.ArgumentParser) -> None:
    """``--weights`` and ``--allow-unloaded``."""
    weights = parser.add_argument(
        "--weights",
        metavar="F[,F]",
        action="append",
        default=[],
        help="weight files, loaded by layer name in order",
    )
    as_in_caffe(parser, weights)
    parser.add_argument(
        "--allow-unloaded",
        action="store_true",
        help="run with frozen layers that no file filled (a random teacher)",
    )


def add_state(parser: argparse.ArgumentParser) -> None:
    """``--level``, ``--stage`` and ``--input-shape``."""
    level = parser.add_argument("--level", type=int, metavar="N", help="the net's level")
    stage = parser.add_argument(
        "--stage", action="append", default=[], metavar="S[,S]", help="the net's stages"
    )
    as_in_caffe(parser, level)
    as_in_caffe(parser, stage)
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        metavar="TOP=CxHxW",
        help="the item shape of a data layer, by its first top (for Input: the whole shape)",
    )


def add_synthetic(parser: argparse.ArgumentParser) -> None:
    """``--synthetic-data``."""
    parser.add_argument(
        "--synthetic-data",
        action="store_true",
        help="make data up where the net names files that are not there",
    )


def training(options: argparse.Namespace, **more: Any) -> TrainOptions:
    """What a command that builds a net as ``kdnet train`` does was asked for.

    ``more`` are fields of the options that the command's own flags decide.
    """
    from kdnet.runtime import TrainOptions

    return TrainOptions(
        path=options.path,
        solver=options.solver,
        weights=split(options.weights),
        seed=options.seed,
        level=options.level,
        stages=split(options.stage),
        allow_unloaded=options.allow_unloaded,
        input_shapes=input_shapes(options.input_shape),
        synthetic_data=getattr(options, "synthetic_data", False),
        **more,
    )


def count(text: str) -> int:
    """A whole number from 0 to what an int32 field holds."""
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not in 0 to {2**31 - 1}")
    return value


def seed(text: str) -> int:
    """A whole number that a snapshot can hold."""
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not in -2^63 to 2^63 - 1")
    return value


def positive(text: str) -> int:
    """A :func:`count` above 0."""
    value = count(text)
    if not value:
        raise argparse.ArgumentTypeError("0 is not above 0")
    return value


def split(values: list[str]) -> tuple[str, ...]:
    """Repeated and comma-separated values as one tuple."""
    return tuple(part for value in values for part in value.split(",") if part)
