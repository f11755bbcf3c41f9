"""Measure the lowerings of a convolution's gradients on ONNX Runtime against oneDNN (PyTorch).

    python bench/conv_gradients.py [--threads 1 2] [--which weight input forward] [--save]

Every lowering is checked against PyTorch (or, without it, against the first recipe) to 1e-4 of
the largest element before it is timed. ``--threads 1`` reads the thread's CPU time and is immune
to other work on the machine. What ORT runs on one thread (Slice, Concat, Pad, most Transposes)
gains nothing from ``--threads 2``; matrix products and convolutions do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime  # noqa: TID251 - measures the runtime itself, below kdnet
from lowerings import FORWARD, INPUT, WEIGHT, Builder, ConvShape, Recipe
from timing import Time, alternate, machine

try:
    import torch
except ModuleNotFoundError:
    torch = None

RESULTS = Path(__file__).parent / "results"
SHAPES = [
    ConvShape(*numbers)
    for numbers in (
        (64, 1, 28, 20, 5, 1, 0),
        (64, 20, 12, 50, 5, 1, 0),
        (100, 3, 32, 32, 5, 1, 2),
        (100, 32, 16, 32, 5, 1, 2),
        (100, 32, 8, 64, 5, 1, 2),
        (128, 16, 32, 16, 3, 1, 1),
        (128, 32, 16, 32, 3, 1, 1),
        (128, 64, 8, 64, 3, 1, 1),
        (128, 128, 4, 128, 3, 1, 1),
        (64, 96, 16, 32, 3, 1, 1),
        (32, 64, 56, 64, 3, 1, 1),
        (32, 128, 28, 128, 3, 1, 1),
        (32, 256, 14, 256, 3, 1, 1),
        (64, 32, 32, 64, 3, 2, 1),
        (128, 64, 8, 128, 3, 2, 1),
        (16, 3, 224, 64, 7, 2, 3),
        (16, 3, 224, 64, 11, 4, 2),
        (64, 64, 16, 128, 1, 1, 0),
        (64, 64, 16, 128, 1, 2, 0),
    )
]
FAMILIES: dict[str, dict[str, Recipe]] = {"weight": WEIGHT, "input": INPUT, "forward": FORWARD}
READS = {"weight": ("x", "dy"), "input": ("dy", "w"), "forward": ("x", "w")}
TOLERANCE = 1e-4


def tensors(shape: ConvShape) -> dict[str, np.ndarray]:
    """The same random x, w and dy for every lowering."""
    generator = np.random.default_rng(0)
    return {
        name: generator.standard_normal(dims).astype(np.float32)
        for name, dims in shape.dims().items()
    }


def onednn(which: str, z: ConvShape, arrays: Mapping[str, np.ndarray]) -> Callable[[], np.ndarray]:
    """PyTorch's kernel for one of the three passes."""
    x, w, dy = (torch.from_numpy(arrays[name]) for name in ("x", "w", "dy"))
    if which == "forward":
        return lambda: torch.conv2d(x, w, None, z.s, z.p).numpy()
    wanted = [which == "input", which == "weight", False]
    window = ([z.s, z.s], [z.p, z.p], [1, 1], False, [0, 0], 1)

    def backward() -> np.ndarray:
        gradients = torch.ops.aten.convolution_backward(dy, x, w, None, *window, wanted)
        return gradients[wanted.index(True)].numpy()

    return backward


class Lowered:
    """One lowering in its own session, inputs and output bound once."""

    def __init__(
        self, recipe: Recipe, shape: ConvShape, arrays: Mapping[str, np.ndarray], threads: int
    ) -> None:
        builder = Builder()
        output = recipe(shape, builder)
        if output is None:
            raise NotImplementedError
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.add_session_config_entry("session.force_spinning_stop", "1")
        dims = {name: array.shape for name, array in arrays.items()}
        self.session = onnxruntime.InferenceSession(
            builder.model(dims, output), options, providers=["CPUExecutionProvider"]
        )
        self.binding = self.session.io_binding()
        self.held = []
        for entry in self.session.get_inputs():
            self.held.append(onnxruntime.OrtValue.ortvalue_from_numpy(arrays[entry.name]))
            self.binding.bind_ortvalue_input(entry.name, self.held[-1])
        self.binding.bind_output(output, "cpu")
        self()
        self.held.append(self.binding.get_outputs()[0])
        self.binding.bind_ortvalue_output(output, self.held[-1])

    def __call__(self) -> None:
        """Run once."""
        self.session.run_with_iobinding(self.binding)

    def result(self) -> np.ndarray:
        """The output of the last run."""
        return self.held[-1].numpy()


def measure(which: str, shape: ConvShape, threads: int) -> dict[str, Time]:
    """Check, then time, all lowerings that apply to a shape."""
    arrays = tensors(shape)
    calls: dict[str, Callable[[], object]] = {}
    expected = None
    if torch is not None:
        calls["oneDNN"] = onednn(which, shape, arrays)
        expected = calls["oneDNN"]()
    needed = {name: arrays[name] for name in READS[which]}
    for name, recipe in FAMILIES[which].items():
        try:
            lowered = Lowered(recipe, shape, needed, threads)
        except NotImplementedError:
            continue
        expected = lowered.result() if expected is None else expected
        error = np.abs(lowered.result() - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE, f"{which} {shape} {name}: off by {error:.1e}"
        calls[name] = lowered
    return alternate(calls, threads=threads)


def table(which: str, rows: Mapping[ConvShape, Mapping[str, Time]]) -> list[str]:
    """A markdown table: fastest ms and the ratio to oneDNN (or to the first column)."""
    names = (["oneDNN"] if torch is not None else []) + list(FAMILIES[which])
    lines = [f"| N,C,H,O,K,stride,pad | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for shape, times in rows.items():
        base = next(iter(times.values())).fastest
        cells = [
            f"{times[name].fastest:.2f} ({times[name].fastest / base:.2f})"
            if name in times
            else ""
            for name in names
        ]
        lines.append(f"| {shape} | {' | '.join(cells)} |")
    return lines


def report(which: list[str], threads: int, count: int) -> list[str]:
    """Measure and print; the tables of one number of threads."""
    if torch is not None:
        torch.set_num_threads(threads)
    lines = ["", f"## {threads} thread{'s' * (threads > 1)}"]
    for name in which:
        rows = {z: measure(name, z, threads) for z in SHAPES[:count]}
        lines += ["", f"### {name}", "", *table(name, rows)]
        print("\n".join(lines[-len(rows) - 4 :]), flush=True)
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--which", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="only the first so many")
    parser.add_argument("--save", action="store_true", help="write results/conv_gradients_cpu.md")
    args = parser.parse_args()
    against = "oneDNN" if torch is not None else "the first lowering"
    text = [
        "# Convolution: the passes as ONNX ops, against oneDNN",
        "",
        f"Fastest ms, in brackets the ratio to {against}.",
        "; ".join(f"{key} {value}" for key, value in machine().items()),
    ]
    for threads in args.threads:
        text += report(args.which, threads, args.shapes)
    if args.save:
        RESULTS.mkdir(exist_ok=True)
        target = RESULTS / "conv_gradients_cpu.md"
        target.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
