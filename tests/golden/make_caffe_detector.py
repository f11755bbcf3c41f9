"""Makes tests/golden/caffe/detector.npz with pycaffe's Detector: crops, and what a net says.

    python3.9 tests/golden/make_caffe_detector.py

pycaffe cuts images at the floats that its rounding gives, which numpy took in Caffe's time: its
module gets rounded places as integers. Nor does its load_image know the scikit-image of today.
See facts on oracles for the environment.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("GLOG_minloglevel", "2")

import caffe
import caffe.detector
import numpy as np

PLACE = Path(__file__).resolve().parent / "caffe"
WINDOWS = np.array([[2, 3, 9, 12], [0, 0, 5, 5], [8, 10, 14, 17], [4, 0, 6, 17], [0, 1, 14, 3]])
LOOK = {"mean": np.array([0.4, 0.5, 0.6]), "raw_scale": 2, "channel_swap": (2, 1, 0)}
WAYS = {
    "plain": {},
    "look": LOOK,
    "context": {"context_pad": 1},
    "both": {**LOOK, "context_pad": 2},
}


class WholePlaces:
    """numpy, but for places of pixels."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def round(values: np.ndarray) -> np.ndarray:
        """Rounded to integers."""
        return np.round(values).astype(int)

    @staticmethod
    def clip(values: np.ndarray, low: float, high: Any) -> np.ndarray:
        """Clipped, as integers."""
        return np.clip(values, low, high).astype(int)


def main() -> None:
    """Write everything."""
    caffe.detector.np = WholePlaces()
    caffe.io.resize = functools.partial(caffe.io.resize, anti_aliasing=False)
    known = np.load(PLACE / "api.npz")
    image = np.random.default_rng(17).integers(0, 256, (14, 17, 3), np.uint8)
    found = {"image": image, "windows": WINDOWS}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("net.prototxt").write_text(str(known["classes/net"]))
        net = caffe.Net("net.prototxt", caffe.TEST)
        for name, blobs in net.params.items():
            for index in range(len(blobs)):
                blobs[index].data[...] = known[f"classes/start/{name}/{index}"]
        net.save("net.caffemodel")
        loaded = (image / 255.0).astype(np.float32)
        caffe.io.load_image = lambda _name: loaded
        for way, options in WAYS.items():
            made = caffe.Detector("net.prototxt", "net.caffemodel", **options)
            for index, window in enumerate(WINDOWS):
                found[f"{way}/crop/{index}"] = made.crop(loaded, window)
            told = made.detect_windows([("image.png", WINDOWS)])
            found[f"{way}/predictions"] = np.array([one["prediction"] for one in told])
        os.chdir(PLACE)
    np.savez_compressed(PLACE / "detector.npz", **found)


if __name__ == "__main__":
    main()
