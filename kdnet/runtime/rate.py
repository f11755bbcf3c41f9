"""The numbers of a run that move: the learning rate and what the solver schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kdnet.errors import RunError, fail
from kdnet.layers import scalar_name
from kdnet.net import SolverModel
from kdnet.solvers import Schedule, learning_rate

LARGEST = float(np.finfo(np.float32).max)


def checked_rate(solver: SolverModel) -> Callable[[int], float]:
    """The solver's rate as a function of the iteration.

    Raises:
        NetError: what :func:`kdnet.solvers.learning_rate` raises.
        RunError: non-finite-rate, by the function, where a policy leaves float32's range.
    """
    rate = learning_rate(solver)

    def checked(iteration: int) -> float:
        try:
            value = float(rate(iteration))
        except (ArithmeticError, TypeError):
            # A power of 0 or of a negative number, or one beyond float64.
            value = float("nan")
        if not abs(value) <= LARGEST:
            text = f"the learning rate is {value:g} at iteration {iteration}"
            hint = ("look at gamma and power",)
            fail(RunError, "non-finite-rate", text, span=solver.span("lr_policy"), help=hint)
        return value

    return checked


def scheduled_at(schedules: Sequence[Schedule], iteration: int) -> dict[str, float]:
    """Every scheduled number at an iteration, by the input that carries it."""
    return {scalar_name(item.layer, item.field): item.value(iteration) for item in schedules}
