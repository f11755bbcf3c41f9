"""What a signal leaves behind: the old file, and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tables.formats import SAMPLE

from kdnet.weights import write_caffemodel

ROOT = Path(__file__).parent.parent
# The signal comes while the copy is being written, as if a person had pressed Ctrl-C.
PROGRAM = """
import os, sys
import weights_tools.copying, weights_tools.writing
number = int(sys.argv[1])
def progress(done, total):
    os.kill(os.getpid(), number)
def write(path, pieces, _progress):
    weights_tools.copying.write_pieces(path, pieces, progress)
weights_tools.writing.write_pieces = write
sys.argv = ["weights", *sys.argv[2:]]
from weights_tools.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("in_place", [False, True])
def test_an_interrupted_rename_leaves_the_old_file(
    number: signal.Signals, in_place: bool, tmp_path: Path
) -> None:
    source, out = tmp_path / "a.caffemodel", tmp_path / "b.caffemodel"
    write_caffemodel(source, SAMPLE)
    out.write_bytes(b"old")
    target = source if in_place else out
    before = target.read_bytes()
    arguments = ["rename", str(source), "-o", str(target), "--map", "conv1=x"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(int(number)), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + number
    assert done.stderr == f"error: stopped by {number.name}: no file was changed [interrupted]\n"
    assert done.stdout == ""
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.caffemodel", "b.caffemodel"]


def test_a_killed_rename_leaves_the_old_file(tmp_path: Path) -> None:
    source, out = tmp_path / "a.caffemodel", tmp_path / "b.caffemodel"
    write_caffemodel(source, SAMPLE)
    out.write_bytes(b"old")
    arguments = ["rename", str(source), "-o", str(out), "--map", "conv1=x"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(int(signal.SIGKILL)), *arguments],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert out.read_bytes() == b"old"
