"""Make the golden numbers of Caffe's solvers: ten iterations of a tiny net, parameters after each.

Each case runs in a process and a folder of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GLOG_minloglevel", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import caffe
import h5py
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from make_caffe_layers import HERE, Work, apart, generator

ITERATIONS = 10
ROWS = 12
BATCH = 4

DATA = """\
layer {{
  name: "data" type: "HDF5Data" top: "data" top: "{target}"
  hdf5_data_param {{ source: "train.txt" batch_size: {batch} }}
}}
"""
INNER = """\
layer {{
  name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}"
  {params}
  inner_product_param {{ num_output: {outputs} }}
}}
"""
RELU = 'layer {{ name: "relu_{top}" type: "ReLU" bottom: "{top}" top: "{top}" }}\n'
LOSS = (
    'layer {{ name: "loss" type: "{type}" bottom: "{bottom}" bottom: "{target}" top: "loss" }}\n'
)

# Each net: the loss and, for each inner product, its number of outputs and its param fields.
NETS = {
    "plain": ("SoftmaxWithLoss", [(4, ""), (3, "")]),
    "euclidean": ("EuclideanLoss", [(4, ""), (3, "")]),
    "multipliers": (
        "SoftmaxWithLoss",
        [
            (4, "param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }"),
            (3, "param { decay_mult: 3 } param { lr_mult: 2 decay_mult: 0 }"),
        ],
    ),
    "frozen": (
        "SoftmaxWithLoss",
        [
            (4, "param { lr_mult: 0 } param { lr_mult: 0 }"),
            (3, "param { lr_mult: 1 } param { lr_mult: 0 decay_mult: 0 }"),
        ],
    ),
    "shared": (
        "SoftmaxWithLoss",
        [
            (5, 'param { name: "w" } param { name: "b" }'),
            (5, 'param { name: "w" } param { name: "b" }'),
            (3, ""),
        ],
    ),
    "shared_weight": (
        "SoftmaxWithLoss",
        [
            (5, 'param { name: "w" lr_mult: 0.5 } param { }'),
            (5, 'param { name: "w" } param { }'),
            (3, ""),
        ],
    ),
}


@dataclass(frozen=True)
class Case:
    solver: str
    id: str
    net: str
    fields: str


def read_cases(path: Path) -> list[Case]:
    cases = []
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            title, net, fields = (part.strip() for part in line.split("|"))
            cases.append(Case(*title.split("/"), net, fields))
    return cases


def net_text(kind: str) -> str:
    loss, layers = NETS[kind]
    target = "target" if loss == "EuclideanLoss" else "label"
    text = DATA.format(target=target, batch=BATCH)
    bottom = "data"
    for i, (outputs, params) in enumerate(layers, start=1):
        name = f"ip{i}"
        text += INNER.format(name=name, bottom=bottom, params=params, outputs=outputs)
        text += RELU.format(top=name) if i < len(layers) else ""
        bottom = name
    text = text.replace("  \n", "")
    return text + LOSS.format(type=loss, bottom=bottom, target=target)


def solver_text(case: Case) -> str:
    message = caffe_pb2.SolverParameter(
        net="net.prototxt", base_lr=0.1, lr_policy="fixed", max_iter=ITERATIONS
    )
    text_format.Merge(f'type: "{case.solver}" solver_mode: CPU {case.fields}', message)
    return text_format.MessageToString(message)


def make_data() -> dict[str, np.ndarray]:
    rng = generator("solvers", "data")
    return {
        "data": rng.integers(-64, 65, size=(ROWS, 5)).astype(np.float32) / 32,
        "label": rng.integers(3, size=(ROWS,)).astype(np.float32),
        "target": rng.integers(-64, 65, size=(ROWS, 3)).astype(np.float32) / 32,
    }


def write_files(case: Case) -> None:
    with h5py.File("train.h5", "w") as file:
        for name, values in make_data().items():
            file[name] = values
    Path("train.txt").write_text("train.h5\n")
    Path("net.prototxt").write_text(net_text(case.net))
    Path("solver.prototxt").write_text(solver_text(case))


def start(net: caffe.Net) -> None:
    """Initial weights depend on the blob's shape alone, so shared blobs stay equal."""
    for blobs in net.params.values():
        for blob in blobs:
            shape = tuple(blob.shape)
            rng = generator("solvers", "start", *map(str, shape))
            blob.data[...] = rng.integers(-32, 33, size=shape).astype(np.float32) / 32


def losses_of_iteration(twin: caffe.Net, net: caffe.Net, iter_size: int) -> list[float]:
    """A twin of the net at the same place in the data: the solver shows the last loss only."""
    for name, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            twin.params[name][i].data[...] = blob.data
    return [float(twin.forward()["loss"]) for _ in range(iter_size)]


def params_of(net: caffe.Net) -> dict[str, np.ndarray]:
    return {
        f"{name}/{i}": blob.data.copy()
        for name, blobs in net.params.items()
        for i, blob in enumerate(blobs)
    }


def history_of(solver: caffe.SGDSolver) -> dict[str, np.ndarray]:
    solver.snapshot()
    state = caffe_pb2.SolverState()
    (path,) = Path().glob("*.solverstate")
    state.ParseFromString(path.read_bytes())
    return {
        f"history/{i}": np.array(blob.data, np.float32).reshape(blob.shape.dim)
        for i, blob in enumerate(state.history)
    }


def train(case: Case) -> dict[str, np.ndarray]:
    write_files(case)
    solver = caffe.get_solver("solver.prototxt")
    twin = caffe.Net("net.prototxt", caffe.TRAIN)
    start(solver.net)
    message = text_format.Parse(solver_text(case), caffe_pb2.SolverParameter())
    params, rates, losses = [params_of(solver.net)], [], []
    for _ in range(ITERATIONS):
        losses.append(losses_of_iteration(twin, solver.net, message.iter_size))
        # Asking for the rate lets multistep take its next step.
        rates.append(np.nan if message.lr_policy == "multistep" else solver.lr)
        solver.step(1)
        params.append(params_of(solver.net))
    record = {
        "solver": np.array(solver_text(case)),
        "net": np.array(net_text(case.net)),
        "lr": np.array(rates, np.float32),
        "loss": np.array(losses, np.float32),
    }
    record.update({f"params/{key}": np.stack([p[key] for p in params]) for key in params[0]})
    record.update(history_of(solver))
    return record


def inside_new_folder(work: Work) -> Work:
    """The same work, done in an empty folder that is removed afterwards."""

    def moved(given: Any) -> dict[str, np.ndarray]:
        home = Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                return work(given)
            finally:
                os.chdir(home)

    return moved


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, default=HERE / "caffe/solver_cases.txt")
    parser.add_argument("--out", type=Path, default=HERE / "caffe/solvers.npz")
    arguments = parser.parse_args()
    entries = make_data()
    failed = []
    for case in read_cases(arguments.cases):
        record = apart(inside_new_folder(train), case)
        if record is None:
            failed.append(f"{case.solver}/{case.id}")
            continue
        entries.update({f"{case.solver}/{case.id}/{key}": v for key, v in record.items()})
    np.savez_compressed(arguments.out, **entries)
    print(f"{len(entries)} arrays; failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
