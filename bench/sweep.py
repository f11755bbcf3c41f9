"""What a sweep of students in one graph costs beside a run for each of them.

    python bench/sweep.py [--students 8] [--rounds 5] [--threads 0]

A VGG-like teacher on images of 3 x 32 x 32 and a small student; lambda varies. Steps of the one
graph and of a graph with a single student alternate in this process. Both share what is equal: a
separate run is charged no start, no compilation and no data. The ratio to beat is 0.5.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from timing import alternate

from kdnet.runtime import CaffeLog, Device, Stepper, TrainOptions
from kdnet.runtime.plan import make_plan
from kdnet.runtime.sweep.grid import make_grid
from kdnet.runtime.sweep.groups import groups_of
from kdnet.runtime.sweep.students import compile_students
from kdnet.runtime.sweep.values import read_variable

BATCH, CLASSES = 100, 10
TEACHER = (64, 64, 0, 128, 128, 0, 256, 256, 0)
STUDENT = (16, 0, 32, 0, 32, 0)
RATE = 0.001
SOLVER = 'net: "net.prototxt" base_lr: 0.001 momentum: 0.9 weight_decay: 0.004 max_iter: 1\n'
DATA = f"""
layer {{
  name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param {{
    shape {{ dim: {BATCH} dim: 3 dim: 32 dim: 32 }} shape {{ dim: {BATCH} }}
    data_filler {{ type: "gaussian" std: 1 }} data_filler {{ type: "constant" value: 1 }}
  }}
}}
"""
LOSSES = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s/ip" bottom: "label" top: "loss" }
layer { name: "ts" type: "TeacherStudentCrossEntropy" bottom: "s/ip" bottom: "t/ip" top: "ts" }
"""


def tower(prefix: str, widths: tuple[int, ...], multiplier: int) -> str:
    """3 x 3 convolutions with rectifiers, a halving where a width is 0, and a classifier."""
    layers, bottom = [], "data"
    param = f"param {{ lr_mult: {multiplier} }} param {{ lr_mult: {multiplier} }}"
    for index, width in enumerate(widths):
        name = f"{prefix}/{index}"
        if width:
            layers.append(
                f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
                f"{param} convolution_param {{ num_output: {width} kernel_size: 3 pad: 1 "
                'weight_filler { type: "msra" } } }'
            )
            layers.append(
                f'layer {{ name: "{name}/relu" type: "ReLU" bottom: "{name}" top: "{name}" }}'
            )
        else:
            layers.append(
                f'layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}" '
                "pooling_param { pool: MAX kernel_size: 2 stride: 2 } }"
            )
        bottom = name
    layers.append(
        f'layer {{ name: "{prefix}/ip" type: "InnerProduct" bottom: "{bottom}" top: "{prefix}/ip" '
        f"{param} inner_product_param {{ num_output: {CLASSES} "
        'weight_filler { type: "xavier" } } }'
    )
    return "\n".join(layers)


def steps(folder: Path, counts: tuple[int, ...], threads: int) -> dict[str, Callable[[], object]]:
    """A step for each number of students in one graph, by that number."""
    text = DATA + tower("t", TEACHER, 0) + tower("s", STUDENT, 1) + LOSSES
    (folder / "net.prototxt").write_text(text)
    (folder / "net_solver.prototxt").write_text(SOLVER)
    options = TrainOptions(path=str(folder / "net.prototxt"), allow_unloaded=True)
    plan = make_plan(options, CaffeLog())
    values = ",".join(f"{index / max(counts):g}" for index in range(max(counts)))
    variable = read_variable(f"lambda={values}")
    grid = make_grid(plan, [variable], 1, provider="cpu", digest=b"")
    (group,) = groups_of(grid.settings)
    random = np.random.default_rng(0)
    found: dict[str, Callable[[], object]] = {}
    for count in counts:
        made = compile_students(plan, group, grid.settings[:count], Device("cpu"), [])
        stepper = Stepper(made.training, Device("cpu"), made.values, threads=threads)
        feeds = {
            name: random.standard_normal(shape, np.float32) if len(shape) > 1 else np.ones(shape)
            for name, shape in made.training.main.data.items()
        }
        found[str(count)] = lambda stepper=stepper, feeds=feeds: stepper.step(
            RATE, lambda _micro: feeds
        )
    return found


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0 for all processors")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calls = steps(Path(folder), (1, options.students), options.threads)
        times = alternate(calls, rounds=options.rounds, threads=options.threads)
    alone, together = times["1"], times[str(options.students)]
    print(f"one student in a graph:  {alone.fastest:9.1f} ms a step")
    print(f"{options.students} students in a graph: {together.fastest:9.1f} ms a step")
    for name in ("fastest", "median"):
        ratio = getattr(together, name) / (options.students * getattr(alone, name))
        print(f"{options.students} together cost {ratio:.3f} of as many runs ({name} step)")


if __name__ == "__main__":
    main()
