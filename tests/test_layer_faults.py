"""Every fault a person can make with a layer: the exact text, with its place and caret."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdnet.compile.forward import trace_forward
from kdnet.errors import LayerError
from kdnet.graph import Emitter
from kdnet.net import NetState, resolve_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

CASES = Path(__file__).parent / "cases" / "layers"
NAMES = [path.stem for path in sorted(CASES.glob("*.prototxt"))]


@pytest.mark.parametrize("name", NAMES)
def test_faults_are_told_where_they_stand(name: str) -> None:
    path = CASES / f"{name}.prototxt"
    located = read_text(path.read_text(), path.name, pb.NetParameter)
    net = resolve_net(located.message, located.source, NetState(phase=pb.TRAIN))
    with pytest.raises(LayerError) as caught:
        trace_forward(net, Emitter())
    assert f"{caught.value}\n" == path.with_suffix(".txt").read_text()


def test_every_text_has_its_net() -> None:
    assert sorted(path.stem for path in CASES.glob("*.txt")) == NAMES
