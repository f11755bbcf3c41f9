"""Layers in Python: against real Caffe, against layers of kdnet's own, and their faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from python_nets import CODE, NET, module_of, python

from kdnet.compile import Training, compile_training
from kdnet.compile.program import LOSS
from kdnet.errors import KdnetError, LayerError, RunError
from kdnet.layers.python import Blob, allowed_python
from kdnet.net import NetState, SolverModel, resolve_net
from kdnet.runtime import Device, Stepper
from kdnet.runtime.loading import initial_values
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_prototxt, read_text

GOLDEN = Path(__file__).parent / "golden" / "caffe"
USER = GOLDEN / "python_layers"


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of CODE."""
    yield from module_of(tmp_path, CODE, monkeypatch)


def training_of(layer: str, solver: str = "") -> Training:
    """The step of NET with a layer in its midst."""
    located = read_text(NET.format(layer=layer), "net.prototxt", pb.NetParameter)
    net = resolve_net(located.message, located.source, NetState(pb.TRAIN))
    told = read_text(f'base_lr: 0.1 lr_policy: "fixed" {solver}', "solver", pb.SolverParameter)
    with allowed_python(str(Path.cwd())):
        return compile_training(net, SolverModel(told.message, told.source))


def stepped(training: Training, steps: int = 3) -> tuple[list[float], dict[str, Any]]:
    """The losses of some steps on the same kind of data, and the weights after them."""
    stream = np.random.default_rng(2)
    values = {
        slot.name: stream.standard_normal(slot.shape).astype(np.float32)
        for slot in training.weights
    }
    stepper = Stepper(training, Device("cpu"), values)
    feeds = {"x": stream.standard_normal((4, 3)).astype(np.float32)}
    losses = [float(stepper.step(0.1, lambda _: feeds)[LOSS]) for _ in range(steps)]
    return losses, stepper.weights()


@pytest.mark.parametrize("solver", ["momentum: 0.9", "iter_size: 2"])
def test_a_python_layer_computes_what_a_layer_of_ours_does(code: str, solver: str) -> None:
    own = 'layer { name: "py" type: "Power" bottom: "ip" top: "y" power_param { scale: 2 } }'
    losses, weights = stepped(training_of(python(code, "Twice"), solver))
    wanted_losses, wanted = stepped(training_of(own, solver))
    np.testing.assert_allclose(losses, wanted_losses, rtol=1e-6)
    for name, value in wanted.items():
        np.testing.assert_allclose(weights[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("prefix", "net", "losses"),
    [("", "", ("loss", "hinge")), ("weights/", "weights", ("loss",))],
)
def test_a_net_of_python_layers_trains_as_in_caffe(
    prefix: str, net: str, losses: tuple[str, ...]
) -> None:
    golden = np.load(GOLDEN / "python_layers.npz")
    located = read_prototxt(USER / f"{net or 'net'}.prototxt", pb.NetParameter)
    solver_name = f"{net}_solver.prototxt" if net else "solver.prototxt"
    solver = read_prototxt(USER / solver_name, pb.SolverParameter)
    resolved = resolve_net(located.message, located.source, NetState(pb.TRAIN))
    with allowed_python():
        training = compile_training(resolved, SolverModel(solver.message, solver.source))
    names = {slot.name: f"{slot.layer}/{slot.index}" for slot in training.weights}
    # The weights of Python layers start as their setup leaves them.
    values, _ = initial_values(training.weights, (), seed=0, allow_unloaded=True)
    values |= {
        slot.name: golden[f"{prefix}first/{names[slot.name]}"]
        for slot in training.weights
        if slot.layer_type != "Python"
    }
    stepper = Stepper(training, Device("cpu"), values)
    for step in range(len(golden["loss"])):
        found = stepper.step(solver.message.base_lr, lambda _: {})
        for top in losses:
            wanted = golden[prefix + top][step]
            assert found[f"output/{top}"] == pytest.approx(wanted, rel=1e-5)
    for slot, value in stepper.weights().items():
        wanted = golden[f"{prefix}last/{names[slot]}"]
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-6, err_msg=slot)


OWN = (
    'layer { name: "py" type: "Scale" bottom: "ip" top: "y" scale_param { filler { value: 2 } } }'
)


@pytest.mark.parametrize("bottom", ["ip", "x"])
@pytest.mark.parametrize("solver", ["momentum: 0.9 weight_decay: 0.1", "iter_size: 2"])
def test_weights_of_python_layers_are_trained_as_those_of_ours(
    code: str, solver: str, bottom: str
) -> None:
    layer, own = (
        text.replace('bottom: "ip"', f'bottom: "{bottom}"')
        for text in (python(code, "Scaled"), OWN)
    )
    losses, weights = stepped(training_of(layer, solver))
    wanted_losses, wanted = stepped(training_of(own, solver))
    np.testing.assert_allclose(losses, wanted_losses, rtol=1e-6)
    for name, value in wanted.items():
        found = weights[name.replace("py/scale", "py/blob_0")]
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_weight_keeps_its_shape(code: str) -> None:
    training = training_of(python(code, "Resized"))
    with pytest.raises(RunError, match=r"weight 0 the shape \(4,\); it was \(3,\)") as raised:
        stepped(training)
    assert raised.value.diagnostics[0].code == "python-shape-changed"


