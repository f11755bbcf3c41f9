"""``kdnet draw``: a net as a DOT file, or as a picture that Graphviz makes of it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kdnet.compile.drawing import Drawing, draw
from kdnet.errors import UsageError, fail
from kdnet.net import NetState
from kdnet.runtime.joining import read_named
from kdnet.runtime.plan import check_net
from kdnet.schema import Located
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import atomic_write

TEXT_SUFFIXES = (".dot", ".gv", ".raw")
PICTURE_SUFFIXES = (".eps", ".gif", ".jpeg", ".jpg", ".pdf", ".png", ".ps", ".svg")
_MOST_TOLD = 400


@dataclass(frozen=True)
class DrawOptions:
    """What ``kdnet draw`` was asked for; ``phase`` None draws the layers of all phases."""

    path: str
    out: Path
    rankdir: str = "LR"
    phase: int | None = None
    level: int = 0
    stages: tuple[str, ...] = ()
    show_rates: bool = False


def draw_file(options: DrawOptions) -> None:
    """Draw a net.

    Raises:
        SchemaError, NetError: the net cannot be read.
        UsageError: not-a-net; drawing-suffix; no-graphviz; drawing-failed.
        WeightsError: cannot-write.
    """
    _program(options.out)
    check_net(options.path)
    state = None
    if options.phase is not None:
        state = NetState(options.phase, options.level, options.stages)
    how = Drawing(options.rankdir, state, options.show_rates)
    picture = drawn(read_named(options.path).located, how, options.out)
    with atomic_write(options.out) as file:
        file.write(picture)


def drawn(located: Located[pb.NetParameter], how: Drawing, out: Path) -> bytes:
    """What a file with a drawing of a net holds.

    Args:
        located: the net.
        how: how it is drawn.
        out: the file, whose ending says what it is to be.

    Raises:
        NetError: include-and-exclude.
        UsageError: drawing-suffix; no-graphviz; drawing-failed.
    """
    program, text = _program(out), draw(located, how)
    return _rendered(program, out.suffix.lower(), text) if program else text.encode()


def _program(out: Path) -> str:
    """The program that makes what a file is to be; "" for a text.

    Raises:
        UsageError: drawing-suffix; no-graphviz.
    """
    suffix = out.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return ""
    if suffix not in PICTURE_SUFFIXES:
        known = ", ".join(PICTURE_SUFFIXES)
        hint = f"end it with .dot for text, or for a picture with {known}"
        text = f'"{out}" does not say what it is to be'
        fail(UsageError, "drawing-suffix", text, help=(hint,))
    program = shutil.which("dot")
    if program is None:
        other = out.with_suffix(".dot")
        advice = ("install Graphviz", f"or draw {other}, which is text")
        text = f'a {suffix} needs the program "dot" of Graphviz, which is not there'
        fail(UsageError, "no-graphviz", text, help=advice)
    return program


def _rendered(dot: str, suffix: str, text: str) -> bytes:
    command = [dot, f"-T{suffix[1:]}"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)  # noqa: S603  # a program and a suffix of ours
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip()[:_MOST_TOLD]
        text = f"Graphviz made no picture (exit status {done.returncode}): {said}"
        fail(UsageError, "drawing-failed", text, help=("draw a .dot file, and try it by hand",))
    return done.stdout
