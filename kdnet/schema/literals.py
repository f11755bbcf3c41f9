"""What a scalar token means: numbers, words and strings of the text format."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from kdnet.errors import did_you_mean
from kdnet.schema.lexer import NAME, NUMBER, STRING, Token, shown

_HEX = re.compile(r"0[xX][0-9a-fA-F]+")
_OCTAL = re.compile(r"0[0-7]+")
_DECIMAL = re.compile(r"0|[1-9][0-9]*")
_FLOAT = re.compile(r"(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?")
_SPECIAL = {
    "inf": math.inf,
    "inff": math.inf,
    "infinity": math.inf,
    "infinityf": math.inf,
    "nan": math.nan,
    "nanf": math.nan,
}
_BOOLS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
# No number that fits has as many digits; it also keeps the conversion of absurd ones cheap.
_LONGEST_INTEGER = 100

_ESCAPE = re.compile(
    r"""\\(?:
        u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})
      | u([0-9a-fA-F]{4}) | U([0-9a-fA-F]{8})
      | [xX]([0-9a-fA-F]{1,2})
      | ([0-7]{1,3})
      | ([abfnrtv\\?'"])
      | .?
    )""",
    re.VERBOSE | re.DOTALL,
)
_SIMPLE = dict(zip("abfnrtv\\?'\"", b"\a\b\f\n\r\t\v\\?'\"", strict=True))

Parser = Callable[[Token, bool], object]


class BadLiteralError(Exception):
    """A token that cannot be the value of its field.

    ``at`` and ``length`` narrow the fault down to a part of the token.
    """

    def __init__(
        self, code: str, message: str, *help_lines: str, at: int = 0, length: int = 0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = help_lines
        self.at = at
        self.length = length


def _unquote_help(token: Token) -> tuple[str, ...]:
    return ("write it without quotes",) if token.kind == STRING else ()


def _whole(text: str) -> int | None:
    if len(text) > _LONGEST_INTEGER:
        return None
    for pattern, base in ((_DECIMAL, 10), (_HEX, 16), (_OCTAL, 8)):
        if pattern.fullmatch(text):
            return int(text, base)
    return None


def integer_parser(kind: str, low: int, high: int) -> Parser:
    """A parser of whole numbers from ``low`` to ``high``, in base 10, 16 or 8."""

    def parse(token: Token, negative: bool) -> int:  # noqa: FBT001 (the minus sign before the token)
        value = _whole(token.text) if token.kind == NUMBER else None
        if value is not None:
            value = -value if negative else value
            if low <= value <= high:
                return value
        elif token.kind != NUMBER or not token.text.isdecimal():
            raise BadLiteralError(
                "bad-value", f"wants a whole number, not {shown(token)}", *_unquote_help(token)
            )
        elif token.text[0] == "0":
            raise BadLiteralError(
                "bad-value",
                f'wants a whole number, not "{token.text}": a leading 0 means octal',
            )
        raise BadLiteralError("number-out-of-range", f"must lie in {low} to {high} ({kind})")

    return parse


def float_parser(kind: str) -> Parser:
    """A parser of floating-point numbers that are finite in ``kind`` or are written inf or nan."""

    def parse(token: Token, negative: bool) -> float:  # noqa: FBT001 (the minus sign before the token)
        text = token.text
        if token.kind == NUMBER and _FLOAT.fullmatch(text):
            value = float(text.rstrip("fF"))
            if not _fits(kind, value):
                raise BadLiteralError("number-out-of-range", f"is too large for a {kind}")
        elif token.kind == NAME and text.lower() in _SPECIAL:
            value = _SPECIAL[text.lower()]
        else:
            raise BadLiteralError(
                "bad-value", f"wants a decimal number, not {shown(token)}", *_unquote_help(token)
            )
        return -value if negative else value

    return parse


def _fits(kind: str, value: float) -> bool:
    if kind == "double":
        return math.isfinite(value)
    try:
        struct.pack("<f", value)
    except OverflowError:
        return False
    return math.isfinite(value)


def parse_bool(token: Token, negative: bool) -> bool:  # noqa: FBT001 (the minus sign before the token)
    """true, t, True, 1 and their opposites."""
    if not negative:
        if token.kind == NAME and token.text in _BOOLS:
            return _BOOLS[token.text]
        number = _whole(token.text) if token.kind == NUMBER else None
        if number in (0, 1):
            return bool(number)
    found = f'"-{token.text}"' if negative else shown(token)
    raise BadLiteralError("bad-value", f"wants true or false, not {found}", *_unquote_help(token))


def enum_parser(enum: EnumDescriptor) -> Parser:
    """A parser of an enum's names and numbers."""
    by_name: Mapping[str, int] = {value.name: value.number for value in enum.values}
    numbers = frozenset(by_name.values())

    def parse(token: Token, negative: bool) -> int:  # noqa: FBT001 (the minus sign before the token)
        if token.kind == NAME and not negative and token.text in by_name:
            return by_name[token.text]
        number = _whole(token.text) if token.kind == NUMBER else None
        if number in numbers and not (negative and number):
            return int(number or 0)
        code = "bad-value" if token.kind == STRING else "unknown-enum-value"
        word = token.text.strip("\"'") if token.kind == STRING else token.text
        raise BadLiteralError(code, *_enum_fault(token, word, list(by_name)))

    return parse


def _enum_fault(token: Token, word: str, names: list[str]) -> tuple[str, ...]:
    message = f"wants one of {_listed(names)}, not {shown(token)}"
    if token.kind == STRING and word in names:
        return message, *_unquote_help(token)
    return message, *did_you_mean(word, names)


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:6])}, ... ({len(names)})"


