"""Located diagnostics: what every stage of kdnet raises and how a person reads it.

A stage collects :class:`Diagnostic` values and raises its own subclass of :class:`KdnetError`
with all of them. The command line renders them and exits with the class's ``exit_code``.

    KdnetError                 exit 1: the user's files or data
    ├── SchemaError            a prototxt or binary message that cannot be read
    ├── NetError               wiring, phases, parameter sharing, join
    ├── LayerError             a layer's parameters or bottoms
    ├── GraphError             an ONNX op without a rule, an unsupported attribute
    ├── WeightsError           weight files and the load audit
    ├── DataError              sources, records, transforms
    ├── UsageError             exit 2: the command line
    └── RunError               exit 3: device, memory, non-finite loss
        └── RunInterruptedError        exit 128 + signal: Ctrl-C, SIGTERM
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NoReturn

LIMIT = 20
_APART = 2
_LINES_SHOWN = 10
_WIDEST = 240


@dataclass(frozen=True)
class Span:
    """A place in a text file; ``line`` and ``column`` count from 1, ``length`` in characters.

    ``text`` is the whole source line, kept so that rendering never reads the file again.
    """

    file: str
    line: int
    column: int
    length: int = 1
    text: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Note:
    """A secondary remark, optionally at a place of its own."""

    message: str
    span: Span | None = None


@dataclass(frozen=True)
class Diagnostic:
    """One fault: a stable ``code`` (kebab-case), a message, where, and what to do about it."""

    code: str
    message: str
    span: Span | None = None
    notes: tuple[Note, ...] = ()
    help: tuple[str, ...] = ()
    severity: str = "error"


class KdnetError(Exception):
    """Faults of one stage, all of them; ``exit_code`` is the command's exit status."""

    exit_code: ClassVar[int] = 1

    def __init__(self, *diagnostics: Diagnostic) -> None:
        self.diagnostics = diagnostics
        super().__init__(*diagnostics)

    def __str__(self) -> str:
        return render_all(self.diagnostics)


class SchemaError(KdnetError):
    """A prototxt or binary message cannot be read."""


class NetError(KdnetError):
    """The net's wiring, phases or shared parameters are wrong."""


class LayerError(KdnetError):
    """A layer refuses its parameters or its bottoms."""


class GraphError(KdnetError):
    """An ONNX op has no gradient rule or an attribute is not supported."""


class WeightsError(KdnetError):
    """A weight file is unreadable or does not fit the net."""


class DataError(KdnetError):
    """A data source, a record or a transform is wrong."""


class UsageError(KdnetError):
    """The command line is wrong."""

    exit_code = 2


class RunError(KdnetError):
    """The run failed: device, memory, a non-finite loss."""

    exit_code = 3


class RunInterruptedError(RunError):
    """A signal ended the run; ``exit_code`` is 128 + its number."""

    def __init__(self, signal_number: int, *diagnostics: Diagnostic) -> None:
        super().__init__(*diagnostics)
        self.signal = signal.Signals(signal_number)
        self.exit_code = 128 + signal_number  # type: ignore[misc]  # differs by signal


class Faults:
    """Collects the diagnostics of a stage, so that all are reported and not only the first."""

    def __init__(self, error: type[KdnetError]) -> None:
        self._error = error
        self._found: list[Diagnostic] = []

    def add(self, diagnostic: Diagnostic) -> None:
        """Record one fault; one already recorded at the same place is not repeated."""
        if diagnostic not in self._found:
            self._found.append(diagnostic)

    def extend(self, error: KdnetError) -> None:
        """Record every fault of a caught error."""
        for diagnostic in error.diagnostics:
            self.add(diagnostic)

    def raise_if_any(self) -> None:
        """Raise the stage's error if anything was recorded."""
        if self._found:
            raise self._error(*self._found)

    def __bool__(self) -> bool:
        return bool(self._found)


