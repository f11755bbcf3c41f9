"""A background thread that reads batches ahead of the step that needs them."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from threading import Condition, Thread
from types import TracebackType
from typing import Self

from kdnet.data.source import Floats, Source

DEFAULT_DEPTH = 4

Batch = dict[str, Floats]


class Feeder:
    """Batches ``start``, ``start`` + 1, ... of several sources, read ahead in one thread.

    Args:
        sources: The data layers of one net; they stay the caller's to close, after the feeder.
        start: The number of the first batch.
        depth: Batches held ready, at least 1.

    The thread ends with :meth:`close`, or when the feeder is no longer referenced.
    """

    def __init__(
        self, sources: Sequence[Source], start: int = 0, depth: int = DEFAULT_DEPTH
    ) -> None:
        self._queue = _Queue(max(1, depth))
        self._thread = Thread(
            target=_produce,
            args=(tuple(sources), start, self._queue),
            name="kdnet-feeder",
            daemon=True,
        )
        self._finalizer = weakref.finalize(self, self._queue.stop)
        self._thread.start()

    def next(self) -> Batch:
        """The next batch: one contiguous float32 array a top.

        Raises:
            DataError: A source failed; batches before the fault are handed out first.
            RuntimeError: The feeder is closed.
        """
        return self._queue.get()

    def close(self) -> None:
        """End the thread; it finishes the batch that it is reading."""
        self._finalizer()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Queue:
    """At most ``depth`` batches between two threads, and how the producer ended."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._ready: deque[Batch] = deque()
        self._fault: BaseException | None = None
        self._stopped = False
        self._changed = Condition()

    def put(self, batch: Batch) -> bool:
        """Wait for room and add a batch; False when nobody wants more."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._ready) < self._depth)
            if not self._stopped:
                self._ready.append(batch)
                self._changed.notify_all()
            return not self._stopped

    def get(self) -> Batch:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._ready or self._fault)
            if self._stopped:
                raise RuntimeError("the feeder is closed")
            if self._fault is not None and not self._ready:
                raise self._fault
            batch = self._ready.popleft()
            self._changed.notify_all()
            return batch

    def end(self, fault: BaseException) -> None:
        with self._changed:
            self._fault = fault
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()


def _produce(sources: tuple[Source, ...], start: int, queue: _Queue) -> None:
    # The queue, not the feeder, is what the thread holds: so a forgotten feeder is collected.
    index = start
    try:
        while queue.put(_batch(sources, index)):
            index += 1
    except Exception as fault:
        queue.end(fault)


def _batch(sources: tuple[Source, ...], index: int) -> Batch:
    return {
        top: values
        for source in sources
        for top, values in zip(source.tops, source.batch(index), strict=True)
    }
