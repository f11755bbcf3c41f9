"""``kdnet check`` on nets in which one thing is found of many layers: it is told once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_nets import ok, run

MADE = """
layer { name: "made" type: "DummyData" top: "x0" top: "label"
        dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 }
          data_filler { value: 1 } data_filler { } } }
"""
STORED = """
layer { name: "stored" type: "Data" top: "x0" top: "label"
        data_param { source: "gone_lmdb" backend: LMDB batch_size: 2
          shape { dim: 3 dim: 2 dim: 2 } } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x1" bottom: "label" top: "loss" }\n'


def layers(count: int, *, fire: bool = True) -> str:
    bias = "1" if fire else "-9"
    return "".join(
        f"""
        layer {{ name: "ip{i}" type: "InnerProduct" bottom: "x{i - 1}" top: "x{i}"
          inner_product_param {{ num_output: 2
            weight_filler {{ type: "xavier" }} bias_filler {{ value: {bias} }} }} }}
        layer {{ name: "relu{i}" type: "ReLU" bottom: "x{i}" top: "x{i}" }}
        """
        for i in range(1, count + 1)
    )


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def found(text: str, *more: str) -> list[tuple[str, str]]:
    """Code and message of each finding."""
    Path("net.prototxt").write_text(text)
    given = ("check", "net.prototxt", "--device", "cpu", "--json", *more)
    return [(item["code"], item["message"]) for item in json.loads(ok(*given).out)]


def test_a_net_without_a_loss_is_told_so_once() -> None:
    text = "the net has no loss: none of its 5 layers with weights is trained"
    assert found(MADE + layers(5), "--batches", "0") == [("no-loss-reaches", text)]


def test_many_layers_behind_the_loss_are_told_together() -> None:
    text = 'no loss reaches 4 layers, "ip2" to "ip5", so they stay as they are'
    assert found(MADE + layers(5) + LOSS, "--batches", "0") == [("no-loss-reaches", text)]
    assert len(found(MADE + layers(4) + LOSS, "--batches", "0")) == 3


def test_many_layers_that_never_fire_are_told_together() -> None:
    ending = LOSS.replace("x1", "x4")
    never = "never fire on 8 items: they get no gradient"
    assert found(MADE + layers(4, fire=False) + ending) == [
        ("dead-relu", f"units of 4 layers {never}")
    ]
    Path("net.prototxt").write_text(MADE + layers(4, fire=False) + ending)
    told = ok("check", "net.prototxt", "--device", "cpu").out
    assert 'note: layer "relu4": 2 of 2 units (100%)\n' in told


def test_nothing_is_said_of_what_made_up_data_fire() -> None:
    net = STORED + layers(4, fire=False) + LOSS.replace("x1", "x4")
    assert found(net, "--synthetic-data") == []


SOLVED = MADE + layers(1) + LOSS


@pytest.mark.parametrize(
    ("solver", "code"),
    [
        ('base_lr: 0.1 lr_policy: "Step" max_iter: 1', "unknown-lr-policy"),
        ('base_lr: 0.1 lr_policy: "step" max_iter: 1', "missing-solver-field"),
        ('base_lr: 0.1 lr_policy: "fixed"', "missing-solver-field"),
        ('base_lr: 0.1 lr_policy: "fixed" max_iter: 1 type: "adam"', "unknown-solver"),
    ],
)
def test_a_solver_that_cannot_train_is_a_fault(solver: str, code: str) -> None:
    Path("net.prototxt").write_text(SOLVED)
    Path("solver.prototxt").write_text(f'net: "net.prototxt" {solver}')
    ended = run("check", "solver.prototxt", "--device", "cpu", "--batches", "0")
    assert ended.code == 1
    assert f"[{code}]" in ended.faults


@pytest.mark.parametrize("batches", ["0", "1"])
def test_a_filler_that_is_none_is_a_fault_where_it_is_written(batches: str) -> None:
    Path("net.prototxt").write_text(SOLVED.replace("xavier", "xaver"))
    ended = run("check", "net.prototxt", "--device", "cpu", "--batches", batches)
    assert ended.code == 1
    first, line, caret, *_ = ended.faults.splitlines()
    assert first.endswith('error: there is no filler "xaver" [unknown-filler]')
    assert line[caret.index("^") :].startswith('"xaver"')


def test_a_test_net_that_cannot_run_is_a_fault() -> None:
    bad = (
        'layer { name: "bad" type: "Accuracy" bottom: "x1" top: "bad" include { phase: TEST } }\n'
    )
    Path("net.prototxt").write_text(SOLVED + bad)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1'
        " test_iter: 1 test_interval: 1"
    )
    ended = run("check", "solver.prototxt", "--device", "cpu", "--batches", "0")
    assert ended.code == 1
    assert "[bottom-count]" in ended.faults
