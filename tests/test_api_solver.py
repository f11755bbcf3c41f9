"""Solvers step by step: against pycaffe, and against ``kdnet train``."""

from __future__ import annotations

import io
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

import kdnet
from kdnet.errors import KdnetError, UsageError
from kdnet.runtime import CaffeLog, Trainer, TrainOptions, prepare
from kdnet.weights import read_weights

GOLDEN = np.load(Path(__file__).parent / "golden" / "caffe" / "api.npz")


pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File("rows.h5", "w") as file:
        file["data"], file["label"] = GOLDEN["solved/data"], GOLDEN["solved/label"]
    Path("list.txt").write_text("rows.h5\n")
    Path("net.prototxt").write_text(str(GOLDEN["solved/net"]))
    Path("solver.prototxt").write_text(str(GOLDEN["solved/SGD/solver"]))
    return tmp_path


def _quiet():
    return CaffeLog(io.StringIO())


def _solver(text="", make=kdnet.get_solver):
    if text:
        Path("solver.prototxt").write_text(text)
    solver = make("solver.prototxt", _quiet())
    for name, params in solver.net.params.items():
        for index, param in enumerate(params):
            param.data[...] = GOLDEN[f"solved/start/{name}/{index}"]
    return solver


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_steps_between_looks_are_pycaffes(kind):
    key = f"solved/{kind}"
    solver = _solver(str(GOLDEN[f"{key}/solver"]))
    assert isinstance(solver, getattr(kdnet, f"{kind}Solver"))
    assert solver.net.forward()["loss"] == pytest.approx(GOLDEN[f"{key}/looked"], rel=1e-5)
    losses, tests = [], []
    for count in range(4):
        assert solver.iter == count
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
        tests.append(float(solver.test_nets[0].forward()["loss"]))
    assert losses == pytest.approx(GOLDEN[f"{key}/losses"], rel=1e-4)
    assert tests == pytest.approx(GOLDEN[f"{key}/tests"], rel=1e-4)
    for name in ("score", "hidden"):
        assert solver.net.blobs[name].data == pytest.approx(GOLDEN[f"{key}/{name}"], rel=1e-3)
    solver.net.params["score"][0].data[...] *= 0.5
    solver.net.params["frozen"][0].data[...] *= -1
    solver.step(2)
    found = {name: solver.net.params[name][0].data for name in ("score", "hidden")}
    assert found["score"] == pytest.approx(GOLDEN[f"{key}/after"], rel=1e-3, abs=1e-4)
    assert found["hidden"] == pytest.approx(GOLDEN[f"{key}/hidden after"], rel=1e-3, abs=1e-4)


def test_gradients_after_a_step_are_those_of_its_batch_and_its_weights():
    solver, twin = _solver(), _solver()
    twin.net.forward()
    twin.net.backward()
    solver.step(1)
    for name in ("hidden", "score"):
        for mine, other in zip(solver.net.params[name], twin.net.params[name], strict=True):
            assert mine.diff == pytest.approx(other.diff, rel=1e-5, abs=1e-7)
            assert not np.allclose(mine.data, other.data)
    assert solver.net.blobs["score"].diff == pytest.approx(
        twin.net.blobs["score"].diff, rel=1e-5, abs=1e-7
    )
    assert (solver.net.params["frozen"][0].diff == 0).all()


def test_a_program_may_take_the_step_itself():
    solver, twin = _solver(), _solver()
    solver.step(1)
    twin.net.forward()
    twin.net.backward()
    for params in twin.net.params.values():
        for param in params:
            param.data[...] -= twin.lr * param.diff
    for name, params in solver.net.params.items():
        assert params[0].data == pytest.approx(twin.net.params[name][0].data, rel=1e-5, abs=1e-6)


def test_arrays_that_a_program_holds_follow_the_steps():
    solver = _solver()
    weight = solver.net.params["score"][0].data
    before = weight.copy()
    solver.step(1)
    assert not np.allclose(weight, before)
    after = weight.copy()
    solver.net.params["score"][0].data[...] = before
    solver.step(0)
    assert (weight == before).all()
    assert not np.allclose(before, after)


def test_steps_are_those_of_kdnet_train():
    Path("solver.prototxt").write_text(Path("solver.prototxt").read_text() + "random_seed: 5")
    solver = kdnet.get_solver("solver.prototxt", _quiet())
    solver.step(3)
    options = TrainOptions("solver.prototxt", max_iter=3, device="cpu", allow_unloaded=True)
    run = prepare(options, _quiet())
    trainer = Trainer(run)
    trainer.solve()
    trained = trainer._stepper.weights()
    run.close()
    for name, params in solver.net.params.items():
        assert (params[0].data == trained[f"{name}/weight"]).all(), name


