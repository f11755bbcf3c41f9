"""Rectifiers that never fire."""

from __future__ import annotations

from collections.abc import Iterator

from kdnet.errors import Diagnostic, Note
from kdnet.net import LayerModel
from kdnet.runtime.checks.registry import Subject, rule, warning

SHARE = 0.1
APART = 3
"""Of so many layers each is told of its own."""

_HINT = "look at the fillers and the input's scale, or lower base_lr"


@rule("dead-relu")
def dead_relu(subject: Subject) -> Iterator[Diagnostic]:
    """More than a tenth of a ReLU's units (channels) are 0 for every item of the sample.

    Of made-up data nothing is said: which units fire on noise tells nothing.
    """
    sample = subject.sample
    if sample is None or any(layer.stand_in for layer in subject.probe.forward.net.layers):
        return
    found: list[tuple[LayerModel, str]] = []
    for name, layer in subject.probe.relus.items():
        units = sample.largest[name]
        dead = int((units <= 0).sum())
        if dead > SHARE * units.size:
            share = f"{dead / units.size:.0%}"
            found.append((layer, f'layer "{name}": {dead} of {units.size} units ({share})'))
    never = f"never fire on {sample.items} items: they get no gradient"
    if len(found) <= APART:
        for layer, which in found:
            yield warning("dead-relu", f"{which} {never}", layer.position, _HINT)
        return
    notes = tuple(Note(which) for _, which in found)
    text = f"units of {len(found)} layers {never}"
    yield warning("dead-relu", text, found[0][0].position, _HINT, notes=notes)
