"""Learning-rate policies: plain functions of the iteration, evaluated on the host.

Source: BVLC/caffe sgd_solver, GetLearningRate, whose order of operations is kept; warmup, min_lr,
plateau and sgdr as in the forks of Intel, NVIDIA and others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from kdnet.errors import NetError, did_you_mean, fail
from kdnet.net import SolverModel
from kdnet.schema import kdnet_pb2 as pb
from kdnet.solvers.plateau import Plateau

Policy = Callable[[pb.SolverParameter, int], float]

PLATEAU = "plateau"


@dataclass(frozen=True)
class _Entry:
    function: Policy
    positive: Sequence[str]
    shrinks: bool


_POLICIES: dict[str, _Entry] = {}


def policy(name: str, *positive: str, shrinks: bool = False) -> Callable[[Policy], Policy]:
    """Register a policy.

    Args:
        name: the lr_policy.
        positive: the fields that it cannot do without.
        shrinks: whether it takes powers of gamma, which then must not be negative.
    """

    def register(function: Policy) -> Policy:
        _POLICIES[name] = _Entry(function, positive, shrinks)
        return function

    return register


def policy_names() -> tuple[str, ...]:
    """Every lr_policy, sorted."""
    return tuple(sorted(_POLICIES))


@policy("fixed")
def fixed(solver: pb.SolverParameter, _iteration: int) -> float:
    """base_lr."""
    return solver.base_lr


@policy("step", "stepsize", shrinks=True)
def step(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr · gamma^⌊t / stepsize⌋."""
    return solver.base_lr * solver.gamma ** steps_taken(solver, iteration)


@policy("exp", shrinks=True)
def exponential(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr · gamma^t."""
    return solver.base_lr * solver.gamma**iteration


@policy("inv", shrinks=True)
def inverse(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr · (1 + gamma·t)^−power."""
    return float(solver.base_lr * (1 + solver.gamma * iteration) ** -solver.power)


@policy("multistep", shrinks=True)
def multistep(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr · gamma^k, k the number of leading stepvalues that t has reached."""
    return solver.base_lr * solver.gamma ** steps_taken(solver, iteration)


@policy("poly", "max_iter")
def polynomial(solver: pb.SolverParameter, iteration: int) -> float:
    """min_lr + (base_lr − min_lr)·(1 − t / max_iter)^power."""
    share = (1 - iteration / solver.max_iter) ** solver.power
    return float(solver.min_lr + (solver.base_lr - solver.min_lr) * share)


@policy("sigmoid", "stepsize", shrinks=True)
def sigmoid(solver: pb.SolverParameter, iteration: int) -> float:
    """base_lr / (1 + e^(−gamma·(t − stepsize)))."""
    return solver.base_lr / (1 + math.exp(-solver.gamma * (iteration - solver.stepsize)))


@policy("cosine", "max_iter")
def cosine(solver: pb.SolverParameter, iteration: int) -> float:
    """min_lr + (base_lr − min_lr)·(1 + cos(π·t / max_iter)) / 2."""
    return _annealed(solver, iteration / solver.max_iter)


@policy("sgdr", "stepsize", "mult_factor")
def warm_restarts(solver: pb.SolverParameter, iteration: int) -> float:
    """As cosine over periods of stepsize, stepsize·mult_factor, ... iterations.

    Source: Loshchilov and Hutter, SGDR: Stochastic gradient descent with warm restarts (2017).
    """
    period = solver.stepsize
    if solver.mult_factor == 1:
        iteration %= period
    while iteration >= period:
        iteration -= period
        period *= solver.mult_factor
    return _annealed(solver, iteration / period)


def _annealed(solver: pb.SolverParameter, share: float) -> float:
    height = (1 + math.cos(math.pi * share)) / 2
    return solver.min_lr + (solver.base_lr - solver.min_lr) * height


@policy(PLATEAU, shrinks=True)
def plateau(solver: pb.SolverParameter, drops: int) -> float:
    """base_lr · gamma^k, k the drops so far: the one policy that is no function of t."""
    return solver.base_lr * solver.gamma**drops


def steps_taken(solver: pb.SolverParameter, iteration: int) -> int:
    """What Caffe keeps as current_step: the steps of step and multistep up to an iteration.

    A stepvalue counts no earlier than one iteration after the one before it, as Caffe looks at one
    an iteration.
    """
    if solver.lr_policy == "step":
        return iteration // solver.stepsize
    taken, latest = 0, -1
    for value in solver.stepvalue if solver.lr_policy == "multistep" else ():
        latest = max(value, latest + 1)
        taken += iteration >= latest
    return taken


def learning_rate(solver: SolverModel, drops: Plateau | None = None) -> Callable[[int], float]:
    """The solver's rate as a function of the iteration, counted from 0.

    Args:
        solver: the solver.
        drops: how far ``lr_policy: "plateau"`` has come, looked at whenever the rate is asked for;
            without it that policy is refused.

    Raises:
        NetError: unknown-lr-policy; missing-solver-field or bad-solver-field for a field that the
            policy needs; bad-solver-field for a warmup.
    """
    message = solver.message
    name = message.lr_policy or "fixed"
    entry = _entry(solver, name)
    length, first = warmup_of(solver)
    if name == PLATEAU and drops is None:
        text = 'lr_policy "plateau" goes by the loss of one run while it trains, not of this one'
        _refuse(solver, "lr_policy", text)

    def rate(iteration: int) -> float:
        if iteration < length:
            return first + (message.base_lr - first) * iteration / length
        at = drops.drops if name == PLATEAU and drops else iteration
        found = entry.function(message, at)
        return max(found, message.min_lr) if message.min_lr else found

    return rate


def _entry(solver: SolverModel, name: str) -> _Entry:
    message = solver.message
    if name not in _POLICIES:
        text = f'there is no lr_policy "{name}"'
        hint = did_you_mean(name, _POLICIES) or (f"known: {', '.join(policy_names())}",)
        fail(NetError, "unknown-lr-policy", text, span=solver.span("lr_policy"), help=hint)
    entry = _POLICIES[name]
    for field in entry.positive:
        if getattr(message, field) <= 0:
            text = f'lr_policy "{name}" needs {field} > 0'
            fail(NetError, "missing-solver-field", text, span=solver.span("lr_policy"))
    if entry.shrinks and message.gamma < 0:
        _refuse(solver, "gamma", f'lr_policy "{name}" needs gamma >= 0, not {message.gamma:g}')
    if name == PLATEAU and not message.plateau_winsize:
        text = 'lr_policy "plateau" needs a plateau_winsize for each drop of the rate'
        fail(NetError, "missing-solver-field", text, span=solver.span("lr_policy"))
    return entry


def warmup_of(solver: SolverModel) -> tuple[int, float]:
    """How many iterations the warmup takes, and the rate that it begins with."""
    message = solver.message
    for name in ("warmup_iter", "rampup_interval"):
        if getattr(message, name) < 0:
            _refuse(solver, name, f"{name} must not be negative; it is {getattr(message, name)}")
    if message.warmup_iter and message.rampup_interval:
        text = "warmup_iter and rampup_interval mean the same; only one of them can be given"
        _refuse(solver, "rampup_interval", text)
    if message.warmup_iter:
        return message.warmup_iter, message.warmup_start_lr
    return message.rampup_interval, message.rampup_lr


def _refuse(solver: SolverModel, field: str, text: str) -> NoReturn:
    fail(NetError, "bad-solver-field", text, span=solver.span(field))
