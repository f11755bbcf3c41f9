"""Make caffe/training.log with Caffe itself; README.md says how to set its environment up.

A run of random numbers, a restart from its first snapshot in the same log file, and two test nets.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: [8, 4] } shape { dim: 8 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""
SOLVER = """
train_net: "net.prototxt" test_net: "net.prototxt" test_net: "net.prototxt"
test_iter: 2 test_iter: 3 test_interval: 4 display: 2 max_iter: 8 snapshot: 4
base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 4 snapshot_prefix: "run" random_seed: 3
"""


def train(snapshot):
    import caffe

    solver = caffe.SGDSolver("solver.prototxt")
    if snapshot:
        solver.restore(snapshot)
    solver.solve()


def main():
    quiet = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "net.prototxt").write_text(NET)
        Path(folder, "solver.prototxt").write_text(SOLVER)
        with (HERE / "caffe" / "training.log").open("wb") as log:
            for snapshot in ("", "run_iter_4.solverstate"):
                command = [sys.executable, str(Path(__file__).resolve()), "run", snapshot]
                subprocess.run(command, check=True, env=quiet, cwd=folder, stderr=log)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        train(sys.argv[2])
    else:
        main()
