"""The commands on nets with Python layers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from python_nets import CODE, NET, module_of, python
from small_nets import run

from kdnet.layers.python import allowed_python
from kdnet.runtime.log import CaffeLog
from kdnet.runtime.plan import TrainOptions
from kdnet.runtime.setup import prepare
from kdnet.runtime.trainer import Trainer
from kdnet.weights import read_weights


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of CODE."""
    yield from module_of(tmp_path, CODE, monkeypatch)


def test_weights_of_python_layers_are_saved_loaded_and_shared(code: str) -> None:
    layer = python(code, "Scaled").replace('top: "y"', 'param { name: "s" } top: "y1"')
    layer += (
        python(code, "Scaled")
        .replace('"py"', '"py2"')
        .replace('"ip"', '"y1"')
        .replace('top: "y"', 'param { name: "s" } top: "y"')
    )
    Path("net.prototxt").write_text(NET.format(layer=layer))
    done = run("train", "net.prototxt", "--allow-python", "--max-iter", "2")
    assert done.code == 0, done.err
    saved = {one.name: one.blobs for one in read_weights("net_iter_2.caffemodel").layers}
    (first,), (second,) = saved["py"], saved["py2"]
    assert (first == second).all()
    assert not (first == 2).any()
    done = run(
        "train", "net.prototxt", "--allow-python", "--max-iter", "0",
        "--weights", "net_iter_2.caffemodel", "--out", "again",
    )  # fmt: skip
    assert done.code == 0, done.err
    again = {one.name: one.blobs for one in read_weights("again/net_iter_0.caffemodel").layers}
    assert (again["py"][0] == first).all()


def test_train_and_test_run_nets_with_python_layers(code: str) -> None:
    Path("net.prototxt").write_text(NET.format(layer=python(code, "Twice")))
    done = run("train", "net.prototxt", "--allow-python", "--max-iter", "2")
    assert done.code == 0, done.err
    done = run(
        "test", "net.prototxt", "--allow-python", "--iterations", "2",
        "--weights", "net_iter_2.caffemodel",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.startswith("loss = ")


SLOW = """

import time

class Slow(Twice):
    def forward(self, bottom, top):
        super().forward(bottom, top)
        time.sleep(0.002)
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        time.sleep(0.004)
"""


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_the_code_of_a_layer_is_timed(code: str, phase: str) -> None:
    Path(f"{code}.py").write_text(CODE + SLOW)
    Path("net.prototxt").write_text(NET.format(layer=python(code, "Slow")))
    told = ("--iterations", "3", "--device", "cpu", "--phase", phase, "--allow-python")
    done = run("time", "net.prototxt", *told, "--json", "-")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    layer = next(layer for layer in found["layers"] if layer["name"] == "py")
    assert layer["forward"] >= 2
    assert (layer["backward"] >= 4) == (phase == "TRAIN")
    assert found["around"] > 0
    assert found["between"] < 1e3
    assert "around Python layers" in run("time", "net.prototxt", *told).out


def test_a_net_is_drawn_and_summarized(code: str) -> None:
    Path("net.prototxt").write_text(NET.format(layer=python(code, "Scaled")))
    done = run("draw", "net.prototxt", "net.dot")
    assert done.code == 0, done.err
    assert "(Python)" in Path("net.dot").read_text()
    assert code not in sys.modules
    done = run("summarize", "net.prototxt", "--allow-python")
    assert done.code == 0, done.err
    assert "parameters: 16 trained" in done.out


def test_a_net_is_checked_through_its_python_layers(code: str) -> None:
    alone = 'layer { name: "off" type: "InnerProduct" bottom: "x" top: "off" '
    alone += "inner_product_param { num_output: 2 } }"
    alone += ' layer { name: "silent" type: "Silence" bottom: "off" }'
    second = 'layer { name: "2" type: "Reduction" bottom: "ip" top: "2" loss_weight: 0.001 }'
    text = NET.format(layer=python(code, "Scaled") + alone)
    for more, looked in (("", "looked at no data: nothing in the net"), (second, "at 16 items")):
        Path("net.prototxt").write_text(text + more)
        done = run("check", "net.prototxt", "--allow-python", "--device", "cpu")
        assert done.code == 0, done.err
        assert looked in done.err
        found = [line for line in done.out.splitlines() if "warning:" in line]
        assert len(found) == 1
        assert 'layer "off": no loss reaches it' in found[0]


def test_a_run_that_goes_on_steps_as_one_that_never_stopped(code: str) -> None:
    Path("net.prototxt").write_text(NET.format(layer=python(code, "Twice")))
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 4 '
        'snapshot: 2 random_seed: 3 snapshot_prefix: "run"'
    )
    for more in ([], ["--snapshot", "run_iter_2.solverstate", "--out", "again"]):
        done = run("train", "solver.prototxt", "--allow-python", *more)
        assert done.code == 0, done.err
    first, again = (Path(place, "run_iter_4.caffemodel").read_bytes() for place in (".", "again"))
    assert first == again


@pytest.mark.parametrize("name", ["train", "test", "compile", "check", "time"])
def test_code_does_not_run_unless_it_is_allowed(code: str, name: str) -> None:
    Path("net.prototxt").write_text(NET.format(layer=python(code, "Twice")))
    more = ["-o", "step.onnx"] if name == "compile" else []
    done = run(name, "net.prototxt", *more)
    assert done.code == 1
    assert "[python-not-allowed]" in done.err
    assert code not in sys.modules


def test_the_teacher_cache_refuses_python(code: str) -> None:
    Path("net.prototxt").write_text(NET.format(layer=python(code, "Twice")))
    done = run("train", "net.prototxt", "--allow-python", "--cache-teacher", "kept")
    assert done.code == 2
    assert "[cache-with-python]" in done.err


def test_debug_info_is_said_to_be_left_out(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.prototxt").write_text(NET.format(layer=python(code, "Twice")))
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 debug_info: true '
        "snapshot_after_train: false display: 1"
    )
    log = CaffeLog(sys.stderr)
    with allowed_python(), closing(prepare(TrainOptions("solver.prototxt"), log)) as run:
        Trainer(run).solve()
    assert "debug_info is ignored in phase TRAIN" in capsys.readouterr().err
