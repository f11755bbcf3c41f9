"""Runs programs whose inputs Python layers make, so that they look like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from kdnet.compile import Program
from kdnet.compile.hosted import HostedStep, fed_to
from kdnet.runtime.device import Device
from kdnet.runtime.engine import Engine
from kdnet.runtime.state import StateBuffers

Array = NDArray[Any]


@dataclass(frozen=True)
class _Part:
    """A Python layer with the sessions around it."""

    step: HostedStep
    before: Engine | None
    after: Engine | None


class HostedEngine(Engine):
    """An engine of a program, and of what its Python layers need.

    Args:
        program: the program.
        hosted: the Python layers, in the order of the net.
        device: where it runs; the Python code runs on the host.
        frozen: as in :class:`Engine`.
        threads: as in :class:`Engine`.
    """

    def __init__(
        self,
        program: Program,
        hosted: Sequence[HostedStep],
        device: Device,
        frozen: Mapping[str, Array],
        threads: int = 0,
    ) -> None:
        super().__init__(program, device, frozen, threads)
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
            seen = list(_values(part.before, buffers, known, scalars).values())
            layer, count = part.step.layer, len(part.step.layer.bottoms)
            tops = layer.forward(seen[:count], seen[count:], part.step.shapes)
            known |= zip(part.step.tops, tops, strict=True)
        for part in reversed(self._parts):
            if part.after is None:
                continue
            given = _values(part.after, buffers, known, scalars)
            slopes = [given.get(name) for name in part.step.slopes]
            wanted = [bool(name) for name in part.step.diffs]
            diffs, blob_diffs = part.step.layer.backward(slopes, wanted)
            known |= zip(part.step.diffs, diffs, strict=True)
            known |= zip(part.step.blob_diffs, blob_diffs, strict=True)
        if keep:
            self._keep(buffers)
        return super().run(buffers, known, scalars, keep=keep)

    def _keep(self, buffers: StateBuffers) -> None:
        """Let what the layers wrote into their weights be the state that the step begins with."""
        for part in self._parts:
            for index, values in part.step.layer.written().items():
                if part.step.blobs[index] in buffers:
                    buffers.write(part.step.blobs[index], values)


def _values(
    engine: Engine | None,
    buffers: StateBuffers,
    feeds: Mapping[str, Array],
    scalars: Mapping[str, float] | None,
) -> dict[str, Array]:
    if engine is None:
        return {}
    found = engine.run(buffers, feeds, scalars, keep=False)
    return {name: found[name] for name in engine.program.watched}


def open_engine(
    program: Program,
    hosted: Sequence[HostedStep],
    device: Device,
    frozen: Mapping[str, Array],
    threads: int = 0,
) -> Engine:
    """The engine of a program, with or without Python layers."""
    if hosted:
        return HostedEngine(program, hosted, device, frozen, threads)
    return Engine(program, device, frozen, threads)
