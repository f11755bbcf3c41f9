"""Where each field of a message was written: a tree of places beside the message."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from kdnet.errors import Span

Path = tuple[str | int, ...]
M_co = TypeVar("M_co", bound=Message, covariant=True)


class Document:
    """A text file as shown in diagnostics: turns character offsets into spans."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self._starts: list[int] | None = None

    def span(self, start: int, end: int) -> Span:
        """The span of ``text[start:end]``; its source line is the line of ``start``."""
        line = bisect_right(self._line_starts(), start)
        begin = self._line_starts()[line - 1]
        finish = self.text.find("\n", begin)
        source = self.text[begin : len(self.text) if finish < 0 else finish]
        return Span(
            self.file, line, start - begin + 1, max(1, end - start), source.removesuffix("\r")
        )

    def same_line(self, first: int, second: int) -> bool:
        """Whether two offsets lie on one line; ``first`` must not be after ``second``."""
        return self.text.find("\n", first, second) < 0

    def _line_starts(self) -> list[int]:
        if self._starts is None:
            self._starts = [0]
            at = self.text.find("\n")
            while at >= 0:
                self._starts.append(at + 1)
                at = self.text.find("\n", at + 1)
        return self._starts


_Place = tuple[Document, int, int]


class SourceMap:
    """The places of a message and of everything in it.

    One node per field: a message's children are its field names, a repeated field's are the
    numbers of its elements. A node is shared freely between maps, so what edits a message
    builds a new map from the old one's parts (:meth:`child`, :meth:`with_child`) and the places
    follow the fields.
    """

    __slots__ = ("_place", "children")

    def __init__(
        self,
        place: Span | _Place | None = None,
        children: dict[str | int, SourceMap] | None = None,
    ) -> None:
        self._place = place
        self.children: dict[str | int, SourceMap] = {} if children is None else children

    @staticmethod
    def empty() -> SourceMap:
        """The map of a message that was built in code: it has no places."""
        return SourceMap()

    @property
    def place(self) -> Span | None:
        """The place of this very node, if it was written in a file."""
        if isinstance(self._place, tuple):
            document, start, end = self._place
            self._place = document.span(start, end)
        return self._place

    def span(self, path: Path = ()) -> Span | None:
        """The place of the field at ``path``, else of the nearest ancestor that has one.

        A repeated field named without an index is at its first element.
        """
        place, node = self._follow(path)
        first = node.children.get(0) if node is not None else None
        return place if first is None else first.place or place

    def at(self, prefix: Path) -> SourceMap:
        """The map of the sub-message at ``prefix``; spans keep falling back to what holds it."""
        place, node = self._follow(prefix)
        if node is None:
            return SourceMap(place)
        return SourceMap(place, node.children) if node._place is None else node

    def _follow(self, path: Path) -> tuple[Span | None, SourceMap | None]:
        """The nearest place on the way to ``path``, and the node there if it is recorded."""
        place, node = self.place, self
        for key in path:
            child = node.children.get(key)
            if child is None:
                return place, None
            node = child
            place = node.place or place
        return place, node

    def child(self, *path: str | int) -> SourceMap | None:
        """The node recorded at exactly ``path``, or None."""
        node: SourceMap | None = self
        for key in path:
            node = node.children.get(key) if node is not None else None
        return node

    def with_child(self, path: Path, node: SourceMap | None) -> SourceMap:
        """A map like this one with ``node`` at ``path``; None removes what is recorded there."""
        if not path:
            return node or SourceMap()
        key, rest = path[0], path[1:]
        children = dict(self.children)
        if node is None and not rest:
            children.pop(key, None)
        else:
            children[key] = children.get(key, _NOTHING).with_child(rest, node)
        return SourceMap(self._place, children)

    @staticmethod
    def sequence(nodes: list[SourceMap]) -> SourceMap:
        """The map of a repeated field with these elements."""
        return SourceMap(None, dict(enumerate(nodes)))


_NOTHING = SourceMap()


@dataclass(frozen=True)
class Located(Generic[M_co]):
    """A message and where each of its fields was written."""

    message: M_co
    source: SourceMap
