"""Sigmoid cross entropy between probabilities: the mistake of the first teacher-student nets."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, log

from kdnet.errors import Diagnostic
from kdnet.graph import Tensor
from kdnet.layers import layer_class, params_of, roles_of
from kdnet.runtime.checks.registry import Subject, rule, warning


@rule("sigmoid-over-softmax")
def sigmoid_over_softmax(subject: Subject) -> Iterator[Diagnostic]:
    """A sigmoid cross entropy whose logits are the output of a softmax.

    For probabilities x of K classes Σ_k [ln(1 + e^x) − x·t] lies between ln(1 + e) − 1 +
    (K − 1)·ln 2, a one-hot teacher matched exactly, and that plus 1. Its derivative σ(x) − t
    keeps its sign wherever t is outside [1/2, σ(1)], so the best x is the teacher's best class
    alone as soon as its lead is above σ(1) − 1/2.
    """
    forward = subject.probe.forward
    for index, layer in enumerate(forward.net.layers):
        if roles_of(layer)[:1] != ("binary logits",) or not _from_softmax(subject, index, 0):
            continue
        classes = forward.bottoms[index][0].shape[1]
        low = log(1 + exp(1)) - 1 + (classes - 1) * log(2)
        text = (
            f'layer "{layer.name}": sigmoid cross entropy of the probabilities '
            f'"{layer.bottoms[0]}"; over {classes} classes it can only lie between {low:.6g} and '
            f"{low + 1:.6g} an item, and it is least for a one-hot student wherever the teacher's "
            "best class leads by more than 0.231: the teacher's soft answers are lost"
        )
        advice = (
            "distil with TeacherStudentCrossEntropy, which takes the logits below both softmaxes"
        )
        span = layer.source.span(("bottom", 0))
        yield warning("sigmoid-over-softmax", text, span, advice)


@rule("softmax-twice")
def softmax_twice(subject: Subject) -> Iterator[Diagnostic]:
    """A loss that takes the softmax of its bottom itself, given probabilities."""
    forward = subject.probe.forward
    for index, layer in enumerate(forward.net.layers):
        if not layer_class(layer).is_loss or getattr(params_of(layer), "teacher", None):
            continue
        for bottom, role in enumerate(roles_of(layer)):
            taken = role in ("logits", "student logits", "teacher logits")
            if taken and _from_softmax(subject, index, bottom):
                text = (
                    f'layer "{layer.name}": "{layer.bottoms[bottom]}" comes out of a softmax, and '
                    f"{layer.type} takes the softmax of it once more"
                )
                span = layer.source.span(("bottom", bottom))
                yield warning("softmax-twice", text, span, "give it the logits")


def _from_softmax(subject: Subject, index: int, bottom: int) -> bool:
    forward = subject.probe.forward
    tensors: tuple[Tensor, ...] = forward.bottoms[index]
    made = (op.type for op in forward.g.ops if tensors[bottom] in op.outputs)
    return next(made, "") == "Softmax"
