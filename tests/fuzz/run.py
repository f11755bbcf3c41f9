"""Fuzz one reader, or all: ``python tests/fuzz/run.py --reader caffemodel --inputs 1000000``.

Where atheris is installed it makes the inputs, guided by coverage (guided.py). Else they are made
by the mutations of this folder, each by the run's seed and its number, so that ``--only N``
repeats one; a worker process reads them and is watched. An input that takes longer than 5
seconds, a process that dies or grows beyond 256 MB, and anything raised that is no KdnetError is a
finding. Findings are kept in build/fuzz. A line of JSON for each reader is printed, and kept in
bench/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import json
import mmap
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzz.checking import MEMORY_MB, TIME_S, try_input  # noqa: E402  # after the path is set
from fuzz.mutation import mutate  # noqa: E402  # after the path is set
from fuzz.seeds import place_beside, readers, seeds  # noqa: E402  # after the path is set

RESULTS = ROOT / "bench" / "results" / "fuzz.json"
MEMORY_FOLDER = "/dev/shm"  # noqa: S108  # a folder is made in it
KEPT = ROOT / "build" / "fuzz"
# Beyond this an allocation fails instead of taking the machine with it.
ADDRESS_SPACE_BYTES = 4 << 30
# What a worker shares: the number of its input, how many were read whole, its peak in KiB.
STATE = struct.Struct("<qqq")
MOST_FINDINGS = 20
MUTATIONS, ATHERIS = "mutations", "atheris"
GUIDED = Path(__file__).with_name("guided.py")


class SlowError(BaseException):
    """An input took too long."""


@dataclass
class Outcome:
    """A run of one reader."""

    reader: str
    inputs: int = 0
    read_whole: int | None = 0
    findings: list[str] = field(default_factory=list)
    peak_mb: int = 0
    seconds: float = 0.0
    seed: int = 0
    engine: str = MUTATIONS
    date: str = ""


def input_of(reader: str, seed: int, number: int) -> bytes:
    """Input ``number`` of a run."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311  # it must repeat, not keep secrets
    return mutate(rng, seeds(reader))


