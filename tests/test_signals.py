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


# --- effects


def seen(child: subprocess.Popen[str], pattern: str) -> list[str]:
    """The lines of a run until one has the pattern."""
    assert child.stderr is not None
    lines = []
    for line in child.stderr:
        lines.append(line)
        if re.search(pattern, line):
            return lines
    raise AssertionError("".join(lines))


def test_a_hangup_saves_and_the_run_goes_on(joined: Path) -> None:
    child = started(joined)
    for _ in range(2):
        child.send_signal(signal.SIGHUP)
        name = seen(child, "Snapshotting to binary proto file")[-1].split()[-1]
        assert (joined / name).exists()
        seen(child, r"Iteration \d+, lr")
    assert child.poll() is None
    ended = ended_by(child, [signal.SIGINT])
    assert ended.code == 130
    assert len(list(joined.glob("run_iter_*.solverstate"))) == 3


def test_ctrl_c_may_save_and_a_hangup_may_stop(joined: Path) -> None:
    child = started(joined, "-sigint_effect=snapshot", "--sighup-effect", "stop")
    child.send_signal(signal.SIGINT)
    seen(child, "Snapshotting to binary proto file")
    seen(child, r"Iteration \d+, lr")
    ended = ended_by(child, [signal.SIGHUP])
    assert ended.code == 128 + signal.SIGHUP
    assert said(ended, "Optimization stopped early.")


def test_signals_may_mean_nothing_but_sigterm_always_stops(joined: Path) -> None:
    child = started(joined, "-sigint_effect", "none", "-sighup_effect", "none")
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGHUP):
        child.send_signal(number)
        seen(child, r"Iteration \d+, lr")
    assert not list(joined.glob("run_iter_*"))
    assert ended_by(child, [signal.SIGTERM]).code == 143


def test_a_hangup_during_a_test_saves_before_the_test_ends(joined: Path) -> None:
    edit(joined / "joined_solver.prototxt", "test_iter: 2", "test_iter: 10000000")
    command = [sys.executable, "-m", "kdnet", *JOINED]
    with subprocess.Popen(command, cwd=joined, stderr=subprocess.PIPE, text=True) as child:
        seen(child, "Testing net")
        child.send_signal(signal.SIGHUP)
        seen(child, "Snapshotting to binary proto file run_iter_0.caffemodel")
        ended = ended_by(child, [signal.SIGINT])
    assert ended.code == 130


def test_the_shim_ends_with_0_where_ctrl_c_stops_it_as_caffe_does(joined: Path) -> None:
    edit(joined / "student_solver.prototxt", "max_iter: 6", "max_iter: 1000000")
    words = ["caffe", "train", "-solver=student_solver.prototxt"]
    for number, code in ((signal.SIGINT, 0), (signal.SIGTERM, 143)):
        command = [sys.executable, "-m", "kdnet", *words]
        with subprocess.Popen(command, cwd=joined, stderr=subprocess.PIPE, text=True) as child:
            seen(child, r"Iteration \d+, lr")
            ended = ended_by(child, [number])
        assert ended.code == code, ended.err
        assert "[interrupted]" in ended.faults


def scoring(folder: Path) -> subprocess.Popen[str]:
    """A test of very many batches, once it has begun."""
    words = ["test", "student.prototxt", "--iterations", "10000000", "--device", "cpu"]
    child = subprocess.Popen(
        [sys.executable, "-m", "kdnet", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen(child, "Batch 3, loss")
    return child


def test_a_test_that_is_stopped_tells_the_means_so_far(joined: Path) -> None:
    with scoring(joined) as child:
        child.send_signal(signal.SIGHUP)
        seen(child, r"Means of \d+ batches so far:")
        seen(child, r"caffe.cpp:325\] loss = ")
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert re.match(r"accuracy = [\d.]+\nloss = [\d.]+\n", out)
    assert re.search(
        r"note: stopped by a signal after \d+ of 10000000 batches \[interrupted\]\n"
        r"help: the scores are means over these\n$",
        err,
    )


# --- runs that do not heed


STUCK = """
import sys, time
from kdnet.cli import main
from kdnet.data.sources.data import Data
batch = Data.batch
def stuck(self, index):
    if index == 3:
        print("reading", file=sys.stderr, flush=True)
        time.sleep(60)
    return batch(self, index)
Data.batch = stuck
sys.exit(main())
"""


# Like a step of the runtime, it computes without running Python's handlers of signals.
BUSY = "__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 10**9)"


@pytest.mark.parametrize("code", [STUCK, SLOW.replace("time.sleep(20)", BUSY)])
def test_a_second_ctrl_c_waits_neither_for_a_batch_nor_for_the_runtime(
    code: str, joined: Path
) -> None:
    command = [sys.executable, "-c", code, *JOINED]
    with subprocess.Popen(command, cwd=joined, stderr=subprocess.PIPE, text=True) as child:
        seen(child, "reading|stepping")
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert child.poll() is None
        began = time.monotonic()
        ended = ended_by(child, [signal.SIGINT])
        took = time.monotonic() - began
    assert took < 4
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert ended.err.endswith("interrupted\n")


# --- terminals


def on_terminal(folder: Path, words: Sequence[str]) -> tuple[int, int]:
    """A run on a terminal of its own: its process, and the other end of the terminal."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo terminals")
    child, ours = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ["TERM"] = "xterm"
        command = [sys.executable, "-m", "kdnet", *words]
        os.execv(command[0], command)  # noqa: S606  # a shell would be the terminal's leader
    return child, ours


def read_until(ours: int, pattern: str) -> str:
    text = ""
    while not re.search(pattern, text):
        text += os.read(ours, 65536).decode(errors="replace")
    return text


def status_of(child: int) -> int:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the run did not end")


def test_ctrl_c_typed_at_a_terminal_saves_and_leaves(joined: Path) -> None:
    edit(joined / "joined_solver.prototxt", "max_iter: 6", "max_iter: 1000000")
    child, ours = on_terminal(joined, JOINED)
    read_until(ours, r"Iteration 50, lr")
    os.write(ours, b"\x03")
    text = read_until(ours, r"\[interrupted\]")
    assert "Optimization stopped early." in text
    assert status_of(child) == 130
    os.close(ours)
    assert list(joined.glob("run_iter_*.solverstate"))


def test_training_outlives_its_terminal(joined: Path) -> None:
    edit(joined / "joined_solver.prototxt", "max_iter: 6", "max_iter: 300")
    edit(joined / "joined_solver.prototxt", "test_interval: 3", "test_interval: 1000")
    child, ours = on_terminal(joined, [*JOINED, "--log", "run.log"])
    read_until(ours, r"Iteration 50, lr")
    os.close(ours)
    assert status_of(child) == 0
    saved = sorted(joined.glob("run_iter_*.solverstate"))
    assert len(saved) == 2, saved
    log = (joined / "run.log").read_text()
    assert "Optimization Done." in log
    assert "Iteration 298, lr" in log


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
