"""Reads the nets of a join: their files, their names, and the rules that rename them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kdnet.errors import Diagnostic, Faults, NetError, Note, Span, UsageError, fail
from kdnet.net.join.model import PHASES, STUDENT, TEACHER, Kinds, Member, model_of, unique
from kdnet.net.model import LayerModel
from kdnet.net.rename import NAME_FIELD, Mapping, parse_rules
from kdnet.net.solver import find_path
from kdnet.net.state import NetState, is_included
from kdnet.schema import Located, SourceMap
from kdnet.schema import kdnet_pb2 as pb


def read_members(join: Located[pb.JoinParameter], file: str, kinds: Kinds) -> list[Member]:
    """The nets of a join, teachers first.

    Args:
        join: The description.
        file: Its file, beside which nets are looked for; "" for none.
        kinds: What is known of layers.

    Raises:
        NetError: no-student, missing-net, name-clash, empty-net.
        WeightsError: unmatched-mapping, rename-collision.
        UsageError: bad-mapping.
    """
    if not join.message.student:
        fail(NetError, "no-student", "a join needs at least one student", span=_start(join))
    members = [
        _read(join, file, kinds, role, index)
        for role in (TEACHER, STUDENT)
        for index in range(len(getattr(join.message, role)))
    ]
    seen: dict[str, Member] = {}
    for member in members:
        if seen.setdefault(member.name, member) is not member:
            text = f'two nets of the join are called "{member.name}"'
            first = (Note("the other one is here", seen[member.name].span("name")),)
            fail(NetError, "name-clash", text, span=member.span("name"), notes=first)
    return members


def _start(join: Located[pb.JoinParameter]) -> Span | None:
    return join.source.span(())


def _read(
    join: Located[pb.JoinParameter], file: str, kinds: Kinds, role: str, index: int
) -> Member:
    entries: Sequence[pb.JoinNetParameter] = getattr(join.message, role)
    entry, at = entries[index], join.source.at((role, index))
    name = entry.name or (role if len(entries) == 1 else f"{role}{index + 1}")
    path = find_path(entry.net, file)
    if not entry.net or not Path(path).is_file():
        text = f'there is no net file "{entry.net}"' if entry.net else "no net is named"
        fail(NetError, "missing-net", f"{name}: {text}", span=at.span(("net",)))
    net = kinds.read(path)
    frozen = entry.frozen if entry.HasField("frozen") else role == TEACHER
    fixed = entry.phase == pb.TEST if entry.HasField("phase") else frozen
    alone = role == STUDENT and len(entries) == 1
    rules = tuple(entry.rename) or (NAME_FIELD if alone else f"{name}/{NAME_FIELD}",)
    layers = _layers(net, fixed=fixed)
    if not layers:
        fail(NetError, "empty-net", f'net "{path}" has no layer', span=net.source.span(()))
    data = [layer for layer in _layers(net, fixed=False) if kinds.of(layer).data]
    others = [layer for layer in layers if not kinds.of(layer).data]
    return Member(
        name=name,
        role=role,
        entry=entry,
        at=at,
        path=path,
        title=net.message.name or Path(path).stem,
        mapping=_mapping(rules, others, path, at),
        rules=rules,
        frozen=frozen,
        fixed=fixed,
        data=data,
        layers=others,
        start=layers[0].position,
        brings_weights=_brings_weights(others, kinds),
        tops=tuple(unique(top for layer in others for top in layer.tops)),
    )


def _brings_weights(layers: Sequence[LayerModel], kinds: Kinds) -> bool:
    """Whether some layers are whole models and no other one has weights."""
    whole = [kinds.of(layer).whole for layer in layers]
    others = (layer for layer, is_whole in zip(layers, whole, strict=True) if not is_whole)
    return any(whole) and not any(kinds.weights(layer) for layer in others)


def _layers(net: Located[pb.NetParameter], *, fixed: bool) -> list[LayerModel]:
    """All layers; of a net whose phase is fixed, those that TEST phase has."""
    faults = Faults(NetError)
    states = [NetState(phase).merged(net.message.state) for phase in PHASES]
    found = []
    for index, message in enumerate(net.message.layer):
        at = net.source.at(("layer", index))
        if not fixed or is_included(message, states[1], at, faults):
            found.append(model_of(message, at, pb.TEST if fixed else pb.TRAIN))
    faults.raise_if_any()
    return found


def _mapping(
    rules: tuple[str, ...], layers: Sequence[LayerModel], path: str, at: SourceMap
) -> Mapping:
    """The rules, with the place of each in the description, checked against the net's layers."""
    span = at.span(("rename",)) if at.child("rename") else None
    try:
        mapping = parse_rules(rules)
    except UsageError as error:
        raise UsageError(*(replace(fault, span=span) for fault in error.diagnostics)) from None
    names = unique(layer.name for layer in layers if layer.name)
    faults = [_with_span(fault, span) for fault in mapping.unmatched(names, f'"{path}"')]
    if faults:
        raise NetError(*faults)
    lenient = replace(mapping, strict=False)
    lenient.resolve(names)
    return lenient


def _with_span(fault: Diagnostic, span: Span | None) -> Diagnostic:
    return replace(fault, span=fault.span or span)


def check_clashes(members: Sequence[Member]) -> None:
    """Refuse nets whose layers, blobs or shared weights would get one name.

    Raises:
        NetError: name-clash, one for each pair of nets.
    """
    faults = Faults(NetError)
    for position, member in enumerate(members):
        for other in members[:position]:
            clash = _clash(other, member)
            if clash is not None:
                faults.add(clash)
    faults.raise_if_any()


def _clash(first: Member, second: Member) -> Diagnostic | None:
    for what in ("layer", "blob", "shared weight"):
        known = _names(first, what)
        both = {new: span for new, span in _names(second, what).items() if new in known}
        if both:
            new, span = next(iter(both.items()))
            more = f" (and {len(both) - 1} more)" if len(both) > 1 else ""
            return Diagnostic(
                "name-clash",
                f'{first.name} and {second.name} would both have a {what} "{new}"{more}',
                span,
                (Note(f"it is in {first.name} here", known[new]),),
                (f'rename one of the nets, for example to "{second.name}/{NAME_FIELD}"',),
            )
    return None


def _names(member: Member, what: str) -> dict[str, Span | None]:
    """New names of one sort, and where each was written in the net."""
    found: dict[str, Span | None] = {}
    inputs = {top for layer in member.data for top in layer.tops} if what == "blob" else set()
    for layer in member.layers:
        for old, span in _named(layer, what):
            if old and old not in inputs:
                found.setdefault(member.mapping.rename(old), span)
    return found


def _named(layer: LayerModel, what: str) -> list[tuple[str, Span | None]]:
    source = layer.source
    if what == "layer":
        return [(layer.name, source.span(("name",)))]
    if what == "blob":
        return [(top, source.span(("top", index))) for index, top in enumerate(layer.tops)]
    specs = enumerate(layer.message.param)
    return [(spec.name, source.span(("param", index, "name"))) for index, spec in specs]