def test_what_no_weight_lies_before_is_never_asked_for_a_gradient(code: str) -> None:
    layer = python(code, "NoBackward").replace('bottom: "ip"', 'bottom: "x"')
    training = training_of(layer)
    assert [step.after for step in training.hosted] == [None]
    assert len(stepped(training)[0]) == 3
    with pytest.raises(RunError, match="backward raised NotImplementedError") as raised:
        stepped(training_of(python(code, "NoBackward")))
    assert raised.value.diagnostics[0].code == "python-layer-failed"


def test_data_that_only_a_python_layer_reads_are_fed() -> None:
    located = read_prototxt(USER / "net.prototxt", pb.NetParameter)
    waves = """name: "d" type: "DummyData" top: "x" top: "y"
      dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 } }"""
    layers = [read_text(waves, "data", pb.LayerParameter).message]
    layers += [layer for layer in located.message.layer if layer.name not in ("waves", "hinge")]
    net = resolve_net(pb.NetParameter(layer=layers), located.source, NetState(pb.TRAIN))
    solver = read_prototxt(USER / "solver.prototxt", pb.SolverParameter)
    with allowed_python(str(USER)):
        training = compile_training(net, SolverModel(solver.message, solver.source))
    values = {slot.name: np.ones(slot.shape, np.float32) for slot in training.weights}
    stepper = Stepper(training, Device("cpu"), values)
    assert set(training.main.data) == {"x"}
    assert stepper.feeding.data == {"x": (4, 3), "y": (4, 2)}
    feeds = {name: np.ones(shape, np.float32) for name, shape in stepper.feeding.data.items()}
    assert np.isfinite(stepper.step(0.1, lambda _: feeds)[LOSS])


FAULTS = [
    ("Twiec", "", "python-class", 'has no layer class "Twiec"'),
    ("BadSetup", 'param_str: "b.txt"', "python-layer-failed", "setup raised ValueError: no such"),
    ("BadShape", "", "python-layer-failed", "reshape raised ValueError: the shape (2, -1)"),
    ("Weighted", "", "python-weights", "blobs holds 3, which is no weight"),
    ("Empty", "", "python-empty-top", 'reshape gave top "y" the shape (0, 2), which holds'),
    ("NoExtent", "", "python-layer-failed", "a weight of shape (2, 0) has an extent below 1"),
]


@pytest.mark.parametrize(("layer", "more", "fault", "said"), FAULTS)
def test_faults_of_the_code_are_told_where_the_layer_stands(
    code: str, layer: str, more: str, fault: str, said: str
) -> None:
    with pytest.raises(LayerError) as raised:
        training_of(python(code, layer, more))
    found = raised.value.diagnostics[0]
    assert (found.code, found.span.line if found.span else 0) == (fault, 6)
    assert found.message.startswith('layer "py" (Python): ')
    assert said in found.message


def test_a_fault_names_the_users_line(code: str) -> None:
    with pytest.raises(RunError) as raised:
        stepped(training_of(python(code, "BadForward")))
    found = raised.value.diagnostics[0]
    assert found.message.endswith("forward raised IndexError: list index out of range")
    line = CODE.splitlines().index("        return bottom[7]") + 1
    assert f"{code}.py:{line}, in forward" in found.help[0]


def test_a_shape_that_changes_is_refused(code: str) -> None:
    layer = python(code, "Grows") + (
        ' layer { name: "flat" type: "InnerProduct" bottom: "y" top: "z" '
        "inner_product_param { num_output: 2 } }"
    )
    with pytest.raises(RunError, match=r'top "y" the shape \(4, 3\); it was \(4, 2\)') as raised:
        stepped(training_of(layer.replace('bottom: "y" top: "z"', 'bottom: "y" top: "y2"')))
    assert raised.value.diagnostics[0].code == "python-shape-changed"


@pytest.mark.parametrize(
    ("module", "said"),
    [("not_there", 'there is no module "not_there"'), ("broken", "importing its module raised")],
)
def test_a_module_that_cannot_be_imported(code: str, module: str, said: str) -> None:
    Path("broken.py").write_text("1 / 0\n")
    with pytest.raises(LayerError) as raised:
        training_of(python(module, "Twice"))
    assert said in raised.value.diagnostics[0].message
    codes = {"not_there": "python-module", "broken": "python-layer-failed"}
    assert raised.value.diagnostics[0].code == codes[module]
    assert code


def test_module_and_layer_are_needed() -> None:
    with pytest.raises(KdnetError, match="module: must be given"):
        training_of('layer { name: "py" type: "Python" bottom: "ip" top: "y" }')


def test_blobs_have_pycaffes_ways() -> None:
    blob = Blob((2, 3))
    blob.reshape(4, 5, 6)
    blob.reshape([4, 5, 6])
    kept = blob.data
    blob.reshape((4, 5, 6))
    assert blob.data is kept
    assert (blob.num, blob.channels, blob.height, blob.width) == (4, 5, 6, 1)
    assert (blob.count, blob.shape, blob.diff.dtype) == (120, (4, 5, 6), np.float32)
    blob.reshape()
    assert blob.shape == ()
