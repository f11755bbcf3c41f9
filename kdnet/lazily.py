"""Imports that wait until something of theirs is used, so that commands start quickly.

A package that offers the names of its modules states them as any other, but for type checkers
only; Python imports a name's module when the name is asked for::

    if TYPE_CHECKING:
        from kdnet.weights.files import atomic_write
    else:
        __getattr__, __dir__ = offered(__name__)

    __all__ = ["atomic_write"]

Source: PEP 562.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable


def offered(package: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that offers what its source imports.

    A name that the package imports from itself is a module of its own.

    The source is read rather than a table beside it, so that no name is written once more.
    """
    places = _imported_names(package)

    def find(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        module, original = places[name]
        if module == package:
            return importlib.import_module(f"{package}.{original}")
        found: object = getattr(importlib.import_module(module), original)
        # From now on the name is found without coming here.
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places})

    return find, names


def _imported_names(package: str) -> dict[str, tuple[str, str]]:
    """The module, and the name there, of each name in a ``from ... import`` of the source."""
    spec = importlib.util.find_spec(package)
    source = spec.loader.get_source(package)  # type: ignore[union-attr]  # it is being imported
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


class LazyModule:
    """Stands for a module, which is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        return getattr(importlib.import_module(self._name), attribute)
