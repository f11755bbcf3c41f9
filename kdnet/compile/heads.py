"""The heads of a net: what it is asked to predict, against what, and who teaches it.

A head is found by what the losses and metrics say of their bottoms (``Layer.roles``), so any
layer that states its roles is evaluated, linted and exported without being known by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from kdnet.compile.forward import Forward
from kdnet.compile.parts import Part, parts_of
from kdnet.graph import Tensor
from kdnet.layers import Layer, layer_class
from kdnet.net import LayerModel, feeders


class Pair(NamedTuple):
    """The blobs of class scores that a loss compares.

    ``probabilities`` tells of a teacher that answers with these instead of logits.
    """

    student: str
    teacher: str
    probabilities: bool = False


@dataclass(frozen=True)
class Head:
    """Predictions and what they are compared with.

    Attributes:
        blob: the blob of the predictions.
        kind: "classes" (scores over ``axis``), "binary" (a logit an entry) or "values".
        tensor: the predictions.
        target: labels, targets or values; None for a teacher whose student has no labels.
        axis: the class axis.
        ignore: the label that is not counted.
        part: what the predictions depend on; a teacher's do not move.
        teachers: blobs of the scores that teach this head.
        probabilities: whether the scores of classes are probabilities already.
    """

    blob: str
    kind: str
    tensor: Tensor
    target: Tensor | None
    axis: int
    ignore: int | None
    part: Part
    teachers: tuple[str, ...] = ()
    probabilities: bool = False


@dataclass(frozen=True)
class _Read:
    """A loss or metric with its bottoms as it reads them."""

    layer: LayerModel
    kind: type[Layer]
    bottoms: Sequence[Tensor]
    parts: Sequence[Part]

    def first(self, *roles: str) -> int | None:
        """The first bottom that has one of the roles."""
        found = (i for i in range(len(self.bottoms)) if self.role(i) in roles)
        return next(found, None)

    def role(self, bottom: int) -> str:
        roles = self.kind.roles
        return roles[min(bottom, len(roles) - 1)]

    @property
    def axis(self) -> int:
        params = getattr(self.layer.message, self.kind.params_field, None)
        return int(getattr(params, "axis", 1))

    @property
    def gets_probabilities(self) -> bool:
        """Whether the layer's teachers answer with probabilities."""
        params = getattr(self.layer.message, self.kind.params_field, None)
        form: Any = getattr(params, "teacher", None)
        return form is not None and form == getattr(params, "PROBABILITIES", None)

    @property
    def ignore(self) -> int | None:
        for field in (self.kind.params_field, "loss_param"):
            message: Any = getattr(self.layer.message, field, None)
            known = message is not None and "ignore_label" in message.DESCRIPTOR.fields_by_name
            if known and message.HasField("ignore_label"):
                return int(message.ignore_label)
        return None


def heads_of(forward: Forward, pairs: Sequence[Pair] = ()) -> tuple[Head, ...]:
    """Every head of a traced net, in the net's order, then the teachers' heads.

    Args:
        forward: the net.
        pairs: student and teacher blobs that are known from elsewhere: a TEST net often lacks
            the loss that joins them.
    """
    found: dict[Tensor, Head] = {}
    for read in _reads(forward):
        head = _head(forward, read)
        if head is not None and head.tensor not in found:
            found[head.tensor] = head
    taught = [*teaching_pairs(forward), *pairs]
    for pair in dict.fromkeys(taught):
        _join(forward, found, pair)
    return tuple(found.values())


def teaching_pairs(forward: Forward) -> tuple[Pair, ...]:
    """(student, teacher) blobs of class scores that a loss compares, through any softmax."""
    found: list[Pair] = []
    for read in _reads(forward):
        student = read.first("student logits")
        if student is not None:
            teachers = [i for i in range(len(read.bottoms)) if read.role(i) == "teacher logits"]
        else:
            student, teachers = _stock_pair(forward, read)
        for teacher in teachers:
            names = [_scores(forward, read.bottoms[i])[0] for i in (student, teacher)]
            if all(names):
                found.append(Pair(names[0], names[1], read.gets_probabilities))
    return tuple(dict.fromkeys(found))


def _stock_pair(forward: Forward, read: _Read) -> tuple[int, list[int]]:
    """Two softmaxes under one loss, the second frozen: distillation from stock layers."""
    through = [_scores(forward, bottom)[1] for bottom in read.bottoms[:2]]
    stock = len(through) == 2 and all(through) and read.parts[1] is Part.FROZEN
    return 0, [1] if stock and read.kind.is_loss else []


def _reads(forward: Forward) -> Iterator[_Read]:
    parts = parts_of(forward)
    for index, (layer, made_by) in enumerate(
        zip(forward.net.layers, feeders(forward.net), strict=True)
    ):
        kind = layer_class(layer)
        if kind.roles and index in forward.bottoms:
            yield _Read(layer, kind, forward.bottoms[index], [parts[i] for i in made_by])


def _scores(forward: Forward, tensor: Tensor) -> tuple[str, bool]:
    """The blob of class scores behind a tensor, and whether a softmax lies between."""
    softmax = next(
        (op for op in forward.g.ops if tensor in op.outputs and op.type == "Softmax"), None
    )
    source = softmax.inputs[0] if softmax else None
    return _name(forward, source or tensor), source is not None


def _name(forward: Forward, tensor: Tensor) -> str:
    """The blob that holds a tensor at the end of the net; "" for none."""
    return next((name for name, held in forward.blobs.items() if held is tensor), "")


def _head(forward: Forward, read: _Read) -> Head | None:
    predicted = read.first("logits", "student logits", "binary logits", "values")
    compared = read.first("label", "target")
    if predicted is None or compared is None:
        return None
    role = read.role(predicted)
    kind = {"binary logits": "binary", "values": "values"}.get(role, "classes")
    if kind != "classes" and read.parts[compared] not in (Part.DATA, Part.FIXED):
        return None
    tensor, target = read.bottoms[predicted], read.bottoms[compared]
    axis = read.axis % tensor.rank if tensor.rank else 0
    name = _name(forward, tensor)
    if not name:
        return None
    return Head(name, kind, tensor, target, axis, read.ignore, read.parts[predicted])


def _join(forward: Forward, found: dict[Tensor, Head], pair: Pair) -> None:
    """Note the teacher at its student's head, and give the teacher a head of its own."""
    student, teacher, probabilities = pair
    known = {head.blob: head for head in found.values()}
    taught, scores = known.get(student), forward.blobs.get(teacher)
    if taught is None or scores is None or scores.shape != taught.tensor.shape:
        return
    found[taught.tensor] = replace(taught, teachers=(*taught.teachers, teacher))
    if scores not in found:
        makers = [i for i, layer in enumerate(forward.net.layers) if teacher in layer.tops]
        part = parts_of(forward)[makers[-1]]
        found[scores] = replace(taught, blob=teacher, tensor=scores, part=part, teachers=())
        found[scores] = replace(found[scores], probabilities=probabilities)
