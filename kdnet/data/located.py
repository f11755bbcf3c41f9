"""Puts a layer's name and a prototxt position on the faults of files that know neither."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from kdnet.data.paths import find, suggest
from kdnet.errors import DataError, Diagnostic, Note, Span, fail
from kdnet.net import LayerModel


def span_of(layer: LayerModel, *at: str | int) -> Span | None:
    """Where the field ``at`` of a layer stands, or else the layer."""
    return layer.source.span(at) or layer.position


def refuse(
    layer: LayerModel, code: str, message: str, *at: str | int, help: tuple[str, ...] = ()
) -> NoReturn:
    """Raise a DataError of ``layer`` at its field ``at``."""
    text = f'layer "{layer.name}": {message}'
    fail(DataError, code, text, span=span_of(layer, *at), help=help)


def remark(layer: LayerModel, code: str, message: str, *at: str | int) -> Diagnostic:
    """A warning of ``layer`` at its field ``at``."""
    text = f'layer "{layer.name}": {message}'
    return Diagnostic(code, text, span_of(layer, *at), severity="warning")


@contextmanager
def blamed_on(layer: LayerModel, *at: str | int) -> Iterator[None]:
    """Give faults the layer's name and the position of its field ``at``.

    A fault that has a position of its own, in a list that the field names, keeps it.
    """
    span = span_of(layer, *at)
    try:
        yield
    except DataError as error:
        raise DataError(
            *(_blamed(found, layer.name, span) for found in error.diagnostics)
        ) from None


def _blamed(found: Diagnostic, name: str, span: Span | None) -> Diagnostic:
    if found.span is None:
        return replace(found, message=f'layer "{name}": {found.message}', span=span)
    note = Note(f'layer "{name}" reads it', span)
    return replace(found, notes=(*found.notes, note))


def existing(layer: LayerModel, path: str, *at: str | int) -> Path:
    """The file or folder that the layer's field ``at`` names.

    Raises:
        DataError: no-data-source when the field is empty, missing-data-source when nothing is
            there; the help names the nearest path that exists.
    """
    if not path:
        refuse(layer, "no-data-source", f"{'.'.join(map(str, at))} is not given", *at)
    span = layer.source.span(at)
    beside = span.file if span else None
    found = find(path, beside)
    if found is None:
        folder = Path(beside).parent if beside else Path()
        also = f' (nor in "{folder}")' if folder != Path() and not Path(path).is_absolute() else ""
        text = f'"{path}" does not exist{also}'
        refuse(layer, "missing-data-source", text, *at, help=suggest(path, beside))
    return found
