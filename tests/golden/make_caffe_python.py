"""Makes tests/golden/caffe/python_layers.npz with real Caffe: a net with four Python layers.

    python3.9 tests/golden/make_caffe_python.py

See facts on oracles for the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("GLOG_minloglevel", "2")

import caffe
import numpy as np

PLACE = Path(__file__).resolve().parent / "caffe"
STEPS = 6


def main() -> None:
    """Train from random weights; keep these, the losses and the last weights."""
    sys.path.insert(0, str(PLACE / "python_layers"))
    os.chdir(PLACE / "python_layers")
    caffe.set_mode_cpu()
    solver = caffe.get_solver("solver.prototxt")
    stream = np.random.Generator(np.random.PCG64(5))
    kept = {}
    for name, blobs in solver.net.params.items():
        for index, blob in enumerate(blobs):
            blob.data[...] = stream.standard_normal(blob.data.shape) / 4
            kept[f"first/{name}/{index}"] = blob.data.copy()
    for top in ("loss", "hinge"):
        kept[top] = np.zeros(STEPS, np.float32)
    for step in range(STEPS):
        solver.step(1)
        for top in ("loss", "hinge"):
            kept[top][step] = solver.net.blobs[top].data.sum()
    for name, blobs in solver.net.params.items():
        for index, blob in enumerate(blobs):
            kept[f"last/{name}/{index}"] = blob.data.copy()
    np.savez(PLACE / "python_layers.npz", **kept)


if __name__ == "__main__":
    main()
