"""What HDF5Output layers write, taken from what a program hands out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from numpy.typing import NDArray

from kdnet.compile import Program
from kdnet.compile.program import SinkSlot
from kdnet.data.hdf5_output import RowsFile

Array = NDArray[Any]
Values = dict[str, Array]


@contextmanager
def recording(program: Program, batches: int) -> Iterator[Callable[[Values], Values]]:
    """Write what the program's layers have for their files, over a number of batches.

    The files take their places when the block ends after all batches; else the old ones stay.

    Yields:
        What takes the values of a batch, and gives back those that are not for a file.

    Raises:
        DataError: cannot-write.
    """
    if not program.sinks:
        yield lambda values: values
        return
    with ExitStack() as opened:
        files = []
        for sink in program.sinks:
            files.append(_opened(sink, batches))
            opened.callback(files[-1].discard)
        seen = 0

        def take(values: Values) -> Values:
            nonlocal seen
            for sink, file in zip(program.sinks, files, strict=True):
                file.add(*(values[name] for name in sink.outputs))
            seen += 1
            return without_sinks(program, values)

        yield take
        if seen == batches:
            for file in files:
                file.commit()


def without_sinks(program: Program, values: Values) -> Values:
    """The values that are not for a file."""
    taken = {name for sink in program.sinks for name in sink.outputs}
    return {name: value for name, value in values.items() if name not in taken}


def write_last(program: Program, values: Mapping[str, Array]) -> None:
    """Write the files of one batch.

    Raises:
        DataError: cannot-write.
    """
    with recording(program, 1) as take:
        if program.sinks:
            take(dict(values))


def check_files(program: Program) -> None:
    """Find out at once whether the files can be written.

    Raises:
        DataError: cannot-write.
    """
    for sink in program.sinks:
        _opened(sink, 1).discard()


def _opened(sink: SinkSlot, batches: int) -> RowsFile:
    rows = sink.shapes[0][0] if sink.shapes[0] else 1
    return RowsFile(sink.file, rows * batches, sink.span)
