"""Parts of weight files: layers by name, or the student of a joined net."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from kdnet.errors import Diagnostic, WeightsError, did_you_mean, fail
from weights_tools.nets import NetChoice, traced
from weights_tools.writing import Output, layer_names, write_selected


@dataclass(frozen=True)
class Selected:
    """Which layers were kept and which not, in the file's order."""

    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...] = ()


def extract(
    path: str | os.PathLike[str],
    output: Output,
    globs: Sequence[str],
    *,
    allow_unmatched: bool = False,
) -> Selected:
    """Write only the layers whose name a shell pattern such as ``teacher/*`` matches.

    Raises:
        WeightsError: ``unmatched-layers`` for a pattern that matches none, unless allowed, and
            for patterns that all match none; the faults of reading and writing.
    """
    source = os.fspath(path)
    names = layer_names(source)
    faults = [
        Diagnostic(
            "unmatched-layers",
            f'"{source}" has no layer that "{glob}" matches',
            help=did_you_mean(glob, names),
        )
        for glob in globs
        if not any(fnmatchcase(name, glob) for name in names)
    ]
    if faults and (not allow_unmatched or len(faults) == len(globs)):
        raise WeightsError(*faults)
    kept = {name for name in names if any(fnmatchcase(name, glob) for glob in globs)}
    return _write(source, output, names, kept)


def _write(source: str, output: Output, names: Sequence[str], kept: Collection[str]) -> Selected:
    notes = write_selected(source, [name if name in kept else None for name in names], output)
    return Selected(
        tuple(name for name in names if name in kept),
        tuple(name for name in names if name not in kept),
        notes,
    )


def strip_teacher(
    path: str | os.PathLike[str], output: Output, choice: NetChoice, heads: Sequence[str] = ()
) -> Selected:
    """Write only the students of a joined net, as ``kdnet export`` would cut them out.

    A student is whatever the class scores or features need that a loss or a metric reads and a
    trained layer makes: its frozen layers stay, losses with projectors and teachers go.

    Args:
        path: The joined net's weight file, such as a snapshot with ``--full``.
        output: The file to write.
        choice: The joined net.
        heads: The blobs whose layers to keep, instead of those of every student.

    Raises:
        NetError: ``no-student``.
        UsageError: ``unknown-head``.
        WeightsError: ``no-student-layers`` where the file has none of the students' layers; the
            faults of reading and writing.
    """
    from kdnet.compile.deploy.branches import choose_heads, find_heads

    source = os.fspath(path)
    test, train = traced(choice, "TEST"), traced(choice, "TRAIN")
    chosen = choose_heads(find_heads(test, train), heads, test, train)
    students = frozenset[str]().union(*(branch.weighted for branch in chosen))
    names = layer_names(source)
    if students.isdisjoint(names):
        text = f'"{source}" has none of the students\' layers'
        hint = (f"the students' layers are {', '.join(sorted(students)[:5])}",)
        fail(WeightsError, "no-student-layers", text, help=hint)
    return _write(source, output, names, students)
