"""How a run ends that somebody ends: signals, and readers who leave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from small_nets import (
    JOINED,
    Ended,
    edit,
    ok,
    said,
)

from kdnet.runtime import StopRequest


def started(folder: Path, *more: str) -> subprocess.Popen[str]:
    """A run without end, once it has begun to train."""
    edit(folder / "joined_solver.prototxt", "max_iter: 6", "max_iter: 1000000")
    edit(folder / "joined_solver.prototxt", "display: 2", "display: 50")
    edit(folder / "joined_solver.prototxt", "test_interval: 3", "test_interval: 1000000")
    command = [sys.executable, "-m", "kdnet", *JOINED, *more]
    child = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if re.search(r"Iteration (50|100), lr", line):
            return child
    raise AssertionError("the run ended early")


def ended_by(child: subprocess.Popen[str], numbers: Sequence[int]) -> Ended:
    for number in numbers:
        child.send_signal(number)
        time.sleep(0.01)
    _, err = child.communicate(timeout=30)
    return Ended(child.returncode, "", err)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_leaves_and_the_run_goes_on_from_there(
    number: int, code: int, joined: Path
) -> None:
    ended = ended_by(started(joined), [number])
    assert ended.code == code
    assert said(ended, "Optimization stopped early.")
    found = re.fullmatch(
        r"note: stopped by a signal at iteration (\d+); saved run_iter_\1\.caffemodel "
        r"\[interrupted\]\nhelp: go on with --snapshot run_iter_\1\.solverstate\n",
        ended.faults,
    )
    assert found, ended.faults
    iteration = int(found.group(1))
    state = f"run_iter_{iteration}.solverstate"
    resumed = ok(*JOINED, "--snapshot", state, "--max-iter", iteration + 3)
    assert said(resumed, f"run_iter_{iteration + 3}.caffemodel")


def test_a_signal_saves_nothing_where_the_solver_says_so(joined: Path) -> None:
    path = joined / "joined_solver.prototxt"
    path.write_text(f"{path.read_text()} snapshot_after_train: false\n")
    ended = ended_by(started(joined), [signal.SIGINT])
    assert ended.code == 130
    assert "nothing was saved now, since snapshot_after_train is false" in ended.faults
    assert not list(joined.glob("run_iter_*"))


def test_a_signal_during_a_long_test_does_not_wait_for_its_end(joined: Path) -> None:
    edit(joined / "joined_solver.prototxt", "test_iter: 2", "test_iter: 10000000")
    command = [sys.executable, "-m", "kdnet", *JOINED]
    with subprocess.Popen(command, cwd=joined, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "Testing net" in line:
                break
        ended = ended_by(child, [signal.SIGINT])
    assert ended.code == 130
    assert said(ended, "Test interrupted.")
    assert (joined / "run_iter_1.solverstate").exists()


def test_a_second_signal_leaves_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert stop.signal == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


SLOW = """
import sys, time
from kdnet.cli import main
from kdnet.runtime import Stepper
step = Stepper.step
def slow(*arguments):
    print("stepping", file=sys.stderr, flush=True)
    time.sleep(20)
    return step(*arguments)
Stepper.step = slow
sys.exit(main())
"""


def test_a_second_ctrl_c_leaves_a_slow_step_at_once(joined: Path) -> None:
    command = [sys.executable, "-c", SLOW, *JOINED]
    with subprocess.Popen(command, cwd=joined, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "stepping" in line:
                break
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert child.poll() is None
        ended = ended_by(child, [signal.SIGINT])
    assert time.monotonic() - began < 10
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert ended.err.endswith("interrupted\n")
    assert not list(joined.glob("run_iter_*"))


def test_a_reader_who_leaves_ends_the_run_as_a_shell_would_say(joined: Path) -> None:
    edit(joined / "joined_solver.prototxt", "max_iter: 6", "max_iter: 100000 display: 1")
    edit(joined / "joined_solver.prototxt", " display: 2", "")
    run_it = f"{sys.executable} -m kdnet {' '.join(JOINED)}"
    command = f"{run_it} 2>&1 | head -n 3; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=joined,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "141"
    assert "Traceback" not in done.stdout + done.stderr
