"""``kdnet test``: mean scores over a number of batches, and what the heads are worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import Evaluation, Forward, Report, compile_evaluation, trace_forward
from kdnet.compile.heads import Head, Pair, heads_of, teaching_pairs, tensors_of
from kdnet.compile.program import LOSS
from kdnet.errors import Diagnostic, KdnetError, RunInterruptedError
from kdnet.graph import Emitter, Tensor
from kdnet.net import NetModel, NetState, needed, resolve_net
from kdnet.runtime import log as places
from kdnet.runtime.device import choose_device
from kdnet.runtime.feeding import open_sources
from kdnet.runtime.hosted import open_engine
from kdnet.runtime.joining import read_named
from kdnet.runtime.loading import initial_values
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import asked_for, check_input_shapes, check_net
from kdnet.runtime.scoring import Collector, HeadScore, not_finite, score_head
from kdnet.runtime.signals import StopRequest
from kdnet.runtime.state import StateBuffers
from kdnet.runtime.synthetic import with_stand_ins
from kdnet.runtime.trainer import TestNet, evaluation_batches
from kdnet.schema import Located
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import WeightFile, read_weights

Array = NDArray[Any]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class TestOptions:
    """What ``kdnet test`` was asked for."""

    path: str
    weights: tuple[str, ...] = ()
    iterations: int = 50
    device: str = "auto"
    seed: int = 0
    level: int | None = None
    stages: tuple[str, ...] = ()
    allow_unloaded: bool = False
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    synthetic_data: bool = False


@dataclass(frozen=True)
class Scores:
    """Mean reports by output name, what they are reports of, and the heads' scores.

    ``iterations`` are the batches that they are means over.
    """

    evaluation: Evaluation
    values: dict[str, Array]
    heads: tuple[HeadScore, ...] = ()
    iterations: int = 0

    @property
    def reports(self) -> tuple[Report, ...]:
        """The net's outputs."""
        return self.evaluation.program.reports

    def __getitem__(self, blob: str) -> float:
        report = next(report for report in self.reports if report.blob == blob)
        return float(np.mean(self.values[report.output]))


def test_net(
    options: TestOptions,
    log: CaffeLog,
    stop: StopRequest | None = None,  # noqa: PT028  # it tests a net; pytest never calls it
) -> Scores:
    """Score a net on its TEST data.

    Where a signal asks to stop, the scores are those of the batches until then. Where one asks
    for a snapshot, of which there is nothing to make here, the log tells the means so far.

    Raises:
        KdnetError: the first stage's faults; unloaded weights of any layer count as faults only
            where the layer is frozen.
        UsageError: not-a-net; unknown-input, for an input shape of no data layer.
    """
    check_net(options.path)
    device, why = choose_device(options.device)
    log.line(places.OWN, f"Device: {device} ({why})")
    named = read_named(options.path)
    located = named.located
    net = _resolved(located, pb.TEST, options)
    shapes = options.input_shapes
    check_input_shapes(shapes, [net], every_top=options.synthetic_data)
    if options.synthetic_data:
        (net,) = with_stand_ins([net], shapes, log, _trained(located, options))
    files = [*named.files, *(read_weights(path) for path in options.weights)]
    watched = _Watched(_pairs(located, options), files, log)
    evaluation = compile_evaluation(
        net, input_shapes=shapes, provider=device.kind, watching=watched
    )
    values, audit = initial_values(
        evaluation.weights, files, seed=options.seed, allow_unloaded=options.allow_unloaded
    )
    for line in audit.text().splitlines():
        log.line(places.OWN, line)
    engine = open_engine(evaluation.program, evaluation.hosted, device, values)
    log.line("caffe.cpp:285", f"Running for {options.iterations} iterations.")
    found = Collector(watched.heads)
    with ExitStack() as opened:
        sources = open_sources(net, seed=options.seed, shapes=shapes)
        for source in sources:
            opened.callback(source.close)
        test = TestNet(evaluation, sources, options.iterations)
        means = _Means(log, evaluation)
        seen = evaluation_batches(engine, test, StateBuffers(device, {}), options.seed)
        opened.callback(seen.close)
        means.take(seen, found, stop)
    scores = Scores(evaluation, means.values, _scored(found, log), means.batches)
    log_scores(scores, log)
    return scores


