"""Snapshots: trained weights as .caffemodel, history and cursor as .solverstate.

Batches and noise are pure functions of the seed and the iteration, so the iteration is the whole
cursor, and a resumed run continues bit for bit on the CPU.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import Training, WeightSlot
from kdnet.errors import Note, WeightsError, fail
from kdnet.runtime.solver_states import Resume, write_state
from kdnet.solvers import Remember
from kdnet.weights import LayerBlobs, write_caffemodel, write_weights
from kdnet.weights.audit import same_shape

Array = NDArray[Any]


def layers_of(
    slots: Sequence[WeightSlot],
    types: Mapping[str, str],
    value: Mapping[str, Array],
    *,
    full: bool,
    diffs: Mapping[str, Array] | None = None,
) -> list[LayerBlobs]:
    """The layers of a snapshot, in the net's order.

    Args:
        slots: the net's weights.
        types: layer name to layer type, in the net's order.
        value: array by weight name.
        full: whether layers with frozen weights only are kept too.
        diffs: what to store as the weights' diffs (snapshot_diff), by weight name; zeros where it
            has none.
    """
    blobs: dict[str, dict[int, Array]] = {}
    beside: dict[str, dict[int, Array]] = {}
    kept: set[str] = set()
    for slot in slots:
        for (layer, index), shape in zip(slot.users, slot.user_shapes, strict=True):
            blobs.setdefault(layer, {})[index] = value[slot.name].reshape(shape)
            if diffs is not None:
                diff = diffs.get(slot.name, np.zeros(slot.shape, np.float32))
                beside.setdefault(layer, {})[index] = diff.reshape(shape)
            if full or slot.role != "frozen":
                kept.add(layer)
    return [
        LayerBlobs(name, kind, _in_order(blobs[name]), diffs=_in_order(beside.get(name, {})))
        for name, kind in types.items()
        if name in kept
    ]


def _in_order(blobs: Mapping[int, Array]) -> tuple[Array, ...]:
    return tuple(array for _, array in sorted(blobs.items()))


def check_place(prefix: str) -> None:
    """Refuse a place where no snapshot can be written, before hours are spent.

    Raises:
        WeightsError: cannot-write.
    """
    folder = _folder_of(prefix)
    probe = folder / f".kdnet-{secrets.token_hex(6)}.tmp"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        _cannot_write(folder, error)


def _folder_of(prefix: str) -> Path:
    """The folder of a prefix's snapshots, made if it is not there."""
    folder = Path(f"{prefix}_iter").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _cannot_write(folder, error)
    return folder


def _cannot_write(folder: Path, error: OSError) -> NoReturn:
    text = f'cannot write snapshots to the folder "{folder}": {error.strerror}'
    fail(WeightsError, "cannot-write", text, help=("name another one with --out",))


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot is made of: the net's layers, and where the run stands."""

    layers: Sequence[LayerBlobs]
    net_name: str
    state: Resume


def save(prefix: str, found: Snapshot, *, hdf5: bool = False) -> tuple[str, str]:
    """Write ``<prefix>_iter_N.caffemodel`` and ``.solverstate``; the weights come first.

    Args:
        prefix: where.
        found: what.
        hdf5: whether both are HDF5 files, and end in ``.h5`` (snapshot_format).

    Raises:
        WeightsError: cannot-write; what was there before stays whole. unwritable-layer, for names
            that HDF5 does not allow.
    """
    stem, ending = f"{prefix}_iter_{found.state.iteration}", ".h5" if hdf5 else ""
    _folder_of(prefix)
    model_path, state_path = f"{stem}.caffemodel{ending}", f"{stem}.solverstate{ending}"
    if hdf5:
        write_weights(model_path, found.layers, format="hdf5", net_name=found.net_name)
    else:
        write_caffemodel(model_path, found.layers, net_name=found.net_name)
    write_state(state_path, replace(found.state, learned_net=model_path), hdf5=hdf5)
    return model_path, state_path


def history_of(
    training: Training, history: Mapping[str, Array], layers: Iterable[LayerBlobs]
) -> dict[str, Array]:
    """The history as Caffe stores it: a blob for each weight of the layers that are saved.

    The weights are in the net's order, one slot of the update rule after the other; what is not
    trained has zeros.
    """
    saved = {layer.name for layer in layers}
    weights = [slot for slot in training.weights if slot.layer in saved]
    found: dict[str, Array] = {}
    for slot in _slots(training):
        for weight in weights:
            name = f"history/{slot}/{weight.name}"
            found[name] = history.get(name, np.zeros(weight.shape, np.float32))
    return found


def last_updates(training: Training, history: Mapping[str, Array]) -> dict[str, Array] | None:
    """What was last subtracted from each weight, where the update rule keeps it."""
    (slot,) = Remember.slots
    start = f"history/{slot}/"
    kept = {weight: name for name, weight in training.histories.items() if name.startswith(start)}
    return {weight: history[name] for weight, name in kept.items()} or None


def _slots(training: Training) -> list[str]:
    """The update rule's slots in order, without what only snapshot_diff wants."""
    found = dict.fromkeys(
        name.removesuffix(f"/{weight}").removeprefix("history/")
        for name, weight in training.histories.items()
    )
    return [slot for slot in found if slot not in Remember.slots]


def resumed(resume: Resume | None, training: Training, path: str) -> Resume | None:
    """The snapshot ``path`` with its history by this run's input names.

    Caffe's own files name no history: theirs is in the order of the net's weights, one solver
    slot after the other.

    Raises:
        WeightsError: snapshot-mismatch, when the history is not that of this net and solver.
    """
    if resume is None:
        return None
    order = [
        f"history/{slot}/{weight.name}" for slot in _slots(training) for weight in training.weights
    ]
    wanted = {name: weight for name, weight in training.histories.items() if name in order}
    history = dict(resume.history)
    if list(history) == [str(index) for index in range(len(order))]:
        history = dict(zip(order, history.values(), strict=True))
    shapes = {slot.name: slot.shape for slot in training.weights}
    odd = [name for name in wanted if name not in history] + [
        name
        for name, array in history.items()
        if name not in order
        or (name in wanted and not same_shape(array.shape, shapes[wanted[name]]))
    ]
    if odd:
        text = f'"{path}" was written by another net or solver: its history does not fit'
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        note = Note(f"missing, unknown or of another shape: {', '.join(odd[:3])}{more}")
        hint = ("to start from its weights alone, pass the .caffemodel to --weights",)
        fail(WeightsError, "snapshot-mismatch", text, notes=(note,), help=hint)
    fitted = {name: history[name].reshape(shapes[weight]) for name, weight in wanted.items()}
    return replace(resume, history=fitted)
