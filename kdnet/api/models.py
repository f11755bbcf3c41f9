"""What a net is made from: a file, a message, a NetSpec."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kdnet.layers.spec import Function, NetSpec, Top
from kdnet.net import NetModel, NetState, resolve_net
from kdnet.runtime.joining import NamedNet, read_named
from kdnet.runtime.plan import check_net
from kdnet.schema import Located, read_text, upgrade_net, write_text
from kdnet.schema import kdnet_pb2 as pb

FilePath = str | os.PathLike[str]
Model = FilePath | pb.NetParameter | NetSpec | Top | Function
Positional = FilePath | int | Sequence[str] | None
# What faults of a net without a file call it.
_NO_FILE = "<net>"


def read_model(model: Model) -> NamedNet:
    """The net of a file (a net, or a join's description), a message or a NetSpec.

    Raises:
        SchemaError: what reading raises.
        UsageError: not-a-net, for a solver's file.
    """
    if isinstance(model, NetSpec | Top | Function):
        model = model.to_proto()
    if isinstance(model, pb.NetParameter):
        # Written and read back, so that faults have a line to point at.
        located = read_text(write_text(model), _NO_FILE, pb.NetParameter)
        return NamedNet(Located(*upgrade_net(located.message, located.source)))
    path = os.fspath(model)
    if Path(path).is_file():
        check_net(path)
    return read_named(path)


def resolved(
    located: Located[pb.NetParameter], phase: int, level: int, stages: Sequence[str]
) -> NetModel:
    """The layers of a net for a phase, a level and stages; the net's own stages count too."""
    if phase not in (pb.TRAIN, pb.TEST):
        raise ValueError(f"the phase is kdnet.TRAIN ({pb.TRAIN}) or kdnet.TEST ({pb.TEST})")
    own = located.message.state
    stages = (stages,) if isinstance(stages, str) else stages
    state = NetState(phase, level or own.level, (*own.stage, *stages))
    return resolve_net(located.message, located.source, state)


class Given(NamedTuple):
    """What ``Net(...)`` is given beside the model."""

    weights: FilePath | None = None
    phase: int | None = None
    level: int | None = None
    stages: Sequence[str] | None = None


def arguments(args: Sequence[Positional], named: Given) -> Given:
    """Positional arguments in any of pycaffe's orders, joined with the named ones.

    They differ in type: a path is the weights, the first number the phase, the second the level.
    """
    found: dict[str, Positional] = {}
    numbers = iter(("phase", "level"))
    for value in args:
        if value is None:
            continue
        if isinstance(value, int):
            name = next(numbers, "")
        else:
            name = "weights" if isinstance(value, str | os.PathLike) else "stages"
        if not name or name in found or getattr(named, name) is not None:
            raise TypeError(f"Net() is given {name or 'a phase and a level'} twice")
        found[name] = value
    return named._replace(**found)  # type: ignore[arg-type]  # told apart by their types
