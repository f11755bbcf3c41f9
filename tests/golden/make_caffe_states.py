"""Make the golden solver states: Caffe's own in both formats, and what Caffe makes of kdnet's.

First without --ours; then ``tests/solver_runs.py FOLDER`` writes kdnet's snapshots, and --ours
FOLDER lets Caffe go on from them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("GLOG_minloglevel", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import caffe
import h5py
import numpy as np
from make_caffe_layers import HERE, apart
from make_caffe_solvers import inside_new_folder, make_data, params_of, start

SNAPSHOT, LAST = 3, 6
COMMON = (
    'net: "net.prototxt" snapshot_prefix: "run" solver_mode: CPU lr_policy: "multistep" '
    "gamma: 0.5 stepvalue: 2 stepvalue: 4 weight_decay: 0.02 max_iter: 6"
)
SOLVERS = {
    "SGD": "base_lr: 0.1 momentum: 0.9",
    "Nesterov": "base_lr: 0.1 momentum: 0.9",
    "AdaGrad": "base_lr: 0.1 delta: 1e-4",
    "RMSProp": "base_lr: 0.02 rms_decay: 0.9 delta: 1e-4",
    "AdaDelta": "base_lr: 1 momentum: 0.9 delta: 1e-4",
    "Adam": "base_lr: 0.02 momentum: 0.9",
}
ENDINGS = {"BINARYPROTO": "", "HDF5": ".h5"}
# One blob of a trained layer stands still: it has history all the same.
NET = """\
layer { name: "data" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "train.txt" batch_size: 4 shape { dim: 5 } shape { } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
  param { } param { lr_mult: 0 } inner_product_param { num_output: 4 } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  param { lr_mult: 0.5 } inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
PLAIN = NET.replace(" shape { dim: 5 } shape { }", "")


def fields(solver: str) -> str:
    return f'type: "{solver}" {SOLVERS[solver]} {COMMON}'


def make_solver(solver: str, kind: str, more: str = "") -> caffe.SGDSolver:
    with h5py.File("train.h5", "w") as file:
        data = make_data()
        for name in ("data", "label"):
            file[name] = data[name]
    Path("train.txt").write_text("train.h5\n")
    Path("net.prototxt").write_text(PLAIN)
    Path("solver.prototxt").write_text(f"{fields(solver)} snapshot_format: {kind} {more}")
    return caffe.get_solver("solver.prototxt")


def theirs(case: tuple[str, str]) -> dict[str, np.ndarray]:
    """Caffe's own files at iteration 3, its diffs there, and its weights three iterations on."""
    solver, kind = case
    made = make_solver(solver, kind, "snapshot_diff: true")
    start(made.net)
    found = {f"start/{name}": value for name, value in params_of(made.net).items()}
    made.step(SNAPSHOT)
    made.snapshot()
    for part in ("caffemodel", "solverstate"):
        raw = Path(f"run_iter_{SNAPSHOT}.{part}{ENDINGS[kind]}").read_bytes()
        found[f"{solver}/{kind}/{part}"] = np.frombuffer(raw, np.uint8)
    for name, blobs in made.net.params.items():
        for i, blob in enumerate(blobs):
            found[f"{solver}/diff/{name}/{i}"] = blob.diff.copy()
    made.step(LAST - SNAPSHOT)
    after = params_of(made.net)
    return found | {f"{solver}/after/{name}": value for name, value in after.items()}


def ours(case: tuple[str, str, str]) -> dict[str, np.ndarray]:
    """Caffe's weights three iterations after kdnet's files."""
    solver, kind, folder = case
    made = make_solver(solver, kind)
    for file in Path(folder, f"{solver}_{kind}").glob(f"run_iter_{SNAPSHOT}.*"):
        shutil.copy(file, file.name)
    made.restore(f"run_iter_{SNAPSHOT}.solverstate{ENDINGS[kind]}")
    made.step(LAST - SNAPSHOT)
    after = params_of(made.net)
    return {f"{solver}/{kind}/after_ours/{name}": value for name, value in after.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "caffe/solver_states.npz")
    arguments = parser.parse_args()
    entries = {"net": np.array(NET), **make_data()}
    failed = []
    for solver in SOLVERS:
        entries[f"{solver}/fields"] = np.array(fields(solver))
        for kind in ENDINGS:
            works = [(theirs, (solver, kind))]
            if arguments.ours:
                works.append((ours, (solver, kind, str(arguments.ours.resolve()))))
            for work, case in works:
                record = apart(inside_new_folder(work), case)
                failed += [case] if record is None else []
                entries.update(record or {})
    np.savez_compressed(arguments.out, **entries)
    print(f"{len(entries)} arrays; failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
