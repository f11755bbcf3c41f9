"""Numbers of a net that move while it trains: functions of the iteration, on the host.

Each reaches the graph as an input of the step, so nothing is compiled anew.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

from kdnet.errors import Diagnostic, Faults, NetError, Span, did_you_mean
from kdnet.layers import layer_class
from kdnet.net import LayerModel, NetModel, SolverModel
from kdnet.schema import kdnet_pb2 as pb

Curve = Callable[["Points", int], float]

_CURVES: dict[str, tuple[Curve, str]] = {}


@dataclass(frozen=True)
class Points:
    """What a curve goes by: ``values`` and the iterations ``at``, complete and checked."""

    values: tuple[float, ...]
    at: tuple[int, ...]
    gamma: float = 1.0
    stepsize: int = 1


@dataclass(frozen=True)
class Schedule:
    """One number of one layer as a function of the iteration.

    Attributes:
        layer: the layer's name.
        field: ``loss_weight``, ``loss_weight.1``, ..., ``lr_mult``, or a parameter's name.
        value: the number at an iteration, counted from 0.
        extremes: values between which it stays.
        span: where the schedule stands.
        number: which of the solver's schedules it is; -1 for one that the update rule needs.
    """

    layer: str
    field: str
    value: Callable[[int], float]
    extremes: tuple[float, ...]
    span: Span | None
    number: int = 0


def curve(name: str, points: str) -> Callable[[Curve], Curve]:
    """Register a policy; ``points`` says how many iterations it takes for its values."""

    def register(function: Curve) -> Curve:
        _CURVES[name] = (function, points)
        return function

    return register


def curve_names() -> tuple[str, ...]:
    """Every schedule policy, sorted."""
    return tuple(sorted(_CURVES))


@curve("constant", "none")
def constant(points: Points, _iteration: int) -> float:
    """v₀."""
    return points.values[0]


@curve("piecewise", "between")
def piecewise(points: Points, iteration: int) -> float:
    """v_k, k the number of iterations in ``at`` that t has reached."""
    return points.values[bisect_right(points.at, iteration)]


@curve("step", "one")
def step(points: Points, iteration: int) -> float:
    """v₀ · gamma^⌊(t − t₀) / stepsize⌋, and v₀ before t₀."""
    passed = max(0, iteration - points.at[0]) // points.stepsize
    return float(points.values[0] * points.gamma**passed)


@curve("linear", "each")
def linear(points: Points, iteration: int) -> float:
    """On the straight line between (t_k, v_k) and the next point; level outside."""
    return _between(points, iteration, lambda share: share)


@curve("cosine", "each")
def cosine(points: Points, iteration: int) -> float:
    """As linear, along half a cosine: v_k + (v_{k+1} − v_k) · (1 − cos πs) / 2."""
    return _between(points, iteration, lambda share: (1 - math.cos(math.pi * share)) / 2)


def _between(points: Points, iteration: int, shape: Callable[[float], float]) -> float:
    at, values = points.at, points.values
    after = bisect_right(at, iteration)
    if after == 0:
        return values[0]
    if after == len(at):
        return values[-1]
    share = (iteration - at[after - 1]) / (at[after] - at[after - 1])
    return values[after - 1] + (values[after] - values[after - 1]) * shape(share)


def schedules_of(solver: SolverModel, net: NetModel) -> tuple[Schedule, ...]:
    """The solver's schedules, one for each layer of the net that they name.

    Raises:
        NetError: unknown-schedule-layer, unknown-schedule-policy, bad-schedule,
            duplicate-schedule.
    """
    faults = Faults(NetError)
    found: dict[tuple[str, str], Schedule] = {}
    for index, message in enumerate(solver.message.schedule):
        span = solver.source.span(("schedule", index))
        layers = [layer for layer in net.layers if fnmatchcase(layer.name, message.layer)]
        if not layers:
            text = f'net "{net.name}" has no layer "{message.layer}" in phase {net.phase_name}'
            hint = did_you_mean(message.layer, [layer.name for layer in net.layers])
            at = solver.source.span(("schedule", index, "layer"))
            faults.add(Diagnostic("unknown-schedule-layer", text, at, help=hint))
        for layer in layers:
            made = _schedule(solver, index, layer)
            if isinstance(made, Diagnostic):
                faults.add(made)
            elif (made.layer, made.field) in found:
                text = f'{made.field} of layer "{made.layer}" has two schedules'
                faults.add(Diagnostic("duplicate-schedule", text, span))
            else:
                found[made.layer, made.field] = made
    faults.raise_if_any()
    return tuple(found.values())


def _schedule(solver: SolverModel, index: int, layer: LayerModel) -> Schedule | Diagnostic:
    message, max_iter = solver.message.schedule[index], solver.message.max_iter
    span = solver.source.span(("schedule", index))
    if message.policy not in _CURVES:
        text = f'there is no schedule policy "{message.policy}"'
        hint = did_you_mean(message.policy, _CURVES) or (f"known: {', '.join(curve_names())}",)
        return Diagnostic("unknown-schedule-policy", text, span, help=hint)
    function, takes = _CURVES[message.policy]
    points = _points(message, takes, own_value(layer, message), max_iter)
    fault = _fault(points, takes)
    if fault:
        text = f'schedule of {message.field} of layer "{layer.name}": {fault}'
        return Diagnostic("bad-schedule", text, span)
    name = message.field
    if name == "loss_weight" and message.index:
        name = f"loss_weight.{message.index}"
    extremes = points.values
    if message.policy == "step":
        extremes = (points.values[0], function(points, max(0, max_iter)))
    return Schedule(layer.name, name, lambda t: function(points, t), extremes, span, index)


def own_value(layer: LayerModel, message: pb.ScheduleParameter) -> float | None:
    """What the net itself says of the scheduled number; None where it has no such number."""
    if message.field == "lr_mult":
        return 1.0
    if message.field == "loss_weight":
        given = layer.message.loss_weight
        if message.index < len(given):
            return float(given[message.index])
        return float(not message.index and layer_class(layer).is_loss)
    params = layer_class(layer).params_field
    value = getattr(getattr(layer.message, params), message.field, None) if params else None
    return float(value) if isinstance(value, int | float) else None


def _points(message: pb.ScheduleParameter, takes: str, own: float | None, max_iter: int) -> Points:
    values, at = tuple(message.value), tuple(message.at)
    if own is None and values:
        # A layer without such a number: whether any has it is known once the net is traced.
        own = values[0]
    if own is not None and (not values or (takes == "each" and len(values) == 1)):
        values = (own, *values)
    if takes == "each" and not at and len(values) == 2:
        at = (0, max_iter)
    if takes == "one" and not at:
        at = (0,)
    return Points(values, at, message.gamma, message.stepsize)


def _fault(points: Points, takes: str) -> str:
    """What is wrong with the numbers of a schedule; "" for nothing."""
    values, at = len(points.values), len(points.at)
    wanted = {"none": (1, 0), "one": (1, 1), "between": (at + 1, at), "each": (at, at)}[takes]
    if not all(math.isfinite(value) for value in points.values):
        return "a value is not finite"
    if (values, at) != wanted or (takes == "each" and values < 2):
        return f"{_count(values, 'value')} and {_count(at, 'at')}; {_TAKES[takes]}"
    if not _rising(points.at):
        return "at must rise from 0 or later"
    if takes == "one" and not (points.stepsize > 0 and 0 <= points.gamma < math.inf):
        return "stepsize must be above 0 and gamma at least 0"
    return ""


_TAKES = {
    "none": "one value and no at are wanted",
    "one": "one value and at most one at are wanted",
    "between": "one value more than at is wanted",
    "each": "as many at as values are wanted, at least two (one begins at the net's own)",
}


def _rising(at: Sequence[int]) -> bool:
    return not at or (at[0] >= 0 and all(a < b for a, b in pairwise(at)))


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 or word == "at" else f"{number} {word}s"
