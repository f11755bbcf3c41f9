"""Every prototxt of BVLC/caffe's ``examples/`` and ``models/``: is it read, built and stepped?

    python bench/bvlc.py FOLDER [--only TEXT] [--limit-s 1800]

FOLDER is a checkout of BVLC/caffe; data that it names are made up. Each file runs in a process of
its own, in FOLDER, since Caffe's paths start there. What a file goes through by its kind:

    all     read and upgraded; written again, it reads back as the same message
    solver  train and test nets compiled; two steps, one test batch of each test net
    net     as a solver's net, with a plain solver and every stage that the net's rules name
    deploy  TEST compiled; one forward pass

Batches are as large as the file says; after a step above ten seconds there is no second one.
Written to bench/results/bvlc.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from timing import machine

RESULTS = Path(__file__).parent / "results" / "bvlc.md"
SLOW_S = 10
PYTHON_LAYERS = "examples/pycaffe/layers"
# What only the databases know, as a user would say it with --input-shape.
SHAPES = {
    "examples/cifar10/": {"data": (3, 32, 32)},
    "examples/hdf5_classification/": {"data": (4,)},
    "examples/mnist/": {"data": (1, 28, 28)},
    "examples/siamese/mnist_siamese_": {"pair_data": (2, 28, 28)},
}
# What Caffe refuses as well, and why.
REFUSED = {
    "examples/mnist/lenet_auto_solver.prototxt": (
        "missing-net",
        "its nets are not there: a notebook, 01-learning-lenet, writes them",
    )
}


def kind_of(path: str) -> str:
    """What a file is: a solver, a net with data, or one that is fed."""
    from kdnet.runtime.plan import is_solver
    from kdnet.schema import read_net

    if is_solver(path):
        return "solver"
    fed = any(layer.type == "Input" for layer in read_net(path).message.layer)
    return "deploy" if fed else "net"


def reread(path: str, kind: str) -> tuple[str, ...]:
    """The upgrades that the file needed; it is written in today's format and read again.

    Raises:
        RuntimeError: it reads back as another message.
    """
    from kdnet.schema import kdnet_pb2 as pb
    from kdnet.schema import read_net, read_prototxt, read_solver, read_text, write_text
    from kdnet.schema.upgrades import net_upgrades, solver_upgrades

    found: Any
    if kind == "solver":
        found = read_solver(path).message
        before = read_prototxt(path, pb.SolverParameter).message
        told = solver_upgrades(before, found)
    else:
        found = read_net(path).message
        told = net_upgrades(read_prototxt(path, pb.NetParameter).message)
    if read_text(write_text(found), path, type(found)).message != found:
        raise RuntimeError(f"{path} reads back as another message")
    return told


def plain_solver(path: str, folder: str) -> str:
    """A solver file that tests the net in every stage that its rules name."""
    from kdnet.schema import kdnet_pb2 as pb
    from kdnet.schema import read_net, write_text

    layers = read_net(path).message.layer
    rules = [rule for layer in layers for rule in (*layer.include, *layer.exclude)]
    stages = sorted({stage for rule in rules for stage in rule.stage})
    solver = pb.SolverParameter(base_lr=1e-5, lr_policy="fixed", momentum=0.9, test_interval=1000)
    for stage in stages or [""]:
        solver.test_iter.append(1)
        solver.test_state.add(stage=[stage] if stage else [])
    solver.max_iter = 2
    file = Path(folder) / "solver.prototxt"
    file.write_text(write_text(solver), encoding="utf-8")
    return str(file)


def shapes_of(path: str) -> dict[str, tuple[int, ...]]:
    """The item shapes that the files of a folder do not tell."""
    return next((shapes for start, shapes in SHAPES.items() if path.startswith(start)), {})


def trained(path: str, solver: str | None, folder: str) -> str:
    """Two steps and the tests before them, and what came of it."""
    from kdnet.runtime import CaffeLog, Trainer, TrainOptions, prepare

    options = TrainOptions(
        path, solver, device="cpu", max_iter=2, out=folder, allow_unloaded=True,
        synthetic_data=True, input_shapes=shapes_of(path),
    )  # fmt: skip
    with contextlib.closing(prepare(options, CaffeLog(io.StringIO()))) as run:
        message = run.solver.message
        message.snapshot = message.display = 0
        message.snapshot_after_train = False
        run.tests = [replace(test, iterations=1) for test in run.tests]
        losses, clock = [], [time.perf_counter()]

        def stepped(iteration: int, loss: float) -> None:
            losses.append(loss)
            clock.append(time.perf_counter())
            if clock[-1] - clock[-2] > SLOW_S:
                run.max_iter = iteration

        run.on_iteration = stepped
        trainer = Trainer(run)
        trainer.solve()
        batch = max(shape[0] for shape in run.training.main.data.values())
        tests = len(run.tests)
    text = f"batch {batch}, loss " + ", ".join(f"{loss:.4g}" for loss in losses)
    return f"{text}; {tests} test net{'s' * (tests != 1)}" if tests else text


def forwarded(path: str) -> str:
    """One forward pass in TEST phase, and what the outputs are."""
    from kdnet.runtime import CaffeLog, TestOptions, test_net

    options = TestOptions(
        path, iterations=1, device="cpu", allow_unloaded=True, synthetic_data=True
    )
    scores = test_net(options, CaffeLog(io.StringIO()))
    outputs = {report.blob: scores.values[report.output].shape for report in scores.reports}
    return ", ".join(f"{blob} {shape}" for blob, shape in outputs.items())


def tried(path: str) -> dict[str, Any]:
    """Everything that is done with one file, in this process."""
    from kdnet.errors import KdnetError
    from kdnet.layers.python import allowed_python

    found: dict[str, Any] = {"kind": "?"}
    begin = time.perf_counter()
    try:
        found["kind"] = kind_of(path)
        told = reread(path, found["kind"])
        with tempfile.TemporaryDirectory() as folder, allowed_python(os.getcwd()):
            if found["kind"] == "deploy":
                result = forwarded(path)
            else:
                solver = plain_solver(path, folder) if found["kind"] == "net" else None
                result = trained(path, solver, folder)
        found["result"] = "; ".join([result, *(f"upgraded {text}" for text in told)])
    except KdnetError as error:
        found["fault"] = error.diagnostics[0].code
        found["result"] = str(error).splitlines()[0]
    found["seconds"] = time.perf_counter() - begin
    found["gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def apart(folder: Path, path: str, limit_s: float) -> dict[str, Any]:
    """What :func:`tried` finds in a process of its own; what went wrong with that one."""
    command = [sys.executable, str(Path(__file__).resolve()), str(folder), "--one", path]
    environment = {**os.environ, "PYTHONPATH": str(folder / PYTHON_LAYERS)}
    try:
        done = subprocess.run(  # noqa: S603  # this file
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False,
            timeout=limit_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"kind": "?", "fault": "time", "result": f"took above {limit_s:g} s", "seconds": 0}
    if done.returncode:
        last = (done.stderr.splitlines() or [f"ended with {done.returncode}"])[-1]
        return {"kind": "?", "fault": "crash", "result": last, "seconds": 0}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def outcome(path: str, found: dict[str, Any]) -> str:
    """``ok``, ``refused`` where that is known of the file, else ``FAILED``."""
    if "fault" not in found:
        return "ok"
    return "refused" if REFUSED.get(path, ("",))[0] == found["fault"] else "FAILED"


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The table as Markdown, and what is refused."""
    lines = ["| file | kind | | what came of it | seconds |", "|---|---|---|---|---|"]
    for path, found in rows.items():
        state, seconds = outcome(path, found), f"{found['seconds']:.1f}"
        result = found["result"] if state != "refused" else REFUSED[path][1]
        lines.append(f"| {path} | {found['kind']} | {state} | {result} | {seconds} |")
    return "\n".join(lines) + "\n"


