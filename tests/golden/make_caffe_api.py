"""Makes tests/golden/caffe/api.npz with real pycaffe: images, Transformer, nets, NetSpec.

    python3.9 tests/golden/make_caffe_api.py

See facts on oracles for the environment. scikit-image must not smooth, as the releases of
Caffe's time did not: ``resize`` is called with anti_aliasing off.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

os.environ.setdefault("GLOG_minloglevel", "2")

import caffe
import numpy as np

PLACE = Path(__file__).parent / "caffe"
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


if __name__ == "__main__":
    images()
    np.savez_compressed(PLACE / "api.npz", **FOUND)
    print(f"{len(FOUND)} arrays")
