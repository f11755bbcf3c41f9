"""The numbers of a run that move: the learning rate and what the solver schedules."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from kdnet.errors import RunError, fail
from kdnet.layers import scalar_name
from kdnet.net import SolverModel
from kdnet.runtime.solver_states import Resume
from kdnet.solvers import PLATEAU, Plateau, Schedule, learning_rate, steps_taken, warmup_of

LARGEST = float(np.finfo(np.float32).max)


def checked_rate(solver: SolverModel, drops: Plateau | None = None) -> Callable[[int], float]:
    """The solver's rate as a function of the iteration; ``drops`` as for ``learning_rate``.

    Raises:
        NetError: what :func:`kdnet.solvers.learning_rate` raises.
        RunError: non-finite-rate, by the function, where a policy leaves float32's range.
    """
    rate = learning_rate(solver, drops)

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


class Rate:
    """The learning rate of one run, and the losses that it may go by.

    Args:
        solver: the solver.
        resume: where the run goes on, if it does.

    Raises:
        NetError, RunError: as :func:`checked_rate`.
    """

    def __init__(self, solver: SolverModel, resume: Resume | None = None) -> None:
        self._solver = solver
        self._message = solver.message
        self._warmup, _ = warmup_of(solver)
        self._losses: deque[float] = deque(maxlen=max(1, self._message.average_loss))
        self._plateau = Plateau()
        if resume is not None:
            self._losses.extend(resume.losses)
            self._plateau = Plateau(resume.step, resume.lowest, resume.last_event)
        self._rate = checked_rate(solver, self._plateau)

    def __call__(self, iteration: int) -> float:
        """The rate of an iteration."""
        return self._rate(iteration)

    @property
    def smoothed_loss(self) -> float:
        """The mean loss of the last average_loss iterations."""
        return sum(self._losses) / len(self._losses)

    def see(self, iteration: int, loss: float) -> str:
        """Take in the loss of an iteration; what to log if the rate drops after it, else ""."""
        self._losses.append(loss)
        plateau, windows = self._plateau, self._message.plateau_winsize
        if self._message.lr_policy != PLATEAU or iteration < self._warmup:
            return ""
        if not plateau.see(iteration, self.smoothed_loss, windows):
            return ""
        return f"Plateau Status: Iteration {iteration}, step = {plateau.drops}"

    def news(self, iteration: int) -> str:
        """What Caffe logs when multistep takes a step at an iteration; else ""."""
        steps = steps_taken(self._message, iteration)
        moved = steps != steps_taken(self._message, iteration - 1)
        if self._message.lr_policy != "multistep" or not moved:
            return ""
        return f"MultiStep Status: Iteration {iteration}, step = {steps}"

    def state(self, iteration: int, seed: int) -> Resume:
        """What a snapshot keeps after ``iteration`` updates."""
        found, message = self._plateau, self._message
        step = found.drops or steps_taken(message, max(0, iteration - 1))
        kept = tuple(self._losses) if message.average_loss > 1 else ()
        return Resume(iteration, seed, "", {}, step, kept, found.lowest, found.last_event)
