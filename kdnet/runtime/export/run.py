"""``kdnet export``: the student alone, as files that run elsewhere, and what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from numpy.typing import NDArray

from kdnet.compile.cost import Cost
from kdnet.compile.deploy.branches import Label
from kdnet.compile.deploy.making import Preprocess, blobs_of, onnx_model
from kdnet.data import Feeder, Source
from kdnet.errors import DataError, LayerError, RunError
from kdnet.graph import save_model
from kdnet.runtime import log as places
from kdnet.runtime.device import Device, choose_device
from kdnet.runtime.export.files import staged, stems
from kdnet.runtime.export.input import (
    check_classes,
    heading,
    metadata,
    preprocessing,
    read_classes,
)
from kdnet.runtime.export.measure import (
    Contender,
    Exported,
    Latency,
    check_export,
    measure_latency,
    score,
)
from kdnet.runtime.export.plan import ExportOptions, ExportPlan, Part, make_export_plan, warn
from kdnet.runtime.export.table import Row, Table
from kdnet.runtime.feeding import open_sources
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import check_net
from kdnet.schema import write_text
from kdnet.weights import write_caffemodel
from kdnet.weights.formats.caffemodel import encoded_bytes

Array = NDArray[Any]
Place = Callable[[str], str]
DEFAULT_ITERATIONS = 50
CPU = Device("cpu")
# Bottoms of a loss that pairs two nets' scores of the same classes.
PAIRED_ROLES = frozenset({"student logits", "teacher logits"})


@dataclass(frozen=True)
class Export:
    """What was written: paths, the table, and each student's largest relative differences."""

    paths: tuple[str, ...]
    table: Table
    differences: Mapping[str, Mapping[int, float]]


@dataclass
class _Work:
    """What an export holds on to: a log, a device, open sources, and folders that vanish."""

    options: ExportOptions
    log: CaffeLog
    device: Device
    held: ExitStack
    sources: list[Source] = field(default_factory=list)
    batch: Mapping[str, Array] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    differences: dict[str, dict[int, float]] = field(default_factory=dict)

    def scratch(self, model: onnx.ModelProto) -> tuple[Exported, int]:
        """A session of a model that is not kept, and the size of its files."""
        folder = self.held.enter_context(TemporaryDirectory(prefix="kdnet-"))
        paths = save_model(model, str(Path(folder) / "model.onnx"))
        return Exported(paths[0], model, self.device), _size(paths)


@dataclass(frozen=True)
class _Candidate:
    """A net that is ready to be measured; ``exported`` is None where it could not be made."""

    part: Part
    exported: Exported | None
    caffemodel_bytes: int
    onnx_bytes: int | None


def export_net(options: ExportOptions, log: CaffeLog) -> Export:
    """Write the students of a net and measure them against their teachers.

    Raises:
        KdnetError: the first stage's faults; no file is replaced then.
    """
    check_net(options.path)
    device, why = choose_device(options.device)
    log.line(places.OWN, f"Device: {device} ({why})")
    with ExitStack() as held:
        work = _Work(options, log, device, held)
        work.classes = read_classes(options.classes) if options.classes else ()
        plan = make_export_plan(options, log)
        names = [part.deploy.head.blob for part in plan.students]
        shown = [plan.rules.rename(name) for name in names] if plan.rules else names
        targets = stems(options.output, shown, names)
        _open_data(work, plan)
        folder = targets[0].parent
        written: list[str] = []
        with staged(folder) as place:
            candidates = [_teacher(work, part) for part in plan.teachers]
            for part, stem in zip(plan.students, targets, strict=True):
                candidate, paths = _student(work, part, stem.name, place)
                candidates.append(candidate)
                written += [str(folder / name) for name in paths]
            table = _measure(work, candidates)
    return Export(tuple(written), table, work.differences)


def _open_data(work: _Work, plan: ExportPlan) -> None:
    """The TEST data and its first batch, where anything can be scored on it."""
    options = work.options
    labelled = any(part.deploy.head.label for part in plan.parts)
    if options.iterations == 0 or not labelled:
        return
    try:
        sources = open_sources(plan.test, seed=0, shapes=options.input_shapes)
        for source in sources:
            work.held.callback(source.close)
        with Feeder(sources) as feeder:
            work.batch = feeder.next()
    except DataError as error:
        if options.iterations is not None:
            raise
        warn(work.log, "accuracy is not measured", error)
        return
    work.sources = sources


