"""The joined training step in kdnet and in PyTorch, side by side.

    python bench/step.py [--device cpu|cuda] [--nets lenet quick] [--threads 2] [--save]

Every contestant lives in a process of its own, so that thread pools do not meet, and they work in
turn, in blocks. First all take the same steps from the same weights on the same batches, and
their losses must agree to 1e-4. Without PyTorch, kdnet runs alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from joined import NETS, RATE, Net, batches, initial_weights, prototxt, solver_text
from timing import Time, block, clock_for, machine

if TYPE_CHECKING:
    from kdnet.compile import Training

RESULTS = Path(__file__).parent / "results"
BLOCKED = "kdnet, blocked"
CHECKED_STEPS = 5
TOLERANCE = 1e-4
BLOCK_S = 0.3
PATIENCE = 6
TORCH = {
    "cpu": {"torch eager": "eager", "torch.compile": "compiled"},
    "cuda": {
        "torch eager": "eager",
        "torch.compile": "compiled",
        "torch CUDA graph": "graph",
    },
}
Losses = tuple[float, float]


class Step(Protocol):
    """What a contestant can do."""

    def step(self, data: np.ndarray, label: np.ndarray) -> Losses:
        """One update on a batch; hard and soft loss."""


class KdnetStep:
    """kdnet's step graph in one session; ``convolutions`` is "standard" or "blocked"."""

    def __init__(
        self,
        net: Net,
        weights: Mapping[str, np.ndarray],
        device: str,
        threads: int,
        convolutions: str = "standard",
    ) -> None:
        from kdnet.compile import compile_training
        from kdnet.net import NetState, SolverModel, resolve_net
        from kdnet.runtime import Stepper, choose_device
        from kdnet.schema import kdnet_pb2 as pb
        from kdnet.schema import read_text

        located = read_text(prototxt(net), net.name, pb.NetParameter)
        solver = read_text(solver_text(), "solver", pb.SolverParameter)
        resolved = resolve_net(located.message, located.source, NetState(pb.TRAIN))
        training = compile_training(
            resolved, SolverModel(solver.message, solver.source), provider=device
        )
        if convolutions == "blocked":
            training = _blocked(training)
        place, _ = choose_device(device)
        self.stepper = Stepper(training, place, weights, threads=threads)

    def step(self, data: np.ndarray, label: np.ndarray) -> Losses:
        """One update on a batch; hard and soft loss."""
        values = self.stepper.step(RATE, lambda _micro: {"data": data, "label": label})
        return float(values["output/loss"]), float(values["output/ts_loss"])


def _blocked(training: Training) -> Training:
    from blocked import block_size, blocked

    model, _ = blocked(training.main.model, block_size())
    return replace(training, main=replace(training.main, model=model))


def contestant(name: str, net: Net, device: str, threads: int) -> Step:
    """Build one by its name."""
    weights = initial_weights(net)
    if name.startswith("kdnet"):
        convolutions = "blocked" if name == BLOCKED else "standard"
        return KdnetStep(net, weights, device, threads, convolutions)
    import torch
    from torch_nets import TorchStep

    torch.set_num_threads(threads)
    return TorchStep(net, weights, TORCH[device][name], device)


def work(orders: Connection, name: str, net: Net, device: str, threads: int) -> None:
    """A contestant's process: answers "check" with losses and "time" with a block of times."""
    racer = contestant(name, net, device, threads)
    given = batches(net, CHECKED_STEPS)
    clock = clock_for(threads)
    turn = 0

    def one() -> None:
        nonlocal turn
        turn += 1
        racer.step(*given[turn % len(given)])

    answers: dict[str, Callable[[], object]] = {
        "check": lambda: [racer.step(*batch) for batch in given],
        "time": lambda: block(one, clock, BLOCK_S),
    }
    while True:
        orders.send(answers[orders.recv()]())


