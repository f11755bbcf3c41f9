"""Forward and backward passes of ``kdnet.Net``: pycaffe's numbers, whole and in part."""

from __future__ import annotations

import numpy as np
import pytest
from api_nets import GOLDEN, SMALL, message, small, two_ways

import kdnet


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
    net = two_ways(force)
    # Without force_backward pycaffe leaves the gradient of an input at 0; here it is the gradient.
    without = () if force == "true" else ("data",)
    for times in ("once", "twice"):
        net.forward()
        net.backward()
        _check(net, f"net/{force}/{times}", without)


def test_asking_for_an_inputs_gradient_is_enough():
    net = two_ways("false")
    net.forward()
    found = net.backward()["data"]
    want = GOLDEN["net/true/once/diff/data"]
    assert found == pytest.approx(want, rel=2e-4, abs=2e-5)


def test_passes_in_part_are_pycaffes():
    net = two_ways()
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


def test_inputs_and_seeds_may_be_keywords():
    net = small()
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
    net = kdnet.Net(message(first + power + "layer {\n" + second))
    x = np.arange(1, 13, dtype=np.float32).reshape(4, 3) / 12
    net.blobs["data"].data[...] = x
    net.forward()
    assert net.blobs["data"].data == pytest.approx(x**2)
    net.blobs["prob"].diff[:, 0] = 1
    slope = net.backward(diffs=["ip"])["data"].copy()
    inner = net.blobs["ip"].diff @ net.params["ip"][0].data
    assert slope == pytest.approx(inner * 2 * x, rel=1e-4, abs=1e-6)


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


def test_a_loss_without_a_top_counts():
    head = 'layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 4 dim: 2 } } }'
    loss = 'layer { name: "l" type: "EuclideanLoss" bottom: "ip" bottom: "t" loss_weight: 2 }'
    net = kdnet.Net(message(head + SMALL + loss), kdnet.TRAIN)
    net.blobs["data"].data[...] = np.arange(12).reshape(4, 3)
    net.params["ip"][0].data[...] = [[1, 2, 3], [3, 2, 1]]
    net.forward()
    assert "l" not in net.blobs
    found = net.backward(diffs=["ip"])["data"]
    want = 2 * net.blobs["ip"].data / 4 @ net.params["ip"][0].data
    assert found == pytest.approx(want, rel=1e-4)


def test_a_loss_weight_inside_the_net_counts():
    text = SMALL.replace('name: "prob" type: "Softmax"', 'name: "prob" type: "Power"')
    net = kdnet.Net(message(text.replace('type: "ReLU"', 'type: "ReLU" loss_weight: 0.5')))
    net.blobs["data"].data[...] = 1
    net.params["ip"][0].data[...] = 2
    net.blobs["prob"].diff[...] = 3
    net.forward()
    assert net.backward()["data"] == pytest.approx(np.full((4, 3), 2 * 2 * 3.5))


def test_layers_that_do_nothing_keep_gradients_apart():
    text = SMALL.replace('name: "prob" type: "Softmax"', 'name: "prob" type: "Power"')
    more = (
        'layer { name: "twice" type: "Power" bottom: "ip" top: "twice" power_param { scale: 2 } }'
    )
    net = kdnet.Net(message(text + more))
    net.blobs["data"].data[...] = 1
    net.params["ip"][0].data[...] = 2
    net.forward()
    net.backward(prob=np.full((4, 2), 3), twice=np.full((4, 2), 5), diffs=["ip"])
    assert (net.blobs["prob"].diff == 3).all()
    assert (net.blobs["ip"].diff == 13).all()
    net.blobs["twice"].diff[...] = 7
    net.backward(start="prob", end="relu")
    assert (net.blobs["ip"].diff == 3).all()
