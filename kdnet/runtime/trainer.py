"""The training loop, iteration by iteration as Caffe's Solver::Step."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import Evaluation, Training
from kdnet.compile.debug_info import DebugProgram
from kdnet.compile.program import LOSS
from kdnet.data import Source
from kdnet.errors import DataError, Diagnostic, RunError, RunInterruptedError
from kdnet.net import SolverModel
from kdnet.runtime import log as places
from kdnet.runtime.debug_info import DebuggedEngine, DebugInfo
from kdnet.runtime.device import Device
from kdnet.runtime.engine import Engine
from kdnet.runtime.feeding import Batches, batches
from kdnet.runtime.hosted import open_engine
from kdnet.runtime.log import CaffeLog, with_weights
from kdnet.runtime.rate import Rate, scheduled_at
from kdnet.runtime.signals import StopRequest
from kdnet.runtime.sinks import check_files, recording, write_last
from kdnet.runtime.snapshots import Snapshot, history_of, last_updates, layers_of, save
from kdnet.runtime.solver_states import Resume
from kdnet.runtime.state import StateBuffers
from kdnet.runtime.stepper import Stepper
from kdnet.schema import kdnet_pb2 as pb

Array = NDArray[Any]


@dataclass(frozen=True)
class TestNet:
    """A compiled test net, its data, and how many batches one test takes.

    ``debug`` is what debug_info has logged of each batch.
    """

    evaluation: Evaluation
    sources: Sequence[Source]
    iterations: int
    debug: DebugProgram | None = None


@dataclass
class Run:
    """Everything a training run is made of."""

    training: Training
    solver: SolverModel
    device: Device
    values: dict[str, Array]
    sources: Sequence[Source]
    tests: Sequence[TestNet]
    log: CaffeLog
    seed: int
    prefix: str
    max_iter: int
    resume: Resume | None = None
    full_snapshots: bool = False
    debug: DebugProgram | None = None
    on_iteration: Callable[[int, float], None] = field(default=lambda _i, _l: None)

    def close(self) -> None:
        """Release the data."""
        for source in (*self.sources, *(source for test in self.tests for source in test.sources)):
            source.close()


class Trainer:
    """Trains one net.

    Attributes:
        iteration: how many updates were made.
        saved: the weight file of the last snapshot.
        scores: the last test's mean of each output, by test net and output name.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        message = run.solver.message
        self.iteration = run.resume.iteration if run.resume else 0
        self.saved = ""
        self._state = ""
        self.scores: list[dict[str, Array]] = [{} for _ in run.tests]
        self._message = message
        self._rate = Rate(run.solver, run.resume)
        history = run.resume.history if run.resume else None
        self._stepper = self._stepper_of(history or {})
        self._tests = [self._engine_of(test) for test in run.tests]
        for program in (run.training.main, *(test.evaluation.program for test in run.tests)):
            check_files(program)
        self._debug = self._debug_info(run.debug)
        self._feed: Batches | None = None
        self._latest: dict[str, Array] = {}
        self._stop: StopRequest | None = None
        self._saved_at = -1
        self._clock = time.perf_counter()
        self._displayed = self.iteration

    def _stepper_of(self, history: Mapping[str, Array]) -> Stepper:
        run = self.run
        return Stepper(run.training, run.device, run.values, history)

    def _engine_of(self, test: TestNet) -> Engine | DebuggedEngine:
        compiled, run = test.evaluation, self.run
        engine = open_engine(compiled.program, compiled.hosted, run.device, run.values)
        debug = self._debug_info(test.debug)
        return DebuggedEngine(engine, debug) if debug else engine

    def _debug_info(self, compiled: DebugProgram | None) -> DebugInfo | None:
        run = self.run
        return DebugInfo(compiled, run.device, run.values, run.log) if compiled else None

    def solve(self, stop: StopRequest | None = None) -> None:
        """Train to ``max_iter``, testing, logging and saving as the solver says.

        Raises:
            RunInterruptedError: a signal asked to stop; a snapshot was written first, unless
                snapshot_after_train is false.
            DataError: what a source raised; the work so far was saved likewise.
            RunError: non-finite-loss, non-finite-rate, and what the runtime raised.
        """
        run, log = self.run, self.run.log
        self._stop = stop
        log.line(places.SOLVING, f"Solving {run.training.net.name}")
        log.line(places.POLICY, f"Learning Rate Policy: {self._message.lr_policy or 'fixed'}")
        start = self.iteration * run.training.iter_size
        fed = self._debug.program if self._debug else self._stepper.feeding
        with batches(fed, run.sources, run.seed, start) as self._feed:
            try:
                while not self._heed() and self.iteration < run.max_iter:
                    self.iterate()
                if not self._stopped:
                    self._finish()
            except DataError:
                if self.iteration * run.training.iter_size > start:
                    self._save_once()
                raise
        if self._latest:
            write_last(run.training.main, self._latest)
        if stop is not None and stop.signal:
            self._leave(stop.signal)

    @property
    def _stopped(self) -> int:
        """The signal that asked to stop; 0 for none."""
        return self._stop.signal if self._stop else 0

    def _heed(self) -> bool:
        """Save if a signal asked for it; whether one asked to stop."""
        if self._stop and self._stop.take_snapshot() and self._saved_at != self.iteration:
            self.snapshot()
        return bool(self._stopped)

    def _save_once(self) -> None:
        """A snapshot of this iteration, unless there is one or the solver wants none."""
        if self._message.snapshot_after_train and self._saved_at != self.iteration:
            self.snapshot()

    def _leave(self, signal_number: int) -> None:
        self._save_once()
        self.run.log.line(places.EARLY, "Optimization stopped early.")
        text = f"stopped by a signal at iteration {self.iteration}"
        if self._saved_at == self.iteration:
            text += f"; saved {self.saved}"
            hint = f"go on with --snapshot {self._state}"
        else:
            hint = "nothing was saved now, since snapshot_after_train is false"
        fault = Diagnostic("interrupted", text, help=(hint,), severity="note")
        raise RunInterruptedError(signal_number, fault)

    def iterate(self) -> float:
        """One iteration: test if it is time, step, log, save if it is time.

        Returns:
            The loss, averaged over the micro-steps.
        """
        message = self._message
        if self._tests_now() and (self.iteration > 0 or message.test_initialization):
            self.test_all()
        rate = self._rate(self.iteration)
        values = self._step(rate)
        loss = float(values[LOSS])
        dropped = self._rate.see(self.iteration, loss)
        if message.display and self.iteration % message.display == 0:
            self._display(values, rate)
        for news in filter(None, (self._rate.news(self.iteration), dropped)):
            self.run.log.line(places.STEPPED, news)
        self.iteration += 1
        self.run.on_iteration(self.iteration, loss)
        if message.snapshot and self.iteration % message.snapshot == 0:
            self.snapshot()
        return loss

    def _tests_now(self) -> bool:
        interval = self._message.test_interval
        return bool(interval and self.iteration % interval == 0)

    def _step(self, rate: float) -> dict[str, Array]:
        values = self._stepper.step(rate, self._feeds, self._scheduled)
        self._latest = values
        if not np.isfinite(values[LOSS]):
            raise RunError(self._non_finite(values))
        return values

    @property
    def _scheduled(self) -> dict[str, float]:
        """The scheduled numbers of this iteration."""
        return scheduled_at(self.run.training.schedules, self.iteration)

    def _feeds(self, micro: int) -> Mapping[str, Array]:
        if self._feed is None:
            raise ValueError("iterations are made inside solve()")
        feeds = self._feed.next(self.iteration, micro)
        display, ended = self._message.display, self.iteration == self.run.max_iter
        # The last batch is only looked at, under the setting of the iteration before it.
        if self._debug and display and (self.iteration - ended) % display == 0:
            self._debug.show(self._stepper.buffers, feeds, self._scheduled, backward=not ended)
        return feeds

    def _non_finite(self, values: Mapping[str, Array]) -> Diagnostic:
        culprit = next(
            (
                report
                for report in self.run.training.main.reports
                if not np.all(np.isfinite(values[report.output]))
            ),
            None,
        )
        name = f'"{culprit.blob}"' if culprit else "the loss"
        text = f"{name} is {float(values[LOSS]):g} at iteration {self.iteration}"
        hints: tuple[str, ...] = (
            f"try a base_lr below {self._rate(self.iteration):g}, or clip_gradients",
            "snapshots already written are whole",
        )
        if self.iteration == (self.run.resume.iteration if self.run.resume else 0):
            hints = (
                "no weight has moved yet: look at the data, the fillers and what no file filled",
            )
        span = culprit.span if culprit else self.run.training.main.loss_span
        return Diagnostic("non-finite-loss", text, span, help=hints)

    def _display(self, values: dict[str, Array], rate: float) -> None:
        now, log = time.perf_counter(), self.run.log
        elapsed = now - self._clock
        speed = (self.iteration - self._displayed) / (elapsed or 1)
        log.line(
            places.ITERATION,
            f"Iteration {self.iteration} ({speed:g} iter/s, {elapsed:g}s/"
            f"{self._message.display} iters), loss = {self._rate.smoothed_loss:g}",
        )
        reports = with_weights(self.run.training.main.reports, self._scheduled)
        log.outputs(places.TRAIN_OUTPUT, "Train", reports, values)
        log.line(places.RATE_LINE, f"Iteration {self.iteration}, lr = {rate:g}")
        for item in self.run.training.schedules:
            if item.number < 0:
                continue
            text = f"{item.layer}.{item.field} = {item.value(self.iteration):g}"
            log.line(places.OWN, f"Iteration {self.iteration}, {text}")
        self._clock, self._displayed = now, self.iteration

    def _finish(self) -> None:
        message, log = self._message, self.run.log
        self._save_once()
        if message.display and self.iteration % message.display == 0:
            seen = self._stepper.look(self._feeds(0), self._scheduled)
            self._rate.see(self.iteration, float(seen[LOSS]))
            text = f"Iteration {self.iteration}, loss = {self._rate.smoothed_loss:g}"
            log.line(places.FINAL_LOSS, text)
        if self._tests_now():
            self.test_all()
        log.line(places.DONE, "Optimization Done.")

    def test_all(self) -> None:
        """Run every test net on its data, with the weights as they are."""
        began = time.perf_counter()
        for index, (test, engine) in enumerate(zip(self.run.tests, self._tests, strict=True)):
            self.run.log.line(
                places.TESTING, f"Iteration {self.iteration}, Testing net (#{index})"
            )
            buffers, seed = self._stepper.buffers, self.run.seed
            scores = evaluate(engine, test, buffers, seed, self._scheduled, until=self._heed)
            if self._stopped:
                self.run.log.line(places.TESTING, "Test interrupted.")
                return
            self.scores[index] = scores
            self._log_test(test, scores)
        # The speed in the log is that of training: time spent on tests does not count.
        self._clock += time.perf_counter() - began

    def _log_test(self, test: TestNet, scores: dict[str, Array]) -> None:
        if self._message.test_compute_loss and LOSS in scores:
            self.run.log.line(places.TEST_LOSS, f"Test loss: {float(scores[LOSS]):g}")
        reports = with_weights(test.evaluation.program.reports, self._scheduled)
        self.run.log.outputs(places.TEST_OUTPUT, "Test", reports, scores)

    def blob_scores(self, test: int) -> dict[str, float]:
        """The last test's mean of each reported blob, by its name."""
        reports = self.run.tests[test].evaluation.program.reports
        return {
            report.blob: float(np.mean(self.scores[test][report.output])) for report in reports
        }

    def snapshot(self) -> tuple[str, str]:
        """Write weights and solver state; their paths."""
        run, training = self.run, self.run.training
        types = {layer.name: layer.type for layer in training.net.layers}
        history = self._stepper.history()
        layers = layers_of(
            training.weights,
            types,
            self._stepper.weights(),
            full=run.full_snapshots,
            diffs=last_updates(training, history),
        )
        state = self._rate.state(self.iteration, run.seed)
        state = replace(state, history=history_of(training, history, layers))
        hdf5 = self._message.snapshot_format == pb.SolverParameter.HDF5
        kind = "HDF5" if hdf5 else "binary proto"
        paths = save(run.prefix, Snapshot(layers, training.net.name, state), hdf5=hdf5)
        (self.saved, self._state), self._saved_at = paths, self.iteration
        run.log.line(places.SNAPSHOT, f"Snapshotting to {kind} file {paths[0]}")
        run.log.line(places.SOLVER_STATE, f"Snapshotting solver state to {kind} file {paths[1]}")
        return paths


