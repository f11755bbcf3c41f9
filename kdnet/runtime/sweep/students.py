"""Students side by side: compiled, given the first values and the noise of their own runs."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import (
    Evaluation,
    Program,
    Report,
    Training,
    WeightSlot,
    compile_evaluation,
    compile_training,
)
from kdnet.layers import layer_class
from kdnet.net import LayerModel, SolverModel
from kdnet.net.replicate import Origin, SideBySide
from kdnet.runtime.device import Device
from kdnet.runtime.loading import initial_values
from kdnet.runtime.plan import Plan
from kdnet.runtime.setup import all_slots
from kdnet.runtime.snapshots import layers_of
from kdnet.runtime.sweep.axes import is_loss
from kdnet.runtime.sweep.grid import Setting
from kdnet.runtime.sweep.groups import Group, join
from kdnet.schema import SourceMap
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import Audit, WeightFile, write_caffemodel

Array = NDArray[Any]


@dataclass(frozen=True)
class Students:
    """Several settings in one graph.

    ``train`` and ``tested`` say of whom each layer and blob of their nets is a copy.
    """

    settings: tuple[Setting, ...]
    solver: SolverModel
    training: Training
    evaluations: tuple[Evaluation, ...]
    train: SideBySide
    tested: tuple[SideBySide, ...]
    values: dict[str, Array]
    audit: Audit


def compile_students(
    plan: Plan,
    group: Group,
    settings: Sequence[Setting],
    device: Device,
    files: Sequence[WeightFile],
) -> Students:
    """The training graph and the test graphs of these settings, with every first value.

    Raises:
        KdnetError: the faults of the net, the solver or the weights.
    """
    nets, solver = join(group, settings)
    shapes, provider = plan.options.input_shapes, device.kind
    solver = _expanded(solver, settings[0], nets[0])
    training = compile_training(nets[0].net, solver, input_shapes=shapes, provider=provider)
    evaluations = [
        compile_evaluation(
            side.net,
            live=training.live,
            input_shapes=shapes,
            provider=provider,
            schedules=training.schedules,
        )
        for side in nets[1:]
    ]
    training = replace(training, main=_own_noise(training.main, nets[0], settings))
    evaluations = [
        replace(evaluation, program=_own_noise(evaluation.program, side, settings))
        for evaluation, side in zip(evaluations, nets[1:], strict=True)
    ]
    values, audit = _first_values(plan, all_slots(training, evaluations), nets, settings, files)
    return Students(
        tuple(settings),
        solver,
        training,
        tuple(evaluations),
        nets[0],
        tuple(nets[1:]),
        values,
        audit,
    )


def _expanded(solver: SolverModel, setting: Setting, side: SideBySide) -> SolverModel:
    """The solver with each schedule of a copied layer said of every copy."""
    if not solver.message.schedule:
        return solver
    copies: dict[str, list[str]] = {}
    for new, (old, _) in side.layers.items():
        copies.setdefault(old, []).append(new)
    message = pb.SolverParameter()
    message.CopyFrom(solver.message)
    message.ClearField("schedule")
    nodes = []
    for index, stated in enumerate(solver.message.schedule):
        layers = dict.fromkeys(layer.name for layer in setting.variant.nets[0].layers)
        named = [name for name in layers if fnmatchcase(name, stated.layer)]
        patterns = [glob.escape(new) for name in named for new in copies.get(name, [name])]
        for pattern in patterns or [stated.layer]:
            message.schedule.add().CopyFrom(stated)
            message.schedule[-1].layer = pattern
            nodes.append(solver.source.child("schedule", index) or SourceMap())
    source = solver.source.with_child(("schedule",), SourceMap.sequence(nodes))
    return replace(solver, message=message, source=source)


def _own_noise(program: Program, side: SideBySide, settings: Sequence[Setting]) -> Program:
    """Each copy draws what its own run would draw."""
    slots = []
    for slot in program.noise:
        if slot.layer in side.layers:
            layer, number = side.layers[slot.layer]
            slots.append(replace(slot, layer=layer, seed=settings[number].seed))
        else:
            slots.append(slot)
    return replace(program, noise=tuple(slots))


def _first_values(
    plan: Plan,
    slots: Sequence[WeightSlot],
    nets: Sequence[SideBySide],
    settings: Sequence[Setting],
    files: Sequence[WeightFile],
) -> tuple[dict[str, Array], Audit]:
    """What each student's own run begins with; what is shared begins as in the first seed's."""
    origins = {new: origin for side in nets for new, origin in side.layers.items()}
    values: dict[str, Array] = {}
    audit: Audit | None = None
    for number in (None, *range(len(settings))):
        mine = own_slots(slots, origins, number or 0)
        seed = plan.seed if number is None else settings[number].seed
        found, told = initial_values(
            list(mine.values()), files, seed=seed, allow_unloaded=plan.options.allow_unloaded
        )
        audit = audit or told
        for slot in slots:
            if origins.get(slot.layer, ("", None))[1] == number:
                values[slot.name] = found[mine[slot.name].name]
    if audit is None:
        raise ValueError("no students")
    return values, audit


def own_slots(
    slots: Sequence[WeightSlot], origins: Mapping[str, Origin], number: int
) -> dict[str, WeightSlot]:
    """One student's weights and the shared ones, as its own net calls them.

    The keys are their names among ``slots``.
    """
    found = {}
    for slot in slots:
        layer, owner = origins.get(slot.layer, (slot.layer, number))
        if owner == number:
            users = tuple((origins.get(user, (user, 0))[0], index) for user, index in slot.users)
            name = layer + slot.name.removeprefix(slot.layer)
            found[slot.name] = replace(slot, name=name, layer=layer, users=users)
    return found


def save_student(students: Students, number: int, weights: Mapping[str, Array], path: str) -> None:
    """Write one student's trained weights under its own layers' names.

    Raises:
        WeightsError: cannot-write.
    """
    net = students.settings[number].variant.nets[0]
    mine = own_slots(students.training.weights, students.train.layers, number)
    layers = layers_of(
        list(mine.values()),
        {layer.name: layer.type for layer in net.layers},
        {own.name: weights[name] for name, own in mine.items()},
        full=False,
    )
    write_caffemodel(path, layers, net_name=net.name)


def is_score(layer: LayerModel) -> bool:
    """Whether a layer's tops are losses or metrics."""
    return is_loss(layer) or layer_class(layer).is_metric


def scores_of(
    reports: Sequence[Report], side: SideBySide, values: Mapping[str, Array], number: int
) -> dict[str, float]:
    """One student's scores and the shared ones, by the names of its own blobs.

    A score is what a loss or a metric gives, or any other single number.
    """
    layers = {layer.name: layer for layer in side.net.layers}
    found: dict[str, float] = {}
    for report in reports:
        blob, owner = side.blobs.get(report.blob, (report.blob, number))
        if owner == number and (report.shape == () or is_score(layers[report.layer])):
            flat = np.reshape(values[report.output], -1)
            names = [blob] if flat.size == 1 else [f"{blob}[{i}]" for i in range(flat.size)]
            found |= {name: float(value) for name, value in zip(names, flat, strict=True)}
    return found
