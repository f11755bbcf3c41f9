"""``debug_info``: Caffe's lines on every blob, weight and gradient of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from kdnet.compile import Program
from kdnet.compile.debug_info import DebugProgram
from kdnet.runtime.device import Device
from kdnet.runtime.engine import Engine
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.state import StateBuffers

Array = NDArray[Any]

# Where Caffe's net.cpp logs each kind of line.
PLACES = {
    "top": "net.cpp:593",
    "param": "net.cpp:605",
    "bottom": "net.cpp:621",
    "diff": "net.cpp:632",
}
TOTALS = "net.cpp:721"


class DebugInfo:
    """Runs a net's debug program on batches and logs what it finds."""

    def __init__(
        self, compiled: DebugProgram, device: Device, values: Mapping[str, Array], log: CaffeLog
    ) -> None:
        self._compiled, self._log = compiled, log
        self._engine = Engine(compiled.program, device, values)

    @property
    def program(self) -> Program:
        """What must be fed: at least what the net itself must."""
        return self._compiled.program

    def show(
        self,
        buffers: StateBuffers,
        feeds: Mapping[str, Array],
        scheduled: Mapping[str, float] | None = None,
        *,
        backward: bool = True,
    ) -> None:
        """Log a batch; the state stays as it is."""
        found = self._engine.run(buffers, feeds, scheduled, keep=False)
        self._lines("Forward", self._compiled.forward, found["watched/forward"])
        if not backward or "watched/totals" not in found:
            return
        self._lines("Backward", self._compiled.backward, found["watched/backward"])
        data, diff, data_norm, diff_norm = found["watched/totals"][:4]
        text = (
            f"    [Backward] All net params (data, diff): L1 norm = ({data:g}, {diff:g}); "
            f"L2 norm = ({data_norm:g}, {diff_norm:g})"
        )
        self._log.line(TOTALS, text, level="E")

    def _lines(self, step: str, lines: tuple[tuple[str, str], ...], sizes: Array) -> None:
        for (kind, text), size in zip(lines, sizes, strict=False):
            self._log.line(PLACES[kind], f"    [{step}] {text}: {size:g}")


class DebuggedEngine:
    """An engine that logs each batch before it runs it."""

    def __init__(self, engine: Engine, debug: DebugInfo) -> None:
        self._engine, self._debug = engine, debug
        self.feeding = debug.program

    def run(
        self,
        buffers: StateBuffers,
        feeds: Mapping[str, Array],
        scalars: Mapping[str, float] | None = None,
        *,
        keep: bool = True,
    ) -> dict[str, Array]:
        """As :meth:`Engine.run`."""
        self._debug.show(buffers, feeds, scalars)
        return self._engine.run(buffers, feeds, scalars, keep=keep)