def fail(error: type[KdnetError], code: str, message: str, **more: object) -> NoReturn:
    """Raise ``error`` with a single diagnostic; ``more`` are :class:`Diagnostic` fields."""
    raise error(Diagnostic(code, message, **more))  # type: ignore[arg-type]


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name closest to ``word``, or None when nothing is close.

    ``cutoff`` is what is close: the share of letters that agree, 0 to 1.
    """
    by_folded = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_folded, n=1, cutoff=cutoff)
    return by_folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> tuple[str, ...]:
    """Help lines suggesting the :func:`nearest` known name; empty when nothing is close."""
    found = nearest(word, known, cutoff)
    return (f'did you mean "{found}"?',) if found else ()


def render(diagnostic: Diagnostic) -> str:
    """One diagnostic as text: position, message, code, source line with caret, notes, help.

    For example::

        nets/kd.prototxt:41:11: error: bottom "pool6" is not produced [unknown-bottom]
          41 |   bottom: "pool6"
             |           ^~~~~~~
        help: did you mean "pool5"?
    """
    at = f"{diagnostic.span}: " if diagnostic.span else ""
    lines = [f"{at}{diagnostic.severity}: {diagnostic.message} [{diagnostic.code}]"]
    lines += _excerpt(diagnostic.span)
    for note in diagnostic.notes:
        lines.append(
            f"{note.span}: note: {note.message}" if note.span else f"note: {note.message}"
        )
        lines += _excerpt(note.span)
    lines += [f"help: {text}" for text in diagnostic.help]
    return "\n".join(lines)


def render_all(diagnostics: Sequence[Diagnostic]) -> str:
    """All diagnostics, at most :data:`LIMIT` of them, and how many were left out.

    What is said in the same words of the same word in more than two places of a file is said
    once, with the lines of the others.
    """
    found = _folded(diagnostics)
    lines = [render(diagnostic) for diagnostic in found[:LIMIT]]
    hidden = len(found) - LIMIT
    if hidden > 0:
        lines.append(f"note: {hidden} more not shown")
    return "\n".join(lines)


def _folded(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    alike: dict[object, list[Diagnostic]] = {}
    for found in diagnostics:
        alike.setdefault(_words(found), []).append(found)
    folded: list[Diagnostic] = []
    for found in diagnostics:
        group = alike[_words(found)]
        if len(group) <= _APART:
            folded.append(found)
        elif found is group[0]:
            folded.append(_once(group))
    return folded


def _words(found: Diagnostic) -> object:
    """What is equal where a fault is the same in another place."""
    span = found.span
    if span is None or found.notes:
        return id(found)
    marked = span.text[span.column - 1 : span.column - 1 + span.length]
    return span.file, marked, found.severity, found.code, found.message, found.help


def _once(group: Sequence[Diagnostic]) -> Diagnostic:
    """The first of a group that says the same, with the places of the others."""
    others = list(dict.fromkeys(str(found.span.line) for found in group[1:] if found.span))
    shown = ", ".join(others[:_LINES_SHOWN])
    lines = "line" if len(others) == 1 else "lines"
    rest = f" and {len(others) - _LINES_SHOWN} more" if len(others) > _LINES_SHOWN else ""
    return replace(group[0], notes=(Note(f"the same in {lines} {shown}{rest}"),))


def _excerpt(span: Span | None) -> list[str]:
    if span is None or not span.text:
        return []
    number = str(span.line)
    text, at = _window(span.text, span.column - 1)
    width = max(1, min(span.length, len(text) - at))
    # Tabs are kept in the caret line, so that it stays below its word at any tab width.
    lead = "".join("\t" if letter == "\t" else " " for letter in text[:at])
    return [
        f"  {number} | {text}",
        f"  {' ' * len(number)} | {lead}^{'~' * (width - 1)}",
    ]


def _window(line: str, at: int) -> tuple[str, int]:
    """As much of a line as is worth showing around a place, and where the place is in that."""
    if len(line) <= _WIDEST:
        return line, at
    start = max(0, min(at - _WIDEST // 2, len(line) - _WIDEST))
    text = line[start : start + _WIDEST]
    before, behind = "..." if start else "", "..." if start + _WIDEST < len(line) else ""
    return f"{before}{text}{behind}", at - start + len(before)
