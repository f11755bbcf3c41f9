"""Make the databases, mean images and answers that nets read, and fetch image collections."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from types import ModuleType

NAME = "data"
HELP = "make databases, mean images and soft labels, fetch image collections"


def _modules() -> dict[str, ModuleType]:
    """Every sub-command by its name: a module with NAME, HELP, add_arguments and run."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        if not info.name.startswith("_"):
            module = importlib.import_module(f"{__name__}.{info.name}")
            found[module.NAME] = module
    return dict(sorted(found.items()))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in _modules().items():
        child = commands.add_parser(
            name,
            aliases=getattr(module, "ALIASES", ()),
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(child)
        child.set_defaults(work=module.run)


def run(options: argparse.Namespace) -> int:
    """Run the sub-command; what was made goes to stdout."""
    options.work(options)
    return 0
