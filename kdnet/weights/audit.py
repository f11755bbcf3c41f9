"""Putting the layers of weight files into a net, and saying what became of every layer.

Caffe is silent about a layer that no file fills: the first public teacher-student experiment
compared its students against a random teacher without anyone noticing. Here a frozen layer that
nothing filled stops the run, and every weighted layer is accounted for.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kdnet.errors import Diagnostic, Note, Span, WeightsError
from kdnet.weights.model import Array, LayerBlobs, WeightFile

Shape = tuple[int, ...]
Values = dict[tuple[str, int], NDArray[np.float32]]

_LEGACY_AXES = 4
# Of so many layers each is warned of on its own.
_APART = 3


@dataclass(frozen=True)
class Target:
    """A layer of the net that has weights: the shapes it takes and whether a file must fill it.

    ``needs_file`` is set for a frozen layer whose fillers would leave it random. ``stored`` names
    the file that the layer itself takes its first values from, where no weight file has them.
    """

    layer: str
    shapes: tuple[Shape, ...]
    frozen: bool
    needs_file: bool
    span: Span | None
    stored: str = ""


@dataclass(frozen=True)
class AuditRow:
    """What became of one layer: ``loaded`` from ``file``, ``filler``, or ``mismatched``."""

    layer: str
    status: str
    blobs: int
    file: str
    frozen: bool


@dataclass(frozen=True)
class Audit:
    """The account of a load: a row a layer, what the files held in vain, and what is odd."""

    rows: tuple[AuditRow, ...]
    ignored: tuple[tuple[str, tuple[str, ...]], ...]
    warnings: tuple[str, ...]
    faults: tuple[Diagnostic, ...] = ()

    def text(self) -> str:
        """The account as a table, a summary line, then ignored layers and warnings."""
        cells = [("layer", "status", "blobs", "file")]
        for row in self.rows:
            status = f"{row.status}, frozen" if row.frozen else row.status
            cells.append((row.layer, status, str(row.blobs), row.file or "-"))
        widths = [max(len(line[column]) for line in cells) for column in range(3)]
        lines = [
            f"{name:<{widths[0]}}  {status:<{widths[1]}}  {blobs:>{widths[2]}}  {file}"
            for name, status, blobs, file in cells
        ]
        lines.append(self.summary())
        lines += [f"ignored in {file}: {', '.join(names)}" for file, names in self.ignored]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)

    def summary(self) -> str:
        """One line: how many layers were loaded, filled and mismatched."""
        counts = {
            status: sum(row.status == status for row in self.rows)
            for status in ("loaded", "filler", "mismatched")
        }
        text = f"{counts['loaded']} of {len(self.rows)} layers loaded"
        if counts["filler"]:
            text += f", {counts['filler']} initialised by fillers"
        if counts["mismatched"]:
            text += f", {counts['mismatched']} mismatched"
        return text


@dataclass(frozen=True)
class HeldLayer:
    """A layer of a file; ``take`` loads it and counts the values of each blob that are no numbers.

    It is called with the layer of the net that this one fills, if it fills one.
    """

    name: str
    shapes: tuple[Shape, ...]
    take: Callable[[Target], Sequence[int]]


@dataclass(frozen=True)
class HeldFile:
    """A file: its layers in order, and what a user should know of how they were understood."""

    path: str
    layers: tuple[HeldLayer, ...]
    doubts: tuple[str, ...] = ()


def assign(
    targets: Sequence[Target], files: Sequence[WeightFile], *, allow_unloaded: bool = False
) -> tuple[Values, Audit]:
    """Fill a net's layers from files by name, as Caffe does, and account for every layer.

    The first layer of a name inside a file counts; a later file wins over an earlier one. A
    stored four-axis shape equals a shorter one when leading ones make up the difference, which is
    how legacy files keep their blobs.

    Args:
        targets: The net's weighted layers.
        files: In the order in which they were named.
        allow_unloaded: Let frozen layers keep random values; each gets a warning.

    Returns:
        (layer, blob index) -> float32 values in the net's shape, for what was loaded, and the
        account.

    Raises:
        WeightsError: All of ``weights-shape-mismatch``, ``weights-blob-count`` and
            ``unloaded-teacher``.
    """
    values, audit = audit_weights(targets, files, allow_unloaded=allow_unloaded)
    if audit.faults:
        raise WeightsError(*audit.faults)
    return values, audit


def audit_weights(
    targets: Sequence[Target], files: Sequence[WeightFile], *, allow_unloaded: bool = False
) -> tuple[Values, Audit]:
    """As :func:`assign`, but faults are left in :attr:`Audit.faults` instead of raised."""
    values: Values = {}
    held = [
        HeldFile(
            file.path,
            tuple(HeldLayer(x.name, x.shapes, partial(_take, values, x)) for x in file.layers),
            file.doubts,
        )
        for file in files
    ]
    return values, audit_layers(targets, held, allow_unloaded=allow_unloaded)


def audit_layers(
    targets: Sequence[Target], files: Sequence[HeldFile], *, allow_unloaded: bool = False
) -> Audit:
    """The account of :func:`audit_weights`, of files whose numbers need not be in memory."""
    indexes = [_by_name(file) for file in files]
    wanted = {target.layer for target in targets}
    rows: list[AuditRow] = []
    faults: list[Diagnostic] = []
    warnings = [f'"{file.path}": {doubt}' for file in files for doubt in file.doubts]
    warnings += [text for file in files for text in _repeated(file)]
    for target in targets:
        file, layer, found = _find(target, files, indexes)
        faults += found
        rows.append(_row(target, file, found=layer is not None, misfits=bool(found)))
        if layer is not None and not found:
            warnings += _non_finite(file, target, layer.take(target))
    unloaded = _unloaded(targets, rows)
    if allow_unloaded:
        warnings += _allowed(unloaded)
    else:
        faults += _unloaded_faults(unloaded, wanted, files, indexes)
    warnings += _unused(files, indexes, wanted)
    ignored = tuple(
        (file.path, names)
        for file, index in zip(files, indexes, strict=True)
        if (names := tuple(name for name in index if name not in wanted))
    )
    return Audit(tuple(rows), ignored, tuple(warnings), tuple(faults))


def _allowed(unloaded: Sequence[Target]) -> list[str]:
    """A line for each layer, or one for many: the account's rows name them all."""
    names = [target.layer for target in unloaded]
    end = "random filler values (--allow-unloaded)"
    if len(names) > _APART:
        return [f'{len(names)} frozen layers, "{names[0]}" to "{names[-1]}", keep {end}']
    return [f'frozen layer "{name}" keeps {end}' for name in names]


