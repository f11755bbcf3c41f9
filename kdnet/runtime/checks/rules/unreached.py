"""Trained layers that no loss moves."""

from __future__ import annotations

from collections.abc import Iterator

from kdnet.errors import Diagnostic
from kdnet.runtime.checks.registry import Subject, rule, warning


@rule("no-loss-reaches")
def no_loss_reaches(subject: Subject) -> Iterator[Diagnostic]:
    """A layer with an lr_mult that is not 0, on no way back from a loss."""
    forward = subject.probe.forward
    reached = {tensor for tensors in subject.probe.reached.values() for tensor in tensors}
    told = set()
    for tensor, blob in forward.weights.items():
        if blob.lr_mult == 0 or tensor in reached or blob.layer.name in told:
            continue
        told.add(blob.layer.name)
        text = f'layer "{blob.layer.name}": no loss reaches it, so it stays as it is'
        hint = "write lr_mult: 0 if it is a teacher's, else look for the loss that it lacks"
        yield warning("no-loss-reaches", text, blob.layer.position, hint)
