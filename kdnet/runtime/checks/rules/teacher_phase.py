"""A teacher that is left in TRAIN phase."""

from __future__ import annotations

from collections.abc import Iterator

from kdnet.compile.forward import Forward
from kdnet.errors import Diagnostic
from kdnet.layers import layer_class, roles_of
from kdnet.net import feeders, upstream
from kdnet.runtime.checks.registry import Subject, rule, warning


@rule("teacher-in-train-phase")
def teacher_in_train_phase(subject: Subject) -> Iterator[Diagnostic]:
    """Layers that only a teacher's side of a loss needs, and that update or draw in TRAIN."""
    forward = subject.probe.forward
    own = _teachers_own(forward)
    updating = {forward.weights[weight].layer.name for weight in forward.trace.updates}
    drawing = {noise.layer for noise in forward.trace.noise}
    for index in sorted(own):
        layer = forward.net.layers[index]
        if layer.name in updating:
            what = "takes its statistics from each batch and updates those that were learned"
        elif layer.name in drawing:
            what = "draws at random, so the teacher answers differently each time"
        else:
            continue
        text = f'teacher layer "{layer.name}" ({layer.type}) runs in TRAIN phase: it {what}'
        hint = "write phase: TEST in the layer"
        yield warning("teacher-in-train-phase", text, layer.position, hint)


def _teachers_own(forward: Forward) -> set[int]:
    """Layers that lead to a teacher's bottom of a loss, and to no other bottom of any."""
    taught: set[int] = set()
    teaching: set[int] = set()
    reads = feeders(forward.net)
    for index, layer in enumerate(forward.net.layers):
        kind = layer_class(layer)
        if not (kind.is_loss or kind.is_metric):
            continue
        for role, maker in zip(roles_of(layer), reads[index], strict=True):
            teaches = kind.is_loss and (role.startswith("teacher") or role == "target")
            if kind.is_loss or teaches:
                (teaching if teaches else taught).update(upstream(forward.net, [maker]))
    return teaching - taught
