"""The settings of a sweep: every combination of values and seeds, each a net and a solver."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

from kdnet.compile import Forward, trace_forward
from kdnet.compile.parts import Part, parts_of
from kdnet.errors import LayerError, UsageError, fail
from kdnet.graph import Emitter, Op
from kdnet.net import NetModel, SolverModel
from kdnet.net.replicate import Multipliers
from kdnet.runtime.plan import Plan
from kdnet.runtime.sweep.axes import Axis, Change, losses_of, resolve_axis
from kdnet.runtime.sweep.fields import Edit, apply, edited
from kdnet.runtime.sweep.values import Variable
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import write_text
from kdnet.solvers import learning_rate, schedules_of, transforms_of

MOST_SETTINGS = 4096


@dataclass(frozen=True)
class Variant:
    """The nets of one combination of values, TRAIN first, and what tracing them told.

    Attributes:
        nets: the train net and the test nets.
        edits: what makes them of the files' nets.
        moving: for each net the layers that training moves.
        data: the data layers' messages, serialised.
        multipliers: lr_mult and decay_mult of the train net's blobs, as
            :func:`kdnet.net.replicate.with_multipliers` takes them.
        weight_values: how many values the train net's moving weights have.
        blob_values: how many values its moving layers make.
    """

    nets: tuple[NetModel, ...]
    edits: tuple[Edit, ...]
    moving: tuple[frozenset[int], ...]
    data: bytes
    multipliers: Mapping[str, Sequence[Multipliers | None]]
    weight_values: int
    blob_values: int


@dataclass(frozen=True)
class Setting:
    """One student to train.

    Attributes:
        values: a text for each variable.
        seed: of its first weights and its noise.
        label: what tells it from the others, as ``lambda=0.1,seed=2``; "" if it is the only one.
        solver: the solver of its own run.
        variant: its nets.
        key: a digest of everything that its result depends on.
    """

    values: tuple[str, ...]
    seed: int
    label: str
    solver: SolverModel
    variant: Variant
    key: str


@dataclass(frozen=True)
class Grid:
    """All settings, with the variables in the order in which they were given."""

    variables: tuple[Variable, ...]
    seeds: tuple[int, ...]
    settings: tuple[Setting, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The variables' names."""
        return tuple(variable.name for variable in self.variables)


def make_grid(
    plan: Plan, variables: Sequence[Variable], seeds: int, *, provider: str, digest: bytes
) -> Grid:
    """Resolve the variables, and trace and check every net that they make.

    Args:
        plan: the run whose net and solver are varied.
        variables: what varies, the first slowest.
        seeds: how many seeds, from the plan's own on.
        provider: "cpu" or "cuda".
        digest: of what else the results depend on, such as the content of weight files.

    Raises:
        UsageError: too-many-settings, duplicate-variable, scheduled-variable, and what
            resolving raises.
        KdnetError: the faults of a net or a solver that a value makes.
    """
    count = prod(len(variable.values) for variable in variables) * seeds
    if count > MOST_SETTINGS:
        text = f"the sweep has {count} settings; at most {MOST_SETTINGS} are run"
        fail(UsageError, "too-many-settings", text)
    nets = (plan.net, *(net for net, _ in plan.tests))
    traced = [_trace(plan, net, provider) for net in nets]
    losses = losses_of(traced)
    axes = [resolve_axis(variable, nets, losses) for variable in variables]
    _check_distinct(axes)
    numbers = tuple(range(plan.seed, plan.seed + seeds))
    variants: dict[tuple[Edit, ...], Variant] = {}
    settings = []
    for values, change in _combinations(axes):
        if change.edits not in variants:
            variants[change.edits] = _variant(plan, nets, change.edits, provider)
        solver = _solver(plan.solver, change)
        for seed in numbers:
            label = _label(variables, values, seed if seeds > 1 else None)
            variant = variants[change.edits]
            key = _key(variant, solver, seed, digest + repr(values).encode())
            settings.append(Setting(values, seed, label, solver, variant, key))
    if plan.solver.message.schedule:
        for number, axis in enumerate(axes):
            _check_moves(axis, number, settings)
    return Grid(tuple(variables), numbers, tuple(settings))


def _check_distinct(axes: Sequence[Axis]) -> None:
    """No two variables set the same field."""
    seen: dict[tuple[str, ...], Variable] = {}
    for axis in axes:
        change = axis.changes[0]
        fields = [(edit.layer, ".".join(map(str, edit.path))) for edit in change.edits]
        for field in [*fields, *(("solver", name) for name, _ in change.solver)]:
            first = seen.setdefault(field, axis.variable)
            if first is not axis.variable:
                text = f'"{first.name}" and "{axis.variable.name}" both set {".".join(field)}'
                fail(UsageError, "duplicate-variable", text, span=axis.variable.span)