class Race:
    """The contestants' processes; only one of them works at a time."""

    def __init__(self, names: Sequence[str], net: Net, device: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: dict[str, Connection] = {}
        self.processes = []
        for name in names:
            mine, theirs = context.Pipe()
            process = context.Process(
                target=work, args=(theirs, name, net, device, threads), daemon=True
            )
            process.start()
            # Closed here, so that a contestant's death ends the wait for its answer.
            theirs.close()
            self.pipes[name] = mine
            self.processes.append(process)

    def ask(self, name: str, order: str) -> object:
        """Give an order and wait for the answer."""
        try:
            self.pipes[name].send(order)
            return self.pipes[name].recv()
        except (EOFError, ConnectionError):
            sys.exit(f"{name}: its process ended, see above")

    def check(self) -> None:
        """All losses of the first steps agree with the first contestant's."""
        expected: np.ndarray | None = None
        for name in self.pipes:
            losses = np.array(self.ask(name, "check"))
            expected = losses if expected is None else expected
            error = np.max(np.abs(losses - expected) / np.abs(expected))
            assert np.isfinite(error), f"{name}: losses are not finite"
            assert error < TOLERANCE, f"{name}: losses off by {error:.1e}:\n{losses}\n{expected}"
            print(f"  {name}: {CHECKED_STEPS} steps, losses within {error:.1e}", flush=True)

    def rounds(self, count: int) -> list[dict[str, float]]:
        """Median milliseconds of each contestant, round by round.

        A round that other work on the machine disturbed does not count, unless too few are quiet.
        """
        quiet, every = [], []
        while len(quiet) < count and len(every) < count * PATIENCE:
            answers = {name: self.ask(name, "time") for name in self.pipes}
            every.append({name: statistics.median(spent) for name, (spent, _) in answers.items()})
            if all(calm for _, calm in answers.values()):
                quiet.append(every[-1])
        self.disturbed = len(quiet) < count
        return quiet if not self.disturbed else every

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.terminate()
            process.join()


def race(names: Sequence[str], net: Net, options: argparse.Namespace) -> dict[str, Time]:
    """Check and time all contestants on one net; print as it goes."""
    print(f"{net.name}, batch {net.batch}, {options.device}, {options.threads} threads")
    runners = Race(names, net, options.device, options.threads)
    try:
        runners.check()
        rounds = runners.rounds(options.rounds)
    finally:
        runners.close()
    if runners.disturbed:
        print("  the machine was never quiet for long: read the ratios only")
    found = {}
    for name in names:
        each = [times[name] for times in rounds]
        found[name] = Time(min(each), statistics.median(each), len(each))
        ratios = [times[name] / times["kdnet"] for times in rounds]
        print(
            f"  {name:18} {found[name].median:8.2f} ms   {statistics.median(ratios):5.2f} x kdnet"
            f"   fastest round {found[name].fastest:.2f}",
            flush=True,
        )
    return found


def contestants(options: argparse.Namespace) -> list[str]:
    """kdnet, and PyTorch's where it is installed."""
    ours = ["kdnet", BLOCKED] if options.blocked else ["kdnet"]
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed here: kdnet runs alone")
        return ours
    return [*ours, *TORCH[options.device]]


def save(device: str, report: Mapping[str, object]) -> Path:
    """Write results/step_<device>.json."""
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"step_{device}.json"
    target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return target


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=list(TORCH), default="cpu")
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--threads", type=int, default=2, help="1 times the CPU, not the clock")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--save", action="store_true", help="write results/step_<device>.json")
    parser.add_argument("--blocked", action="store_true", help="also with blocked.py, CPU only")
    options = parser.parse_args()
    names = contestants(options)
    results = {}
    for key in options.nets:
        times = race(names, NETS[key], options)
        results[NETS[key].name] = {name: asdict(time) for name, time in times.items()}
    if options.save:
        about = {**machine(), "device": options.device, "threads": options.threads}
        print(f"wrote {save(options.device, {**about, 'median_ms_per_step': results})}")


if __name__ == "__main__":
    main()
