"""Solvers as pycaffe has them: training step by step, with the net's arrays at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdnet.api.by_hand import StepCalls
from kdnet.api.hosted import PythonLayers
from kdnet.api.mode import current_seed
from kdnet.api.models import FilePath
from kdnet.api.net import Net
from kdnet.api.passes import Began, Setting
from kdnet.api.steps import GraphSteps, HandSteps, has_python, prepared, training_of
from kdnet.errors import UsageError, fail
from kdnet.layers.python import Instances, allowed_python
from kdnet.net import NetModel, load_solver
from kdnet.runtime import CaffeLog, TrainOptions
from kdnet.runtime.feeding import check_labels
from kdnet.runtime.plan import is_solver, make_plan
from kdnet.runtime.rate import Rate, scheduled_at
from kdnet.runtime.setup import tell_ignored
from kdnet.runtime.snapshots import resumed
from kdnet.runtime.solver_states import load
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import philox

Array = NDArray[Any]


class Solver:
    """Trains a net as a solver file says.

        solver = kdnet.get_solver("solver.prototxt")
        solver.net.copy_from("teacher.caffemodel")
        solver.step(100)

    After a step the train net's outputs hold that step's values; its other blobs, and gradients,
    are computed when they are looked at, from the weights before the update. Frozen weights
    (lr_mult 0) are constants of the compiled step: where a program changes them, the next step is
    compiled anew.

    Python layers, callbacks and :meth:`apply_update` take steps apart: into the net's forward and
    backward passes, and then the update. What they leave is there at once.

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
            self._run = prepared(plan, log)
        training = self._run.training
        setting = Setting(self._run.device, plan.seed, training.schedules)
        self.net = Net.of_model(plan.net, setting, PythonLayers(plan.net, instances))
        self._weights, self._passes = self.net._weights, self.net._passes
        self._weights.replace(self._run.values)
        self._weights.pull = self._pull
        self.test_nets = [
            self._test_net(test.evaluation.net, setting, instances) for test in self._run.tests
        ]
        self._plan, self._instances = plan, instances
        self._calls = StepCalls()
        self._hand = has_python(plan.net)
        self._steps: GraphSteps | None = None
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

    def add_callback(
        self, on_start: Callable[[], object], on_gradients_ready: Callable[[], object]
    ) -> None:
        """Have two functions called in each step, which is made by hand from then on.

        Args:
            on_start: called before the forward pass.
            on_gradients_ready: called before the update, which takes the gradients in
                ``net.params`` as they are then.
        """
        self._calls.on_start.append(on_start)
        self._calls.on_gradients_ready.append(on_gradients_ready)

    def apply_update(self) -> None:
        """Change the weights by the gradients in ``net.params``, as a step would.

        That is one iteration: ``iter`` goes up. Whoever adds gradients up clears them before:
        ``net.clear_param_diffs()``.
        """
        self._by_hand().update()

    @property
    def _wants_hand(self) -> bool:
        """Whether steps are made by the net's own passes."""
        return self._hand or bool(self._calls) or bool(self._passes.calls)

    def _ready(self) -> GraphSteps:
        """The trainer, with what the program wrote into weights."""
        if self._wants_hand:
            return self._by_hand()
        if self._steps is not None and self._frozen_changed():
            self._leave()
        if self._steps is None:
            self._take_values()
            self._steps = GraphSteps(self._run, self._feeds)
        else:
            self._push(self._steps)
        self._seen_version = self._weights.version
        return self._steps

    def _by_hand(self) -> HandSteps:
        """The trainer that steps by the net's own passes; from now on all steps are such."""
        steps = self._steps
        if isinstance(steps, HandSteps) and not self._frozen_changed():
            return steps
        self._passes.catch_up_slopes()
        self._leave()
        self._hand = True
        if self._run.training.update is None:
            with allowed_python(instances=self._instances):
                self._run.training = training_of(self._plan, split=True)
        self._weights.pull = None
        self._take_values()
        self._steps = made = HandSteps(self._run, self.net, self._calls)
        self._seen_version = self._weights.version
        return made

    def _leave(self) -> None:
        """End the trainer that there is; another goes on where it stands."""
        if self._steps is not None:
            self._weights.fresh()
            self._run.resume, self._steps = self._steps.resume_point(), None

    def _take_values(self) -> None:
        self._run.values |= {k: v.copy() for k, v in self._weights.values.items()}

    def _frozen_changed(self) -> bool:
        live = self._run.training.live
        loaded = self._weights.version != self._seen_version
        names = self._weights.values.keys() if loaded else self._weights.looked
        values, known = self._weights.values, self._run.values
        return any(
            name not in live and not np.array_equal(values[name], known[name]) for name in names
        )

    def _push(self, steps: GraphSteps) -> None:
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

    def _stepped(self, steps: GraphSteps) -> None:
        """Let the net show what the step left, and held weights their new values."""
        if isinstance(steps, HandSteps):
            return
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

    def _began(self, steps: GraphSteps, batch: Mapping[str, Array]) -> Began:
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
