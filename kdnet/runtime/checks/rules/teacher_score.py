"""A teacher that knows nothing."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

from kdnet.compile.parts import Part
from kdnet.errors import Diagnostic
from kdnet.net import last_makers
from kdnet.runtime.checks.registry import Subject, rule, warning
from kdnet.runtime.scoring import ClassifierScore

DEVIATIONS = 3.0


@rule("weak-teacher")
def weak_teacher(subject: Subject) -> Iterator[Diagnostic]:
    """A teacher whose accuracy on the sample is not above chance, 1/K, by three deviations."""
    if subject.sample is None:
        return
    net = subject.probe.forward.net
    for head in subject.probe.heads:
        score = subject.sample.scores.get(head.blob)
        if head.part is not Part.FROZEN or not isinstance(score, ClassifierScore):
            continue
        chance = 1 / head.tensor.shape[head.axis]
        margin = DEVIATIONS * sqrt(chance * (1 - chance) / score.items)
        if score.top1 <= chance + margin:
            text = (
                f'teacher "{head.blob}" is right for {score.top1:.1%} of {score.items} items, and '
                f"chance is {chance:.1%}"
            )
            hint = (
                "are its weights loaded, its input scaled as when it was trained, the labels its?"
            )
            at = net.layers[last_makers(net)[head.blob]].position
            yield warning("weak-teacher", text, at, hint)
