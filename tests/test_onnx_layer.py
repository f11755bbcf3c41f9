"""ONNX: models of PyTorch, models in ONNX's own text form, and training with either."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_programs as models
import pytest
from gradcheck import relative_error
from layer_programs import layer_model
from onnx_programs import opset
from small_nets import DATA, LOSSES, SOLVER, STUDENT, ok, run, said
from tables.onnx_models import MODELS

from kdnet.errors import KdnetError
from kdnet.graph import Emitter
from kdnet.layers import Trace, layer_class
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import read_weights

EXPORTED = ("attention", "mobile", "recurrent", "residual")
LEARNED = ("attention", "mobile", "residual", "residual_train")


def golden(name: str) -> tuple[Path, dict[str, np.ndarray]]:
    """An exported model, and what PyTorch computes with it."""
    with np.load(models.GOLDEN / f"{name}.npz") as file:
        return models.GOLDEN / f"{name}.onnx", dict(file)


# ---- models that PyTorch exported ----


@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_model_computes_what_it_computed_in_pytorch(name):
    path, answers = golden(name)
    [y] = models.tops(path, answers["x"])
    np.testing.assert_allclose(y, answers["y"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", LEARNED)
def test_gradients_of_an_exported_model_are_pytorch_s(name):
    path, answers = golden(name)
    found = models.loaded(path, answers["x"], text="trainable: true")
    outputs = models.run(found, {"seed/top0": answers["seed/y"]})
    assert relative_error(outputs["top0"], answers["y"]) <= 1e-5
    wanted = {key.removeprefix("grad/") for key in answers if key.startswith("grad/")}
    trained = {weight.name for weight in found.weights if not weight.state}
    assert wanted == trained
    for label, name_ in found.names().items():
        if name_ in wanted:
            expected = answers[f"grad/{name_}"]
            # Noise of rounding is all that a bias before a normalisation has.
            size = max(np.abs(expected).max(), 1e-3)
            np.testing.assert_allclose(
                outputs[f"d/{label}"], expected, rtol=0, atol=1e-4 * size, err_msg=name_
            )


def test_shape_arithmetic_leaves_nothing_in_the_graph():
    path, answers = golden("attention")
    g = Emitter()
    found = models.loaded(path, answers["x"])
    models.emitted(g, found.layer.model, {n: g.input(n, a.shape) for n, a in found.arrays.items()})
    kinds = {op.type for op in g.ops}
    assert not kinds & {"Shape", "ConstantOfShape", "Where", "Equal", "Cast", "Sqrt"}
    assert len(g.ops) < 50


def test_an_image_of_another_size_gets_its_own_shapes():
    path, _ = golden("mobile")
    x = np.random.default_rng(0).standard_normal((3, 3, 9, 10))
    [y], [wanted] = models.tops(path, x), models.plain(path, x)
    np.testing.assert_allclose(y, wanted, atol=1e-5)


def test_a_recurrent_model_is_frozen_but_its_head_can_be_trained(joined):
    path, _ = golden("recurrent")
    net = f"""
      layer {{ name: "rows" type: "DummyData" top: "x" top: "label" dummy_data_param {{
        shape {{ dim: 4 dim: 7 dim: 6 }} shape {{ dim: 4 }}
        data_filler {{ type: "gaussian" }} data_filler {{ value: 1 }} }} }}
      layer {{ name: "model" type: "ONNX" bottom: "x" top: "y" PARAMS
        onnx_param {{ model: "{path.as_posix()}" trainable: true }} }}
      layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }}"""
    solver = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2'
    (joined / "net_solver.prototxt").write_text(solver)
    (joined / "net.prototxt").write_text(net.replace("PARAMS", ""))
    ended = run("train", "net.prototxt", "--device", "cpu")
    assert ended.code == 1
    assert "LSTM has no gradient rule" in ended.faults
    params = "param { lr_mult: 1 } param { lr_mult: 1 }" + "param { lr_mult: 0 }" * 3
    (joined / "net.prototxt").write_text(net.replace("PARAMS", params))
    assert ok("train", "net.prototxt", "--device", "cpu").code == 0


# ---- batch statistics and dropout ----


def test_a_training_model_keeps_running_statistics():
    path, answers = golden("residual_train")
    found = models.loaded(path, answers["x"], text="trainable: true")
    outputs = models.run(found)
    names = {name: label for label, name in found.names().items()}
    stem, mean = (found.arrays[names[n]] for n in ("stem.weight", "norm.running_mean"))
    variance = found.arrays[names["norm.running_var"]]
    x = onnx.reference.ReferenceEvaluator(
        onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    ).run(None, {"x": answers["x"], "w": stem})[0]
    states = [weight.name for weight in found.weights if weight.state]
    assert len(states) == 4
    after = {name: outputs[f"next{index}"] for index, name in enumerate(states)}
    np.testing.assert_allclose(
        after["norm.running_mean"], 0.9 * mean + 0.1 * x.mean((0, 2, 3)), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        after["norm.running_var"], 0.9 * variance + 0.1 * x.var((0, 2, 3)), rtol=1e-4
    )


@pytest.mark.parametrize("given", [{"phase": "TEST", "text": "trainable: true"}, {}])
def test_a_training_model_that_does_not_learn_uses_what_it_holds(given, tmp_path):
    path, answers = golden("residual_train")
    found = models.loaded(path, answers["x"], **given)
    assert not found.layer.trace.updates
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            node.attribute.remove(next(a for a in node.attribute if a.name == "training_mode"))
            del node.output[1:]
    still = tmp_path / "still.onnx"
    still.write_bytes(model.SerializeToString())
    [y], [wanted] = models.tops(path, answers["x"], **given), models.plain(still, answers["x"])
    np.testing.assert_allclose(y, wanted, atol=1e-5)


DROPPING = """(float[n, 6] x) => (float[n, 6] y, float[n, 6] z)
  <float r = {0.5}, float none = {0}, bool on = {1}> {
  a, m = Dropout (x, , on) c = Cast <to = 1> (m) b = Dropout (x, none, on)
  d = Dropout (x, r, on) y = Mul (a, c) z = Add (d, b) }"""


def test_a_training_model_drops_and_each_node_draws_for_itself(tmp_path):
    path = models.written(tmp_path, opset(13, DROPPING))
    x = np.arange(1.0, 13).reshape(2, 6)
    found = models.loaded(path, x, text="trainable: true", tops=2)
    noise = np.random.default_rng(5).random(24).astype(np.float32)
    outputs = models.run(found, {"noise/layer": noise})
    first, second = (part.reshape(2, 6) > 0.5 for part in np.split(noise, 2))
    assert (first != second).any()
    np.testing.assert_allclose(outputs["top0"], np.where(first, 2 * x, 0), rtol=1e-6)
    np.testing.assert_allclose(outputs["top1"], x + np.where(second, 2 * x, 0), rtol=1e-6)
    still = models.tops(path, x, tops=2)
    np.testing.assert_allclose(still, [x, 2 * x])


def test_a_node_that_drops_nothing_draws_nothing(tmp_path):
    body = """(float[n, 6] x) => (float[n, 6] y) <float r = {0}, bool on = {1}> {
      y = Dropout (x, r, on) }"""
    path = models.written(tmp_path, opset(13, body))
    [y] = models.tops(path, np.ones((2, 6)), text="trainable: true")
    np.testing.assert_array_equal(y, 1)


def test_a_ratio_that_is_computed_is_refused(tmp_path):
    body = """(float[n, 6] x) => (float[n, 6] y) <bool on = {1}> {
      r = ReduceMean <keepdims = 0> (x) y = Dropout (x, r, on) }"""
    path = models.written(tmp_path, opset(13, body))
    code, text = models.fault(path, text="trainable: true")
    assert (code, "its ratio depends on the data" in text) == ("unsupported-model", True)


def test_statistics_that_are_computed_are_not_kept(tmp_path):
    body = """(float[n, 3, 2] x) => (float[n, 3, 2] y) <float[3] s, float[3] v> {
      q = Abs (v) y, m, w = BatchNormalization <training_mode = 1> (x, s, s, s, q) }"""
    path = models.written(tmp_path, opset(14, body))
    x = np.random.default_rng(3).standard_normal((4, 3, 2))
    found = models.loaded(path, x, text="trainable: true")
    outputs = models.run(found)
    assert "next1" not in outputs
    scale = found.arrays["weight0"][:, np.newaxis]
    centred = x - x.mean((0, 2), keepdims=True)
    wanted = centred / np.sqrt(x.var((0, 2), keepdims=True) + 1e-5) * scale + scale
    np.testing.assert_allclose(outputs["top0"], wanted, atol=1e-5)


# ---- what models leave implicit ----


@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_what_its_file_computes(name, tmp_path):
    version, shape, body = MODELS[name]
    path = models.written(tmp_path, opset(version, body))
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    [y], [wanted] = models.tops(path, x), models.plain(path, x)
    assert y.shape == wanted.shape
    np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-5)


def test_models_are_sorted():
    assert list(MODELS) == sorted(MODELS)


def test_words_are_looked_up(tmp_path):
    body = "(int64[n, k] i) => (float[n, k, 3] y) <float[5, 3] t> { y = Gather (t, i) }"
    path = models.written(tmp_path, opset(13, body))
    words = np.array([[0, 4, 2], [1, 1, 3]])
    [y], [wanted] = models.tops(path, words), models.plain(path, words)
    np.testing.assert_allclose(y, wanted)


@pytest.mark.parametrize(("kind", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_other_floats_are_computed_in_float32_and_that_is_said(kind, dtype, tmp_path):
    body = (
        f"({kind}[n, 6] x) => ({kind}[a, b] y) {{ c = Constant <value = {kind}[1] {{0}}> () "
        "f = Cast <to = 1> (x) h = CastLike (f, x) s = Mul (h, two) t = Mul (s, w) "
        "y = Add (t, c) }"
    )
    model = onnx.parser.parse_model(opset(19, body))
    weight = np.linspace(-1, 1, 6).astype(dtype)
    for name, value in (("two", np.array(2, dtype)), ("w", weight)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    three = onnx.numpy_helper.from_array(np.array([3], dtype))
    model.graph.node[0].attribute[0].t.CopyFrom(three)
    path = tmp_path / "half.onnx"
    path.write_bytes(model.SerializeToString())
    x = np.ones((2, 6))
    found = models.loaded(path, x)
    assert found.arrays["weight0"].dtype == np.float32
    assert found.weights[0].stored.file == f"{path} ({kind} read as float32)"
    [y] = models.tops(path, x)
    np.testing.assert_allclose(y, 2 * x * weight + 3, atol=1e-3)


def test_inner_tensors_are_tops_and_what_follows_them_is_left_out(tmp_path):
    body = (
        "(float[n, 6] x, float[n] unused) => (float[n, 4] y, float[n, 4] z) "
        "<float[6, 4] w, float[4, 4] v> { h = MatMul (x, w) r = Relu (h) y = MatMul (r, v) "
        "z = Neg (y) }"
    )
    path = models.written(tmp_path, opset(11, body))
    x = np.ones((2, 6))
    found = models.loaded(path, x, text='output: "r" output: "x" output: "w"', tops=3)
    assert [weight.name for weight in found.weights] == ["w"]
    outputs = models.run(found)
    weight = found.arrays["weight0"]
    np.testing.assert_allclose(outputs["top0"], np.maximum(x @ weight, 0), rtol=1e-5)
    np.testing.assert_array_equal(outputs["top1"], x)
    np.testing.assert_array_equal(outputs["top2"], weight)


def test_a_model_for_one_item_computes_several_one_by_one(tmp_path):
    body = (
        "(float[1, 3, 6, 7] x) => (float[1, 4] y) <float[3, 4] w, int64[2] s = {1, -1}> "
        "{ g = GlobalAveragePool (x) r = Reshape (g, s) m = MatMul (r, w) y = Relu (m) }"
    )
    path = models.written(tmp_path, opset(13, body))
    x = np.random.default_rng(2).standard_normal((5, 3, 6, 7)).astype(np.float32)
    [y] = models.tops(path, x)
    wanted = np.concatenate([models.plain(path, item[np.newaxis])[0] for item in x])
    np.testing.assert_allclose(y, wanted, atol=1e-6)


def test_inputs_may_come_in_any_order(tmp_path):
    body = "(float[n, 3] a, float[n, 3] b) => (float[n, 3] y) { y = Sub (a, b) }"
    path = models.written(tmp_path, opset(13, body))
    one, two = np.full((2, 3), 1.0), np.full((2, 3), 2.0)
    assert models.tops(path, one, two)[0][0, 0] == -1
    [y] = models.tops(path, one, two, text='input: "b" input: "a"')
    assert y[0, 0] == 1


def test_numbers_that_shape_a_tensor_are_no_weights(tmp_path):
    version, shape, body = MODELS["inner-float-shape"]
    path = models.written(tmp_path, opset(version, body))
    assert models.loaded(path, np.ones(shape)).weights == []


# ---- training ----

TEACHER_MODEL = """(float[n, 1, 4, 4] image) => (float[n, 3] logits)
  <float[16, 3] w, float[3] b> { f = Flatten (image) p = MatMul (f, w) logits = Add (p, b) }"""
TEACHER = """
layer { name: "teacher" type: "ONNX" bottom: "data" top: "teacher/ip" param { lr_mult: 0 }
  onnx_param { model: "teacher.onnx" } }
