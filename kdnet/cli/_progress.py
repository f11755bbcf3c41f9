"""A progress bar below the log lines, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kdnet.runtime import Run


@contextmanager
def progress(run: Run) -> Iterator[None]:
    """Show iterations done, speed, time left and the loss while the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeLeft(),
        TextColumn("loss {task.fields[loss]:.5g}"),
    )
    start = run.resume.iteration if run.resume else 0
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("train", total=run.max_iter, completed=start, loss=float("nan"))

        def advance(iteration: int, loss: float) -> None:
            bar.update(task, completed=iteration, loss=loss)

        run.on_iteration = advance
        run.log.print_line = lambda line: console.print(line, soft_wrap=True)
        yield
