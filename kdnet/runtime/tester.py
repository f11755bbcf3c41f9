"""``kdnet test``: a TEST net's mean scores over a number of batches."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import Evaluation, Report, compile_evaluation
from kdnet.compile.program import LOSS
from kdnet.net import NetState, resolve_net
from kdnet.runtime import log as places
from kdnet.runtime.device import choose_device
from kdnet.runtime.engine import Engine
from kdnet.runtime.feeding import open_sources
from kdnet.runtime.loading import initial_values
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import asked_for, check_input_shapes, check_net
from kdnet.runtime.state import StateBuffers
from kdnet.runtime.trainer import TestNet, evaluate
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_net
from kdnet.weights import read_weights

Array = NDArray[Any]


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


@dataclass(frozen=True)
class Scores:
    """Mean reports by output name, and what they are reports of."""

    evaluation: Evaluation
    values: dict[str, Array]

    @property
    def reports(self) -> tuple[Report, ...]:
        """The net's outputs."""
        return self.evaluation.program.reports

    def __getitem__(self, blob: str) -> float:
        report = next(report for report in self.reports if report.blob == blob)
        return float(np.mean(self.values[report.output]))


def test_net(options: TestOptions, log: CaffeLog) -> Scores:
    """Score a net on its TEST data.

    Raises:
        KdnetError: the first stage's faults; unloaded weights of any layer count as faults only
            where the layer is frozen.
        UsageError: not-a-net; unknown-input, for an input shape of no data layer.
    """
    check_net(options.path)
    device, why = choose_device(options.device)
    log.line(places.OWN, f"Device: {device} ({why})")
    located = read_net(options.path)
    stated = NetState(pb.TEST).merged(located.message.state)
    state = asked_for(stated, options.level, options.stages)
    net = resolve_net(located.message, located.source, state)
    shapes = options.input_shapes
    check_input_shapes(shapes, [net])
    evaluation = compile_evaluation(net, input_shapes=shapes, provider=device.kind)
    files = [read_weights(path) for path in options.weights]
    values, audit = initial_values(
        evaluation.weights, files, seed=options.seed, allow_unloaded=options.allow_unloaded
    )
    for line in audit.text().splitlines():
        log.line(places.OWN, line)
    engine = Engine(evaluation.program, device, values)
    with ExitStack() as opened:
        sources = open_sources(net, seed=options.seed, shapes=shapes)
        for source in sources:
            opened.callback(source.close)
        test = TestNet(evaluation, sources, options.iterations)
        means = evaluate(engine, test, StateBuffers(device, {}), options.seed)
    scores = Scores(evaluation, means)
    log_scores(scores, log)
    return scores


def log_scores(scores: Scores, log: CaffeLog) -> None:
    """The closing lines of ``caffe test``."""
    if LOSS in scores.values:
        log.line("caffe.cpp:313", f"Loss: {float(scores.values[LOSS]):g}")
    for report in scores.reports:
        for value in np.reshape(scores.values[report.output], -1):
            log.line("caffe.cpp:325", places.score_text(report, value))
