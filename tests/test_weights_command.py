"""The commands of kdnet weights: their output, their faults and their exit codes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from tables.formats import LAYERS, SAMPLE

from kdnet.cli import main as kdnet
from kdnet.cli import weights as cli
from kdnet.commands import CommandParser
from kdnet.weights import LayerBlobs, read_weights, write_caffemodel
from weights_tools.progress import bar
from weights_tools.writing import Output, write_selected

ROOT = Path(__file__).parent.parent


def command(*args: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "weights_tools", *args]
    return subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT)


def test_rename_says_what_it_mapped(tmp_path: Path) -> None:
    source, copy, pairs = tmp_path / "a", tmp_path / "b", tmp_path / "pairs.csv"
    write_caffemodel(str(source), SAMPLE)
    pairs.write_text("ip1,head\n")
    done = command(
        "rename", str(source), "-o", str(copy), "--map-file", str(pairs), "--regex", "s/c/C/"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "mapped conv1 to Conv1\nmapped ip1 to head\n"
    assert [layer.name for layer in read_weights(str(copy)).layers] == ["Conv1", "head"]


def test_faults_and_exit_codes(tmp_path: Path) -> None:
    source = tmp_path / "a"
    write_caffemodel(str(source), SAMPLE)
    output = ("-o", str(tmp_path / "b"))
    done = command("rename", str(source), *output, "--map", "cnv1=b")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        'error: the file has no layer "cnv1" [unmatched-mapping]\nhelp: did you mean "conv1"?\n'
    )
    assert command("rename", str(source), *output).returncode == 2
    assert command("rename", str(source)).returncode == 2
    assert command("show", str(tmp_path / "none")).returncode == 1
    assert not (tmp_path / "b").exists()


def test_a_reader_that_leaves_early_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_caffemodel(str(path), SAMPLE)
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "weights_tools", "show", str(path)]
    done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, check=False, cwd=ROOT)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_kdnet_weights_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a"
    write_caffemodel(str(path), SAMPLE)
    assert kdnet(["weights", "show", str(path)]) == 0
    assert capsys.readouterr().out == command("show", str(path)).stdout
    assert kdnet(["weights", "show", str(tmp_path)]) == 1
    assert capsys.readouterr().err == command("show", str(tmp_path)).stderr


FACTS = """\
{path}: caffemodel, net "net"
layer  type          blob  shape    dtype    bytes    mean    std  zeros  bad        sha256
conv1  Convolution   0     2x1x3x3  float32     72   0.125  1.297  5.56%    0  3b55d774c488
conv1  Convolution   1     2        float32      8   0.125  0.375     0%    0  53c0f587cb61
ip1    InnerProduct  0     4x6      float32     96  -0.125  1.731  4.17%    0  4e2998c66861
odd    -             0     2x2      float64     32       1      1    25%    2  bb7f68212f8b
odd    -             1     scalar   float32      4       -      -     0%    1  ef1eaf26cea9
3 layers, 5 blobs, 49 values, 212 bytes
"""


def odd_file(path: Path) -> None:
    odd = (np.array([[0, 2], [np.nan, np.inf]]), np.full((), np.nan, np.float32))
    write_caffemodel(str(path), [*SAMPLE, LayerBlobs("odd", "", odd)], net_name="net")


def show(path: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> str:
    parser = CommandParser()
    cli.add_arguments(parser)
    assert cli.run(parser.parse_args(["show", str(path), *options])) == 0
    return capsys.readouterr().out


def test_show_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a"
    odd_file(path)
    assert show(path, capsys=capsys) == FACTS.format(path=path)


def test_show_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a"
    odd_file(path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    facts = json.loads(show(path, "--json", capsys=capsys), parse_constant=refuse)
    assert facts["format"] == "caffemodel"
    assert [layer["name"] for layer in facts["layers"]] == ["conv1", "ip1", "odd"]
    conv = LAYERS["conv1"][0].astype(float)
    assert facts["layers"][0]["blobs"][0] == {
        "shape": [2, 1, 3, 3],
        "dtype": "float32",
        "bytes": 72,
        "mean": pytest.approx(conv.mean()),
        "std": pytest.approx(conv.std()),
        "zeros": 1,
        "zero_share": pytest.approx(1 / 18),
        "non_finite": 0,
        "sha256": hashlib.sha256(LAYERS["conv1"][0].tobytes()).hexdigest(),
    }
    assert facts["layers"][2]["blobs"][1]["mean"] is None


def test_show_tells_types_and_bytes_as_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["data/ip/0"] = np.ones(3, np.float16)
    text = show(path, capsys=capsys)
    assert text.startswith(f"{path}: hdf5\n")
    assert text.endswith("1 layers, 1 blobs, 3 values, 6 bytes\n")
    assert "float16" in text


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = {}
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        with bar("renaming") as progress:
            progress(1 << 20, 2 << 20)
        shown[type(stream)] = stream.getvalue()
    assert shown[io.StringIO] == ""
    assert "renaming" in shown[Terminal]
    assert "1.0/2.1 MB" in shown[Terminal]


@pytest.mark.parametrize("out", ["b.caffemodel", "b.npz"])
def test_progress_ends_at_the_size_of_the_file(out: str, tmp_path: Path) -> None:
    source = tmp_path / "a.caffemodel"
    write_caffemodel(source, SAMPLE)
    seen: list[tuple[int, int]] = []
    output = Output(str(tmp_path / out), progress=lambda *at: seen.append(at))
    write_selected(str(source), ["x" * 300, "ip1"], output)
    done = [at for at, _ in seen]
    assert done == sorted(done)
    assert 0 < done[-1] <= seen[-1][1]
