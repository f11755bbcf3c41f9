"""Solver types: each is a chain of transforms, in Caffe's exact order.

Clip the summed gradient, divide by iter_size, add the decay, multiply by the rate into the
history, subtract. Source: BVLC/caffe sgd_solver, ApplyUpdate.
"""

from __future__ import annotations

from collections.abc import Callable

from kdnet.errors import NetError, did_you_mean, fail
from kdnet.net import SolverModel
from kdnet.schema import kdnet_pb2 as pb
from kdnet.solvers.transforms import ClipByGlobalNorm, Decay, Divide, Momentum, Transform

Rule = Callable[[pb.SolverParameter], list[Transform]]

_SOLVERS: dict[str, Rule] = {}


def solver(name: str) -> Callable[[Rule], Rule]:
    """Register what a solver type does after clipping, dividing and decay."""

    def register(rule: Rule) -> Rule:
        _SOLVERS[name] = rule
        return rule

    return register


def solver_names() -> tuple[str, ...]:
    """Every solver type, sorted."""
    return tuple(sorted(_SOLVERS))


@solver("SGD")
def sgd(message: pb.SolverParameter) -> list[Transform]:
    """h ← momentum·h + lr·g; w ← w − h."""
    return [Momentum(message.momentum)]


def transforms_of(model: SolverModel) -> list[Transform]:
    """The solver's whole chain.

    Raises:
        NetError: unknown-solver, unknown-regularization.
    """
    message = model.message
    if message.type not in _SOLVERS:
        text = f'there is no solver type "{message.type}"'
        hint = did_you_mean(message.type, _SOLVERS) or (f"known: {', '.join(solver_names())}",)
        fail(NetError, "unknown-solver", text, span=model.span("type"), help=hint)
    if message.regularization_type not in ("L1", "L2"):
        text = f'regularization_type is "L1" or "L2", not "{message.regularization_type}"'
        span = model.span("regularization_type")
        fail(NetError, "unknown-regularization", text, span=span)
    chain: list[Transform] = []
    if message.clip_gradients >= 0:
        chain.append(ClipByGlobalNorm(message.clip_gradients))
    if message.iter_size > 1:
        chain.append(Divide(message.iter_size))
    if message.weight_decay:
        chain.append(Decay(message.weight_decay, l1=message.regularization_type == "L1"))
    return chain + _SOLVERS[message.type](message)
