"""``kdnet time``: how long each layer of a net takes, forward and backward.

The net runs as it would in training: in phase TRAIN one step with its update; in phase TEST, and
where there is nothing to train, forward only. The runtime's profile says where the time goes.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from kdnet.compile import (
    Forward,
    Program,
    WeightSlot,
    compile_evaluation,
    compile_training,
    trace_forward,
)
from kdnet.compile.cost import cost_of
from kdnet.compile.hosted import HostedStep, fed_to
from kdnet.compile.program import LOSS
from kdnet.errors import LayerError
from kdnet.graph import Emitter
from kdnet.net import NetModel, NetState, resolve_net, solver_for_net
from kdnet.runtime.device import Device, choose_device
from kdnet.runtime.engine import GRAPH, Engine
from kdnet.runtime.hosted import HostedEngine, Spent, open_engine
from kdnet.runtime.joining import read_named
from kdnet.runtime.loading import initial_values
from kdnet.runtime.log import OWN, CaffeLog
from kdnet.runtime.plan import asked_for, check_input_shapes, check_net
from kdnet.runtime.state import StateBuffers
from kdnet.runtime.synthetic import with_stand_ins
from kdnet.runtime.timing_feeds import TimedFeeds
from kdnet.runtime.timing_layers import Owners, Shares, shares_of
from kdnet.runtime.timing_profile import ProfiledRun, mean_nodes, read_profile
from kdnet.runtime.timing_report import LayerTime, Timing
from kdnet.schema import kdnet_pb2 as pb

Array = NDArray[Any]
# The runtime keeps a million events of a profile and drops the others.
EVENTS = 400_000
BLOCKING = "CUDA_LAUNCH_BLOCKING"


@dataclass(frozen=True)
class TimeOptions:
    """What ``kdnet time`` was asked for."""

    path: str
    phase: str = "TRAIN"
    iterations: int = 50
    device: str = "auto"
    seed: int = 0
    level: int | None = None
    stages: tuple[str, ...] = ()
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    synthetic_data: bool = False


class _Compiled(NamedTuple):
    """A program, its weights and the first state of what it changes."""

    program: Program
    weights: Sequence[WeightSlot]
    live: frozenset[str]
    histories: Mapping[str, str]
    hosted: Sequence[HostedStep]
    trains: bool

    def state(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """What the program changes, as it is before the first run."""
        zeros = {name: np.zeros_like(values[of]) for name, of in self.histories.items()}
        return {**{name: values[name] for name in self.live}, **zeros}


def time_net(options: TimeOptions, log: CaffeLog) -> Timing:
    """Time a net.

    Raises:
        KdnetError: the first stage's faults; weights are never missed, since values do not matter.
        UsageError: not-a-net; unknown-input, for an input shape of no data layer.
    """
    check_net(options.path)
    if options.device != "cpu":
        # Without it a CUDA op's time is that of its launch. It must be set before CUDA starts.
        os.environ.setdefault(BLOCKING, "1")
    device, why = choose_device(options.device)
    log.line(OWN, f"Device: {device} ({why})")
    if device.kind == "cuda" and os.environ[BLOCKING] == "1":
        log.line(OWN, "Each op waits for the device, so that it shows its own time: training")
        log.line(OWN, "does not wait, and takes less than the sum")
    net = _resolved(options)
    check_input_shapes(options.input_shapes, [net], every_top=options.synthetic_data)
    if options.synthetic_data:
        (net,) = with_stand_ins([net], options.input_shapes, log)
    compiled = _compile(net, options, device)
    return _Bench(net, compiled, device, options, log).run()


def _resolved(options: TimeOptions) -> NetModel:
    """The net in the phase that was asked for, whatever its own state says, as in Caffe."""
    located = read_named(options.path).located
    phase = pb.Phase.Value(options.phase)
    stated = NetState(phase).merged(located.message.state)
    state = asked_for(replace(stated, phase=phase), options.level, options.stages)
    return resolve_net(located.message, located.source, state)


def _compile(net: NetModel, options: TimeOptions, device: Device) -> _Compiled:
    shapes = options.input_shapes
    if options.phase == "TRAIN":
        try:
            solver = solver_for_net(options.path)
            training = compile_training(net, solver, input_shapes=shapes, provider=device.kind)
        except LayerError as error:
            if error.diagnostics[0].code != "nothing-to-train":
                raise
        else:
            live, histories = training.live, training.histories
            main, hosted = training.main, training.hosted
            return _Compiled(main, training.weights, live, histories, hosted, trains=True)
    evaluation = compile_evaluation(net, input_shapes=shapes, provider=device.kind)
    program, weights, hosted = evaluation.program, evaluation.weights, evaluation.hosted
    return _Compiled(program, weights, frozenset(), {}, hosted, trains=False)


class _Bench:
    """Runs a compiled net and reads the runtime's profile of it."""

    def __init__(
        self,
        net: NetModel,
        compiled: _Compiled,
        device: Device,
        options: TimeOptions,
        log: CaffeLog,
    ) -> None:
        self._net, self._compiled, self._device = net, compiled, device
        self._options, self._log = options, log
        fed = fed_to(compiled.program, compiled.hosted)
        self._feeds = TimedFeeds(net, fed, options.seed, options.input_shapes)
        self._spent = Spent()

    def run(self) -> Timing:
        """Run once to warm up, then as often as was asked for."""
        values, _ = initial_values(
            self._compiled.weights, [], seed=self._options.seed, allow_unloaded=True
        )
        buffers = StateBuffers(self._device, self._compiled.state(values))
        with ExitStack() as opened:
            opened.callback(self._feeds.close)
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="kdnet-time-"))
            program, hosted = self._compiled.program, self._compiled.hosted
            engine = open_engine(program, hosted, self._device, values, profile_in=folder)
            self._log_first(engine.run(buffers, self._feeds.next(0)))
            self._feeds.restart()
            if isinstance(engine, HostedEngine):
                engine.restart()
                self._spent = engine.spent
            seconds, runs = self._iterate(engine, buffers)
            graph = Path(folder) / GRAPH
            optimized = onnx.load(graph).graph if graph.exists() else None
        return self._timing(seconds, runs, optimized)

    def _log_first(self, values: Mapping[str, Array]) -> None:
        log = self._log
        for top in self._feeds.stand_ins:
            log.line(OWN, f'"{top}" has no data: it gets random numbers')
        log.line("caffe.cpp:351", "Performing Forward")
        log.line("caffe.cpp:356", f"Initial loss: {float(values.get(LOSS, 0.0)):g}")
        if self._compiled.trains:
            log.line("caffe.cpp:357", "Performing Backward")
        log.line("caffe.cpp:365", "*** Benchmark begins ***")
        log.line("caffe.cpp:366", f"Testing for {self._options.iterations} iterations.")

    def _iterate(
        self, engine: Engine, buffers: StateBuffers
    ) -> tuple[list[float], list[ProfiledRun]]:
        """The seconds of each iteration, and the profile of as many as fit into one."""
        fitting = max(1, EVENTS // max(1, len(self._compiled.program.model.graph.node)))
        seconds: list[float] = []
        runs: list[ProfiledRun] = []
        for index in range(1, self._options.iterations + 1):
            began = time.perf_counter()
            engine.run(buffers, self._feeds.next(index))
            seconds.append(time.perf_counter() - began)
            text = f"Iteration: {index} forward-backward time: {1e3 * seconds[-1]:g} ms."
            self._log.line("caffe.cpp:394", text)
            if index in (fitting, self._options.iterations) and not runs:
                runs = read_profile(engine.end_profile())[1:]
        return seconds, runs

    def _timing(
        self, seconds: Sequence[float], runs: Sequence[ProfiledRun], graph: onnx.GraphProto | None
    ) -> Timing:
        forward = trace_forward(
            self._net, Emitter(provider=self._device.kind), self._options.input_shapes
        )
        owners = Owners(forward, self._compiled.program.model, graph)
        shares = shares_of(owners, mean_nodes(runs))
        layers = tuple(self._layers(forward, owners, shares, len(seconds)))
        total = 1e3 * sum(seconds)
        inside = sum(layer.both for layer in layers)
        inside += (shares.update + shares.copies + shares.other) / 1e3
        around = 1e3 * self._spent.around / len(seconds)
        return Timing(
            net=self._net.name,
            phase=self._options.phase,
            device=str(self._device),
            iterations=len(seconds),
            profiled=len(runs),
            total=total,
            layers=layers,
            update=shares.update / 1e3,
            copies=shares.copies / 1e3,
            other=shares.other / 1e3,
            around=around,
            between=1e3 * sum(seconds[: len(runs)]) / len(runs) - inside - around,
            trains=self._compiled.trains,
        )

    def _layers(
        self, traced: Forward, owners: Owners, shares: Shares, iterations: int
    ) -> Iterator[LayerTime]:
        flops = {layer.layer: layer.flops for layer in cost_of(traced).layers}
        names = [layer.name for layer in self._net.layers]
        for index, layer in enumerate(self._net.layers):
            waited = 1e3 * self._feeds.seconds.get(index, 0.0) / iterations
            forward, backward = (
                1e3 * spent.get(layer.name, 0.0) / iterations
                for spent in (self._spent.forward, self._spent.backward)
            )
            inside = shares.forward.get(index, 0.0) / 1e3
            yield LayerTime(
                name=layer.name,
                type=layer.type,
                forward=waited + inside + forward,
                backward=shares.backward.get(index, 0.0) / 1e3 + backward,
                # Layers without weights may share a name: the first of them stands for all.
                flops=flops.pop(layer.name, 0),
                computed_in=()
                if inside
                else tuple(names[other] for other in owners.computed_in(index)),
            )
