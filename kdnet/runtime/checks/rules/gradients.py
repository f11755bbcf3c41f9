"""Losses that pull with very different strength."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from kdnet.errors import Diagnostic, Note
from kdnet.runtime.checks.registry import Subject, rule, warning

RATIO = 10.0


@rule("unbalanced-losses")
def unbalanced_losses(subject: Subject) -> Iterator[Diagnostic]:
    """Two losses whose gradients, on the weights that both move, differ by more than 10 times.

    Norms are root mean squares over the sampled batches, at each loss's own weight. One that a
    schedule starts at 0 has not begun to pull.
    """
    if subject.sample is None:
        return
    probe, layers, moved = subject.probe, {}, set()
    for loss in probe.forward.losses:
        for top in loss.layer.tops or (loss.layer.name,):
            layers[top] = loss.layer
            if loss.scheduled is not None:
                moved.add(top)
    for one, other in combinations(subject.sample.squares, 2):
        norms = _norms(subject, one, other)
        if norms is None or min(norms) * RATIO >= max(norms):
            continue
        weak, strong = (one, other) if norms[0] < norms[1] else (other, one)
        if min(norms) == 0 and weak in moved:
            continue
        low, high = sorted(norms)
        times = f"{high / low:.3g} times" if low else "infinitely"
        text = (
            f'the gradient of "{strong}" is {times} as large as that of "{weak}" at the start '
            f"(norms {high:.3g} and {low:.3g} on the weights that both move)"
        )
        note = Note(f'"{weak}" is made here', layers[weak].position)
        hint = "look at the two loss_weight, or move one with a schedule in the solver"
        at = layers[strong].position
        yield warning("unbalanced-losses", text, at, hint, notes=(note,))


def _norms(subject: Subject, one: str, other: str) -> tuple[float, float] | None:
    """The two gradient norms over the common weights; None where there are none."""
    if subject.sample is None:
        return None
    reached, squares = subject.probe.reached, subject.sample.squares
    common = set(reached[one]) & set(reached[other])
    if not common:
        return None
    found = []
    for name in (one, other):
        mine = np.array([tensor in common for tensor in reached[name]])
        found.append(float(np.sqrt(squares[name][mine].sum())))
    return found[0], found[1]
