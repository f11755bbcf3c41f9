"""The layers of one net as they stand in the joined net: renamed, rewired, frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kdnet.errors import NetError, fail
from kdnet.net.join.losses import Losses
from kdnet.net.join.model import Kinds, LayerKind, Member, Placed, submessages
from kdnet.net.model import LayerModel
from kdnet.schema import kdnet_pb2 as pb

HARD_LOSS, METRIC = "SoftmaxWithLoss", "Accuracy"


@dataclass
class Parts:
    """A net's layers in the joined net: what computes, what trains, what is looked at."""

    body: list[Placed] = field(default_factory=list)
    losses: list[Placed] = field(default_factory=list)
    metrics: list[Placed] = field(default_factory=list)

    @property
    def all(self) -> list[Placed]:
        """All of them."""
        return self.body + self.losses + self.metrics


def placed_parts(
    member: Member, inputs: Mapping[str, str], kinds: Kinds, shared: Sequence[str]
) -> Parts:
    """The member's layers under their joined names; ``member.blobs`` is filled on the way.

    Args:
        member: The net.
        inputs: What its data tops are called in the joined net.
        kinds: What is known of layers.
        shared: Tops of the shared data layers, which no layer may make anew.
    """
    blobs, parts = dict(inputs), Parts()
    read = {bottom for layer in member.layers for bottom in layer.bottoms}
    for layer in member.layers:
        kind = kinds.of(layer)
        message = _renamed(member, layer, blobs, shared)
        if kind.loss or kind.metric:
            ends = not read.intersection(layer.tops)
            chosen = parts.body if not ends else parts.losses if kind.loss else parts.metrics
        else:
            chosen = parts.body
            if member.fixed:
                _fix_phase(message)
        if member.frozen:
            _freeze(message, kinds.weights(layer))
        chosen.append(Placed(message, layer.source))
    member.blobs = blobs
    return parts


def _renamed(
    member: Member, layer: LayerModel, blobs: dict[str, str], shared: Sequence[str]
) -> pb.LayerParameter:
    """The layer with joined names; its tops are added to ``blobs``."""
    message = pb.LayerParameter()
    message.CopyFrom(layer.message)
    if message.name:
        message.name = member.mapping.rename(message.name)
    message.bottom[:] = [blobs.get(bottom, bottom) for bottom in layer.bottoms]
    blobs.update({top: member.fresh(top, shared) for top in layer.tops})
    message.top[:] = [blobs[top] for top in layer.tops]
    for spec in message.param:
        if spec.name:
            spec.name = member.mapping.rename(spec.name)
    return message


def _fix_phase(message: pb.LayerParameter) -> None:
    """TEST phase while training too; its rules have been applied."""
    message.ClearField("include")
    message.ClearField("exclude")
    message.phase = pb.TEST
    for spec, inner in message.ListFields():
        if (
            spec.message_type is not None
            and "use_global_stats" in spec.message_type.fields_by_name
        ):
            inner.ClearField("use_global_stats")
            if not inner.ListFields():
                message.ClearField(spec.name)


def _freeze(message: pb.LayerParameter, weights: int) -> None:
    """No training, no decay, and no filler: a file must bring the weights."""
    while len(message.param) < weights:
        message.param.add()
    for spec in message.param:
        spec.lr_mult = spec.decay_mult = 0
    for inner in [message, *submessages(message)]:
        for spec, _ in list(inner.ListFields()):
            if spec.message_type is not None and spec.message_type.name == "FillerParameter":
                inner.ClearField(spec.name)


def scale_losses(member: Member, parts: Parts, factor: float, kinds: Kinds) -> None:
    """Multiply the weights of the member's own losses; those of a frozen net are only shown."""
    factor = 0.0 if member.frozen else factor
    if factor == 1:
        return
    for one in parts.all:
        given = list(one.message.loss_weight)
        if not given and _kind(one, kinds).loss:
            given = [1.0] + [0.0] * (len(one.message.top) - 1)
        if any(given):
            one.message.loss_weight[:] = [factor * weight for weight in given]


def _kind(one: Placed, kinds: Kinds) -> LayerKind:
    message = one.message
    return kinds.of(LayerModel(message.name, message.type, (), (), 0, message, one.source))


def added_loss(member: Member, factor: float, losses: Losses) -> list[Placed]:
    """The loss of a deploy net: what its class scores say against the labels.

    Raises:
        NetError: missing-label.
    """
    if not member.logits or factor == 0:
        return []
    if not losses.label:
        text = f"{member.name}: there are no labels for a loss of its own"
        hint = ("say lambda 1 to learn from the teacher alone",)
        fail(NetError, "missing-label", text, span=member.span("net"), help=hint)
    name = losses.name(member.mapping.rename("loss"))
    message = pb.LayerParameter(name=name, type=HARD_LOSS, top=[name])
    message.bottom[:] = [member.blobs[member.logits], losses.label]
    if factor != 1:
        message.loss_weight.append(factor)
    return [Placed(message, member.at)]


def added_metrics(
    member: Member, parts: Parts, models: Sequence[Placed], losses: Losses, kinds: Kinds
) -> list[Placed]:
    """The metrics of a deploy net, or of one that is asked for them and has none.

    They are the first student's, or else the accuracy in TEST phase.
    """
    own = any(kinds.of(layer).loss for layer in member.layers)
    wanted = member.keeps("metrics") and (member.entry.HasField("keep_metrics") or not own)
    if parts.metrics or not wanted or not (member.logits and losses.label):
        return []
    plain = pb.LayerParameter(name="accuracy", type=METRIC, top=["accuracy"])
    plain.bottom[:] = ["", losses.label]
    plain.include.add(phase=pb.TEST)
    found = []
    for model in models or [Placed(plain, member.at)]:
        message = pb.LayerParameter()
        message.CopyFrom(model.message)
        kind = _kind(model, kinds)
        for index in range(len(message.bottom)):
            if kind.role(index) != "label":
                message.bottom[index] = member.blobs[member.logits]
        message.name = losses.name(f"{member.name}_{model.message.name}".replace("/", "_"))
        message.top[:] = [message.name, *(f"{message.name}/{top}" for top in message.top[1:])]
        found.append(Placed(message, member.at))
    return found
