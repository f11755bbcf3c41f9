"""The score of each head: one frozen value, whose fields are the lines of a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile.heads import Head
from kdnet.compile.parts import Part
from kdnet.runtime.scoring import metrics
from kdnet.runtime.scoring.collect import Collector

Array = NDArray[Any]
QUANTILES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class ClassifierScore:
    """A head with classes.

    Attributes:
        blob: its scores.
        teacher: whether the head stands still while the net trains.
        items: predictions that were counted: those that have a class.
        top1: share of items whose label has the best score.
        top5: share of items whose label is among the five best; None below six classes.
        loss: cross entropy of the labels, in nats.
        ece: expected calibration error over 15 bins.
        temperature: the temperature that minimises the loss.
        calibrated_loss: the loss at that temperature.
        calibrated_ece: the calibration error at that temperature.
        threshold: the largest probability below which an input counts as of no class: it keeps
            95% of the rightly classified items; None where none is.
        outsiders: items whose label is the ignored one: inputs of no class.
        outsiders_rejected: share of them below the threshold; None where there are none.
        outsiders_auroc: chance that an item of a class is more confident than an outsider.
        agreement: by teacher, the share of items with the same best class.
        divergence: by teacher, mean KL(teacher ‖ this head) at temperature 1, in nats.
    """

    blob: str
    teacher: bool
    items: int
    top1: float
    top5: float | None
    loss: float
    ece: float
    temperature: float
    calibrated_loss: float
    calibrated_ece: float
    threshold: float | None
    outsiders: int = 0
    outsiders_rejected: float | None = None
    outsiders_auroc: float | None = None
    agreement: dict[str, float] = field(default_factory=dict)
    divergence: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BinaryScore:
    """A head of independent yes-or-no entries: how many have a target, and how many are right.

    Entries with a target of 0.5 or more count as yes; ``loss`` is the mean cross entropy. Targets
    may be a teacher's probabilities: then both tell how well it is followed.
    """

    blob: str
    teacher: bool
    entries: int
    accuracy: float
    loss: float


@dataclass(frozen=True)
class ReconstructionScore:
    """An auto-encoder: mean squared errors of its items.

    ``quantiles`` are by share of items; ``threshold`` is the 95% quantile, above which an input
    counts as unlike the data.
    """

    blob: str
    items: int
    mean: float
    quantiles: dict[str, float]
    largest: float
    threshold: float


HeadScore = ClassifierScore | BinaryScore | ReconstructionScore


def score_head(head: Head, found: Collector) -> HeadScore | None:
    """The score of a head; None where no item has a target, or where some are not finite."""
    rows, targets = found.rows(head.blob), found.targets(head.blob)
    if not np.isfinite(rows).all():
        return None
    if head.kind == "values":
        return _reconstruction(head, rows)
    if targets is None:
        return None
    if head.kind == "binary":
        return _binary(head, rows, targets)
    return _classifier(head, rows, targets, found)


def not_finite(head: Head, found: Collector) -> tuple[int, int]:
    """How many of a head's rows have an infinity or no number, and how many rows there are."""
    rows = found.rows(head.blob)
    bad = ~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    return int(bad.sum()), len(rows)


def _reconstruction(head: Head, errors: Array) -> ReconstructionScore:
    levels = {f"{level:g}": float(np.quantile(errors, level)) for level in QUANTILES}
    return ReconstructionScore(
        head.blob,
        len(errors),
        float(errors.mean()),
        levels,
        float(errors.max()),
        levels[f"{metrics.KEPT:g}"],
    )


def _binary(head: Head, logits: Array, targets: Array) -> BinaryScore | None:
    counted = (targets >= 0) & (targets <= 1)
    if head.ignore is not None:
        counted &= targets != head.ignore
    if not counted.any():
        return None
    x, t = logits[counted], targets[counted]
    right = float(((x > 0) == (t >= 0.5)).mean())
    loss = metrics.binary_cross_entropy(x, t)
    return BinaryScore(head.blob, head.part is not Part.MOVING, len(x), right, loss)


def _classifier(
    head: Head, rows: Array, labels: Array, found: Collector
) -> ClassifierScore | None:
    known = (labels >= 0) & (labels < rows.shape[1])
    if head.ignore is not None:
        known &= labels != head.ignore
    if not known.any():
        return None
    scores, own = rows[known], labels[known]
    temperature = metrics.fitted_temperature(scores, own)
    confidence = metrics.confidences(rows)
    threshold = metrics.rejection_threshold(confidence[known], scores.argmax(axis=1) == own)
    outside = confidence[~known]
    rejected = None
    if len(outside) and threshold is not None:
        rejected = float((outside < threshold).mean())
    others = {teacher: found.rows(teacher)[known] for teacher in head.teachers}
    return ClassifierScore(
        blob=head.blob,
        teacher=head.part is not Part.MOVING,
        items=len(own),
        top1=metrics.top_k(scores, own, 1),
        top5=metrics.top_k(scores, own, 5) if rows.shape[1] > 5 else None,
        loss=metrics.cross_entropy(scores, own),
        ece=metrics.calibration_error(scores, own),
        temperature=temperature,
        calibrated_loss=metrics.cross_entropy(scores / temperature, own),
        calibrated_ece=metrics.calibration_error(scores / temperature, own),
        threshold=threshold,
        outsiders=len(outside),
        outsiders_rejected=rejected,
        outsiders_auroc=metrics.ranking_area(confidence[known], outside) if len(outside) else None,
        agreement={name: metrics.agreement(scores, rows) for name, rows in others.items()},
        divergence={name: metrics.divergence(rows, scores) for name, rows in others.items()},
    )
