"""What ``kdnet join`` writes: the net, weight files under its names, and a solver."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdnet.errors import UsageError, fail

if TYPE_CHECKING:
    from kdnet.net.join import Joined, Member
    from kdnet.schema import Located
    from kdnet.schema import kdnet_pb2 as pb

_IDENTITY = ("{name}",)


def write_join(
    description: Located[pb.JoinParameter],
    file: str,
    said: Sequence[tuple[str, str]],
    output: str,
    *,
    solver: bool,
) -> list[str]:
    """Join, write everything, and return what to tell.

    Raises:
        KdnetError: the faults of joining and of writing.
        UsageError: output-is-input.
    """
    from kdnet.net.join import joined_text
    from kdnet.runtime.joining import join_checked, solver_of_student, weight_sources

    joined, unknown = join_checked(description, file)
    sources = weight_sources(joined, file)
    copies = _copies(sources, output)
    model = (description.message.solver or solver_of_student(joined)) if solver else None
    placed = f"{Path(output).with_suffix('')}_solver.prototxt" if model else ""
    inputs = [file, *(m.path for m in joined.members), *(path for path, _ in sources), model or ""]
    made = [new for path, new, _ in copies if new != path]
    _check_apart([output, *made, *([placed] if placed else [])], inputs)
    weights = [new for _, new, _ in copies]
    command = _command(said, output, solver=solver)
    train = shlex.join(
        ["kdnet", "train", output, *(["--weights", ",".join(weights)] if weights else [])]
    )
    told = _write_weights(copies)
    after = [*told, *([""] if told else []), "Trained by:", "", f"    {train}"]
    _write(output, joined_text(joined, output, command, after))
    told.append(f"{output}: {_summary(joined)}")
    if model:
        _write(placed, _solver_text(model, output, weights))
        told.append(f"{placed}: {model} for the joined net")
    if unknown:
        told.append(f"shapes and class counts are not checked: {unknown}")
    for member in joined.members:
        if member.frozen and not (member.entry.weights or member.brings_weights):
            told.append(f"still needed: the weights of {member.name} under its joined names")
    return [*told, f"next: {train}"]


def _copies(sources: Sequence[tuple[str, Member]], output: str) -> list[tuple[str, str, Member]]:
    """Each weight file, its renamed copy (itself where nothing is renamed), and whose it is."""
    found: list[tuple[str, str, Member]] = []
    for path, member in sources:
        number = 1 + [other is member for _, _, other in found].count(True)
        part = member.name.replace("/", "_") + (f".{number}" if number > 1 else "")
        copy = f"{Path(output).with_suffix('')}.{part}.caffemodel"
        found.append((path, path if member.rules == _IDENTITY else copy, member))
    return found


def _check_apart(outputs: Sequence[str], inputs: Sequence[str]) -> None:
    """Never write over what is read."""
    known = {os.path.realpath(path): path for path in inputs if path}
    for path in outputs:
        if os.path.realpath(path) in known:
            text = f'"{path}" would be written over: the join reads it'
            fail(UsageError, "output-is-input", text, help=("choose another name with -o",))


def _command(said: Sequence[tuple[str, str]], output: str, *, solver: bool) -> str:
    words = ["kdnet", "join"]
    for flag, value in said:
        words += [flag, value] if value else [flag]
    return shlex.join([*words, *([] if solver else ["--no-solver"]), "-o", output])


def _write_weights(copies: Sequence[tuple[str, str, Member]]) -> list[str]:
    from weights_tools import rename_file

    told = []
    for path, new, member in copies:
        if new != path:
            made = rename_file(path, new, member.mapping)
            told.append(f"{new}: {path} with {len(made)} layers renamed")
    return told


def _summary(joined: Joined) -> str:
    parts = ", ".join(f"{member.name} {member.path}" for member in joined.members)
    return f"{len(joined.layers)} layers of {parts}"


def _solver_text(model: str, output: str, weights: Sequence[str]) -> str:
    """The student's solver for the joined net, with the weights that it starts from."""
    from kdnet.net import load_solver
    from kdnet.runtime.joining import for_joined
    from kdnet.schema import write_text

    message = for_joined(load_solver(model), Path(output).stem).message
    message.net = Path(output).name
    message.weights[:] = [_beside(path, output) for path in weights]
    return f"# {model}, for the joined net.\n{write_text(message)}"


def _beside(path: str, output: str) -> str:
    """A file in the output's folder by its name alone: it is found beside the solver."""
    return Path(path).name if Path(path).parent == Path(output).parent else path


def _write(path: str, text: str) -> None:
    from kdnet.weights import atomic_write

    with atomic_write(path) as file:
        file.write(text.encode())
