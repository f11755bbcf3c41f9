"""kdnet draw: golden DOT texts, and what is asked of Graphviz."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from small_nets import JOINED_NET, ok, run

from kdnet.compile.drawing import Drawing, draw
from kdnet.net import NetState
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

CASES = Path(__file__).parent / "cases" / "drawings"

SMALL = """
name: "A \\"small\\" net"
layer { name: "data" type: "Data" top: "data" include { phase: TRAIN }
  data_param { source: "s" batch_size: 64 } }
layer { name: "data" type: "Data" top: "data" include { phase: TEST }
  data_param { source: "s" batch_size: 8 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 }
  param { lr_mult: 2 } convolution_param { num_output: 20 kernel_h: 3 kernel_w: 5 pad: 1 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" param { lr_mult: 0 }
  param { lr_mult: 0 } inner_product_param { num_output: 10 } }
layer { name: "odd" type: "NoSuchLayer" bottom: "ip" bottom: "from nowhere" top: "odd"
  exclude { phase: TEST } }
"""


def drawn(text: str, **how: object) -> str:
    located = read_text(text, "net.prototxt", pb.NetParameter)
    return draw(located, Drawing(**how))  # type: ignore[arg-type]  # as the case has it


@pytest.mark.parametrize(
    ("name", "text", "how"),
    [
        ("small_all", SMALL, {"rankdir": "LR"}),
        ("small_rates", SMALL, {"rankdir": "TB", "show_rates": True}),
        ("small_test", SMALL, {"state": NetState(pb.TEST)}),
        ("joined", JOINED_NET, {"rankdir": "BT"}),
    ],
)
def test_the_text_of_a_drawing(name: str, text: str, how: dict[str, object]) -> None:
    assert drawn(text, **how) == (CASES / f"{name}.dot").read_text()


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not here")
@pytest.mark.parametrize("path", sorted(CASES.glob("*.dot")), ids=lambda path: path.stem)
def test_graphviz_reads_the_golden_texts(path: Path, tmp_path: Path) -> None:
    command = ["dot", "-Tsvg", str(path), f"-o{tmp_path}/out.svg"]
    subprocess.run(command, check=True, capture_output=True)
    assert b"<svg" in (tmp_path / "out.svg").read_bytes()


def test_names_may_hold_anything() -> None:
    text = drawn('layer { name: "a\\"b\\\\\\n{|}<x>" type: "ReLU" bottom: "-> [" top: "\\\\" }')
    assert r'label="a\"b\\\n{|}<x>\n(ReLU)"' in text
    assert r'"blob -> [" -> "layer 0";' in text
    assert r'"layer 0" -> "blob \\";' in text


def test_a_layer_that_learns_is_not_frozen_by_another_multiplier() -> None:
    learns = 'layer { name: "a" type: "InnerProduct" param { lr_mult: 0 } }'
    frozen = 'layer { name: "b" type: "Scale" param { lr_mult: 0 } }'
    unsaid = 'layer { name: "c" type: "ReLU" }'
    styles = [line for line in drawn(learns + frozen + unsaid).splitlines() if "shape=box" in line]
    assert ["dashed" in line for line in styles] == [False, True, False]


def test_stages_choose_layers(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "a" type: "ReLU" include { stage: "deploy" } }\n'
        'layer { name: "b" type: "ReLU" include { min_level: 2 } }'
    )
    out = tmp_path / "net.dot"
    ok("draw", path, out)
    assert out.read_text().count("shape=box") == 2
    ok("draw", path, out, "--phase", "test", "--stage", "deploy")
    assert '"layer 0"' in out.read_text()
    assert '"layer 1"' not in out.read_text()
    ok("draw", path, out, "--phase", "TEST", "--level", "3", "--rankdir", "tb", "--display_lrm")
    assert "rankdir=TB" in out.read_text()
    assert '"layer 1"' in out.read_text()
    assert '"layer 0"' not in out.read_text()


def test_an_old_net_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('layers { name: "a" type: POOLING bottom: "x" top: "y" }')
    ok("draw", path, tmp_path / "net.gv")
    assert "(Pooling MAX)" in (tmp_path / "net.gv").read_text()


# Graphviz --------------------------------------------------------------------------------------


@pytest.fixture
def graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program dot that prints its argument and what it reads; returns its file."""
    place = tmp_path / "bin"
    place.mkdir()
    program = place / "dot"
    program.write_text('#!/bin/sh\necho "$1"\n/bin/cat\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(SMALL)
    return program


def test_a_picture_is_made_by_graphviz(graphviz: Path) -> None:
    assert ok("draw", "net.prototxt", "net.PNG").out == "net.PNG\n"
    assert Path("net.PNG").read_text() == f"-Tpng\n{(CASES / 'small_all.dot').read_text()}"
    assert graphviz.exists()


@pytest.mark.parametrize("program", ["#!/bin/sh\necho oh no >&2\nexit 3\n", "#!/bin/sh\n"])
def test_graphviz_fails(graphviz: Path, program: str) -> None:
    graphviz.write_text(program)
    ended = run("draw", "net.prototxt", "net.svg")
    assert (ended.code, "[drawing-failed]" in ended.err) == (2, True)
    assert ("oh no" in ended.err) == ("oh no" in program)
    assert not Path("net.svg").exists()


def test_without_graphviz_a_text_can_be_drawn(graphviz: Path) -> None:
    graphviz.unlink()
    ended = run("draw", "net.prototxt", "net.svg")
    assert (ended.code, "[no-graphviz]" in ended.err) == (2, True)
    assert "or draw net.dot, which is text" in ended.err
    ok("draw", "net.prototxt", "net.dot")


@pytest.mark.parametrize("out", ["net", "net.docx"])
def test_the_file_says_what_it_is_to_be(out: str) -> None:
    ended = run("draw", "net.prototxt", out)
    assert (ended.code, "[drawing-suffix]" in ended.err) == (2, True)


def test_include_and_exclude_is_a_fault_in_a_phase() -> None:
    Path("net.prototxt").write_text(
        'layer { name: "a" type: "ReLU" include { phase: TEST } exclude { phase: TRAIN } }'
    )
    ok("draw", "net.prototxt", "net.dot")
    ended = run("draw", "net.prototxt", "net.dot", "--phase", "TEST")
    assert (ended.code, "[include-and-exclude]" in ended.err) == (1, True)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
