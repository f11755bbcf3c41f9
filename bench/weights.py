"""What renaming a large weight file costs, beside copying it.

    python bench/weights.py [--rounds 5] [--pycaffe PYTHON] [--folder DIR]

A VGG16 of 528 MiB is generated, and its layers are renamed: by ``python -m weights_tools rename``,
with the start of the interpreter, and by the same call inside a program, which times
itself. Beside it: ``cp`` and ``sync`` of the same file; a parse, a rename and a serialisation by
protobuf; and what people do in pycaffe: load a net with the weights, make one of the new names,
copy every blob, save. They take turns, each in a process of its own; what is read is in the page
cache, what is written is flushed to the disk. The ratio of a round is that of neighbours. Memory
is the process's peak of resident pages. Written to bench/results/weights.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from timing import machine

RESULTS = Path(__file__).parent / "results" / "weights.json"
COPY, PROTOBUF, PYCAFFE = "cp and fsync", "protobuf", "pycaffe"
COMMAND, CALL = "kdnet command", "kdnet call"
MOST_TIME, MOST_MEMORY_MB = 1.5, 64

GENERATE = """
import sys
import numpy as np
from kdnet.weights import LayerBlobs, write_caffemodel
def layers():
    rng = np.random.default_rng(16)
    for name, kind, shape in {layers!r}:
        blobs = (rng.standard_normal(shape, np.float32), np.zeros(shape[0], np.float32))
        yield LayerBlobs(name, kind, blobs)
write_caffemodel(sys.argv[1], layers(), net_name="VGG16")
"""
BY_CALL = """
import sys, time
import weights_tools
rules = weights_tools.make_mapping((), (), "teacher/{name}")
began = time.perf_counter()
weights_tools.rename(sys.argv[1], sys.argv[2], rules)
print(time.perf_counter() - began)
"""
BY_PROTOBUF = """
import os, sys
from kdnet.schema import kdnet_pb2 as pb
with open(sys.argv[1], "rb") as file:
    net = pb.NetParameter.FromString(file.read())
for layer in net.layer:
    layer.name = "teacher/" + layer.name
with open(sys.argv[2], "wb") as file:
    file.write(net.SerializeToString())
    file.flush()
    os.fsync(file.fileno())
"""
BY_PYCAFFE = """
import os, sys
os.environ["GLOG_minloglevel"] = "2"
import caffe
caffe.set_mode_cpu()
old = caffe.Net(sys.argv[3], caffe.TEST, weights=sys.argv[1])
new = caffe.Net(sys.argv[4], caffe.TEST)
for name, blobs in old.params.items():
    for mine, theirs in zip(new.params["teacher/" + name], blobs):
        mine.data[...] = theirs.data
new.save(sys.argv[2])
with open(sys.argv[2], "rb") as file:
    os.fsync(file.fileno())
