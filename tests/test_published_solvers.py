"""Solvers as published repositories have them: paths from Caffe's folder, tests that never run."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_nets import run

NET = """
layer { name: "made" type: "DummyData" top: "data" top: "label" include { phase: TRAIN }
        dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = 'net: "models/small/net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1\n'
BESIDE = 'help: "net.prototxt" lies beside the solver: write net: "net.prototxt"'


@pytest.fixture
def caffe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models/small/net.prototxt and a solver beside it; another is where one is."""
    small = tmp_path / "caffe" / "models" / "small"
    small.mkdir(parents=True)
    (small / "net.prototxt").write_text(NET)
    (small / "solver.prototxt").write_text(SOLVER + "snapshot_after_train: false\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return tmp_path / "caffe"


def test_the_folder_is_told_from_which_a_net_would_be_found(caffe: Path) -> None:
    ended = run("train", str(caffe / "models" / "small" / "solver.prototxt"))
    assert ended.code == 1
    assert f'help: it is in "{caffe}": run kdnet there\n' in ended.faults


def test_a_net_beside_the_solver_is_told(caffe: Path) -> None:
    solver = caffe / "models" / "small" / "solver.prototxt"
    solver.write_text(solver.read_text().replace("models/small", "work/of/2015"))
    ended = run("train", str(solver))
    assert (ended.code, ended.faults.splitlines()[-1]) == (1, BESIDE)


def test_a_test_of_no_batches_is_left_out(caffe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(caffe)
    solver = caffe / "models" / "small" / "solver.prototxt"
    with solver.open("a") as stream:
        stream.write("test_iter: 0 test_interval: 1\n")
    ended = run("train", "models/small/solver.prototxt", "--device", "cpu")
    assert (ended.code, ended.faults) == (0, "")
    assert "Test net" not in ended.err
    assert "Testing net" not in ended.err


def test_a_net_with_faults_is_told_those_of_a_net(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    field = "dummy_data_param"
    net.write_text('name: "n"\n' + f"layer {{ {field} {{ one: 1 two: 2 three: 3 }} }}\n" * 2)
    ended = run("train", str(net))
    assert ended.code == 1
    assert 'DummyDataParameter has no field "one"' in ended.faults
    assert "JoinParameter" not in ended.faults


def test_a_solver_beside_the_net_names_it_from_a_folder_above(caffe: Path) -> None:
    """Its path leads nowhere from here, but its end is the net's own."""
    small = caffe / "models" / "small"
    ended = run("train", str(small / "net.prototxt"), "--device", "cpu")
    assert (ended.code, ended.faults) == (0, "")
    assert f'using the solver beside the net: "{small / "solver.prototxt"}"' in ended.err
    assert "Learning Rate Policy: fixed" in ended.err


def test_a_solver_of_another_folders_net_is_not_meant(caffe: Path) -> None:
    solver = caffe / "models" / "small" / "solver.prototxt"
    solver.write_text(solver.read_text().replace("models/small", "models/large"))
    ended = run("check", str(caffe / "models" / "small" / "net.prototxt"), "--batches", "0")
    assert "no solver given and none beside the net" in ended.err
