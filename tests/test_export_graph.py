"""The deploy graph: which blobs are heads, what folds, what follows the batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from kdnet.compile.deploy.batch import free_batch
from kdnet.compile.deploy.branches import choose_heads, find_heads
from kdnet.compile.deploy.fold import fold
from kdnet.compile.deploy.making import Deploy, Preprocess, make_deploy, onnx_model
from kdnet.compile.forward import Forward, trace_forward
from kdnet.errors import KdnetError
from kdnet.graph import Emitter, Tensor
from kdnet.net import NetState, resolve_net
from kdnet.runtime.export.measure import trained_output
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text
from kdnet.weights import philox

DATA = """
layer { name: "d" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 9 dim: 9 } shape { dim: 4 } } }
"""
LOSS = 'layer { name: "%s_loss" type: "SoftmaxWithLoss" bottom: "%s" bottom: "label" top: "%s_l" }'
SQUARES = 'layer { name: "%s_loss" type: "EuclideanLoss" bottom: "%s" bottom: "%s" top: "%s_l" }'
RESIDUAL = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 bias_term: false } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "drop1" type: "Dropout" bottom: "conv1" top: "drop1" }
layer { name: "conv2" type: "Convolution" bottom: "drop1" top: "conv2"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 group: 2 } }
layer { name: "bn2" type: "BatchNorm" bottom: "conv2" top: "bn2" }
layer { name: "scale2" type: "Scale" bottom: "bn2" top: "bn2" }
layer { name: "sum" type: "Eltwise" bottom: "conv1" bottom: "bn2" top: "sum" }
layer { name: "pre_bn" type: "BatchNorm" bottom: "sum" top: "pre_bn" }
layer { name: "pre_scale" type: "Scale" bottom: "pre_bn" top: "pre_bn"
  scale_param { bias_term: true } }
layer { name: "pool" type: "Pooling" bottom: "pre_bn" top: "pool"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param { num_output: 5 transpose: true } }
layer { name: "ip_bn" type: "BatchNorm" bottom: "ip" top: "ip_bn" }
layer { name: "power" type: "Power" bottom: "ip_bn" top: "power"
  power_param { scale: -2 shift: 0.5 } }
"""


def phases(text: str) -> tuple[Forward, Forward]:
    """The TEST net and the TRAIN net, traced."""
    located = read_text(text, "net.prototxt", pb.NetParameter)
    test, train = (
        trace_forward(resolve_net(located.message, located.source, NetState(phase)), Emitter(), {})
        for phase in (pb.TEST, pb.TRAIN)
    )
    return test, train


def deploy_of(text: str, *, softmax: bool = False) -> Deploy:
    test, train = phases(text)
    (head,) = choose_heads(find_heads(test, train), (), test, train)
    return make_deploy(test.net, head, input_shapes={}, softmax=softmax)


def values_of(deploy: Deploy) -> dict[str, np.ndarray]:
    """Random weights; variances and factors are positive."""
    found = {}
    for slot in deploy.slots:
        values = philox(5, slot.name).standard_normal(slot.shape, np.float32)
        if slot.layer_type == "BatchNorm" and slot.index:
            values = np.abs(values) + np.float32(0.5)
        found[slot.name] = values
    return found


def types_of(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True, data_prop=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]


def trained(deploy: Deploy, values: Mapping[str, np.ndarray], data: np.ndarray) -> np.ndarray:
    return trained_output(deploy.trained.program, values, {"data": data})


def assert_equal_at_all_batches(deploy: Deploy) -> onnx.ModelProto:
    values = values_of(deploy)
    model = onnx_model(deploy, values, {})
    data = philox(6, "data").standard_normal((4, 3, 9, 9), np.float32)
    wanted = trained(deploy, values, data)
    for batch in (1, 2, 4):
        found = run(model, data=data[:batch])
        np.testing.assert_allclose(found, wanted[:batch], atol=1e-5 * np.abs(wanted).max())
    many = np.tile(data, (3, 1, 1, 1))
    np.testing.assert_array_equal(run(model, data=many)[:4], run(model, data=many)[8:])
    return model


# --- folding


def test_what_stands_behind_a_product_is_inside_it() -> None:
    model = assert_equal_at_all_batches(deploy_of(DATA + RESIDUAL + LOSS % (("power",) * 3)))
    assert types_of(model) == [
        "Conv",
        "Relu",
        "Conv",
        "Add",
        "BatchNormalization",
        "AveragePool",
        "Reshape",
        "Gemm",
    ]
    node = model.graph.node[0]
    assert len(node.input) == 3, "the folded shift is a bias"
    assert [entry.name for entry in model.graph.input] == ["data"]
    assert [entry.name for entry in model.graph.output] == ["power"]


def test_a_product_with_two_readers_keeps_its_own_values() -> None:
    text = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 9 } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "bn" top: "sum" }
"""
    model = assert_equal_at_all_batches(deploy_of(DATA + text + LOSS % (("sum",) * 3)))
    assert types_of(model) == ["Conv", "BatchNormalization", "Add"]


def test_a_shared_weight_is_folded_for_each_user_on_its_own() -> None:
    layers = """
