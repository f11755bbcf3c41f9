"""Whole nets against real Caffe: LeNet's first losses, and distillation from stock layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdnet.autodiff import gradients
from kdnet.compile import compile_training, trace_forward
from kdnet.compile.program import LOSS
from kdnet.graph import Emitter, to_model
from kdnet.net import NetModel, NetState, SolverModel, resolve_net
from kdnet.runtime import Device, Stepper
from kdnet.schema import SourceMap, read_text
from kdnet.schema import kdnet_pb2 as pb
from kdnet.solvers import learning_rate
from tests.all_nets import NETS, compiled, feeds_of, first_values
from tests.gradcheck import onnxruntime_run

GOLDEN = Path(__file__).parent / "golden" / "caffe"
SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "cifar10"
LAYERS = ("conv1", "conv2", "ip1", "ip2")


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as file:
        return {key: file[key] for key in file.files}


def net_of(text: str, shapes: dict[str, tuple[int, ...]]) -> NetModel:
    """The net with its data layer replaced by an Input layer of these tops."""
    located = read_text(text, "golden.prototxt", pb.NetParameter)
    kept = [layer for layer in located.message.layer if layer.bottom]
    data = pb.LayerParameter(name="data", type="Input", top=list(shapes))
    for shape in shapes.values():
        data.input_param.shape.add().dim.extend(shape)
    message = pb.NetParameter(layer=[data, *kept])
    return resolve_net(message, SourceMap.empty(), NetState(pb.TRAIN))


def test_lenets_first_twenty_losses_equal_caffes_to_five_digits() -> None:
    golden = load("lenet_fashion.npz")
    solver = read_text(str(golden["solver"]), "solver.prototxt", pb.SolverParameter)
    model = SolverModel(solver.message, solver.source)
    net = net_of(str(golden["net"]), {"data": (64, 1, 28, 28), "label": (64,)})
    training = compile_training(net, model)
    stream = np.random.Generator(np.random.PCG64(int(golden["seed"])))
    values = {slot.name: np.zeros(slot.shape, np.float32) for slot in training.weights}
    for layer in LAYERS:
        slot = next(s for s in training.weights if s.layer == layer and s.index == 0)
        bound = np.sqrt(3 / np.prod(slot.shape[1:]))
        values[slot.name] = ((2 * stream.random(slot.shape) - 1) * bound).astype(np.float32)
        np.testing.assert_array_equal(values[slot.name].reshape(-1)[:4], golden[f"start/{layer}"])
    stepper = Stepper(training, Device("cpu"), values)
    rate = learning_rate(model)
    losses = []
    for step in range(20):
        rows = slice(64 * step, 64 * step + 64)
        data = golden["images"][rows, np.newaxis].astype(np.float32) / 256
        feeds = {"data": data, "label": golden["labels"][rows].astype(np.float32)}
        losses.append(float(stepper.step(rate(step), lambda _micro, at=feeds: at)[LOSS]))
    np.testing.assert_allclose(losses, golden["loss"], rtol=1e-5)
    for slot in training.weights:
        norm = np.linalg.norm(stepper.weights()[slot.name].astype(np.float64))
        wanted = float(golden[f"norm/{slot.layer}/{slot.index}"])
        np.testing.assert_allclose(norm, wanted, rtol=1e-5, err_msg=slot.name)


def objective_and_gradient(
    net: NetModel, arrays: dict[str, np.ndarray], wanted: str
) -> tuple[float, np.ndarray, dict[str, np.ndarray]]:
    """Σ loss_weight · top, its gradient by one input, and every loss top."""
    g = Emitter()
    forward = trace_forward(net, g)
    seeds = [
        (loss.top, g.expand(g.constant(loss.weight), loss.top.shape)) for loss in forward.losses
    ]
    x = forward.blobs[wanted]
    slope = gradients(g, seeds, [x])[x]
    tops = {report.blob: forward.blobs[report.blob] for report in forward.reports()}
    inputs = [forward.blobs[name] for name in arrays]
    model = to_model(g.ops, inputs, {"slope": slope, **tops}, name="golden")
    found = onnxruntime_run(model, arrays)
    total = sum(
        report.loss_weight * float(found[report.blob].sum()) for report in forward.reports()
    )
    return total, found["slope"], found


@pytest.mark.parametrize("temperature", [1, 4, 20])
def test_our_teacher_student_loss_equals_the_one_of_stock_layers(temperature: int) -> None:
    golden = load("kd.npz")
    arrays = {name: golden[name] for name in ("student", "teacher")}
    text = (
        'layer { name: "ts" type: "TeacherStudentCrossEntropy" bottom: "student" '
        'bottom: "teacher" top: "ts" '
        f"teacher_student_cross_entropy_param {{ temperature: {temperature} }} }}"
    )
    net = net_of(text, {name: array.shape for name, array in arrays.items()})
    total, slope, _ = objective_and_gradient(net, arrays, "student")
    np.testing.assert_allclose(total, golden[f"t{temperature}/objective"], rtol=1e-5)
    wanted = golden[f"t{temperature}/student_diff"]
    np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("temperature", [1, 4, 20])
def test_soft_targets_from_stock_layers_equal_caffes(temperature: int) -> None:
    golden = load("kd.npz")
    arrays = {name: golden[name] for name in ("student", "teacher")}
    net = net_of(str(golden[f"t{temperature}/net"]), {n: a.shape for n, a in arrays.items()})
    assert {layer.type for layer in net.layers} >= {"Power", "Softmax", "Log", "Reduction"}
    total, slope, tops = objective_and_gradient(net, arrays, "student")
    np.testing.assert_allclose(total, golden[f"t{temperature}/objective"], rtol=1e-5)
    cross_entropy = golden[f"t{temperature}/cross_entropy"]
    np.testing.assert_allclose(tops["cross_entropy"], cross_entropy, rtol=1e-5)
    wanted = golden[f"t{temperature}/student_diff"]
    np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("case", ["joined", "joined_uniform"])
def test_distillation_from_stock_layers_equals_caffes(case: str) -> None:
    golden = load("kd.npz")
    arrays = {name: golden[name] for name in ("student", "teacher", "label")}
    if case == "joined_uniform":
        arrays["student"] = np.zeros_like(arrays["student"])
    text = str(golden[f"{case}/net"])
    used = {name: array for name, array in arrays.items() if f'bottom: "{name}"' in text}
    net = net_of(text, {name: array.shape for name, array in used.items()})
    total, slope, tops = objective_and_gradient(net, used, "student")
    np.testing.assert_allclose(total, golden[f"{case}/objective"], rtol=1e-5)
    wanted = golden[f"{case}/student_diff"]
    np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    if case == "joined_uniform":
        assert f"{float(tops['ts_loss']):.6g}" == "7.34397"


def cifar_images(count: int) -> np.ndarray:
    """The first training images as BGR planes, as a Caffe LMDB holds them."""
    import io

    from PIL import Image

    with np.load(SHARED / "train.npz") as file:
        jpeg, offsets = file["jpeg"], file["offsets"]
    pictures = []
    for index in range(count):
        raw = jpeg[offsets[index] : offsets[index + 1]].tobytes()
        pictures.append(np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))[..., ::-1])
    return np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32)


def test_the_stock_joined_net_starts_cifar10_where_the_first_experiment_did() -> None:
    training = compiled(next(net for net in NETS if net.stem == "stock_joined"))
    feeds = dict(feeds_of(training, 0))
    if SHARED.exists():
        images = cifar_images(len(feeds["data"]))
        feeds["data"] = images - images.mean((0, 2, 3), keepdims=True)
    # A teacher near uniform, as in the logs of the runs whose teacher was never loaded: a random
    # sharp one favours a class for all images, which moves the fifth decimal.
    small = {s.name: 0.01 if s.role == "frozen" else 1.0 for s in training.weights}
    values = {name: small[name] * value for name, value in first_values(training).items()}
    stepper = Stepper(training, Device("cpu"), values)
    ts_loss = stepper.look(feeds)["output/ts_loss"]
    assert f"{float(ts_loss):.6g}" == "7.34397"
