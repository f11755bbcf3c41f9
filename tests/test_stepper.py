"""Whole training steps on arrays, against numpy and against one another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import oracles_step as oracle
import pytest

from kdnet.compile import Program, Report, Training, compile_training
from kdnet.compile.program import LOSS
from kdnet.errors import RunError
from kdnet.graph import Emitter, to_model
from kdnet.net import NetState, SolverModel, resolve_net
from kdnet.runtime import Device, Engine, StateBuffers, Stepper
from kdnet.runtime.failures import session_failure, step_failure
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text
from kdnet.weights import fill, philox

CPU = Device("cpu")
CLASSES, FEATURES, HIDDEN, BATCH = 3, 5, 4, 6
BLOBS = {"w1": "ip1/weight", "b1": "ip1/bias", "w2": "ip2/weight", "b2": "ip2/bias"}


def data(batch: int) -> str:
    return (
        'layer { name: "in" type: "DummyData" top: "x" top: "t" dummy_data_param { '
        f"shape {{ dim: {batch} dim: {FEATURES} }} shape {{ dim: {batch} }} }} }}\n"
    )


def ip(name: str, bottom: str, outputs: int, more: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {more} '
        f'inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} }} }}\n'
    )


def classifier(
    batch: int = BATCH, first: str = "", second: str = "", loss: str = 'top: "loss"'
) -> str:
    return (
        data(batch)
        + ip("ip1", "x", HIDDEN, first)
        + 'layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }\n'
        + ip("ip2", "ip1", CLASSES, second)
        + f'layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "t" {loss} }}\n'
    )


def training(net: str, solver: str = "base_lr: 1") -> Training:
    located = read_text(net, "net.prototxt", pb.NetParameter)
    model = resolve_net(located.message, located.source, NetState(pb.TRAIN))
    rules = read_text(solver, "solver.prototxt", pb.SolverParameter)
    return compile_training(model, SolverModel(rules.message, rules.source))


def first_values(compiled: Training) -> dict[str, np.ndarray]:
    xavier = pb.FillerParameter(type="xavier")
    return {
        slot.name: fill(
            xavier if len(slot.shape) > 1 else slot.filler, slot.shape, seed=4, key=slot.name
        )
        for slot in compiled.weights
    }


def batch_of(index: int, size: int = BATCH) -> dict[str, np.ndarray]:
    stream = philox(9, "batch", index)
    x = stream.random((size, FEATURES), np.float32) * 2 - 1
    return {"x": x, "t": (np.arange(size) + index).astype(np.float32) % CLASSES}


def run(
    stepper: Stepper, rates: list[float], batch: Callable[[int], dict[str, np.ndarray]] = batch_of
) -> list[float]:
    """Losses of a step for each rate; micro-step m of step s takes batch s·iter_size + m."""
    size = stepper.training.iter_size
    return [
        float(stepper.step(rate, lambda micro, at=step * size: batch(at + micro))[LOSS])
        for step, rate in enumerate(rates)
    ]


def stepped(net: str, solver: str, rates: list[float], **more: object) -> dict[str, np.ndarray]:
    compiled = training(net, solver)
    stepper = Stepper(compiled, CPU, first_values(compiled))
    run(stepper, rates, **more)
    return stepper.weights()


RATES = [0.5, 0.25, 0.125]
MULTIPLIED = {"first": "param { lr_mult: 0.5 decay_mult: 2 } param { lr_mult: 2 decay_mult: 0 }"}
LR, DECAY = {"w1": 0.5, "b1": 2.0}, {"w1": 2.0, "b1": 0.0}


@pytest.mark.parametrize(
    ("net", "solver", "recipe"),
    [
        ({}, "", oracle.Recipe(RATES)),
        ({}, "momentum: 0.9", oracle.Recipe(RATES, momentum=0.9)),
        ({}, "weight_decay: 0.1", oracle.Recipe(RATES, decay=0.1)),
        (
            {},
            'weight_decay: 0.1 regularization_type: "L1"',
            oracle.Recipe(RATES, decay=0.1, l1=True),
        ),
        ({}, "clip_gradients: 0.3", oracle.Recipe(RATES, clip=0.3)),
        ({}, "clip_gradients: 1000", oracle.Recipe(RATES, clip=1000)),
        ({}, "iter_size: 2", oracle.Recipe(RATES)),
        (
            MULTIPLIED,
            "momentum: 0.9 weight_decay: 0.1",
            oracle.Recipe(RATES, 0.9, 0.1, lr_mult=LR, decay_mult=DECAY),
        ),
        (
            MULTIPLIED,
            "momentum: 0.9 weight_decay: 0.1 clip_gradients: 0.3 iter_size: 3",
            oracle.Recipe(RATES, 0.9, 0.1, clip=0.3, lr_mult=LR, decay_mult=DECAY),
        ),
    ],
)
def test_three_steps_equal_the_loop_written_by_hand(
    net: dict[str, str], solver: str, recipe: oracle.Recipe
) -> None:
    compiled = training(classifier(**net), solver)
    values = first_values(compiled)
    stepper = Stepper(compiled, CPU, values)
    losses = run(stepper, RATES)
    size = compiled.iter_size
    batches = [
        [
            (batch["x"].astype(np.float64), batch["t"].astype(int))
            for batch in (batch_of(step * size + micro) for micro in range(size))
        ]
        for step in range(len(RATES))
    ]
    start = {short: values[name] for short, name in BLOBS.items()}
    expected, weights, history = oracle.train(start, batches, recipe)
    np.testing.assert_allclose(losses, expected, rtol=2e-6)
    for short, name in BLOBS.items():
        np.testing.assert_allclose(stepper.weights()[name], weights[short], rtol=1e-5, atol=1e-6)
        past = stepper.history()[f"history/momentum/{name}"]
        np.testing.assert_allclose(past, history[short], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normalization", ["VALID", "BATCH_SIZE"])
def test_accumulating_k_batches_equals_one_batch_k_times_as_large(normalization: str) -> None:
    loss = f'top: "loss" loss_param {{ normalization: {normalization} }}'
    solver = "momentum: 0.9 weight_decay: 0.01 clip_gradients: CLIP iter_size: 4"

    def large(index: int) -> dict[str, np.ndarray]:
        parts = [batch_of(4 * index + part) for part in range(4)]
        return {name: np.concatenate([part[name] for part in parts]) for name in ("x", "t")}

    # Caffe clips the sum of the micro-batches' gradients, which is 4 times their mean.
    one = stepped(
        classifier(4 * BATCH, loss=loss),
        solver.replace("CLIP", "0.1").replace("iter_size: 4", ""),
        RATES,
        batch=large,
    )
    four = stepped(classifier(loss=loss), solver.replace("CLIP", "0.4"), RATES)
    for name, value in one.items():
        np.testing.assert_allclose(four[name], value, rtol=1e-5, atol=1e-6)


def test_scaling_the_loss_weight_scales_the_gradient() -> None:
    compiled = training(classifier())
    start = first_values(compiled)
    plain = stepped(classifier(), "", [1.0])
    for weight in (0.5, -2.0, 8.0):
        scaled = stepped(classifier(loss=f'top: "loss" loss_weight: {weight}'), "", [1.0])
        for name in BLOBS.values():
            np.testing.assert_allclose(
                scaled[name] - start[name],
                weight * (plain[name] - start[name]),
                rtol=1e-4,
                atol=1e-6,
            )


TWINS = (
    data(BATCH)
    + ip("teacher", "x", CLASSES, "param { lr_mult: 0 } param { lr_mult: 0 }")
    + ip("student", "x", CLASSES)
    + """layer { name: "ts" type: "TeacherStudentCrossEntropy" bottom: "student" bottom: "teacher"
      top: "ts" teacher_student_cross_entropy_param { temperature: 3 } }"""
)


def test_a_student_equal_to_its_teacher_stays_as_it_is() -> None:
    compiled = training(TWINS)
    values = first_values(compiled)
    values["student/weight"] = values["teacher/weight"].copy()
    stepper = Stepper(compiled, CPU, values)
    run(stepper, [10.0])
    for blob in ("weight", "bias"):
        change = stepper.weights()[f"student/{blob}"] - values[f"teacher/{blob}"]
        assert np.abs(change).max() < 1e-6


def test_a_student_comes_nearer_to_its_teacher_and_the_teacher_keeps_every_byte() -> None:
    compiled = training(TWINS, "momentum: 0.9 weight_decay: 0.5")
    values = first_values(compiled)
    before = {name: values[name].tobytes() for name in values}
    stepper = Stepper(compiled, CPU, values)
    losses = run(stepper, [0.05] * 20, batch=lambda _index: batch_of(0))
    assert losses[-1] < losses[0]
    after = stepper.weights()
    for blob in ("teacher/weight", "teacher/bias"):
        assert after[blob].tobytes() == before[blob]
        assert values[blob].tobytes() == before[blob]
    assert after["student/weight"].tobytes() != before["student/weight"]
    assert values["student/weight"].tobytes() == before["student/weight"]


def test_a_step_repeats_bit_by_bit_and_looking_changes_nothing() -> None:
    compiled = training(classifier(), "momentum: 0.9")
    steppers = [Stepper(compiled, CPU, first_values(compiled)) for _ in range(2)]
    steppers[0].look(batch_of(7))
    run(steppers[0], RATES)
    steppers[0].look(batch_of(8))
    run(steppers[1], RATES)
    for name, value in steppers[0].weights().items():
        assert value.tobytes() == steppers[1].weights()[name].tobytes()
    for name, value in steppers[0].history().items():
        assert value.tobytes() == steppers[1].history()[name].tobytes()


def test_history_that_is_given_is_gone_on_with() -> None:
    compiled = training(classifier(), "momentum: 0.9")
    straight = Stepper(compiled, CPU, first_values(compiled))
    run(straight, RATES[:2])
    second = Stepper(compiled, CPU, straight.weights(), straight.history())
    for stepper in (straight, second):
        run(stepper, RATES[2:], batch=lambda _index: batch_of(2))
    for name, value in straight.weights().items():
        assert value.tobytes() == second.weights()[name].tobytes()


NORMALIZED = classifier().replace(
    ip("ip1", "x", HIDDEN),
    'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "bn" '
    "batch_norm_param { moving_average_fraction: 0.75 } }\n" + ip("ip1", "bn", HIDDEN),
)


@pytest.mark.parametrize("solver", ["", "iter_size: 2"])
def test_statistics_follow_every_batch(solver: str) -> None:
    compiled = training(NORMALIZED, f"{solver} weight_decay: 0.1")
    stepper = Stepper(compiled, CPU, first_values(compiled))
    run(stepper, RATES)
    mean, variance, factor = np.zeros(FEATURES), np.zeros(FEATURES), 0.0
    for index in range(3 * compiled.iter_size):
        x = batch_of(index)["x"].astype(np.float64)
        mean = 0.75 * mean + x.mean(axis=0)
        variance = 0.75 * variance + x.var(axis=0, ddof=1)
        factor = 0.75 * factor + 1
    weights = stepper.weights()
    np.testing.assert_allclose(weights["bn/mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights["bn/variance"], variance, rtol=1e-5)
    np.testing.assert_allclose(weights["bn/scale_factor"], [factor], rtol=1e-6)


def test_a_blob_that_is_read_twice_needs_no_split() -> None:
    rest = """layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "sum" bottom: "t" top: "loss" }"""
    split = 'layer { name: "s" type: "Split" bottom: "ip1" top: "one" top: "two" }\n'
    first, second = ip("a", "{}", CLASSES), ip("b", "{}", CLASSES)
    start = data(BATCH) + ip("ip1", "x", HIDDEN)
    implicit = start + (first + second).replace("{}", "ip1") + rest
    explicit = start + split + first.replace("{}", "one") + second.replace("{}", "two") + rest
    found = [stepped(net, "momentum: 0.9", RATES) for net in (implicit, explicit)]
    for name, value in found[0].items():
        assert value.tobytes() == found[1][name].tobytes(), name


def test_several_losses_add_up_by_their_weights() -> None:
    second = 'layer { name: "l2" type: "EuclideanLoss" bottom: "ip1" bottom: "ip1" top: "l2" }\n'
    net = classifier(loss='loss_weight: 0.5 top: "loss"') + ip("ip3", "ip1", 1) + second
    more = 'layer { name: "more" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "t" top: "more" }'
    compiled = training(net + more)
    stepper = Stepper(compiled, CPU, first_values(compiled))
    values = stepper.look(batch_of(0))
    total = 0.5 * values["output/loss"] + values["output/l2"] + values["output/more"]
    np.testing.assert_allclose(values[LOSS], total, rtol=1e-6)


# --- what the runtime refuses


def gathering(tmp_path: Path) -> Program:
    """A graph that fails when it runs: it reads row x of two rows."""
    net = tmp_path / "net.prototxt"
    net.write_text('name: "Odd"\nlayer { name: "odd" }\n')
    g = Emitter()
    x = g.input("x", (1,))
    with g.scope("odd", f"{net}:2:9"):
        rows = g.op("Mul", g.constant([[1.0], [2.0]]), x)
        y = g.op("Gather", rows, g.cast(x, np.int64))
    model = to_model(g.ops, [x], {"output/y": y}, name="odd")
    return Program(
        model, data={"x": (1,)}, reports=(Report("y", "output/y", (1, 1), 0, "odd", None),)
    )


def test_a_failing_node_is_found_in_the_prototxt(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = Engine(gathering(tmp_path), CPU, {})
    buffers = StateBuffers(CPU, {})
    assert engine.run(buffers, {"x": np.ones(1)})["output/y"] == [[2]]
    with pytest.raises(RunError) as caught:
        engine.run(buffers, {"x": np.full(1, 7.0)})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{tmp_path}/net.prototxt:2:9: error: the step failed: ")
    assert lines[0].endswith("[step-failed]")
    assert lines[1:] == ['  2 | layer { name: "odd" }', "    |         ^"]
    assert caught.value.exit_code == 3
    assert capfd.readouterr().err == ""


def test_a_place_is_told_even_when_the_file_is_gone(tmp_path: Path) -> None:
    engine = Engine(gathering(tmp_path), CPU, {})
    (tmp_path / "net.prototxt").unlink()
    with pytest.raises(RunError, match=r"net\.prototxt:2:9: error: the step failed"):
        engine.run(StateBuffers(CPU, {}), {"x": np.full(1, 7.0)})


def test_a_batch_of_another_shape_is_refused() -> None:
    compiled = training(classifier())
    stepper = Stepper(compiled, CPU, first_values(compiled))
    with pytest.raises(RunError, match=r"input: x[\s\S]*\[step-failed\]"):
        stepper.step(1.0, lambda _micro: batch_of(0, size=BATCH + 1))


@pytest.mark.parametrize(
    "said",
    ["std::bad_alloc", "CUDA error: out of memory", "Failed to allocate memory for 8 bytes"],
)
def test_a_lack_of_memory_has_a_code_of_its_own(said: str) -> None:
    model = onnx.ModelProto()
    assert step_failure(RuntimeError(said), model).diagnostics[0].code == "out-of-memory"
    failure = session_failure(RuntimeError(said), model, "cuda:0")
    assert failure.diagnostics[0].code == "out-of-memory"
    assert failure.exit_code == 3


def test_a_graph_that_does_not_start_says_on_which_device() -> None:
    compiled = training(classifier())
    compiled.main.model.graph.node[0].op_type = "NoSuchOp"
    with pytest.raises(RunError) as caught:
        Stepper(compiled, CPU, first_values(compiled))
    assert "error: the graph does not start on cpu: " in str(caught.value)
    assert "[session-failed]" in str(caught.value)
