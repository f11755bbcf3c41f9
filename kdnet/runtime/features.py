"""``kdnet extract-features``: what a net makes of its TEST data, as databases or arrays."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import Evaluation, Report, compile_evaluation
from kdnet.data.database import Record
from kdnet.data.leveldb_writer import fill_leveldb
from kdnet.data.lmdb_writer import check_target, fill_lmdb, write_database
from kdnet.data.packages import package
from kdnet.data.steps import Start, ignore
from kdnet.errors import DataError, UsageError, did_you_mean, fail
from kdnet.net import NetModel, needed
from kdnet.runtime import log as places
from kdnet.runtime.device import choose_device
from kdnet.runtime.feeding import open_sources
from kdnet.runtime.hosted import open_engine
from kdnet.runtime.joining import read_named
from kdnet.runtime.loading import initial_values
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import check_input_shapes
from kdnet.runtime.state import StateBuffers
from kdnet.runtime.summary import resolved
from kdnet.runtime.trainer import TestNet, evaluation_batches
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import atomic_write, read_weights

Array = NDArray[Any]
Shape = tuple[int, ...]

FORMS = ("lmdb", "leveldb", "npz", "hdf5")
_SUFFIXES = {".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5"}
_DATABASES = {"lmdb": fill_lmdb, "leveldb": fill_leveldb}
# A Datum has channels, height and width.
_MOST_AXES = 3
_COPIED_ROWS = 4096


@dataclass(frozen=True)
class FeatureOptions:
    """What ``kdnet extract-features`` was asked for; ``form`` "" goes by each file's ending."""

    path: str
    blobs: tuple[str, ...]
    outs: tuple[Path, ...]
    batches: int
    weights: tuple[str, ...] = ()
    form: str = ""
    force: bool = False
    device: str = "auto"
    seed: int = 0
    level: int | None = None
    stages: tuple[str, ...] = ()
    allow_unloaded: bool = False
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)


@dataclass(frozen=True)
class Features:
    """What was written of a blob: ``count`` rows of ``shape``."""

    blob: str
    out: Path
    form: str
    count: int
    shape: Shape


def extract_features(
    options: FeatureOptions, log: CaffeLog, start: Start = ignore
) -> tuple[Features, ...]:
    """Run a net in TEST phase and write each blob's rows, a row an item.

    A database gets a Datum of floats for each row under its number in ten digits; an array file
    one array under the blob's name.

    Raises:
        UsageError: blob-count, same-output, unknown-blob, not-a-net.
        DataError: target-exists and what else writing meets; too-many-axes; disk-space.
        KdnetError: the faults of the net, its data and its weights.
    """
    _check_outputs(options)
    net = _extracting_net(options)
    shapes = options.input_shapes
    device, why = choose_device(options.device)
    log.line(places.OWN, f"Device: {device} ({why})")
    evaluation = compile_evaluation(net, input_shapes=shapes, provider=device.kind)
    plans = _plans(options, evaluation)
    files = [*read_named(options.path).files, *(read_weights(path) for path in options.weights)]
    values, audit = initial_values(
        evaluation.weights, files, seed=options.seed, allow_unloaded=options.allow_unloaded
    )
    for line in audit.text().splitlines():
        log.line(places.OWN, line)
    engine = open_engine(evaluation.program, evaluation.hosted, device, values)
    with ExitStack() as opened:
        sources = open_sources(net, seed=options.seed, shapes=shapes)
        for source in sources:
            opened.callback(source.close)
        spool = opened.enter_context(_spool(plans))
        arrays = [_array(Path(spool), index, found) for index, (found, _) in enumerate(plans)]
        test = TestNet(evaluation, sources, options.batches)
        advance = start(options.batches)
        state = StateBuffers(device, {})
        for batch, live in enumerate(evaluation_batches(engine, test, state, options.seed)):
            for (found, report), array in zip(plans, arrays, strict=True):
                rows = found.count // options.batches
                made = live[report.output].reshape(rows, *found.shape)
                array[batch * rows : (batch + 1) * rows] = made
            advance(1)
        for (found, _), array in zip(plans, arrays, strict=True):
            _write(found, array, force=options.force)
    return tuple(found for found, _ in plans)


def _check_outputs(options: FeatureOptions) -> None:
    """Everything that can be known before the net is read."""
    if len(options.blobs) != len(options.outs):
        text = f"{len(options.blobs)} blobs, but {len(options.outs)} files to write them to"
        fail(UsageError, "blob-count", text, help=("name an output for each blob",))
    if len({out.resolve() for out in options.outs}) < len(options.outs):
        fail(UsageError, "same-output", "two blobs would be written to one file")
    for out in options.outs:
        if form_of(options, out) in _DATABASES:
            check_target(out, force=options.force)
        elif not out.parent.is_dir():
            fail(DataError, "cannot-write", f'cannot write "{out}": the folder does not exist')


