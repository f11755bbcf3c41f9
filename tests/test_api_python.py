"""Python layers in ``kdnet.Net``: forward, backward, shapes that change, weights, callbacks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import kdnet
from kdnet.errors import KdnetError, LayerError

CODE = """
import caffe
import numpy as np

class Ten(caffe.Layer):
    def setup(self, bottom, top):
        self.set_up = getattr(self, "set_up", 0) + 1
        self.ran = 0
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        self.ran += 1
        top[0].data[...] = 10 * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        self.asked = list(propagate_down)
        bottom[0].diff[...] = 10 * top[0].diff

class Twice(Ten):
    def forward(self, bottom, top):
        self.x = bottom[0].data.copy()
        top[0].data[...] = self.x ** 2
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * bottom[0].data * top[0].diff

class InPlace(Ten):
    def forward(self, bottom, top):
        bottom[0].data[...] *= 3
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 3 * top[0].diff

class Weighted(caffe.Layer):
    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 0
        self.held = self.blobs[0].data
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data + self.blobs[0].data
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[0] += 1

class Metric(Ten):
    def backward(self, top, propagate_down, bottom):
        raise NotImplementedError

class Phase(caffe.Layer):
    def setup(self, bottom, top):
        pass
    def reshape(self, bottom, top):
        top[0].reshape()
    def forward(self, bottom, top):
        top[0].data[()] = self.phase

class Rows(caffe.Layer):
    def setup(self, bottom, top):
        self.rows = 2
    def reshape(self, bottom, top):
        top[0].reshape(self.rows, 3)
    def forward(self, bottom, top):
        top[0].data[...] = np.arange(self.rows * 3).reshape(self.rows, 3)
        self.rows += 1

class Fails(Ten):
    def setup(self, bottom, top):
        raise RuntimeError("no such thing")

class FailsLater(Ten):
    def forward(self, bottom, top):
        raise RuntimeError("not today")
