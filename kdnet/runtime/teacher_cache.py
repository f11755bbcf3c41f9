"""Training with a teacher whose outputs are computed once a record and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import Training, compile_training
from kdnet.compile.frozen import Cut, Frontier, cut_frozen
from kdnet.data import Source
from kdnet.data.content import text_hash
from kdnet.data.teacher_cache import CacheOptions, StoredBlob, TeacherCache, open_cache
from kdnet.data.top_k import LOGITS, PROBABILITIES
from kdnet.errors import DataError, Diagnostic, Note, fail
from kdnet.net import LayerModel
from kdnet.runtime import log as places
from kdnet.runtime.device import Device
from kdnet.runtime.engine import Engine
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import Plan
from kdnet.runtime.state import StateBuffers
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import write_text
from kdnet.solvers import schedules_of
from kdnet.version import __version__

Array = NDArray[Any]
Shape = tuple[int, ...]

# Of a blob's largest value, in a batch: float32's own rounding, the tensor cores that CUDA
# convolutions use, float16's rounding.
TOLERANCE, CUDA_TOLERANCE, FP16_TOLERANCE = 1e-4, 5e-3, 2e-3
FORMS = {"logits": LOGITS, "student logits": LOGITS, "teacher logits": LOGITS}
FORMS |= {"probabilities": PROBABILITIES}
# What a layer's message says that does not change what the frozen layer computes.
UNIMPORTANT = ("bottom", "exclude", "include", "loss_weight", "name", "param", "propagate_down")


@dataclass(frozen=True)
class CachePlan:
    """A run whose net is cut in two, before its weights are known.

    Attributes:
        cut: the two parts.
        training: what trains the rest; its weights are the whole net's.
        names: the whole net's name of each weight of a part.
        options: what the command line says.
        blobs: how the outputs of the frozen part are kept.
        device: where the frozen part runs.
    """

    cut: Cut
    training: Training
    names: Mapping[str, str]
    options: CacheOptions
    blobs: tuple[StoredBlob, ...]
    device: Device

    def with_aliases(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """First values under the names of the parts as well."""
        shapes = {slot.name: slot.shape for slot in self.cut.frozen.weights}
        found = dict(values)
        for name, whole in self.names.items():
            found[name] = values[whole].reshape(shapes.get(name, values[whole].shape))
        return found

    def sources(
        self,
        opened: Sequence[Source],
        values: Mapping[str, Array],
        log: CaffeLog,
        start: int,
    ) -> list[Source]:
        """The net's sources, with the teacher's outputs beside the data that they are made of.

        Args:
            opened: the sources of the whole net.
            values: first values of all weights, as :meth:`with_aliases` gives them.
            log: hears what the cache holds.
            start: the number of the first batch.

        Raises:
            DataError: no-records, varying-records, mixed-records, cache-mismatch,
                damaged-cache, disk-space, cannot-write, non-finite-teacher, fp16-range.
        """
        base = next(source for source in opened if source.layer.name == self.cut.data.name)
        hint = "take that out of transform_param, or train without --cache-teacher"
        count = checked_count(base, hint)
        key = self._key(values, base, count)
        cache, told = open_cache(Path(self.options.folder), key, self.blobs, count)
        found = CachedTeacher(self, base, cache, values)
        try:
            self._tell(log, cache, told, count)
            found.check(log, start)
        except BaseException:
            cache.close()
            raise
        return [found if source is base else source for source in opened]

    def _tell(self, log: CaffeLog, cache: TeacherCache, told: str, count: int) -> None:
        for note in self.cut.held_back:
            hint = ("give the layers of the teacher phase: TEST",)
            text, span = note.message, note.span
            log.diagnostic(Diagnostic("moving-teacher", text, span, help=hint, severity="warning"))
        names = ", ".join(f'"{blob.name}" ({blob.stored})' for blob in self.blobs)
        layers = len(self.cut.cached)
        log.line(places.OWN, f"Teacher cache: {names} of {layers} frozen layers")
        there = f'"{cache.folder}" has {cache.count} of {count} records'
        log.line(places.OWN, f"Teacher cache: {there}{f'; {told}' if told else ''}")

    def _key(self, values: Mapping[str, Array], base: Source, count: int) -> dict[str, Any]:
        layers = self.cut.frozen.net.layers
        return {
            "kdnet": __version__,
            "device": self.device.kind,
            "records": count,
            "data": base.identity(),
            "layers": {f"{n:03} {_name(m)}": _layer_hash(m) for n, m in enumerate(layers)},
            "ops": _ops_hash(self.cut),
            "constants": _constants_hash(self.cut),
            "weights": {
                slot.name: _array_hash(values[slot.name]) for slot in self.cut.frozen.weights
            },
            "blobs": {blob.name: f"{list(blob.shape)} {blob.stored}" for blob in self.blobs},
        }


def plan_cache(plan: Plan, options: CacheOptions, device: Device) -> CachePlan:
    """Cut the train net, and compile what is left.

    Raises:
        LayerError: the net's faults, and those of :func:`kdnet.compile.frozen.cut_frozen`.
        NetError: the faults of the solver's schedules.
        DataError: cache-top-k.
    """
    shapes = plan.options.input_shapes
    moved = frozenset(item.layer for item in schedules_of(plan.solver, plan.net))
    cut = cut_frozen(plan.net, stay=moved, input_shapes=shapes, provider=device.kind)
    rest = compile_training(cut.rest, plan.solver, input_shapes=shapes, provider=device.kind)
    training, names = cut.joined(rest)
    blobs = tuple(_stored(found, options) for found in cut.frontier)
    return CachePlan(cut, training, names, options, blobs, device)


class CachedTeacher(Source):
    """A data layer's tops, and beside them the outputs of the frozen part for the same records.

    What is not kept yet is computed, kept, and then read back, so that it makes no difference to
    a run which records were there before.
    """

    def __init__(
        self, plan: CachePlan, base: Source, cache: TeacherCache, values: Mapping[str, Array]
    ) -> None:
        super().__init__(base.layer, seed=base.seed)
        frontier = plan.cut.frontier
        self.tops = (*base.tops, *(found.blob for found in frontier))
        self.notes = base.notes
        self._shapes = (*base.shapes, *(found.shape for found in frontier))
        self._plan, self._base, self._cache, self._values = plan, base, cache, values
        self._engine: Engine | None = None
        self._buffers = StateBuffers(plan.device, {})

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Those of the data layer, then those of the frozen part's outputs."""
        return self._shapes

    def batch(self, index: int) -> tuple[NDArray[np.float32], ...]:
        """The data of batch ``index``, and the teacher's answers to them."""
        data, records = self._base.batch(index), self._base.records(index)
        here = self._cache.has(records)
        if not here.all():
            live = self._live(data)
            self._cache.write(records[~here], [values[~here] for values in live])
            self._release_if_full()
        return (*data, *self._cache.read(records))

    def close(self) -> None:
        """Bring the cache to the disk, and close the data."""
        self._cache.close()
        self._base.close()

    def _release_if_full(self) -> None:
        """The memory of a teacher that is not run any more."""
        if self._cache.count == self._cache.size:
            self._engine = None

    def _live(self, data: Sequence[Array]) -> list[Array]:
        """Run the frozen part."""
        program = self._plan.cut.frozen.program
        if self._engine is None:
            self._engine = Engine(program, self._plan.device, self._values)
        feeds = dict(zip(self._base.tops, data, strict=True))
        found = self._engine.run(
            self._buffers, {name: feeds[name] for name in program.data}, keep=False
        )
        outputs = {report.blob: report.output for report in program.reports}
        return [np.array(found[outputs[blob.name]]) for blob in self._plan.blobs]

    def check(self, log: CaffeLog, start: int) -> None:
        """Hold a batch against the live frozen part.

        Where nothing is kept yet: that an output belongs to its record alone. Else: that what is
        kept is what comes out now.

        Raises:
            DataError: mixed-records, cache-mismatch.
        """
        if not self._cache.count:
            self._check_independence(start)
            return
        index = self._best_known(start)
        data, records = self._base.batch(index), self._base.records(index)
        here = self._cache.has(records)
        live = self._live(data)
        worst = 0.0
        for number, (blob, values) in enumerate(zip(self._plan.blobs, live, strict=True)):
            errors = blob.error(values[here], self._cache.kept(number, records[here]))
            allowed = self._tolerance(blob)
            if not (errors <= allowed).all():
                place = int(np.argmin(errors <= allowed))
                self._mismatch(number, int(records[here][place]), float(errors[place]))
            worst = max(worst, float(errors.max()))
        self._release_if_full()
        text = f"{int(here.sum())} records checked, largest difference {worst:.1e}"
        log.line(places.OWN, f"Teacher cache: {text}")

    def _tolerance(self, blob: StoredBlob) -> float:
        usual = TOLERANCE if self._plan.device.kind == "cpu" else CUDA_TOLERANCE
        return max(usual, FP16_TOLERANCE) if blob.fp16 else usual

    def _best_known(self, start: int) -> int:
        """The first batch of the next passes that is wholly kept, else the one kept most."""
        best, most = start, -1
        size = len(self._base.records(start))
        for index in range(start, start + 2 * (-(-self._cache.size // size)) + 1):
            known = int(self._cache.has(self._base.records(index)).sum())
            if known > most:
                best, most = index, known
            if known == size:
                break
        return best

    def _check_independence(self, start: int) -> None:
        """Each record's output must stay when its neighbours in the batch change."""
        data = self._base.batch(start)
        moved = [np.concatenate([values[:1], values[:-1]]) for values in data]
        frontier, blobs = self._plan.cut.frontier, self._plan.blobs
        for found, blob, one, other in zip(
            frontier, blobs, self._live(data), self._live(moved), strict=True
        ):
            wanted = np.concatenate([one[:1], one[:-1]])
            error = StoredBlob(blob.name, blob.shape).error(wanted, [other])
            if not (error <= self._tolerance(blob)).all():
                text = (
                    f'blob "{found.blob}" of one record depends on the other records of the '
                    "batch, so it cannot be kept by record"
                )
                refuse(found.maker, "mixed-records", text)

    def _mismatch(self, number: int, record: int, error: float) -> NoReturn:
        blob, folder = self._plan.blobs[number], self._cache.folder
        text = (
            f'what "{folder}" holds of blob "{blob.name}" is not what its layer gives now: record '
            f"{record} differs by {error:.1e} of the largest value, "
            f"{self._tolerance(blob):g} allowed"
        )
        hint = f'delete the folder "{folder}": it is made anew'
        refuse(self._plan.cut.frontier[number].maker, "cache-mismatch", text, help=(hint,))


def refuse(layer: LayerModel, code: str, text: str, **more: object) -> NoReturn:
    """Raise a DataError of a layer, at its place."""
    found = {"span": layer.position, **more}
    fail(DataError, code, f'layer "{layer.name}": {text}', **found)


def checked_count(base: Source, hint: str) -> int:
    """How many records the data have, whose values must stay.

    Raises:
        DataError: no-records, varying-records.
    """
    layer = base.layer
    if base.record_count is None:
        text = f"the teacher's outputs cannot be kept: {base.varies}"
        known = ("Data, HDF5Data, ImageData and MemoryData have records",)
        refuse(layer, "no-records", text, help=known)
    if base.varies:
        text = f"the teacher's outputs cannot be kept, since {base.varies}"
        span = layer.source.span(("transform_param",))
        refuse(layer, "varying-records", text, span=span, help=(hint,))
    return base.record_count


def _stored(found: Frontier, options: CacheOptions) -> StoredBlob:
    """How a blob is kept.

    Raises:
        DataError: cache-top-k.
    """
    shape = found.shape[1:]
    if not options.top_k:
        return StoredBlob(found.blob, shape, options.fp16)
    forms = {FORMS.get(reader.role, "") for reader in found.readers}
    if forms not in ({LOGITS}, {PROBABILITIES}) or not shape or prod(shape[1:]) != 1:
        readers = [reader for reader in found.readers if reader.role not in FORMS]
        notes = tuple(
            Note(f'layer "{reader.layer.name}" reads it as {reader.role or "values"}', place)
            for reader in readers
            if (place := reader.layer.position)
        )
        text = f'--cache-top-k keeps class scores, and blob "{found.blob}" is not only those'
        hint = ("leave --cache-top-k out; --cache-fp16 halves what is kept of any blob",)
        refuse(found.maker, "cache-top-k", text, notes=notes, help=hint)
    k = options.top_k if options.top_k < shape[0] else 0
    return StoredBlob(found.blob, shape, options.fp16, k, forms.pop() if k else "")


def _name(model: LayerModel) -> str:
    """A data layer counts by its data, whatever it is called."""
    return f"{model.name} ({model.type})" if model.bottoms else "data"


def _layer_hash(model: LayerModel) -> str:
    """A hash of what a frozen layer computes, and of what it reads and makes."""
    if not model.bottoms:
        return text_hash(*model.tops)
    message = pb.LayerParameter()
    message.CopyFrom(model.message)
    for field in (*UNIMPORTANT, "phase", "top"):
        message.ClearField(field)
    wiring = "; ".join(chain(model.bottoms, [""], model.tops))
    return text_hash(write_text(message), str(model.phase), wiring)


def _constants_hash(cut: Cut) -> str:
    """A hash of what the frozen graph holds beside its weights, as an embedded model does."""
    arrays = [tensor.value for tensor in cut.constants if tensor.value is not None]
    return text_hash(*(_array_hash(array) for array in arrays))


def _ops_hash(cut: Cut) -> str:
    """A hash of what the frozen graph does, whatever the batch size.

    An embedded model may change without its arrays or its layer.
    """
    nodes = cut.frozen.program.model.graph.node
    return text_hash(
        *(f"{node.op_type} {[str(attribute) for attribute in node.attribute]}" for node in nodes)
    )


def _array_hash(array: Array) -> str:
    head = f"{array.dtype} {array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()
