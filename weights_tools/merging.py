"""Several weight files in one: renamed apart, or one preferred where both have a layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdnet.errors import Diagnostic, Faults, UsageError, WeightsError, did_you_mean
from kdnet.weights import LayerBlobs
from weights_tools.copying import Piece, renamed_layer, renamed_net, write_pieces
from weights_tools.difference import same_bytes
from weights_tools.parameters import LayerInfo, Weights
from weights_tools.renaming import Renames
from weights_tools.writing import CAFFEMODEL, Output, write_layers

FIRST, LAST = "first", "last"


@dataclass(frozen=True)
class Merged:
    """What a merge did: renames by prefixes, and for each conflict (layer, kept, left out)."""

    made: Renames
    settled: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Choice:
    """The name of every layer of every file, None for one that is left out."""

    files: list[Weights]
    names: list[list[str | None]]
    settled: list[tuple[str, str, str]] = field(default_factory=list)


def merge(
    paths: Sequence[str],
    output: Output,
    *,
    prefixes: Mapping[str, str] | None = None,
    prefer: str = "",
) -> Merged:
    """Write the layers of all files into one.

    A layer with blobs that several files have is a conflict, unless all its values are the same;
    then, as for layers without blobs, the first file's counts. Binary NetParameters are copied on
    the wire where all keep their layers in the same way.

    Args:
        paths: The files, in order.
        output: The file to write.
        prefixes: What is put in front of the layers of a file, by its path or its name without
            folder and ending.
        prefer: "first" or "last" settles conflicts.

    Raises:
        UsageError: ``unknown-merge-file``.
        WeightsError: ``merge-conflict``, one for each layer.
    """
    files = [Weights(path) for path in paths]
    fronts = _fronts(paths, prefixes or {})
    names: list[list[str | None]] = [
        [f"{front}{layer.name}" for layer in file.layers]
        for file, front in zip(files, fronts, strict=True)
    ]
    choice = _Choice(files, names)
    _settle(choice, prefer)
    notes = _write(choice, output)
    made = tuple(
        (layer.name, name)
        for file, names in zip(files, choice.names, strict=True)
        for layer, name in zip(file.layers, names, strict=True)
        if name is not None and name != layer.name
    )
    return Merged(made, tuple(dict.fromkeys(choice.settled)), notes)


def _fronts(paths: Sequence[str], prefixes: Mapping[str, str]) -> list[str]:
    """The prefix of each file."""
    fronts = [""] * len(paths)
    faults = Faults(UsageError)
    for name, prefix in prefixes.items():
        found = [i for i, path in enumerate(paths) if name in (path, Path(path).stem)]
        if len(found) == 1:
            fronts[found[0]] = prefix
            continue
        text = f'--prefix names "{name}", which is {"no" if not found else "more than one"} file'
        known = [*paths, *(Path(path).stem for path in paths)]
        hint = did_you_mean(name, known) if not found else ("name it by its whole path",)
        faults.add(Diagnostic("unknown-merge-file", text, help=hint))
    faults.raise_if_any()
    return fronts


def _settle(choice: _Choice, prefer: str) -> None:
    """Leave out what another file has, so that no name is left that two files have."""
    owners: dict[str, tuple[int, LayerInfo]] = {}
    faults = Faults(WeightsError)
    for index, file in enumerate(choice.files):
        for layer, given in zip(file.layers, tuple(choice.names[index]), strict=True):
            name = given or ""
            owner, owned = owners.setdefault(name, (index, layer))
            if owner == index:
                # Of several layers with one name the first that has blobs counts.
                owners[name] = (index, owned if owned.shapes else layer)
                continue
            loser = _loser(choice, (owner, owned), (index, layer), prefer)
            if loser is None:
                faults.add(_conflict(name, choice.files[owner], file))
            elif loser == owner:
                owners[name] = (index, layer)
                _leave_out(choice, owner, name)
            else:
                _leave_out(choice, index, name)
    faults.raise_if_any()


def _loser(
    choice: _Choice, first: tuple[int, LayerInfo], second: tuple[int, LayerInfo], prefer: str
) -> int | None:
    """Which of two files gives way in a layer that both have; None where nobody says."""
    if not second[1].shapes:
        return second[0]
    if not first[1].shapes:
        return first[0]
    if _same(choice, first, second):
        return second[0]
    if not prefer:
        return None
    winner, loser = (first[0], second[0]) if prefer == FIRST else (second[0], first[0])
    paths = (choice.files[winner].path, choice.files[loser].path)
    choice.settled.append((first[1].name if prefer == FIRST else second[1].name, *paths))
    return loser


def _same(choice: _Choice, first: tuple[int, LayerInfo], second: tuple[int, LayerInfo]) -> bool:
    if first[1].shapes != second[1].shapes:
        return False
    pairs = zip(first[1].parameters, second[1].parameters, strict=True)
    a, b = choice.files[first[0]], choice.files[second[0]]
    return all(same_bytes(a[ours], b[theirs]) for ours, theirs in pairs)


def _leave_out(choice: _Choice, index: int, name: str) -> None:
    choice.names[index] = [None if known == name else known for known in choice.names[index]]


def _conflict(name: str, first: Weights, second: Weights) -> Diagnostic:
    return Diagnostic(
        "merge-conflict",
        f'"{first.path}" and "{second.path}" both have a layer "{name}"',
        help=(
            f"--prefix {Path(second.path).stem}=teacher2/ keeps both apart",
            "--prefer first, or last, keeps one",
        ),
    )


def _write(choice: _Choice, output: Output) -> tuple[str, ...]:
    wires = [file.wire for file in choice.files if file.wire is not None]
    generations = frozenset(number for wire in wires for number in wire.generations)
    if output.chosen == CAFFEMODEL and len(wires) == len(choice.files) and len(generations) == 1:
        write_pieces(output.path, _pieces(choice), output.progress)
        return ()
    paths = [file.path for file in choice.files]
    notes = [note for file in choice.files for note in file.notes]
    return write_layers(_layers(choice), output, paths, choice.files[0].net_name, notes)


def _pieces(choice: _Choice) -> Iterator[Piece]:
    """The first file whole, then the layers of the others."""
    for index, (file, names) in enumerate(zip(choice.files, choice.names, strict=True)):
        wire = file.wire
        assert wire is not None  # noqa: S101  # whoever calls this has seen to it
        if index == 0:
            yield from renamed_net(wire, names)
            continue
        for layer, name in zip(wire.layers, names, strict=True):
            if name is not None:
                yield from renamed_layer(wire, layer, name)


def _layers(choice: _Choice) -> Iterator[LayerBlobs]:
    for file, names in zip(choice.files, choice.names, strict=True):
        for layer, name in zip(file.stream(), names, strict=True):
            if name is not None:
                yield replace(layer, name=name)
