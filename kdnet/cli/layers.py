"""List the layer types, or document one: formula, shapes, parameters, differences from Caffe."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "layers"
HELP = "list the layer types, or document one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("type", nargs="?", metavar="TYPE", help="a layer type")
    parser.add_argument("--markdown", action="store_true", help="print the whole catalogue")
    parser.add_argument(
        "--readme",
        metavar="FILE",
        help="print FILE with the types between its <!-- layers --> marks",
    )


def run(options: argparse.Namespace) -> int:
    """Print to stdout."""
    from kdnet.layers import layer_types
    from kdnet.layers.describe import catalogue, describe, summary, with_names

    if options.markdown:
        print(catalogue(), end="")
    elif options.readme:
        print(with_names(Path(options.readme).read_text(encoding="utf-8")), end="")
    elif options.type:
        print(describe(options.type))
    else:
        width = max(map(len, layer_types()))
        for name in layer_types():
            print(f"{name:{width}}  {summary(name)}")
    return 0
