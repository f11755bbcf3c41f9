"""Tokens of the protobuf text format."""

from __future__ import annotations

import re
from typing import NamedTuple

NAME, NUMBER, STRING, SYMBOL, OPEN_STRING, BAD, END = range(1, 8)
VALUES = frozenset({NAME, NUMBER, STRING})

# Everything that starts like a number is one token up to its end, so that a fault such as
# "12abc" is shown whole; what it means, and whether it means anything, is decided later.
_TOKEN = re.compile(
    r"""
    \#[^\n]*
  | ([A-Za-z_][A-Za-z0-9_]*)
  | (\.?[0-9](?:[eE][+-](?=[0-9])|[0-9A-Za-z_.])*)
  | ("[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*')
  | ([][{}<>:,;./-])
  | (["'][^\n]*)
  | ([^ \t\r\n\f\v])
    """,
    re.VERBOSE,
)


class Token(NamedTuple):
    """One token: its kind, its text as written, and the offset of its first character."""

    kind: int
    text: str
    start: int

    @property
    def end(self) -> int:
        """Offset just after the last character."""
        return self.start + len(self.text)


def shown(token: Token) -> str:
    """A token as messages show it, cut when long."""
    text = token.text if len(token.text) <= 40 else token.text[:37] + "..."
    if token.kind == STRING:
        return f"the string {text}"
    if token.kind == END:
        return "the end of the file"
    if not text.isprintable():
        return f"the character U+{ord(text):04X}"
    return f'"{text}"'


def tokenize(text: str) -> list[Token]:
    """All tokens of ``text`` without spaces and comments, closed by one END token.

    The END token lies just after the last token, where something is missing if anything is.
    """
    tokens = [
        Token(kind, match[kind], match.start())
        for match in _TOKEN.finditer(text)
        if (kind := match.lastindex)
    ]
    tokens.append(Token(END, "", tokens[-1].end if tokens else 0))
    return tokens
