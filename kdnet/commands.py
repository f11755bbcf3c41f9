"""Command lines whose commands are the modules of a package, imported when they are asked for.

A command's module has HELP, a line; ``add_arguments``, which gets the command's parser; and
``run``, which gets what was parsed. The module's name is the command's: ``strip_teacher`` is
called ``strip-teacher``.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple


def command_modules(package: str) -> dict[str, str]:
    """The full names of a package's command modules, by command and sorted; none is imported."""
    folders = importlib.import_module(package).__path__
    found = sorted(info.name for info in pkgutil.iter_modules(folders))
    public = (name for name in found if not name.startswith("_"))
    return {name.replace("_", "-"): f"{package}.{name}" for name in public}


class _Commands(NamedTuple):
    """The commands of a parser: their modules' names, and how each becomes a parser."""

    modules: Mapping[str, str]
    choices: argparse._SubParsersAction[Any]
    run_key: str
    looks: Callable[[ModuleType], Mapping[str, Any]]

    def add(self, name: str) -> None:
        module = importlib.import_module(self.modules[name])
        child = self.choices.add_parser(name, help=module.HELP, **self.looks(module))
        module.add_arguments(child)
        child.set_defaults(**{self.run_key: module.run})


class CommandParser(argparse.ArgumentParser):
    """A parser with commands, of which it imports the one that the words to parse begin with.

    Where they begin with none, as for ``--help``, it imports all. The parser of a command is of
    the same class, so that it may have commands of its own.
    """

    _commands: _Commands | None = None

    def take_commands(
        self,
        package: str,
        run_key: str,
        looks: Callable[[ModuleType], Mapping[str, Any]] = lambda _: {},
    ) -> None:
        """Take the modules of a package as commands.

        Args:
            package: its full name.
            run_key: the attribute of what is parsed that gets the command's ``run``.
            looks: more arguments of a command's parser, such as its description.
        """
        choices = self.add_subparsers(metavar="COMMAND", required=True)
        self._commands = _Commands(command_modules(package), choices, run_key, looks)

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """As of any parser, once the commands that may be meant are there."""
        words = list(sys.argv[1:] if args is None else args)
        if self._commands is not None:
            modules = self._commands.modules
            meant = words[:1] if words and words[0] in modules else modules
            for name in meant:
                if name not in self._commands.choices.choices:
                    self._commands.add(name)
        return super().parse_known_args(words, namespace)
