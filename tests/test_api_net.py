"""``kdnet.Net`` against pycaffe, pass by pass, and what it does with what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kdnet
from kdnet.errors import DataError, KdnetError, LayerError, UsageError, WeightsError
from kdnet.layers.python import allowed_python

GOLDEN = np.load(Path(__file__).parent / "golden" / "caffe" / "api.npz")
SMALL = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 } } }
layer {
  name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
}
layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


def _net(force="true"):
    net = kdnet.Net(_message(str(GOLDEN["net/text"]).format(force=force)), kdnet.TRAIN)
    for name, params in net.params.items():
        for index, param in enumerate(params):
            if name != "right":
                param.data[...] = GOLDEN[f"net/start/{name}/{index}"]
    net.blobs["data"].data[...] = GOLDEN["net/data"]
    net.blobs["label"].data[...] = [1, 0, 4]
    return net


def _message(text):
    return kdnet.proto.caffe_pb2.NetParameter.FromString(_parsed(text).SerializeToString())


def _parsed(text):
    from kdnet.schema import kdnet_pb2, read_text

    return read_text(text, "net.prototxt", kdnet_pb2.NetParameter).message


def _small(**more):
    return kdnet.Net(_message(SMALL), **more)


def _check(net, key, without=()):
    for name, blob in net.blobs.items():
        assert blob.data == pytest.approx(GOLDEN[f"{key}/data/{name}"], rel=2e-4, abs=2e-5), name
        if name not in without:
            want = GOLDEN[f"{key}/diff/{name}"]
            assert blob.diff == pytest.approx(want, rel=2e-4, abs=2e-5), name
    for name, params in net.params.items():
        for index, param in enumerate(params):
            want = GOLDEN[f"{key}/slope/{name}/{index}"]
            assert param.diff == pytest.approx(want, rel=2e-4, abs=2e-4), (name, index)


@pytest.mark.parametrize("force", ["true", "false"])
def test_passes_are_pycaffes(force):
    net = _net(force)
    # Without force_backward pycaffe leaves the gradient of an input at 0; here it is the gradient.
    without = () if force == "true" else ("data",)
    for times in ("once", "twice"):
        net.forward()
        net.backward()
        _check(net, f"net/{force}/{times}", without)


def test_asking_for_an_inputs_gradient_is_enough():
    net = _net("false")
    net.forward()
    found = net.backward()["data"]
    want = GOLDEN["net/true/once/diff/data"]
    assert found == pytest.approx(want, rel=2e-4, abs=2e-5)


def test_passes_in_part_are_pycaffes():
    net = _net()
    net.forward()
    net.backward()
    net.clear_param_diffs()
    assert net.forward(end="bent").keys() == {"right"}
    net.blobs["right"].diff[...] = GOLDEN["net/slope"]
    found = net.backward(start="bent", end="pool")
    assert found.keys() == {"conv"}
    assert found["conv"] == pytest.approx(GOLDEN["net/true/part/conv"], rel=2e-4, abs=2e-5)
    shared = GOLDEN["net/true/part/shared"]
    assert net.params["right"][0].diff == pytest.approx(shared, rel=2e-4, abs=2e-5)
    net.blobs["left"].data[...] = GOLDEN["net/slope"]
    found = net.forward(start="bent", end="sum")["sum"]
    assert found == pytest.approx(GOLDEN["net/true/part/sum"], rel=2e-4, abs=2e-5)


def test_reshape_is_pycaffes():
    net = _net()
    net.blobs["data"].reshape(2, 2, 8, 8)
    net.blobs["label"].reshape(2)
    assert net.blobs["prob"].shape == (3, 5)
    net.reshape()
    shapes = [f"{name}: {blob.shape}" for name, blob in net.blobs.items()]
    assert shapes == list(GOLDEN["net/true/shapes"])
    assert net.forward()["prob"].shape == (2, 5)


def test_structure_is_pycaffes():
    net = _net()
    assert net.inputs == ["data", "label"]
    assert net.outputs == ["loss", "near", "prob"]
    assert net.bottom_names["sum"] == ["left", "right"]
    assert net.top_names["bent"] == ["right"]
    assert list(net.params) == ["conv", "scale", "left", "right"]
    assert net.layer_dict["relu"].type == "ReLU"
    assert [layer.name for layer in net.layers][:3] == ["data", "label", "conv"]
    assert net.layer_dict["conv"].blobs[1].shape == (4,)
    assert net.blob_loss_weights["near"] == pytest.approx(0.3)
    assert net.blobs["loss"].diff == 1
    assert net.name == "two ways"


def test_blobs_have_the_legacy_four_axes():
    blob = _net().blobs["data"]
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (3, 2, 8, 8, 384)
    blob.reshape((2, 5))
    assert (blob.num, blob.channels, blob.height, blob.width) == (2, 5, 1, 1)
    assert repr(blob) == "<Blob (2, 5)>"
    blob.reshape(1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="has no num"):
        blob.num  # noqa: B018  # it is what is tested


def test_arrays_stay_the_same_ones():
    net = _small()
    data, weight = net.blobs["data"].data, net.params["ip"][0].data
    prob = net.forward()["prob"]
    before = prob.copy()
    data[...] = np.arange(12).reshape(4, 3)
    weight[...] = [[1, -1, 0.5], [0, 0.25, -1]]
    net.forward()
    assert net.blobs["data"].data is data
    assert net.blobs["prob"].data is prob
    hidden = np.maximum(data @ weight.T, 0)
    want = np.exp(hidden) / np.exp(hidden).sum(1, keepdims=True)
    assert prob == pytest.approx(want, rel=1e-5)
    assert not np.allclose(prob, before)


def test_arrays_can_be_assigned():
    net = _small()
    net.blobs["data"].data = 1
    net.blobs["prob"].diff = 2
    assert (net.blobs["data"].data == 1).all()
    assert (net.blobs["prob"].diff == 2).all()


def test_inputs_and_seeds_may_be_keywords():
    net = _small()
    x = np.arange(12).reshape(4, 3) / 12
    found = net.forward(data=x, blobs=["ip"])
    assert list(found) == ["prob", "ip"]
    slope = np.eye(4, 2)
    found = net.backward(prob=slope, diffs=["prob"])
    y, w = net.blobs["prob"].data, net.params["ip"][0].data
    through = y * (slope - (slope * y).sum(1, keepdims=True)) * (net.blobs["ip"].data > 0)
    assert found["data"] == pytest.approx(through @ w, rel=1e-4, abs=1e-6)
    assert net.params["ip"][0].diff == pytest.approx(through.T @ x, rel=1e-4, abs=1e-6)
    assert (found["prob"] == slope).all()


def test_an_input_that_a_layer_changes_in_place_keeps_its_gradient_right():
    text = SMALL.replace('bottom: "data" top: "ip"', 'bottom: "data" top: "ip"', 1)
    power = 'layer { name: "p" type: "Power" bottom: "data" top: "data" power_param { power: 2 } }'
    first, second = text.split("layer {\n", 1)
    net = kdnet.Net(_message(first + power + "layer {\n" + second))
    x = np.arange(1, 13, dtype=np.float32).reshape(4, 3) / 12
    net.blobs["data"].data[...] = x
    net.forward()
    assert net.blobs["data"].data == pytest.approx(x**2)
    net.blobs["prob"].diff[:, 0] = 1
    slope = net.backward(diffs=["ip"])["data"].copy()
    inner = net.blobs["ip"].diff @ net.params["ip"][0].data
    assert slope == pytest.approx(inner * 2 * x, rel=1e-4, abs=1e-6)


def test_arrays_of_any_length_go_in_batches():
    net = _small()
    x = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    found = net.forward_all(data=x, blobs=["ip"])
    assert found["prob"].shape == (10, 2)
    for row in range(0, 10, 3):
        net.blobs["data"].data[0] = x[row]
        assert net.forward()["prob"][0] == pytest.approx(found["prob"][row], rel=1e-5)
    values, slopes = net.forward_backward_all(data=x, prob=np.ones((10, 2)), diffs=["ip"])
    assert (values["prob"] == found["prob"]).all()
    assert slopes["data"].shape == (10, 3)
    assert slopes["ip"] == pytest.approx(np.zeros((10, 2)), abs=1e-6)
    with pytest.raises(ValueError, match="different lengths"):
        net.forward_backward_all(data=x, prob=np.ones((9, 2)))
    with pytest.raises(ValueError, match="give the arrays"):
        net.forward_all()


@pytest.mark.parametrize("ending", [".caffemodel", ".h5", ".npz", ".bin"])
def test_weights_are_saved_and_loaded(tmp_path, ending):
    net, other = _small(), _small()
    net.params["ip"][1].data[...] = [3, 4]
    path = tmp_path / f"small{ending}"
    net.save(path)
    audit = other.copy_from(str(path))
    assert "1 of 1 layers loaded" in audit.text()
    assert (other.params["ip"][1].data == [3, 4]).all()
    assert (kdnet.Net(_message(SMALL), weights=path).params["ip"][1].data == [3, 4]).all()


def test_saved_files_hold_layers_as_caffes_do(tmp_path):
    net = _small()
    net.save(tmp_path / "small.caffemodel")
    found = kdnet.proto.caffe_pb2.NetParameter()
    found.ParseFromString((tmp_path / "small.caffemodel").read_bytes())
    assert [layer.name for layer in found.layer] == ["data", "ip", "relu", "prob"]
    assert found.layer[1].inner_product_param.num_output == 2
    assert list(found.layer[1].top) == ["ip"]
    net.save_hdf5(tmp_path / "weights.anything")
    other = _small()
    other.load_hdf5(tmp_path / "weights.anything")
    assert (other.params["ip"][0].data == net.params["ip"][0].data).all()


def test_nets_share_weights():
    net, other = _small(), _small()
    other.forward()
    net.params["ip"][0].data[...] = 0.5
    other.share_with(net)
    net.params["ip"][0].data[0] = 2
    other.blobs["data"].data[...] = 1
    other.forward()
    assert other.blobs["ip"].data[0] == pytest.approx([6, 1.5])
    wide = _message(SMALL)
    wide.layer[1].inner_product_param.num_output = 3
    with pytest.raises(WeightsError, match="share-mismatch"):
        kdnet.Net(wide).share_with(net)


def test_pycaffes_orders_of_arguments(tmp_path):
    path, weights = tmp_path / "small.prototxt", tmp_path / "small.caffemodel"
    staged = SMALL.replace(
        'layer { name: "prob"', 'layer { include { stage: "deploy" } name: "prob"'
    )
    path.write_text(staged)
    net = kdnet.Net(str(path), kdnet.TEST, 0, ["deploy"])
    assert net.outputs == ["prob"]
    net.params["ip"][1].data[...] = 7
    net.save(weights)
    for found in (
        kdnet.Net(str(path), str(weights), kdnet.TRAIN),
        kdnet.Net(path, kdnet.TRAIN, weights=weights),
        kdnet.Net(path, kdnet.TRAIN, 0, None, str(weights)),
        kdnet.Net(path, weights, phase=kdnet.TRAIN, stages=()),
    ):
        assert found.outputs == ["ip"]
        assert found.model.phase == kdnet.TRAIN
        assert (found.params["ip"][1].data == 7).all()
    with pytest.raises(TypeError, match="weights twice"):
        kdnet.Net(path, weights, weights=weights)
    with pytest.raises(TypeError, match="a phase and a level twice"):
        kdnet.Net(path, 1, 2, 3)


MEMORY = """
layer {
  name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 2 channels: 1 height: 1 width: 2 }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "data" bottom: "data" top: "loss" }