def evaluate(
    engine: Engine | DebuggedEngine,
    test: TestNet,
    buffers: StateBuffers,
    seed: int,
    scheduled: Mapping[str, float] | None = None,
    *,
    until: Callable[[], bool] = lambda: False,
) -> dict[str, Array]:
    """The mean of every report over the test's batches, and of the loss under ``LOSS``.

    It breaks off, with a result that means nothing, as soon as ``until`` holds.
    """
    with closing(evaluation_batches(engine, test, buffers, seed, scheduled)) as seen:
        return mean_values(takewhile(lambda _values: not until(), seen), test.iterations)


def mean_values(seen: Iterable[Mapping[str, Array]], count: int) -> dict[str, Array]:
    """The sum of each value over the batches, in float64, divided by ``count``."""
    totals: dict[str, Array] = {}
    for values in seen:
        for name, value in values.items():
            totals[name] = totals.get(name, np.zeros_like(value, np.float64)) + value
    return {name: total / count for name, total in totals.items()}


def evaluation_batches(
    engine: Engine | DebuggedEngine,
    test: TestNet,
    buffers: StateBuffers,
    seed: int,
    scheduled: Mapping[str, float] | None = None,
) -> Generator[dict[str, Array], None, None]:
    """What the engine says of each of the test's batches; to be closed where not all are taken."""
    fed = batches(engine.feeding, test.sources, seed)
    with fed as feed, recording(test.evaluation.program, test.iterations) as take:
        for index in range(test.iterations):
            yield take(engine.run(buffers, feed.next(index), scheduled, keep=False))