class _Means:
    """The means of the reports over the batches so far; each batch is told in the log."""

    def __init__(self, log: CaffeLog, evaluation: Evaluation) -> None:
        self.batches = 0
        self._log = log
        self._evaluation = evaluation
        self._sums: dict[str, Array] = {}

    @property
    def values(self) -> dict[str, Array]:
        """The mean of each report by output name, and of the loss under ``LOSS``."""
        return {name: total / self.batches for name, total in self._sums.items()}

    def take(
        self, seen: Iterable[Mapping[str, Array]], found: Collector, stop: StopRequest | None
    ) -> None:
        """Take batches until a signal asks to stop; heads' predictions go to the collector."""
        for values in seen:
            found.add_watched(values)
            self._add(values)
            if stop is not None and self._heed(stop):
                break

    def _add(self, values: Mapping[str, Array]) -> None:
        program = self._evaluation.program
        for report in program.reports:
            for value in np.reshape(values[report.output], -1):
                text = f"Batch {self.batches}, {report.blob} = {value:g}"
                self._log.line("caffe.cpp:308", text)
        for name, value in values.items():
            if name not in program.watched:
                total = self._sums.get(name, np.zeros_like(value, np.float64))
                self._sums[name] = total + value
        self.batches += 1

    def _heed(self, stop: StopRequest) -> bool:
        """Tell the means if a signal asked for a snapshot; whether one asked to stop."""
        if stop.take_snapshot():
            self._log.line(places.OWN, f"Means of {self.batches} batches so far:")
            log_scores(Scores(self._evaluation, self.values), self._log)
        return bool(stop.signal)


def leave_if_stopped(scores: Scores, options: TestOptions, stop: StopRequest) -> None:
    """Raise RunInterruptedError where a signal ended the test, once its scores are told."""
    if stop.signal:
        text = f"stopped by a signal after {scores.iterations} of {options.iterations} batches"
        hint = ("the scores are means over these",)
        fault = Diagnostic("interrupted", text, help=hint, severity="note")
        raise RunInterruptedError(stop.signal, fault)


def _scored(found: Collector, log: CaffeLog) -> tuple[HeadScore, ...]:
    if found.left_out:
        text = f"the last {found.left_out} batches are in the means, but not in the heads' scores"
        log.line(places.OWN, f"{text}: too many values to keep")
    for head in found.heads:
        bad, rows = not_finite(head, found)
        if bad:
            text = f'"{head.blob}" is not finite in {bad} of {rows} rows: it gets no score'
            log.line(places.OWN, f"warning: {text}")
    scores = (score_head(head, found) for head in found.heads)
    return tuple(score for score in scores if score is not None)


def _resolved(located: Located[pb.NetParameter], phase: int, options: TestOptions) -> NetModel:
    stated = NetState(phase).merged(located.message.state) if phase == pb.TEST else NetState(phase)
    state = asked_for(stated, options.level, options.stages)
    return resolve_net(located.message, located.source, state)


def _trained(located: Located[pb.NetParameter], options: TestOptions) -> list[NetModel]:
    """The net in TRAIN phase, whose data may tell shapes; none where it is no net."""
    try:
        return [_resolved(located, pb.TRAIN, options)]
    except KdnetError:
        return []


def _pairs(located: Located[pb.NetParameter], options: TestOptions) -> tuple[Pair, ...]:
    """Who teaches whom in TRAIN phase; nothing where that net cannot be traced, say without data.

    A net that is only tested need not be able to train.
    """
    try:
        net = _resolved(located, pb.TRAIN, options)
        return teaching_pairs(trace_forward(net, Emitter(), options.input_shapes))
    except KdnetError:
        return ()


class _Watched:
    """Chooses the heads to watch, once the net is traced.

    A teacher that only the TRAIN net reads is scored too, where the weight files hold it; else it
    stays out, as it would without being watched.
    """

    def __init__(self, pairs: Sequence[Pair], files: Sequence[WeightFile], log: CaffeLog) -> None:
        self.heads: tuple[Head, ...] = ()
        self._pairs = pairs
        self._held = {layer.name for file in files for layer in file.layers}
        self._log = log

    def __call__(self, forward: Forward) -> dict[str, Tensor]:
        own = heads_of(forward)
        known = {head.blob for head in own}
        every = heads_of(forward, self._pairs)
        missing = {
            head.blob for head in every if head.blob not in known and self._lacks(forward, head)
        }
        for blob in sorted(missing):
            text = f'teacher "{blob}" is not scored: --weights does not hold all of its layers'
            self._log.line(places.OWN, text)
        pairs = [pair for pair in self._pairs if pair.teacher not in missing]
        self.heads = heads_of(forward, pairs)
        return tensors_of(self.heads)

    def _lacks(self, forward: Forward, head: Head) -> bool:
        layers = {forward.net.layers[i].name for i in needed(forward.net, [head.blob])}
        weighted = {blob.layer.name for blob in forward.weights.values()}
        return not layers & weighted <= self._held


def log_scores(scores: Scores, log: CaffeLog) -> None:
    """The closing lines of ``caffe test``."""
    if LOSS in scores.values:
        log.line("caffe.cpp:313", f"Loss: {float(scores.values[LOSS]):g}")
    for report in scores.reports:
        for value in np.reshape(scores.values[report.output], -1):
            log.line("caffe.cpp:325", places.score_text(report, value))
