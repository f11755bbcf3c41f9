"""Checks without a GPU that every net in nets/ would run on one, whole: ``make test-cuda``.

    python nets_on_cuda.py GPU_PYTHON [NET.prototxt ...]

Compiles each net with its solver, here; then asks onnxruntime-gpu, in the environment of
GPU_PYTHON and under the stub libraries, where it would put the nodes of each step.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BUILD = REPOSITORY / "build"
STUBS = BUILD / "cuda_stubs"
KDNET = (sys.executable, "-c", "import sys; from kdnet.cli import main; sys.exit(main())")


def all_nets() -> list[Path]:
    """Every net in nets/, without the solvers."""
    found = sorted(REPOSITORY.glob("nets/*/*.prototxt"))
    return [path for path in found if not path.stem.endswith("_solver")]


def solver_of(net: Path) -> Path:
    """The solver that stands beside a net."""
    return net.with_name(f"{net.stem}_solver.prototxt")


def build_stubs(gpu_python: str) -> None:
    """Build the stub libraries for the wheel that ``gpu_python`` has."""
    where = "import sysconfig; print(sysconfig.get_path('platlib'))"
    asked = subprocess.run([gpu_python, "-c", where], check=True, capture_output=True, text=True)
    build = REPOSITORY / "tests" / "cuda_stubs" / "build.py"
    subprocess.run([sys.executable, build, asked.stdout.strip(), STUBS], check=True)


def place(gpu_python: str, steps: Sequence[Path], *flags: str) -> int:
    """Print where the nodes of compiled steps would go; not 0 unless all go to CUDA."""
    tool = REPOSITORY / "tests" / "placement" / "placement.py"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(STUBS)}
    return subprocess.run(
        [gpu_python, tool, *flags, *steps], env=environment, check=False
    ).returncode


def compile_step(net: Path, folder: Path) -> Path | None:
    """The step of one net with its solver as a file, or None where kdnet refuses it."""
    step = folder / net.parent.name / f"{net.stem}.onnx"
    step.parent.mkdir(exist_ok=True)
    # A teacher's weights decide nothing about where its nodes go, and need not be there.
    solver = step.with_name(f"{net.stem}_solver.prototxt")
    lines = solver_of(net).read_text().splitlines(keepends=True)
    solver.write_text("".join(line for line in lines if not line.startswith("weights:")))
    options = ["--solver", solver, "--allow-unloaded", "--provider", "cuda", "-o", step]
    done = subprocess.run(
        [*KDNET, "compile", net, *options], cwd=REPOSITORY, capture_output=True, check=False
    )
    if done.returncode == 0:
        return step
    sys.stderr.buffer.write(done.stderr)
    return None


def main(gpu_python: str, *nets: str) -> int:
    """Compile the nets and place their steps; the exit status."""
    build_stubs(gpu_python)
    # One compiled net may take a gigabyte, more than a memory-backed /tmp should be asked for.
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        wanted = [Path(net).resolve() for net in nets] or all_nets()
        steps = [compile_step(net, Path(folder)) for net in wanted]
        placed = place(gpu_python, [step for step in steps if step])
    return 1 if None in steps else placed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
