"""Real Caffe models in kdnet and in OpenCV's importer, from each weight format that kdnet writes.

    pip install 'opencv-python-headless<5'
    python bench/opencv.py MODEL.prototxt MODEL.caffemodel [MODEL.prototxt MODEL.caffemodel ...]

The input is normal with deviation 1. Printed is the largest difference of any output, as a share
of the output's largest value. OpenCV's Winograd convolutions, which are less exact, are off.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from kdnet.compile import Evaluation, compile_evaluation
from kdnet.net import NetState, resolve_net
from kdnet.runtime import Device, Engine, StateBuffers
from kdnet.runtime.loading import initial_values
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_net
from kdnet.weights import format_names, read_weights, write_weights

Arrays = dict[str, np.ndarray[Any, Any]]


def copies(model: str, folder: str) -> Iterator[tuple[str, str]]:
    """The model itself, then one copy in each format."""
    yield "as it is", model
    found = read_weights(model)
    for name in format_names(writable=True):
        path = str(Path(folder) / f"copy.{name}")
        write_weights(path, found.layers, format=name, net_name=found.net_name)
        yield name, path


def outputs_of(evaluation: Evaluation, weights: str, feeds: Arrays) -> Arrays:
    """What kdnet makes of the inputs, by blob."""
    values, _ = initial_values(evaluation.weights, [read_weights(weights)], seed=0)
    device = Device("cpu")
    engine = Engine(evaluation.program, device, values)
    seen = engine.run(StateBuffers(device, {}), feeds, keep=False)
    return {report.blob: seen[report.output] for report in evaluation.program.reports}


def opencvs(proto: str, model: str, feeds: Arrays, makers: dict[str, str]) -> Arrays:
    """What OpenCV makes of them; it knows outputs by the layers that make them."""
    net = cv2.dnn.readNetFromCaffe(proto, model)
    net.enableFusion(fusion=False)
    net.enableWinograd(useWinograd=False)
    for name, array in feeds.items():
        net.setInput(array, name)
    return {blob: net.forward(layer) for blob, layer in makers.items()}


def compare(proto: str, model: str) -> None:
    """Print one line a format."""
    located = read_net(proto)
    net = resolve_net(located.message, located.source, NetState(pb.TEST))
    evaluation = compile_evaluation(net)
    rng = np.random.default_rng(0)
    shapes = evaluation.program.data
    feeds = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    makers = {top: layer.name for layer in net.layers for top in layer.tops if top in net.outputs}
    wanted = opencvs(proto, model, feeds, makers)
    print(Path(model).name)
    with TemporaryDirectory() as folder:
        for name, path in copies(model, folder):
            found = outputs_of(evaluation, path, feeds)
            gaps = [np.abs(found[b] - o).max() / np.abs(o).max() for b, o in wanted.items()]
            print(f"  {name:12} {max(gaps):.1e}")


if __name__ == "__main__":
    for given in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        compare(*given)
