"""From unmodified nets to one in which students learn from teachers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kdnet.errors import NetError, fail
from kdnet.net.join.data import Wiring, choose_provider, label_of, provided, wire_data
from kdnet.net.join.heads import find_logits, strip
from kdnet.net.join.layers import Parts, added_loss, added_metrics, placed_parts, scale_losses
from kdnet.net.join.losses import Losses, Wanted, add_losses, wanted_losses
from kdnet.net.join.members import check_clashes, read_members
from kdnet.net.join.model import TEACHER, Kinds, Member, Placed, noted, unique
from kdnet.schema import Located, SourceMap
from kdnet.schema import kdnet_pb2 as pb

FLATTEN = "Flatten"


@dataclass(frozen=True)
class Joined:
    """A joined net.

    Attributes:
        name: The net's name.
        layers: Its layers in order, with the comments that explain them.
        members: The nets it was made of, teachers first; their ``mapping`` renames weights.
        compared: Pairs of student and teacher whose class scores a loss compares.
        added: Names of the layers that the join made of several nets: losses and means.
    """

    name: str
    layers: tuple[Placed, ...]
    members: tuple[Member, ...]
    compared: tuple[tuple[Member, Member], ...]
    added: frozenset[str]

    @property
    def net(self) -> Located[pb.NetParameter]:
        """The net; each layer keeps its place in the file it comes from."""
        message = pb.NetParameter(name=self.name, layer=[one.message for one in self.layers])
        places = SourceMap.sequence([one.source for one in self.layers])
        return Located(message, SourceMap(None, {"layer": places}))


def join(
    description: Located[pb.JoinParameter],
    file: str,
    kinds: Kinds,
    flat: Collection[str] = (),
) -> Joined:
    """Join the nets of a description.

    Data layers come first, then the teachers, the students, the losses, and the metrics.

    Args:
        description: What to join; made from flags, it has no places.
        file: The description's file; "" for none.
        kinds: What a loss, a data layer, a metric is, and how many weights a layer has.
        flat: Names of nets whose class scores are flattened to (N, classes) for the losses.

    Raises:
        SchemaError: a net cannot be read.
        NetError: bad-lambda, and what the ``join_*`` modules find that the nets lack.
        LayerError: unknown-layer-type.
    """
    weight = description.message.distillation_weight
    if not 0 <= weight <= 1:
        text = f"lambda must be from 0 to 1, not {weight:g}"
        span = description.source.span(("distillation_weight",))
        fail(NetError, "bad-lambda", text, span=span)
    members = read_members(description, file, kinds)
    wanted = wanted_losses(description, kinds)
    for member in members:
        find_logits(member, kinds)
        if _mute(member, wanted):
            member.logits = ""
    provider = choose_provider(description, members, kinds)
    label = label_of(provider, kinds)
    for member in members:
        strip(member, kinds, _used(member, wanted))
    check_clashes(members)
    losses = Losses(description, members, label, flat)
    return _assembled(losses, provider, wanted, kinds)


def _mute(member: Member, wanted: Sequence[Wanted]) -> bool:
    """Whether nothing reads a frozen net's class scores: they would be computed to be printed."""
    asked = bool(member.entry.logits) or member.keeps("metrics") or member.keeps("losses")
    heard = not wanted or any(not (loss.alone or loss.entry.teacher) for loss in wanted)
    return member.frozen and not (asked or heard)


def _used(member: Member, wanted: Sequence[Wanted]) -> list[str]:
    """Blobs of a member that losses name, by its own names or by the joined ones."""
    named = {name for loss in wanted for name in (*loss.entry.student, *loss.entry.teacher)}
    return [top for top in member.tops if {top, member.mapping.rename(top)} & named]


def _assembled(losses: Losses, provider: Member, wanted: Sequence[Wanted], kinds: Kinds) -> Joined:
    members, shared = losses.members, unique(t for one in provider.data for t in one.tops)
    wirings = [wire_data(member, provider, kinds) for member in members]
    parts = [
        placed_parts(member, wiring.blobs, kinds, shared)
        for member, wiring in zip(members, wirings, strict=True)
    ]
    losses.taken = {*shared, *(one.message.name for part in parts for one in part.all)}
    weighs = any(loss.by_lambda for loss in wanted)
    factor = 1 - losses.distillation_weight if weighs else 1.0
    for member, part in zip(members, parts, strict=True):
        _set_scores(losses, member, part)
        _add_heads(losses, member, part, factor, kinds)
    first = next((p.metrics for m, p in zip(members, parts, strict=True) if p.metrics), [])
    for member, part in zip(members, parts, strict=True):
        part.metrics += added_metrics(member, part, first, losses, kinds)
    add_losses(losses, wanted)
    layers = provided(provider)
    for index, (member, wiring, part) in enumerate(zip(members, wirings, parts, strict=True)):
        if index == len(losses.of(TEACHER)):
            layers += losses.ensembles
        layers += [*wiring.layers, *noted(part.body, _about(member, wiring))]
    layers += noted([one for part in parts for one in part.losses], "What the labels say.")
    layers += noted(losses.layers, "What the nets learn from one another.")
    layers += noted([one for part in parts for one in part.metrics], "How good they are.")
    name = losses.join.message.name or _title(members)
    added = frozenset(one.message.name for one in (*losses.ensembles, *losses.layers))
    return Joined(name, tuple(layers), tuple(members), tuple(losses.compared), added)


def _set_scores(losses: Losses, member: Member, part: Parts) -> None:
    """The member's class scores for losses between logits, flattened where that is wanted."""
    member.scores = member.blobs.get(member.logits, "")
    if member.scores and member.name in losses.flat:
        flat = losses.name(f"{member.scores}/flat")
        layer = pb.LayerParameter(name=flat, type=FLATTEN, bottom=[member.scores], top=[flat])
        note = "The class scores as (N, classes), as the other nets have them."
        part.body.append(Placed(layer, member.at, note))
        member.scores = flat


def _add_heads(losses: Losses, member: Member, part: Parts, factor: float, kinds: Kinds) -> None:
    scale_losses(member, part, factor, kinds)
    if not part.losses and member.keeps("losses"):
        part.losses += added_loss(member, factor, losses)


def _about(member: Member, wiring: Wiring) -> str:
    facts = [f"{member.name}: {member.path}."]
    if member.frozen and member.brings_weights:
        facts.append("Frozen, with the weights of its model.")
    elif member.frozen:
        facts.append(
            "Frozen: lr_mult and decay_mult 0; no fillers, a file must bring its weights."
        )
    if member.fixed:
        facts.append("TEST phase while training too: stored statistics, no Dropout.")
    if member.logits:
        facts.append(f"Class scores: {member.blobs[member.logits]}.")
    if not (member.frozen or member.entry.weights) and member.bare:
        what = ", ".join(member.bare)
        facts.append(
            f"Without a weight_filler weights start at 0, unless a file has them: {what}."
        )
    if wiring.layers:
        facts.append("It reads its own view of the records.")
    return " ".join(facts)


def _title(members: Sequence[Member]) -> str:
    """Such as VGG16ToAlexNet."""
    teachers = "And".join(member.title for member in members if member.role == TEACHER)
    students = "And".join(member.title for member in members if member.role != TEACHER)
    return f"{teachers}To{students}" if teachers else students
