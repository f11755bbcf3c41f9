"""The heads of a net: what it is asked to predict, against what, and who teaches it.

A head is found by what the losses and metrics say of their bottoms (``Layer.roles``), so any
layer that states its roles is evaluated, linted and exported without being known by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from kdnet.compile.forward import Forward
from kdnet.compile.parts import Part, parts_of
from kdnet.graph import Tensor
from kdnet.layers import class_axis, ignored_label, layer_class, params_of, roles_of
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
    bottoms: Sequence[Tensor]
    parts: Sequence[Part]

    def first(self, *roles: str) -> int | None:
        """The first bottom that has one of the roles."""
        found = (i for i, role in enumerate(roles_of(self.layer)) if role in roles)
        return next(found, None)

    @property
    def teachers(self) -> list[int]:
        """The bottoms of the teachers' class scores."""
        return [i for i, role in enumerate(roles_of(self.layer)) if role == "teacher logits"]

    @property
    def gets_probabilities(self) -> bool:
        """Whether the layer's teachers answer with probabilities."""
        params = params_of(self.layer)
        form = getattr(params, "teacher", None)
        return form is not None and form == getattr(params, "PROBABILITIES", None)


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


def tensors_of(heads: Sequence[Head]) -> dict[str, Tensor]:
    """What to watch of heads: predictions as ``head/<blob>``, targets as ``target/<blob>``."""
    found = {f"head/{head.blob}": head.tensor for head in heads}
    targets = {f"target/{head.blob}": head.target for head in heads}
    return found | {name: target for name, target in targets.items() if target is not None}


def teaching_pairs(forward: Forward) -> tuple[Pair, ...]:
    """(student, teacher) blobs of class scores that a loss compares, through any softmax."""
    found: list[Pair] = []
    for read in _reads(forward):
        student = read.first("student logits")
        if student is not None:
            teachers = read.teachers
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
    return 0, [1] if stock and layer_class(read.layer).is_loss else []


def _reads(forward: Forward) -> Iterator[_Read]:
    parts = parts_of(forward)
    for index, (layer, made_by) in enumerate(
        zip(forward.net.layers, feeders(forward.net), strict=True)
    ):
        if any(roles_of(layer)) and index in forward.bottoms:
            yield _Read(layer, forward.bottoms[index], [parts[i] for i in made_by])


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
    role = roles_of(read.layer)[predicted]
    kind = {"binary logits": "binary", "values": "values"}.get(role, "classes")
    given = read.parts[compared] in (Part.DATA, Part.FIXED)
    if kind == "values" and not given:
        return None
    if kind == "binary" and _scores(forward, read.bottoms[predicted])[1]:
        return None
    tensor, target = read.bottoms[predicted], read.bottoms[compared]
    axis = class_axis(read.layer) % tensor.rank if tensor.rank else 0
    name = _name(forward, tensor)
    if not name:
        return None
    ignored = ignored_label(read.layer)
    return Head(name, kind, tensor, target, axis, ignored, read.parts[predicted])


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
