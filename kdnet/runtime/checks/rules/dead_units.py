"""Rectifiers that never fire."""

from __future__ import annotations

from collections.abc import Iterator

from kdnet.errors import Diagnostic
from kdnet.runtime.checks.registry import Subject, rule, warning

SHARE = 0.1


@rule("dead-relu")
def dead_relu(subject: Subject) -> Iterator[Diagnostic]:
    """More than a tenth of a ReLU's units (channels) are 0 for every item of the sample."""
    sample = subject.sample
    if sample is None:
        return
    for name, layer in subject.probe.relus.items():
        units = sample.largest[name]
        dead = int((units <= 0).sum())
        if dead > SHARE * units.size:
            text = (
                f'layer "{name}": {dead} of {units.size} units ({dead / units.size:.0%}) never '
                f"fire on {sample.items} items: they get no gradient"
            )
            hint = "look at the fillers and the input's scale, or lower base_lr"
            yield warning("dead-relu", text, layer.position, hint)
