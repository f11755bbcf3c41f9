"""What signals ask of a run: to stop, or to save and go on; a second one to stop ends it at once.

A run stops and saves between iterations, so that its state is whole. Who asks again does not want
to wait: not for the batch that is read, and not for the step that the runtime is in.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Collection
from enum import Enum
from types import FrameType, TracebackType
from typing import Any, Self

# How long a run that was asked twice may take to leave in good order, in seconds.
GRACE_S = 0.5
SHOW_CURSOR = b"\x1b[?25h"


class Effect(Enum):
    """What a signal does, in the words of Caffe's ``-sigint_effect`` and ``-sighup_effect``."""

    STOP = "stop"
    SNAPSHOT = "snapshot"
    NONE = "none"


class StopRequest:
    """Remembers what signals asked for, for the length of a block.

    SIGTERM asks to stop; the second signal that does ends the process at once.

    Args:
        interrupt: what SIGINT, so Ctrl-C, does.
        hangup: what SIGHUP does; None leaves that signal as it is.

    Attributes:
        signal: the number of the signal that asked to stop, 0 while none did.
    """

    def __init__(self, interrupt: Effect = Effect.STOP, hangup: Effect | None = None) -> None:
        self.signal = 0
        self._effects = {signal.SIGINT: interrupt, signal.SIGTERM: Effect.STOP}
        if hangup is not None and hasattr(signal, "SIGHUP"):
            self._effects[signal.SIGHUP] = hangup
        self._snapshot = False
        self._before: dict[int, Any] = {}
        self._watch: _Watch | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self._effects:
                self._before[number] = signal.signal(number, self._arrived)
            stopping = {n for n, effect in self._effects.items() if effect is Effect.STOP}
            self._watch = _Watch(stopping)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._watch is not None:
            self._watch.close(leaving=kind is KeyboardInterrupt)

    def take_snapshot(self) -> bool:
        """Whether a snapshot was asked for since this was last asked."""
        asked, self._snapshot = self._snapshot, False
        return asked

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        effect = self._effects[signal.Signals(number)]
        if effect is Effect.SNAPSHOT:
            self._snapshot = True
        elif effect is Effect.STOP:
            if self.signal:
                raise KeyboardInterrupt
            self.signal = number


class _Watch:
    """Ends the process where a second request to stop is not heeded within the grace.

    Python runs a signal's handler between two of its own instructions, so not while the runtime
    computes. The number of the signal is written to a socket at once, and a thread reads it.
    """

    def __init__(self, stopping: Collection[int]) -> None:
        self._stopping = stopping
        self._reader, self._writer = socket.socketpair()
        self._writer.settimeout(0)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._over = threading.Event()
        threading.Thread(target=self._run, name="kdnet-signals", daemon=True).start()

    def close(self, *, leaving: bool) -> None:
        """Watch no longer; a process that is leaving must still be gone within the grace."""
        signal.set_wakeup_fd(self._before)
        if not leaving:
            self._over.set()
        self._writer.close()

    def _run(self) -> None:
        last: deque[int] = deque(maxlen=2)
        with self._reader:
            while len(last) < 2 and (numbers := self._reader.recv(64)):
                last.extend(number for number in numbers if number in self._stopping)
            if len(last) == 2 and not self._over.wait(GRACE_S):
                _leave(last[-1])


def _leave(number: int) -> None:
    with contextlib.suppress(OSError):
        if sys.stderr.isatty():
            os.write(2, SHOW_CURSOR)
        os.write(2, b"interrupted\n")
    os._exit(128 + number)
