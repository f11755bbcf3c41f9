"""The branches of a net: each the blob that a student or a teacher is used for, and its layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from kdnet.compile.forward import Forward
from kdnet.errors import Diagnostic, NetError, Note, Span, UsageError, did_you_mean
from kdnet.layers import (
    class_axis,
    ignored_label,
    is_data,
    layer_class,
    params_of,
    roles_of,
)
from kdnet.net import LayerModel, NetModel, feeders, last_makers, upstream
from kdnet.net.extract import cut_net

CLASSIFIER_ROLES = frozenset(
    {"logits", "student logits", "teacher logits", "binary logits", "probabilities"}
)
LABEL = "label"


@dataclass(frozen=True)
class Label:
    """Where a head's true classes are: the data top, the class axis, and a label to pass over."""

    blob: str
    axis: int
    ignore: int | None


@dataclass(frozen=True)
class Branch:
    """A blob that losses and metrics take from a net, and the layers that make it.

    ``layers`` are indices in the TEST net, data layers among them; ``weighted`` the names of those
    that have weights. ``trained`` tells a student, of which the solver changes a weight, from a
    teacher. ``axis`` is the class axis as its readers state it.
    """

    blob: str
    roles: frozenset[str]
    layers: tuple[int, ...]
    weighted: frozenset[str]
    trained: bool
    axis: int = 1
    label: Label | None = None
    span: Span | None = field(default=None, compare=False)

    @property
    def classifies(self) -> bool:
        """Whether a reader takes it for scores of classes."""
        return bool(self.roles & CLASSIFIER_ROLES)

    def net(self, test: NetModel) -> NetModel:
        """The part of the TEST net that makes it."""
        return cut_net(test, self.layers, self.blob)


@dataclass(frozen=True)
class _Reading:
    """One bottom of a loss or a metric: the blob, its role, who reads it, and who made it."""

    blob: str
    role: str
    layer: LayerModel
    maker: int | None


def find_heads(test: Forward, train: Forward) -> tuple[Branch, ...]:
    """Every head of a net, in the order in which the TEST net makes them.

    A classifier's scores count before features, values and targets that share weights with them;
    of blobs that are functions of each other without weights, logits before probabilities, the
    first counts. A net without a loss has its unread blobs for heads.

    Args:
        test: the net in TEST phase, traced.
        train: the net in TRAIN phase, traced: it says what is trained.
    """
    readings = _all_readings(test, train)
    by_blob: dict[str, list[_Reading]] = {}
    for reading in readings:
        if reading.maker is not None and reading.role != LABEL:
            by_blob.setdefault(reading.blob, []).append(reading)
    if not by_blob:
        makers = last_makers(test.net)
        found = [_head(test, train, blob, makers[blob], ()) for blob in test.net.outputs]
    else:
        found = [
            _head(test, train, blob, max(r.maker or 0 for r in read), read)
            for blob, read in by_blob.items()
        ]
    heads = sorted((head for head in found if head.weighted), key=lambda head: head.layers[-1])
    return tuple(head for head in heads if not _is_second(head, heads))


def head_of_blob(test: Forward, train: Forward, blob: str) -> Branch | None:
    """The head of any blob of the TEST net, whoever reads it."""
    makers = last_makers(test.net)
    if blob not in makers or is_data(test.net.layers[makers[blob]]):
        return None
    readings = _all_readings(test, train)
    read = [found for found in readings if found.blob == blob and found.maker is not None]
    maker = max((found.maker or 0 for found in read), default=makers[blob])
    return _head(test, train, blob, maker, read)


def _all_readings(test: Forward, train: Forward) -> list[_Reading]:
    return [*_readings(test.net, test.net), *_readings(train.net, test.net)]


