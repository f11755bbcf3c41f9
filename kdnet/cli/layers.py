"""List the layer types, or document one: formula, shapes, parameters, differences from Caffe."""

from __future__ import annotations

import argparse

NAME = "layers"
HELP = "list the layer types, or document one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("type", nargs="?", metavar="TYPE", help="a layer type")
    parser.add_argument("--markdown", action="store_true", help="print the whole catalogue")


def run(options: argparse.Namespace) -> int:
    """Print to stdout."""
    from kdnet.layers import layer_types
    from kdnet.layers.describe import catalogue, describe, summary

    if options.markdown:
        print(catalogue(), end="")
    elif options.type:
        print(describe(options.type))
    else:
        width = max(map(len, layer_types()))
        for name in layer_types():
            print(f"{name:{width}}  {summary(name)}")
    return 0
