"""Make the golden numbers of Caffe's WindowData: each case has one object and one background.

With one window of each kind nothing is left to chance but mirroring. It needs Pillow beside Caffe.
``build_files`` is used by the test as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
OUT = HERE / "caffe" / "windows.npz"
SIZE = 17

# Object and background: x1 y1 x2 y2 in images of 40 x 30 pixels.
PLACES = {
    "corner": ((0, 0, 9, 6), (30, 20, 39, 29)),
    "dot": ((12, 9, 12, 9), (0, 29, 0, 29)),
    "inner": ((7, 5, 30, 21), (3, 11, 19, 16)),
    "outside": ((-6, -3, 20, 12), (25, 18, 52, 40)),
    "whole": ((0, 0, 39, 29), (20, 0, 39, 29)),
}
# Fields of window_data_param and of transform_param.
SETTINGS = {
    "context": ("context_pad: 3", ""),
    "mean-file": ("context_pad: 4", 'mean_file: "mean.binaryproto"'),
    "mean-value": ("context_pad: 2", "mean_value: 104 mean_value: 117 mean_value: 123"),
    "mirror": ("context_pad: 3", 'mirror: true mean_file: "mean.binaryproto"'),
    "scale": ("context_pad: 1 scale: 0.25 cache_images: true", "mean_value: 100"),
    "square": ('crop_mode: "square"', ""),
    "square-context": ('crop_mode: "square" context_pad: 2', "mean_value: 7"),
    "warp": ("", ""),
}
CASES = [
    f"{setting}/{place}"
    for setting in SETTINGS
    for place in PLACES
    if (setting, place) != ("warp", "outside")
]


def prototxt(case: str) -> str:
    """The net of a case: one layer whose batch is a background and two objects."""
    setting, place = case.split("/")
    own, transform = SETTINGS[setting]
    return f"""layer {{ name: "data" type: "WindowData" top: "data" top: "label"
        window_data_param {{ source: "{place}.txt" batch_size: 3 fg_fraction: 0.7
            fg_threshold: 0.6 bg_threshold: 0.3 {own} }}
        transform_param {{ crop_size: {SIZE} {transform} }} }}\n"""


def build_files(folder: Path, pixels: np.ndarray, mean: np.ndarray, pb) -> None:
    """Images (2, 3, 30, 40) in the order blue, green, red, a mean image and a file a place."""
    for row, image in enumerate(pixels):
        plain = np.ascontiguousarray(image[::-1].transpose(1, 2, 0))
        Image.fromarray(plain).save(folder / f"{row}.png")
    blob = pb.BlobProto(num=1, channels=3, height=mean.shape[1], width=mean.shape[2])
    blob.data.extend(mean.ravel().tolist())
    (folder / "mean.binaryproto").write_bytes(blob.SerializeToString())
    for place, windows in PLACES.items():
        thing, background = (" ".join(map(str, corners)) for corners in windows)
        text = f"# 0\n0.png\n3\n30\n40\n2\n5 0.9 {thing}\n7 0.5 1 2 3 4\n"
        text += f"# 1\n1.png\n3\n30\n40\n1\n3 0.2 {background}\n"
        (folder / f"{place}.txt").write_text(text)


def run(case: str) -> None:
    """Run one case in the working directory and leave its tops there; a CHECK ends the process."""
    import caffe

    Path("net.prototxt").write_text(prototxt(case))
    caffe.set_random_seed(1)
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.forward()
    np.savez("tops.npz", data=net.blobs["data"].data, label=net.blobs["label"].data)


def main() -> None:
    """Write the golden file."""
    from caffe.proto import caffe_pb2

    generator = np.random.Generator(np.random.PCG64(9))
    pixels = generator.integers(0, 256, (2, 3, 30, 40), dtype=np.uint8)
    mean = generator.uniform(90, 130, (3, 24, 22)).astype(np.float32)
    golden = {"pixels": pixels, "mean": mean}
    with tempfile.TemporaryDirectory() as name:
        build_files(Path(name), pixels, mean, caffe_pb2)
        for case in CASES:
            command = [sys.executable, str(Path(__file__).resolve()), case]
            subprocess.run(command, cwd=name, check=True)
            with np.load(Path(name) / "tops.npz") as tops:
                golden[f"{case}/data"], golden[f"{case}/label"] = tops["data"], tops["label"]
    np.savez_compressed(OUT, **golden)


if __name__ == "__main__":
    os.environ.setdefault("GLOG_minloglevel", "2")
    if len(sys.argv) > 1:
        run(sys.argv[1])
    else:
        main()
