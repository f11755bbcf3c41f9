"""Fair timing on a machine that others use too.

Candidates alternate in short blocks, so that what disturbs one disturbs all. With one thread the
clock is the thread's own CPU time, which waiting does not enter. With more it is the wall clock:
a block during which other processes worked does not count, as long as quiet blocks come.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

BLOCK_S = 0.06
REST_S = 0.01
TRIES = 4
TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Time:
    """Milliseconds a call: the fastest, the median, and how many quiet calls there were."""

    fastest: float
    median: float
    quiet: int


def foreign_load() -> float | None:
    """CPU seconds that all other processes have used since the machine started."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, fields)
    used = (user + nice + system + irq + soft + steal) / TICKS_PER_S
    mine = os.times()
    return used - mine.user - mine.system


def clock_for(threads: int) -> Callable[[], float]:
    """CPU time of the process where one thread does all the work, else the wall clock."""
    return time.process_time if threads == 1 else time.perf_counter


def block(
    call: Callable[[], object], clock: Callable[[], float], length_s: float = BLOCK_S
) -> tuple[list[float], bool]:
    """Milliseconds of each call in a block of at least three, and whether the block was quiet."""
    time.sleep(REST_S)
    call()
    load, begin, spent = foreign_load(), time.perf_counter(), []
    while len(spent) < 3 or time.perf_counter() - begin < length_s:
        start = clock()
        call()
        spent.append((clock() - start) * 1e3)
    after = foreign_load()
    if load is None or after is None:
        return spent, True
    return spent, after - load <= 0.05 * (time.perf_counter() - begin) + 1.5 / TICKS_PER_S


def alternate(
    calls: Mapping[str, Callable[[], object]], *, threads: int, rounds: int = 6
) -> dict[str, Time]:
    """Time every call in turn, ``rounds`` times; up to four times as often on a busy machine."""
    clock = clock_for(threads)
    every: dict[str, list[float]] = {name: [] for name in calls}
    quiet: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for turn in range(TRIES * rounds):
        for name, call in calls.items():
            spent, calm = block(call, clock)
            every[name] += spent
            if calm or threads == 1:
                quiet[name] += spent
        if turn + 1 >= rounds and all(len(kept) >= 3 * rounds for kept in quiet.values()):
            break
    return {name: _summary(every[name], quiet[name]) for name in calls}


def _summary(every: list[float], quiet: list[float]) -> Time:
    kept = sorted(quiet or every)
    return Time(min(every), kept[len(kept) // 2], len(quiet))


def machine() -> dict[str, str]:
    """What a reader of a result must know: processor, versions, date."""
    versions = {}
    for package in ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "torch"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    return {
        "date": date,
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        **versions,
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    names = {line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line}
    flags = text.split("flags", 1)[-1].split("\n", 1)[0].split()
    widest = next((flag for flag in ("avx512f", "avx2", "avx") if flag in flags), "no avx")
    return f"{', '.join(sorted(names)) or platform.machine()} ({widest}, {os.cpu_count()} cores)"
