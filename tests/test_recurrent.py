"""Recurrent layers at work: where sequences begin, states handed on, learning, export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from gradcheck import onnxruntime_run
from layer_programs import declared_weights, layer_model
from small_nets import run

from kdnet.compile import compile_training, trace_forward
from kdnet.compile.program import LOSS
from kdnet.graph import Emitter, to_model
from kdnet.net import NetState, SolverModel, resolve_net
from kdnet.runtime import Device, Stepper
from kdnet.schema import SourceMap, read_net, read_text
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import LayerBlobs, fill, philox, write_caffemodel

NETS = Path(__file__).parent.parent / "nets" / "mnist"
UNITS = 3
STEPS, STREAMS = 6, 2
KINDS = {"LSTM": 2, "RNN": 1}
READER = """
layer { name: "rows" type: "Permute" bottom: "data" top: "rows"
  permute_param { order: 2 order: 0 order: 1 order: 3 } }
layer { name: "marks" type: "Reduction" bottom: "rows" top: "marks" reduction_param { axis: 2 } }
layer { name: "cont" type: "Power" bottom: "marks" top: "cont" power_param { scale: 0 shift: 1 } }
layer { name: "lstm" type: "LSTM" bottom: "rows" bottom: "cont" top: "lstm"
  recurrent_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "last" type: "Slice" bottom: "lstm" top: "before" top: "last"
  slice_param { axis: 0 slice_point: 3 } }
layer { name: "before" type: "Silence" bottom: "before" }
layer { name: "item" type: "Flatten" bottom: "last" top: "item"
  flatten_param { axis: 0 end_axis: 1 } }
