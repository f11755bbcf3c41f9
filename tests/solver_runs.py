"""One small run for every solver type that Caffe has, which kdnet and Caffe both do.

``python tests/solver_runs.py FOLDER`` writes kdnet's snapshots at iteration 3 for
``tests/golden/make_caffe_states.py`` to go on from.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
from small_nets import Ended, ok

from kdnet.weights import LayerBlobs, write_caffemodel

GOLDEN = Path(__file__).parent / "golden" / "caffe" / "solver_states.npz"
ENDINGS = {"BINARYPROTO": "", "HDF5": ".h5"}
SNAPSHOT, LAST = 3, 6


def golden() -> dict[str, np.ndarray]:
    """What real Caffe read, did and wrote."""
    with np.load(GOLDEN) as file:
        return {name: file[name] for name in file.files}


def types(arrays: dict[str, np.ndarray]) -> list[str]:
    """The solver types."""
    return sorted({name.split("/")[0] for name in arrays if name.endswith("/fields")})


def write_run(folder: Path, arrays: dict[str, np.ndarray], solver: str, kind: str) -> None:
    """The net, the data, the first weights and the solver file of a run."""
    with h5py.File(folder / "train.h5", "w") as file:
        for name in ("data", "label"):
            file[name] = arrays[name]
    (folder / "train.txt").write_text(str(folder / "train.h5") + "\n")
    (folder / "net.prototxt").write_text(str(arrays["net"]))
    text = f"{arrays[f'{solver}/fields']} snapshot_format: {kind}\n"
    (folder / "solver.prototxt").write_text(text)
    layers = [
        LayerBlobs(name, "InnerProduct", tuple(arrays[f"start/{name}/{i}"] for i in range(2)))
        for name in ("ip1", "ip2")
    ]
    write_caffemodel(folder / "start.caffemodel", layers)


def train(folder: Path, last: int, *more: object) -> Ended:
    """Train in a folder that is the working directory."""
    return ok("train", folder / "solver.prototxt", "--device", "cpu", "--max-iter", last, *more)


def main(folder: Path) -> None:
    """Write every snapshot below a folder: ``<solver>_<format>/run_iter_3.*``."""
    import os

    arrays = golden()
    for solver in types(arrays):
        for kind in ENDINGS:
            place = folder / f"{solver}_{kind}"
            place.mkdir(parents=True)
            write_run(place, arrays, solver, kind)
            os.chdir(place)
            train(place, SNAPSHOT, "--weights", "start.caffemodel")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
