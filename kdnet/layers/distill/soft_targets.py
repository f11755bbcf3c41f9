"""What losses between a student's and a teacher's logits share: checks, softening, scaling."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.kept import of_kept
from kdnet.layers.labels import Labels, check_labels, read_labels
from kdnet.layers.normalization import LossLayer

SMALLEST = float(np.finfo(np.float32).tiny)
STANDARDISING_EPS = 1e-7
# Far below any logit, and its exponential is 0 in either float type.
MASKED = -1e30


class SoftTargetLoss(LossLayer):
    """A loss of a student's logits, with an ``axis`` of classes among its parameters."""

    roles: ClassVar[tuple[str, ...]] = ("student logits", "teacher logits")

    @property
    def class_axis(self) -> int:
        """Where the classes are, as the parameter ``axis`` says."""
        return int(self.params.axis)

    def check_positive(self, *names: str) -> None:
        """Require parameters to be positive and finite."""
        for name in names:
            value = getattr(self.params, name)
            self.require(0 < value < float("inf"), at=name, say=f"must be positive, not {value:g}")

    def check_weights(self, *names: str) -> None:
        """Require parameters to be finite and not negative."""
        for name in names:
            value = getattr(self.params, name)
            self.require(
                0 <= value < float("inf"), at=name, say=f"must be 0 or more, not {value:g}"
            )

    def check_logits(self, student: Tensor, *teachers: Tensor, classes: int = 1) -> None:
        """The axis of the classes exists, there are enough of them, and the teachers' agree."""
        axis = self.axis(student, self.class_axis)
        self.require_shape(
            student.shape[axis] >= classes,
            bottom=0,
            say=f"logits of shape {student.shape} have {student.shape[axis]} class on axis {axis}",
            help=f"at least {classes} are needed",
        )
        for bottom, teacher in enumerate(teachers, 1):
            self.require_shape(
                student.shape == teacher.shape,
                bottom=bottom,
                say=f"teacher logits of shape {teacher.shape} for student logits of shape "
                f"{student.shape}",
                help="both bottoms must have the same shape",
            )

    def refuse_ignored(self) -> None:
        """An ignore_label makes no sense without labels."""
        if self.ignore is not None:
            span = self.model.source.span(("loss_param", "ignore_label"))
            self.fail("bad-parameter", "ignore_label: the layer reads no labels", span)

    def refuse_normalization(self, instead: str) -> None:
        """A divisor of one's choice makes no sense where the formula brings its own."""
        given = self.model.message.loss_param
        for name in ("normalization", "normalize"):
            if given.HasField(name):
                span = self.model.source.span(("loss_param", name))
                self.fail("bad-parameter", f"{name}: the loss is {instead}", span)

    def check_labelled(self, logits: Tensor, labels: Tensor) -> None:
        """One label for each prediction."""
        check_labels(self, logits, labels, self.axis(logits, self.class_axis))

    def labelled(self, g: Emitter, logits: Tensor, labels: Tensor) -> Labels:
        """Where the labels stand, announced so that they are checked when they are fed."""
        axis = self.axis(logits, self.class_axis)
        self.expect_labels(labels, logits.shape[axis], self.ignore)
        return read_labels(g, logits, labels, axis, self.ignore)

    def over_predictions(
        self,
        g: Emitter,
        terms: Tensor,
        logits: Tensor,
        *,
        ignored: Tensor | None = None,
        factor: float = 1.0,
    ) -> Tensor:
        """The sum of terms, one a prediction or one a logit, divided as loss_param says."""
        axis = self.axis(logits, self.class_axis)
        if ignored is not None:
            terms = g.where(ignored, 0.0, terms)
        return self.normalized(
            g,
            g.sum_all(of_kept(g, terms, self.kept)),
            positions=logits.size // logits.shape[axis],
            items=prod(logits.shape[:axis]),
            ignored=ignored,
            factor=factor,
        )


def times(g: Emitter, x: Tensor, factor: Tensor) -> Tensor:
    """``x · factor``, without a node for a constant 1."""
    return g.mul(x, factor if factor.value is None else float(factor.value))


def softened(g: Emitter, logits: Tensor, temperature: Tensor) -> Tensor:
    """``logits / temperature``, without a node for a constant 1."""
    if temperature.value is None:
        return g.div(logits, temperature)
    return g.mul(logits, 1.0 / float(temperature.value))


def times_t2(g: Emitter, x: Tensor, temperature: Tensor) -> Tensor:
    """``x · temperature²``, which keeps the gradient's size when the temperature changes."""
    if temperature.value is None:
        return g.mul(x, g.square(temperature))
    return g.mul(x, float(temperature.value) ** 2)


def root(g: Emitter, x: Tensor) -> Tensor:
    """``√x`` of sums of squares, whose gradient at 0 is 0 and not infinite."""
    return g.sqrt(g.maximum(x, SMALLEST))


def log_of(g: Emitter, p: Tensor) -> Tensor:
    """``ln p``, finite at 0."""
    return g.log(g.maximum(p, SMALLEST))


def standardized(g: Emitter, logits: Tensor, axis: int) -> Tensor:
    """``(z − mean) / (std + 1e-7)`` over the classes, with the unbiased standard deviation."""
    centred = g.sub(logits, g.reduce_mean(logits, [axis], keepdims=True))
    squares = g.reduce_sum(g.square(centred), [axis], keepdims=True)
    deviation = root(g, g.mul(squares, 1.0 / (logits.shape[axis] - 1)))
    return g.div(centred, g.add(deviation, STANDARDISING_EPS))
