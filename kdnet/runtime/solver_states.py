"""Files that say where a run stands: .solverstate, or .solverstate.h5 as Caffe lays it out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from kdnet.errors import WeightsError, fail
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import WireError, atomic_write, decode_blob, encode_blob
from kdnet.weights.hdf5 import SIGNATURE, child, open_hdf5, read_array

Array = NDArray[Any]
_NAME = "name"
_LONGEST_PATH = 1 << 16


@dataclass(frozen=True)
class Resume:
    """What a solver state holds.

    Attributes:
        iteration: how many updates were made.
        seed: the run's; None in Caffe's own files.
        learned_net: the weight file that belongs to it.
        history: the update rule's, by input name; by number in Caffe's own files.
        step: Caffe's current_step: how far lr_policy step, multistep or plateau has come.
        losses: those of the last average_loss iterations, where more than one is kept.
        lowest: the lowest smoothed loss, for plateau.
        last_event: the iteration at which plateau last saw a lower loss, or made the rate drop.
    """

    iteration: int
    seed: int | None
    learned_net: str
    history: Mapping[str, Array] = field(default_factory=dict)
    step: int = 0
    losses: Sequence[float] = ()
    lowest: float = math.inf
    last_event: int = 0


def write_state(path: str, state: Resume, *, hdf5: bool = False) -> None:
    """Write a state, atomically; Caffe reads it too.

    Raises:
        WeightsError: cannot-write.
    """
    with atomic_write(path) as file:
        if hdf5:
            _write_hdf5(file, state)
        else:
            file.write(_message(state).SerializeToString(deterministic=True))


def _message(state: Resume) -> pb.SolverState:
    message = pb.SolverState(
        iter=state.iteration, learned_net=state.learned_net, current_step=state.step
    )
    if state.seed is not None:
        message.seed = state.seed
    message.recent_loss.extend(state.losses)
    if state.lowest < math.inf:
        message.minimum_loss, message.iter_last_event = state.lowest, state.last_event
    for name, array in state.history.items():
        message.history_name.append(name)
        message.history.add().MergeFromString(encode_blob(np.asarray(array, np.float32)))
    return message


def _write_hdf5(file: BinaryIO, state: Resume) -> None:
    import h5py

    numbers: dict[str, Array] = {
        "iter": np.array([state.iteration], np.int32),
        "current_step": np.array([state.step], np.int32),
        "recent_loss": np.array(state.losses, np.float64),
    }
    if state.seed is not None:
        numbers["seed"] = np.array([state.seed], np.int64)
    if state.lowest < math.inf:
        numbers["minimum_loss"] = np.array([state.lowest], np.float64)
        numbers["iter_last_event"] = np.array([state.last_event], np.int32)
    named = state.learned_net.encode()
    with h5py.File(file.name, "w") as out:
        for name, values in numbers.items():
            out.create_dataset(name, data=values)
        # Caffe reads it as a string of C: the byte that ends it must be there.
        out.create_dataset("learned_net", data=np.array(named, f"S{len(named) + 1}"))
        history = out.create_group("history")
        for index, (name, array) in enumerate(state.history.items()):
            made = history.create_dataset(str(index), data=np.asarray(array, np.float32))
            made.attrs[_NAME] = name


def load(path: str) -> Resume:
    """Read a solver state of either kind, whatever its name.

    Raises:
        WeightsError: missing-snapshot, bad-snapshot; truncated-weights or corrupt-weights for
            what HDF5 itself finds.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(len(SIGNATURE))
            raw = head if head == SIGNATURE else head + file.read()
    except OSError as error:
        text = f'cannot read "{path}": {error.strerror}'
        hint = ("name the .solverstate file that the run wrote",)
        fail(WeightsError, "missing-snapshot", text, help=hint)
    return _read_hdf5(path) if raw == SIGNATURE else _read_message(path, raw)


