"""Every net and join of ``nets/`` with its solver, small enough to step anywhere, on made-up data.

What lies in a folder ``distill`` describes a join; every other prototxt but the solvers is a net.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdnet.compile import Training, compile_training
from kdnet.net import NetModel, NetState, SolverModel, load_solver, resolve_net, solver_beside
from kdnet.runtime.joining import read_join, solver_of_join
from kdnet.schema import Located, read_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import fill, philox

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path for path in (ROOT / "nets").rglob("*.prototxt") if not path.stem.endswith("_solver")
)
NETS = [path for path in FILES if path.parent.name != "distill"]
JOINS = [path for path in FILES if path.parent.name == "distill"]


def id_of(net: Path) -> str:
    return net.relative_to(ROOT / "nets").with_suffix("").as_posix()


IDS = [id_of(net) for net in NETS]
XAVIER = pb.FillerParameter(type="msra")


def read(net: Path) -> Located[pb.NetParameter]:
    """A net, or what a description joins."""
    return read_join(str(net)).net if net in JOINS else read_net(str(net))


def solver_of(net: Path) -> SolverModel:
    if net in JOINS:
        solver, _ = solver_of_join(str(net))
        assert solver is not None, f"{net} has no solver"
        return solver
    path = solver_beside(str(net))
    assert path is not None, f"{net} has no solver"
    return load_solver(path)


def resolved(net: Path, phase: int, *, batch: int | None = None) -> NetModel:
    """The net in one phase, with another batch size where one is given."""
    located = read(net)
    for layer in located.message.layer:
        if batch and layer.type == "Data":
            layer.data_param.batch_size = batch
    return resolve_net(located.message, located.source, NetState(phase))


def compiled(net: Path, *, batch: int | None = None, provider: str = "cpu") -> Training:
    """The train net's programs, with another batch size where one is given."""
    return compile_training(
        resolved(net, pb.TRAIN, batch=batch), solver_of(net), provider=provider
    )


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
