"""Make the golden lines of debug_info: what Caffe logs of blobs, weights and gradients.

Each case trains four iterations in a process and a folder of its own; its log is kept from
"[Forward]" and "[Backward]" on, and the losses.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE / "caffe" / "debug_info.txt"
CASES = HERE / "caffe" / "debug_cases"
LINE = re.compile(r"^([IWEF])\S+ \S+ +\d+ (\S+)\] (.*)$")
KEPT = re.compile(r"\[(Forward|Backward)\]|^Iteration \d+|Testing net|net output")


def train(folder: str) -> None:
    """Train one case, as a process of its own."""
    import caffe
    import h5py
    from make_caffe_solvers import make_data, start

    os.chdir(folder)
    with h5py.File("train.h5", "w") as file:
        for name, values in make_data().items():
            file[name] = values
    Path("train.txt").write_text("train.h5\n")
    solver = caffe.get_solver("solver.prototxt")
    start(solver.net)
    solver.solve()


def lines_of(case: Path) -> list[str]:
    net, solver = case.read_text().split("# solver\n")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "net.prototxt").write_text(net)
        Path(folder, "solver.prototxt").write_text(solver)
        environment = {**os.environ, "GLOG_minloglevel": "0", "GLOG_logtostderr": "1"}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
        done = subprocess.run(
            [sys.executable, __file__, folder],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
    found = []
    for line in done.stderr.splitlines():
        matched = LINE.match(line)
        if matched and KEPT.search(matched[3]):
            text = re.sub(r" \([^()]* iter/s, [^()]* iters\)", "", matched[3])
            found.append(f"{matched[1]} {text}")
    return found


def main() -> int:
    if len(sys.argv) > 1:
        train(sys.argv[1])
        return 0
    text = ""
    for case in sorted(CASES.glob("*.prototxt")):
        text += f"## {case.stem}\n" + "\n".join(lines_of(case)) + "\n"
    OUT.write_text(text)
    print(text.count("\n"), "lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
