"""What the students learn from: losses between blobs, and teachers that speak as one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdnet.errors import NetError, did_you_mean, fail
from kdnet.net.join.heads import require_logits
from kdnet.net.join.model import (
    STUDENT,
    TEACHER,
    Kinds,
    LayerKind,
    Member,
    Placed,
    listed,
    model_of,
    noted,
)
from kdnet.schema import Located, SourceMap
from kdnet.schema import kdnet_pb2 as pb

DEFAULT_LAMBDA = 0.9
Combine = pb.JoinParameter.Combine


@dataclass(frozen=True)
class Wanted:
    """A loss of the description, its type's kind, and where it was written."""

    entry: pb.JoinLossParameter
    at: SourceMap
    kind: LayerKind

    @property
    def on_logits(self) -> bool:
        """Whether it lies between class scores, so that lambda weighs it."""
        return not (self.entry.student or self.entry.teacher)

    @property
    def alone(self) -> bool:
        """Whether the type has no bottom for a teacher."""
        roles = self.kind.roles
        return bool(roles) and all(_side(role, 0) != TEACHER for role in roles)

    @property
    def by_lambda(self) -> bool:
        """Whether lambda is its weight."""
        return self.on_logits and not self.entry.HasField("weight")


@dataclass(frozen=True)
class Voice:
    """A blob that speaks for one teacher or several, and its share of a loss's weight."""

    name: str
    blob: str
    share: float


@dataclass
class Losses:
    """The layers that a join adds, and the names that are taken."""

    join: Located[pb.JoinParameter]
    members: Sequence[Member]
    label: str = ""
    flat: Collection[str] = ()
    taken: set[str] = field(default_factory=set)
    ensembles: list[Placed] = field(default_factory=list)
    layers: list[Placed] = field(default_factory=list)
    made: dict[float, Voice] = field(default_factory=dict)
    compared: list[tuple[Member, Member]] = field(default_factory=list)

    @property
    def distillation_weight(self) -> float:
        """Lambda."""
        given = self.join.message
        known = given.HasField("distillation_weight")
        return float(given.distillation_weight) if known else DEFAULT_LAMBDA

    def of(self, role: str) -> list[Member]:
        """The members of one role."""
        return [member for member in self.members if member.role == role]

    def name(self, wanted: str) -> str:
        """A name that no layer has."""
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        return name


def wanted_losses(join: Located[pb.JoinParameter], kinds: Kinds) -> list[Wanted]:
    """The losses of the description; without any, soft targets if there is a teacher.

    Raises:
        NetError: not-a-loss.
        LayerError: unknown-layer-type.
    """
    entries = [(entry, join.source.at(("loss", i))) for i, entry in enumerate(join.message.loss)]
    if not entries and join.message.teacher:
        entries = [(pb.JoinLossParameter(), join.source)]
    found = []
    for entry, at in entries:
        kind = kinds.of(model_of(pb.LayerParameter(name="loss", type=entry.type), at))
        if not kind.loss:
            text = f'"{entry.type}" is no loss layer'
            fail(NetError, "not-a-loss", text, span=at.span(("type",)))
        found.append(Wanted(entry, at, kind))
    return found


def add_losses(losses: Losses, wanted: Sequence[Wanted]) -> None:
    """One layer for each loss, student and teacher.

    Raises:
        NetError: missing-logits, unknown-blob, no-teacher, bad-share, loss-arity.
    """
    for loss in wanted:
        before = len(losses.layers)
        for student in losses.of(STUDENT):
            if loss.on_logits:
                _on_logits(losses, loss, student)
            else:
                _on_blobs(losses, loss, student)
        if len(losses.layers) == before:
            _no_pair(losses, loss)


def _on_logits(losses: Losses, loss: Wanted, student: Member) -> None:
    require_logits(student)
    scores = student.scores
    if loss.alone:
        _add(losses, loss, (student.name, ""), ([scores], []), _weight(losses, loss))
        return
    if not losses.of(TEACHER):
        text = f'a "{loss.entry.type}" between logits needs a teacher'
        hint = ("name its blobs, student and teacher, to join students with one another",)
        fail(NetError, "no-teacher", text, span=loss.at.span(("type",)), help=hint)
    losses.compared += [(student, teacher) for teacher in losses.of(TEACHER)]
    for voice in _voices(losses, loss):
        weight = _weight(losses, loss) * voice.share
        _add(losses, loss, (student.name, voice.name), ([scores], [voice.blob]), weight)


