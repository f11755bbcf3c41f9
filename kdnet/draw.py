"""Drawings of nets for programs: what pycaffe's ``caffe.draw`` offers, as ``kdnet draw`` draws.

Pictures need Graphviz's program dot; ``.dot`` is text and needs nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from kdnet.api.models import Model, read_model
from kdnet.compile.drawing import DIRECTIONS, Drawing
from kdnet.net import NetState
from kdnet.runtime.drawing import drawn
from kdnet.weights import atomic_write

__all__ = ["draw_net", "draw_net_to_file"]


def draw_net(
    caffe_net: Model,
    rankdir: str = "LR",
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,  # noqa: FBT001, FBT002  # pycaffe's signature
) -> bytes:
    """The picture of a net.

    Args:
        caffe_net: a NetParameter message, a NetSpec or a file.
        rankdir: "LR", "TB", "RL" or "BT".
        ext: what it is to be: "png", "svg", "pdf", "dot" and so on.
        phase: whose layers; those of all phases where it is None.
        display_lrm: show what multiplies the rate of each weight.

    Raises:
        KdnetError: drawing-suffix; no-graphviz; drawing-failed; what is wrong with the net.
        ValueError: a rankdir that there is not.
    """
    if rankdir not in DIRECTIONS:
        raise ValueError(f'rankdir is {", ".join(DIRECTIONS)}, not "{rankdir}"')
    how = Drawing(rankdir, None if phase is None else NetState(phase), display_lrm)
    return drawn(read_model(caffe_net).located, how, Path(f"net.{ext}"))


def draw_net_to_file(
    caffe_net: Model,
    filename: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,  # noqa: FBT001, FBT002  # pycaffe's signature
) -> None:
    """Write the picture of a net; the file's ending says what it is to be.

    Raises:
        KdnetError: as :func:`draw_net`; cannot-write.
    """
    ending = Path(filename).suffix.removeprefix(".")
    picture = draw_net(caffe_net, rankdir, ending, phase, display_lrm)
    with atomic_write(os.fspath(filename)) as file:
        file.write(picture)
