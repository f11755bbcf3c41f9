"""The values of ``--set NAME=LIST``: listed, or as ranges of exact decimals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from kdnet.errors import Span, UsageError, fail

MOST_VALUES = 1000
# Decimals beyond these powers of ten fit no field, and take long to print.
LARGEST_EXPONENT = 60
EXAMPLE = "for example lambda=0:1:0.1 or temperature=1,4,20"
FILE = "--set"


@dataclass(frozen=True)
class Value:
    """One value as text, and where in the argument it (or its range) stands."""

    text: str
    span: Span


@dataclass(frozen=True)
class Variable:
    """What ``--set`` names and the values that it takes in turn."""

    name: str
    values: tuple[Value, ...]
    span: Span


def read_variable(argument: str) -> Variable:
    """``lambda=0:1:0.5`` as the variable lambda of the values 0, 0.5 and 1.

    Raises:
        UsageError: bad-sweep-values.
    """
    name, equals, listed = argument.partition("=")
    whole = _span(argument, 0, len(argument))
    if not (name.strip() and equals and listed.strip()):
        text = f'"{argument}" is not NAME=VALUES'
        fail(UsageError, "bad-sweep-values", text, span=whole, help=(EXAMPLE,))
    values: dict[Decimal | str, Value] = {}
    start = len(name) + 1
    for part in listed.split(","):
        span = _span(argument, start, start + len(part))
        for text in _values(part.strip(), span):
            _add(values, Value(text, span))
        start += len(part) + 1
    return Variable(name.strip(), tuple(values.values()), _span(argument, 0, len(name)))


def _span(argument: str, start: int, end: int) -> Span:
    return Span(FILE, 1, start + 1, max(1, end - start), argument)


def _add(values: dict[Decimal | str, Value], value: Value) -> None:
    number = decimal_of(value.text)
    key = value.text if number is None else number
    if key in values:
        text = f"{value.text} is given twice"
        fail(UsageError, "bad-sweep-values", text, span=value.span)
    if len(values) == MOST_VALUES:
        text = f"a variable takes at most {MOST_VALUES} values"
        fail(UsageError, "bad-sweep-values", text, span=value.span)
    values[key] = value


def decimal_of(text: str) -> Decimal | None:
    """The text as an exact finite number of a size that is used; None if it is none."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    usable = number.is_finite() and abs(number.adjusted()) <= LARGEST_EXPONENT
    return number if usable else None


def _values(part: str, span: Span) -> Iterator[str]:
    if not part:
        fail(UsageError, "bad-sweep-values", "a value is empty", span=span, help=(EXAMPLE,))
    if ":" not in part:
        yield part
        return
    ends = [decimal_of(text) for text in part.split(":")]
    if len(ends) != 3 or None in ends:
        text = f'"{part}" is not START:STOP:STEP in numbers'
        fail(UsageError, "bad-sweep-values", text, span=span, help=(EXAMPLE,))
    start, stop, step = (end for end in ends if end is not None)
    if not step or (stop - start) / step < 0:
        text = f"from {start} no step of {step} leads to {stop}"
        fail(UsageError, "bad-sweep-values", text, span=span)
    steps = (stop - start) / step
    if steps >= MOST_VALUES:
        text = f'"{part}" has more than {MOST_VALUES} values'
        fail(UsageError, "bad-sweep-values", text, span=span)
    for index in range(int(steps) + 1):
        yield plain(start + index * step)


def plain(number: Decimal) -> str:
    """The shortest text without an exponent: 0.1, 10, 0."""
    text = format(number.normalize(), "f")
    return "0" if not number else text
