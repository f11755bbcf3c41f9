"""The nets of the API's tests, and pycaffe's results for one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import kdnet
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

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


def message(text):
    """A net as a message."""
    return read_text(text, "net.prototxt", pb.NetParameter).message


def two_ways(force="true"):
    """The net of pycaffe's results, with the same weights and inputs."""
    net = kdnet.Net(message(str(GOLDEN["net/text"]).format(force=force)), kdnet.TRAIN)
    for name, params in net.params.items():
        for index, param in enumerate(params):
            if name != "right":
                param.data[...] = GOLDEN[f"net/start/{name}/{index}"]
    net.blobs["data"].data[...] = GOLDEN["net/data"]
    net.blobs["label"].data[...] = [1, 0, 4]
    return net


def small(**more):
    """One affine map, a ReLU in place, and a softmax."""
    return kdnet.Net(message(SMALL), **more)
