"""Which settings can be students of one graph, what they share, and how many fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kdnet.net import NetModel, SolverModel
from kdnet.net.replicate import Replica, SideBySide, downstream, side_by_side, with_multipliers
from kdnet.runtime.device import Device
from kdnet.runtime.sweep.grid import Setting
from kdnet.schema import kdnet_pb2 as pb
from kdnet.solvers import transforms_of

# Beyond this a graph takes longer to start than sharing saves.
MOST_STUDENTS = 32
FLOAT_BYTES = 4
# Gradients and the unfolded windows of convolutions, as multiples of the forward's blobs.
BACKWARD_FACTOR = 3
# What the runtime, the data and others need.
MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class Group:
    """Settings that differ only in what each student of one graph can have for its own.

    ``copied`` are, for each net, the layers that each student has for itself.
    """

    settings: tuple[Setting, ...]
    copied: tuple[frozenset[int], ...]

    @property
    def alone(self) -> str:
        """Why its students cannot share a graph; "" if they can."""
        if self.settings[0].solver.message.clip_gradients >= 0:
            return "clip_gradients takes the norm over all weights of a graph"
        return ""


def groups_of(settings: Sequence[Setting]) -> list[Group]:
    """The settings by what one graph has only once: its data and its solver."""
    found: dict[tuple[bytes, bytes], list[Setting]] = {}
    for setting in settings:
        key = (setting.variant.data, _shared_solver(setting.solver))
        found.setdefault(key, []).append(setting)
    return [Group(tuple(group), _copied(group)) for group in found.values()]


def _shared_solver(solver: SolverModel) -> bytes:
    """The solver without what a student can have for its own."""
    message = pb.SolverParameter()
    message.CopyFrom(solver.message)
    message.ClearField("weight_decay")
    # A rate of 0 freezes: no multiple of another rate does the same.
    if message.base_lr:
        message.ClearField("base_lr")
    return message.SerializeToString(deterministic=True)


def _copied(settings: Sequence[Setting]) -> tuple[frozenset[int], ...]:
    """For each net: what moves in any setting, what differs, and all that depends on these."""
    first = settings[0].variant
    variants = list({id(setting.variant): setting.variant for setting in settings}.values())
    found: list[frozenset[int]] = []
    names: set[str] = set()
    for number, net in enumerate(first.nets):
        start = {
            index
            for variant in variants
            for index, layer in enumerate(variant.nets[number].layers)
            if index in variant.moving[number]
            or layer.name in names
            or layer.message != net.layers[index].message
        }
        copied = downstream(net, start)
        if not number:
            names = {net.layers[index].name for index in copied}
        found.append(copied)
    return tuple(found)


def join(group: Group, settings: Sequence[Setting]) -> tuple[list[SideBySide], SolverModel]:
    """The nets of these students side by side, and the solver that trains them.

    A student's own base_lr and weight_decay become multiples in its lr_mult and decay_mult.
    """
    solver = _common_solver(settings)
    labels = _labels(settings)
    joined = []
    for number, copied in enumerate(group.copied):
        nets = [_with_rates(setting, number, solver) for setting in settings]
        replicas = [Replica(net, label) for net, label in zip(nets, labels, strict=True)]
        joined.append(side_by_side(replicas, copied))
    return joined, solver


def _labels(settings: Sequence[Setting]) -> list[str]:
    """What is added to the names of each student's copies: no name that a net has already."""
    nets = settings[0].variant.nets
    taken = {name for net in nets for layer in net.layers for name in (layer.name, *layer.tops)}
    labels = [f"[{setting.label}]" if setting.label else "" for setting in settings]
    while any(name + label in taken for name in taken for label in labels if label):
        labels = [f"{label}]" for label in labels]
    return labels


def _common_solver(settings: Sequence[Setting]) -> SolverModel:
    message = pb.SolverParameter()
    message.CopyFrom(settings[0].solver.message)
    message.weight_decay = max(
        (setting.solver.message.weight_decay for setting in settings), key=abs
    )
    return replace(settings[0].solver, message=message)


def _with_rates(setting: Setting, number: int, solver: SolverModel) -> NetModel:
    net, own, common = setting.variant.nets[number], setting.solver.message, solver.message
    rate = own.base_lr / common.base_lr if common.base_lr else 1.0
    decay = own.weight_decay / common.weight_decay if common.weight_decay else 1.0
    if number or (rate == 1.0 and decay == 1.0):
        return net
    return with_multipliers(
        net,
        {
            layer: [m and (m[0] * rate, m[1] * decay) for m in known]
            for layer, known in setting.variant.multipliers.items()
        },
    )


def student_bytes(group: Group) -> int:
    """A generous estimate of what one more student takes: weights, history, blobs, gradients."""
    setting = group.settings[0]
    slots = sum(len(transform.slots) for transform in transforms_of(setting.solver))
    accumulated = 2 if setting.solver.message.iter_size > 1 else 0
    # The state is there twice, since a step does not write what it reads.
    held = setting.variant.weight_values * (2 + 2 * slots + accumulated + 1)
    return FLOAT_BYTES * (held + BACKWARD_FACTOR * setting.variant.blob_values)


def available_bytes(device: Device) -> int | None:
    """Memory that a run may take; None where nobody says."""
    if device.kind != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = dict(line.split(":", 1) for line in lines)
        return int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return None


def students_at_once(group: Group, wanted: int | None, device: Device) -> int:
    """How many students one graph is given: as asked for, else as memory allows."""
    if group.alone:
        return 1
    most = wanted or MOST_STUDENTS
    free = available_bytes(device)
    if wanted is None and free is not None:
        most = min(most, int(free * MEMORY_SHARE) // max(1, student_bytes(group)))
    return max(1, min(most, len(group.settings)))
