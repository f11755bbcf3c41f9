"""How far a long job is: a bar on a terminal, nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Called with what is done and what there is to do in all, both in bytes.
Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """Report nothing."""
    del done, total


@contextmanager
def bar(what: str) -> Iterator[Progress]:
    """A bar of bytes on stderr while the block runs, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn(what, markup=False), BarColumn(), DownloadColumn())
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with Bars(*columns, TransferSpeedColumn(), console=console, transient=True) as bars:
        task = bars.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        yield advance
