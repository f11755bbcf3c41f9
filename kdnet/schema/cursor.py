"""A walk over the tokens of a file: what the reader's rules are written in."""

from __future__ import annotations

from typing import Any

from kdnet.errors import LIMIT, Diagnostic
from kdnet.schema.habits import foreign_text
from kdnet.schema.lexer import (
    END,
    NAME,
    OPEN_STRING,
    STRING,
    SYMBOL,
    VALUES,
    Token,
    shown,
    tokenize,
)
from kdnet.schema.source import Document

# Nobody reads more faults than are shown, and a file with this many is no prototxt.
_ENOUGH = 10 * LIMIT


class SyntaxFaultError(Exception):
    """The text at hand is no field; it has been recorded, and reading goes on at the next one."""


class TooManyFaultsError(Exception):
    """Reading on would only repeat itself."""


class Cursor:
    """The tokens of a document, the next of them, and the faults found so far."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.tokens = tokenize(document.text)
        self.at = 0
        self.faults: list[Diagnostic] = []
        # Whether the field that was named last may have several values.
        self.several = False

    @property
    def next(self) -> Token:
        """The token that is to be read."""
        return self.tokens[self.at]

    @property
    def passed(self) -> Token:
        """The token that was read last."""
        return self.tokens[self.at - 1]

    # Faults ----------------------------------------------------------------------------------

    def fault(self, code: str, message: str, start: int, end: int, **more: Any) -> None:
        """Record a fault of ``text[start:end]``."""
        self.faults.append(Diagnostic(code, message, self.document.span(start, end), **more))
        if len(self.faults) >= _ENOUGH:
            raise TooManyFaultsError

    def token_fault(self, token: Token, code: str, message: str, **more: Any) -> None:
        """Record a fault of a whole token."""
        self.fault(code, message, token.start, token.end, **more)

    def expected(self, what: str) -> SyntaxFaultError:
        """Record that something else stands where ``what`` must; the exception is returned.

        What is missing at the end of a line is shown there, not at the next line.
        """
        before, token = self.passed, self.next
        if token.kind == OPEN_STRING or self.document.same_line(before.start, token.start):
            return self.unexpected(what)
        end = before.end
        self.fault("syntax-error", f"expected {what}, found the end of the line", end, end)
        return SyntaxFaultError()

    def unexpected(self, what: str) -> SyntaxFaultError:
        """Record that the next token is not ``what`` it must be; the exception is returned."""
        token = self.next
        if token.kind == OPEN_STRING:
            self.token_fault(token, "unterminated-string", "the string is not closed on its line")
            self.at += 1
        else:
            hints = foreign_text(token, self.passed, self.document.text, several=self.several)
            text = f"expected {what}, found {shown(token)}"
            self.token_fault(token, "syntax-error", text, help=hints)
        return SyntaxFaultError()

    # Steps -----------------------------------------------------------------------------------

    def symbol(self, text: str) -> bool:
        """Step over the symbol ``text`` if it is next."""
        token = self.tokens[self.at]
        if token.kind == SYMBOL and token.text == text:
            self.at += 1
            return True
        return False

    def separator(self) -> None:
        """Step over the comma or semicolon that may follow a field."""
        token = self.tokens[self.at]
        if token.kind == SYMBOL and token.text in ",;":
            self.at += 1

    def value(self, what: str) -> Token:
        """Step over a word, a number or a string; ``what`` says what it was to be.

        A name with a colon behind it is the next field: then the value is missing.
        """
        token = self.tokens[self.at]
        if token.kind not in VALUES:
            raise self.expected(what)
        self.at += 1
        if token.kind == NAME and self.next.kind == SYMBOL and self.next.text in ":{":
            self.at -= 1
            raise self.expected(what)
        return token

    def skip_value(self) -> None:
        """Step over a value whose type is not known, however deep it is nested."""
        self.symbol(":")
        if self.next.kind == SYMBOL and self.next.text in "{<[":
            self._skip_brackets()
            return
        self.symbol("-")
        token = self.value("a value")
        while token.kind == STRING and self.next.kind == STRING:
            self.at += 1

    def _skip_brackets(self) -> None:
        depth = 0
        while self.next.kind != END:
            depth += _nesting(self.next)
            self.at += 1
            if depth == 0:
                return
        raise self.expected("a closing bracket")

    def resync(self, start: Token) -> None:
        """Step to the next field of the message at hand, or to its end, after a fault.

        A name that begins a later line than the fault, outside any bracket opened since, is
        taken for the next field. ``start`` is where the faulty field began.
        """
        depth = 0
        if self.next == start:
            self.at += 1
        while (token := self.next).kind != END:
            if depth == 0 and self._resumes(token):
                return
            depth = max(depth + _nesting(token), 0)
            self.at += 1

    def _resumes(self, token: Token) -> bool:
        if token.kind == NAME:
            return not self.document.same_line(self.passed.start, token.start)
        return token.kind == SYMBOL and token.text in "}>"


def _nesting(token: Token) -> int:
    if token.kind != SYMBOL:
        return 0
    return (token.text in "{<[") - (token.text in "}>]")
