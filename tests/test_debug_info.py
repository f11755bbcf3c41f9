"""debug_info against the lines that real Caffe logs for the same nets."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_nets import LOG_LINE, edit, ok, run

from kdnet.weights import LayerBlobs, write_caffemodel

GOLDEN = Path(__file__).parent / "golden" / "caffe"
CASES = sorted(path.stem for path in (GOLDEN / "debug_cases").glob("*.prototxt"))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?")
KEPT = re.compile(r"\[(Forward|Backward)\]|^Iteration \d+|Testing net|net output")
SPEED = re.compile(r" \([^()]* iter/s, [^()]* iters\)")


def wanted_lines(case: str) -> list[str]:
    text = (GOLDEN / "debug_info.txt").read_text()
    return text.split(f"## {case}\n")[1].split("## ")[0].splitlines()


def write_case(case: str) -> None:
    """The case's files in the working directory, with the data and first weights of Caffe's."""
    with np.load(GOLDEN / "solvers.npz") as file:
        with h5py.File("train.h5", "w") as out:
            for name in ("data", "label", "target"):
                out[name] = file[name]
        starts = {
            tuple(file[name].shape[1:]): file[name][0] for name in file.files if "/params/" in name
        }
    Path("train.txt").write_text("train.h5\n")
    net, solver = (GOLDEN / "debug_cases" / f"{case}.prototxt").read_text().split("# solver\n")
    Path("net.prototxt").write_text(net)
    Path("solver.prototxt").write_text(solver)
    layers = []
    bottoms = {"ip2": 5 if case == "shared" else 4, "ip3": 5 if case == "shared" else 4}
    for name, outputs in re.findall(
        r'name: "(\w+)" type: "InnerProduct".*?num_output: (\d)', net, re.S
    ):
        shape = (int(outputs), bottoms.get(name, 5))
        blobs = tuple(starts[one] for one in (shape, shape[:1]))
        layers.append(LayerBlobs(name, "InnerProduct", blobs))
    write_caffemodel("start.caffemodel", layers)


def lines_of(err: str) -> list[str]:
    found = []
    for line in err.splitlines():
        text = SPEED.sub("", LOG_LINE.sub("", line))
        if LOG_LINE.match(line) and KEPT.search(text):
            found.append(f"{line[0]} {text}")
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_lines_are_caffe_s(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_case(case)
    ended = ok("train", "solver.prototxt", "--weights", "start.caffemodel", "--device", "cpu")
    found, wanted = lines_of(ended.err), wanted_lines(case)
    assert [NUMBER.sub("#", line) for line in found] == [NUMBER.sub("#", line) for line in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        one, two = (np.array(NUMBER.findall(line), float) for line in (ours, theirs))
        np.testing.assert_allclose(one, two, rtol=2e-5, atol=1e-7, err_msg=theirs)


def test_it_is_off_unless_asked_for_and_comes_with_the_display_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_case("splits")
    command = ("train", "solver.prototxt", "--weights", "start.caffemodel", "--device", "cpu")
    told = ok(*command)
    totals = [line for line in told.log if "All net params" in line]
    assert len(totals) == 2, "iterations 0 and 2 of four"
    edit(Path("solver.prototxt"), "display: 2", "")
    assert not [line for line in ok(*command).log if "[Backward]" in line]
    edit(Path("solver.prototxt"), "debug_info: true", "")
    quiet = ok(*command)
    assert not [line for line in quiet.log if "[Forward]" in line]


def test_looking_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_case("shared")
    edit(Path("solver.prototxt"), "snapshot_after_train: false", 'snapshot_prefix: "run"')
    command = ("train", "solver.prototxt", "--weights", "start.caffemodel", "--device", "cpu")
    ok(*command, "--out", "told")
    edit(Path("solver.prototxt"), "debug_info: true", "")
    ok(*command, "--out", "quiet")
    one, two = (Path(name, "run_iter_2.caffemodel").read_bytes() for name in ("told", "quiet"))
    assert one == two


def test_a_bad_label_is_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_case("splits")
    with h5py.File("train.h5", "a") as file:
        file["label"][1] = 7
    ended = run("train", "solver.prototxt", "--weights", "start.caffemodel", "--device", "cpu")
    assert ended.code == 1
    assert "[label-out-of-range]" in ended.faults


def test_statistics_are_shown_as_the_forward_pass_leaves_them(joined: Path) -> None:
    """The weights of BatchNorm, a loss without a named top, a teacher and dropout noise."""
    edit(
        joined / "joined.prototxt",
        'layer { name: "student/relu1"',
        'layer { name: "student/bn" type: "BatchNorm" bottom: "student/ip1" top: "student/ip1" }\n'
        'layer { name: "student/relu1"',
    )
    edit(joined / "joined.prototxt", 'top: "loss"', "")
    edit(joined / "joined_solver.prototxt", "display: 2", "display: 2 debug_info: true")
    ended = ok("train", "joined.prototxt", "--weights", "teacher.caffemodel", "--device", "cpu")
    ahead = [
        line for line in ended.log if line.startswith("    [Forward] Layer student/bn, param")
    ]
    counts = [float(line.rsplit(" ", 1)[1]) for line in ahead if "blob 2" in line]
    # Two micro-steps an iteration: the count of batches is 1 after the first, 2 after the second.
    wanted = [1, 1 + 0.999]
    assert counts[2:4] == pytest.approx(wanted, rel=1e-5)
    assert any("Layer loss, top blob (automatic) data: " in line for line in ended.log)
    assert any("Layer student/drop1, bottom blob student/ip1 diff: " in line for line in ended.log)
    assert not any("[Backward] Layer teacher/ip" in line for line in ended.log)


def test_a_net_with_a_python_layer_is_trained_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write_case("splits")
    Path("same_again.py").write_text(
        "class Same:\n"
        "    def setup(self, bottom, top):\n"
        "        pass\n"
        "    def reshape(self, bottom, top):\n"
        "        top[0].reshape(*bottom[0].shape)\n"
        "    def forward(self, bottom, top):\n"
        "        top[0].data[...] = bottom[0].data\n"
        "    def backward(self, top, propagate_down, bottom):\n"
        "        bottom[0].diff[...] = top[0].diff\n"
    )
    layer = (
        'layer { name: "same" type: "Python" bottom: "ip2" top: "again" '
        'python_param { module: "same_again" layer: "Same" } }\n'
    )
    edit(Path("net.prototxt"), 'layer { name: "sum"', f'{layer}layer {{ name: "sum"')
    edit(Path("net.prototxt"), 'type: "Eltwise" bottom: "ip2"', 'type: "Eltwise" bottom: "again"')
    start = ("--weights", "start.caffemodel", "--device", "cpu", "--allow-python")
    ended = ok("train", "solver.prototxt", *start)
    told = 'debug_info is ignored in phase TRAIN: "same" is a Python layer [ignored-solver-field]'
    assert any(told in line for line in ended.log)
    assert not any("[Forward]" in line for line in ended.log)
