"""``kdnet.Timer``: a stopwatch, as pycaffe's."""

from __future__ import annotations

import time


class Timer:
    """Measures how long something takes.

    timer = kdnet.Timer()
    timer.start()
    net.forward()
    print(timer.ms)
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._took = 0.0

    def start(self) -> None:
        """Begin, unless it runs already."""
        if self._began is None:
            self._began = time.perf_counter()

    def stop(self) -> None:
        """End, if it runs."""
        if self._began is not None:
            self._took, self._began = time.perf_counter() - self._began, None

    @property
    def ms(self) -> float:
        """The milliseconds of the latest time; it ends one that runs."""
        self.stop()
        return 1e3 * self._took
