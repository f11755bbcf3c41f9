"""What an epoch costs: the student alone, with a kept teacher, and with the teacher run live.

    python bench/cache.py [--nets lenet quick] [--device cpu] [--batches 30] [--rounds 7]

All three train in one process, an epoch each in turn, so that what disturbs one disturbs all. An
epoch is read through the feeder from a MemoryData layer, as in ``kdnet train``. The student alone
has neither teacher nor soft loss. The ratio of a round is that of epochs next to each other; the
median of all rounds is printed.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import statistics
import time
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from joined import NETS, RATE, Net, batches, initial_weights, prototxt, solver_text
from timing import machine

from kdnet.data.teacher_cache import CacheOptions
from kdnet.runtime import CaffeLog, TrainOptions, prepare
from kdnet.runtime.feeding import batches as fed
from kdnet.runtime.stepper import Stepper
from kdnet.runtime.trainer import Run

LIVE, KEPT, ALONE = "teacher live", "teacher kept", "student alone"


def write_files(net: Net, count: int) -> None:
    """Records, weights, and both nets with their solver, in the working directory."""
    made = batches(net, count)
    data, label = (np.concatenate(arrays) for arrays in zip(*made, strict=True))
    np.savez("records.npz", data=data, label=label)
    kinds = {"weight": 0, "bias": 1}
    blobs = {
        f"{layer}/{kinds[kind]}": array
        for name, array in initial_weights(net).items()
        for layer, _, kind in [name.rpartition("/")]
    }
    np.savez("weights.npz", **blobs)
    channels, height, width = net.item
    layer = (
        'layer { name: "input" type: "MemoryData" top: "data" top: "label" memory_data_param { '
        f'source: "records.npz" batch_size: {net.batch} channels: {channels} height: {height} '
        f"width: {width} }} }}"
    )
    whole = re.sub(r'layer \{ name: "input".*', layer, prototxt(net))
    kept = [line for line in whole.splitlines() if "teacher/" not in line]
    for name, text in (("joined", whole), ("student", "\n".join(kept))):
        Path(f"{name}.prototxt").write_text(text)
        Path(f"{name}_solver.prototxt").write_text(
            f"{solver_text()} max_iter: 1 snapshot_after_train: false"
        )


class Epochs:
    """One way to train, an epoch at a time."""

    def __init__(self, run: Run, count: int) -> None:
        self._run, self._count = run, count
        self._stepper = Stepper(run.training, run.device, run.values)

    def seconds(self) -> float:
        """Train an epoch."""
        began = time.perf_counter()
        with fed(self._run.training.main, self._run.sources, self._run.seed) as feed:
            for _ in range(self._count):
                self._stepper.step(RATE, lambda _micro: feed.next())
        return time.perf_counter() - began


def prepared(net: str, device: str, folder: str | None) -> Run:
    """A run of ``net`` that is ready to train."""
    options = TrainOptions(
        path=f"{net}.prototxt",
        weights=("weights.npz",),
        device=device,
        cache=CacheOptions(folder) if folder else None,
    )
    return prepare(options, CaffeLog(io.StringIO()))


def race(net: Net, device: str, count: int, rounds: int) -> None:
    """Print the seconds of an epoch of each, and the ratios."""
    write_files(net, count)
    with ExitStack() as opened:
        wanted = ((ALONE, "student", None), (KEPT, "joined", "kept"), (LIVE, "joined", None))
        ways = {}
        for name, path, folder in wanted:
            run = opened.enter_context(closing(prepared(path, device, folder)))
            ways[name] = Epochs(run, count)
        first = ways[KEPT].seconds()
        for way in ways.values():
            way.seconds()
        spent = [{name: way.seconds() for name, way in ways.items()} for _ in range(rounds)]
    print(f"{net.name}, {count} batches of {net.batch}, {device}")
    print(f"  {'first epoch, filling the cache':32} {first:8.3f} s")
    for name in ways:
        times = [turn[name] for turn in spent]
        ratios = [turn[name] / turn[ALONE] for turn in spent]
        print(
            f"  {name:32} {statistics.median(times):8.3f} s"
            f"   {statistics.median(ratios):6.3f} of the student alone"
            f"   ({min(ratios):.3f} to {max(ratios):.3f})"
        )


def main() -> None:
    """Race the nets that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(" ".join(f"{key}: {value};" for key, value in machine().items()))
    home = Path.cwd()
    for name in options.nets:
        with TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                race(NETS[name], options.device, options.batches, options.rounds)
            finally:
                os.chdir(home)


if __name__ == "__main__":
    main()