def scalar_parser(field: FieldDescriptor) -> Parser | None:
    """The parser of a field's values; None for messages and strings, which span tokens."""
    whole = {
        FieldDescriptor.TYPE_INT32: ("int32", -(2**31), 2**31 - 1),
        FieldDescriptor.TYPE_INT64: ("int64", -(2**63), 2**63 - 1),
        FieldDescriptor.TYPE_UINT32: ("uint32", 0, 2**32 - 1),
    }
    if field.type in whole:
        return integer_parser(*whole[field.type])
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return float_parser("float")
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return float_parser("double")
    if field.type == FieldDescriptor.TYPE_BOOL:
        return parse_bool
    if field.enum_type is not None:
        return enum_parser(field.enum_type)
    return None


def string_bytes(token: Token) -> bytes:
    """The bytes a string token stands for: its escapes resolved, its letters as UTF-8."""
    body = token.text[1:-1]
    if "\\" not in body:
        return body.encode("utf-8", "surrogatepass")
    parts, at = [], 0
    for match in _ESCAPE.finditer(body):
        parts.append(body[at : match.start()].encode("utf-8", "surrogatepass"))
        parts.append(_escaped(match))
        at = match.end()
    parts.append(body[at:].encode("utf-8", "surrogatepass"))
    return b"".join(parts)


def _escaped(match: re.Match[str]) -> bytes:
    high, low, short, long, hexadecimal, octal, simple = match.groups()
    if simple is not None:
        return bytes([_SIMPLE[simple]])
    if hexadecimal is not None:
        return bytes([int(hexadecimal, 16)])
    if octal is not None and int(octal, 8) < 256:
        return bytes([int(octal, 8)])
    if high is not None:
        pair = bytes.fromhex(high + low)
        return pair.decode("utf-16-be").encode()
    point = int(short or long or "110000", 16)
    if point <= 0x10FFFF and not 0xD800 <= point < 0xE000:
        return chr(point).encode()
    raise BadLiteralError(
        "bad-escape",
        f'"{match[0]}" is no character',
        r"a backslash itself is written \\",
        at=match.start() + 1,
        length=len(match[0]),
    )
