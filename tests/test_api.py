"""The package as a whole: what it offers, when, and pycaffe's ways of using it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kdnet
from kdnet.schema import kdnet_pb2 as pb


def test_importing_loads_nothing_heavy():
    heavy = "{'numpy', 'onnx', 'onnxruntime', 'google'}"
    code = f"import sys, kdnet; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("name", kdnet.__all__)
def test_every_name_is_there(name):
    assert name in dir(kdnet)
    assert getattr(kdnet, name) is not None


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="has no attribute 'Nett'"):
        kdnet.Nett  # noqa: B018  # it is what is tested


NOTEBOOK = """
import kdnet as caffe
from kdnet import layers as L, params as P
from kdnet.proto import caffe_pb2

def lenet(batch_size):
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(
        shape=[dict(dim=[batch_size, 1, 28, 28]), dict(dim=[batch_size])], ntop=2,
        data_filler=[dict(type='gaussian', std=1), dict(type='constant', value=3)])
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=4, weight_filler=dict(type='xavier'))
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.fc1 = L.InnerProduct(n.pool1, num_output=20, weight_filler=dict(type='xavier'))
    n.relu1 = L.ReLU(n.fc1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=10, weight_filler=dict(type='xavier'))
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    return n.to_proto()

for name, size in (('train', 8), ('test', 5)):
    with open('lenet_auto_%s.prototxt' % name, 'w') as f:
        f.write(str(lenet(size)))

s = caffe_pb2.SolverParameter()
s.random_seed = 0xCAFFE
s.train_net = 'lenet_auto_train.prototxt'
s.test_net.append('lenet_auto_test.prototxt')
s.test_interval = 500
s.test_iter.append(2)
s.max_iter = 10000
s.type = 'SGD'
s.base_lr = 0.01
s.momentum = 0.75
s.weight_decay = 2e-4
s.lr_policy = 'inv'
s.gamma = 0.0001
s.power = 0.75
s.display = 1000
s.snapshot = 5000
s.snapshot_prefix = 'lenet'
s.solver_mode = caffe_pb2.SolverParameter.GPU
with open('solver.prototxt', 'w') as f:
    f.write(str(s))

caffe.set_mode_cpu()
solver = None
solver = caffe.get_solver('solver.prototxt')
print([(k, v.data.shape) for k, v in solver.net.blobs.items()][2])
print([(k, v[0].data.shape) for k, v in solver.net.params.items()][0])
solver.net.forward()
print(solver.test_nets[0].forward().keys())
solver.step(1)
print(solver.net.params['conv1'][0].diff[:, 0].reshape(2, 2, 5, 5).transpose(0, 2, 1, 3).shape)

from numpy import arange, zeros
niter = 12
train_loss = zeros(niter)
for it in range(niter):
    solver.step(1)
    train_loss[it] = solver.net.blobs['loss'].data
    solver.test_nets[0].forward(start='conv1')
    output = solver.test_nets[0].blobs['score'].data[:8]
print(train_loss[0] > train_loss[-1], output.shape)
correct = sum(solver.test_nets[0].blobs['score'].data.argmax(1)
              == solver.test_nets[0].blobs['label'].data)
print(int(correct))
"""


def test_the_notebook_on_lenet_runs(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", NOTEBOOK],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "('conv1', (8, 4, 24, 24))",
        "('conv1', (4, 1, 5, 5))",
        "dict_keys(['loss'])",
        "(2, 5, 2, 5)",
        "True (5, 10)",
        "5",
    ]
    assert "Iteration 0, Testing net (#0)" in ran.stderr


FULL = """
layer {
  name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } }
}
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 2 }
}
layer {
  name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 5 }
}
"""


def test_net_surgery_as_in_the_notebook(tmp_path, monkeypatch):
    """A fully connected net becomes one of convolutions by way of ``params[...].data.flat``."""
    monkeypatch.chdir(tmp_path)
    Path("full.prototxt").write_text(FULL)
    as_conv = FULL.replace("InnerProduct", "Convolution").replace(
        "inner_product_param { num_output: 5 }",
        "convolution_param { num_output: 5 kernel_size: 3 }",
    )
    Path("conv.prototxt").write_text(as_conv.replace('"fc"', '"fc-conv"'))
    net = kdnet.Net("full.prototxt", kdnet.TEST)
    rng = np.random.default_rng(0)
    for params in net.params.values():
        for param in params:
            param.data[...] = rng.normal(size=param.data.shape)
    net.save("full.caffemodel")
    full = kdnet.Net("conv.prototxt", "full.caffemodel", kdnet.TEST)
    fc = {name: (net.params[name][0].data, net.params[name][1].data) for name in ["fc"]}
    conv = {n: (full.params[n][0].data, full.params[n][1].data) for n in ["fc-conv"]}
    conv["fc-conv"][0].flat = fc["fc"][0].flat
    conv["fc-conv"][1][...] = fc["fc"][1]
    image = rng.normal(size=(1, 2, 4, 4))
    want = net.forward(data=image)["fc"]
    found = full.forward_all(data=np.asarray([image[0]]))["fc-conv"]
    assert found.reshape(1, 5) == pytest.approx(want, rel=1e-4)
    full.blobs["data"].reshape(1, 2, 7, 9)
    assert full.forward()["fc-conv"].shape == (1, 5, 4, 6)


def test_the_guide_names_what_there_is():
    guide = (Path(kdnet.__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    for name in re.findall(r"\bkdnet\.(\w+)", guide):
        assert hasattr(kdnet, name), name
    for name in re.findall(r"\bL\.(\w+)", guide):
        assert hasattr(kdnet.layers, name), name
    for name in re.findall(r"`net\.(\w+)", guide):
        assert hasattr(kdnet.Net, name) or name in kdnet.Net.__doc__, name
    for name in re.findall(r"`solver\.(\w+)", guide):
        assert hasattr(kdnet.Solver, name) or name in kdnet.Solver.__doc__, name


def test_messages_have_pycaffes_place():
    assert kdnet.proto.caffe_pb2.NetParameter is pb.NetParameter
