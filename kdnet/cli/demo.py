"""Distil a LeNet teacher into a small student on the digits that the repository ships.

Run it from the repository's root, or with: make demo
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdnet.cli._arguments import add_device, seed

NAME = "demo"
HELP = "the whole job on shipped digits: teacher, student alone, distilled student"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="where files go")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the runs")
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Run the demo; the table goes to stdout."""
    from kdnet.runtime.demo import run_demo

    results = run_demo(
        Path(options.out),
        device=options.device or "auto",
        seed=options.seed,
        tell=lambda text: print(text, file=sys.stderr),
    )
    print(f"{'':18} {'accuracy':>8} {'loss':>8} {'parameters':>10} {'bytes':>9}  file")
    for row in results:
        print(
            f"{row.name:18} {row.accuracy:8.4f} {row.loss:8.4f} "
            f"{row.parameters:10,} {row.size_bytes:9,}  {row.path}"
        )
    return 0