def _on_blobs(losses: Losses, loss: Wanted, student: Member) -> None:
    """Where the student has the blobs: a loss against each other net that has its blobs."""
    own = _all_blobs(student, list(loss.entry.student))
    if own is None:
        return
    others = [member for member in losses.members if member is not student]
    for group in (losses.of(TEACHER), [m for m in others if m.role == STUDENT], [student]):
        found = [(m, _all_blobs(m, list(loss.entry.teacher))) for m in group]
        pairs = [(member, blobs) for member, blobs in found if blobs is not None]
        for member, blobs in pairs:
            names = (student.name, member.name)
            _add(losses, loss, names, (own, blobs), _weight(losses, loss))
        if pairs:
            return


def _all_blobs(member: Member, names: list[str]) -> list[str] | None:
    """Joined names of the member's blobs, its logits for none; None if it lacks one."""
    if not names:
        return [member.scores] if member.logits else None
    found = [member.joined_blob(name) for name in names]
    return [blob for blob in found if blob] if all(found) else None


def _no_pair(losses: Losses, loss: Wanted) -> None:
    """Say which blob no net has."""
    for side, members in ((STUDENT, losses.of(STUDENT)), (TEACHER, losses.members)):
        known = list(dict.fromkeys(top for member in members for top in member.tops))
        for index, name in enumerate(getattr(loss.entry, side)):
            if not any(member.joined_blob(name) for member in members):
                text = f'{side} "{name}": no {side} has such a blob'
                near = did_you_mean(name, known)
                hint = near or (f"their blobs: {listed(known)}",)
                span = loss.at.span((side, index))
                fail(NetError, "unknown-blob", text, span=span, help=hint)
    student, teacher = listed(loss.entry.student), listed(loss.entry.teacher)
    text = f"no student has {student or 'logits'} while a teacher has {teacher or 'logits'}"
    fail(NetError, "unknown-blob", text, span=loss.at.span(()))


def _weight(losses: Losses, loss: Wanted) -> float:
    if loss.entry.HasField("weight"):
        return float(loss.entry.weight)
    return losses.distillation_weight if loss.on_logits else 1.0


def _add(
    losses: Losses,
    loss: Wanted,
    names: tuple[str, str],
    blobs: tuple[list[str], list[str]],
    weight: float,
) -> None:
    """One loss layer."""
    message = _message(losses, loss)
    message.bottom[:] = _bottoms(losses, loss, *blobs)
    short = "ts_loss" if loss.on_logits else f"{loss.entry.type}_loss".lower()
    several = [len(losses.of(role)) > 1 for role in (STUDENT, TEACHER)]
    parts = [name for name, many in zip(names, several, strict=True) if many and name]
    message.name = losses.name("/".join([*parts, message.name or short]))
    message.top[:] = [message.name]
    if not message.loss_weight or loss.entry.HasField("weight"):
        message.loss_weight[:] = [weight]
    losses.layers.append(Placed(message, loss.at))


def _message(losses: Losses, loss: Wanted) -> pb.LayerParameter:
    """The layer as the description wants it, with the join's temperature between logits."""
    message = pb.LayerParameter()
    message.CopyFrom(loss.entry.params)
    message.type = loss.entry.type
    params = _softened(message, loss)
    if params is not None and not params.HasField("temperature"):
        params.temperature = losses.join.message.temperature
    return message


def _softened(message: pb.LayerParameter, loss: Wanted) -> Any:
    """The parameters of a loss between logits that has a temperature, else None."""
    params = getattr(message, loss.kind.params, None)
    found = params.DESCRIPTOR.fields_by_name.get("temperature") if params is not None else None
    # A loss of several temperatures keeps its own.
    return params if found is not None and found.has_presence and loss.on_logits else None


def _temperature(losses: Losses, loss: Wanted) -> float:
    params = _softened(_message(losses, loss), loss)
    return 1.0 if params is None else float(params.temperature)


