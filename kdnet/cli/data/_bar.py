"""A progress bar for work that tells of its steps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_Advance = Callable[[int], None]


@contextmanager
def bar(unit: str) -> Iterator[Callable[[int], _Advance]]:
    """A progress bar for steps to come, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _total: lambda _step: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeLeft())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:

        def start(total: int) -> _Advance:
            task = shown.add_task("", total=total)
            return lambda step: shown.advance(task, step)

        yield start
