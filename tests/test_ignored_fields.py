"""Solver fields that change nothing are named, with the reason; device_id is honoured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kdnet.cli import main
from kdnet.runtime import choose_device, device

NET = """
layer { name: "made" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt"
base_lr: 0.1
lr_policy: "fixed"
max_iter: 1
snapshot_after_train: false
"""


def log_of(
    folder: Path, more: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    monkeypatch.chdir(folder)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER + more)
    assert main(["train", "solver.prototxt", "--device", "cpu"]) == 0
    return [re.sub(r"^\S+ \S+ +\d+ ", "", line) for line in capsys.readouterr().err.splitlines()]


def test_an_ignored_field_is_named_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = log_of(tmp_path, "layer_wise_reduce: false\n", capsys, monkeypatch)
    wanted = [
        "kdnet:0] solver.prototxt:6:20: warning: layer_wise_reduce is ignored: one device trains "
        "[ignored-solver-field]",
        "kdnet:0]   6 | layer_wise_reduce: false",
        "kdnet:0]     |                    ^~~~~",
    ]
    start = lines.index(wanted[0])
    assert lines[start : start + 3] == wanted


def test_a_field_at_its_default_is_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = log_of(
        tmp_path, "snapshot_format: BINARYPROTO\ndebug_info: false\n", capsys, monkeypatch
    )
    assert not [line for line in lines if "ignored-solver-field" in line]


def test_device_id_is_the_cuda_device_unless_another_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "why_no_cuda", lambda _index: ())
    assert str(choose_device("auto", 2)[0]) == "cuda:2"
    assert str(choose_device("cuda", 2)[0]) == "cuda:2"
    assert str(choose_device("cuda:1", 2)[0]) == "cuda:1"
