"""Make the golden numbers of Caffe's data layers: what their tops hold, in the TEST phase.

It needs lmdb, h5py and Pillow beside Caffe. ``build_files`` is used by the test as well.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import lmdb
import numpy as np
from PIL import Image

HERE = Path(__file__).parent
OUT = HERE / "caffe" / "data.npz"
BATCHES = 4

# Files of build_files: databases raw, floats and png; list.txt, hdf5.txt, mean.binaryproto.
CASES = {
    "crop-mean-file": """type: "Data" data_param { source: "raw" batch_size: 4 backend: LMDB }
        transform_param { scale: 0.017 mean_file: "mean.binaryproto" crop_size: 7 }""",
    "dummy": """type: "DummyData" dummy_data_param { num: 2 num: 3 channels: 1 height: 2 width: 2
        data_filler { value: 1.5 } data_filler { value: -2 } }""",
    "floats": """type: "Data" data_param { source: "floats" batch_size: 4 backend: LMDB }
        transform_param { scale: 0.5 mean_value: 3 crop_size: 10 }""",
    "hdf5": """type: "HDF5Data" hdf5_data_param { source: "hdf5.txt" batch_size: 4 }""",
    "images": """type: "ImageData" image_data_param { source: "list.txt" batch_size: 3 }
        transform_param { mean_value: 104 mean_value: 117 mean_value: 123 }""",
    "images-grown": """type: "ImageData" image_data_param { source: "list.txt" batch_size: 3
        new_height: 19 new_width: 23 }""",
    "images-root": """type: "ImageData" image_data_param { source: "short.txt" batch_size: 5
        root_folder: "image " }""",
    "images-shrunk": """type: "ImageData" image_data_param { source: "list.txt" batch_size: 3
        new_height: 5 new_width: 7 is_color: false }""",
    "mirror": """type: "Data" data_param { source: "raw" batch_size: 7 backend: LMDB }
        transform_param { mirror: true mean_file: "mean.binaryproto" crop_size: 8 }""",
    "png": """type: "Data" data_param { source: "png" batch_size: 4 backend: LMDB }
        transform_param { scale: 0.3 mean_value: 10.5 mean_value: 20 mean_value: 30 }""",
    "png-gray": """type: "Data" data_param { source: "png" batch_size: 4 backend: LMDB }
        transform_param { force_gray: true crop_size: 9 }""",
    "raw": """type: "Data" data_param { source: "raw" batch_size: 4 backend: LMDB }""",
}


def prototxt(case: str) -> str:
    """The net of a case: one data layer with two tops."""
    return f'layer {{ name: "data" top: "top0" top: "top1" {CASES[case]} }}\n'


def build_files(folder: Path, pixels: np.ndarray, labels: np.ndarray, pb) -> None:
    """Every file that the cases name, from images (N, 3, H, W) in the order blue, green, red."""
    raw, floats, png = [], [], []
    lines = []
    for row, image in enumerate(pixels):
        label = labels[row]
        channels, height, width = image.shape
        datum = pb.Datum(channels=channels, height=height, width=width, label=int(label))
        floats.append(pb.Datum(channels=channels, height=height, width=width, label=int(label)))
        floats[-1].float_data.extend((image.ravel() / 3.0).tolist())
        datum.data = image.tobytes()
        raw.append(datum)
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image[::-1].transpose(1, 2, 0))).save(file, "PNG")
        (folder / f"image {row}.png").write_bytes(file.getvalue())
        png.append(pb.Datum(data=file.getvalue(), label=int(label), encoded=True))
        lines.append(f"image {row}.png {label}\n")
    for name, records in (("raw", raw), ("floats", floats), ("png", png)):
        environment = lmdb.open(str(folder / name), map_size=2**24)
        with environment, environment.begin(write=True) as transaction:
            for row, record in enumerate(records):
                transaction.put(b"%08d" % row, record.SerializeToString())
    (folder / "list.txt").write_text("".join(lines))
    (folder / "short.txt").write_text("".join(line[len("image ") :] for line in lines))
    mean = pb.BlobProto(num=1, channels=3, height=pixels.shape[2], width=pixels.shape[3])
    mean.data.extend(pixels.astype(np.float64).mean(axis=0).ravel().tolist())
    (folder / "mean.binaryproto").write_bytes(mean.SerializeToString())
    for name, rows in (("a.h5", slice(0, 5)), ("b.h5", slice(5, None))):
        with h5py.File(folder / name, "w") as file:
            file["top0"] = (pixels[rows] / 7.0).astype(np.float32)
            file["top1"] = labels[rows].astype(np.float32)
    (folder / "hdf5.txt").write_text("a.h5\nb.h5\n")


def run(case: str) -> None:
    """Run one case in the working directory and leave its tops there; a CHECK ends the process."""
    import caffe

    Path("net.prototxt").write_text(prototxt(case))
    caffe.set_random_seed(1)
    net = caffe.Net("net.prototxt", caffe.TEST)
    tops = []
    for _ in range(BATCHES):
        net.forward()
        tops.append([net.blobs[name].data.copy() for name in ("top0", "top1")])
    np.savez("tops.npz", *[np.stack([pair[top] for pair in tops]) for top in (0, 1)])


def main() -> None:
    """Write the golden file."""
    from caffe.proto import caffe_pb2

    generator = np.random.Generator(np.random.PCG64(8))
    pixels = generator.integers(0, 256, (7, 3, 11, 10), dtype=np.uint8)
    labels = np.array([4, 0, 9, 2, 130, 70000, 1])
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