"""
TS_LOSS = """
layer { name: "ts_loss" type: "TeacherStudentCrossEntropy" bottom: "student/ip2"
  bottom: "teacher/ip" top: "ts_loss" include { phase: TRAIN } loss_weight: 0.25 }
"""
TUNED = """
layer { name: "trunk" type: "ONNX" bottom: "data" top: "student/ip2" param { lr_mult: 2 }
  onnx_param { model: "teacher.onnx" trainable: true } }
"""


@pytest.fixture
def folder(joined):
    """A workplace with a model that a net reads."""
    models.written(joined, opset(13, TEACHER_MODEL)).rename(joined / "teacher.onnx")
    (joined / "net.prototxt").write_text(DATA + TEACHER + STUDENT + LOSSES + TS_LOSS)
    (joined / "net_solver.prototxt").write_text(f'net: "net.prototxt"\n{SOLVER}')
    return joined


def losses(ended) -> list[float]:
    lines = [line for line in ended.log if ", loss = " in line]
    return [float(line.rpartition("= ")[2]) for line in lines]


def test_a_model_teaches_a_student_and_stays_as_it_was(folder):
    before = (folder / "teacher.onnx").read_bytes()
    ended = ok("train", "net.prototxt", "--device", "cpu", "--max-iter", 40)
    found = losses(ended)
    assert found[-1] < found[0]
    assert said(ended, r"^teacher +loaded, frozen +2 +.*teacher\.onnx$")
    assert (folder / "teacher.onnx").read_bytes() == before
    saved = read_weights(folder / "run_iter_40.caffemodel")
    assert [layer.name for layer in saved.layers if layer.blobs] == ["student/ip1", "student/ip2"]


def test_a_model_is_tuned_saved_and_gone_on_with(folder):
    (folder / "net.prototxt").write_text(DATA + TUNED + LOSSES)
    ended = ok("train", "net.prototxt", "--device", "cpu", "--max-iter", 40)
    found = losses(ended)
    assert found[-1] < found[0]
    saved = read_weights(folder / "run_iter_40.caffemodel")
    [trunk] = [layer for layer in saved.layers if layer.blobs]
    assert trunk.name == "trunk"
    assert [blob.shape for blob in trunk.blobs] == [(16, 3), (3,)]
    first = models.loaded(folder / "teacher.onnx", np.ones((1, 1, 4, 4)))
    assert not np.array_equal(trunk.blobs[0], first.arrays["weight0"])
    again = ok("test", "net.prototxt", "--device", "cpu", "--weights", "run_iter_40.caffemodel")
    assert "run_iter_40.caffemodel" in again.err


def test_one_param_holds_for_every_blob_and_more_for_their_own():
    path, answers = golden("residual")

    def rates(params, text=""):
        prototxt = f'type: "ONNX" {params} onnx_param {{ model: "{path.as_posix()}" {text} }}'
        layer = layer_class(made := layer_model(prototxt, "TRAIN", 1, 1))(made, Trace())
        layer.check(Emitter().input("x", answers["x"].shape))
        return [(layer.param(i).lr_mult, layer.param(i).decay_mult) for i in range(3)]

    one = 'param { lr_mult: 3 decay_mult: 0.5 name: "shared" }'
    assert rates(one, "trainable: true") == [(3, 0.5)] * 3
    assert rates(f"{one} param {{ lr_mult: 0 }}", "trainable: true") == [
        (3, 0.5),
        (0, 1),
        (3, 0.5),
    ]
    assert rates("", "trainable: true") == [(1, 1)] * 3
    assert rates(one) == [(0, 0)] * 3


@pytest.mark.usefixtures("folder")
def test_a_weight_file_wins_over_the_model():
    ok("train", "net.prototxt", "--device", "cpu", "--max-iter", 1, "--full", "--out", "full")
    weights = ("--weights", "full/run_iter_1.caffemodel")
    ended = ok("train", "net.prototxt", "--device", "cpu", "--max-iter", 1, *weights)
    assert said(ended, r"^teacher +loaded, frozen +2 +full/run_iter_1\.caffemodel$")


def test_the_layer_s_parameters_have_their_defaults():
    assert pb.ONNXParameter().trainable is False
    assert not pb.ONNXParameter().HasField("model")


def test_faults_of_a_model_are_located(folder):
    (folder / "teacher.onnx").write_bytes(b"\x08\x08")
    ended = run("train", "net.prototxt", "--device", "cpu")
    assert ended.code == 1
    assert 'net.prototxt:14:23: error: layer "teacher" (ONNX)' in ended.faults
    assert "[not-a-model]" in ended.faults


def test_a_fault_is_a_fault_of_the_layer(tmp_path):
    with pytest.raises(KdnetError, match=r'layer "layer" \(ONNX\): there is no model'):
        models.loaded(tmp_path / "none.onnx", np.ones((1, 2)))