def _row(target: Target, file: str, *, found: bool, misfits: bool) -> AuditRow:
    """Mismatched, loaded from a weight file or the layer's own, or left to its fillers."""
    if misfits:
        status = "mismatched"
    elif found or target.stored:
        status, file = "loaded", file or target.stored
    else:
        status = "filler"
    return AuditRow(target.layer, status, len(target.shapes), file, target.frozen)


def same_shape(stored: Shape, wanted: Shape) -> bool:
    """Whether a stored shape fits: equal, or equal once ``wanted`` has 4 axes (leading ones).

    A row (1, C) fits (1, C, 1, 1) too: forks differ in how they shape BN's blobs.
    """
    if stored == wanted or (stored[:1] == (1,) and (*stored, 1, 1) == wanted):
        return True
    padding = _LEGACY_AXES - len(wanted)
    return len(stored) == _LEGACY_AXES and padding >= 0 and stored == (1,) * padding + wanted


def _by_name(file: HeldFile) -> dict[str, HeldLayer]:
    """The layers with blobs; of several with one name the first."""
    found: dict[str, HeldLayer] = {}
    for layer in file.layers:
        if layer.shapes:
            found.setdefault(layer.name, layer)
    return found


def _repeated(file: HeldFile) -> list[str]:
    counts: dict[str, int] = {}
    for layer in file.layers:
        if layer.shapes:
            counts[layer.name] = counts.get(layer.name, 0) + 1
    return [
        f'"{file.path}" holds layer "{name}" {count} times; the first one counts'
        for name, count in counts.items()
        if count > 1
    ]


def _find(
    target: Target, files: Sequence[HeldFile], indexes: Sequence[dict[str, HeldLayer]]
) -> tuple[str, HeldLayer | None, list[Diagnostic]]:
    """The last file with the target's layer, that layer, and the misfits of every such file."""
    path = ""
    layer: HeldLayer | None = None
    faults: list[Diagnostic] = []
    for file, index in zip(files, indexes, strict=True):
        if target.layer in index:
            path, layer = file.path, index[target.layer]
            faults += _misfits(target, path, layer)
    return path, layer, faults