"""


def test_memory_data_reads_the_arrays_of_a_program():
    net = kdnet.Net(_message(MEMORY))
    rows = np.arange(8, dtype=np.float32).reshape(4, 1, 1, 2)
    net.set_input_arrays(rows, np.arange(4, dtype=np.float32))
    seen = []
    for _ in range(3):
        net.forward()
        seen.append(list(net.blobs["label"].data))
    assert seen == [[0, 1], [2, 3], [0, 1]]
    assert (net.blobs["data"].data == rows[:2]).all()
    net.forward(start="loss")
    assert list(net.blobs["label"].data) == [0, 1]
    with pytest.raises(DataError, match="memory-arrays"):
        net.set_input_arrays(rows[:3], np.arange(3))
    with pytest.raises(DataError, match="no-memory-data"):
        _small().set_input_arrays(rows, np.arange(4))


def test_dropout_is_drawn_anew_and_its_gradient_fits():
    n = kdnet.NetSpec()
    n.data = kdnet.layers.Input(shape={"dim": [1, 200]})
    n.drop = kdnet.layers.Dropout(n.data)
    net = kdnet.Net(n, kdnet.TRAIN)
    net.blobs["data"].data[...] = 1
    masks = [net.forward()["drop"].copy() for _ in range(2)]
    assert not (masks[0] == masks[1]).all()
    net.blobs["drop"].diff[...] = 1
    assert (net.backward()["data"] == masks[1]).all()


def test_batch_norm_keeps_its_statistics_between_passes():
    n = kdnet.NetSpec()
    n.data = kdnet.layers.Input(shape={"dim": [8, 1]})
    n.norm = kdnet.layers.BatchNorm(n.data, moving_average_fraction=0.5)
    net = kdnet.Net(n, kdnet.TRAIN)
    net.blobs["data"].data[...] = np.arange(8).reshape(8, 1)
    factor = net.params["norm"][2].data
    for want in (1, 1.5, 1.75):
        net.forward()
        assert factor == pytest.approx([want])
    net.backward()
    assert factor == pytest.approx([1.75])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda n: n.forward(end="prb"), ValueError, 'no layer "prb"; did you mean "prob"'),
        (lambda n: n.forward(blobs=["i"]), KeyError, 'no blob "i"'),
        (lambda n: n.forward(dta=1), ValueError, "inputs are data; give all"),
        (lambda n: n.forward(data=np.zeros((5, 3))), ValueError, "5 items where the net has"),
        (lambda n: n.backward(ip=1), ValueError, "outputs are prob; give all"),
        (lambda n: n.params["ip"][0].reshape(2), ValueError, "a weight keeps its shape"),
        (lambda n: n.blobs["data"].reshape(0, 2), ValueError, "an extent below 1"),
        (lambda n: n.save("nowhere/x.caffemodel"), WeightsError, "cannot-write"),
    ],
)
def test_misuse_is_told(call, error, text):
    with pytest.raises(error) as caught:
        call(_small())
    assert text in str(caught.value)


def test_a_shape_that_does_not_fit_is_told_at_the_layer():
    net = _small()
    net.blobs["data"].reshape(4, 5)
    with pytest.raises(LayerError, match="shape-mismatch") as caught:
        net.forward()
    assert "blob 0 has shape (2, 3); what the layer reads now needs (2, 5)" in str(caught.value)


def test_labels_that_are_no_classes_are_told():
    net = _net()
    net.blobs["label"].data[...] = 9
    with pytest.raises(DataError, match="label-out-of-range"):
        net.forward()


def test_a_solver_is_no_net(tmp_path):
    path = tmp_path / "solver.prototxt"
    path.write_text('base_lr: 0.1 net: "x.prototxt"')
    with pytest.raises(UsageError, match="not-a-net"):
        kdnet.Net(path)
    with pytest.raises(KdnetError, match="file-not-found"):
        kdnet.Net(tmp_path / "none.prototxt")


def test_python_layers_are_refused_at_their_place(tmp_path):
    code = "import kdnet.layers.python as p\nclass Same(p.Layer):\n"
    for name in ("setup", "reshape", "forward"):
        code += f"    def {name}(self, bottom, top):\n        top[0].reshape(4, 3)\n"
    (tmp_path / "own_layers.py").write_text(code)
    text = SMALL + 'layer { name: "own" type: "Python" bottom: "data" top: "own" '
    text += 'python_param { module: "own_layers" layer: "Same" } }'
    (tmp_path / "net.prototxt").write_text(text)
    with pytest.raises(LayerError, match="python-not-allowed"):
        kdnet.Net(tmp_path / "net.prototxt")
    with allowed_python(str(tmp_path)), pytest.raises(LayerError, match="runs no Python layers"):
        kdnet.Net(tmp_path / "net.prototxt")


def test_a_loss_without_a_top_counts():
    head = 'layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 4 dim: 2 } } }'
    loss = 'layer { name: "l" type: "EuclideanLoss" bottom: "ip" bottom: "t" loss_weight: 2 }'
    net = kdnet.Net(_message(head + SMALL + loss), kdnet.TRAIN)
    net.blobs["data"].data[...] = np.arange(12).reshape(4, 3)
    net.params["ip"][0].data[...] = [[1, 2, 3], [3, 2, 1]]
    net.forward()
    assert "l" not in net.blobs
    found = net.backward(diffs=["ip"])["data"]
    want = 2 * net.blobs["ip"].data / 4 @ net.params["ip"][0].data
    assert found == pytest.approx(want, rel=1e-4)


def test_a_loss_weight_inside_the_net_counts():
    text = SMALL.replace('name: "prob" type: "Softmax"', 'name: "prob" type: "Power"')
    net = kdnet.Net(_message(text.replace('type: "ReLU"', 'type: "ReLU" loss_weight: 0.5')))
    net.blobs["data"].data[...] = 1
    net.params["ip"][0].data[...] = 2
    net.blobs["prob"].diff[...] = 3
    net.forward()
    assert net.backward()["data"] == pytest.approx(np.full((4, 3), 2 * 2 * 3.5))


def test_shapes_that_come_and_go_stay_right():
    net = _small()
    for rows in range(1, 20):
        net.blobs["data"].reshape(rows, 3)
        net.blobs["data"].data[...] = rows
        found = net.forward()["prob"]
        assert found.shape == (rows, 2)
        assert net.blobs["ip"].data[0] == pytest.approx(
            np.maximum(rows * net.params["ip"][0].data.sum(1), 0), rel=1e-4, abs=1e-5
        )


def test_layers_that_do_nothing_keep_gradients_apart():
    text = SMALL.replace('name: "prob" type: "Softmax"', 'name: "prob" type: "Power"')
    more = (
        'layer { name: "twice" type: "Power" bottom: "ip" top: "twice" power_param { scale: 2 } }'
    )
    net = kdnet.Net(_message(text + more))
    net.blobs["data"].data[...] = 1
    net.params["ip"][0].data[...] = 2
    net.forward()
    net.backward(prob=np.full((4, 2), 3), twice=np.full((4, 2), 5), diffs=["ip"])
    assert (net.blobs["prob"].diff == 3).all()
    assert (net.blobs["ip"].diff == 13).all()
    net.blobs["twice"].diff[...] = 7
    net.backward(start="prob", end="relu")
    assert (net.blobs["ip"].diff == 3).all()
