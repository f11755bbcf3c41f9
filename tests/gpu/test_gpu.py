"""On a CUDA device: the step equals the CPU's, resumes, and every net takes one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdnet.compile.program import LOSS
from kdnet.runtime import Device, Stepper
from kdnet.runtime.device import why_no_cuda
from tests.all_nets import IDS, NETS, compiled, feeds_of, first_values

pytestmark = pytest.mark.gpu
RATE = 1e-3
STEPS = 3


@pytest.fixture(scope="module")
def cuda() -> Device:
    missing = why_no_cuda(0)
    if missing:
        pytest.skip(f"no CUDA: {missing[0]}")
    return Device("cuda")


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TF32, whose 10-bit mantissa is another arithmetic."""
    monkeypatch.setenv("KDNET_CUDA_OPTIONS", "use_tf32=0")


def small(name: str) -> bool:
    return name.startswith(("mnist/", "cifar10/"))


SMALL = [net for net, name in zip(NETS, IDS, strict=True) if small(name)]


@pytest.mark.parametrize("net", SMALL, ids=[name for name in IDS if small(name)])
def test_a_step_equals_the_cpus(net: Path, cuda: Device) -> None:
    training = compiled(net, batch=8, provider="cuda")
    values = first_values(training)
    steppers = [Stepper(training, device, values) for device in (Device("cpu"), cuda)]
    losses = [s.step(RATE, lambda micro: feeds_of(training, micro))[LOSS] for s in steppers]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    on_cpu, on_cuda = (stepper.weights() for stepper in steppers)
    for name, wanted in on_cpu.items():
        moved = np.abs(wanted - values[name]).max()
        np.testing.assert_allclose(
            on_cuda[name], wanted, rtol=1e-4, atol=1e-4 * moved + 1e-7, err_msg=name
        )


def test_a_resumed_run_goes_on_as_the_straight_one(cuda: Device) -> None:
    net = next(net for net in NETS if net.stem == "lenet_joined")
    training = compiled(net, batch=8, provider="cuda")
    straight = Stepper(training, cuda, first_values(training))
    for step in range(STEPS):
        straight.step(RATE, lambda _micro, at=step: feeds_of(training, at))
    resumed = Stepper(training, cuda, straight.weights(), straight.history())
    one, other = (
        stepper.step(RATE, lambda _micro: feeds_of(training, STEPS))[LOSS]
        for stepper in (straight, resumed)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("net", NETS, ids=IDS)
def test_every_net_steps(net: Path, cuda: Device) -> None:
    training = compiled(net, batch=4, provider="cuda")
    stepper = Stepper(training, cuda, first_values(training))
    for step in range(2):
        values = stepper.step(1e-4, lambda _micro, at=step: feeds_of(training, at))
        assert np.isfinite(values[LOSS])


def test_captured_graphs_take_the_same_steps(
    cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = next(net for net in NETS if net.stem == "lenet_joined")
    training = compiled(net, batch=8, provider="cuda")
    values = first_values(training)
    plain = Stepper(training, cuda, values)
    monkeypatch.setenv("KDNET_CUDA_OPTIONS", "use_tf32=0,enable_cuda_graph=1")
    captured = Stepper(training, cuda, values)
    for step in range(6):
        losses = [
            stepper.step(RATE, lambda _micro, at=step: feeds_of(training, at))[LOSS]
            for stepper in (plain, captured)
        ]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
