"""Ctrl-C and SIGTERM leave at once, but not before a half-written file is removed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from kdnet.errors import Diagnostic, RunInterruptedError


class _StopError(BaseException):
    """A signal came: no ``except Exception`` on the way may take it for a fault of a file."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _raise(number: int, _frame: FrameType | None) -> None:
    raise _StopError(number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into an error that unwinds, so that files are left as they were.

    Raises:
        RunInterruptedError: ``interrupted``; its exit code is 128 + the signal's number.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {
        number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    except _StopError as stop:
        name = signal.Signals(stop.number).name
        text = f"stopped by {name}: no file was changed"
        raise RunInterruptedError(stop.number, Diagnostic("interrupted", text)) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