def work(reader: str, seed: int, first: int, stop: int, shared: Path) -> int:
    """Read inputs until one is a finding; the exit status says which kind."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    signal.signal(signal.SIGALRM, _too_slow)
    folder = MEMORY_FOLDER if os.access(MEMORY_FOLDER, os.W_OK) else None
    with TemporaryDirectory(dir=folder) as place, shared.open("r+b") as file:
        state = mmap.mmap(file.fileno(), STATE.size)
        place_beside(reader, Path(place))
        path = Path(place) / "input"
        whole = 0
        for number in range(first, stop):
            path.write_bytes(input_of(reader, seed, number))
            STATE.pack_into(state, 0, number, whole, 0)
            signal.setitimer(signal.ITIMER_REAL, TIME_S)
            try:
                whole += try_input(reader, path, direct=number % 2 == 0)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            STATE.pack_into(state, 0, number, whole, peak)
            if peak > MEMORY_MB * 1024:
                raise MemoryError(f"{peak // 1024} MB are resident")
    return 0


def _too_slow(_number: int, _frame: object) -> None:
    raise SlowError(f"more than {TIME_S:g} s")


def watch(reader: str, seed: int, inputs: int) -> Outcome:
    """Run workers until all inputs were read, or enough findings were made."""
    outcome = Outcome(reader, seed=seed, date=today())
    began = time.perf_counter()
    first = read_whole = 0
    with TemporaryDirectory() as folder:
        shared = Path(folder) / "state"
        while first < inputs and len(outcome.findings) < MOST_FINDINGS:
            shared.write_bytes(STATE.pack(first, 0, 0))
            why = _one_worker(reader, seed, (first, inputs), shared)
            number, whole, peak_kib = STATE.unpack(shared.read_bytes())
            read_whole += whole
            outcome.peak_mb = max(outcome.peak_mb, peak_kib // 1024)
            first = number + 1
            if why:
                (KEPT / f"{reader}-{seed}-{number}").write_bytes(input_of(reader, seed, number))
                outcome.findings.append(f"{number}: {why}")
    outcome.inputs, outcome.read_whole = first, read_whole
    outcome.seconds = round(time.perf_counter() - began, 1)
    return outcome


def _one_worker(reader: str, seed: int, span: tuple[int, int], shared: Path) -> str:
    """Run one worker to its end; what it found, or an empty string."""
    arguments = ["--reader", reader, "--seed", str(seed), "--worker", str(shared)]
    command = [sys.executable, __file__, *arguments, *map(str, span)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        last, since = -1, time.monotonic()
        while True:
            try:
                _, error = child.communicate(timeout=1)
                break
            except subprocess.TimeoutExpired:
                number = STATE.unpack(shared.read_bytes())[0]
                if number != last:
                    last, since = number, time.monotonic()
                elif time.monotonic() - since > 6 * TIME_S:
                    child.kill()
                    child.communicate()
                    return "hangs where no signal reaches it"
    if child.returncode == 0:
        return ""
    lines = error.strip().splitlines()
    return lines[-1] if lines and child.returncode > 0 else f"ended with {child.returncode}"


def guided(reader: str, seed: int, inputs: int) -> Outcome:
    """Let atheris make the inputs, in a process of its own that ends at the first finding."""
    outcome = Outcome(reader, inputs, None, seed=seed, engine=ATHERIS, date=today())
    began = time.perf_counter()
    command = [sys.executable, str(GUIDED), reader, str(seed), str(inputs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=KEPT)
    outcome.seconds = round(time.perf_counter() - began, 1)
    peaks = re.findall(r" rss: (\d+)Mb", done.stderr)
    outcome.peak_mb = max(map(int, peaks), default=0)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if "ERROR" in line or "Error" in line]
        outcome.inputs = 0
        outcome.findings.append(told[0] if told else f"ended with {done.returncode}")
    return outcome


def today() -> str:
    """The date, as in ISO 8601."""
    return dt.datetime.now(tz=dt.UTC).date().isoformat()


def record(outcome: Outcome) -> None:
    """Put the outcome in the place of the reader's last one."""
    line = json.dumps(asdict(outcome))
    known = RESULTS.read_text().splitlines() if RESULTS.is_file() else []
    kept = [old for old in known if json.loads(old)["reader"] != outcome.reader]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("".join(f"{one}\n" for one in sorted([*kept, line])))


def main() -> int:
    """Fuzz; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--reader", choices=("all", *readers()), default="all")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N", help="read input N again, here")
    installed = importlib.util.find_spec(ATHERIS) is not None
    parser.add_argument(
        "--engine",
        choices=(MUTATIONS, ATHERIS),
        default=ATHERIS if installed else MUTATIONS,
        help="what makes the inputs (atheris where it is installed)",
    )
    parser.add_argument("--no-record", action="store_true", help="leave bench/results alone")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        shared, first, stop = options.worker
        return work(options.reader, options.seed, int(first), int(stop), Path(shared))
    chosen = readers() if options.reader == "all" else (options.reader,)
    if options.only is not None:
        return _again(chosen[0], options.seed, options.only)
    KEPT.mkdir(parents=True, exist_ok=True)
    run = guided if options.engine == ATHERIS else watch
    found = 0
    for reader in chosen:
        outcome = run(reader, options.seed, options.inputs)
        print(json.dumps(asdict(outcome)), flush=True)
        found += len(outcome.findings)
        if not options.no_record:
            record(outcome)
    return int(found > 0)


def _again(reader: str, seed: int, number: int) -> int:
    """Read one input again, with its traceback."""
    with TemporaryDirectory() as folder:
        place_beside(reader, Path(folder))
        path = Path(folder) / "input"
        path.write_bytes(input_of(reader, seed, number))
        try:
            print(try_input(reader, path, direct=number % 2 == 0))
        except Exception:
            traceback.print_exc()
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
