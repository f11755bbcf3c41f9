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
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from kdnet.compile import Training, WeightSlot
from kdnet.errors import Note, WeightsError, fail
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import (
    LayerBlobs,
    WireError,
    atomic_write,
    decode_blob,
    encode_blob,
    write_caffemodel,
)
from kdnet.weights.audit import same_shape

Array = NDArray[Any]


@dataclass(frozen=True)
class Resume:
    """What a .solverstate holds: where the run stands and its history by input name."""

    iteration: int
    seed: int | None
    learned_net: str
    history: Mapping[str, Array]


def layers_of(
    slots: Sequence[WeightSlot],
    types: Mapping[str, str],
    value: Mapping[str, Array],
    *,
    full: bool,
) -> list[LayerBlobs]:
    """The layers of a snapshot, in the net's order.

    Args:
        slots: the net's weights.
        types: layer name to layer type, in the net's order.
        value: array by weight name.
        full: whether layers with frozen weights only are kept too.
    """
    blobs: dict[str, dict[int, Array]] = {}
    kept: set[str] = set()
    for slot in slots:
        for (layer, index), shape in zip(slot.users, slot.user_shapes, strict=True):
            blobs.setdefault(layer, {})[index] = value[slot.name].reshape(shape)
            if full or slot.role != "frozen":
                kept.add(layer)
    return [
        LayerBlobs(name, kind, tuple(array for _, array in sorted(blobs[name].items())))
        for name, kind in types.items()
        if name in kept
    ]


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


def save(
    prefix: str, iteration: int, layers: Iterable[LayerBlobs], net_name: str, state: Resume
) -> tuple[str, str]:
    """Write ``<prefix>_iter_N.caffemodel`` and ``.solverstate``; the weights come first.

    Raises:
        WeightsError: cannot-write; what was there before stays whole.
    """
    stem = f"{prefix}_iter_{iteration}"
    _folder_of(prefix)
    model_path, state_path = f"{stem}.caffemodel", f"{stem}.solverstate"
    write_caffemodel(model_path, list(layers), net_name=net_name)
    message = pb.SolverState(iter=iteration, learned_net=model_path)
    if state.seed is not None:
        message.seed = state.seed
    for name, array in state.history.items():
        message.history_name.append(name)
        message.history.add().MergeFromString(encode_blob(np.asarray(array, np.float32)))
    with atomic_write(state_path) as file:
        file.write(message.SerializeToString(deterministic=True))
    return model_path, state_path


def load(path: str) -> Resume:
    """Read a .solverstate.

    Raises:
        WeightsError: missing-snapshot, bad-snapshot.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        hint = ("name the .solverstate file that the run wrote",)
        fail(
            WeightsError, "missing-snapshot", f'cannot read "{path}": {error.strerror}', help=hint
        )
    message = pb.SolverState()
    try:
        message.ParseFromString(raw)
    except DecodeError:
        message.Clear()
    if not message.learned_net:
        hint = ("a .solverstate is wanted; for weights alone use --weights",)
        fail(WeightsError, "bad-snapshot", f'"{path}" is not a .solverstate file', help=hint)
    names = list(message.history_name)
    arrays = [_array(path, blob) for blob in message.history]
    if names and len(names) != len(arrays):
        fail(
            WeightsError, "bad-snapshot", f'"{path}" names {len(names)} of {len(arrays)} histories'
        )
    keys = names or [str(index) for index in range(len(arrays))]
    seed = message.seed if message.HasField("seed") else None
    return Resume(message.iter, seed, message.learned_net, dict(zip(keys, arrays, strict=True)))


def resumed(resume: Resume | None, training: Training, path: str) -> Resume | None:
    """The snapshot ``path`` with its history by this run's input names.

    Caffe's own files name no history: theirs is in the order of the net's weights, one solver
    slot after the other.

    Raises:
        WeightsError: snapshot-mismatch, when the history is not that of this net and solver.
    """
    if resume is None:
        return None
    wanted = training.histories
    slots = dict.fromkeys(
        name.removesuffix(weight).removeprefix("history/") for name, weight in wanted.items()
    )
    order = [f"history/{slot}{weight.name}" for slot in slots for weight in training.weights]
    history = dict(resume.history)
    if list(history) == [str(index) for index in range(len(order))]:
        named = zip(order, history.values(), strict=True)
        history = {name: array for name, array in named if name in wanted}
    shapes = {slot.name: slot.shape for slot in training.weights}
    odd = [name for name in wanted if name not in history] + [
        name
        for name, array in history.items()
        if name not in wanted or not same_shape(array.shape, shapes[wanted[name]])
    ]
    if odd:
        text = f'"{path}" was written by another net or solver: its history does not fit'
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        note = Note(f"missing, unknown or of another shape: {', '.join(odd[:3])}{more}")
        hint = ("to start from its weights alone, pass the .caffemodel to --weights",)
        fail(WeightsError, "snapshot-mismatch", text, notes=(note,), help=hint)
    fitted = {name: array.reshape(shapes[wanted[name]]) for name, array in history.items()}
    return replace(resume, history=fitted)


def _array(path: str, blob: pb.BlobProto) -> Array:
    raw = blob.SerializeToString()
    try:
        array, _ = decode_blob(raw, 0, len(raw))
    except WireError as error:
        fail(WeightsError, "bad-snapshot", f'"{path}" is damaged: {error}')
    return array.astype(np.float32, copy=False)
