"""Tables: aligned text, and columns that fold on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence


def print_table(
    headings: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    widest: int = 0,
) -> None:
    """Print a table to stdout.

    Args:
        headings: the name of each column.
        lines: the cells.
        right: the columns of numbers.
        widest: columns are no wider than this, and what is longer pushes the rest of its line
            aside, where the next columns leave room for it; 0 for as wide as needed.
    """
    if sys.stdout.isatty():
        _print_rich(headings, lines, right)
    else:
        print(table_text(headings, lines, right=right, widest=widest))


def table_text(
    headings: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    widest: int = 0,
) -> str:
    """The table as plain text; as :func:`print_table`."""
    every = [headings, *lines]
    widths = [max(len(line[column]) for line in every) for column in range(len(headings))]
    if widest:
        widths = [min(width, widest) for width in widths]
    return "\n".join(_line(headings, line, widths, right) for line in every)


def _line(
    headings: Sequence[str], line: Sequence[str], widths: Sequence[int], right: Collection[str]
) -> str:
    text, edge = "", 0
    for heading, cell, width in zip(headings, line, widths, strict=True):
        room = max(0, edge + width - len(text))
        text += cell.rjust(room) if heading in right else cell
        edge += width + 2
        text = text.ljust(edge) if len(text) + 2 <= edge else f"{text}  "
    return text.rstrip()


def _print_rich(
    headings: Sequence[str], lines: Sequence[Sequence[str]], right: Collection[str]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        is_number = heading in right
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    Console(highlight=False).print(table)
