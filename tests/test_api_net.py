"""``kdnet.Net`` against pycaffe, and what it does with what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from api_nets import GOLDEN, SMALL, message, small, two_ways

import kdnet
from kdnet.errors import DataError, KdnetError, LayerError, UsageError, WeightsError


def test_reshape_is_pycaffes():
    net = two_ways()
    net.blobs["data"].reshape(2, 2, 8, 8)
    net.blobs["label"].reshape(2)
    assert net.blobs["prob"].shape == (3, 5)
    net.reshape()
    shapes = [f"{name}: {blob.shape}" for name, blob in net.blobs.items()]
    assert shapes == list(GOLDEN["net/true/shapes"])
    assert net.forward()["prob"].shape == (2, 5)


def test_structure_is_pycaffes():
    net = two_ways()
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
    assert list(net.blobs.copy().items()) == list(net.blobs.items())


def test_blobs_have_the_legacy_four_axes():
    blob = two_ways().blobs["data"]
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (3, 2, 8, 8, 384)
    blob.reshape((2, 5))
    assert (blob.num, blob.channels, blob.height, blob.width) == (2, 5, 1, 1)
    assert repr(blob) == "<Blob (2, 5)>"
    blob.reshape(1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="has no num"):
        blob.num  # noqa: B018  # it is what is tested


def test_arrays_stay_the_same_ones():
    net = small()
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
    net = small()
    net.blobs["data"].data = 1
    net.blobs["prob"].diff = 2
    assert (net.blobs["data"].data == 1).all()
    assert (net.blobs["prob"].diff == 2).all()


def test_arrays_of_any_length_go_in_batches():
    net = small()
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
    net, other = small(), small()
    net.params["ip"][1].data[...] = [3, 4]
    path = tmp_path / f"small{ending}"
    net.save(path)
    audit = other.copy_from(str(path))
    assert "1 of 1 layers loaded" in audit.text()
    assert (other.params["ip"][1].data == [3, 4]).all()
    assert (kdnet.Net(message(SMALL), weights=path).params["ip"][1].data == [3, 4]).all()


def test_saved_files_hold_layers_as_caffes_do(tmp_path):
    net = small()
    net.save(tmp_path / "small.caffemodel")
    found = kdnet.proto.caffe_pb2.NetParameter()
    found.ParseFromString((tmp_path / "small.caffemodel").read_bytes())
    assert [layer.name for layer in found.layer] == ["data", "ip", "relu", "prob"]
    assert found.layer[1].inner_product_param.num_output == 2
    assert list(found.layer[1].top) == ["ip"]
    net.save_hdf5(tmp_path / "weights.anything")
    other = small()
    other.load_hdf5(tmp_path / "weights.anything")
    assert (other.params["ip"][0].data == net.params["ip"][0].data).all()


def test_nets_share_weights():
    net, other = small(), small()
    other.forward()
    net.params["ip"][0].data[...] = 0.5
    other.share_with(net)
    net.params["ip"][0].data[0] = 2
    other.blobs["data"].data[...] = 1
    other.forward()
    assert other.blobs["ip"].data[0] == pytest.approx([6, 1.5])
    wide = message(SMALL)
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
    net = kdnet.Net(message(MEMORY))
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
        small().set_input_arrays(rows, np.arange(4))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda n: n.forward(end="prb"), ValueError, 'no layer "prb"; did you mean "prob"'),
        (lambda n: n.forward(blobs=["i"]), KeyError, 'no blob "i"'),
        (lambda n: n.forward(start="ip", end="data"), ValueError, '"ip" does not lie before'),
        (lambda n: n.backward(start="ip", end="relu"), ValueError, '"ip" does not lie behind'),
        (lambda n: n.blobs["dta"], KeyError, 'no blob "dta"; did you mean "data"'),
        (lambda n: n.params["relu"], KeyError, 'no layer with weights "relu"'),
        (lambda n: kdnet.Net(n.model.message, 5), ValueError, "the phase is kdnet.TRAIN (0)"),
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
        call(small())
    assert text in str(caught.value)


def test_a_shape_that_does_not_fit_is_told_at_the_layer():
    net = small()
    net.blobs["data"].reshape(4, 5)
    with pytest.raises(LayerError, match="shape-mismatch") as caught:
        net.forward()
    assert "blob 0 has shape (2, 3); what the layer reads now needs (2, 5)" in str(caught.value)


def test_labels_that_are_no_classes_are_told():
    net = two_ways()
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


def test_shapes_that_come_and_go_stay_right():
    net = small()
    for rows in range(1, 20):
        net.blobs["data"].reshape(rows, 3)
        net.blobs["data"].data[...] = rows
        found = net.forward()["prob"]
        assert found.shape == (rows, 2)
        assert net.blobs["ip"].data[0] == pytest.approx(
            np.maximum(rows * net.params["ip"][0].data.sum(1), 0), rel=1e-4, abs=1e-5
        )
