"""Splits a net at its Python layers: what to run before and after each of them.

A Python layer's tops are inputs of the graph. Its bottoms and its weights come from a program of
their own, run before it. Where a trained weight lies before it or is its own, the gradients of its
bottoms and weights are inputs of the step too: the layer gives them for those of its tops, which
come from another program. So the step stays one graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kdnet.autodiff import gradients, reached
from kdnet.compile.assemble import assemble, watch
from kdnet.compile.forward import Forward
from kdnet.compile.program import NoiseSlot, Program, Shape
from kdnet.graph import Tensor
from kdnet.layers import LabelCheck
from kdnet.layers.python import Hosted, HostedLayer

Seeds = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Passage:
    """How gradients pass one Python layer; each by index.

    Attributes:
        slopes: the gradients of its tops.
        diffs: the inputs that hold those of its bottoms.
        blobs: the inputs that hold those of its weights.
    """

    slopes: dict[int, Tensor]
    diffs: dict[int, Tensor]
    blobs: dict[int, Tensor]


@dataclass(frozen=True)
class HostedStep:
    """One Python layer and the programs around it.

    Attributes:
        layer: what runs on the host.
        tops: the inputs of graphs that hold its tops.
        shapes: those of its tops.
        blobs: the inputs that hold its weights, or "" where it sees one in another shape.
        before: gives its bottoms and then its weights, as its ``watched`` in order; None without
            either.
        after: gives the gradients of those tops that have one; None where none is needed.
        slopes: for each top, the output of ``after`` that is its gradient, or "" for none.
        diffs: for each bottom, the input that holds its gradient, or "" where none is wanted.
        blob_diffs: the same for each weight.
    """

    layer: HostedLayer
    tops: tuple[str, ...]
    shapes: tuple[Shape, ...]
    blobs: tuple[str, ...]
    before: Program | None
    after: Program | None = None
    slopes: tuple[str, ...] = ()
    diffs: tuple[str, ...] = ()
    blob_diffs: tuple[str, ...] = ()

    @property
    def programs(self) -> tuple[Program, ...]:
        """Those that there are."""
        return tuple(program for program in (self.before, self.after) if program is not None)


def steps_before(forward: Forward, frozen: frozenset[Tensor]) -> list[HostedStep]:
    """The net's Python layers, each with the program that gives its bottoms."""
    found = []
    for hosted in forward.trace.hosted:
        before = None
        wanted = {f"{hosted.name}/{i}": bottom for i, bottom in enumerate(hosted.bottoms)}
        wanted |= {f"{hosted.name}/blob/{i}": blob for i, blob in enumerate(hosted.blobs)}
        if wanted:
            outputs = watch(forward, wanted, {})
            before = assemble(f"before {hosted.name}", forward, outputs, (), frozen)
        tops = tuple(top.name for top in hosted.tops)
        shapes = tuple(top.shape for top in hosted.tops)
        blobs = tuple(blob.name if blob in forward.weights else "" for blob in hosted.blobs)
        found.append(HostedStep(hosted.layer, tops, shapes, blobs, before))
    return found


def back_through(forward: Forward, seeds: Seeds, trained: Iterable[Tensor]) -> dict[str, Passage]:
    """Carry gradients back through the Python layers, the last one first.

    Args:
        forward: the traced net.
        seeds: tensors with the gradient that arrives there; those of the layers' bottoms and
            weights are added, as inputs.
        trained: the weights to differentiate by.

    Returns:
        How they pass, by layer; nothing for a layer that no trained weight lies before or in, or
        no loss after.
    """
    g = forward.g
    found: dict[str, Passage] = {}
    for hosted, bottoms, blobs in reversed(_on_the_way(forward, trained)):
        with g.scope("grad", forward.source):
            slopes = gradients(g, seeds, hosted.tops)
        if not slopes:
            continue
        place = f"python/{hosted.name}"
        tops = {index: slopes[top] for index, top in enumerate(hosted.tops) if top in slopes}
        diffs = _diff_inputs(forward, f"{place}/diff", hosted.bottoms, bottoms)
        blob_diffs = _diff_inputs(forward, f"{place}/blob_diff", hosted.blobs, blobs)
        seeds += [(hosted.bottoms[index], diff) for index, diff in diffs.items()]
        seeds += [(hosted.blobs[index], diff) for index, diff in blob_diffs.items()]
        found[hosted.name] = Passage(tops, diffs, blob_diffs)
    return found


def _diff_inputs(
    forward: Forward, place: str, tensors: Sequence[Tensor], wanted: Sequence[int]
) -> dict[int, Tensor]:
    """Inputs of the step for the gradients of some tensors, which are made on the host."""
    found = {i: forward.g.input(f"{place}/{i}", tensors[i].shape) for i in wanted}
    forward.trace.made_on_host.update(found.values())
    return found


def _on_the_way(
    forward: Forward, trained: Iterable[Tensor]
) -> list[tuple[Hosted, list[int], list[int]]]:
    """The layers behind or with a trained weight.

    Each comes with the bottoms through which it lies there, and with the weights of its own.
    """
    targets = list(trained)
    found = []
    for hosted in forward.trace.hosted:
        active = reached(forward.g.ops, targets)
        bottoms = [i for i, bottom in enumerate(hosted.bottoms) if bottom in active]
        blobs = [i for i, blob in enumerate(hosted.blobs) if blob in active]
        if bottoms or blobs:
            found.append((hosted, bottoms, blobs))
            targets += hosted.tops
    return found


def steps_around(
    forward: Forward,
    steps: Sequence[HostedStep],
    carried: Mapping[str, Passage],
    frozen: frozenset[Tensor],
) -> tuple[HostedStep, ...]:
    """The steps, completed by the programs that :func:`back_through` asks for."""
    found = []
    for step, hosted in zip(steps, forward.trace.hosted, strict=True):
        passage = carried.get(hosted.name)
        if passage is None:
            found.append(step)
            continue
        named = {f"{hosted.name}/slope/{index}": t for index, t in passage.slopes.items()}
        outputs = watch(forward, named, {})
        after = assemble(f"after {hosted.name}", forward, outputs, (), frozen)
        names = dict(zip(passage.slopes, outputs, strict=True))
        found.append(
            replace(
                step,
                after=after,
                slopes=tuple(names.get(i, "") for i in range(len(hosted.tops))),
                diffs=_names(passage.diffs, len(hosted.bottoms)),
                blob_diffs=_names(passage.blobs, len(hosted.blobs)),
            )
        )
    return tuple(found)


def _names(tensors: Mapping[int, Tensor], count: int) -> tuple[str, ...]:
    return tuple(tensors[i].name if i in tensors else "" for i in range(count))


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