def form_of(options: FeatureOptions, out: Path) -> str:
    """The form asked for, else the one that the file's ending says, else LMDB."""
    return options.form or _SUFFIXES.get(out.suffix.lower(), "lmdb")


def _extracting_net(options: FeatureOptions) -> NetModel:
    """What the blobs need of the TEST net; what is below them is not run."""
    net = resolved(options.path, pb.TEST, options.level, options.stages)
    check_input_shapes(options.input_shapes, [net])
    known = {top for layer in net.layers for top in layer.tops}
    for blob in options.blobs:
        if blob not in known:
            text = f'net "{net.name}" makes no blob "{blob}" in phase TEST'
            fail(UsageError, "unknown-blob", text, help=did_you_mean(blob, known))
    kept = needed(net, options.blobs)
    layers = tuple(net.layers[index] for index in kept)
    return replace(net, layers=layers, outputs=tuple(sorted(set(options.blobs))))


def _plans(options: FeatureOptions, evaluation: Evaluation) -> list[tuple[Features, Report]]:
    """What each output will hold, and the report that it comes from.

    Raises:
        DataError: too-many-axes.
    """
    reports = {report.blob: report for report in evaluation.program.reports}
    found = []
    for blob, out in zip(options.blobs, options.outs, strict=True):
        report, form = reports[blob], form_of(options, out)
        rows, shape = report.shape[0] if report.shape else 1, report.shape[1:]
        if form in _DATABASES and len(shape) > _MOST_AXES:
            text = f'blob "{blob}" of shape {report.shape} does not fit the records of a database'
            hint = ("--to npz and --to hdf5 hold any shape",)
            fail(DataError, "too-many-axes", text, span=report.span, help=hint)
        found.append((Features(blob, out, form, rows * options.batches, shape), report))
    return found


def _spool(plans: Sequence[tuple[Features, Report]]) -> TemporaryDirectory[str]:
    """A folder beside the first output, with room for two copies of all.

    Raises:
        DataError: disk-space.
    """
    folder = plans[0][0].out.parent
    numbers = sum(found.count * int(np.prod(found.shape, dtype=np.int64)) for found, _ in plans)
    wanted, free = 2 * 4 * numbers, shutil.disk_usage(folder).free
    if wanted > free:
        text = f'the features need {wanted / 1e6:.1f} MB in "{folder}", {free / 1e6:.1f} are free'
        fail(DataError, "disk-space", text, help=("extract fewer batches",))
    return TemporaryDirectory(prefix=".kdnet-", dir=folder)


def _array(folder: Path, index: int, found: Features) -> Array:
    path = folder / f"{index}.npy"
    made: Array = np.lib.format.open_memmap(path, "w+", np.float32, (found.count, *found.shape))
    return made


def _write(found: Features, array: Array, *, force: bool) -> None:
    if found.form in _DATABASES:
        fill = _DATABASES[found.form]
        write_database(found.out, _records(array), force=force, fill=fill)
    elif found.form == "npz":
        with (
            atomic_write(found.out) as file,
            zipfile.ZipFile(file, "w") as archive,
            archive.open(f"{found.blob}.npy", "w", force_zip64=True) as entry,
        ):
            np.lib.format.write_array(entry, array)
    else:
        _write_hdf5(found, array)


def _write_hdf5(found: Features, array: Array) -> None:
    with TemporaryDirectory(prefix=".kdnet-", dir=found.out.parent) as folder:
        made = Path(folder) / "features.h5"
        with package("h5py").File(made, "w") as file:
            dataset = file.create_dataset(found.blob, array.shape, array.dtype)
            for begin in range(0, len(array), _COPIED_ROWS):
                dataset[begin : begin + _COPIED_ROWS] = array[begin : begin + _COPIED_ROWS]
        with made.open("rb") as source, atomic_write(found.out) as target:
            shutil.copyfileobj(source, target)


def _records(array: Array) -> Iterator[Record]:
    """A Datum of floats for each row, as Caffe writes it; absent axes are 1."""
    channels, height, width = (*array.shape[1:], 1, 1, 1)[:3]
    for number, row in enumerate(array):
        datum = pb.Datum(channels=channels, height=height, width=width)
        datum.float_data.extend(row.reshape(-1).tolist())
        yield b"%010d" % number, datum.SerializeToString()