layer { name: "ip" type: "InnerProduct" bottom: "item" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def outputs(text: str, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every blob of a net of these inputs; weights are drawn by name, so that nets share them."""
    located = read_text(text, "net.prototxt", pb.NetParameter)
    message = pb.NetParameter()
    for name, array in feeds.items():
        layer = message.layer.add(name=name, type="Input", top=[name])
        layer.input_param.shape.add().dim.extend(array.shape)
    message.layer.extend(located.message.layer)
    g = Emitter()
    forward = trace_forward(resolve_net(message, SourceMap.empty(), NetState(pb.TEST)), g)
    arrays = {t.name: philox(3, t.name).standard_normal(t.shape) for t in forward.weights}
    blobs = {name: forward.blobs[name] for name in forward.blobs if name not in feeds}
    inputs = [*forward.trace.data.values(), *forward.weights]
    return onnxruntime_run(to_model(g.ops, inputs, blobs, name="net"), {**feeds, **arrays})


def layer_text(kind: str, *, exposed: bool = False) -> str:
    states = range(KINDS[kind] if exposed else 0)
    bottoms = " ".join(f'bottom: "given{i}"' for i in states)
    tops = " ".join(f'top: "last{i}"' for i in states)
    more = "expose_hidden: true" if exposed else ""
    return (
        f'layer {{ name: "layer" type: "{kind}" bottom: "x" bottom: "cont" {bottoms} '
        f'top: "y" {tops} recurrent_param {{ num_output: {UNITS} {more} }} }}'
    )


def sequences() -> tuple[np.ndarray, np.ndarray]:
    """Six steps of two streams that go on all the time but at the first step."""
    x = philox(5, "x").standard_normal((STEPS, STREAMS, 4)).astype(np.float32)
    cont = np.ones((STEPS, STREAMS), np.float32)
    cont[0] = 0
    return x, cont


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_begins_a_sequence_anew(kind: str) -> None:
    x, cont = sequences()
    cont[2] = 0
    whole = outputs(layer_text(kind), {"x": x, "cont": cont})["y"]
    alone = outputs(layer_text(kind), {"x": x[2:], "cont": cont[2:]})["y"]
    np.testing.assert_allclose(whole[2:], alone, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_is_of_its_stream_alone(kind: str) -> None:
    x, cont = sequences()
    plain = outputs(layer_text(kind), {"x": x, "cont": cont})["y"]
    cont[3, 1] = 0
    marked = outputs(layer_text(kind), {"x": x, "cont": cont})["y"]
    np.testing.assert_array_equal(marked[:, 0], plain[:, 0])
    assert np.abs(marked[3:, 1] - plain[3:, 1]).max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_state_a_batch_begins_at_zeros(kind: str) -> None:
    x, cont = sequences()
    begun = outputs(layer_text(kind), {"x": x, "cont": cont})["y"]
    np.testing.assert_array_equal(
        outputs(layer_text(kind), {"x": x, "cont": np.ones_like(cont)})["y"], begun
    )


@pytest.mark.parametrize("kind", KINDS)
def test_states_that_are_handed_on_join_two_halves(kind: str) -> None:
    x, cont = sequences()
    whole = outputs(layer_text(kind), {"x": x, "cont": cont})["y"]
    text = layer_text(kind, exposed=True)
    state = {f"given{i}": np.zeros((1, STREAMS, UNITS), np.float32) for i in range(KINDS[kind])}
    found = []
    for half in (slice(0, 2), slice(2, None)):
        blobs = outputs(text, {"x": x[half], "cont": cont[half], **state})
        state = {name: blobs[name.replace("given", "last")] for name in state}
        found.append(blobs["y"])
    np.testing.assert_allclose(np.concatenate(found), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("LSTM", ["W_xc", "b_c", "W_xc_static", "W_hc"]),
        ("RNN", ["W_xh", "b_h", "W_xh_static", "W_hh", "W_ho", "b_o"]),
    ],
)
def test_blobs_come_in_caffes_order_under_its_names(kind: str, names: list[str]) -> None:
    model = layer_model(f'type: "{kind}" recurrent_param {{ num_output: 3 }}', "TRAIN", 3, 1)
    assert [w.name for w in declared_weights(model, [(4, 2, 5), (4, 2), (2, 6)])] == names


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_sequence_is_one_step_after_another(kind: str) -> None:
    x = philox(5, "long").standard_normal((100, STREAMS, 4)).astype(np.float32)
    cont = np.ones((100, STREAMS), np.float32)
    cont[97] = 0
    whole = outputs(layer_text(kind), {"x": x, "cont": cont})["y"]
    alone = outputs(layer_text(kind), {"x": x[97:], "cont": cont[97:]})["y"]
    np.testing.assert_allclose(whole[97:], alone, atol=1e-6)


def test_an_lstm_learns_to_remember() -> None:
    head = """
    layer { name: "in" type: "Input" top: "data" top: "label"
      input_param { shape { dim: 16 dim: 1 dim: 4 dim: 2 } shape { dim: 16 } } }
    """
    located = read_text(head + READER, "net.prototxt", pb.NetParameter)
    net = resolve_net(located.message, located.source, NetState(pb.TRAIN))
    solver = pb.SolverParameter(base_lr=0.3, lr_policy="fixed", momentum=0.9)
    training = compile_training(net, SolverModel(solver, SourceMap.empty()))
    values = {s.name: fill(s.filler, s.shape, seed=2, key=s.name) for s in training.weights}
    stepper = Stepper(training, Device("cpu"), values)
    losses = []
    for step in range(120):
        data = philox(7, "data", step).standard_normal((16, 1, 4, 2)).astype(np.float32)
        # What the first of four rows said.
        feeds = {"data": data, "label": (data[:, 0, 0, 0] > 0).astype(np.float32)}
        losses.append(float(stepper.step(0.3, lambda _micro, at=feeds: at)[LOSS]))
    assert np.mean(losses[:10]) > 0.6
    assert np.mean(losses[-10:]) < 0.35


def test_the_shipped_teacher_begins_anew_at_the_first_row() -> None:
    located = read_net(str(NETS / "lstm_teacher.prototxt"))
    for layer in located.message.layer:
        if layer.type == "Data":
            layer.data_param.batch_size = 2
    net = resolve_net(located.message, located.source, NetState(pb.TEST))
    g = Emitter()
    forward = trace_forward(net, g)
    model = to_model(g.ops, [forward.blobs["data"]], {"cont": forward.blobs["cont"]}, name="marks")
    data = philox(1, "digits").random((2, 1, 28, 28), np.float32)
    marks = onnxruntime_run(model, {"data": data})["cont"]
    np.testing.assert_array_equal(marks, np.repeat([[0.0]] + [[1.0]] * 27, 2, axis=1))


def test_an_exported_lstm_takes_any_batch_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime as ort

    monkeypatch.chdir(tmp_path)
    data = (
        'layer { name: "in" type: "Data" top: "data" top: "label" data_param { source: "none" '
        "batch_size: 4 shape { dim: 1 dim: 4 dim: 2 } } }"
    )
    Path("net.prototxt").write_text(data + READER)
    shapes = {"lstm": [(20, 2), (20,), (20, 5)], "ip": [(3, 5), (3,)]}
    layers = []
    for name, of in shapes.items():
        blobs = [philox(1, name, i).standard_normal(s, np.float32) for i, s in enumerate(of)]
        layers.append(LayerBlobs(name, "", tuple(blobs)))
    write_caffemodel("w.caffemodel", layers)
    ended = run("export", "net.prototxt", "--weights", "w.caffemodel", "--iterations", 0,
                "--runs", 1, "--device", "cpu", "-o", "out/")  # fmt: skip
    assert (ended.code, ended.faults) == (0, "")
    session = ort.InferenceSession("out/ip.onnx", providers=["CPUExecutionProvider"])
    images = philox(2, "images").random((7, 1, 4, 2), np.float32)
    whole = session.run(None, {"data": images})[0]
    one_by_one = [session.run(None, {"data": images[i : i + 1]})[0] for i in range(7)]
    np.testing.assert_allclose(np.concatenate(one_by_one), whole, atol=1e-5)