def _bottoms(losses: Losses, loss: Wanted, students: list[str], teachers: list[str]) -> list[str]:
    """The blobs in the order of the type's roles."""
    queues = {STUDENT: list(students), TEACHER: list(teachers), "label": [losses.label]}
    found: list[str] = []
    # Of a loss that takes any number of features, the student's come first, then the teacher's.
    more = max(len(students) - 1, 0) if loss.kind.levels else 0
    while queues[STUDENT] or queues[TEACHER] or len(found) < loss.kind.least:
        queue = queues[_side(loss.kind.role(max(len(found) - more, 0)), len(found))]
        if not queue or not queue[0]:
            roles = ", ".join(loss.kind.roles) or "student, teacher"
            text = (
                f'"{loss.entry.type}" reads {roles}; '
                f"{len(students)} blobs of a student and {len(teachers)} of a teacher do not fit"
            )
            fail(NetError, "loss-arity", text, span=loss.at.span(("type",)))
        found.append(queue.pop(0))
    return found


def _side(role: str, index: int) -> str:
    if role == "label":
        return role
    if role:
        return TEACHER if role.startswith(TEACHER) or role == "target" else STUDENT
    return TEACHER if index else STUDENT


def _shares(losses: Losses) -> list[float]:
    """What each teacher counts; together 1.

    Raises:
        NetError: bad-share.
    """
    teachers = losses.of(TEACHER)
    total = sum(member.entry.weight for member in teachers)
    for member in teachers:
        if member.entry.weight < 0 or not total > 0:
            text = f"{member.name}: the weights of teachers are not below 0, nor all 0"
            fail(NetError, "bad-share", text, span=member.span("weight"))
    return [member.entry.weight / total for member in teachers]


def _voices(losses: Losses, loss: Wanted) -> list[Voice]:
    """The teachers as one loss between logits hears them."""
    teachers, shares = losses.of(TEACHER), _shares(losses)
    for member in teachers:
        require_logits(member)
    scores = [member.scores for member in teachers]
    combine = losses.join.message.combine
    if combine == Combine.EACH or len(teachers) == 1:
        return [
            Voice(member.name, blob, share)
            for member, blob, share in zip(teachers, scores, shares, strict=True)
        ]
    temperature = _temperature(losses, loss) if combine == Combine.PROBABILITIES else 0.0
    if temperature not in losses.made:
        name = losses.name("teachers")
        if temperature:
            layers = _mean_probabilities(name, scores, shares, temperature)
        else:
            layers = [_mean(name, scores, shares)]
        what = f"probabilities at temperature {temperature:g}" if temperature else "logits"
        note = f"The teachers as one: the mean of their {what}."
        placed = [Placed(layer, losses.join.source) for layer in layers]
        losses.ensembles += noted(placed, note)
        losses.made[temperature] = Voice("", name, 1.0)
    return [losses.made[temperature]]


def _mean(name: str, blobs: Sequence[str], shares: Sequence[float]) -> pb.LayerParameter:
    layer = pb.LayerParameter(name=name, type="Eltwise", bottom=blobs, top=[name])
    layer.eltwise_param.operation = pb.EltwiseParameter.SUM
    layer.eltwise_param.coeff[:] = shares
    return layer


def _mean_probabilities(
    name: str, blobs: Sequence[str], shares: Sequence[float], temperature: float
) -> list[pb.LayerParameter]:
    """Logits whose softmax at the temperature is the mean of the teachers' there: T · ln mean."""
    layers = []
    softs = []
    for number, blob in enumerate(blobs, start=1):
        if temperature != 1:
            scaled = f"{name}/scaled{number}"
            layers.append(_power(scaled, blob, 1 / temperature))
        else:
            scaled = blob
        soft = f"{name}/soft{number}"
        layers.append(pb.LayerParameter(name=soft, type="Softmax", bottom=[scaled], top=[soft]))
        softs.append(soft)
    layers.append(_mean(f"{name}/mean", softs, shares))
    logs = name if temperature == 1 else f"{name}/log"
    log = pb.LayerParameter(name=logs, type="Log", bottom=[f"{name}/mean"], top=[logs])
    # Where every teacher's probability underflows, ln 0 would be infinite.
    log.log_param.shift = 1e-30
    layers.append(log)
    if temperature != 1:
        layers.append(_power(name, logs, temperature))
    return layers


def _power(name: str, bottom: str, scale: float) -> pb.LayerParameter:
    layer = pb.LayerParameter(name=name, type="Power", bottom=[bottom], top=[name])
    layer.power_param.scale = scale
    return layer
