"""A progress bar below the log lines, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdnet.runtime import CaffeLog, Run


@contextmanager
def progress(run: Run) -> Iterator[None]:
    """Show iterations done, speed, time left and the loss while the block runs."""
    start = run.resume.iteration if run.resume else 0
    with bar(run.log, start, "loss nan") as show:

        def advance(iteration: int, loss: float) -> None:
            show(iteration, run.max_iter, f"loss {loss:.5g}")

        run.on_iteration = advance
        yield


@contextmanager
def bar(log: CaffeLog, start: int = 0, text: str = "") -> Iterator[Callable[..., None]]:
    """A bar that the given function moves: ``show(done, total, text)``; log lines stay above it.

    ``start`` is what was done before, so that the time left goes by what is done now.
    """
    if not sys.stderr.isatty():
        yield lambda *_seen: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    columns = (BarColumn(), MofNCompleteColumn(), TimeLeft(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("run", total=None, completed=start, text=text)

        def show(done: int, total: int, text: str = "") -> None:
            shown.update(task, completed=done, total=total, text=text)

        log.print_line = lambda line: console.print(line, soft_wrap=True)
        yield show