"""


@dataclass(frozen=True)
class Spent:
    """Seconds on the wall clock, seconds of processor time, and the peak of memory in MB."""

    seconds: float
    processor: float
    memory_mb: float


def vgg16() -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, type and weight shape of every layer with weights."""
    found: list[tuple[str, str, tuple[int, ...]]] = []
    channels = 3
    for block, (count, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for index in range(1, count + 1):
            found.append((f"conv{block}_{index}", "Convolution", (width, channels, 3, 3)))
            channels = width
    units = 512 * 7 * 7
    for name, outputs in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        found.append((name, "InnerProduct", (outputs, units)))
        units = outputs
    return found


def prototxt(prefix: str) -> str:
    """VGG16 without the layers that have no weights and change no shape."""
    lines = [
        'layer { name: "data" type: "Input" top: "data" input_param { shape {'
        " dim: 1 dim: 3 dim: 224 dim: 224 } } }"
    ]
    bottom, block = "data", "1"
    for name, kind, shape in vgg16():
        if name == "fc6" or (name.startswith("conv") and name[4] != block):
            lines.append(
                f'layer {{ name: "pool{block}" type: "Pooling" bottom: "{bottom}" '
                f'top: "pool{block}" pooling_param {{ kernel_size: 2 stride: 2 }} }}'
            )
            bottom, block = f"pool{block}", name[4:5]
        field = "convolution_param" if kind == "Convolution" else "inner_product_param"
        extra = " kernel_size: 3 pad: 1" if kind == "Convolution" else ""
        lines.append(
            f'layer {{ name: "{prefix}{name}" type: "{kind}" bottom: "{bottom}" '
            f'top: "{name}" {field} {{ num_output: {shape[0]}{extra} }} }}'
        )
        bottom = name
    return "\n".join(lines)


def spent(command: list[str]) -> Spent:
    """Run a process to its end; one that prints a number has timed itself."""
    os.sync()
    began = time.perf_counter()
    # A program that is forked off keeps what its parent has resident: that is little here.
    with TemporaryFile() as out, TemporaryFile() as err:
        child = subprocess.Popen(command, stdout=out, stderr=err)  # noqa: S603  # our own programs
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        printed, error = out.read().strip(), err.read().decode(errors="replace")
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, error
    if re.fullmatch(rb"[0-9.]+", printed):
        seconds = float(printed)
    return Spent(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def why_not(python: str | None) -> str:
    """Why pycaffe takes no part, or an empty string."""
    if python is None:
        return "no --pycaffe PYTHON was given"
    command = [python, "-c", "import caffe"]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  # as asked for
    return "" if done.returncode == 0 else f"{Path(python).name} there has no module caffe"


def commands(python: str | None) -> dict[str, list[str]]:
    """What is raced, in the working directory."""
    here = sys.executable
    rename = ["rename", "vgg.caffemodel", "-o", "out", "--template", "teacher/{name}"]
    found = {
        COPY: ["sh", "-c", "cp vgg.caffemodel out && sync out"],
        COMMAND: [here, "-m", "weights_tools", *rename],
        CALL: [here, "-c", BY_CALL, "vgg.caffemodel", "out"],
        PROTOBUF: [here, "-c", BY_PROTOBUF, "vgg.caffemodel", "out"],
    }
    if python is not None:
        files = ["vgg.caffemodel", "out", "old.prototxt", "new.prototxt"]
        found[PYCAFFE] = [python, "-c", BY_PYCAFFE, *files]
    return found


def race(python: str | None, rounds: int) -> dict[str, list[Spent]]:
    """Each in turn, ``rounds`` times, after one turn that does not count."""
    Path("old.prototxt").write_text(prototxt(""))
    Path("new.prototxt").write_text(prototxt("teacher/"))
    runs: dict[str, list[Spent]] = {}
    for turn in range(rounds + 1):
        for name, command in commands(python).items():
            Path("out").unlink(missing_ok=True)
            found = spent(command)
            if turn:
                runs.setdefault(name, []).append(found)
    return runs


def report(runs: dict[str, list[Spent]], size_bytes: int, skipped: str) -> dict[str, object]:
    """Print the table; the same as an object."""
    rows = {}
    for name, spents in runs.items():
        ratios = [one.seconds / copy.seconds for one, copy in zip(spents, runs[COPY], strict=True)]
        row = {
            "seconds": statistics.median(one.seconds for one in spents),
            "processor_seconds": statistics.median(one.processor for one in spents),
            "memory_mb": max(one.memory_mb for one in spents),
            "ratio": statistics.median(ratios),
            "ratios": ratios,
            "runs": [asdict(one) for one in spents],
        }
        rows[name] = row
        print(
            f"{name:14} {row['seconds']:7.2f} s  {row['processor_seconds']:6.2f} s of processor"
            f"  {row['ratio']:5.2f} of cp  {row['memory_mb']:7.0f} MB"
        )
    if skipped:
        print(f"{PYCAFFE:14} skipped: {skipped}")
    met = {
        name: rows[name]["ratio"] <= MOST_TIME and rows[name]["memory_mb"] <= MOST_MEMORY_MB
        for name in (COMMAND, CALL)
    }
    for name, reached in met.items():
        told = "met" if reached else "missed"
        print(f"target of {MOST_TIME} of cp and {MOST_MEMORY_MB} MB, {name}: {told}")
    return {**machine(), "size_bytes": size_bytes, "met": met, "skipped": skipped, "rows": rows}


def main() -> None:
    """Generate, race, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pycaffe", metavar="PYTHON", help="an interpreter that has pycaffe")
    parser.add_argument("--folder", help="where to write; the system's temporary folder if not")
    options = parser.parse_args()
    skipped = why_not(options.pycaffe)
    python = str(Path(options.pycaffe).absolute()) if not skipped else None
    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    with TemporaryDirectory(dir=options.folder) as folder:
        os.chdir(folder)
        code = GENERATE.format(layers=vgg16())
        command = [sys.executable, "-c", code, "vgg.caffemodel"]
        subprocess.run(command, check=True)  # noqa: S603  # our own program
        size_bytes = Path("vgg.caffemodel").stat().st_size
        print(f"{size_bytes / 2**20:.0f} MiB, {options.rounds} rounds")
        found = report(race(python, options.rounds), size_bytes, skipped)
        os.chdir(root)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