layer { name: "%(n)s" type: "Convolution" bottom: "%(b)s" top: "%(n)s"
  param { name: "w" } convolution_param { num_output: 3 kernel_size: 3 pad: 1 bias_term: false } }
layer { name: "bn_%(n)s" type: "BatchNorm" bottom: "%(n)s" top: "%(n)s" }
"""
    text = layers % {"n": "a", "b": "data"} + layers % {"n": "b", "b": "a"}
    model = assert_equal_at_all_batches(deploy_of(DATA + text + SQUARES % (("b",) * 4)))
    assert types_of(model) == ["Conv", "Conv"]


def test_statistics_of_the_batch_are_not_folded() -> None:
    text = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 9 } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn"
  batch_norm_param { use_global_stats: false } }
"""
    deploy = deploy_of(DATA + text + LOSS % (("bn",) * 3))
    values = values_of(deploy)
    model = onnx_model(deploy, values, {})
    assert "ReduceMean" in types_of(model)
    data = philox(6, "data").standard_normal((4, 3, 9, 9), np.float32)
    np.testing.assert_allclose(run(model, data=data), trained(deploy, values, data), atol=1e-5)


def test_a_statistic_that_never_saw_a_batch_passes_zeros() -> None:
    deploy = deploy_of(DATA + RESIDUAL + LOSS % (("power",) * 3))
    values = values_of(deploy)
    values["bn1/scale_factor"] = np.zeros(1, np.float32)
    data = philox(6, "data").standard_normal((4, 3, 9, 9), np.float32)
    found = run(onnx_model(deploy, values, {}), data=data)
    np.testing.assert_allclose(found, trained(deploy, values, data), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("group", [1, 2])
def test_arithmetic_behind_a_transposed_convolution(kind: str, group: int, *, first: bool) -> None:
    g = Emitter()
    x, w = g.input("x", (2, 4, 3, 3)), g.input("w", (4, 6 // group, 2, 2))
    y = g.op("ConvTranspose", x, w, group=group)
    c = g.input("c", (6, 1, 1))
    output = g.op(kind, y, c) if first else g.op(kind, c, y)
    values = {w: philox(1, "w").standard_normal(w.shape), c: np.arange(1.0, 7).reshape(6, 1, 1)}
    folded = fold(g.ops, output, values)
    assert len(folded.ops) == (2 if kind == "Div" and not first else 1)
    data = philox(1, "x").standard_normal(x.shape)
    np.testing.assert_allclose(
        evaluated(g.ops, output, {**values, x: data}),
        evaluated(folded.ops, folded.output, {x: data}),
        rtol=1e-9,
    )


def evaluated(ops: list, output: Tensor, arrays: Mapping[Tensor, np.ndarray]) -> np.ndarray:
    """In float64, by numpy where the reference evaluator has no groups."""
    held = {t.name: np.asarray(a, np.float64) for t, a in arrays.items()}
    for op in ops:
        inputs = [
            t if t is None else held[t.name] if t.value is None else np.asarray(t.value, float)
            for t in op.inputs
        ]
        held[op.output.name] = NUMPY[op.type](op, *inputs)
    return held[output.name]


def conv_transpose(op, x, w, b=0.0):
    group, (kh, kw) = op.attrs.get("group", 1), w.shape[2:]
    n, _, height, width = x.shape
    xs, ws = x.reshape(n, group, -1, height, width), w.reshape(group, -1, *w.shape[1:])
    y = np.zeros((n, group, ws.shape[2], height + kh - 1, width + kw - 1))
    for i in range(kh):
        for j in range(kw):
            part = np.einsum("ngchw,gco->ngohw", xs, ws[..., i, j])
            y[..., i : i + height, j : j + width] += part
    return y.reshape(n, -1, *y.shape[3:]) + np.reshape(b, (-1, 1, 1))


NUMPY = {
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Div": lambda _, a, b: a / b,
    "ConvTranspose": conv_transpose,
}


def test_a_map_that_varies_within_a_channel_stays() -> None:
    g = Emitter()
    x, w = g.input("x", (2, 3, 4, 4)), g.input("w", (3, 3, 1, 1))
    output = g.mul(g.op("Conv", x, w), g.constant(np.ones((1, 3, 4, 1))))
    values = {w: np.ones(w.shape)}
    assert [op.type for op in fold(g.ops, output, values).ops] == ["Conv", "Mul"]


def test_what_is_not_known_or_not_by_channel_stays() -> None:
    g = Emitter()
    x, w, c = g.input("x", (2, 3)), g.input("w", (3, 3)), g.input("c", (3,))
    ones, rows = g.constant(np.ones((3, 3))), g.constant(np.ones((2, 3)))
    three = g.constant(np.ones(3))
    cases = [
        g.mul(g.gemm(x, w), three),
        g.mul(g.gemm(x, ones, rows), three),
        g.mul(g.op("Gemm", x, ones, alpha=2.0), three),
        g.op("BatchNormalization", g.gemm(x, ones), three, c, three, three, epsilon=1e-5),
    ]
    for output in cases:
        assert [op.type for op in fold(g.ops, output, {}).ops] == [
            "Gemm",
            g.ops[-1].type if output is cases[-1] else "Mul",
        ]


def test_copies_are_bridged_up_to_the_output() -> None:
    g = Emitter()
    x = g.input("x", (2, 3))
    inside = g.stop_gradient(x)
    output = g.stop_gradient(g.relu(inside))
    folded = fold(g.ops, output, {})
    assert [(op.type, op.inputs) for op in folded.ops] == [("Relu", (x,))]
    assert folded.output is folded.ops[-1].output


# --- the batch


def test_axes_that_follow_the_batch_have_its_name() -> None:
    text = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 8 } }
layer { name: "rows" type: "Reshape" bottom: "conv" top: "rows"
  reshape_param { shape { dim: -1 dim: 4 } } }
"""
    deploy = deploy_of(DATA + text + SQUARES % (("rows",) * 4))
    model = onnx_model(deploy, values_of(deploy), {})
    ends = [*model.graph.input, *model.graph.output]
    dims = [[d.dim_param or d.dim_value for d in e.type.tensor_type.shape.dim] for e in ends]
    assert dims == [["N", 3, 9, 9], ["2*N", 4]]


def test_a_shape_of_two_axes_that_follow_the_batch_is_computed() -> None:
    deploy = deploy_of(
        DATA
        + """
layer { name: "one" type: "Power" bottom: "data" top: "one" power_param { scale: 0 shift: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 243 } }
layer { name: "like" type: "Reshape" bottom: "ip" top: "like"
  reshape_param { shape { dim: 0 dim: 3 dim: 9 dim: 9 } } }
layer { name: "sum" type: "Eltwise" bottom: "one" bottom: "like" top: "sum" }
"""
        + SQUARES % (("sum",) * 4)
    )
    graph = free_batch(deploy.net, deploy.inputs, deploy.output)
    assert {"Shape", "Mul", "Add", "Expand"} <= {op.type for op in graph.ops}
    assert_equal_at_all_batches(deploy)


def test_a_constant_of_the_batch_is_refused_at_its_layer() -> None:
    text = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 6 } }
layer { name: "flat" type: "Reshape" bottom: "ip" top: "flat" reshape_param { shape { dim: -1 } } }
layer { name: "bias" type: "Bias" bottom: "flat" top: "bias" bias_param { axis: 0 } }
"""
    deploy = deploy_of(DATA + text + SQUARES % (("bias",) * 4))
    with pytest.raises(KdnetError, match="batch-bound") as caught:
        free_batch(deploy.net, deploy.inputs, deploy.output)
    assert 'layer "bias" (Bias)' in str(caught.value)
    assert "net.prototxt:8:1" in str(caught.value)


def test_the_same_net_gives_the_same_bytes() -> None:
    first, second = (deploy_of(DATA + RESIDUAL + LOSS % (("power",) * 3)) for _ in range(2))
    values = values_of(first)
    models = [onnx_model(deploy, values, {"kdnet.net": "1"}) for deploy in (first, second)]
    assert models[0].SerializeToString() == models[1].SerializeToString()


# --- in front and behind


def test_preprocessing_is_in_front_and_keeps_the_input_name() -> None:
    deploy = deploy_of(DATA + RESIDUAL + LOSS % (("power",) * 3))
    values = values_of(deploy)
    mean = np.array([104, 117, 123], np.float32).reshape(3, 1, 1)
    front = Preprocess(mean, 1 / 256)
    model = onnx_model(deploy, values, {}, {"data": front})
    assert types_of(model)[:3] == ["Sub", "Mul", "Conv"]
    raw = philox(2, "raw").integers(0, 256, (4, 3, 9, 9)).astype(np.float32)
    wanted = trained(deploy, values, front.apply(raw))
    np.testing.assert_allclose(run(model, data=raw), wanted, rtol=1e-4, atol=1e-4)
    assert Preprocess().is_nothing
    unchanged = onnx_model(deploy, values, {}, {"data": Preprocess()})
    assert types_of(unchanged)[0] == "Conv"


@pytest.mark.parametrize("axis", [1, -1])
def test_softmax_is_over_the_axis_of_the_loss(axis: int) -> None:
    loss = LOSS[:-1] + " softmax_param { axis: %d } }"
    deploy = deploy_of(DATA + RESIDUAL + loss % ("power", "power", "power", axis), softmax=True)
    assert deploy.output == "prob"
    assert deploy.net.layers[-1].message.softmax_param.axis == axis
    values = values_of(deploy)
    data = philox(6, "data").standard_normal((4, 3, 9, 9), np.float32)
    found = run(onnx_model(deploy, values, {}), data=data)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    assert (found.argmax(1) == trained(deploy, values, data).argmax(1)).all()


def test_a_blob_called_prob_keeps_its_name() -> None:
    text = (DATA + RESIDUAL + LOSS % (("power",) * 3)).replace('"drop1"', '"prob"')
    assert deploy_of(text, softmax=True).output == "power/prob"