def _check_moves(axis: Axis, number: int, settings: Sequence[Setting]) -> None:
    """A schedule may begin at a variable's value, but not replace it."""
    first = settings[0]
    other = next((s for s in settings if s.values[number] != first.values[number]), first)
    before, after = (
        {
            (item.layer, item.field): item.extremes
            for item in schedules_of(s.solver, s.variant.nets[0])
        }
        for s in (first, other)
    )
    for edit in axis.changes[0].edits:
        key = (edit.layer, str(edit.path[-1]))
        if other is not first and key in before and before[key] == after.get(key):
            text = f'the solver schedules {key[1]} of layer "{key[0]}", whatever the net says'
            hint = ("let the schedule begin at the net's own value, or leave it out",)
            fail(UsageError, "scheduled-variable", text, span=axis.variable.span, help=hint)


def _combinations(axes: Sequence[Axis]) -> Iterator[tuple[tuple[str, ...], Change]]:
    """Every choice of one value a variable, with all that it changes; later ones win."""
    choices = [
        [
            (value.text, change)
            for value, change in zip(axis.variable.values, axis.changes, strict=True)
        ]
        for axis in axes
    ]
    for chosen in product(*choices):
        edits = {(e.layer, e.path): e for _, change in chosen for e in change.edits}
        fields = tuple(field for _, change in chosen for field in change.solver)
        yield tuple(text for text, _ in chosen), Change(tuple(edits.values()), fields)


def _label(variables: Sequence[Variable], values: Sequence[str], seed: int | None) -> str:
    parts = [
        f"{variable.name}={value}"
        for variable, value in zip(variables, values, strict=True)
        if len(variable.values) > 1
    ]
    return ",".join(parts if seed is None else [*parts, f"seed={seed}"])


def _solver(base: SolverModel, change: Change) -> SolverModel:
    message = pb.SolverParameter()
    message.CopyFrom(base.message)
    for field, value in change.solver:
        setattr(message, field, value)
    solver = replace(base, message=message)
    transforms_of(solver)
    learning_rate(solver)
    return solver


def _trace(plan: Plan, net: NetModel, provider: str) -> Forward:
    return trace_forward(net, Emitter(provider=provider), plan.options.input_shapes)


def _variant(
    plan: Plan, nets: Sequence[NetModel], edits: tuple[Edit, ...], provider: str
) -> Variant:
    made = tuple(
        replace(net, layers=tuple(edited(layer, edits) for layer in net.layers)) for net in nets
    )
    forwards = [_trace(plan, net, provider) for net in made]
    parts = [parts_of(forward) for forward in forwards]
    if not forwards[0].losses:
        text = f'net "{plan.net.name}" has nothing to train: every loss_weight is 0'
        fail(LayerError, "nothing-to-train", text, span=plan.net.source.span(()))
    data = [
        layer.message.SerializeToString(deterministic=True)
        for net, found in zip(made, parts, strict=True)
        for layer, part in zip(net.layers, found, strict=True)
        if part is Part.DATA
    ]
    moving = tuple(
        frozenset(index for index, part in enumerate(found) if part is Part.MOVING)
        for found in parts
    )
    own = {made[0].layers[index].name for index in moving[0]}
    return Variant(
        made,
        edits,
        moving,
        b"\0".join(data),
        _multipliers(forwards[0]),
        sum(t.size for t, blob in forwards[0].weights.items() if blob.layer.name in own),
        sum(t.size for op in forwards[0].g.ops if _scope(op) in own for t in op.outputs),
    )


def _scope(op: Op) -> str:
    """The layer that emitted an op."""
    return op.name.rpartition("/")[0]


def net_text(message: pb.NetParameter, edits: Sequence[Edit]) -> str:
    """The prototxt of a net with edits, every phase of it."""
    copy = pb.NetParameter()
    copy.CopyFrom(message)
    for layer in copy.layer:
        for edit in edits:
            if edit.layer == layer.name:
                apply(layer, edit)
    return write_text(copy)


def _multipliers(forward: Forward) -> dict[str, list[Multipliers | None]]:
    found: dict[str, list[Multipliers | None]] = {}
    for blob in forward.weights.values():
        for number, (layer, index) in enumerate(blob.users):
            known = found.setdefault(layer, [])
            known += [None] * (index + 1 - len(known))
            if number == 0:
                known[index] = (blob.lr_mult, blob.decay_mult)
    return found


def _key(variant: Variant, solver: SolverModel, seed: int, digest: bytes) -> str:
    nets: list[Any] = [layer.message for net in variant.nets for layer in net.layers]
    found = hashlib.sha256(digest)
    for message in (*nets, solver.message):
        found.update(message.SerializeToString(deterministic=True))
    found.update(str(seed).encode())
    return found.hexdigest()[:16]
