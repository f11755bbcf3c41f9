"""Every net of ``nets/`` with its solver, small enough to step anywhere, on made-up data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdnet.compile import Training, compile_training
from kdnet.net import NetState, SolverModel, load_solver, resolve_net, solver_beside
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_net
from kdnet.weights import fill, philox

ROOT = Path(__file__).parent.parent
NETS = sorted(
    path for path in (ROOT / "nets").rglob("*.prototxt") if not path.stem.endswith("_solver")
)
IDS = [path.relative_to(ROOT / "nets").with_suffix("").as_posix() for path in NETS]
XAVIER = pb.FillerParameter(type="msra")


def solver_of(net: Path) -> SolverModel:
    path = solver_beside(str(net))
    assert path is not None, f"{net} has no solver"
    return load_solver(path)


def compiled(net: Path, *, batch: int | None = None, provider: str = "cpu") -> Training:
    """The train net's programs, with another batch size where one is given."""
    located = read_net(str(net))
    for layer in located.message.layer:
        if batch and layer.type == "Data":
            layer.data_param.batch_size = batch
    model = resolve_net(located.message, located.source, NetState(pb.TRAIN))
    return compile_training(model, solver_of(net), provider=provider)


def first_values(training: Training) -> dict[str, np.ndarray]:
    """Fillers, and random values for what a file would fill."""
    return {
        slot.name: fill(
            XAVIER if slot.needs_file and len(slot.shape) > 1 else slot.filler,
            slot.shape,
            seed=1,
            key=slot.name,
        )
        for slot in training.weights
    }


def feeds_of(training: Training, index: int) -> Mapping[str, np.ndarray[Any, Any]]:
    """Made-up images and labels, and noise, for step ``index``."""
    program = training.main
    classes = {check.tensor.name: check.classes for check in program.labels}
    feeds: dict[str, np.ndarray[Any, Any]] = {}
    for name, shape in program.data.items():
        stream = philox(7, name, index)
        if name in classes:
            feeds[name] = np.floor(stream.random(shape) * classes[name]).astype(np.float32)
        else:
            feeds[name] = stream.random(shape, np.float32) - 0.5
    for slot in program.noise:
        feeds[slot.name] = philox(7, "noise", slot.layer, index).random(slot.shape, np.float32)
    return feeds
