"""Solvers as pycaffe has them: training step by step, with the net's arrays at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdnet.api.hosted import PythonLayers
from kdnet.api.mode import current_device, current_seed
from kdnet.api.models import FilePath
from kdnet.api.net import Net
from kdnet.api.passes import Began, Setting
from kdnet.compile import compile_evaluation, compile_training
from kdnet.errors import UsageError, fail
from kdnet.layers.python import Instances, allowed_python
from kdnet.net import NetModel, load_solver
from kdnet.runtime import CaffeLog, Run, Stepper, TestNet, Trainer, TrainOptions
from kdnet.runtime.feeding import check_labels, open_sources
from kdnet.runtime.loading import initial_values
from kdnet.runtime.plan import Plan, is_solver, make_plan, snapshot_prefix
from kdnet.runtime.rate import Rate, scheduled_at
from kdnet.runtime.setup import all_slots, tell_ignored
from kdnet.runtime.snapshots import resumed
from kdnet.runtime.solver_states import Resume, load
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import philox, read_weights

Array = NDArray[Any]
Feeds = Callable[[int], Mapping[str, Array]]


class _Steps(Trainer):
    """A trainer whose batches come from the program's own net."""

    def __init__(self, run: Run, feeds: Feeds) -> None:
        super().__init__(run)
        self._source = feeds
        self.values: dict[str, Array] = {}

    @property
    def stepper(self) -> Stepper:
        """What takes the steps."""
        return self._stepper

    def _feeds(self, micro: int) -> Mapping[str, Array]:
        return self._source(micro)

    def _step(self, rate: float) -> dict[str, Array]:
        self.values = super()._step(rate)
        return self.values


