"""Make schema_*.caffemodel with Caffe itself; README.md says how to set its environment up.

Each net is read, upgraded, filled and saved by Caffe, so that the file holds Caffe's own upgrade
of the definition, and bytes that Caffe wrote.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def save(name):
    import caffe

    caffe.set_random_seed(1)
    net = caffe.Net(str(HERE / f"schema_{name}.prototxt"), caffe.TRAIN, stages=["a"])
    net.save(str(HERE / f"schema_{name}.caffemodel"))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        save(sys.argv[1])
    else:
        # A failed check of Caffe ends the process: each net has its own.
        quiet = {**os.environ, "GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"}
        for name in ("v0", "v1", "v2"):
            subprocess.run([sys.executable, __file__, name], check=True, env=quiet)
