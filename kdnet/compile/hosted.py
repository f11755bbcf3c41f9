"""Splits a net at its Python layers: what to run before and after each of them.

A Python layer's tops are inputs of the graph. Its bottoms come from a program of their own, run
before it. Where a trained weight lies before it, the gradients of its bottoms are inputs of the
step too: the layer gives them for those of its tops, which come from another program. So the step
stays one graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from kdnet.autodiff import gradients, reached
from kdnet.compile.assemble import assemble, watch
from kdnet.compile.forward import Forward
from kdnet.compile.program import NoiseSlot, Program, Shape
from kdnet.graph import Tensor
from kdnet.layers import LabelCheck
from kdnet.layers.python import Hosted, HostedLayer

Seeds = list[tuple[Tensor, Tensor]]
# By layer: "slopes", its tops' gradients, and "diffs", the inputs of its bottoms', by index.
Carried = dict[str, dict[str, dict[int, Tensor]]]


@dataclass(frozen=True)
class HostedStep:
    """One Python layer and the programs around it.

    Attributes:
        layer: what runs on the host.
        tops: the inputs of graphs that hold its tops.
        before: gives its bottoms, as its ``watched`` in order; None without bottoms.
        after: gives the gradients of those tops that have one; None where none is needed.
        slopes: for each top, the output of ``after`` that is its gradient, or "" for none.
        diffs: for each bottom, the input that holds its gradient, or "" where none is wanted.
    """

    layer: HostedLayer
    tops: tuple[str, ...]
    before: Program | None
    after: Program | None = None
    slopes: tuple[str, ...] = ()
    diffs: tuple[str, ...] = ()

    @property
    def programs(self) -> tuple[Program, ...]:
        """Those that there are."""
        return tuple(program for program in (self.before, self.after) if program is not None)


def steps_before(forward: Forward, frozen: frozenset[Tensor]) -> list[HostedStep]:
    """The net's Python layers, each with the program that gives its bottoms."""
    found = []
    for hosted in forward.trace.hosted:
        before = None
        if hosted.bottoms:
            wanted = {f"{hosted.name}/{i}": bottom for i, bottom in enumerate(hosted.bottoms)}
            outputs = watch(forward, wanted, {})
            before = assemble(f"before {hosted.name}", forward, outputs, (), frozen)
        found.append(HostedStep(hosted.layer, tuple(t.name for t in hosted.tops), before))
    return found


def back_through(forward: Forward, seeds: Seeds, trained: Iterable[Tensor]) -> Carried:
    """Carry gradients back through the Python layers, the last one first.

    Args:
        forward: the traced net.
        seeds: tensors with the gradient that arrives there; those of the layers' bottoms are
            added, as inputs.
        trained: the weights to differentiate by.

    Returns:
        By layer, under "slopes" the gradients of its tops and under "diffs" the inputs that hold
        those of its bottoms, by index; nothing for a layer that no trained weight lies before or
        no loss after.
    """
    g = forward.g
    found: Carried = {}
    for hosted, wanted in reversed(_on_the_way(forward, trained)):
        with g.scope("grad", forward.source):
            slopes = gradients(g, seeds, hosted.tops)
        if not slopes:
            continue
        diffs = {}
        for index in wanted:
            bottom = hosted.bottoms[index]
            diffs[index] = g.input(f"python/{hosted.name}/diff/{index}", bottom.shape)
            forward.trace.made_on_host.add(diffs[index])
            seeds.append((bottom, diffs[index]))
        tops = {index: slopes[top] for index, top in enumerate(hosted.tops) if top in slopes}
        found[hosted.name] = {"slopes": tops, "diffs": diffs}
    return found


def _on_the_way(
    forward: Forward, trained: Iterable[Tensor]
) -> list[tuple[Hosted, tuple[int, ...]]]:
    """The layers behind a trained weight, each with the bottoms through which it lies there."""
    targets = list(trained)
    found = []
    for hosted in forward.trace.hosted:
        active = reached(forward.g.ops, targets)
        wanted = tuple(i for i, bottom in enumerate(hosted.bottoms) if bottom in active)
        if wanted:
            found.append((hosted, wanted))
            targets += hosted.tops
    return found


def steps_around(
    forward: Forward,
    steps: Sequence[HostedStep],
    carried: Carried,
    frozen: frozenset[Tensor],
) -> tuple[HostedStep, ...]:
    """The steps, completed by the programs that :func:`back_through` asks for."""
    found = []
    for step, hosted in zip(steps, forward.trace.hosted, strict=True):
        if hosted.name not in carried:
            found.append(step)
            continue
        slopes, diffs = carried[hosted.name]["slopes"], carried[hosted.name]["diffs"]
        named = {f"{hosted.name}/slope/{index}": tensor for index, tensor in slopes.items()}
        outputs = watch(forward, named, {})
        after = assemble(f"after {hosted.name}", forward, outputs, (), frozen)
        names = dict(zip(slopes, outputs, strict=True))
        found.append(
            replace(
                step,
                after=after,
                slopes=tuple(names.get(i, "") for i in range(len(hosted.tops))),
                diffs=tuple(
                    diffs[i].name if i in diffs else "" for i in range(len(hosted.bottoms))
                ),
            )
        )
    return tuple(found)


def fed_to(main: Program, steps: Sequence[HostedStep]) -> Program:
    """The program with the data, noise and label checks of all that runs around it.

    It says what to feed; only ``main`` itself can be run.
    """
    every = (main, *(program for step in steps for program in step.programs))
    data: dict[str, Shape] = {}
    noise: dict[str, NoiseSlot] = {}
    labels: dict[LabelCheck, None] = {}
    for program in every:
        data |= program.data
        noise |= {slot.name: slot for slot in program.noise}
        labels |= dict.fromkeys(program.labels)
    return replace(main, data=data, noise=tuple(noise.values()), labels=tuple(labels))