class Solver:
    """Trains a net as a solver file says.

        solver = kdnet.get_solver("solver.prototxt")
        solver.net.copy_from("teacher.caffemodel")
        solver.step(100)

    After a step the train net's outputs hold that step's values; its other blobs, and gradients,
    are computed when they are looked at, from the weights before the update. Frozen weights
    (lr_mult 0) are constants of the compiled step: where a program changes them, the next step is
    compiled anew.

    Args:
        path: the solver's file.
        log: where its lines go; stderr by default.

    Attributes:
        net: the train net.
        test_nets: the test nets; they use the train net's weights.

    Raises:
        UsageError: not-a-solver.
        KdnetError: what is wrong with the files.
    """

    type: ClassVar[str] = ""

    def __init__(self, path: FilePath, log: CaffeLog | None = None) -> None:
        name, log = _solver_file(path), log or CaffeLog()
        plan = make_plan(TrainOptions(name, seed=current_seed()), log)
        plan.solver.message.type = self.type or plan.solver.message.type
        tell_ignored(plan.solver, log)
        # The nets, and the programs of training and testing, use the same Python layers.
        instances: Instances = {}
        with allowed_python(instances=instances):
            self._run = _prepared(plan, log)
        training = self._run.training
        setting = Setting(self._run.device, plan.seed, training.schedules)
        self.net = Net.of_model(plan.net, setting, PythonLayers(plan.net, instances))
        self._weights, self._passes = self.net._weights, self.net._passes
        self._weights.replace(self._run.values)
        self._weights.pull = self._pull
        self.test_nets = [
            self._test_net(test.evaluation.net, setting, instances) for test in self._run.tests
        ]
        self._steps: _Steps | None = None
        self._seen_version = self._weights.version
        self._stale: set[str] = set()
        self._past: dict[str, Array] = {}
        self._past_of = -1
        self._batch: dict[str, Array] = {}

    def _test_net(self, net: NetModel, setting: Setting, instances: Instances) -> Net:
        found = Net.of_model(net, setting, PythonLayers(net, instances))
        found._weights.replace(self._run.values)
        found.share_with(self.net)
        return found

    @property
    def param(self) -> pb.SolverParameter:
        """The solver's message."""
        return self._run.solver.message

    @property
    def iter(self) -> int:
        """How many updates were made."""
        if self._steps is not None:
            return self._steps.iteration
        return self._run.resume.iteration if self._run.resume else 0

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return Rate(self._run.solver, self._run.resume)(self.iter)

    def step(self, n: int) -> None:
        """Make ``n`` updates; test, log and save when the solver says so.

        Raises:
            DataError: what the data raised.
            RunError: non-finite-loss, non-finite-rate, and what the runtime raised.
        """
        for _ in range(n):
            steps = self._ready()
            steps.iterate()
            self._stepped(steps)

    def solve(self, resume_file: FilePath | None = None) -> None:
        """Train to the end, from a .solverstate if one is given."""
        if resume_file is not None:
            self.restore(resume_file)
        steps = self._ready()
        before = steps.iteration
        steps.solve()
        if steps.iteration > before:
            self._stepped(steps)

    def snapshot(self) -> tuple[str, str]:
        """Write all weights and the solver's state; the paths of the two files.

        Raises:
            WeightsError: cannot-write.
        """
        return self._ready().snapshot()

    def restore(self, path: FilePath) -> None:
        """Go on from a .solverstate, with the weights that were saved beside it.

        Raises:
            WeightsError: missing-snapshot, bad-snapshot, snapshot-mismatch.
        """
        name = os.fspath(path)
        resume = resumed(load(name), self._run.training, name)
        if resume is None:
            return
        beside = Path(name).parent / Path(resume.learned_net).name
        self.net.copy_from(beside if beside.exists() else resume.learned_net)
        self._steps = None
        self._run.resume = resume
        self.net._streams.index = resume.iteration * self._run.training.iter_size

    def share_weights(self, net: Net) -> None:
        """Let another net use the train net's weights."""
        net.share_with(self.net)

    def _ready(self) -> _Steps:
        """The trainer, with what the program wrote into weights."""
        if self._steps is not None and self._frozen_changed():
            self._weights.fresh()
            self._run.resume = self._here(self._steps)
            self._steps = None
        if self._steps is None:
            self._run.values |= {k: v.copy() for k, v in self._weights.values.items()}
            self._steps = _Steps(self._run, self._feeds)
        else:
            self._push(self._steps)
        self._seen_version = self._weights.version
        return self._steps

    def _here(self, steps: _Steps) -> Resume:
        """Where the run stands, to go on from with other frozen weights."""
        state = steps._rate.state(steps.iteration, self._run.seed)
        return replace(state, history=steps.stepper.history())

    def _frozen_changed(self) -> bool:
        live = self._run.training.live
        loaded = self._weights.version != self._seen_version
        names = self._weights.values.keys() if loaded else self._weights.looked
        values, known = self._weights.values, self._run.values
        return any(
            name not in live and not np.array_equal(values[name], known[name]) for name in names
        )

    def _push(self, steps: _Steps) -> None:
        loaded = self._weights.version != self._seen_version
        live = self._run.training.live
        for name in live if loaded else live & self._weights.looked:
            steps.stepper.buffers.write(name, self._weights.values[name])

    def _pull(self, names: Collection[str] | None) -> None:
        """Fetch weights that steps have changed."""
        wanted = self._stale if names is None else self._stale.intersection(names)
        for name in wanted:
            held = self._steps.stepper.buffers if self._steps else None
            if held is not None:
                self._weights.values[name][...] = held.read(name)
        self._stale = self._stale - wanted

    def _feeds(self, micro: int) -> dict[str, Array]:
        """The inputs of one micro-step: the net's next batch, and noise."""
        run, program = self._run, self._run.training.main
        self._batch = self._passes.next_batch()
        for check in program.labels:
            check_labels(check, self._batch[check.tensor.name], self.iter)
        feeds = {name: self._fitting(name, shape) for name, shape in program.data.items()}
        for slot in program.noise:
            seed = run.seed if slot.seed is None else slot.seed
            stream = philox(seed, "noise", slot.layer, self.iter, micro)
            feeds[slot.name] = stream.random(slot.shape, np.float32)
        self._batch |= {name: feeds[name] for name in (slot.name for slot in program.noise)}
        return feeds

    def _fitting(self, name: str, shape: tuple[int, ...]) -> Array:
        found = self._batch[name]
        if found.shape != shape:
            text = f'a step is compiled for "{name}" of shape {shape}, not {found.shape}'
            raise ValueError(text)
        return found

    def _stepped(self, steps: _Steps) -> None:
        """Let the net show what the step left, and held weights their new values."""
        run, iteration = self._run, steps.iteration - 1
        self._stale = set(run.training.live)
        self._pull(self._weights.looked)
        self._passes.scalars = scheduled_at(run.training.schedules, iteration)
        batch = dict(self._batch)
        self._passes.postpone(lambda: self._began(steps, batch))
        for report in run.training.main.reports:
            blob = self.net.blobs[report.blob]
            blob.fill(steps.values[report.output])
            blob.before_data = None

    def _began(self, steps: _Steps, batch: Mapping[str, Array]) -> Began:
        """What the last step began with: its batch, its noise, and the weights of then."""
        live, values = self._run.training.live, self._weights.values
        if self._past_of != self._weights.replaced:
            self._past = {k: np.empty_like(v) if k in live else v for k, v in values.items()}
            self._past_of = self._weights.replaced
        for name in live:
            self._past[name][...] = steps.stepper.buffers.other(name).numpy()
        noise = {name: array for name, array in batch.items() if name not in self.net.blobs}
        blobs = {name: array for name, array in batch.items() if name in self.net.blobs}
        return Began(0, blobs, noise, self._past)


