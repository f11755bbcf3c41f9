"""Which layer of a weight file becomes which: what ``--map`` and its relatives mean."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from kdnet.errors import Diagnostic, Faults, Span, UsageError, WeightsError, did_you_mean, fail

_NAME_FIELD = "{name}"
_PROTOTXT_PAIR = re.compile(r'\s*"?(?P<old>[^":\s]+)"?\s*:\s*"(?P<new>[^"]+)"\s*')


@dataclass(frozen=True)
class Pair:
    """Rename layer ``old`` to ``new``; ``span`` is the place in a map file that says so."""

    old: str
    new: str
    span: Span | None = None


@dataclass(frozen=True)
class Substitution:
    """A sed-like ``s/pattern/replacement/flags`` on layer names."""

    text: str
    pattern: re.Pattern[str]
    replacement: str
    count: int

    def apply(self, name: str) -> str:
        """The name with the first match replaced, or with all under flag ``g``."""
        return self.pattern.sub(self.replacement, name, count=self.count)


@dataclass(frozen=True)
class Mapping:
    """Renames of layers: a pair settles its layer; the others pass the substitutions, in order.

    What the substitutions leave then goes into the template, e.g. ``teacher/{name}``.
    """

    pairs: tuple[Pair, ...] = ()
    substitutions: tuple[Substitution, ...] = ()
    template: str = _NAME_FIELD

    def resolve(self, names: Sequence[str]) -> dict[str, str]:
        """The new name of each layer name, changed or not.

        Raises:
            WeightsError: ``unmatched-mapping`` for a pair or a substitution that matches no
                layer, ``rename-collision`` for two layers that would get one name.
        """
        faults = Faults(WeightsError)
        explicit = {pair.old: pair.new for pair in self.pairs}
        for pair in self.pairs:
            if pair.old not in names:
                faults.add(_unmatched(f'no layer "{pair.old}"', pair, names))
        for substitution in self.substitutions:
            if not any(substitution.pattern.search(name) for name in names):
                message = f'no layer that "{substitution.text}" matches'
                faults.add(Diagnostic("unmatched-mapping", f"the file has {message}"))
        renamed = {name: explicit.get(name) or self._rewrite(name) for name in names}
        for fault in _collisions(renamed):
            faults.add(fault)
        faults.raise_if_any()
        return renamed

    def _rewrite(self, name: str) -> str:
        new = name
        for substitution in self.substitutions:
            new = substitution.apply(new)
        return self.template.replace(_NAME_FIELD, new)


def _unmatched(message: str, pair: Pair, names: Sequence[str]) -> Diagnostic:
    return Diagnostic(
        "unmatched-mapping",
        f"the file has {message}",
        pair.span,
        help=did_you_mean(pair.old, names),
    )


def _collisions(renamed: dict[str, str]) -> list[Diagnostic]:
    counts = Counter(renamed.values())
    faults = []
    for new, count in counts.items():
        if count > 1:
            olds = " and ".join(f'"{old}"' for old, name in renamed.items() if name == new)
            message = f'layers {olds} would both be called "{new}"'
            faults.append(Diagnostic("rename-collision", message))
        if not new:
            olds = " and ".join(f'"{old}"' for old, name in renamed.items() if not name)
            faults.append(Diagnostic("rename-collision", f"layer {olds} would have no name"))
    return faults


def parse_pair(text: str) -> Pair:
    """The pair of an ``OLD=NEW`` option.

    Raises:
        UsageError: ``bad-mapping``.
    """
    old, _, new = text.partition("=")
    if not old or not new:
        _bad(f'"{text}" is not OLD=NEW')
    return Pair(old, new)


def parse_substitution(text: str) -> Substitution:
    r"""The substitution that ``s/pattern/replacement/flags`` means, with any delimiter for ``/``.

    Pattern and replacement are those of Python's ``re.sub``; ``\/`` stands for the delimiter.
    Flags: ``g`` replaces every match, ``i`` ignores case.

    Raises:
        UsageError: ``bad-mapping``.
    """
    delimiter = text[1:2]
    if text[:1] != "s" or not delimiter or delimiter.isalnum() or delimiter == "\\":
        _bad(f'"{text}" is not of the form s/pattern/replacement/')
    parts = re.split(rf"(?<!\\){re.escape(delimiter)}", text[2:])
    if len(parts) != 3 or set(parts[2]) - set("gi"):
        _bad(f'"{text}" is not of the form s/pattern/replacement/ with flags g and i')
    pattern, replacement, flags = parts[0], parts[1], parts[2]
    escaped = "\\" + delimiter
    try:
        compiled = re.compile(
            pattern.replace(escaped, delimiter), re.IGNORECASE if "i" in flags else 0
        )
        found = Substitution(
            text, compiled, replacement.replace(escaped, delimiter), 0 if "g" in flags else 1
        )
        found.apply("")
    except (re.error, IndexError) as error:
        _bad(f'"{text}": {error}')
    return found


def make_mapping(
    pairs: Iterable[Pair], substitutions: Iterable[Substitution] = (), template: str = ""
) -> Mapping:
    """A mapping of at least one rule, in which no layer is renamed twice.

    Raises:
        UsageError: ``bad-mapping``.
    """
    kept: dict[str, Pair] = {}
    for pair in pairs:
        if kept.setdefault(pair.old, pair).new != pair.new:
            _bad(f'layer "{pair.old}" is mapped to "{kept[pair.old].new}" and to "{pair.new}"')
    rules = tuple(substitutions)
    if template and _NAME_FIELD not in template:
        _bad(f'template "{template}" does not contain {_NAME_FIELD}')
    if not (kept or rules or template):
        _bad("nothing is to be renamed: give --map, --map-file, --regex or --template")
    return Mapping(tuple(kept.values()), rules, template or _NAME_FIELD)


def _bad(message: str) -> NoReturn:
    fail(UsageError, "bad-mapping", message)


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
