"""One data layer for all nets of a join, and each net's own view of its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kdnet.errors import NetError, Note, fail
from kdnet.net.join.model import PHASES, Kinds, Member, Placed, noted, unique
from kdnet.net.join.transforms import Affine, affine_between, deploy_transform, viewed_as
from kdnet.net.model import LayerModel
from kdnet.net.state import NetState
from kdnet.schema import Located
from kdnet.schema import kdnet_pb2 as pb

Transform = pb.TransformationParameter
Pair = tuple[int, LayerModel, Transform]


@dataclass
class Wiring:
    """How a net reaches the records: the joined name of each data top, and layers of its own."""

    blobs: dict[str, str] = field(default_factory=dict)
    layers: list[Placed] = field(default_factory=list)


def choose_provider(
    join: Located[pb.JoinParameter], members: Sequence[Member], kinds: Kinds
) -> Member:
    """The net whose data layers all nets read: the one that is named, else a student's.

    Raises:
        NetError: unknown-net, no-data-layer.
    """
    wanted = join.message.data
    able = [m for m in members if any(not kinds.of(layer).fed for layer in m.data)]
    if wanted:
        named = [member for member in members if member.name == wanted]
        if not named:
            names = ", ".join(f'"{member.name}"' for member in members)
            text = f'data names "{wanted}", but the nets of the join are {names}'
            span = join.source.span(("data",))
            fail(NetError, "unknown-net", text, span=span)
        if named[0] not in able:
            text = f'{wanted}: "{named[0].path}" has no layer that reads data'
            fail(NetError, "no-data-layer", text, span=named[0].span("net"))
        return named[0]
    # Students come last among the members, and their data is what they are to work on.
    ordered = sorted(able, key=lambda member: member.role)
    if not ordered:
        text = "none of the nets has a layer that reads data"
        hint = ("join at least one net that trains, not only deploy nets",)
        fail(NetError, "no-data-layer", text, span=members[-1].span("net"), help=hint)
    return ordered[0]


def label_of(provider: Member, kinds: Kinds) -> str:
    """The blob of labels: what a loss or metric reads as such, else the second data top."""
    tops = unique(top for layer in provider.data for top in layer.tops)
    for layer in provider.layers:
        kind = kinds.of(layer)
        for index, bottom in enumerate(layer.bottoms):
            if kind.role(index) == "label" and bottom in tops:
                return bottom
    return tops[1] if len(tops) > 1 else ""


def provided(provider: Member) -> list[Placed]:
    """The shared data layers, as they are."""
    layers = [Placed(layer.message, layer.source) for layer in provider.data]
    note = f"The records that all nets read: the data layers of {provider.path}."
    return noted(layers, note)


def wire_data(member: Member, provider: Member, kinds: Kinds) -> Wiring:
    """Give the member's data tops their shared blobs, through a view of its own where it differs.

    Raises:
        NetError: unmatched-input, input-size, unpaired-view.
    """
    read = {bottom for layer in member.layers for bottom in layer.bottoms}
    wiring = Wiring(_matched(member, provider, read))
    if member is provider and not member.entry.HasField("transform_param"):
        return wiring
    for top in [top for top in wiring.blobs if top in read]:
        _add_view(wiring, member, provider, kinds, top)
    return wiring


def _matched(member: Member, provider: Member, read: set[str]) -> dict[str, str]:
    """Tops of one name are the same; the others follow one another in order."""
    own = unique(top for layer in member.data for top in layer.tops)
    shared = unique(top for layer in provider.data for top in layer.tops)
    found = {top: top for top in own if top in shared}
    free = [top for top in shared if top not in found]
    for top in own:
        if top in found:
            continue
        if free:
            found[top] = free.pop(0)
        elif top in read:
            layer = next(layer for layer in member.data if top in layer.tops)
            text = f'{member.name}: nothing in "{provider.path}" gives what its "{top}" holds'
            span = layer.source.span(("top", layer.tops.index(top)))
            fail(NetError, "unmatched-input", text, span=span)
    return {top: found[top] for top in own if top in found}


def _add_view(wiring: Wiring, member: Member, provider: Member, kinds: Kinds, top: str) -> None:
    shared = wiring.blobs[top]
    pairs: list[Pair] = [
        (phase, theirs, wanted)
        for phase in PHASES
        if (theirs := _layer_of(provider, shared, phase)) is not None
        and theirs.tops[0] == shared
        and (wanted := _wanted(member, top, phase, theirs, kinds)) is not None
    ]
    steps = [affine_between(theirs.message.transform_param, wanted) for _, theirs, wanted in pairs]
    if all(step == Affine() for step in steps):
        return
    taken = [shared, *wiring.blobs.values()]
    blob = member.fresh(top, taken)
    wiring.blobs[top] = blob
    found = [step for step in steps if step is not None]
    if len(found) == len(steps):
        phases = [phase for phase, _, _ in pairs]
        wiring.layers += _powers(member, shared, blob, phases, found)
        return
    note = (
        f"{member.name} sees the same records with its own crop, mean or scale; draws_of makes "
        "its crops and flips agree with the others'."
    )
    second = [
        _second(member, kinds, theirs, (wanted, blob), phase)
        for phase, theirs, wanted in _apart(pairs)
    ]
    wiring.layers += noted(second, note)


def _layer_of(net: Member, top: str, phase: int) -> LayerModel | None:
    """The data layer that makes a top in a phase."""
    state = NetState(phase)
    for layer in net.data:
        rules = layer.message.include
        here = any(state.meets(rule) for rule in rules) if rules else True
        if top in layer.tops and here and not any(map(state.meets, layer.message.exclude)):
            return layer
    return None


def _wanted(
    member: Member, top: str, phase: int, theirs: LayerModel, kinds: Kinds
) -> pb.TransformationParameter | None:
    """How the member is to see what the shared layer reads; None where it does not say."""
    if member.entry.HasField("transform_param"):
        return viewed_as(member.entry.transform_param, theirs.message.transform_param)
    own = _layer_of(member, top, phase) or _layer_of(member, top, PHASES[0])
    own = own or _layer_of(member, top, PHASES[1])
    if own is None or (own.tops[0] != top and not kinds.of(own).fed):
        return None
    if kinds.of(own).fed:
        return deploy_transform(member, own, top, theirs)
    return viewed_as(own.message.transform_param, theirs.message.transform_param)


def _powers(
    member: Member, shared: str, blob: str, phases: Sequence[int], steps: Sequence[Affine]
) -> list[Placed]:
    """The view inside the graph: y = scale * x + shift, once, or once for each phase."""
    same = len(set(steps)) == 1
    found: list[Placed] = []
    for phase, step in zip(phases[: 1 if same else None], steps, strict=False):
        message = pb.LayerParameter(name=blob, type="Power", bottom=[shared], top=[blob])
        message.power_param.scale, message.power_param.shift = step.scale, step.shift
        if not same:
            message.include.add(phase=phase)
        found.append(Placed(message, member.at))
    return noted(found, f"{member.name} sees the same records with its own mean and scale.")


def _apart(pairs: Sequence[Pair]) -> list[tuple[int | None, LayerModel, Transform]]:
    """The views that differ; a phase only where one shared layer is seen in two ways."""
    (_, first, wanted), *more = pairs
    if any(theirs is not first for _, theirs, _ in more):
        return [(None, theirs, view) for _, theirs, view in pairs]
    if all(view == wanted for _, _, view in more):
        return [(None, first, wanted)]
    return list(pairs)


def _second(
    member: Member,
    kinds: Kinds,
    theirs: LayerModel,
    view: tuple[Transform, str],
    phase: int | None,
) -> Placed:
    """The view outside the graph: a second data layer over the same records."""
    if not kinds.of(theirs).transforms:
        text = (
            f"{member.name} sees the records with another crop or mean image, but the shared data "
            f'layer "{theirs.name}" ({theirs.type}) transforms no images'
        )
        at = Note("the shared data layer is here", theirs.position)
        fail(NetError, "unpaired-view", text, span=member.span("net"), notes=(at,))
    message = pb.LayerParameter()
    message.CopyFrom(theirs.message)
    message.name = member.fresh(theirs.name, [theirs.name])
    del message.top[:]
    wanted, blob = view
    message.top.append(blob)
    message.transform_param.CopyFrom(wanted)
    if phase is not None:
        message.include.add(phase=phase)
    message.transform_param.draws_of = theirs.message.transform_param.draws_of or theirs.name
    return Placed(message, theirs.source)