def _read_message(path: str, raw: bytes) -> Resume:
    message = pb.SolverState()
    try:
        message.ParseFromString(raw)
    except DecodeError:
        message.Clear()
    if not message.learned_net:
        _not_a_state(path)
    arrays = [_array(path, blob) for blob in message.history]
    return Resume(
        message.iter,
        message.seed if message.HasField("seed") else None,
        message.learned_net,
        _named(path, list(message.history_name), arrays),
        message.current_step,
        tuple(message.recent_loss),
        message.minimum_loss if message.HasField("minimum_loss") else math.inf,
        message.iter_last_event,
    )


def _not_a_state(path: str) -> None:
    hint = ("a .solverstate is wanted; for weights alone use --weights",)
    fail(WeightsError, "bad-snapshot", f'"{path}" is not a .solverstate file', help=hint)


def _named(path: str, names: Sequence[str], arrays: Sequence[Array]) -> dict[str, Array]:
    if names and len(names) != len(arrays):
        text = f'"{path}" names {len(names)} of {len(arrays)} histories'
        fail(WeightsError, "bad-snapshot", text)
    keys = names or [str(index) for index in range(len(arrays))]
    return dict(zip(keys, arrays, strict=True))


def _array(path: str, blob: pb.BlobProto) -> Array:
    raw = blob.SerializeToString()
    try:
        array, _ = decode_blob(raw, 0, len(raw))
    except WireError as error:
        fail(WeightsError, "bad-snapshot", f'"{path}" is damaged: {error}')
    return array.astype(np.float32, copy=False)


def _read_hdf5(path: str) -> Resume:
    with open_hdf5(path) as file:
        numbers = _Numbers(path, file)
        learned_net = _text(child(file, "learned_net"))
        if not learned_net:
            _not_a_state(path)
        found = list(_history(path, child(file, "history")))
        names = [name for name, _ in found if name]
        seed, lowest = numbers.of("seed"), numbers.of("minimum_loss")
        return Resume(
            int(numbers.one("iter")),
            int(seed[0]) if seed else None,
            learned_net,
            _named(path, names, [array for _, array in found]),
            int(numbers.one("current_step")),
            numbers.of("recent_loss"),
            lowest[0] if lowest else math.inf,
            int(numbers.one("iter_last_event", 0)),
        )


@dataclass(frozen=True)
class _Numbers:
    """The small datasets of a state."""

    path: str
    file: Any

    def of(self, name: str) -> tuple[float, ...]:
        """The numbers of a dataset; none where there is none."""
        dataset = child(self.file, name)
        if dataset is None:
            return ()
        if name == "seed":
            # A float would not hold all of its digits.
            values = np.asarray(dataset[()]) if dataset.shape == (1,) else np.zeros(0)
        else:
            values, _ = read_array(self.path, f'"{name}"', dataset)
        return tuple(values.reshape(-1).tolist())

    def one(self, name: str, default: float | None = None) -> float:
        """The number of a dataset."""
        values = self.of(name) or (() if default is None else (default,))
        if len(values) != 1 or not math.isfinite(values[0]):
            text = f'"{self.path}" is damaged: "{name}" is not one number'
            fail(WeightsError, "bad-snapshot", text)
        return values[0]


def _text(dataset: Any) -> str:
    """The string of a dataset, whose length the file fixes or not."""
    kind = getattr(getattr(dataset, "dtype", None), "kind", "")
    if kind not in tuple("SO") or dataset.shape != () or dataset.nbytes > _LONGEST_PATH:
        return ""
    value = dataset[()]
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _history(path: str, group: Any) -> Iterator[tuple[str, Array]]:
    """The name, empty where there is none, and the array of each blob, in order."""
    count = len(group) if hasattr(group, "keys") else 0
    for index in range(count):
        dataset = child(group, str(index))
        array, _ = read_array(path, f'blob "history/{index}"', dataset)
        name = dataset.attrs.get(_NAME, "")
        yield name if isinstance(name, str) else "", array.astype(np.float32, copy=False)
