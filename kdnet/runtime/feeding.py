"""Batches and noise for a program, checked before they are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.compile import Program
from kdnet.data import Feeder, Source, open_source
from kdnet.errors import DataError, fail
from kdnet.layers import LabelCheck, is_data
from kdnet.net import NetModel
from kdnet.weights import philox

Array = NDArray[Any]
DEPTH = 4
# What the numbers of a check count, and what to do about one that is too large.
NUMBERED = {
    "label": ("classes", "num_output of the classifier must exceed the largest label"),
    "index": ("rows", "input_dim must exceed the largest number"),
    "item": ("items of the batch", "an item of a batch is named by its place in it"),
    "record": ("records", "num_records must be the number of records in the training data"),
}


def open_sources(
    net: NetModel, *, seed: int, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> list[Source]:
    """The data of every data layer of a net; ``shapes`` are item shapes by the layer's first top.

    Raises:
        DataError: what a source says; input-has-no-data for an Input layer.
    """
    found: list[Source] = []
    with ExitStack() as opened:
        for model in net.layers:
            if not is_data(model):
                continue
            if model.type == "Input" and model.stand_in is None:
                text = f'layer "{model.name}": an Input layer has no data to run on'
                hint = ("give the net a Data, HDF5Data, ImageData, MemoryData or DummyData layer",)
                fail(DataError, "input-has-no-data", text, span=model.position, help=hint)
            shape = (shapes or {}).get(model.tops[0])
            found.append(opened.enter_context(open_source(model, seed=seed, shape=shape)))
        for source in found:
            source.attach({other.layer.name: other for other in found})
        # All went well: they are the caller's to close.
        opened.pop_all()
    return found


class Batches:
    """Feeds a program from its sources, from batch ``start`` on, read ahead by a thread."""

    def __init__(self, program: Program, sources: Sequence[Source], seed: int, start: int) -> None:
        self._program = program
        self._seed = seed
        self._index = start
        self._feeder = Feeder(sources, start, DEPTH)

    def next(self, iteration: int = 0, micro: int = 0) -> dict[str, Array]:
        """The feeds of one run; noise is keyed on the iteration and the micro-step.

        Raises:
            DataError: label-out-of-range, and what reading raised.
        """
        batch = self._feeder.next()
        for check in self._program.labels:
            check_labels(check, batch[check.tensor.name], self._index)
        feeds = {name: batch[name] for name in self._program.data}
        for slot in self._program.noise:
            seed = self._seed if slot.seed is None else slot.seed
            stream = philox(seed, "noise", slot.layer, iteration, micro)
            feeds[slot.name] = stream.random(slot.shape, np.float32)
        self._index += 1
        return feeds

    def close(self) -> None:
        """Stop the thread."""
        self._feeder.close()


@contextmanager
def batches(
    program: Program, sources: Sequence[Source], seed: int, start: int = 0
) -> Iterator[Batches]:
    """:class:`Batches` for the length of a block."""
    found = Batches(program, sources, seed, start)
    try:
        yield found
    finally:
        found.close()


def check_labels(check: LabelCheck, labels: Array, batch: int) -> None:
    """Raise label-out-of-range unless every label is a class or the ignored one."""
    values = np.trunc(labels.reshape(-1))
    # So stated, the comparison refuses what is not a number too.
    wrong = ~((values >= 0) & (values < check.classes))
    if check.ignore is not None:
        wrong &= values != check.ignore
    if not wrong.any():
        return
    item = int(np.argmax(wrong))
    counted, hint = NUMBERED[check.kind]
    text = (
        f'layer "{check.layer}": {check.kind} {labels.reshape(-1)[item]:g} of batch {batch}, '
        f"item {item // max(1, values.size // labels.shape[0])}, "
        f"is not one of the {check.classes} {counted} 0 to {check.classes - 1}"
    )
    fail(DataError, "label-out-of-range", text, span=check.span, help=(hint,))
