"""Make the golden numbers of whole nets: LeNet, distillation from stock layers, saved files.

Each of the three runs in a process and a folder of its own.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from pathlib import Path

os.environ.setdefault("GLOG_minloglevel", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import caffe
import h5py
import numpy as np
from caffe.proto import caffe_pb2
from make_caffe_layers import HERE, apart, generator
from make_caffe_solvers import inside_new_folder, params_of

# Of the seeds 1 to 24 the one whose twenty steps stay furthest from ReLU's kink: in float64 no
# unit comes nearer than 4e-6. Where one does (20: 2e-7), two correct programs may round it to two
# sides, and their losses part by 1e-5 a few iterations later.
LENET_SEED = 12
LENET_ITERATIONS = 20
LENET_BATCH = 64
TINY_BATCH = 16
TINY_SNAPSHOT = 3
TINY_ITERATIONS = 6

LENET = """\
name: "{name}"
layer {{
  name: "mnist" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param {{ source: "train.txt" batch_size: {batch} }}
}}
layer {{
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param {{ lr_mult: 1 }} param {{ lr_mult: 2 }}
  convolution_param {{ num_output: {conv1} kernel_size: 5 stride: 1 }}
}}
layer {{
  name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }}
}}
layer {{
  name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  param {{ lr_mult: 1 }} param {{ lr_mult: 2 }}
  convolution_param {{ num_output: {conv2} kernel_size: 5 stride: 1 }}
}}
layer {{
  name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2"
  pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }}
}}
layer {{
  name: "ip1" type: "InnerProduct" bottom: "pool2" top: "ip1"
  param {{ lr_mult: 1 }} param {{ lr_mult: 2 }}
  inner_product_param {{ num_output: {ip1} }}
}}
layer {{ name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{
  name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  param {{ lr_mult: 1 }} param {{ lr_mult: 2 }}
  inner_product_param {{ num_output: 10 }}
}}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""
LENET_SOLVER = """\
net: "net.prototxt"
base_lr: 0.01
momentum: 0.9
weight_decay: 0.0005
lr_policy: "inv"
gamma: 0.0001
power: 0.75
max_iter: 10000
solver_mode: CPU
"""
TINY_SOLVER = """\
net: "net.prototxt"
base_lr: 0.02
momentum: 0.9
weight_decay: 0.0005
lr_policy: "multistep"
gamma: 0.5
stepvalue: 2
stepvalue: 5
max_iter: 10
snapshot_prefix: "lenet_tiny"
snapshot_format: {format}
solver_mode: CPU
"""
LOGITS = """\
layer { name: "student" type: "Parameter" top: "student"
        parameter_param { shape { dim: 6 dim: 10 } } }
layer { name: "teacher" type: "Input" top: "teacher" input_param { shape { dim: 6 dim: 10 } } }
"""
SOFT_TARGETS = """\
layer {{ name: "student_cool" type: "Power" bottom: "student" top: "student_cool"
        power_param {{ scale: {inverse} }} }}
layer {{ name: "student_prob" type: "Softmax" bottom: "student_cool" top: "student_prob" }}
layer {{ name: "student_log" type: "Log" bottom: "student_prob" top: "student_log" }}
layer {{ name: "teacher_cool" type: "Power" bottom: "teacher" top: "teacher_cool"
        power_param {{ scale: {inverse} }} }}
layer {{ name: "teacher_prob" type: "Softmax" bottom: "teacher_cool" top: "teacher_prob" }}
layer {{ name: "product" type: "Eltwise" bottom: "teacher_prob" bottom: "student_log"
        top: "product" eltwise_param {{ operation: PROD }} }}
layer {{ name: "mean_over_batch" type: "Power" bottom: "product" top: "scaled"
        power_param {{ scale: {minus_one_over_n} }} }}
layer {{ name: "cross_entropy" type: "Reduction" bottom: "scaled" top: "cross_entropy"
        reduction_param {{ operation: SUM }} loss_weight: {squared} }}
"""
JOINED = """\
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 6 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "student" bottom: "label" top: "loss"
        loss_weight: 0.9 }
layer { name: "student_prob" type: "Softmax" bottom: "student" top: "student_prob" }
layer { name: "teacher_prob" type: "Softmax" bottom: "teacher" top: "teacher_prob" }
layer { name: "ts_loss" type: "SigmoidCrossEntropyLoss" bottom: "student_prob"
        bottom: "teacher_prob" top: "ts_loss" loss_weight: 0.1 }
"""


def read_idx(path: Path, head: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=head)


def fashion(folder: Path | None, stored: Path) -> dict[str, np.ndarray]:
    """The first training images and labels, uint8; without the folder, as stored before."""
    if folder is None:
        with np.load(stored) as file:
            return {name: file[name] for name in ("images", "labels")}
    count = LENET_ITERATIONS * LENET_BATCH
    pixels = read_idx(folder / "train-images-idx3-ubyte.gz", 16)[: count * 784]
    labels = read_idx(folder / "train-labels-idx1-ubyte.gz", 8)[:count]
    return {"images": pixels.reshape(count, 28, 28), "labels": labels}


def write_data(images: np.ndarray, labels: np.ndarray) -> None:
    with h5py.File("train.h5", "w") as file:
        file["data"] = images[:, None].astype(np.float32) / 256
        file["label"] = labels.astype(np.float32)
    Path("train.txt").write_text("train.h5\n")


def start(net: caffe.Net) -> dict[str, np.ndarray]:
    """Xavier weights and zero biases; README.md tells the recipe, tests follow it."""
    rng = np.random.Generator(np.random.PCG64(LENET_SEED))
    for weight, bias in net.params.values():
        shape = tuple(weight.shape)
        bound = np.sqrt(3 / np.prod(shape[1:]))
        weight.data[...] = ((2 * rng.random(shape) - 1) * bound).astype(np.float32)
        bias.data[...] = 0
    return {
        f"start/{name}": blobs[0].data.ravel()[:4].copy() for name, blobs in net.params.items()
    }


def step(solver: caffe.SGDSolver, iterations: int) -> np.ndarray:
    losses = []
    for _ in range(iterations):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    return np.array(losses, np.float32)


def lenet(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    write_data(data["images"], data["labels"])
    net = LENET.format(name="LeNet", batch=LENET_BATCH, conv1=20, conv2=50, ip1=500)
    Path("net.prototxt").write_text(net)
    Path("solver.prototxt").write_text(LENET_SOLVER)
    solver = caffe.get_solver("solver.prototxt")
    record = {"net": np.array(net), "solver": np.array(LENET_SOLVER), **data}
    record.update(start(solver.net))
    record["seed"] = np.array(LENET_SEED)
    record["loss"] = step(solver, LENET_ITERATIONS)
    for name, values in params_of(solver.net).items():
        record[f"norm/{name}"] = np.array(np.linalg.norm(values.astype(np.float64)))
    return record


def gradient(text: str, blobs: dict[str, np.ndarray]) -> tuple[caffe.Net, float, np.ndarray]:
    """The net after one pass, its objective and the gradient of the student's logits."""
    Path("net.prototxt").write_text(text)
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.params["student"][0].data[...] = blobs["student"]
    for name in blobs.keys() - {"student"}:
        net.blobs[name].data[...] = blobs[name]
    objective = net._forward(0, len(net.layers) - 1)
    net.backward()
    return net, objective, net.params["student"][0].diff.copy()


def distillation(_: None) -> dict[str, np.ndarray]:
    rng = generator("distillation")
    blobs = {
        "student": rng.integers(-96, 97, size=(6, 10)).astype(np.float32) / 32,
        "teacher": rng.integers(-256, 257, size=(6, 10)).astype(np.float32) / 32,
    }
    labels = {"label": rng.integers(10, size=6).astype(np.float32)}
    record = {**blobs, **labels}
    for t in (1, 4, 20):
        text = LOGITS + SOFT_TARGETS.format(
            inverse=1 / t, minus_one_over_n=repr(-1 / 6), squared=t * t
        )
        net, objective, diff = gradient(text, blobs)
        record[f"t{t}/net"] = np.array(text)
        record[f"t{t}/cross_entropy"] = net.blobs["cross_entropy"].data.copy()
        record[f"t{t}/objective"] = np.float32(objective)
        record[f"t{t}/student_diff"] = diff
    uniform = {"student": np.zeros_like(blobs["student"])}
    for case, change in (("joined", {}), ("joined_uniform", uniform)):
        net, objective, diff = gradient(LOGITS + JOINED, {**blobs, **labels, **change})
        record[f"{case}/net"] = np.array(LOGITS + JOINED)
        record[f"{case}/loss"] = net.blobs["loss"].data.copy()
        record[f"{case}/ts_loss"] = net.blobs["ts_loss"].data.copy()
        record[f"{case}/objective"] = np.float32(objective)
        record[f"{case}/student_diff"] = diff
    return record


def saved_history(path: Path) -> dict[str, np.ndarray]:
    state = caffe_pb2.SolverState()
    state.ParseFromString(path.read_bytes())
    history = {
        f"history/{i}": np.array(blob.data, np.float32).reshape(blob.shape.dim)
        for i, blob in enumerate(state.history)
    }
    return {"iter": np.array(state.iter), "current_step": np.array(state.current_step), **history}


def saved_files(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A snapshot in both formats, and how training goes on from it on the same one batch."""
    write_data(data["images"][:TINY_BATCH], data["labels"][:TINY_BATCH])
    net = LENET.format(name="LeNetTiny", batch=TINY_BATCH, conv1=3, conv2=4, ip1=8)
    Path("net.prototxt").write_text(net)
    record = {"net": np.array(net)}
    for format_ in ("BINARYPROTO", "HDF5"):
        text = TINY_SOLVER.format(format=format_)
        Path("solver.prototxt").write_text(text)
        solver = caffe.get_solver("solver.prototxt")
        start(solver.net)
        record[f"solver/{format_.lower()}"] = np.array(text)
        record["loss"] = step(solver, TINY_SNAPSHOT)
        solver.snapshot()
    stem = f"lenet_tiny_iter_{TINY_SNAPSHOT}"
    record.update({f"saved/{key}": v for key, v in params_of(solver.net).items()})
    record.update(saved_history(Path(f"{stem}.solverstate")))
    record["loss_after"] = step(solver, TINY_ITERATIONS - TINY_SNAPSHOT)
    record.update({f"after/{key}": v for key, v in params_of(solver.net).items()})
    for path in sorted(Path().glob(f"{stem}.*")):
        record[f"file/{path.name}"] = np.frombuffer(path.read_bytes(), np.uint8)
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fashion-mnist", type=Path, help="folder of the four .gz files")
    parser.add_argument("--out", type=Path, default=HERE / "caffe")
    arguments = parser.parse_args()
    out: Path = arguments.out
    stored = HERE / "caffe/lenet_fashion.npz"
    data = fashion(arguments.fashion_mnist, stored)
    jobs = {
        "lenet_fashion": (lenet, data),
        "kd": (distillation, None),
        "files": (saved_files, data),
    }
    records = {name: apart(inside_new_folder(work), given) for name, (work, given) in jobs.items()}
    failed = [name for name, record in records.items() if record is None]
    if failed:
        print(f"failed: {failed}")
        return 1
    for name in ("lenet_fashion", "kd"):
        np.savez_compressed(out / f"{name}.npz", **records[name])
    expected = {k: v for k, v in records["files"].items() if not k.startswith("file/")}
    np.savez_compressed(out / "files/expected.npz", **expected)
    for key in records["files"].keys() - expected.keys():
        (out / "files" / Path(key).name).write_bytes(records["files"][key].tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
