"""The steps of a solver that a program drives, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from kdnet.api.by_hand import HandStepper, StepCalls
from kdnet.api.mode import current_device
from kdnet.api.net import Net
from kdnet.compile import Training, compile_evaluation, compile_training
from kdnet.net import NetModel
from kdnet.runtime import CaffeLog, Run, Stepper, TestNet, Trainer
from kdnet.runtime.feeding import open_sources
from kdnet.runtime.loading import initial_values
from kdnet.runtime.plan import Plan, snapshot_prefix
from kdnet.runtime.setup import all_slots
from kdnet.runtime.solver_states import Resume
from kdnet.weights import read_weights

Array = NDArray[Any]
Feeds = Callable[[int], Mapping[str, Array]]


class GraphSteps(Trainer):
    """A trainer whose batches come from the program's own net."""

    def __init__(self, run: Run, feeds: Feeds) -> None:
        super().__init__(run)
        self._source = feeds
        self.values: dict[str, Array] = {}

    @property
    def stepper(self) -> Stepper:
        """What takes the steps."""
        return self._stepper

    @property
    def rate(self) -> float:
        """The learning rate of the next update."""
        return self._rate(self.iteration)

    def resume_point(self) -> Resume:
        """Where the run stands, to go on from."""
        state = self._rate.state(self.iteration, self.run.seed)
        return replace(state, history=self._stepper.history())

    def _feeds(self, micro: int) -> Mapping[str, Array]:
        return self._source(micro)

    def _step(self, rate: float) -> dict[str, Array]:
        self.values = super()._step(rate)
        return self.values


class HandSteps(GraphSteps):
    """A trainer that steps by its net's own passes.

    Args:
        run: what to train; its gradients and its update are programs apart.
        net: the train net.
        calls: what to call in each step.
    """

    def __init__(self, run: Run, net: Net, calls: StepCalls) -> None:
        self._net, self._calls = net, calls
        super().__init__(run, lambda _micro: {})

    def _stepper_of(self, history: Mapping[str, Array]) -> HandStepper:
        self._hand = HandStepper(self.run, self._net, self._calls, history)
        return self._hand

    def _step(self, rate: float) -> dict[str, Array]:
        self._hand.iteration = self.iteration
        return super()._step(rate)

    def update(self) -> None:
        """The update alone, by the gradients that are there; it counts as an iteration."""
        self._hand.update(self.rate, self._scheduled)
        self.iteration += 1


def has_python(net: NetModel) -> bool:
    """Whether Python layers are among a net's."""
    return any(layer.type == "Python" for layer in net.layers)


def training_of(plan: Plan, *, split: bool) -> Training:
    """The compiled step; with ``split`` its gradients and its update are programs apart."""
    provider = current_device().kind
    return compile_training(plan.net, plan.solver, provider=provider, split=split)


def prepared(plan: Plan, log: CaffeLog) -> Run:
    """A run of the plan; its data are read by the solver's net."""
    device = current_device()
    training = training_of(plan, split=has_python(plan.net))
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
