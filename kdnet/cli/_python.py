"""``--allow-python``: the flag that lets nets run code of their own."""

from __future__ import annotations

import argparse
import os
from contextlib import AbstractContextManager, nullcontext


def add_python(parser: argparse.ArgumentParser) -> None:
    """``--allow-python``."""
    parser.add_argument(
        "--allow-python",
        action="store_true",
        help="run the code that Python layers name; modules lie beside the net, here, or on "
        "PYTHONPATH",
    )


def python_layers(options: argparse.Namespace) -> AbstractContextManager[None]:
    """The block in which the command's nets may hold Python layers, where the flag is given."""
    if not options.allow_python:
        return nullcontext()
    from kdnet.layers.python import allowed_python

    return allowed_python(os.getcwd())