def _misfits(target: Target, path: str, layer: HeldLayer) -> list[Diagnostic]:
    advice = (
        "to learn this layer from scratch, rename it in the net",
        f"to load another layer into it, rename that layer: kdnet weights rename {_quote(path)} "
        f"-o OUT --map OTHER={_quote(target.layer)}",
    )
    if len(layer.shapes) != len(target.shapes):
        message = (
            f'layer "{target.layer}" takes {len(target.shapes)} blobs, '
            f'but "{path}" has {len(layer.shapes)} for it'
        )
        return [Diagnostic("weights-blob-count", message, target.span, help=advice)]
    return [
        Diagnostic(
            "weights-shape-mismatch",
            f'blob {index} of layer "{target.layer}" has shape {shape}, '
            f'but "{path}" holds shape {stored}',
            target.span,
            help=advice,
        )
        for index, (shape, stored) in enumerate(zip(target.shapes, layer.shapes, strict=True))
        if not same_shape(stored, shape)
    ]


def _take(values: Values, layer: LayerBlobs, target: Target) -> list[int]:
    # A double beyond float32's range becomes infinite; the account says so.
    with np.errstate(over="ignore"):
        taken = {
            (target.layer, index): blob.astype(np.float32, copy=False).reshape(shape)
            for index, (shape, blob) in enumerate(zip(target.shapes, layer.blobs, strict=True))
        }
    values |= taken
    return [non_finite(blob) for blob in taken.values()]


def non_finite(blob: Array) -> int:
    """How many values of a blob are not finite as float32."""
    with np.errstate(over="ignore"):
        return blob.size - int(np.isfinite(blob.astype(np.float32, copy=False)).sum())


def _non_finite(path: str, target: Target, counts: Sequence[int]) -> list[str]:
    return [
        f'blob {index} of layer "{target.layer}" in "{path}" has values that are not finite: '
        f"{count}"
        for index, count in enumerate(counts)
        if count
    ]


def _unloaded(targets: Sequence[Target], rows: Sequence[AuditRow]) -> list[Target]:
    return [
        target
        for target, row in zip(targets, rows, strict=True)
        if target.needs_file and row.status == "filler"
    ]


def _unloaded_faults(
    unloaded: Sequence[Target],
    wanted: set[str],
    files: Sequence[HeldFile],
    indexes: Sequence[dict[str, HeldLayer]],
) -> list[Diagnostic]:
    """One fault a layer; the advice that is the same for all stands with the first."""
    general = [
        "to train against random weights on purpose, pass --allow-unloaded",
    ]
    if not files:
        general.insert(0, "name the file that has the teacher's weights: --weights FILE")
    faults = []
    for position, target in enumerate(unloaded):
        notes, advice = _candidates(target, wanted, files, indexes)
        faults.append(
            Diagnostic(
                "unloaded-teacher",
                f'frozen layer "{target.layer}" was filled by no file: '
                "its weights would stay random",
                target.span,
                notes=notes,
                help=(*advice, *(general if position == 0 else ())),
            )
        )
    return faults


def _candidates(
    target: Target,
    wanted: set[str],
    files: Sequence[HeldFile],
    indexes: Sequence[dict[str, HeldLayer]],
) -> tuple[tuple[Note, ...], tuple[str, ...]]:
    """Layers of the files that the target may have meant: of the same shapes, or a near name."""
    spare = [
        (_likeness(name, target.layer), file.path, layer)
        for file, index in zip(files, indexes, strict=True)
        for name, layer in index.items()
        if name not in wanted
    ]
    fitting = [found for found in spare if _fits(target, found[2])]
    if fitting:
        _, path, layer = max(fitting, key=lambda found: found[0])
        shapes = ", ".join(map(str, layer.shapes))
        more = f" ({len(fitting)} layers fit)" if len(fitting) > 1 else ""
        note = Note(f'"{path}" has layer "{layer.name}" of the same shapes {shapes}{more}')
        mapping = f"{_quote(layer.name)}={_quote(target.layer)}"
        advice = f"if it is that one: kdnet weights rename {_quote(path)} -o OUT --map {mapping}"
        return (note,), (advice,)
    near = [found for found in spare if found[0] >= 0.6]
    if near:
        _, path, layer = max(near, key=lambda found: found[0])
        return (Note(f'"{path}" has layer "{layer.name}", of other shapes'),), ()
    return (), ()


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()


def _fits(target: Target, layer: HeldLayer) -> bool:
    return len(layer.shapes) == len(target.shapes) and not _misfits(target, "", layer)


def _unused(
    files: Sequence[HeldFile], indexes: Sequence[dict[str, HeldLayer]], wanted: set[str]
) -> list[str]:
    return [
        f'nothing was loaded from "{file.path}": '
        + ("none of its layers is in the net" if index else "it holds no blobs")
        for file, index in zip(files, indexes, strict=True)
        if not wanted & index.keys()
    ]


def _quote(text: str) -> str:
    return shlex.quote(text)
