"""What each variable of a sweep changes: fields of layers, loss weights, fields of the solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from kdnet.compile import Forward
from kdnet.compile.parts import Part, parts_of
from kdnet.errors import UsageError, did_you_mean, fail
from kdnet.layers import layer_class, roles_of
from kdnet.net import LayerModel, NetModel, feeders
from kdnet.net.solver import NET_FIELDS
from kdnet.runtime.sweep.fields import Edit, find_field, layer_value, solver_value
from kdnet.runtime.sweep.values import Value, Variable, decimal_of, plain
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.fields import fields_of

LAMBDA = "lambda"
# Fields of a solver that no student can have for its own, and what to do instead.
FIXED_FIELDS = {
    **dict.fromkeys(NET_FIELDS, "run a sweep for each net"),
    "random_seed": "use --seeds N",
}


@dataclass(frozen=True)
class Change:
    """What one value of a variable means."""

    edits: tuple[Edit, ...] = ()
    solver: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Axis:
    """A variable with what each of its values changes."""

    variable: Variable
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Losses:
    """The names of a net's moving losses: those that a teacher has a part in, and the others."""

    taught: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def losses_of(forwards: Sequence[Forward]) -> Losses:
    """The moving losses of nets in all their phases.

    A teacher has a part in a loss that gives a bottom the role of a teacher, or that reads what a
    frozen layer makes.
    """
    found: dict[str, bool] = {}
    for forward in forwards:
        parts = parts_of(forward)
        made_by = feeders(forward.net)
        for index, layer in enumerate(forward.net.layers):
            if parts[index] is Part.MOVING and is_loss(layer):
                frozen = any(parts[maker] is Part.FROZEN for maker in made_by[index])
                taught = frozen or _names_teacher(layer)
                found[layer.name] = found.get(layer.name, False) or taught
    return Losses(
        tuple(name for name, taught in found.items() if taught),
        tuple(name for name, taught in found.items() if not taught),
    )


def is_loss(layer: LayerModel) -> bool:
    """Whether the layer is a loss by its kind, or by a loss_weight that it is given."""
    return layer_class(layer).is_loss or any(layer.message.loss_weight)


def _names_teacher(layer: LayerModel) -> bool:
    return any(role.startswith("teacher") for role in roles_of(layer))


def resolve_axis(variable: Variable, nets: Sequence[NetModel], losses: Losses) -> Axis:
    """Find what the variable's name means.

    ``LAYER.field`` first, then ``lambda``, then a field of the solver, then a field of the losses
    that a teacher has a part in.

    Raises:
        UsageError: unknown-sweep-variable, no-teacher-loss, swept-solver-field, and what
            :mod:`kdnet.runtime.sweep.fields` raises.
    """
    layers = {layer.name: layer for net in reversed(nets) for layer in net.layers}
    owner = max(
        (name for name in layers if variable.name.startswith(f"{name}.")), key=len, default=""
    )
    if owner:
        field = variable.name.removeprefix(f"{owner}.")
        return _layer_axis(variable, [layers[owner]], field)
    if variable.name == LAMBDA:
        return _lambda_axis(variable, losses)
    if variable.name in fields_of(pb.SolverParameter.DESCRIPTOR):
        return _solver_axis(variable)
    taught = [layers[name] for name in losses.taught]
    having = [layer for layer in taught if variable.name in own_fields(layer)]
    if not having:
        _unknown(variable, layers, [name for layer in taught for name in own_fields(layer)])
    return _layer_axis(variable, having, variable.name)


def own_fields(layer: LayerModel) -> tuple[str, ...]:
    """The parameters of a layer's own kind, and its loss_weight."""
    params = layer_class(layer).params_field
    own = fields_of(getattr(layer.message, params).DESCRIPTOR) if params else ()
    return (*own, "loss_weight")


def _unknown(variable: Variable, layers: dict[str, LayerModel], fields: Sequence[str]) -> NoReturn:
    first, dot, rest = variable.name.rpartition(".")
    if dot:
        text = f'there is no layer "{first}" to set "{rest}" of'
        hint = did_you_mean(first, layers)
    else:
        text = f'"{variable.name}" is no field of the solver, nor of a loss with a teacher'
        known = [LAMBDA, *fields, *fields_of(pb.SolverParameter.DESCRIPTOR)]
        hint = did_you_mean(variable.name, known) or (
            "name it LAYER.field, as student/drop.dropout_ratio",
        )
    fail(UsageError, "unknown-sweep-variable", text, span=variable.span, help=hint)


def _layer_axis(variable: Variable, layers: Sequence[LayerModel], field: str) -> Axis:
    at = Value(variable.name, variable.span)
    paths = [(layer, find_field(layer, field, at)) for layer in layers]
    return Axis(
        variable,
        tuple(
            Change(
                tuple(Edit(layer.name, path, layer_value(path, value)) for layer, path in paths)
            )
            for value in variable.values
        ),
    )


def _lambda_axis(variable: Variable, losses: Losses) -> Axis:
    if not losses.taught:
        text = "lambda weighs losses with a teacher, and the net has none"
        hint = ("weigh a single loss by LAYER.loss_weight",)
        fail(UsageError, "no-teacher-loss", text, span=variable.span, help=hint)
    return Axis(variable, tuple(_weighed(value, losses) for value in variable.values))


def _weighed(value: Value, losses: Losses) -> Change:
    """Weight λ for what has a teacher, 1 − λ for the rest."""
    number = decimal_of(value.text)
    if number is None:
        text = f'lambda wants a number, not "{value.text}"'
        fail(UsageError, "bad-sweep-value", text, span=value.span)
    rest = float(plain(1 - number))
    return Change(
        tuple(
            Edit(name, ("loss_weight",), weight)
            for names, weight in ((losses.taught, float(number)), (losses.others, rest))
            for name in names
        )
    )


def _solver_axis(variable: Variable) -> Axis:
    field = fields_of(pb.SolverParameter.DESCRIPTOR)[variable.name]
    why = FIXED_FIELDS.get(field.name, "")
    if field.repeated or field.message is not None:
        why = why or "write it in the solver"
    if why:
        text = f"a sweep cannot set {field.name} of the solver"
        fail(UsageError, "swept-solver-field", text, span=variable.span, help=(why,))
    return Axis(
        variable,
        tuple(
            Change(solver=((field.name, solver_value(field.name, value)),))
            for value in variable.values
        ),
    )