def test_a_run_goes_on_from_its_snapshot():
    solver = _solver()
    solver.step(2)
    weights, state = solver.snapshot()
    assert (weights, state) == ("small_iter_2.caffemodel", "small_iter_2.solverstate")
    assert [layer.name for layer in read_weights(weights).layers if layer.blobs] == [
        "hidden",
        "frozen",
        "score",
    ]
    solver.step(2)
    other = kdnet.get_solver("solver.prototxt", _quiet())
    other.restore(state)
    assert other.iter == 2
    assert other.lr == pytest.approx(0.05)
    other.step(2)
    for name, params in solver.net.params.items():
        for mine, theirs in zip(params, other.net.params[name], strict=True):
            assert (mine.data == theirs.data).all()


def test_solve_trains_to_the_end_and_saves():
    text = str(GOLDEN["solved/SGD/solver"]).replace("max_iter: 100", "max_iter: 3")
    solver = _solver(text.replace("snapshot_after_train: false", ""))
    solver.solve()
    assert solver.iter == 3
    assert Path("small_iter_3.solverstate").exists()
    other = _solver()
    other.solve("small_iter_3.solverstate")
    assert other.iter == 3
    assert (other.net.params["score"][0].data == solver.net.params["score"][0].data).all()


def test_weights_may_come_after_the_solver_was_made():
    solver, other = _solver(), kdnet.get_solver("solver.prototxt", _quiet())
    solver.net.save("start.caffemodel")
    other.net.copy_from("start.caffemodel")
    solver.step(2)
    other.step(1)
    other.net.save("one.caffemodel")
    other.net.copy_from("one.caffemodel")
    other.step(1)
    for name, params in solver.net.params.items():
        assert (params[0].data == other.net.params[name][0].data).all(), name


def test_other_nets_use_the_trained_weights():
    solver = _solver()
    other = kdnet.Net("net.prototxt", kdnet.TEST)
    solver.share_weights(other)
    before = other.forward()["loss"].copy()
    other._streams.index = 0
    solver.step(3)
    assert other.forward()["loss"] < before


def test_the_class_says_the_type_and_get_solver_reads_it():
    text = str(GOLDEN["solved/SGD/solver"]).replace('type: "SGD"', "").replace("max_iter: 100", "")
    text = text.replace("momentum: 0.9", "")
    solver = _solver(text, kdnet.AdaGradSolver)
    assert solver.param.type == "AdaGrad"
    solver.step(1)
    assert type(_solver(text)) is kdnet.SGDSolver
    assert type(_solver(text + 'type: "AdamW"')) is kdnet.Solver


def test_batches_may_come_from_the_program():
    data = '[ name: "data" type: "Input" top: "data" input_param [ shape [ dim: 4 dim: 7 ] ] ]'
    label = '[ name: "label" type: "Input" top: "label" input_param [ shape [ dim: 4 ] ] ]'
    layers = f"layer {data} layer {label}".replace("[", "{").replace("]", "}")
    text = re.sub(r'layer \{\n  name: "data".*?\n\}\n', "", str(GOLDEN["solved/net"]), flags=re.S)
    Path("fed.prototxt").write_text(layers + text)
    solver_text = str(GOLDEN["solved/SGD/solver"]).replace("net.prototxt", "fed.prototxt")
    kept = re.sub(r"test_(iter|interval): \d+", "", solver_text)
    solver, twin = _solver(), _solver(kept)
    twin.net.blobs["data"].data[...] = GOLDEN["solved/data"][:4]
    twin.net.blobs["label"].data[...] = GOLDEN["solved/label"][:4]
    solver.step(1)
    twin.step(1)
    assert twin.net.blobs["loss"].data == solver.net.blobs["loss"].data
    twin.net.blobs["data"].reshape(2, 7)
    with pytest.raises(ValueError, match="a step is compiled for"):
        twin.step(1)


def test_what_is_no_solver_is_told():
    with pytest.raises(UsageError, match="not-a-solver"):
        kdnet.get_solver("net.prototxt")
    with pytest.raises(KdnetError, match="file-not-found"):
        kdnet.SGDSolver("none.prototxt")


def test_modes(capsys):
    from kdnet.api import mode

    try:
        kdnet.set_device(1)
        kdnet.set_mode_gpu()
        told = capsys.readouterr().err
        assert mode.current_device().kind == "cuda" or "running on the CPU: no CUDA" in told
        kdnet.set_mode_cpu()
        assert mode.current_device().kind == "cpu"
        kdnet.set_random_seed(4)
        first = kdnet.Net("net.prototxt").params["score"][0].data
        kdnet.set_random_seed(5)
        second = kdnet.Net("net.prototxt").params["score"][0].data
        assert not (first == second).all()
    finally:
        mode._MODE.__init__()
