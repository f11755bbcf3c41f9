"""Trained layers that no loss moves."""

from __future__ import annotations

from collections.abc import Iterator

from kdnet.errors import Diagnostic
from kdnet.net import LayerModel
from kdnet.runtime.checks.registry import Subject, rule, warning

APART = 3
"""Of so many layers each is told of its own."""


@rule("no-loss-reaches")
def no_loss_reaches(subject: Subject) -> Iterator[Diagnostic]:
    """A layer with an lr_mult that is not 0, on no way back from a loss."""
    forward = subject.probe.forward
    reached = {tensor for tensors in subject.probe.reached.values() for tensor in tensors}
    unmoved: dict[str, LayerModel] = {}
    for tensor, blob in forward.weights.items():
        if blob.lr_mult != 0 and tensor not in reached:
            unmoved[blob.layer.name] = blob.layer
    layers = list(unmoved.values())
    if layers and not forward.losses:
        yield _without_loss(layers)
    elif len(layers) > APART:
        yield _many(layers)
    else:
        yield from (_one(layer) for layer in layers)


def _one(layer: LayerModel) -> Diagnostic:
    text = f'layer "{layer.name}": no loss reaches it, so it stays as it is'
    return warning("no-loss-reaches", text, layer.position, _HINT)


def _many(layers: list[LayerModel]) -> Diagnostic:
    first, last = layers[0].name, layers[-1].name
    text = f'no loss reaches {len(layers)} layers, "{first}" to "{last}", so they stay as they are'
    return warning("no-loss-reaches", text, layers[0].position, _HINT)


def _without_loss(layers: list[LayerModel]) -> Diagnostic:
    text = f"the net has no loss: none of its {len(layers)} layers with weights is trained"
    hint = "a deploy net is for kdnet summarize, test, time and classify"
    return warning("no-loss-reaches", text, layers[0].position, hint)


_HINT = "write lr_mult: 0 if it is a teacher's, else look for the loss that it lacks"
