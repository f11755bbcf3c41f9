"""``kdnet data soft-labels``: a net's answers to every record of its data, in a file."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile.evaluation import Evaluation
from kdnet.compile.frozen import compile_blobs, one_source
from kdnet.data import Source
from kdnet.data.answers import CLASSES, REST
from kdnet.data.packages import package
from kdnet.data.steps import Advance, Start, ignore
from kdnet.data.teacher_cache import StoredBlob, check_finite, check_space
from kdnet.errors import DataError, UsageError, did_you_mean, fail
from kdnet.layers import is_data
from kdnet.net import LayerModel, NetModel, NetState, needed, resolve_net
from kdnet.runtime import log as places
from kdnet.runtime.device import choose_device
from kdnet.runtime.engine import Engine
from kdnet.runtime.feeding import open_sources
from kdnet.runtime.joining import NamedNet, read_named
from kdnet.runtime.loading import initial_values
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import asked_for, check_input_shapes, check_net
from kdnet.runtime.state import StateBuffers
from kdnet.runtime.teacher_cache import checked_count
from kdnet.schema import Located
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import atomic_write, read_weights

Array = NDArray[Any]

SUFFIXES = (".npz", ".h5", ".hdf5")
_COPIED_ROWS = 4096


@dataclass(frozen=True)
class AnswerOptions:
    """What ``kdnet data soft-labels`` was asked for; ``top_k`` 0 keeps all classes."""

    path: str
    blob: str
    out: Path
    weights: tuple[str, ...] = ()
    train: bool = True
    form: str = "logits"
    top_k: int = 0
    fp16: bool = False
    device: str = "auto"
    level: int | None = None
    stages: tuple[str, ...] = ()
    allow_unloaded: bool = False
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """How many answers were written, and how each is kept."""

    count: int
    stored: StoredBlob


def write_answers(options: AnswerOptions, log: CaffeLog, start: Start = ignore) -> Written:
    """Run a net in TEST phase on every record of its data, once.

    Raises:
        UsageError: answers-suffix, unknown-blob, not-a-net.
        NetError: wiring faults, in either phase.
        LayerError: the net's faults; frozen-two-sources.
        DataError: no-records, varying-records, not-per-record, disk-space, fp16-range,
            non-finite-teacher.
        WeightsError: cannot-write, and the faults of weight files.
    """
    if options.out.suffix not in SUFFIXES:
        text = f'"{options.out}" does not say what it is to be'
        fail(UsageError, "answers-suffix", text, help=(f"end it with {', '.join(SUFFIXES)}",))
    device, why = choose_device(options.device)
    log.line(places.OWN, f"Device: {device} ({why})")
    check_net(options.path)
    named = read_named(options.path)
    net = _answering_net(options, named.located)
    shapes = options.input_shapes
    check_input_shapes(shapes, [net])
    program, _ = compile_blobs(net, (options.blob,), input_shapes=shapes, provider=device.kind)
    values = _values(options, program, named, log)
    engine = Engine(program.program, device, values)
    (base,) = open_sources(net, seed=0, shapes=shapes)
    try:
        hint = "take that out of transform_param"
        count = checked_count(base, hint)
        stored = _stored(options, program, base)
        with _spool(options.out, stored, count) as folder:
            spool = _arrays(Path(folder), options.form, stored, count)
            _answer(engine, base, stored, list(spool.values()), start(count))
            _package(options.out, Path(folder), spool)
    finally:
        base.close()
    return Written(count, stored)


def _answering_net(options: AnswerOptions, located: Located[pb.NetParameter]) -> NetModel:
    """What the blob needs of the TEST net, above the data layers of the phase asked for."""
    stated = NetState().merged(located.message.state)
    state = asked_for(stated, options.level, options.stages)
    phases = (pb.TRAIN if options.train else pb.TEST, pb.TEST)
    nets = [
        resolve_net(located.message, located.source, replace(state, phase=phase))
        for phase in phases
    ]
    data = [replace(layer, phase=pb.TEST) for layer in nets[0].layers if is_data(layer)]
    layers, known = list[LayerModel](), set[str]()
    for layer in (*data, *(layer for layer in nets[1].layers if not is_data(layer))):
        if known.issuperset(layer.bottoms):
            layers.append(layer)
            known.update(layer.tops)
    net = replace(nets[1], layers=tuple(layers), outputs=())
    if options.blob not in known:
        text = f'net "{net.name}" makes no blob "{options.blob}" in phase TEST'
        fail(UsageError, "unknown-blob", text, help=did_you_mean(options.blob, known))
    kept = needed(net, [options.blob])
    one_source(net, kept, f'blob "{options.blob}"')
    return replace(net, layers=tuple(layers[i] for i in kept))


def _values(
    options: AnswerOptions, program: Evaluation, named: NamedNet, log: CaffeLog
) -> dict[str, Array]:
    files = [*named.files, *(read_weights(path) for path in options.weights)]
    values, audit = initial_values(
        program.weights, files, seed=0, allow_unloaded=options.allow_unloaded
    )
    for line in audit.text().splitlines():
        log.line(places.OWN, line)
    return values


def _stored(options: AnswerOptions, program: Evaluation, base: Source) -> StoredBlob:
    """How an answer is kept: (classes) or top_k of them.

    Raises:
        DataError: not-per-record.
    """
    (report,) = program.program.reports
    size = len(base.records(0))
    if not report.shape or report.shape[0] != size:
        text = f'blob "{options.blob}" of shape {report.shape} has no row for each of {size} items'
        fail(DataError, "not-per-record", text, span=report.span)
    classes = prod(report.shape[1:])
    k = options.top_k if options.top_k < classes else 0
    return StoredBlob(options.blob, (classes,), options.fp16, k, options.form if k else "")


def _spool(out: Path, stored: StoredBlob, count: int) -> TemporaryDirectory[str]:
    """A folder beside the file, with room for two copies of it.

    Raises:
        DataError: disk-space, cannot-write.
    """
    bytes_each = sum(prod(shape) * np.dtype(kind).itemsize for _, shape, kind in stored.arrays)
    folder = out.parent
    if not folder.is_dir():
        fail(DataError, "cannot-write", f'cannot write "{out}": the folder does not exist')
    check_space(folder, 2 * count * bytes_each, "--fp16 halves them, --top-k K keeps K classes")
    return TemporaryDirectory(prefix=".kdnet-", dir=folder)


def _arrays(folder: Path, name: str, stored: StoredBlob, count: int) -> dict[str, Any]:
    """An array on disk for each that the file is to hold."""
    suffixes = {"values": "", "classes": CLASSES, "rest": REST}
    return {
        name + suffixes[part]: np.lib.format.open_memmap(
            folder / f"{name}{suffixes[part]}.npy", "w+", kind, (count, *shape)
        )
        for part, shape, kind in stored.arrays
    }


def _answer(
    engine: Engine, base: Source, stored: StoredBlob, arrays: Sequence[Array], advance: Advance
) -> None:
    """Run batches until every record was seen."""
    buffers = StateBuffers(engine.device, {})
    seen = np.zeros(len(arrays[0]), bool)
    (report,) = engine.program.reports
    index = 0
    while not seen.all():
        records = base.records(index)
        feeds = dict(zip(base.tops, base.batch(index), strict=True))
        index += 1
        fed = {name: feeds[name] for name in engine.program.data}
        live = engine.run(buffers, fed, keep=False)[report.output].reshape(len(records), -1)
        kept = stored.encoded(live)
        check_finite(stored, live, kept[0], records)
        for array, values in zip(arrays, kept, strict=True):
            array[records] = values
        fresh = np.unique(records[~seen[records]])
        seen[records] = True
        advance(len(fresh))


def _package(out: Path, folder: Path, arrays: Mapping[str, Any]) -> None:
    """The arrays as one file in place of ``out``, whole or not at all."""
    for array in arrays.values():
        array.flush()
    if out.suffix == ".npz":
        with atomic_write(out) as file, zipfile.ZipFile(file, "w") as archive:
            for name in arrays:
                archive.write(folder / f"{name}.npy", f"{name}.npy")
        return
    made = folder / "answers.h5"
    with package("h5py").File(made, "w") as file:
        for name, array in arrays.items():
            dataset = file.create_dataset(name, array.shape, array.dtype)
            for begin in range(0, len(array), _COPIED_ROWS):
                dataset[begin : begin + _COPIED_ROWS] = array[begin : begin + _COPIED_ROWS]
    with made.open("rb") as source, atomic_write(out) as target:
        shutil.copyfileobj(source, target)
