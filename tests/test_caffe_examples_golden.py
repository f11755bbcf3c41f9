"""Nets like those of Caffe's examples against ten iterations of real Caffe."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from kdnet.compile import Program, Training, compile_evaluation, compile_training
from kdnet.net import NetState, SolverModel, resolve_net
from kdnet.runtime import Device, Engine, StateBuffers, Stepper
from kdnet.schema import Located, read_net, read_solver, read_text
from kdnet.schema import kdnet_pb2 as pb
from kdnet.solvers import learning_rate

HERE = Path(__file__).parent
ITERATIONS = 10
# The solver that each case is made from, and how many classes its labels have.
CASES = {
    "autoencoder": ("autoencoder/autoencoder", 0),
    "consolidated": ("mnist/lenet_consolidated", 10),
    "nonlinear": ("hdf5/nonlinear", 2),
    "siamese": ("siamese/pairs", 2),
    "sigmoid": ("cifar/sigmoid", 10),
    "style": ("style/style", 5),
}

Arrays = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def golden() -> dict[str, Arrays]:
    """The arrays of ``make_caffe_examples.py`` by case."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(HERE / "golden" / "caffe" / "examples.npz") as file:
        for key in file.files:
            case, name = key.split("/", 1)
            found.setdefault(case, {})[name] = file[key]
    assert found.keys() == CASES.keys()
    return dict(found)


def drawn(case: str, what: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1) that belong to a name."""
    seed = zlib.crc32(f"{case} {what}".encode())
    return np.random.Generator(np.random.PCG64(seed)).random(shape)


def first_values(case: str, training: Training) -> dict[str, np.ndarray]:
    found = {}
    for slot in training.weights:
        bound = np.sqrt(3 / np.prod(slot.shape[1:])) if slot.index == 0 else 0.1
        values = (2 * drawn(case, f"{slot.layer}/{slot.index}", slot.shape) - 1) * bound
        found[slot.name] = values.astype(np.float32)
    return found


def batch(case: str, program: Program, index: int) -> dict[str, np.ndarray]:
    found = {}
    for top, shape in program.data.items():
        values = drawn(case, f"{top} {index}", shape)
        whole = np.floor(values * CASES[case][1])
        found[top] = (whole if len(shape) == 1 else values).astype(np.float32)
    return found


def files(record: Arrays) -> tuple[Located[pb.NetParameter], SolverModel]:
    """The net and the solver that Caffe ran."""
    solver = read_text(str(record["solver"]), "solver.prototxt", pb.SolverParameter)
    net = read_text(str(record["net"]), "net.prototxt", pb.NetParameter)
    return net, SolverModel(solver.message, solver.source)


@pytest.mark.parametrize("case", CASES)
def test_what_caffe_ran_is_the_example(case: str, golden: dict[str, Arrays]) -> None:
    net, solver = files(golden[case])
    path = HERE / "caffe_examples" / f"{CASES[case][0]}_solver.prototxt"
    own = read_solver(str(path)).message
    inner = own.net_param
    if own.net:
        inner = read_net(str(HERE / "caffe_examples" / own.net)).message
    kept = [layer for layer in inner.layer if layer.type != "Dropout"]
    for layer, ran in zip(kept, net.message.layer, strict=True):
        same = layer == ran if layer.bottom else layer.top == ran.top
        assert same, layer.name
    for field in ("base_lr", "lr_policy", "momentum", "weight_decay", "test_state"):
        assert getattr(own, field) == getattr(solver.message, field)


@pytest.mark.parametrize("case", CASES)
def test_ten_iterations_equal_caffes_to_five_digits(case: str, golden: dict[str, Arrays]) -> None:
    record = golden[case]
    located, solver = files(record)
    net = resolve_net(located.message, located.source, NetState(pb.TRAIN))
    training = compile_training(net, solver)
    start = first_values(case, training)
    stepper = Stepper(training, Device("cpu"), start)
    rate = learning_rate(solver)
    for iteration in range(ITERATIONS):
        feeds = batch(case, training.main, iteration)
        seen = stepper.step(rate(iteration), lambda _micro, at=feeds: at)
        for report in training.main.reports:
            wanted = record[f"train/{report.blob}"][iteration]
            np.testing.assert_allclose(seen[report.output], wanted, rtol=1e-5)
    weights = stepper.weights()
    for slot in training.weights:
        ended = weights[slot.name].astype(np.float64)
        norm, moved = np.linalg.norm(ended), np.linalg.norm(ended - start[slot.name])
        for layer, index in slot.users:
            np.testing.assert_allclose(norm, record[f"norm/{layer}/{index}"], rtol=1e-5)
            # Each of the ten updates rounds the weight to its own digits.
            wanted, slack = record[f"moved/{layer}/{index}"], 3e-7 * norm
            np.testing.assert_allclose(moved, wanted, rtol=1e-4, atol=slack, err_msg=slot.name)
    for index in range(len(solver.message.test_iter)):
        check_test_net(case, record, index, weights)


def check_test_net(case: str, record: Arrays, index: int, weights: Arrays) -> None:
    """A test net's outputs of one batch are Caffe's."""
    located, solver = files(record)
    state = NetState(pb.TEST)
    if solver.message.test_state:
        state = state.merged(solver.message.test_state[index])
    evaluation = compile_evaluation(resolve_net(located.message, located.source, state))
    program, device = evaluation.program, Device("cpu")
    engine = Engine(program, device, weights)
    feeds = batch(case, program, ITERATIONS + index)
    seen = engine.run(StateBuffers(device, {}), feeds, keep=False)
    wanted = {name for name in record if name.startswith(f"test{index}/")}
    assert wanted == {f"test{index}/{report.blob}" for report in program.reports}
    for report in program.reports:
        value = record[f"test{index}/{report.blob}"]
        np.testing.assert_allclose(seen[report.output], value, rtol=1e-5, err_msg=report.blob)
