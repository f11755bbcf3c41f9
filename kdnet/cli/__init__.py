"""The ``kdnet`` command: each sub-command is a module of this package."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from kdnet.commands import CommandParser
from kdnet.errors import KdnetError, render_all
from kdnet.version import __version__

BUG = """error: this is a bug in kdnet, not in your files [internal]
help: please report it with the lines above, the command and the prototxt"""


class _Parser(CommandParser):
    """Usage faults in kdnet's own shape."""

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse says NoReturn
        self.print_usage(sys.stderr)
        self.exit(2, f"error: {message} [usage]\nhelp: {self.prog} --help\n")


def _looks(module: ModuleType) -> dict[str, Any]:
    return {
        "description": module.__doc__,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def build_parser() -> CommandParser:
    """The parser of ``kdnet`` and its commands."""
    parser = _Parser(
        prog="kdnet",
        description="Train small nets from big ones, the Caffe way.",
        epilog="exit codes: 0 ok, 1 your files or data, 2 usage, 3 failed while running, 70 a bug",
    )
    parser.add_argument("--version", action="version", version=f"kdnet {__version__}")
    parser.take_commands(__name__, "run", _looks)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is documented in ``--help``."""
    parser = build_parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        return int(options.run(options))
    except KdnetError as error:
        print(render_all(error.diagnostics), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except MemoryError as error:
        print(f"error: not enough memory: {error} [out-of-memory]", file=sys.stderr)
        return 3
    except BrokenPipeError:
        # Nobody reads any more: a shell would say 128 + SIGPIPE, and so does Caffe.
        devnull = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(devnull, stream.fileno())
        return 141
    except Exception:  # noqa: BLE001, RUF100  # the one place where a bug becomes a report
        import traceback

        traceback.print_exc()
        print(BUG, file=sys.stderr)
        return 70