"""
INPUT = 'input: "data" input_shape { dim: 2 dim: 3 }\n'


@pytest.fixture
def code(tmp_path, monkeypatch):
    """The name of a module of CODE beside the working directory's nets, new for each test."""
    name = f"layers_{tmp_path.name.replace('-', '_')}"
    Path(tmp_path, f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield name
    sys.modules.pop(name, None)


def python(code, layer, bottom, top, name="", more=""):
    bottoms = f'bottom: "{bottom}"' if bottom else ""
    return (
        f'layer {{ name: "{name or top}" type: "Python" {bottoms} top: "{top}" {more} '
        f'python_param {{ module: "{code}" layer: "{layer}" }} }}\n'
    )


def net_of(text, phase=kdnet.TRAIN):
    Path("net.prototxt").write_text(text)
    return kdnet.Net("net.prototxt", phase)


def ip(bottom, top, outputs=3):
    return (
        f'layer {{ name: "{top}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" '
        f"inner_product_param {{ num_output: {outputs} "
        'weight_filler { type: "gaussian" std: 0.5 } } }\n'
    )


def power(bottom, top, scale):
    return (
        f'layer {{ name: "{top}" type: "Power" bottom: "{bottom}" top: "{top}" '
        f"power_param {{ scale: {scale} }} }}\n"
    )


@pytest.fixture
def chain(code):
    text = 'name: "chain" force_backward: true ' + INPUT
    for bottom, top in (("data", "one"), ("one", "two"), ("two", "three")):
        text += python(code, "Ten", bottom, top)
    return net_of(text)


def test_layers_are_run_forward(chain):
    chain.blobs["data"].data[...] = 8
    assert (chain.forward()["three"] == 8000).all()
    assert (chain.blobs["two"].data == 800).all()


def test_layers_are_run_backward_without_a_forward_pass(chain):
    chain.blobs["three"].diff[...] = 7
    assert (chain.backward()["data"] == 7000).all()
    assert (chain.blobs["one"].diff == 700).all()


def test_shapes_are_followed(chain):
    chain.blobs["data"].reshape(4, 4, 4)
    chain.forward()
    assert {blob.data.shape for blob in chain.blobs.values()} == {(4, 4, 4)}
    chain.blobs["data"].reshape(5)
    chain.reshape()
    assert chain.blobs["three"].shape == (5,)


def test_partial_passes_run_what_lies_between(chain):
    chain.blobs["one"].data[...] = 2
    assert (chain.forward(start="two", end="two")["two"] == 20).all()
    assert [layer.ran for layer in chain.layers[1:]] == [0, 1, 0]
    chain.blobs["two"].diff[...] = 3
    assert (chain.backward(start="two", end="two")["one"] == 30).all()
    assert (chain.blobs["data"].diff == 0).all()


def test_a_program_is_handed_the_object_of_a_layer(chain):
    layer = chain.layer_dict["two"]
    assert (layer.type, layer.name, layer.set_up, len(layer.blobs)) == ("Python", "two", 1, 0)
    chain.forward()
    chain.reshape()
    chain.forward()
    assert (layer.ran, layer.set_up) == (2, 1)
    assert chain.layers[2] is layer


def test_the_phase_is_told(code):
    text = python(code, "Phase", "", "phase")
    for phase in (kdnet.TRAIN, kdnet.TEST):
        assert net_of(text, phase).forward()["phase"] == phase


def test_what_the_code_raises_goes_on_with_a_note_of_the_layer(code):
    with pytest.raises(RuntimeError, match="no such thing") as caught:
        net_of(INPUT + python(code, "Fails", "data", "top"))
    assert caught.value.args == ("no such thing",)
    assert caught.value.__notes__ == ['in layer "top" (Python), net.prototxt:2:63']
    net = net_of(INPUT + python(code, "FailsLater", "data", "top"))
    with pytest.raises(RuntimeError, match="not today"):
        net.forward()


def test_what_is_not_there_is_told_at_the_layer(code):
    with pytest.raises(LayerError, match="python-module"):
        net_of(INPUT + python(code + "s", "Ten", "data", "top"))
    with pytest.raises(LayerError, match=r'python-class.*\n(.*\n)*.*"Ten"'):
        net_of(INPUT + python(code, "Tenn", "data", "top"))


def test_weights_are_the_nets_own(code):
    text = "force_backward: true " + INPUT + python(code, "Weighted", "data", "top", "layer")
    net = net_of(text)
    net.forward()
    net.backward()
    layer = net.layers[1]
    assert (layer.blobs[0].data[0], layer.blobs[0].diff[0]) == (0, 1)
    net.backward()
    assert net.params["layer"][0].diff[0] == 2
    layer.blobs[0].data[0] += layer.blobs[0].diff[0]
    assert (net.forward()["top"] == 2).all()
    assert layer.held[0] == 2
    net.save("saved.caffemodel")
    layer.blobs[0].data[0] = -1
    net.copy_from("saved.caffemodel")
    assert layer.blobs[0].data[0] == 2
    other = kdnet.Net("net.prototxt", kdnet.TRAIN)
    other.share_with(net)
    net.params["layer"][0].data[0] = 5
    assert other.layers[1].blobs[0].data[0] == 5
    assert (other.forward()["top"] == 5).all()
    net.clear_param_diffs()
    assert layer.blobs[0].diff[0] == 0


def test_shapes_may_change_from_batch_to_batch(code):
    net = net_of(python(code, "Rows", "", "x") + ip("x", "y") + python(code, "Ten", "y", "z"))
    for rows in (2, 3, 4):
        found = net.forward()["z"]
        assert found.shape == (rows, 3)
        x, weight = net.blobs["x"].data, net.params["y"][0].data
        assert found == pytest.approx(10 * x @ weight.T, rel=1e-5)
        net.blobs["z"].diff[...] = 1
        net.clear_param_diffs()
        net.backward()
        wanted = 10 * np.ones((3, rows)) @ x
        assert net.params["y"][0].diff == pytest.approx(wanted, rel=1e-5)


# "{ten}" and "{three}" are layers of Python or of ours.
MIXED = """
{a} {ten}
layer {{ name: "relu" type: "ReLU" bottom: "a" top: "a" }}
{q} {three}
layer {{ name: "sum" type: "Eltwise" bottom: "p" bottom: "a" bottom: "r" top: "s" }}
layer {{ name: "loss" type: "Reduction" bottom: "s" top: "loss" loss_weight: 0.5
  reduction_param {{ operation: SUMSQ }} }}
{more}
"""


def test_gradients_are_those_of_a_net_of_ours(code):
    """What two layers read, in-place changes and losses on the way are all accounted for."""
    layers = {"a": ip("data", "a"), "q": ip("a", "q")}
    more = power("loss", "more", 10).replace('top: "more"', 'top: "more" loss_weight: 0.25')
    own = {"ten": power("a", "p", 10), "three": power("q", "r", 3), "more": more}
    in_place = power("q", "r", 1) + python(code, "InPlace", "r", "r", "in place")
    more = python(code, "Ten", "loss", "more", more="loss_weight: 0.25")
    their = {"ten": python(code, "Ten", "a", "p"), "three": in_place, "more": more}
    ours, theirs = (net_of(INPUT + MIXED.format(**layers, **some)) for some in (own, their))
    x = np.random.default_rng(3).normal(size=(2, 3)).astype(np.float32)
    for net in (ours, theirs):
        for name in ("a", "q"):
            net.params[name][0].data[...] = ours.params[name][0].data
        net.forward(data=x)
        net.backward(diffs=["a", "p", "q"])
    for name in ("data", "p", "a", "q", "s", "loss", "more"):
        wanted = ours.blobs[name]
        assert theirs.blobs[name].data == pytest.approx(wanted.data, rel=1e-5), name
        assert theirs.blobs[name].diff == pytest.approx(wanted.diff, rel=1e-5, abs=1e-5), name
    # As in Caffe, an in-place layer leaves the gradient of what it was handed.
    assert theirs.blobs["r"].diff == pytest.approx(3 * ours.blobs["r"].diff, rel=1e-5)
    for mine, wanted in (
        (theirs.params[name][index].diff, ours.params[name][index].diff)
        for name in ("a", "q")
        for index in (0, 1)
    ):
        assert mine == pytest.approx(wanted, rel=1e-5, abs=1e-5)
        assert np.abs(mine).max() > 0


def test_nets_without_a_file_find_modules_where_python_does(code, monkeypatch):
    monkeypatch.syspath_prepend(str(Path.cwd()))
    n = kdnet.NetSpec()
    n.data = kdnet.layers.Input(shape={"dim": [2, 3]})
    n.ten = kdnet.layers.Python(n.data, module=code, layer="Ten")
    net = kdnet.Net(n)
    assert (net.forward(data=np.ones((2, 3)))["ten"] == 10).all()


def test_an_empty_top_is_refused(code):
    net = net_of(python(code, "Rows", "", "x") + ip("x", "y"))
    net.layers[0].rows = 0
    with pytest.raises(KdnetError, match="python-empty-top"):
        net.forward()


def test_a_metric_is_not_asked_for_gradients(code):
    loss = 'layer { name: "loss" type: "Reduction" bottom: "a" top: "loss" loss_weight: 1 }'
    net = net_of(INPUT + ip("data", "a") + python(code, "Metric", "a", "metric") + loss)
    net.forward(data=np.ones((2, 3)))
    assert (net.blobs["metric"].diff == 0).all()
    net.backward()
    assert (net.params["a"][0].diff != 0).all()
    net.blobs["metric"].diff[0] = 1
    with pytest.raises(NotImplementedError):
        net.backward()


def test_propagate_down_is_told(code):
    text = ip("data", "a") + python(code, "Ten", "a", "b", more="propagate_down: false")
    net = net_of(INPUT + text + ip("b", "c"))
    net.forward(data=np.ones((2, 3)))
    net.blobs["c"].diff[...] = 1
    net.backward()
    assert (net.params["a"][0].diff == 0).all()
    assert not (net.params["c"][0].diff == 0).all()
    assert not hasattr(net.layer_dict["b"], "asked")


FILTER = """
layer {{ name: "filter" type: "Filter" bottom: "a" bottom: "which" top: "kept" }}
{layer}
layer {{ name: "zero" type: "Power" bottom: "kept" top: "zero" power_param {{ scale: 0 }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "kept" bottom: "zero" top: "loss" }}
"""


def test_what_a_filter_left_is_counted_within_a_piece_only(code):
    which = 'input: "which" input_shape { dim: 2 dim: 1 dim: 1 dim: 1 }\n'
    ten = python(code, "Ten", "data", "ten")
    text = 'input: "data" input_shape { dim: 2 dim: 3 }\n' + which
    whole = net_of(text + ten + ip("ten", "a") + FILTER.format(layer=""))
    values = {"data": np.ones((2, 3)), "which": np.reshape([1, 0], (2, 1, 1, 1))}
    found = whole.forward(**values)["loss"]
    assert found == pytest.approx((whole.blobs["a"].data[0] ** 2).sum() / 2, rel=1e-5)
    parted = net_of(text + ip("data", "a") + FILTER.format(layer=ten))
    with pytest.raises(LayerError, match=r"cut at a Python layer.*filtered-batch") as caught:
        parted.forward(**values)
    assert '"kept"' in str(caught.value)


def calls_of(net):
    """The calls that the net makes, in order."""
    seen = []
    for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, name)(lambda index, name=name: seen.append((name, index)))
    return seen