def _prepared(plan: Plan, log: CaffeLog) -> Run:
    """A run of the plan; its data are read by the solver's net."""
    device = current_device()
    training = compile_training(plan.net, plan.solver, provider=device.kind)
    tests = [
        compile_evaluation(
            net, live=training.live, provider=device.kind, schedules=training.schedules
        )
        for net, _ in plan.tests
    ]
    files = [*plan.renamed_weights(), *(read_weights(path) for path in plan.weight_files)]
    slots = all_slots(training, tests)
    values, _ = initial_values(slots, files, seed=plan.seed, allow_unloaded=True)
    return Run(
        training=training,
        solver=plan.solver,
        device=device,
        values=dict(values),
        sources=(),
        tests=[
            TestNet(test, open_sources(net, seed=plan.seed), count)
            for test, (net, count) in zip(tests, plan.tests, strict=True)
        ],
        log=log,
        seed=plan.seed,
        prefix=snapshot_prefix(plan),
        max_iter=plan.solver.message.max_iter,
        full_snapshots=True,
    )


class SGDSolver(Solver):
    """SGD with momentum, whatever type the file names."""

    type = "SGD"


class NesterovSolver(Solver):
    """Nesterov's accelerated gradient, whatever type the file names."""

    type = "Nesterov"


class AdaGradSolver(Solver):
    """AdaGrad, whatever type the file names."""

    type = "AdaGrad"


class RMSPropSolver(Solver):
    """RMSProp, whatever type the file names."""

    type = "RMSProp"


class AdaDeltaSolver(Solver):
    """AdaDelta, whatever type the file names."""

    type = "AdaDelta"


class AdamSolver(Solver):
    """Adam, whatever type the file names."""

    type = "Adam"


_CLASSES: dict[str, type[Solver]] = {
    cls.type: cls
    for cls in (
        SGDSolver,
        NesterovSolver,
        AdaGradSolver,
        RMSPropSolver,
        AdaDeltaSolver,
        AdamSolver,
    )
}


def get_solver(path: FilePath, log: CaffeLog | None = None) -> Solver:
    """The solver of a file, of the type that it names.

    Raises:
        UsageError: not-a-solver.
        KdnetError: what is wrong with the files.
    """
    name = _solver_file(path)
    kind = load_solver(name).message.type
    return _CLASSES.get(kind, Solver)(name, log)


def _solver_file(path: FilePath) -> str:
    name = os.fspath(path)
    if not is_solver(name):
        text = f'"{name}" is a net; a solver is wanted here'
        fail(UsageError, "not-a-solver", text, help=("name the solver that names the net",))
    return name
