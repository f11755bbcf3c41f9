"""The located reader of the protobuf text format.

Driven by the message's descriptor, it reads what protobuf reads, and differs in two ways: it
remembers where every field was written, and it goes on after a fault, so that one run shows all
faults of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from google.protobuf.message import Message

from kdnet.errors import Diagnostic, Note, SchemaError
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.cursor import Cursor, SyntaxFaultError, TooManyFaultsError
from kdnet.schema.fields import Field, fields_of, is_bytes
from kdnet.schema.fork_names import unknown_field
from kdnet.schema.habits import old_field, old_type
from kdnet.schema.lexer import END, NAME, STRING, SYMBOL, VALUES, Token, shown
from kdnet.schema.literals import BadLiteralError, Parser, string_bytes
from kdnet.schema.source import Document, Located, SourceMap

M = TypeVar("M", bound=Message)

_CLOSER = {"{": "}", "<": ">"}
_LAYER_FIELDS = frozenset(pb.LayerParameter.DESCRIPTOR.fields_by_name)


def read_text(text: str, file: str, message_type: type[M]) -> Located[M]:
    """Read a message and the place of each of its fields.

    A scalar field's place is its value, a message field's is its name.

    Args:
        text: the content of the file; a leading byte order mark is skipped.
        file: the name of the file as diagnostics show it.
        message_type: the generated class of the message.

    Raises:
        SchemaError: with every fault that was found.
    """
    reader = _Reader(Cursor(Document(text.removeprefix("\ufeff"), file)))
    message = message_type()
    source = reader.read(message)
    if faults := reader.cursor.faults:
        raise SchemaError(*sorted(faults, key=_position))
    return Located(message, source)


def _position(fault: Diagnostic) -> tuple[int, int]:
    return (fault.span.line, fault.span.column) if fault.span else (0, 0)


class _Scope:
    """A message being read: the message, its map, and where it was opened.

    ``name`` is the token that stands for it in diagnostics.
    """

    __slots__ = ("close", "fields", "message", "name", "node", "opened", "type")

    def __init__(
        self, message: Message, node: SourceMap, name: Token, opened: Token | None = None
    ) -> None:
        self.message = message
        self.node = node
        self.name = name
        self.opened = opened
        self.close = _CLOSER[opened.text] if opened else ""
        self.fields = fields_of(message.DESCRIPTOR)
        self.type: str = message.DESCRIPTOR.name

    def record(self, field: Field, child: SourceMap) -> None:
        """Put the place of one value of ``field`` into the map."""
        if not field.repeated:
            self.node.children[field.name] = child
            return
        sequence = self.node.children.get(field.name)
        if sequence is None:
            sequence = self.node.children[field.name] = SourceMap()
        sequence.children[len(sequence.children)] = child


class _Reader:
    """The grammar: one method for each of its rules."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.document = cursor.document
        self.scopes: list[_Scope] = []
        # Brackets that are opened and never closed. While there are any, a field that only an
        # enclosing message has shows where the bracket is missing.
        self.unclosed = sum(
            (token.text in _CLOSER) - (token.text in "}>")
            for token in cursor.tokens
            if token.kind == SYMBOL
        )

    def read(self, message: Message) -> SourceMap:
        """Read the whole file into ``message``."""
        node = SourceMap((self.document, 0, 0))
        with suppress(TooManyFaultsError):
            self.fields(_Scope(message, node, self.cursor.next))
        return node

    # Messages --------------------------------------------------------------------------------

    def fields(self, scope: _Scope) -> None:
        """Read fields up to what closes the message."""
        self.scopes.append(scope)
        closed = False
        while not closed:
            token = self.cursor.next
            try:
                closed = self.field_or_end(scope, token)
            except SyntaxFaultError:
                self.cursor.resync(token)
        self.scopes.pop()
        for field in scope.fields.values():
            if field.required and field.name not in scope.node.children:
                message = f'{scope.type} must have a field "{field.name}"'
                self.cursor.token_fault(scope.name, "missing-field", message)

    def field_or_end(self, scope: _Scope, token: Token) -> bool:
        """Read one field, or what ends the message: then True."""
        if token.kind == NAME:
            field = scope.fields.get(token.text)
            if field is None:
                return self.unknown(scope, token)
            self.cursor.at += 1
            self.field(scope, field, token)
            return False
        if token.kind == END:
            return self.end_of_file(scope)
        if token.text in ("}", ">"):
            return self.closing(scope, token)
        if token.kind == SYMBOL and token.text == "[":
            self.extension(scope, token)
            return False
        raise self.cursor.unexpected("the name of a field")

    def end_of_file(self, scope: _Scope) -> bool:
        """The end of the file ends every message; only the innermost is reported."""
        if scope.opened and self.unclosed > 0:
            message = f'"{scope.name.text}" is not closed before the end of the file'
            self.cursor.token_fault(scope.name, "unterminated-message", message)
            self.unclosed = 0
        return True

    def closing(self, scope: _Scope, token: Token) -> bool:
        """A bracket ends the message, unless none is open."""
        self.cursor.at += 1
        if scope.opened is None:
            message = f'no message is open that "{token.text}" could end'
            self.cursor.token_fault(token, "syntax-error", message)
            return False
        if token.text != scope.close:
            note = Note("opened here", self.document.span(scope.opened.start, scope.opened.end))
            message = f'expected "{scope.close}", found "{token.text}"'
            self.cursor.token_fault(token, "syntax-error", message, notes=(note,))
        return True

    def unknown(self, scope: _Scope, name: Token) -> bool:
        """Record a field that the message does not have; True when the message must have ended.

        Its value is stepped over.
        """
        missing = f'{scope.type} has no field "{name.text}"'
        if self.unclosed > 0 and any(name.text in outer.fields for outer in self.scopes):
            self.unclosed -= 1
            message = f'"{scope.name.text}" is not closed before "{name.text}"'
            notes = (Note(missing, self.document.span(name.start, name.end)),)
            self.cursor.token_fault(scope.name, "unterminated-message", message, notes=notes)
            return True
        self.cursor.at += 1
        self.cursor.token_fault(name, "unknown-field", missing, help=self.field_hints(scope, name))
        self.cursor.skip_value()
        self.cursor.separator()
        return False

    def field_hints(self, scope: _Scope, name: Token) -> tuple[str, ...]:
        """What an unknown field may have been meant to be."""
        for outer in reversed(self.scopes):
            if name.text in outer.fields:
                return (f'"{name.text}" belongs to {outer.type}, outside "{scope.name.text}"',)
        hints = old_field(scope.type, name.text, _LAYER_FIELDS)
        hints = hints or unknown_field(scope.type, name.text, list(scope.fields))
        if not hints and len(scope.fields) <= 8:
            return (f"fields of {scope.type}: {', '.join(scope.fields)}",)
        return hints

    def extension(self, scope: _Scope, token: Token) -> None:
        """Record ``[some.extension]``, which no message of the language has."""
        while not self.cursor.symbol("]"):
            if self.cursor.next.kind == END:
                raise self.cursor.expected('"]"')
            self.cursor.at += 1
        message = f"{scope.type} has no extensions"
        self.cursor.fault("unknown-field", message, token.start, self.cursor.passed.end)
        self.cursor.skip_value()
        self.cursor.separator()

    # Fields ----------------------------------------------------------------------------------

    def field(self, scope: _Scope, field: Field, name: Token) -> None:
        """Read the value or the list of values of one field, its name being read."""
        self.cursor.several = field.repeated
        if not field.repeated and field.name in scope.node.children:
            note = Note("first given here", scope.node.children[field.name].place)
            message = f'{scope.type} has "{field.name}" twice'
            self.cursor.token_fault(name, "duplicate-field", message, notes=(note,))
            scope = _Scope(type(scope.message)(), SourceMap(), scope.name, scope.opened)
        if field.message is not None:
            self.cursor.symbol(":")
            self.values(field, lambda listed: self.one_message(scope, field, listed or name))
        else:
            self.colon(name)
            self.values(field, lambda _: self.one_scalar(scope, field))
        self.cursor.separator()

    def values(self, field: Field, read_one: Callable[[Token | None], None]) -> None:
        """Read one value, or a list of them in square brackets.

        ``read_one`` is given the first token of a listed value, and None for a single one.
        """
        if not (field.repeated and self.cursor.symbol("[")):
            read_one(None)
            return
        if self.cursor.symbol("]"):
            return
        while True:
            read_one(self.cursor.next)
            if self.cursor.symbol("]"):
                return
            if not self.cursor.symbol(","):
                raise self.cursor.expected('"," or "]"')

    def colon(self, name: Token) -> None:
        """Step over the colon; a missing one is recorded, and a value may follow all the same."""
        if not self.cursor.symbol(":"):
            fault = self.cursor.expected(f'":" after "{name.text}"')
            value = self.cursor.next
            if value.kind not in VALUES or not self.document.same_line(name.start, value.start):
                raise fault

    def one_message(self, scope: _Scope, field: Field, place: Token) -> None:
        """Read one message in brackets; ``place`` is the token that its span shows."""
        opened = self.cursor.next
        if opened.kind != SYMBOL or opened.text not in _CLOSER:
            what = f'"{{" after "{field.name}"'
            if opened.kind == NAME:
                raise self.cursor.expected(what)
            token = self.cursor.value(what)
            message = f'"{field.name}" is a message, not {shown(token)}'
            hint = f"write {field.name} {{ ... }}"
            self.cursor.token_fault(token, "bad-value", message, help=(hint,))
            return
        self.cursor.at += 1
        node = SourceMap((self.document, place.start, place.end))
        scope.record(field, node)
        value = getattr(scope.message, field.name)
        value = value.add() if field.repeated else value
        value.SetInParent()
        self.fields(_Scope(value, node, place, opened))

    # Scalars ---------------------------------------------------------------------------------

    def one_scalar(self, scope: _Scope, field: Field) -> None:
        """Read one value; a bad one is recorded and reading goes on behind it."""
        start = self.cursor.next.start
        parse = field.parse
        value = self.string(field) if parse is None else self.word(field, parse)
        scope.record(field, SourceMap((self.document, start, self.cursor.passed.end)))
        if value is None:
            return
        if field.repeated:
            getattr(scope.message, field.name).append(value)
        else:
            setattr(scope.message, field.name, value)

    def word(self, field: Field, parse: Parser) -> object:
        """A number, a bool or an enum's value; None when it is not one."""
        start = self.cursor.next.start
        negative = self.cursor.symbol("-")
        token = self.cursor.value(f'a value of "{field.name}"')
        try:
            return parse(token, negative)
        except BadLiteralError as bad:
            message = f'"{field.name}" {bad.message}'
            hints = bad.help + old_type(self.scopes[-1].type, field.name, token)
            self.cursor.fault(bad.code, message, start, token.end, help=hints)
            return None

    def string(self, field: Field) -> str | bytes | None:
        """A string, joined from neighbouring pieces; None when it is not one."""
        token = self.cursor.value(f'a string for "{field.name}"')
        if token.kind != STRING:
            message = f'"{field.name}" wants a string, not {shown(token)}'
            hints = old_type(self.scopes[-1].type, field.name, token)
            hints = hints or (f'write it in quotes: "{token.text}"',)
            self.cursor.token_fault(token, "bad-value", message, help=hints)
            return None
        value = self.piece(field, token)
        while self.cursor.next.kind == STRING:
            value += self.piece(field, self.cursor.next)
            self.cursor.at += 1
        if is_bytes(field):
            return value
        try:
            return value.decode()
        except UnicodeDecodeError:
            message = f'"{field.name}" wants text, but this is not UTF-8'
            self.cursor.fault("bad-value", message, token.start, self.cursor.passed.end)
            return None

    def piece(self, field: Field, token: Token) -> bytes:
        """The bytes of one string token; a bad escape is recorded."""
        try:
            return string_bytes(token)
        except BadLiteralError as bad:
            start = token.start + bad.at
            message = f'"{field.name}": {bad.message}'
            self.cursor.fault(bad.code, message, start, start + bad.length, help=bad.help)
            return b""
