"""Solver types: each is a chain of transforms, in Caffe's exact order.

Clip the summed gradient, divide by iter_size, then what the type says; its result is subtracted
from the weight. Source: BVLC/caffe sgd_solver, ApplyUpdate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

from kdnet.errors import NetError, did_you_mean, fail
from kdnet.net import SolverModel
from kdnet.solvers.adaptive import (
    CorrectedMoments,
    DivideByRootOfMean,
    DivideByRootOfSum,
    Moments,
    ScaleToPastUpdates,
    TrustRatio,
)
from kdnet.solvers.momentum import Momentum, NesterovMomentum
from kdnet.solvers.schedules import Schedule
from kdnet.solvers.transforms import (
    ClipByGlobalNorm,
    Decay,
    Divide,
    Rate,
    Remember,
    Transform,
)

Rule = Callable[[SolverModel], list[Transform]]

# The layer in whose name a solver's own numbers reach the graph.
SOLVER = "solver"
_SOLVERS: dict[str, Rule] = {}


def solver(name: str) -> Callable[[Rule], Rule]:
    """Register what a solver type does after clipping and dividing."""

    def register(rule: Rule) -> Rule:
        _SOLVERS[name] = rule
        return rule

    return register


def solver_names() -> tuple[str, ...]:
    """Every solver type, sorted."""
    return tuple(sorted(_SOLVERS))


@solver("SGD")
def sgd(model: SolverModel) -> list[Transform]:
    """h ← momentum·h + lr·g; w ← w − h."""
    return [*_decay(model), Momentum(model.message.momentum)]


@solver("Nesterov")
def nesterov(model: SolverModel) -> list[Transform]:
    """h ← momentum·h + lr·g; w ← w − (1 + momentum)·h + momentum·h_old.

    Source: Sutskever and others, On the importance of initialization and momentum (2013).
    """
    return [*_decay(model), NesterovMomentum(model.message.momentum)]


@solver("AdaGrad")
def adagrad(model: SolverModel) -> list[Transform]:
    """h ← h + g²; w ← w − lr·g / (√h + delta).

    Source: Duchi and others, Adaptive subgradient methods (2011).
    """
    _no_momentum(model)
    return [*_decay(model), DivideByRootOfSum(model.message.delta), Rate()]


@solver("RMSProp")
def rmsprop(model: SolverModel) -> list[Transform]:
    """h ← rms_decay·h + (1 − rms_decay)·g²; w ← w − lr·g / (√h + delta).

    Source: Tieleman and Hinton, Neural Networks for Machine Learning, lecture 6.5 (2012).
    """
    _no_momentum(model)
    _share(model, "rms_decay")
    message = model.message
    return [*_decay(model), DivideByRootOfMean(message.rms_decay, message.delta), Rate()]


@solver("AdaDelta")
def adadelta(model: SolverModel) -> list[Transform]:
    """h ← momentum·h + (1 − momentum)·g²; u = g·√((s + delta) / (h + delta)); w ← w − lr·u.

    s is the same running mean of u², taken afterwards.
    Source: Zeiler, ADADELTA (2012), algorithm 1.
    """
    message = model.message
    return [*_decay(model), ScaleToPastUpdates(message.momentum, message.delta), Rate()]


@solver("Adam")
def adam(model: SolverModel) -> list[Transform]:
    """m ← momentum·m + (1 − momentum)·g; v ← momentum2·v + (1 − momentum2)·g².

    w ← w − lr·(√(1 − momentum2ᵗ) / (1 − momentumᵗ))·m / (√v + delta).
    Source: Kingma and Ba, Adam (2015), end of section 2.
    """
    return [*_decay(model), Moments(*_betas(model), model.message.delta), Rate()]


@solver("AdamW")
def adamw(model: SolverModel) -> list[Transform]:
    """m and v as in Adam; w ← w − lr·(m̂ / (√v̂ + delta) + weight_decay·w).

    m̂ = m / (1 − momentumᵗ), v̂ = v / (1 − momentum2ᵗ).
    Source: Loshchilov and Hutter, Decoupled weight decay regularization (2019), algorithm 2.
    """
    return [CorrectedMoments(*_betas(model), model.message.delta), *_decay(model), Rate()]


@solver("LAMB")
def lamb(model: SolverModel) -> list[Transform]:
    """r = m̂ / (√v̂ + delta) + weight_decay·w as in AdamW; w ← w − lr·(‖w‖ / ‖r‖)·r.

    The norms are those of one weight blob; where one of them is 0 the ratio is 1.
    Source: You and others, Large batch optimization for deep learning (2020), algorithm 2.
    """
    moments = CorrectedMoments(*_betas(model), model.message.delta)
    return [moments, *_decay(model), TrustRatio(), Rate()]


def _decay(model: SolverModel) -> list[Transform]:
    message = model.message
    l1 = message.regularization_type == "L1"
    return [Decay(message.weight_decay, l1=l1)] if message.weight_decay else []


def _no_momentum(model: SolverModel) -> None:
    if model.message.momentum:
        text = f"{model.message.type} has no momentum"
        _refuse(model, "momentum", text, 'take momentum out, or choose type "Adam"')


def _betas(model: SolverModel) -> tuple[float, float]:
    return _share(model, "momentum"), _share(model, "momentum2")


def _share(model: SolverModel, name: str) -> float:
    value = float(getattr(model.message, name))
    if not 0 <= value < 1:
        text = f"{name} of {model.message.type} lies from 0 up to, but not at 1; it is {value:g}"
        _refuse(model, name, text)
    return value


def _refuse(model: SolverModel, name: str, text: str, *hints: str) -> NoReturn:
    fail(NetError, "bad-solver-field", text, span=model.span(name), help=hints)


def transforms_of(model: SolverModel) -> list[Transform]:
    """The solver's whole chain.

    Raises:
        NetError: unknown-solver, unknown-regularization, bad-solver-field.
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
    chain += _SOLVERS[message.type](model)
    return [*chain, Remember()] if message.snapshot_diff else chain


def numbers_of(chain: Sequence[Transform]) -> tuple[Schedule, ...]:
    """What a chain needs to be told each iteration, as schedules of the solver itself."""
    found = {name: value for transform in chain for name, value in transform.numbers().items()}
    return tuple(Schedule(SOLVER, name, value, (), None, -1) for name, value in found.items())
