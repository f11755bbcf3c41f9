"""Item shapes of data layers as a command line gives them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kdnet.errors import UsageError, fail

# An extent beyond int32 fits no blob.
_DIGITS = re.compile("[0-9]{1,9}")


def input_shapes(values: Iterable[str]) -> dict[str, tuple[int, ...]]:
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
