"""Make the golden numbers of Caffe's crops from images of several sizes, in the TEST phase.

It needs lmdb and Pillow beside Caffe. ``build_files`` is used by the test as well.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image

HERE = Path(__file__).parent
OUT = HERE / "caffe" / "sizes.npz"
BATCHES = 4
# Rooms of 0 and of odd and even extents; the first image is as large as the crop.
SIZES = ((7, 7), (11, 10), (8, 13), (7, 9), (16, 12), (10, 10))

# Files of build_files: databases raw, floats and png; list.txt.
CASES = {
    "floats": """type: "Data" data_param { source: "floats" batch_size: 4 backend: LMDB }
        transform_param { scale: 0.5 mean_value: 3 crop_size: 7 }""",
    "images": """type: "ImageData" image_data_param { source: "list.txt" batch_size: 4 }
        transform_param { mean_value: 104 mean_value: 117 mean_value: 123 crop_size: 7 }""",
    "images-gray": """type: "ImageData" image_data_param { source: "list.txt" batch_size: 3
        is_color: false } transform_param { scale: 0.017 crop_size: 6 }""",
    "png": """type: "Data" data_param { source: "png" batch_size: 4 backend: LMDB }
        transform_param { scale: 0.3 mean_value: 10.5 mean_value: 20 mean_value: 30 crop_size: 7 }
        """,
    "png-gray": """type: "Data" data_param { source: "png" batch_size: 5 backend: LMDB }
        transform_param { force_gray: true crop_size: 5 }""",
    "raw": """type: "Data" data_param { source: "raw" batch_size: 4 backend: LMDB }
        transform_param { crop_size: 7 }""",
}


def prototxt(case: str) -> str:
    """The net of a case: one data layer with two tops."""
    return f'layer {{ name: "data" top: "top0" top: "top1" {CASES[case]} }}\n'


def images_of(pixels: np.ndarray) -> list[np.ndarray]:
    """The images (3, H, W), blue, green, red, that lie one after the other in ``pixels``."""
    ends = np.cumsum([3 * height * width for height, width in SIZES])
    parts = np.split(pixels, ends[:-1])
    return [part.reshape(3, *SIZES[row]) for row, part in enumerate(parts)]


def build_files(folder: Path, pixels: np.ndarray, labels: np.ndarray, pb) -> None:
    """Every file that the cases name."""
    records = {"raw": [], "floats": [], "png": []}
    lines = []
    for row, image in enumerate(images_of(pixels)):
        label = int(labels[row])
        channels, height, width = image.shape
        shape = {"channels": channels, "height": height, "width": width, "label": label}
        records["raw"].append(pb.Datum(data=image.tobytes(), **shape))
        records["floats"].append(pb.Datum(float_data=(image.ravel() / 3.0).tolist(), **shape))
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image[::-1].transpose(1, 2, 0))).save(file, "PNG")
        (folder / f"{row}.png").write_bytes(file.getvalue())
        records["png"].append(pb.Datum(data=file.getvalue(), label=label, encoded=True))
        lines.append(f"{row}.png {label}\n")
    for name, made in records.items():
        environment = lmdb.open(str(folder / name), map_size=2**24)
        with environment, environment.begin(write=True) as transaction:
            for row, record in enumerate(made):
                transaction.put(b"%08d" % row, record.SerializeToString())
    (folder / "list.txt").write_text("".join(lines))


def run(case: str) -> None:
    """Run one case in the working directory and leave its tops there; a CHECK ends the process."""
    import caffe

    Path("net.prototxt").write_text(prototxt(case))
    net = caffe.Net("net.prototxt", caffe.TEST)
    tops = []
    for _ in range(BATCHES):
        net.forward()
        tops.append([net.blobs[name].data.copy() for name in ("top0", "top1")])
    np.savez("tops.npz", *[np.stack([pair[top] for pair in tops]) for top in (0, 1)])


def main() -> None:
    """Write the golden file."""
    from caffe.proto import caffe_pb2

    generator = np.random.Generator(np.random.PCG64(9))
    pixels = generator.integers(0, 256, sum(3 * h * w for h, w in SIZES), dtype=np.uint8)
    labels = np.array([4, 0, 9, 2, 130, 70000])
    golden = {"pixels": pixels, "labels": labels}
    with tempfile.TemporaryDirectory() as name:
        build_files(Path(name), pixels, labels, caffe_pb2)
        for case in CASES:
            command = [sys.executable, str(Path(__file__).resolve()), case]
            subprocess.run(command, cwd=name, check=True)
            with np.load(Path(name) / "tops.npz") as tops:
                golden[f"{case}/top0"], golden[f"{case}/top1"] = tops["arr_0"], tops["arr_1"]
    np.savez_compressed(OUT, **golden)


if __name__ == "__main__":
    os.environ.setdefault("GLOG_minloglevel", "2")
    if len(sys.argv) > 1:
        run(sys.argv[1])
    else:
        main()
