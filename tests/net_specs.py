"""Nets written as pycaffe's examples write them; ``caffe`` is pycaffe or kdnet."""

from __future__ import annotations


def lenet(caffe, source, batch_size):
    """Names given by attributes, in-place layers, phases."""
    make, known = caffe.layers, caffe.params
    n = caffe.NetSpec()
    n.data, n.label = make.Data(
        batch_size=batch_size,
        backend=known.Data.LMDB,
        source=source,
        transform_param={"scale": 1.0 / 255},
        ntop=2,
    )
    n.conv1 = make.Convolution(
        n.data, kernel_size=5, num_output=20, weight_filler={"type": "xavier"}
    )
    n.pool1 = make.Pooling(n.conv1, kernel_size=2, stride=2, pool=known.Pooling.MAX)
    n.fc1 = make.InnerProduct(n.pool1, num_output=500, weight_filler={"type": "xavier"})
    n.relu1 = make.ReLU(n.fc1, in_place=True)
    n.score = make.InnerProduct(n.relu1, num_output=10, weight_filler={"type": "xavier"})
    n.loss = make.SoftmaxWithLoss(n.score, n.label)
    n.accuracy = make.Accuracy(n.score, n.label, include={"phase": caffe.TEST})
    return n.to_proto()


def _conv_relu(make, bottom, size, count, **more):
    conv = make.Convolution(bottom, kernel_size=size, num_output=count, **more)
    return conv, make.ReLU(conv, in_place=True)


def automatic_names(caffe, source):
    """Names made up, repeated params, several tops, no NetSpec."""
    make, known = caffe.layers, caffe.params
    data, label = make.Data(source=source, backend=known.Data.LMDB, batch_size=4, ntop=2)
    conv1, relu1 = _conv_relu(make, data, 11, 96, stride=4)
    pool1 = make.Pooling(relu1, pool=known.Pooling.AVE, kernel_size=3, stride=2)
    norm1 = make.LRN(pool1, local_size=5, alpha=1e-4, beta=0.75)
    _, relu2 = _conv_relu(make, norm1, [3, 5], 256, pad=[1, 2], group=2)
    first, second = make.Slice(relu2, slice_point=[128], ntop=2)
    joined = make.Concat(first, second, axis=1)
    learned = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}]
    fc = make.InnerProduct(joined, num_output=10, param=learned)
    drop = make.Dropout(make.ReLU(fc, in_place=True), in_place=True, dropout_ratio=0.5)
    loss = make.SoftmaxWithLoss(drop, label, loss_weight=0.5, loss_param={"ignore_label": 3})
    return caffe.to_proto(loss, make.Accuracy(drop, label, top_k=5), make.Power(conv1, shift=2))


def given_names(caffe):
    """Names as keywords, tops by item, lists of dicts, state rules."""
    make, known = caffe.layers, caffe.params
    n = caffe.NetSpec()
    n["data"] = make.Input(shape=[{"dim": [1, 3, 9, 9]}])
    n.hidden = make.Convolution(
        n["data"],
        name="first",
        convolution_param={"num_output": 8, "kernel_size": 3, "engine": known.Convolution.CAFFE},
        param=[{"name": "w"}],
    )
    n.flat = make.Reshape(n.hidden, shape={"dim": [0, -1]})
    n.fixed = make.DummyData(
        shape=[{"dim": [1, 8]}, {"dim": [2]}],
        data_filler={"type": "constant", "value": 0.1},
        exclude=[{"phase": caffe.TRAIN, "stage": "deploy"}],
        ntop=2,
    )[0]
    n.total = make.Eltwise(n.hidden, n.hidden, operation=known.Eltwise.SUM, coeff=[1, -1])
    n.nothing = make.Silence(n.total, n.fixed, ntop=0)
    return n.to_proto()


SPECS = {
    "lenet": lambda caffe: lenet(caffe, "train_lmdb", 64),
    "automatic": lambda caffe: automatic_names(caffe, "train_lmdb"),
    "given": given_names,
}
