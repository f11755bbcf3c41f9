"""Runs programs whose inputs Python layers make, so that they look like any other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from kdnet.compile import Program
from kdnet.compile.hosted import HostedStep, fed_to
from kdnet.runtime.device import Device
from kdnet.runtime.engine import Engine
from kdnet.runtime.state import StateBuffers

Array = NDArray[Any]


@dataclass
class Spent:
    """Seconds since the last :meth:`HostedEngine.restart`.

    Attributes:
        forward: in the code of each Python layer, by its name.
        backward: the same, backward.
        around: in the programs that feed them and take their gradients back.
    """

    forward: dict[str, float] = field(default_factory=dict)
    backward: dict[str, float] = field(default_factory=dict)
    around: float = 0.0


@contextmanager
def _clocked(into: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    into[name] = into.get(name, 0.0) + time.perf_counter() - began


@dataclass(frozen=True)
class _Part:
    """A Python layer with the sessions around it."""

    step: HostedStep
    before: Engine | None
    after: Engine | None


class HostedEngine(Engine):
    """An engine of a program, and of what its Python layers need.

    Attributes:
        spent: where the time goes that the program itself does not take.

    Args:
        program: the program.
        hosted: the Python layers, in the order of the net.
        device: where it runs; the Python code runs on the host.
        frozen: as in :class:`Engine`.
        threads: as in :class:`Engine`.
        profile_in: as in :class:`Engine`, for the program alone.
    """

    def __init__(
        self,
        program: Program,
        hosted: Sequence[HostedStep],
        device: Device,
        frozen: Mapping[str, Array],
        threads: int = 0,
        *,
        profile_in: str = "",
    ) -> None:
        super().__init__(program, device, frozen, threads, profile_in=profile_in)
        self.spent = Spent()
        self.feeding = fed_to(program, hosted)

        def opened(part: Program | None) -> Engine | None:
            return Engine(part, device, frozen, threads) if part else None

        self._parts = [_Part(step, opened(step.before), opened(step.after)) for step in hosted]

    def run(
        self,
        buffers: StateBuffers,
        feeds: Mapping[str, Array],
        scalars: Mapping[str, float] | None = None,
        *,
        keep: bool = True,
    ) -> dict[str, Array]:
        """One run, as :meth:`Engine.run`; Python layers without a gradient to give run once.

        Raises:
            RunError: python-layer-failed, python-shape-changed, and what the runtime said.
        """
        known = dict(feeds)
        for part in self._parts:
            seen = list(self._values(part.before, buffers, known, scalars).values())
            layer, count = part.step.layer, len(part.step.layer.bottoms)
            with _clocked(self.spent.forward, layer.model.name):
                tops = layer.forward(seen[:count], seen[count:], part.step.shapes)
            known |= zip(part.step.tops, tops, strict=True)
        for part in reversed(self._parts):
            if part.after is None:
                continue
            given = self._values(part.after, buffers, known, scalars)
            slopes = [given.get(name) for name in part.step.slopes]
            wanted = [bool(name) for name in part.step.diffs]
            layer = part.step.layer
            with _clocked(self.spent.backward, layer.model.name):
                diffs, blob_diffs = layer.backward(slopes, wanted)
            known |= zip(part.step.diffs, diffs, strict=True)
            known |= zip(part.step.blob_diffs, blob_diffs, strict=True)
        if keep:
            self._keep(buffers)
        return super().run(buffers, known, scalars, keep=keep)

    def restart(self) -> None:
        """Forget where time went."""
        self.spent = Spent()

    def _values(
        self,
        engine: Engine | None,
        buffers: StateBuffers,
        feeds: Mapping[str, Array],
        scalars: Mapping[str, float] | None,
    ) -> dict[str, Array]:
        if engine is None:
            return {}
        began = time.perf_counter()
        found = engine.run(buffers, feeds, scalars, keep=False)
        self.spent.around += time.perf_counter() - began
        return {name: found[name] for name in engine.program.watched}

    def _keep(self, buffers: StateBuffers) -> None:
        """Let what the layers wrote into their weights be the state that the step begins with."""
        for part in self._parts:
            for index, values in part.step.layer.written().items():
                if part.step.blobs[index] in buffers:
                    buffers.write(part.step.blobs[index], values)


def open_engine(
    program: Program,
    hosted: Sequence[HostedStep],
    device: Device,
    frozen: Mapping[str, Array],
    threads: int = 0,
    *,
    profile_in: str = "",
) -> Engine:
    """The engine of a program, with or without Python layers."""
    if hosted:
        return HostedEngine(program, hosted, device, frozen, threads, profile_in=profile_in)
    return Engine(program, device, frozen, threads, profile_in=profile_in)
