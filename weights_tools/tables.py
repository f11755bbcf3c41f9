"""Tables of text."""

from __future__ import annotations

from collections.abc import Collection, Sequence

Row = tuple[str, ...]


def table(rows: Sequence[Row], *, right: Collection[int] = ()) -> str:
    """Rows in aligned columns; those of index ``right`` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
