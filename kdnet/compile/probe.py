"""A graph that looks at a net in training without training it: what the lint measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdnet.autodiff import gradients
from kdnet.compile.assemble import assemble, watch
from kdnet.compile.forward import Forward
from kdnet.compile.heads import Head, heads_of, tensors_of
from kdnet.compile.hosted import HostedStep, back_through, steps_before
from kdnet.compile.parts import Part, parts_of
from kdnet.compile.program import Program, WeightSlot
from kdnet.compile.weights import weight_slots
from kdnet.graph import Op, Tensor
from kdnet.net import LayerModel


@dataclass
class Probe:
    """A traced net with what is to be measured of it.

    Attributes:
        forward: the net in TRAIN phase.
        parts: the part of each layer.
        heads: its heads; their predictions are ``head/<blob>``, targets ``target/<blob>``.
        reached: for each loss, by its top, the trained weights that it moves; their squared
            gradients at the loss's own weight are the entries of ``gradient/<top>``.
        unmeasured: losses without those, since their gradients pass Python layers.
        relus: layer by the name of each measured output ``fired/<name>``: the largest value of
            each unit, a channel or an element, over the batch.
    """

    forward: Forward
    parts: tuple[Part, ...]
    heads: tuple[Head, ...]
    reached: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    unmeasured: set[str] = field(default_factory=set)
    relus: dict[str, LayerModel] = field(default_factory=dict)
    _measured: dict[str, Tensor] = field(default_factory=dict)

    @property
    def measures(self) -> bool:
        """Whether there is anything to run batches for."""
        return bool(self._measured)

    def program(self) -> tuple[Program, tuple[WeightSlot, ...], list[HostedStep]]:
        """The measuring program, with every weight frozen, its weights, and its Python layers."""
        forward, frozen = self.forward, frozenset(self.forward.weights)
        outputs = watch(forward, self._measured, {})
        program = assemble("probe", forward, outputs, (), frozen)
        steps = steps_before(forward, frozen)
        every = (program, *(part for step in steps for part in step.programs))
        used = {name for part in every for name in part.frozen}
        slots = weight_slots(forward.weights, frozenset(), frozenset(forward.trace.updates))
        return program, tuple(slot for slot in slots if slot.name in used), steps


def build_probe(forward: Forward) -> Probe:
    """Append gradients by loss, firing units and heads to a traced TRAIN net."""
    probe = Probe(forward, parts_of(forward), heads_of(forward))
    relus = _relus(forward, probe.parts)
    for name, (layer, largest) in relus.items():
        probe.relus[name] = layer
        probe._measured[f"fired/{name}"] = largest
    for top, (found, passes) in _slopes(forward).items():
        probe.reached[top] = tuple(found)
        if passes:
            probe.unmeasured.add(top)
            continue
        with forward.g.scope(f"probe/{top}"):
            squares = [forward.g.sum_all(forward.g.square(slope)) for slope in found.values()]
            entries = [forward.g.reshape(square, (1,)) for square in squares]
            probe._measured[f"gradient/{top}"] = forward.g.concat(entries, 0)
    probe._measured |= tensors_of(probe.heads)
    return probe


def _slopes(forward: Forward) -> dict[str, tuple[Mapping[Tensor, Tensor], bool]]:
    """The gradient of each weighted loss alone, by its top, where it moves anything.

    Each comes with whether it passes a Python layer.
    """
    g = forward.g
    wanted = [tensor for tensor, blob in forward.weights.items() if blob.lr_mult != 0]
    names = {tensor: name for name, tensor in forward.blobs.items()}
    found: dict[str, tuple[Mapping[Tensor, Tensor], bool]] = {}
    for loss in forward.losses:
        top = names.get(loss.top, loss.layer.name)
        with g.scope(f"grad/{top}", str(loss.layer.position or "")):
            seed = g.expand(g.like(loss.factor, loss.top), loss.top.shape)
        seeds = [(loss.top, seed)]
        passages = back_through(forward, seeds, wanted)
        with g.scope(f"grad/{top}", str(loss.layer.position or "")):
            slopes = gradients(g, seeds, wanted)
        if slopes:
            found[top] = (slopes, bool(passages))
    return found


def _relus(forward: Forward, parts: tuple[Part, ...]) -> dict[str, tuple[LayerModel, Tensor]]:
    """The largest value of each unit of every rectifier that training moves."""
    layers = {
        layer.name: layer
        for layer, part in zip(forward.net.layers, parts, strict=True)
        if part is Part.MOVING
    }
    g = forward.g
    found = {}
    for op in list(g.ops):
        layer = layers.get(_scope(op))
        if op.type == "Relu" and layer is not None and layer.tops:
            y = op.outputs[0]
            axes = [axis for axis in range(y.rank) if axis != 1]
            with g.scope(f"probe/{layer.name}"):
                found[layer.name] = (layer, g.reduce_max(y, axes))
    return found


def _scope(op: Op) -> str:
    return op.name.rpartition("/")[0]
