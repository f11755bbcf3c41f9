"""Learning-rate policies: plain functions of the iteration, evaluated on the host.

Source: BVLC/caffe sgd_solver, GetLearningRate, whose order of operations is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from kdnet.errors import NetError, did_you_mean, fail
from kdnet.net import SolverModel
from kdnet.schema import kdnet_pb2 as pb

Policy = Callable[[pb.SolverParameter, int], float]

_POLICIES: dict[str, tuple[Policy, tuple[str, ...]]] = {}


def policy(name: str, *needs: str) -> Callable[[Policy], Policy]:
    """Register a policy and the fields it cannot do without."""

    def register(function: Policy) -> Policy:
        _POLICIES[name] = (function, needs)
        return function

    return register


def policy_names() -> tuple[str, ...]:
    """Every lr_policy, sorted."""
    return tuple(sorted(_POLICIES))


@policy("fixed")
def fixed(solver: pb.SolverParameter, _iteration: int) -> float:
    """base_lr."""
    return solver.base_lr


@policy("step", "stepsize")
def step(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr · gamma^⌊t / stepsize⌋."""
    return solver.base_lr * solver.gamma ** (iteration // solver.stepsize)


@policy("exp")
def exponential(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr · gamma^t."""
    return solver.base_lr * solver.gamma**iteration


@policy("inv")
def inverse(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr · (1 + gamma·t)^−power."""
    return float(solver.base_lr * (1 + solver.gamma * iteration) ** -solver.power)


@policy("multistep")
def multistep(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr · gamma^k, k the number of leading stepvalues that t has reached."""
    passed = 0
    while passed < len(solver.stepvalue) and iteration >= solver.stepvalue[passed]:
        passed += 1
    return solver.base_lr * solver.gamma**passed


@policy("poly", "max_iter")
def polynomial(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr · (1 − t / max_iter)^power."""
    return float(solver.base_lr * (1 - iteration / solver.max_iter) ** solver.power)


@policy("sigmoid", "stepsize")
def sigmoid(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr / (1 + e^(−gamma·(t − stepsize)))."""
    return solver.base_lr / (1 + math.exp(-solver.gamma * (iteration - solver.stepsize)))


def learning_rate(solver: SolverModel) -> Callable[[int], float]:
    """The solver's rate as a function of the iteration, counted from 0.

    Raises:
        NetError: unknown-lr-policy; missing-solver-field for a field that the policy needs.
    """
    message = solver.message
    name = message.lr_policy or "fixed"
    if name not in _POLICIES:
        text = f'there is no lr_policy "{name}"'
        hint = did_you_mean(name, _POLICIES) or (f"known: {', '.join(policy_names())}",)
        fail(NetError, "unknown-lr-policy", text, span=solver.span("lr_policy"), help=hint)
    function, needs = _POLICIES[name]
    for field in needs:
        if getattr(message, field) <= 0:
            text = f'lr_policy "{name}" needs {field} > 0'
            fail(NetError, "missing-solver-field", text, span=solver.span("lr_policy"))
    return lambda iteration: function(message, iteration)
