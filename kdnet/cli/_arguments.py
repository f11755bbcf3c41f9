"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import re

from kdnet.errors import UsageError, fail

# An extent beyond int32 fits no blob.
_DIGITS = re.compile("[0-9]{1,9}")


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``."""
    parser.add_argument(
        "--device", metavar="auto|cpu|cuda[:N]", help="where to run; auto takes CUDA if it answers"
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """``--weights`` and ``--allow-unloaded``."""
    parser.add_argument(
        "--weights",
        metavar="F[,F]",
        action="append",
        default=[],
        help="weight files, loaded by layer name in order",
    )
    parser.add_argument(
        "--allow-unloaded",
        action="store_true",
        help="run with frozen layers that no file filled (a random teacher)",
    )


def add_state(parser: argparse.ArgumentParser) -> None:
    """``--level``, ``--stage`` and ``--input-shape``."""
    parser.add_argument("--level", type=int, metavar="N", help="the net's level")
    parser.add_argument(
        "--stage", action="append", default=[], metavar="S[,S]", help="the net's stages"
    )
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        metavar="TOP=CxHxW",
        help="the item shape of a data layer, by its first top (for Input: the whole shape)",
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


def input_shapes(values: list[str]) -> dict[str, tuple[int, ...]]:
    """``data=3x32x32`` as {"data": (3, 32, 32)}.

    Raises:
        UsageError: bad-input-shape.
    """
    found = {}
    for value in values:
        name, _, dims = value.partition("=")
        parts = dims.lower().split("x")
        if not name or not all(_DIGITS.fullmatch(part) and int(part) for part in parts):
            text = f'"{value}" is not TOP=CxHxW'
            fail(UsageError, "bad-input-shape", text, help=("for example data=3x32x32",))
        found[name] = tuple(int(part) for part in parts)
    return found