def save(rows: dict[str, dict[str, Any]]) -> None:
    """Write the result file."""
    here = machine()
    states = [outcome(path, found) for path, found in rows.items()]
    counted = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(sorted(states)))
    largest = max(rows.values(), key=lambda found: float(found.get("gigabytes", 0)))
    heading = "# Every prototxt of BVLC/caffe's examples and models\n\n"
    told = (
        f"{here['date']}, onnxruntime {here.get('onnxruntime', '?')} (CPU), "
        f"`python bench/bvlc.py FOLDER`, which says what is done with each: {counted}. Data were "
        "made up. Seconds are of everything, on a machine that others used too; the most memory "
        f"was {largest.get('gigabytes', 0):.1f} GB.\n\n"
    )
    RESULTS.write_text(heading + told + table(rows), encoding="utf-8")


def main() -> int:
    """Try all files, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, nargs="?", help="a checkout of BVLC/caffe")
    parser.add_argument("--only", default="", metavar="TEXT", help="files with this in their path")
    parser.add_argument("--limit-s", type=float, default=1800, help="seconds a file may take")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(tried(options.one)))
        return 0
    if options.folder is None:
        print("skipped: name the folder of a checkout of BVLC/caffe")
        return 0
    folder = options.folder.resolve()
    files = [
        file for part in ("examples", "models") for file in (folder / part).rglob("*.prototxt")
    ]
    names = sorted(file.relative_to(folder).as_posix() for file in files)
    if not names:
        print(f"skipped: {folder} holds no examples/ or models/ of BVLC/caffe")
        return 0
    rows = {}
    for name in names:
        if options.only in name:
            rows[name] = apart(folder, name, options.limit_s)
            print(f"{outcome(name, rows[name]):8} {rows[name]['seconds']:7.1f}s {name}: "
                  f"{rows[name]['result']}", flush=True)  # fmt: skip
    if not options.only:
        save(rows)
    return int(any(outcome(name, found) == "FAILED" for name, found in rows.items()))


if __name__ == "__main__":
    sys.exit(main())
