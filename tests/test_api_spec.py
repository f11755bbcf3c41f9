"""Nets written in Python: what pycaffe makes of them, and what is told of wrong names."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from net_specs import SPECS

import kdnet
from kdnet import layers as L  # noqa: N812  # pycaffe's name
from kdnet import params as P  # noqa: N812  # pycaffe's name
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

GOLDEN = np.load(Path(__file__).parent / "golden" / "caffe" / "api.npz")


def _read(text):
    return read_text(text, "net.prototxt", pb.NetParameter).message


@pytest.mark.parametrize("name", SPECS)
def test_net_is_pycaffes(name):
    assert SPECS[name](kdnet) == _read(str(GOLDEN[f"spec/{name}"]))


@pytest.mark.parametrize("name", SPECS)
def test_text_reads_back_as_the_same_net(name):
    net = SPECS[name](kdnet)
    assert _read(str(net)) == net


def test_text_with_quotes_and_letters_of_any_alphabet_reads_back():
    n = kdnet.NetSpec()
    n.data = L.HDF5Data(source='wege/"größe"\n漢字.txt', batch_size=2)
    net = n.to_proto()
    assert _read(str(net)) == net


def test_every_layer_type_has_a_function_with_its_documentation():
    for name in kdnet.layer_type_list():
        function = getattr(L, name)
        assert function.__name__ == name
        assert "Source:" in function.__doc__


def test_distillation_losses_are_layers_as_any():
    n = kdnet.NetSpec()
    n.student = L.Input(shape={"dim": [2, 5]})
    n.teacher = L.Input(shape={"dim": [2, 5]})
    n.loss = L.DIST(n.student, n.teacher, loss_weight=2, beta=0.5)
    (found,) = kdnet.Net(n).forward().values()
    assert found.shape == ()


def test_own_parameters_win_over_the_layers_only_where_both_have_the_name():
    layer = L.Deconvolution(L.Input(shape={"dim": [1]}), num_output=3, name="up").to_proto().layer
    assert layer[1].convolution_param.num_output == 3
    assert layer[1].name == "up"


def test_values_may_be_names_messages_and_numpys():
    x = L.Input(shape={"dim": np.array([1, 2, 4, 4])})
    filler = pb.FillerParameter(type="msra")
    conv = L.Convolution(
        x, num_output=np.int64(4), kernel_size=(3, 3), weight_filler=filler, engine="CAFFE"
    )
    param = L.Pooling(conv, pool="AVE").to_proto().layer[1].convolution_param
    assert list(param.kernel_size) == [3, 3]
    assert param.weight_filler.type == "msra"
    assert param.engine == P.Convolution.CAFFE


def test_deep_nets_do_not_meet_the_recursion_limit():
    x = L.Input(shape={"dim": [1, 2]})
    for _ in range(3000):
        x = L.ReLU(x)
    assert len(x.to_proto().layer) == 3001


def test_specs_can_be_copied():
    n = kdnet.NetSpec()
    n.data = L.Input(shape={"dim": [1, 2]})
    copied = copy.deepcopy(n)
    copied.relu = L.ReLU(copied.data)
    assert len(n.to_proto().layer) == 1
    assert len(copied.to_proto().layer) == 2
    assert copy.copy(n).to_proto() == n.to_proto()


def _net():
    n = kdnet.NetSpec()
    n.data, n.label = L.Data(ntop=2)
    return n


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: L.Convolutoin, AttributeError, 'no layer type "Convolutoin"; did you mean "Con'),
        (lambda: P.Poling, AttributeError, 'no message "PolingParameter"; did you mean "Pooling"'),
        (lambda: P.Pooling.MX, AttributeError, 'no value "MX"; did you mean "MAX"'),
        (lambda: _net().dta, AttributeError, 'no top "dta" yet; did you mean "data"'),
        (lambda: _net()["dta"], KeyError, "did you mean"),
        (lambda: L.Pooling(kernal_size=2), TypeError, 'did you mean "kernel_size"'),
        (lambda: L.ReLU(inplace=True), TypeError, 'did you mean "in_place"'),
        (lambda: L.ReLU(lossweight=1), TypeError, 'did you mean "loss_weight"'),
        (lambda: L.Pooling(pool="MIX"), ValueError, 'no value "MIX"; did you mean "MAX"'),
        (lambda: L.Pooling(stride="two"), TypeError, "L.Pooling, stride:"),
        (lambda: L.Pooling(stride=-1), ValueError, "L.Pooling, stride:"),
        (lambda: L.Pooling(stride=[1, 2]), TypeError, "takes one value, not 2"),
        (lambda: L.Convolution(weight_filler="xavier"), TypeError, "takes a dict"),
        (lambda: L.Convolution(weight_filler={"typ": "x"}), TypeError, 'did you mean "type"'),
        (lambda: L.Convolution(weight_filler=pb.Datum()), TypeError, "a Datum is given"),
        (lambda: L.ReLU(L.Data(ntop=2)), TypeError, "bottom 0 is a tuple, no top; name one"),
        (lambda: L.ReLU("data"), TypeError, "bottom 0 is a str, no top"),
        (lambda: setattr(_net(), "x", L.Data(ntop=2)), TypeError, "2 tops; assign each"),
        (lambda: setattr(_net(), "x", 3), TypeError, '"x" must be a top, not int'),
    ],
)
def test_wrong_names_are_told_where_they_stand(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def test_faults_of_a_net_without_a_file_point_at_its_text():
    n = kdnet.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 8, 8]})
    n.conv = L.Convolution(n.data, kernel_size=3)
    with pytest.raises(kdnet.errors.LayerError, match=r"<net>:\d+:\d+: error") as caught:
        kdnet.Net(n)
    assert "num_output" in str(caught.value)
