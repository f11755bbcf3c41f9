"""Makes tests/golden/caffe/api.npz with real pycaffe: images, Transformer, nets, NetSpec.

    python3.9 tests/golden/make_caffe_api.py

See facts on oracles for the environment. scikit-image must not smooth, as the releases of
Caffe's time did not: ``resize`` is called with anti_aliasing off.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("GLOG_minloglevel", "2")

sys.path.insert(0, str(Path(__file__).parents[1]))

import caffe
import h5py
import numpy as np
from net_specs import SPECS

PLACE = Path(__file__).resolve().parent / "caffe"
FOUND: dict[str, np.ndarray] = {}

caffe.io.resize = functools.partial(caffe.io.resize, anti_aliasing=False)


def images() -> None:
    """Resizing, cropping, and the Transformer's ways."""
    rng = np.random.default_rng(5)
    for channels in (1, 2, 3, 5):
        image = rng.random((7, 9, channels), np.float32)
        FOUND[f"image/{channels}"] = image
        for dims in ((5, 4), (11, 13), (7, 20), (1, 1)):
            for order in (0, 1):
                if order == 0 and channels in (1, 3):
                    continue
                key = f"resize/{channels}/{dims[0]}x{dims[1]}/{order}"
                FOUND[key] = caffe.io.resize_image(image, dims, order)
    FOUND["resize/grey bytes"] = caffe.io.resize_image(
        np.arange(48, dtype=np.uint8).reshape(4, 4, 3), (6, 3)
    )
    pair = rng.random((2, 8, 9, 3), np.float32)
    FOUND["pair"], FOUND["oversample"] = pair, caffe.io.oversample(pair, (5, 6))
    transformer = caffe.io.Transformer({"data": (1, 3, 6, 5)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_input_scale("data", 0.017)
    means = {"channels": np.array([104.0, 117.0, 123.0]), "plain": rng.random((3, 6, 5)) * 255}
    means["other size"] = rng.random((3, 9, 9)) * 255
    for name, mean in means.items():
        transformer.set_mean("data", mean)
        FOUND[f"mean/{name}"] = mean
        made = transformer.preprocess("data", FOUND["image/3"].copy())
        FOUND[f"preprocess/{name}"] = made
        FOUND[f"deprocess/{name}"] = transformer.deprocess("data", made)


NET = """
name: "two ways"
force_backward: {force}
layer {{
  name: "data" type: "Input" top: "data"
  input_param {{ shape {{ dim: 3 dim: 2 dim: 8 dim: 8 }} }}
}}
layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ dim: 3 }} }} }}
layer {{
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param {{ lr_mult: 1 }} param {{ lr_mult: 0 }}
  convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "xavier" }} }}
}}
layer {{
  name: "scale" type: "Scale" bottom: "conv" top: "conv"
  scale_param {{ bias_term: true filler {{ type: "gaussian" std: 1 }} }}
}}
layer {{
  name: "relu" type: "ReLU" bottom: "conv" top: "conv" relu_param {{ negative_slope: 0.1 }}
}}
layer {{
  name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }}
}}
layer {{
  name: "left" type: "InnerProduct" bottom: "pool" top: "left"
  param {{ name: "shared" }}
  inner_product_param {{ num_output: 5 bias_term: false weight_filler {{ type: "xavier" }} }}
}}
layer {{
  name: "right" type: "InnerProduct" bottom: "pool" top: "right"
  param {{ name: "shared" }}
  inner_product_param {{ num_output: 5 bias_term: false weight_filler {{ type: "xavier" }} }}
}}
layer {{ name: "bent" type: "TanH" bottom: "right" top: "right" }}
layer {{
  name: "sum" type: "Eltwise" bottom: "left" bottom: "right" top: "sum"
  eltwise_param {{ operation: SUM coeff: 1 coeff: -0.5 }}
}}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "sum" bottom: "label" top: "loss" }}
layer {{
  name: "near" type: "EuclideanLoss" bottom: "left" bottom: "right" top: "near" loss_weight: 0.3
}}
layer {{ name: "prob" type: "Softmax" bottom: "sum" top: "prob" }}
"""


def keep(key: str, net: caffe.Net) -> None:
    """Every blob that is the net's own, and every weight, with gradients."""
    for name, blob in net.blobs.items():
        if "_split_" not in name:
            FOUND[f"{key}/data/{name}"] = blob.data.copy()
            FOUND[f"{key}/diff/{name}"] = blob.diff.copy()
    for name, params in net.params.items():
        for index, param in enumerate(params):
            FOUND[f"{key}/slope/{name}/{index}"] = param.diff.copy()


def started(net: caffe.Net, start: dict[str, np.ndarray], part: str, rng: Any) -> None:
    """The same first values for every net of a name."""
    for name, params in net.params.items():
        for index, param in enumerate(params):
            key = f"{part}/start/{name}/{index}"
            start.setdefault(key, rng.normal(0, 0.5, param.data.shape).astype(np.float32))
            if name != "right":
                param.data[...] = start[key]


def whole_passes(net: caffe.Net, key: str) -> None:
    """Forward and backward, once and once more without clearing."""
    for times in ("once", "twice"):
        net.forward()
        net.backward()
        keep(f"{key}/{times}", net)
    net.clear_param_diffs()


def passes() -> None:
    """Forward and backward passes, whole and in part."""
    rng = np.random.default_rng(7)
    FOUND["net/text"] = np.array(NET)
    FOUND["net/data"] = rng.normal(size=(3, 2, 8, 8)).astype(np.float32)
    FOUND["net/slope"] = rng.normal(size=(3, 5)).astype(np.float32)
    start: dict[str, np.ndarray] = {}
    for force in ("true", "false"):
        key = f"net/{force}"
        Path("net.prototxt").write_text(NET.format(force=force))
        net = caffe.Net("net.prototxt", caffe.TRAIN)
        started(net, start, "net", rng)
        net.blobs["data"].data[...], net.blobs["label"].data[...] = FOUND["net/data"], [1, 0, 4]
        whole_passes(net, key)
        net.forward(end="bent")
        net.blobs["right"].diff[...] = FOUND["net/slope"]
        FOUND[f"{key}/part/conv"] = net.backward(start="bent", end="pool")["conv"].copy()
        FOUND[f"{key}/part/shared"] = net.params["right"][0].diff.copy()
        net.blobs["left"].data[...] = FOUND["net/slope"]
        FOUND[f"{key}/part/sum"] = net.forward(start="bent", end="sum")["sum"].copy()
        net.blobs["data"].reshape(2, 2, 8, 8)
        net.blobs["label"].reshape(2)
        net.reshape()
        found = {n: b.shape for n, b in net.blobs.items() if "_split_" not in n}
        FOUND[f"{key}/shapes"] = np.array([f"{n}: {tuple(s)}" for n, s in found.items()])
    FOUND.update(start)


SOLVED = """
name: "small"
layer {
  name: "data" type: "HDF5Data" top: "data" top: "label" include { phase: TRAIN }
  hdf5_data_param { source: "list.txt" batch_size: 4 }
}
layer {
  name: "data" type: "HDF5Data" top: "data" top: "label" include { phase: TEST }
  hdf5_data_param { source: "list.txt" batch_size: 3 }
}
layer {
  name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } }
}
layer { name: "bend" type: "Sigmoid" bottom: "hidden" top: "hidden" }
layer {
  name: "frozen" type: "InnerProduct" bottom: "hidden" top: "frozen"
  param { lr_mult: 0 } param { lr_mult: 0 }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } }
}
layer {
  name: "score" type: "InnerProduct" bottom: "frozen" top: "score"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" type: "%s" base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 2
momentum: 0.9 max_iter: 100 test_iter: 2 test_interval: 1000 test_initialization: false
snapshot_after_train: false snapshot_prefix: "small" iter_size: %d
"""


def solving() -> None:
    """Steps between looks at the train and the test net."""
    rng = np.random.default_rng(11)
    data = rng.normal(size=(24, 7)).astype(np.float32)
    label = rng.integers(0, 3, 24).astype(np.float32)
    with h5py.File("rows.h5", "w") as file:
        file["data"], file["label"] = data, label
    Path("list.txt").write_text("rows.h5\n")
    Path("net.prototxt").write_text(SOLVED)
    FOUND["solved/net"] = np.array(SOLVED)
    FOUND["solved/data"], FOUND["solved/label"] = data, label
    start: dict[str, np.ndarray] = {}
    for kind, iter_size in (("SGD", 1), ("Adam", 2)):
        key = f"solved/{kind}"
        Path("solver.prototxt").write_text(SOLVER % (kind, iter_size))
        FOUND[f"{key}/solver"] = np.array(SOLVER % (kind, iter_size))
        solver = caffe.get_solver("solver.prototxt")
        started(solver.net, start, "solved", rng)
        solve(solver, key)
    FOUND.update(start)


def solve(solver: Any, key: str) -> None:
    """Four steps with looks between, then two with changed weights."""
    FOUND[f"{key}/looked"] = solver.net.forward()["loss"].copy()
    # Caffe's test nets use the trained weights from the first test on; here that never comes.
    solver.share_weights(solver.test_nets[0])
    losses, tests = [], []
    for _ in range(4):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
        tests.append(float(solver.test_nets[0].forward()["loss"]))
    FOUND[f"{key}/losses"], FOUND[f"{key}/tests"] = np.array(losses), np.array(tests)
    FOUND[f"{key}/score"] = solver.net.blobs["score"].data.copy()
    FOUND[f"{key}/hidden"] = solver.net.blobs["hidden"].data.copy()
    solver.net.params["score"][0].data[...] *= 0.5
    solver.net.params["frozen"][0].data[...] *= -1
    solver.step(2)
    FOUND[f"{key}/after"] = solver.net.params["score"][0].data.copy()
    FOUND[f"{key}/hidden after"] = solver.net.params["hidden"][0].data.copy()


CLASSES = """
layer {
  name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 6 dim: 6 } }
}
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 5 kernel_size: 3 stride: 3 }
}
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 4 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


def classes() -> None:
    """What a Classifier says of images."""
    rng = np.random.default_rng(13)
    FOUND["classes/net"] = np.array(CLASSES)
    Path("classes.prototxt").write_text(CLASSES)
    net = caffe.Net("classes.prototxt", caffe.TEST)
    start: dict[str, np.ndarray] = {}
    started(net, start, "classes", rng)
    FOUND.update(start)
    net.save("classes.caffemodel")
    options = {"mean": np.array([0.4, 0.5, 0.6]), "raw_scale": 2, "channel_swap": (2, 1, 0)}
    made = caffe.Classifier("classes.prototxt", "classes.caffemodel", (9, 8), **options)
    pictures = [rng.random((11, 7, 3), np.float32), rng.random((5, 12, 3), np.float32)]
    FOUND["classes/0"], FOUND["classes/1"] = pictures
    FOUND["classes/ten"] = made.predict(pictures)
    FOUND["classes/middle"] = made.predict(pictures, False)


def specs() -> None:
    """What pycaffe makes of nets written in Python."""
    for name, make in SPECS.items():
        FOUND[f"spec/{name}"] = np.array(str(make(caffe)))


if __name__ == "__main__":
    images()
    specs()
    place = Path.cwd()
    for part in (passes, solving, classes):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            part()
            os.chdir(place)
    np.savez_compressed(PLACE / "api.npz", **FOUND)
    print(f"{len(FOUND)} arrays")
