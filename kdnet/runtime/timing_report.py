"""What ``kdnet time`` found, as Caffe prints it, as a table by cost, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from kdnet.runtime.log import OWN, CaffeLog


@dataclass(frozen=True)
class LayerTime:
    """What a layer takes of one iteration, in milliseconds.

    ``flops`` are the operations of its forward pass. ``computed_in`` names the layers that do its
    forward pass along with theirs, where the runtime fused them.
    """

    name: str
    type: str
    forward: float
    backward: float
    flops: int
    computed_in: tuple[str, ...] = ()

    @property
    def both(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward


@dataclass(frozen=True)
class Timing:
    """Where the time of an iteration goes, in milliseconds.

    The parts add up: the layers, the solver's ``update``, ``copies`` between devices, ``other``
    ops that belong to no layer, ``around``: what is computed anew to feed Python layers and to
    take their gradients, and ``between``: whatever is not inside an op. They are means
    over the first ``profiled`` iterations; ``total`` is the time of all.
    """

    net: str
    phase: str
    device: str
    iterations: int
    profiled: int
    total: float
    layers: tuple[LayerTime, ...]
    update: float
    copies: float
    other: float
    between: float
    trains: bool
    around: float = 0.0

    @property
    def iteration(self) -> float:
        """The mean time of an iteration."""
        return self.total / self.iterations

    @property
    def forward(self) -> float:
        """All layers' forward passes."""
        return sum(layer.forward for layer in self.layers)

    @property
    def backward(self) -> float:
        """All layers' backward passes."""
        return sum(layer.backward for layer in self.layers)

    @property
    def parts(self) -> float:
        """All parts together."""
        return self.forward + self.backward + sum(self.outside.values())

    @property
    def outside(self) -> dict[str, float]:
        """What no layer takes, by what takes it."""
        around = {"around Python layers": self.around} if self.around else {}
        return {
            "update": self.update,
            "memory copies": self.copies,
            "ops of no layer": self.other,
            **around,
            "between ops": self.between,
        }


def log_timing(timing: Timing, log: CaffeLog) -> None:
    """The closing lines of ``caffe time``; what is outside of the layers has lines of our own."""
    log.line("caffe.cpp:397", "Average time per layer: ")
    for layer in timing.layers:
        log.line("caffe.cpp:400", f"{layer.name:>10}\tforward: {layer.forward:g} ms.")
        log.line("caffe.cpp:403", f"{layer.name:>10}\tbackward: {layer.backward:g} ms.")
    log.line("caffe.cpp:408", f"Average Forward pass: {timing.forward:g} ms.")
    log.line("caffe.cpp:410", f"Average Backward pass: {timing.backward:g} ms.")
    for what, took in timing.outside.items():
        log.line(OWN, f"Average outside of layers, {what}: {took:g} ms.")
    log.line("caffe.cpp:412", f"Average Forward-Backward: {timing.iteration:g} ms.")
    log.line("caffe.cpp:414", f"Total Time: {timing.total:g} ms.")
    log.line("caffe.cpp:415", "*** Benchmark ends ***")


def as_text(timing: Timing) -> str:
    """A table of the layers by cost; its shares add up to 100 %."""
    head = ("layer", "type", "forward", "backward", "both ms", "share", "forward GFLOP/s", "")
    rows = [
        (
            layer.name,
            layer.type,
            _ms(layer.forward),
            _ms(layer.backward) if timing.trains else "-",
            _ms(layer.both),
            _share(layer.both, timing.parts),
            _speed(layer),
            f"computed in {', '.join(layer.computed_in)}" if layer.computed_in else "",
        )
        for layer in sorted(timing.layers, key=lambda layer: -layer.both)
    ]
    rows += [
        (f"({what})", "", "", "", _ms(took), _share(took, timing.parts), "", "")
        for what, took in timing.outside.items()
        if took
    ]
    backward = _ms(timing.backward) if timing.trains else "-"
    sums = ("sum", "", _ms(timing.forward), backward, _ms(timing.parts), "100.0 %", "", "")
    what = "training step" if timing.trains else "forward pass"
    flops = sum(layer.flops for layer in timing.layers)
    return (
        f"{_aligned([head, *rows, sums])}\n{what} of {timing.iteration:.3f} ms on "
        f"{timing.device}, the mean of {timing.iterations}; forward: {flops / 1e9:.3f} GFLOP\n"
    )


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3f}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def _speed(layer: LayerTime) -> str:
    """Where a layer is computed in another, its own time says nothing of its operations."""
    if not layer.flops or not layer.forward or layer.computed_in:
        return "-"
    return f"{layer.flops / layer.forward / 1e6:.2f}"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = (0, 1, len(widths) - 1)
    lines = [
        "  ".join(
            cell.ljust(width) if column in text else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def as_json(timing: Timing) -> str:
    """Everything, in milliseconds."""
    whole = {
        **asdict(timing),
        "iteration": timing.iteration,
        "forward": timing.forward,
        "backward": timing.backward,
    }
    return json.dumps(whole, indent=2) + "\n"