def test_a_program_is_called_for_each_layer(code):
    text = INPUT + ip("data", "a") + python(code, "Ten", "a", "b") + ip("b", "c")
    net, plain = net_of(text), net_of(text)
    seen, weight = calls_of(net), net.params["a"][0].data
    plain.params["a"][0].data[...] = weight
    plain.params["c"][0].data[...] = net.params["c"][0].data
    for one in (net, plain):
        one.forward(data=np.ones((2, 3)))
        one.blobs["c"].diff[...] = 1
        one.backward()
    layers = range(len(net.layers))
    back = [(name, i) for i in reversed(layers) for name in ("before_backward", "after_backward")]
    assert seen == [(n, i) for i in layers for n in ("before_forward", "after_forward")] + back
    for name in ("a", "c"):
        wanted = plain.params[name][0].diff
        assert net.params[name][0].diff == pytest.approx(wanted, rel=1e-5)
    seen.clear()
    net.forward(start="b", end="c")
    assert [index for _, index in seen] == [2, 2, 3, 3]


@pytest.mark.usefixtures("code")
def test_what_a_called_program_writes_counts():
    net = net_of(INPUT + ip("data", "a") + power("a", "b", 2) + power("b", "c", 5))

    def halve(index):
        if net._layer_names[index] == "c":
            net.blobs["b"].data[...] = 1

    net.before_forward(halve)
    assert (net.forward(data=np.ones((2, 3)))["c"] == 5).all()


@pytest.mark.usefixtures("code")
def test_what_a_filter_left_does_not_outlive_its_layer():
    which = 'input: "which" input_shape { dim: 2 dim: 1 dim: 1 dim: 1 }\n'
    net = net_of('input: "a" input_shape { dim: 2 dim: 3 }\n' + which + FILTER.format(layer=""))
    net.forward()
    net.after_forward(lambda _index: None)
    with pytest.raises(LayerError, match=r"layers run one by one.*filtered-batch"):
        net.forward()
