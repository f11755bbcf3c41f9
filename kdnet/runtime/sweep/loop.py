"""Trains students side by side, tests each, and goes on when one of them diverges."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import Report
from kdnet.compile.program import LOSS
from kdnet.data import Source
from kdnet.errors import Diagnostic, RunInterruptedError
from kdnet.net.replicate import SideBySide
from kdnet.runtime import log as places
from kdnet.runtime.device import Device
from kdnet.runtime.engine import Engine
from kdnet.runtime.feeding import Batches, batches
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.rate import checked_rate, scheduled_at
from kdnet.runtime.signals import StopRequest
from kdnet.runtime.stepper import Stepper
from kdnet.runtime.sweep.students import Students, scores_of
from kdnet.runtime.trainer import TestNet, evaluate

Array = NDArray[Any]
Tell = Callable[[int, list[dict[str, float]]], None]


class StudentTrainer:
    """Trains the students of one graph.

    Attributes:
        iteration: how many updates were made.
        diverged: the iteration at which each student's numbers ceased to be finite; None so far.
        on_iteration: told the iteration after each.
    """

    def __init__(
        self,
        students: Students,
        device: Device,
        sources: Sequence[Source],
        tests: Sequence[TestNet],
        log: CaffeLog,
    ) -> None:
        self.students = students
        self.iteration = 0
        self.on_iteration: Callable[[int], None] = lambda _iteration: None
        self.diverged: list[int | None] = [None] * len(students.settings)
        self._message = students.solver.message
        self._rate = checked_rate(students.solver)
        self._sources, self._tests, self._log = sources, tests, log
        self._stepper = Stepper(students.training, device, students.values)
        self._engines = [Engine(t.evaluation.program, device, students.values) for t in tests]
        self._stop: StopRequest | None = None
        self._clock, self._displayed = time.perf_counter(), 0

    def solve(self, seed: int, tell: Tell, stop: StopRequest | None = None) -> None:
        """Train to max_iter; ``tell`` gets the iteration and every student's scores at each test.

        Without a test net the scores are the train net's, at each display. There are always
        scores at the end.

        Raises:
            RunInterruptedError: a signal asked to stop.
            KdnetError: what the data, the rate or the runtime raise.
        """
        self._stop = stop
        with batches(self.students.training.main, self._sources, seed) as feed:
            while self.iteration < self._message.max_iter and None in self.diverged:
                self._step(feed, seed, tell)
                self._leave_if_stopped()
            last = (
                {} if self._tests else self._stepper.look(feed.next(self.iteration), self._moving)
            )
        self.iteration = self._message.max_iter
        self._score(last, seed, tell)

    def _stopped(self) -> bool:
        return self._stop is not None and bool(self._stop.signal)

    def _leave_if_stopped(self) -> None:
        if self._stop is not None and self._stop.signal:
            text = f"stopped by a signal at iteration {self.iteration} of these students"
            hint = ("the same command goes on with the settings that are not done",)
            fault = Diagnostic("interrupted", text, help=hint, severity="note")
            raise RunInterruptedError(self._stop.signal, fault)

    def weights(self) -> dict[str, Array]:
        """Every weight's present value by its name in the graph."""
        return self._stepper.weights()

    @property
    def _moving(self) -> dict[str, float]:
        return scheduled_at(self.students.training.schedules, self.iteration)

    def _step(self, feed: Batches, seed: int, tell: Tell) -> None:
        message, iteration = self._message, self.iteration
        tested = self._tests and message.test_interval and iteration % message.test_interval == 0
        if tested and (iteration or message.test_initialization):
            self._score({}, seed, tell)
        values = self._stepper.step(
            self._rate(iteration), lambda micro: feed.next(iteration, micro), self._moving
        )
        if not np.isfinite(values[LOSS]):
            self._look_for_divergence(values)
        if message.display and iteration % message.display == 0:
            self._display()
            if not self._tests and iteration:
                self._score(values, seed, tell)
        self.iteration += 1
        self.on_iteration(self.iteration)

    def _display(self) -> None:
        now = time.perf_counter()
        speed = (self.iteration - self._displayed) / (now - self._clock or 1)
        running = self.diverged.count(None)
        self._log.line(
            places.OWN,
            f"Iteration {self.iteration} of {self._message.max_iter}: "
            f"{running} students, {speed:g} iter/s",
        )
        self._clock, self._displayed = now, self.iteration

    def _look_for_divergence(self, values: Mapping[str, Array]) -> None:
        """Find whose reports are not finite; weights tell of losses that nobody reports."""
        main, side = self.students.training.main, self.students.train
        before = self.diverged.count(None)
        for number, lost in enumerate(self.diverged):
            scores = scores_of(_own(main.reports, side), side, values, number)
            if lost is None and not np.all(np.isfinite(list(scores.values()))):
                self._lose(number)
        if before == len(self.diverged) == self.diverged.count(None):
            self._look_at_weights()

    def _look_at_weights(self) -> None:
        origins = self.students.train.layers
        weights = self._stepper.weights()
        for slot in self.students.training.weights:
            number = origins.get(slot.layer, ("", -1))[1]
            if number < 0 or self.diverged[number] is not None:
                continue
            if not np.all(np.isfinite(weights[slot.name])):
                self._lose(number)

    def _lose(self, number: int) -> None:
        self.diverged[number] = self.iteration
        label = self.students.settings[number].label or "the student"
        text = f"Iteration {self.iteration}, {label} diverged: its numbers are not finite"
        self._log.line(places.OWN, text, level="W")

    def _score(self, values: Mapping[str, Array], seed: int, tell: Tell) -> None:
        """Test, or take the train net's ``values``; nan for whoever diverged."""
        began = time.perf_counter()
        self._look_at_weights()
        students = self.students
        seen: list[tuple[str, Sequence[Report], SideBySide, Mapping[str, Array]]] = []
        for index, (test, engine) in enumerate(zip(self._tests, self._engines, strict=True)):
            means = evaluate(
                engine, test, self._stepper.buffers, seed, self._moving, until=self._stopped
            )
            prefix = f"test{index}/" if len(self._tests) > 1 else ""
            seen.append((prefix, engine.program.reports, students.tested[index], means))
        if not self._tests:
            seen.append(("", students.training.main.reports, students.train, values))
        self._leave_if_stopped()
        found: list[dict[str, float]] = []
        for number, lost in enumerate(self.diverged):
            found.append({})
            for prefix, reports, side, scores in seen:
                for name, score in scores_of(reports, side, scores, number).items():
                    found[-1][prefix + name] = score if lost is None else float("nan")
        self._clock += time.perf_counter() - began
        tell(self.iteration, found)


def _own(reports: Sequence[Report], side: SideBySide) -> list[Report]:
    """Reports of what each student has for its own."""
    return [report for report in reports if report.blob in side.blobs]
