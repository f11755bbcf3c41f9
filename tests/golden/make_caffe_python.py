"""Makes tests/golden/caffe/python_layers.npz with real Caffe: two nets with Python layers.

    python3.9 tests/golden/make_caffe_python.py

The layers of the second net have weights of their own, whose first values are those of their
setup. See facts on oracles for the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("GLOG_minloglevel", "2")

import caffe
import numpy as np

PLACE = Path(__file__).resolve().parent / "caffe"
STEPS = 6
# By the prefix of what is kept: the solver, and the losses to keep.
NETS = {
    "": ("solver.prototxt", ("loss", "hinge")),
    "weights/": ("weights_solver.prototxt", ("loss",)),
}


def weights_of(net: Any) -> Iterator[tuple[str, str, Any]]:
    """The name, the layer's type and the blob of each weight."""
    for name, layer in zip(net._layer_names, net.layers):  # noqa: B905  # Python 3.9 knows no strict
        for index in range(len(layer.blobs)):
            yield f"{name}/{index}", layer.type, layer.blobs[index]


def trained(prefix: str, path: str, losses: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Train from random weights; these, the losses and the last weights."""
    solver = caffe.get_solver(path)
    stream = np.random.Generator(np.random.PCG64(5))
    kept = {prefix + top: np.zeros(STEPS, np.float32) for top in losses}
    for name, kind, blob in weights_of(solver.net):
        if kind != "Python":
            blob.data[...] = stream.standard_normal(blob.data.shape) / 4
        kept[f"{prefix}first/{name}"] = blob.data.copy()
    for step in range(STEPS):
        solver.step(1)
        for top in losses:
            kept[prefix + top][step] = solver.net.blobs[top].data.sum()
    for name, _, blob in weights_of(solver.net):
        kept[f"{prefix}last/{name}"] = blob.data.copy()
    return kept


def main() -> None:
    """Train both nets."""
    sys.path.insert(0, str(PLACE / "python_layers"))
    os.chdir(PLACE / "python_layers")
    caffe.set_mode_cpu()
    kept = {}
    for prefix, (path, losses) in NETS.items():
        kept.update(trained(prefix, path, losses))
    np.savez(PLACE / "python_layers.npz", **kept)


if __name__ == "__main__":
    main()
