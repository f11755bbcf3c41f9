"""Rules that rename layers: pairs, substitutions and templates, on nets and on weight files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from kdnet.errors import Diagnostic, Faults, Span, UsageError, WeightsError, did_you_mean, fail

NAME_FIELD = "{name}"
# Characters that begin no layer name's second letter, so that "s_1=a" stays a pair.
_DELIMITERS = tuple("/|#,:;!@%~")


@dataclass(frozen=True)
class Pair:
    """Rename layer ``old`` to ``new``; ``span`` is the place in a file that says so."""

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

    What the substitutions leave then goes into the template, e.g. ``teacher/{name}``. With
    ``strict`` off, a rule that matches nothing is no fault: the rules were made for a whole net,
    of which a weight file has only the layers with weights.
    """

    pairs: tuple[Pair, ...] = ()
    substitutions: tuple[Substitution, ...] = ()
    template: str = NAME_FIELD
    strict: bool = True

    def rename(self, name: str) -> str:
        """The new name of one layer."""
        for pair in self.pairs:
            if pair.old == name:
                return pair.new
        for substitution in self.substitutions:
            name = substitution.apply(name)
        return self.template.replace(NAME_FIELD, name)

    def resolve(self, names: Sequence[str]) -> dict[str, str]:
        """The new name of each layer name, changed or not.

        Raises:
            WeightsError: ``unmatched-mapping`` for a pair or a substitution that matches no
                layer, ``rename-collision`` for two layers that would get one name.
        """
        faults = Faults(WeightsError)
        if self.strict:
            for fault in self.unmatched(names):
                faults.add(fault)
        renamed = {name: self.rename(name) for name in names}
        for fault in _collisions(renamed):
            faults.add(fault)
        faults.raise_if_any()
        return renamed

    def unmatched(self, names: Sequence[str], holder: str = "the file") -> list[Diagnostic]:
        """A fault for each pair and each substitution that matches none of ``names``."""
        code, faults = "unmatched-mapping", []
        for pair in self.pairs:
            if pair.old not in names:
                message = f'{holder} has no layer "{pair.old}"'
                hint = did_you_mean(pair.old, names)
                faults.append(Diagnostic(code, message, pair.span, help=hint))
        for substitution in self.substitutions:
            if not any(substitution.pattern.search(name) for name in names):
                message = f'{holder} has no layer that "{substitution.text}" matches'
                faults.append(Diagnostic(code, message))
        return faults


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
    if template and NAME_FIELD not in template:
        _bad(f'template "{template}" does not contain {NAME_FIELD}')
    if not (kept or rules or template):
        _bad("nothing is to be renamed: give --map, --map-file, --regex or --template")
    return Mapping(tuple(kept.values()), rules, template or NAME_FIELD)


def parse_rules(rules: Sequence[str]) -> Mapping:
    """The mapping of a list in which each rule shows by its form what it is.

    ``s/a/b/`` is a substitution, ``teacher/{name}`` a template (one at most), ``old=new`` a pair.

    Raises:
        UsageError: ``bad-mapping``.
    """
    pairs, substitutions, templates = [], [], []
    for rule in rules:
        if rule[:1] == "s" and rule[1:2] in _DELIMITERS:
            substitutions.append(parse_substitution(rule))
        elif NAME_FIELD in rule:
            templates.append(rule)
        elif "=" in rule:
            pairs.append(parse_pair(rule))
        else:
            _bad(f'"{rule}" is no template with {NAME_FIELD}, no s/a/b/ and no old=new')
    if len(templates) > 1:
        _bad(f'"{templates[1]}" is a second template')
    return make_mapping(pairs, substitutions, templates[0] if templates else NAME_FIELD)


def _bad(message: str) -> NoReturn:
    fail(UsageError, "bad-mapping", message)
