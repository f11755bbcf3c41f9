"""The weight blobs of a net under construction: declared by layers, shared by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from kdnet.compile.program import WeightSlot
from kdnet.errors import Diagnostic, LayerError, Note, Span
from kdnet.graph import Emitter, Tensor
from kdnet.layers import Layer, Weight
from kdnet.net import LayerModel
from kdnet.schema import kdnet_pb2 as pb

# Caffe's limit on the values of one blob.
MAX_VALUES = int(np.iinfo(np.int32).max)


@dataclass
class Blob:
    """A weight blob and everybody who uses it; the first user owns it."""

    tensor: Tensor
    weight: Weight
    layer: LayerModel
    index: int
    lr_mult: float
    decay_mult: float
    given: set[str]
    span: Span | None
    users: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)


class WeightTable:
    """Declares each layer's weights as tensors, and joins those that share a param name."""

    def __init__(self) -> None:
        self.blobs: dict[Tensor, Blob] = {}
        self._by_name: dict[str, Blob] = {}
        self._layers: dict[str, LayerModel] = {}

    def declare(self, g: Emitter, layer: Layer, weights: list[Weight]) -> list[Tensor]:
        """The tensors of a layer's weights, in order.

        Raises:
            LayerError: too-many-params, duplicate-layer-name, blob-too-large, not-shared,
                shared-shape-mismatch, shared-multiplier-mismatch.
        """
        model = layer.model
        if weights:
            self._check_name(layer)
        extra = len(model.message.param)
        if extra > len(weights):
            span = model.source.span(("param", len(weights)))
            layer.fail("too-many-params", f"{extra} param for {len(weights)} weight blobs", span)
        for index, weight in enumerate(weights):
            check_size(layer, f"weight {index}", weight.shape)
            if weight.borrowed:
                self._check_borrowed(layer, index)
        return [self._declare(g, layer, index, weight) for index, weight in enumerate(weights)]

    def _check_name(self, layer: Layer) -> None:
        """Weight files know layers by name, so no two layers with weights may share one."""
        model = layer.model
        first = self._layers.setdefault(model.name, model)
        if first is not model:
            text = f'another layer with weights is called "{model.name}" too'
            note = Note("that one is here", first.source.span(("name",)))
            hint = ("give each a name of its own; weights are shared by the name in param",)
            span = model.source.span(("name",))
            raise LayerError(Diagnostic("duplicate-layer-name", text, span, (note,), hint))

    def _check_borrowed(self, layer: Layer, index: int) -> None:
        """A blob that its layer only reads is there already."""
        name = layer.model.param(index).name
        if name in self._by_name:
            return
        place = ("param", index) if index < len(layer.model.message.param) else ()
        what = f'no earlier layer shares "{name}"' if name else "its param has no name to share"
        hint = f"give param {index} the name that the owner's param has"
        span = layer.model.source.span(place)
        layer.fail("not-shared", f"blob {index} is another layer's, but {what}", span, hint)

    def _declare(self, g: Emitter, layer: Layer, index: int, weight: Weight) -> Tensor:
        model, param = layer.model, layer.param(index)
        shared = param.name
        if shared and shared in self._by_name:
            return self._join(g, model, index, weight)
        tensor = g.input(f"{model.name}/{weight.name}", weight.shape)
        blob = Blob(
            tensor,
            weight,
            model,
            index,
            0.0 if weight.state else param.lr_mult,
            0.0 if weight.state else param.decay_mult,
            set(param.given),
            model.source.span(("param", index)) or model.position,
            {(model.name, index): weight.shape},
        )
        self.blobs[tensor] = blob
        if shared:
            self._by_name[shared] = blob
        return tensor

    def _join(self, g: Emitter, model: LayerModel, index: int, weight: Weight) -> Tensor:
        param = model.param(index)
        blob = self._by_name[param.name]
        fits = blob.tensor.shape == weight.shape
        if param.permissive:
            fits = blob.tensor.size == prod(weight.shape)
        if not fits:
            text = (
                f'layer "{model.name}": blob {index} of shape {weight.shape} shares '
                f'"{param.name}", which has shape {blob.tensor.shape}'
            )
            self._conflict("shared-shape-mismatch", text, model, index, blob)
        for field_name in ("lr_mult", "decay_mult"):
            self._join_multiplier(field_name, model, index, blob)
        blob.users[model.name, index] = weight.shape
        return g.reshape(blob.tensor, weight.shape)

    def _join_multiplier(self, field_name: str, model: LayerModel, index: int, blob: Blob) -> None:
        param = model.param(index)
        if field_name not in param.given:
            return
        stated, known = getattr(param, field_name), getattr(blob, field_name)
        if field_name in blob.given and stated != known:
            text = (
                f'layer "{model.name}": {field_name} {stated:g} of shared "{param.name}", '
                f"which has {known:g}"
            )
            self._conflict("shared-multiplier-mismatch", text, model, index, blob)
        setattr(blob, field_name, stated)
        blob.given.add(field_name)

    @staticmethod
    def _conflict(code: str, text: str, model: LayerModel, index: int, blob: Blob) -> None:
        note = Note(f'"{blob.layer.name}" declares it first', blob.span)
        span = model.source.span(("param", index))
        raise LayerError(Diagnostic(code, text, span, (note,)))


def check_size(layer: Layer, what: str, shape: tuple[int, ...]) -> None:
    """Refuse a blob that no array could hold, before anybody makes one.

    Raises:
        LayerError: blob-too-large.
    """
    if prod(shape) > MAX_VALUES:
        text = f"{what} of shape {shape} has more than {MAX_VALUES} values"
        layer.fail("blob-too-large", text, layer.model.position)


def weight_slots(
    blobs: Mapping[Tensor, Blob], trained: frozenset[Tensor], updated: frozenset[Tensor]
) -> tuple[WeightSlot, ...]:
    """Every weight blob with its role: trained by the solver, updated by its layer, or frozen."""
    return tuple(
        WeightSlot(
            tensor.name,
            blob.layer.name,
            blob.layer.type,
            blob.index,
            tensor.shape,
            blob.weight.filler,
            blob.lr_mult,
            "trained" if tensor in trained else "state" if tensor in updated else "frozen",
            blob.span,
            tuple(blob.users),
            tuple(blob.users.values()),
            blob.weight.stored,
            _filler_span(blob.layer, blob.weight.filler),
        )
        for tensor, blob in blobs.items()
    )


def _filler_span(layer: LayerModel, filler: pb.FillerParameter) -> Span | None:
    """Where the type of a layer's filler is written; None for one that the layer made up."""
    for param, message in layer.message.ListFields():
        if not param.name.endswith("_param"):
            continue
        for field_of, value in message.ListFields():
            if field_of.message_type is filler.DESCRIPTOR and value == filler:
                return layer.source.span((param.name, field_of.name, "type"))
    return None
