"""What the upgrades of an old file do to it, in words, before they are done."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.upgrade_v1 import TRANSFORM_FIELDS, TRANSFORMED


def net_upgrades(net: pb.NetParameter) -> tuple[str, ...]:
    """Each kind of upgrade that ``upgrade_net`` makes of a net, with how much of it there is."""
    return tuple(_net_upgrades(net))


def solver_upgrades(before: pb.SolverParameter, after: pb.SolverParameter) -> tuple[str, ...]:
    """What became of a solver, and of the nets inside it."""
    told = []
    if before.HasField("solver_type"):
        told.append(f'solver_type, a number: type: "{after.type}"')
    if before.snapshot_prefix != after.snapshot_prefix:
        old, new = before.snapshot_prefix, after.snapshot_prefix
        told.append(f'snapshot_prefix "{old}", a folder: "{new}"')
    for name in ("net_param", "train_net_param"):
        if before.HasField(name):
            told += [f"{name}: {text}" for text in net_upgrades(getattr(before, name))]
    for index, net in enumerate(before.test_net_param):
        told += [f"test_net_param {index}: {text}" for text in net_upgrades(net)]
    return tuple(told)


def snapshot_prefix_in(prefix: str, solver_path: str) -> str:
    """A snapshot_prefix with the solver file's stem, where it names a folder."""
    if prefix and (prefix.endswith(("/", os.sep)) or os.path.isdir(prefix)):
        return os.path.join(prefix, PurePath(solver_path).stem)
    return prefix


def _net_upgrades(net: pb.NetParameter) -> Iterator[str]:
    first = [layer.layer for layer in net.layers if layer.HasField("layer")]
    padding = sum(layer.type == "padding" for layer in first)
    if first:
        yield f"layers {{ layer {{ }} }} (V0): {_counted(len(first), 'layer')}"
    if padding:
        yield f"padding, now the pad of what reads it: {_counted(padding, 'layer')}"
    second = len(net.layers) - len(first)
    if second:
        yield f"layers {{ }} (V1): {_counted(second, 'layer')}"
    moved = _transformed(net.layers)
    if moved:
        yield f"fields of data layers, now in transform_param: {_counted(moved, 'field')}"
    if net.input:
        given = net.input_shape or net.input_dim
        became = "now a layer of type Input" if given else "without a shape, left out"
        yield f"input fields, {became}: {_counted(len(net.input), 'input')}"
    frozen = sum(map(_learns, net.layer))
    if frozen:
        text = "params of BatchNorm, now with lr_mult 0 and decay_mult 0"
        yield f"{text}: {_counted(frozen, 'layer')}"


def _transformed(layers: Sequence[pb.V1LayerParameter]) -> int:
    """How many of the deprecated fields of data layers are written."""
    found = 0
    for layer in layers:
        if layer.HasField("layer"):
            old = ("scale", "meanfile", "cropsize", "mirror")
            found += sum(layer.layer.HasField(name) for name in old)
        elif layer.type in TRANSFORMED:
            holder = getattr(layer, TRANSFORMED[layer.type])
            found += sum(holder.HasField(name) for name in TRANSFORM_FIELDS)
    return found


def _learns(layer: pb.LayerParameter) -> bool:
    """Whether a BatchNorm states three params and lets one of them be trained."""
    fixed = all(spec.HasField("lr_mult") and spec.lr_mult == 0 for spec in layer.param)
    kept = all(spec.HasField("decay_mult") and spec.decay_mult == 0 for spec in layer.param)
    return layer.type == "BatchNorm" and len(layer.param) == 3 and not (fixed and kept)


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
