"""How long a net takes to compile, and whether that grows as its number of layers does.

    python bench/compile.py [--rounds 3]

ResNets of 101, 200, 497 and 1001 layers with weights (four times as many layers of Caffe) and
GoogLeNet pass the stages of ``kdnet train`` one after another, each net in a process of its own:
reading the text, wiring the net, compiling forward, backward and update into one graph, and
opening the ONNX Runtime session. Seconds are processor time of the fastest round, which a busy
machine moves little. The exponent is the slope of log(seconds) by log(layers) between neighbours:
1 is linear. Written to bench/results/compile.json.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import deep_nets
from timing import machine

RESULTS = Path(__file__).parent / "results" / "compile.json"
STAGES = ("read", "wire", "compile", "session")
NETS: dict[str, Callable[[], str]] = {
    "ResNet-101": lambda: deep_nets.resnet(11),
    "ResNet-200": lambda: deep_nets.resnet(22),
    "ResNet-497": lambda: deep_nets.resnet(55),
    "ResNet-1001": lambda: deep_nets.resnet(111),
    "GoogLeNet": deep_nets.googlenet,
}
SOLVER = 'net: "net" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0001'


def stages(name: str) -> dict[str, float]:
    """Compile a net in this process; processor seconds of each stage, and its size."""
    from kdnet.compile import compile_training
    from kdnet.net import NetState, SolverModel, resolve_net
    from kdnet.runtime import Engine, choose_device
    from kdnet.schema import kdnet_pb2 as pb
    from kdnet.schema import read_text

    text = NETS[name]()
    solver = read_text(SOLVER, "solver", pb.SolverParameter)
    marks = [time.process_time()]
    located = read_text(text, name, pb.NetParameter)
    marks.append(time.process_time())
    net = resolve_net(located.message, located.source, NetState(pb.TRAIN))
    marks.append(time.process_time())
    training = compile_training(net, SolverModel(solver.message, solver.source))
    marks.append(time.process_time())
    Engine(training.main, choose_device("cpu")[0], {})
    marks.append(time.process_time())
    found = {
        stage: after - before
        for stage, before, after in zip(STAGES, marks, marks[1:], strict=False)
    }
    return {
        "layers": len(net.layers),
        "nodes": len(training.main.model.graph.node),
        **found,
        "all": sum(found.values()),
    }


def measured(name: str, rounds: int) -> dict[str, float]:
    """The fastest of some rounds, each in a fresh process."""
    runs = []
    for _ in range(rounds):
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603  # this file
        runs.append(json.loads(done.stdout))
    return min(runs, key=lambda run: run["all"])


def main() -> None:
    """Measure, print the curve, save it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=tuple(NETS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(stages(options.one)))
        return
    rows: dict[str, dict[str, float]] = {}
    print(
        f"{'net':12} {'layers':>7} {'nodes':>7}" + "".join(f" {name:>8}" for name in STAGES),
        end="",
    )
    print(f" {'all':>8} {'exponent':>9}")
    before = None
    for name in NETS:
        row = measured(name, options.rounds)
        line = f"{name:12} {row['layers']:7} {row['nodes']:7}"
        line += "".join(f" {row[stage]:7.2f}s" for stage in (*STAGES, "all"))
        if before and name.startswith("ResNet"):
            grown = math.log(row["all"] / before["all"])
            row["exponent"] = grown / math.log(row["layers"] / before["layers"])
            line += f" {row['exponent']:9.2f}"
        print(line)
        rows[name] = before = row
    RESULTS.write_text(
        json.dumps({**machine(), "rounds": options.rounds, "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
