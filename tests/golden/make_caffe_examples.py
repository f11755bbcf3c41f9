"""Make the golden numbers of nets like those of Caffe's examples: ten iterations of each.

The nets and solvers are those of ``tests/caffe_examples``, which this edits: its data layers are
replaced by Input layers, Dropout is left out, and nothing is written or tested on the way. Start
and data follow a recipe that README.md tells.
"""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from pathlib import Path

os.environ.setdefault("GLOG_minloglevel", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import caffe
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from make_caffe_layers import HERE, apart
from make_caffe_solvers import inside_new_folder, params_of

EXAMPLES = HERE.parent / "caffe_examples"
ITERATIONS = 10
# The solver of each case, and the item shape of each top with its number of classes.
CASES = {
    "autoencoder": ("autoencoder/autoencoder", {"data": (1, 6, 6)}, 0),
    "consolidated": ("mnist/lenet_consolidated", {"data": (1, 12, 12), "label": ()}, 10),
    "nonlinear": ("hdf5/nonlinear", {"data": (4,), "label": ()}, 2),
    "siamese": ("siamese/pairs", {"pairs": (2, 8, 8), "similar": ()}, 2),
    "sigmoid": ("cifar/sigmoid", {"data": (3, 16, 16), "label": ()}, 10),
    "style": ("style/style", {"data": (3, 35, 35), "label": ()}, 5),
}


def batch_size(layer: caffe_pb2.LayerParameter) -> int:
    names = ("data_param", "hdf5_data_param", "image_data_param")
    return next(getattr(layer, name).batch_size for name in names if layer.HasField(name))


def fed(net: caffe_pb2.NetParameter, shapes: dict[str, tuple[int, ...]]) -> caffe_pb2.NetParameter:
    """The net without Dropout, and with an Input layer in place of each data layer."""
    found = caffe_pb2.NetParameter(name=net.name)
    for layer in net.layer:
        if layer.type == "Dropout":
            continue
        made = found.layer.add()
        made.CopyFrom(layer)
        if layer.bottom:
            continue
        made.Clear()
        made.MergeFrom(caffe_pb2.LayerParameter(name=layer.name, type="Input", top=layer.top))
        made.include.extend(layer.include)
        for top in layer.top:
            made.input_param.shape.add().dim.extend((batch_size(layer), *shapes[top]))
    return found


def files(case: str) -> tuple[caffe_pb2.SolverParameter, caffe_pb2.NetParameter]:
    """The solver, which trains and tests on the CPU and keeps to itself, and its net."""
    name, shapes, _ = CASES[case]
    text = (EXAMPLES / f"{name}_solver.prototxt").read_text()
    solver = text_format.Parse(text, caffe_pb2.SolverParameter())
    net = solver.net_param
    if not solver.HasField("net_param"):
        net = text_format.Parse((EXAMPLES / solver.net).read_text(), caffe_pb2.NetParameter())
    for field in ("net", "net_param", "snapshot", "display"):
        solver.ClearField(field)
    solver.snapshot_prefix, solver.solver_mode = "run", solver.CPU
    solver.test_initialization = False
    return solver, fed(net, shapes)


def drawn(case: str, what: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1) that belong to a name."""
    seed = zlib.crc32(f"{case} {what}".encode())
    return np.random.Generator(np.random.PCG64(seed)).random(shape)


def start(case: str, net: caffe.Net) -> None:
    for name, blobs in net.params.items():
        if name.endswith("_p"):
            continue
        for index, blob in enumerate(blobs):
            shape = tuple(blob.shape)
            bound = np.sqrt(3 / np.prod(shape[1:])) if index == 0 else 0.1
            blob.data[...] = (2 * drawn(case, f"{name}/{index}", shape) - 1) * bound


def feed(case: str, net: caffe.Net, batch: int) -> None:
    _, shapes, classes = CASES[case]
    for top in shapes:
        blob = net.blobs[top]
        values = drawn(case, f"{top} {batch}", tuple(blob.shape))
        blob.data[...] = np.floor(values * classes) if len(blob.shape) == 1 else values


def train(case: str) -> dict[str, np.ndarray]:
    message, net = files(case)
    record = {"net": np.array(text_format.MessageToString(net))}
    record["solver"] = np.array(text_format.MessageToString(message))
    message.net_param.CopyFrom(net)
    Path("solver.prototxt").write_text(text_format.MessageToString(message))
    solver = caffe.get_solver("solver.prototxt")
    start(case, solver.net)
    before = params_of(solver.net)
    found = {name: [] for name in solver.net.outputs}
    for iteration in range(ITERATIONS):
        feed(case, solver.net, iteration)
        solver.step(1)
        for name, values in found.items():
            values.append(float(solver.net.blobs[name].data))
    record.update({f"train/{name}": np.array(v, np.float32) for name, v in found.items()})
    for key, value in params_of(solver.net).items():
        record[f"norm/{key}"] = np.linalg.norm(value.astype(np.float64))
        record[f"moved/{key}"] = np.linalg.norm(value.astype(np.float64) - before[key])
    for index, test in enumerate(solver.test_nets):
        test.share_with(solver.net)
        feed(case, test, ITERATIONS + index)
        for name, value in test.forward().items():
            record[f"test{index}/{name}"] = np.float32(value)
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "caffe/examples.npz")
    out: Path = parser.parse_args().out
    records = {case: apart(inside_new_folder(train), case) for case in CASES}
    failed = [case for case, record in records.items() if record is None]
    if failed:
        print(f"failed: {failed}")
        return 1
    flat = {f"{case}/{key}": v for case, record in records.items() for key, v in record.items()}
    np.savez_compressed(out, **flat)
    return 0


if __name__ == "__main__":
    sys.exit(main())
