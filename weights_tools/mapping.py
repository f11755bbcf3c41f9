"""Which layer of a weight file becomes which, when a file says it: map files."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from kdnet.errors import Diagnostic, Faults, Span, WeightsError, fail
from kdnet.net.rename import Pair

_PROTOTXT_PAIR = re.compile(r'\s*"?(?P<old>[^":\s]+)"?\s*:\s*"(?P<new>[^"]+)"\s*')


def read_map_file(path: str) -> tuple[Pair, ...]:
    r"""The pairs of a map file: a JSON object, or a pair a line.

    A line is ``old,new`` (CSV) or ``old: "new"``; ``#`` begins a comment line.

    Raises:
        WeightsError: ``bad-map-file``, located; ``unreadable-map-file``.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        fail(WeightsError, "unreadable-map-file", f'map file "{path}" is not UTF-8 text')
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        fail(WeightsError, "unreadable-map-file", f'cannot read map file "{path}": {reason}')
    if text.lstrip().startswith("{"):
        return _read_json(path, text)
    faults = Faults(WeightsError)
    pairs = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        span = Span(path, number, 1, len(line), line)
        pair = _read_line(line, span)
        if pair:
            pairs.append(pair)
        else:
            faults.add(
                Diagnostic("bad-map-file", 'a line is neither old,new nor old: "new"', span)
            )
    faults.raise_if_any()
    return tuple(pairs)


def _read_line(line: str, span: Span) -> Pair | None:
    found = _PROTOTXT_PAIR.fullmatch(line)
    if found:
        return Pair(found["old"], found["new"], span)
    try:
        cells = [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
    except csv.Error:
        return None
    return Pair(cells[0], cells[1], span) if len(cells) == 2 and all(cells) else None


def _read_json(path: str, text: str) -> tuple[Pair, ...]:
    lines = text.splitlines()
    try:
        items = json.loads(text, object_pairs_hook=list)
    except json.JSONDecodeError as error:
        span = Span(path, error.lineno, error.colno, 1, (lines or [""])[error.lineno - 1])
        fail(WeightsError, "bad-map-file", f"JSON: {error.msg}", span=span)
    except RecursionError:
        fail(WeightsError, "bad-map-file", f'map file "{path}" is nested too deeply')
    if not all(isinstance(new, str) and old and new for old, new in items):
        fail(
            WeightsError,
            "bad-map-file",
            f'map file "{path}" must be one JSON object of names, {{"old": "new"}}',
        )
    return tuple(Pair(old, new) for old, new in items)
