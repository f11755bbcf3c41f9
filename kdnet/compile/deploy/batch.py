"""A graph for any batch size, from two graphs with static shapes.

The same net is traced at two batch sizes. What differs between the two graphs is what depends on
the batch: whole numbers in shapes, which become -1 or are computed from the input's own shape.
Anything else that differs cannot be free of the batch, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from kdnet.compile.cost import layer_of
from kdnet.compile.forward import Forward, trace_forward
from kdnet.errors import Diagnostic, LayerError, Note, Span
from kdnet.graph import Emitter, Op, Tensor
from kdnet.graph.serialize import needed_ops
from kdnet.net import LayerModel, NetModel

# Primes that no layer is likely to have for an extent of its own, so that equal means the same.
BATCHES = (13, 17)
INT64 = np.dtype(np.int64)
Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class FreeGraph:
    """Ops that hold for every batch size; tensors keep the shapes they have at ``BATCHES[0]``.

    ``inputs`` and ``output`` come with their shapes at both batch sizes, which tell the axes that
    follow the batch.
    """

    ops: tuple[Op, ...]
    inputs: tuple[Tensor, ...]
    output: Tensor
    weights: tuple[Tensor, ...]
    axes: Mapping[Tensor, tuple[str | int, ...]]


def batched(inputs: Mapping[str, Shape], batch: int) -> dict[str, Shape]:
    """The shapes with another extent of the batch axis, the first."""
    return {name: (batch, *shape[1:]) for name, shape in inputs.items()}


def free_batch(net: NetModel, inputs: Mapping[str, Shape], head: str) -> FreeGraph:
    """The graph of a deploy net that computes the blob ``head`` at any batch size.

    Args:
        net: a net of Input layers and layers in TEST phase.
        inputs: the shape of each fed blob.
        head: the blob that is wanted.

    Raises:
        LayerError: batch-bound, naming the layer whose result is tied to one batch size.
    """
    first, second = (_trace(net, batched(inputs, batch)) for batch in BATCHES)
    return _Merge(first, second, head).graph()


def _trace(net: NetModel, shapes: Mapping[str, Shape]) -> Forward:
    try:
        return trace_forward(net, Emitter(), shapes)
    except LayerError as error:
        batch = next(iter(shapes.values()))[0]
        first = error.diagnostics[0]
        note = Note(f"at a batch of {batch}: {first.message}", first.span)
        text = "the net takes no other batch size than its own"
        raise LayerError(_bound(text, first.span, note)) from error


def _bound(text: str, span: Span | None, *notes: Note) -> Diagnostic:
    hint = "in a Reshape layer, 0 keeps the batch axis"
    return Diagnostic("batch-bound", text, span, notes, (hint,))


class _Merge:
    """Walks two traces of one net in step."""

    def __init__(self, first: Forward, second: Forward, head: str) -> None:
        self.net = first.net
        self.first, self.second, self.head = first, second, head
        self.pairs: dict[Tensor, Tensor] = dict(zip(first.weights, second.weights, strict=True))
        for name, tensor in first.trace.data.items():
            self.pairs[tensor] = second.trace.data[name]
        self.ops: list[Op] = []
        self.extent: Tensor | None = None
        self.named: dict[tuple[int, ...], Tensor] = {}

    def graph(self) -> FreeGraph:
        """The merged ops."""
        output = self.first.blobs[self.head]
        ops = needed_ops(self.first.g.ops, [output])
        others = needed_ops(self.second.g.ops, [self.second.blobs[self.head]])
        for tensor, other in list(self.pairs.items()):
            if tensor in self.first.weights and tensor.shape != other.shape:
                blob = self.first.weights[tensor]
                self._refuse(blob.layer, f'its weight "{blob.weight.name}" depends on it')
        for here, there in zip(ops, others, strict=False):
            self._merge(here, there)
        if len(ops) != len(others):
            longer = max(ops, others, key=len)
            self._refuse(layer_of(self.net, longer[-1]), "it emits other ops for another one")
        inputs = tuple(self.first.trace.data.values())
        axes = {t: self._axes(t) for t in (*inputs, output)}
        weights = tuple(self.first.weights)
        return FreeGraph(tuple(self.ops), inputs, output, weights, axes)

    def _axes(self, tensor: Tensor) -> tuple[str | int, ...]:
        """Each extent: a number, or a name where it follows the batch."""
        found: list[str | int] = []
        each = zip(tensor.shape, self.pairs[tensor].shape, strict=True)
        for here, there in each:
            if here == there:
                found.append(here)
            elif here * BATCHES[1] == there * BATCHES[0] and not here % BATCHES[0]:
                times = here // BATCHES[0]
                found.append("N" if times == 1 else f"{times}*N")
            else:
                found.append(f"{tensor.name}_{len(found)}")
        return tuple(found)

    def _merge(self, op: Op, other: Op) -> None:
        if op.type != other.type or dict(op.attrs) != dict(other.attrs):
            self._refuse(layer_of(self.net, op), f"its {op.type} differs for another one")
        if len(op.inputs) != len(other.inputs):
            self._refuse(layer_of(self.net, op), f"its {op.type} differs for another one")
        merged = [
            self._input(op, place, here, there)
            for place, (here, there) in enumerate(zip(op.inputs, other.inputs, strict=True))
        ]
        self.ops.append(replace(op, inputs=tuple(merged)))
        self.pairs.update(zip(op.outputs, other.outputs, strict=True))

    def _input(
        self, op: Op, place: int, here: Tensor | None, there: Tensor | None
    ) -> Tensor | None:
        if here is None or there is None:
            if here is not there:
                self._refuse(layer_of(self.net, op), f"its {op.type} differs for another one")
            return None
        if here.value is None or there.value is None:
            if self.pairs.get(here) is not there:
                self._refuse(layer_of(self.net, op), f"its {op.type} reads another blob")
            return here
        if np.array_equal(here.value, there.value):
            return here
        return self._number(op, place, here.value, there.value)

    def _number(self, op: Op, place: int, here: Array, there: Array) -> Tensor:
        """The constant of an op that differs between the two batch sizes."""
        if here.dtype != INT64 or here.ndim != 1 or here.shape != there.shape:
            self._refuse(layer_of(self.net, op), f"a constant of its {op.type} depends on it")
        steps, rest = np.divmod(there - here, BATCHES[1] - BATCHES[0])
        if rest.any():
            self._refuse(
                layer_of(self.net, op), f"a shape of its {op.type} does not scale with it"
            )
        offsets = here - steps * BATCHES[0]
        if op.type == "Reshape" and place == 1 and np.count_nonzero(steps) == 1:
            return self._constant(np.where(steps != 0, -1, here))
        return self._computed(steps, offsets)

    def _computed(self, steps: Array, offsets: Array) -> Tensor:
        """``steps · N + offsets``, with N from the shape of the first input."""
        key = (*steps.tolist(), *offsets.tolist())
        if key not in self.named:
            if self.extent is None:
                fed = next(iter(self.first.trace.data.values()))
                self.extent = self._op("Shape", fed, start=0, end=1)
            scaled = self._op("Mul", self.extent, self._constant(steps))
            if offsets.any():
                scaled = self._op("Add", scaled, self._constant(offsets))
            self.named[key] = scaled
        return self.named[key]

    def _constant(self, values: Array) -> Tensor:
        return self.first.g.constant(values, np.int64)

    def _op(self, kind: str, *inputs: Tensor, **attrs: Any) -> Tensor:
        g = self.first.g
        with g.scope("batch"):
            found = g.op(kind, *inputs, **attrs)
        self.ops.append(g.ops[-1])
        return found

    def _refuse(self, layer: LayerModel | None, why: str) -> NoReturn:
        who = f'layer "{layer.name}" ({layer.type})' if layer else f'net "{self.net.name}"'
        span = layer.position if layer else self.net.source.span(())
        raise LayerError(_bound(f"{who} works for one batch size only: {why}", span))
