"""The checks by their code: each module of ``rules`` registers one or more."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from kdnet.compile.probe import Probe
from kdnet.errors import Diagnostic, Note, Span
from kdnet.runtime.checks.sample import Sample


@dataclass(frozen=True)
class Subject:
    """What a check looks at; ``sample`` is None where no data was looked at."""

    probe: Probe
    sample: Sample | None


Rule = Callable[[Subject], Iterable[Diagnostic]]

_RULES: dict[str, Rule] = {}


def rule(code: str) -> Callable[[Rule], Rule]:
    """Register what finds the faults of one code."""

    def register(function: Rule) -> Rule:
        if code in _RULES:
            raise ValueError(f"two checks of code {code}")
        _RULES[code] = function
        return function

    return register


@cache
def rules() -> Mapping[str, Rule]:
    """Every check, by code."""
    package = importlib.import_module("kdnet.runtime.checks.rules")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_RULES.items()))


def check_codes() -> tuple[str, ...]:
    """The code of every check, sorted."""
    return tuple(rules())


def warning(
    code: str, text: str, span: Span | None, *help: str, notes: tuple[Note, ...] = ()
) -> Diagnostic:
    """A finding."""
    return Diagnostic(code, text, span, notes, help, severity="warning")