def _student(work: _Work, part: Part, name: str, place: Place) -> tuple[_Candidate, list[str]]:
    """Write one student's files into their waiting places, and check the model."""
    deploy, options = part.deploy, work.options
    check_classes(deploy, work.classes)
    front = preprocessing(deploy) if options.preprocess else {}
    model = onnx_model(deploy, part.values, metadata(deploy, front, work.classes), front)
    onnx.checker.check_model(model, full_check=True)
    definition = Path(place(f"{name}.prototxt"))
    text = heading(deploy, options.path) + write_text(deploy.net.message)
    definition.write_text(text, encoding="utf-8")
    weights = place(f"{name}.caffemodel")
    write_caffemodel(weights, blobs_of(deploy, part.values), net_name=deploy.net.name)
    paths = save_model(model, place(f"{name}.onnx"))
    # On the CPU, since a GPU may multiply in fewer bits than the comparison allows.
    exported = Exported(paths[0], model, CPU)
    _check(work, part, exported, front)
    if work.device != CPU:
        exported = Exported(paths[0], model, work.device)
    if front:
        # Measured without: the TEST data comes as the net wants it.
        exported, _ = work.scratch(onnx_model(deploy, part.values, {}))
    candidate = _Candidate(part, exported, _size([weights]), _size(paths))
    return candidate, [Path(path).name for path in (str(definition), weights, *paths)]


def _check(work: _Work, part: Part, exported: Exported, front: Mapping[str, Preprocess]) -> None:
    deploy = part.deploy
    fed = deploy.fed
    real = {name: work.batch[top] for name, top in fed.items() if top in work.batch}
    batch = real if len(real) == len(fed) else None
    found = check_export(exported, deploy, part.values, batch, front)
    work.differences[deploy.head.blob] = found
    told = ", ".join(f"{value:.2g} at batch {size}" for size, value in found.items())
    work.log.line(places.OWN, f'"{deploy.head.blob}" against the trained net: {told}')


def _teacher(work: _Work, part: Part) -> _Candidate:
    """A teacher's model in memory; one that cannot be made is still weighed."""
    deploy = part.deploy
    size = encoded_bytes(blobs_of(deploy, part.values), net_name=deploy.net.name)
    try:
        exported, onnx_bytes = work.scratch(onnx_model(deploy, part.values, {}))
    except (LayerError, RunError) as error:
        warn(work.log, f'teacher "{deploy.head.blob}" is not measured', error)
        return _Candidate(part, None, size, None)
    return _Candidate(part, exported, size, onnx_bytes)


def _measure(work: _Work, candidates: Sequence[_Candidate]) -> Table:
    options = work.options
    scores, items = _scores(work, candidates)
    rows = []
    for candidate, top1 in zip(candidates, scores, strict=True):
        deploy = candidate.part.deploy
        cost = _cost(candidate)
        latency: Latency | None = None
        if candidate.exported is not None:
            latency = measure_latency(
                candidate.exported, deploy.inputs, batch=options.batch, runs=options.runs
            )
        rows.append(
            Row(
                deploy.head.blob,
                candidate.part.kind,
                deploy.parameters,
                cost.macs if cost else None,
                cost.flops if cost else None,
                candidate.caffemodel_bytes,
                candidate.onnx_bytes,
                latency,
                top1,
            )
        )
    return Table(tuple(rows), str(work.device), options.batch, options.runs, items)


def _cost(candidate: _Candidate) -> Cost | None:
    """None for a teacher that takes its own batch size only."""
    try:
        return candidate.part.deploy.cost()
    except LayerError:
        if candidate.exported is not None:
            raise
        return None


def _scores(work: _Work, candidates: Sequence[_Candidate]) -> tuple[list[float | None], int]:
    """Top-1 of each candidate that can be scored, and the number of items."""
    found: list[float | None] = [None] * len(candidates)
    if not work.sources:
        return found, 0
    contenders = {}
    for index, candidate in enumerate(candidates):
        label = _label_of(candidate.part, [other.part for other in candidates])
        if label is not None and candidate.exported is not None and candidate.part.loaded:
            fed = candidate.part.deploy.fed
            contenders[index] = Contender(candidate.exported, fed, label)
    count = work.options.iterations or _one_pass(work.sources)
    tallies = score(contenders.values(), work.sources, count)
    for index, tally in zip(contenders, tallies, strict=True):
        found[index] = tally.share
    return found, max((tally.counted for tally in tallies), default=0)


def _one_pass(sources: Sequence[Source]) -> int:
    """Batches that show each record once, as far as the default goes."""
    passes = [
        ceil(source.record_count / len(source.records(0)))
        for source in sources
        if source.record_count is not None
    ]
    return min([DEFAULT_ITERATIONS, *passes])


def _label_of(part: Part, parts: Sequence[Part]) -> Label | None:
    """A head's labels; those of the same classes where only a loss between nets reads it."""
    head = part.deploy.head
    if head.label is not None or not head.roles & PAIRED_ROLES:
        return head.label
    alike = (other.deploy for other in parts if other.deploy.shape == part.deploy.shape)
    return next((other.head.label for other in alike if other.head.label is not None), None)


def _size(paths: Sequence[str]) -> int:
    return sum(Path(path).stat().st_size for path in paths)