def _readings(net: NetModel, test: NetModel) -> Iterator[_Reading]:
    """What losses and metrics of a net read; the maker is the layer of the TEST net."""
    reads, makers = feeders(net), last_makers(test)
    known = {(layer.name, top): i for i, layer in enumerate(test.layers) for top in layer.tops}
    for index, layer in enumerate(net.layers):
        cls = layer_class(layer)
        if not (cls.is_loss or cls.is_metric) or not cls.roles:
            continue
        for place, (blob, role) in enumerate(zip(layer.bottoms, roles_of(layer), strict=True)):
            maker_name = net.layers[reads[index][place]].name
            maker = known.get((maker_name, blob), makers.get(blob))
            yield _Reading(blob, role, layer, maker)


def _head(
    test: Forward, train: Forward, blob: str, maker: int, read: Sequence[_Reading]
) -> Branch:
    layers = upstream(test.net, [maker])
    names = {test.net.layers[index].name for index in layers}
    weighted = names & {name for w in test.weights.values() for name, _ in w.users}
    moved = (w for w in train.weights.values() if w.lr_mult != 0)
    trained = names & {name for weight in moved for name, _ in weight.users}
    made = test.net.layers[maker]
    span = made.source.span(("top", made.tops.index(blob)))
    return Branch(
        blob,
        frozenset(reading.role for reading in read),
        layers,
        frozenset(weighted),
        bool(trained),
        _axis(read),
        next(_labels(test.net, read), None),
        span,
    )


def _axis(read: Iterable[_Reading]) -> int:
    """The class axis, as the first reader with such a parameter states it."""
    stating = (r.layer for r in read if hasattr(params_of(r.layer), "axis"))
    return next((class_axis(layer) for layer in stating), 1)


def _labels(test: NetModel, read: Iterable[_Reading]) -> Iterator[Label]:
    """The labels that a data layer of the TEST net feeds to readers of the head's logits."""
    tops = {top for layer in test.layers if is_data(layer) for top in layer.tops}
    for reading in read:
        roles = roles_of(reading.layer)
        if reading.role != "logits" or LABEL not in roles:
            continue
        blob = reading.layer.bottoms[roles.index(LABEL)]
        if blob in tops:
            yield Label(blob, class_axis(reading.layer), ignored_label(reading.layer))


def _is_second(head: Branch, heads: Sequence[Branch]) -> bool:
    """Whether another head stands for the same net."""
    maker = head.layers[-1]
    for other in heads:
        below = other.layers[-1] in head.layers and other is not head
        above = maker in other.layers and other is not head
        if head.classifies:
            if other.classifies and below and other.weighted == head.weighted:
                return True
        elif other.classifies and other.trained == head.trained:
            if other.weighted & head.weighted:
                return True
        elif above:
            return True
    return False


def choose_heads(
    heads: Sequence[Branch], wanted: Sequence[str], test: Forward, train: Forward
) -> list[Branch]:
    """The heads to export: the named ones, else those of all students.

    Raises:
        UsageError: unknown-head.
        NetError: no-student, with the teachers' heads as candidates.
    """
    if wanted:
        return [_named(name, heads, test, train) for name in dict.fromkeys(wanted)]
    students = [head for head in heads if head.trained]
    if students:
        return students
    text = (
        f'net "{test.net.name}" has no student: no loss or metric reads what a trained layer makes'
    )
    notes = tuple(Note(f'"{head.blob}" belongs to a teacher', head.span) for head in heads)
    hint = ("name the blob to export with --head",)
    raise NetError(Diagnostic("no-student", text, test.net.source.span(()), notes, hint))


def _named(name: str, heads: Sequence[Branch], test: Forward, train: Forward) -> Branch:
    known = next((head for head in heads if head.blob == name), None)
    found = known or head_of_blob(test, train, name)
    if found is not None and found.weighted:
        return found
    makers = last_makers(test.net)
    if found is not None:
        why = "needs no weights"
    else:
        why = "a data layer makes" if name in makers else "is no blob of the net"
    told = ", ".join(f'"{head.blob}"' for head in heads)
    hint = () if name in makers else did_you_mean(name, makers)
    heads_hint = (f"the net's heads are {told}",) if told else ()
    text = f'--head names "{name}", which {why} in phase {test.net.phase_name}'
    raise UsageError(Diagnostic("unknown-head", text, help=(*hint, *heads_hint)))
