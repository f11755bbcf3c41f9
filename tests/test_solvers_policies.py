"""Learning rates that Caffe's forks have, and what every policy refuses."""

from __future__ import annotations

import math

import pytest
from google.protobuf import text_format

from kdnet.errors import NetError
from kdnet.net import SolverModel
from kdnet.schema import SourceMap
from kdnet.schema import kdnet_pb2 as pb
from kdnet.solvers import Plateau, learning_rate, steps_taken


def solver(text: str) -> SolverModel:
    message = text_format.Parse(f"base_lr: 0.8 max_iter: 100 {text}", pb.SolverParameter())
    return SolverModel(message, SourceMap.empty())


ROOT = math.sqrt(0.5)
CURVES = {
    'lr_policy: "cosine"': {0: 0.8, 25: 0.4 * (1 + ROOT), 50: 0.4, 100: 0},
    'lr_policy: "cosine" min_lr: 0.2': {0: 0.8, 50: 0.5, 100: 0.2},
    'lr_policy: "sgdr" stepsize: 10': {0: 0.8, 5: 0.4, 10: 0.8, 1005: 0.4},
    'lr_policy: "sgdr" stepsize: 4 mult_factor: 3 min_lr: 0.4': {2: 0.6, 4: 0.8, 10: 0.6, 16: 0.8},
    'lr_policy: "poly" power: 2 min_lr: 0.4': {0: 0.8, 50: 0.5, 100: 0.4},
    'lr_policy: "step" stepsize: 10 gamma: 0.5 min_lr: 0.3': {9: 0.8, 10: 0.4, 20: 0.3, 90: 0.3},
    "warmup_iter: 8 warmup_start_lr: 0.4": {0: 0.4, 2: 0.5, 8: 0.8, 9: 0.8},
    "warmup_iter: 8": {0: 0, 4: 0.4, 7: 0.7, 8: 0.8},
    "rampup_interval: 8 rampup_lr: 0.4": {0: 0.4, 2: 0.5, 8: 0.8},
    "rampup_interval: 8 min_lr: 0.5": {0: 0, 4: 0.4, 8: 0.8},
    'lr_policy: "step" stepsize: 10 gamma: 0.5 warmup_iter: 20': {10: 0.4, 19: 0.76, 20: 0.2},
    'lr_policy: "cosine" warmup_iter: 50': {25: 0.4, 50: 0.4, 100: 0},
    'lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 3': {2: 0.8, 3: 0.4, 4: 0.2},
    'lr_policy: "multistep" gamma: 0.5 stepvalue: 5 stepvalue: 2': {2: 0.8, 5: 0.4, 6: 0.2},
}


@pytest.mark.parametrize("text", CURVES)
def test_curves(text: str) -> None:
    rate = learning_rate(solver(text))
    found = {iteration: rate(iteration) for iteration in CURVES[text]}
    assert found == pytest.approx(CURVES[text], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ('lr_policy: "step" stepsize: 3', [0, 0, 0, 1, 1, 1, 2]),
        ('lr_policy: "multistep" stepvalue: 2 stepvalue: 2', [0, 0, 1, 2, 2]),
        ('lr_policy: "fixed" stepvalue: 1', [0, 0, 0]),
    ],
)
def test_steps_are_counted_as_caffe_s_current_step(text: str, steps: list[int]) -> None:
    message = solver(text).message
    assert [steps_taken(message, iteration) for iteration in range(len(steps))] == steps


def test_plateau_drops_when_the_loss_stays_up() -> None:
    model = solver('lr_policy: "plateau" gamma: 0.5 plateau_winsize: 2 plateau_winsize: 3')
    come = Plateau()
    rate = learning_rate(model, come)
    losses = [9, 8, 8, 8, 7, 8, 8, 8, 8, 8, 8]
    rates, fell = [], []
    for iteration, loss in enumerate(losses):
        rates.append(rate(iteration) / 0.8)
        if come.see(iteration, loss, model.message.plateau_winsize):
            fell.append(iteration)
    # The first window is over at 3; at 4 the loss is lowest, and three iterations later it is not.
    assert fell == [3, 7]
    assert rates == pytest.approx([1] * 4 + [0.5] * 4 + [0.25] * 3)
    assert (come.drops, come.lowest, come.last_event) == (2, 7, 7)


def refused(text: str) -> str:
    with pytest.raises(NetError) as caught:
        learning_rate(solver(text))
    return str(caught.value).removeprefix("error: ")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            'lr_policy: "exp" gamma: -1',
            'lr_policy "exp" needs gamma >= 0, not -1 [bad-solver-field]',
        ),
        ('lr_policy: "sgdr"', 'lr_policy "sgdr" needs stepsize > 0 [missing-solver-field]'),
        (
            'lr_policy: "plateau" gamma: 0.1',
            'lr_policy "plateau" needs a plateau_winsize for each drop of the rate '
            "[missing-solver-field]",
        ),
        (
            'lr_policy: "plateau" gamma: 0.1 plateau_winsize: 5',
            'lr_policy "plateau" goes by the loss of one run while it trains, not of this one '
            "[bad-solver-field]",
        ),
        ("warmup_iter: -1", "warmup_iter must not be negative; it is -1 [bad-solver-field]"),
        (
            "warmup_iter: 5 rampup_interval: 5",
            "warmup_iter and rampup_interval mean the same; only one of them can be given "
            "[bad-solver-field]",
        ),
    ],
)
def test_what_a_policy_cannot_do_with_is_refused(text: str, wanted: str) -> None:
    assert refused(text) == wanted
