"""Solvers whose steps are taken apart: Python layers, callbacks, apply_update."""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import kdnet
from kdnet.runtime import CaffeLog

CAFFE = Path(__file__).parent / "golden" / "caffe"
SOLVED = np.load(CAFFE / "api.npz")
TRAINED = np.load(CAFFE / "python_layers.npz")
RATE = 'net: "net.prototxt" base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 '


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with h5py.File("rows.h5", "w") as file:
        file["data"], file["label"] = SOLVED["solved/data"], SOLVED["solved/label"]
    Path("list.txt").write_text("rows.h5\n")
    Path("net.prototxt").write_text(str(SOLVED["solved/net"]))
    Path("solver.prototxt").write_text(str(SOLVED["solved/SGD/solver"]))
    yield tmp_path
    for name in ("user_layers", "own_layers"):
        sys.modules.pop(name, None)


def quiet():
    return CaffeLog(io.StringIO())


def solver_of(text=""):
    if text:
        Path("solver.prototxt").write_text(text)
    return kdnet.get_solver("solver.prototxt", quiet())


def params_of(solver):
    """The layer's name, the weight, and its key in pycaffe's results."""
    for name, params in solver.net.params.items():
        for index, param in enumerate(params):
            yield name, param, f"{name}/{index}"


def started(text=""):
    """A solver whose weights are those of pycaffe's run."""
    solver = solver_of(text)
    for _, param, key in params_of(solver):
        param.data[...] = SOLVED[f"solved/start/{key}"]
    return solver


def same_weights(one, other, **close):
    for name, params in one.net.params.items():
        for mine, theirs in zip(params, other.net.params[name], strict=True):
            assert mine.data == pytest.approx(theirs.data, **close), name


@pytest.mark.parametrize(
    ("prefix", "path", "losses"),
    [
        ("", "solver.prototxt", ("loss", "hinge")),
        ("weights/", "weights_solver.prototxt", ("loss",)),
    ],
)
def test_nets_with_python_layers_train_as_in_pycaffe(prefix, path, losses):
    shutil.copytree(CAFFE / "python_layers", ".", dirs_exist_ok=True)
    solver = kdnet.get_solver(path, quiet())
    for name, param, key in params_of(solver):
        if solver.net.layer_dict[name].type != "Python":
            param.data[...] = TRAINED[f"{prefix}first/{key}"]
    for step in range(len(TRAINED["loss"])):
        solver.step(1)
        for top in losses:
            found = float(solver.net.blobs[top].data.sum())
            assert found == pytest.approx(TRAINED[prefix + top][step], rel=1e-5)
    for name, param, key in params_of(solver):
        wanted = TRAINED[f"{prefix}last/{key}"]
        assert param.data == pytest.approx(wanted, rel=1e-4, abs=1e-6), name
    solver.net.save("after.caffemodel")
    other = kdnet.get_solver(path, quiet())
    other.net.copy_from("after.caffemodel")
    same_weights(other, solver)


@pytest.mark.parametrize("more", ["", "iter_size: 2 weight_decay: 0.01", "clip_gradients: 0.1"])
def test_steps_apart_are_those_of_one_graph(more):
    text = str(SOLVED["solved/SGD/solver"]).replace("iter_size: 1", "") + more
    whole, apart = started(text), started(text)
    apart.add_callback(lambda: None, lambda: None)
    whole.step(4)
    apart.step(4)
    same_weights(apart, whole, rel=1e-5, abs=1e-6)
    assert apart.net.blobs["loss"].data == pytest.approx(whole.net.blobs["loss"].data, rel=1e-5)


def test_a_run_may_be_taken_apart_midway():
    whole, apart = started(), started()
    whole.step(4)
    apart.step(2)
    apart.net.before_forward(lambda _index: None)
    apart.step(2)
    assert apart.iter == 4
    same_weights(apart, whole, rel=1e-5, abs=1e-6)


def test_a_program_may_make_steps_of_its_own():
    """pycaffe's forward, backward, apply_update, mixed with whole steps."""
    whole, own = started(), started()
    whole.step(3)
    own.step(1)
    own.net.clear_param_diffs()
    own.net.forward()
    own.net.backward()
    own.apply_update()
    assert own.iter == 2
    own.step(1)
    same_weights(own, whole, rel=1e-5, abs=1e-6)


def test_gradients_may_be_changed_before_the_update():
    solver, seen = started(), []
    solver.add_callback(lambda: seen.append("start"), lambda: seen.append("ready"))
    solver.add_callback(lambda: None, solver.net.clear_param_diffs)
    before = {name: params[0].data.copy() for name, params in solver.net.params.items()}
    solver.step(2)
    assert seen == ["start", "ready"] * 2
    for name, params in solver.net.params.items():
        assert (params[0].data == before[name]).all()


def test_a_run_apart_goes_on_from_its_snapshot():
    def apart():
        solver = started()
        solver.add_callback(lambda: None, lambda: None)
        return solver

    straight, first, again = apart(), apart(), apart()
    straight.step(4)
    first.step(2)
    _, state = first.snapshot()
    again.restore(state)
    assert again.iter == 2
    again.step(2)
    same_weights(again, straight)


def test_weights_of_another_net_are_trained_once_they_are_shared():
    solver, twin = started(), started()
    for one in (solver, twin):
        one.add_callback(lambda: None, lambda: None)
        one.step(1)
    other = kdnet.Net("net.prototxt", kdnet.TRAIN)
    for name, params in other.params.items():
        for param, mine in zip(params, solver.net.params[name], strict=True):
            param.data[...] = mine.data
    solver.net.share_with(other)
    solver.step(1)
    twin.step(1)
    for name, params in other.params.items():
        assert params[0].data == pytest.approx(twin.net.params[name][0].data), name


ROWS = """
import caffe
import numpy as np

class Rows(caffe.Layer):
    table = None
    def setup(self, bottom, top):
        self.at = 0
    def set_table(self, table):
        self.table = table
    def reshape(self, bottom, top):
        rows = 2 if self.table is None else len(self.table[self.at % len(self.table)])
        top[0].reshape(rows, 3)
    def forward(self, bottom, top):
        top[0].data[...] = self.table[self.at % len(self.table)]
        self.at += 1
    def backward(self, top, propagate_down, bottom):
        pass
"""
ROWS_NET = """
layer { name: "rows" type: "Python" top: "x"
  python_param { module: "own_layers" layer: "Rows" } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 2 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "loss" type: "Reduction" bottom: "y" loss_weight: 1 top: "loss"
  reduction_param { operation: SUMSQ } }
"""


def test_a_program_hands_a_layer_its_data_and_their_number_may_change():
    """As detectors are trained: ``solver.net.layers[0].set_...``, images of all sizes."""
    Path("own_layers.py").write_text(ROWS)
    Path("net.prototxt").write_text(ROWS_NET)
    solver = solver_of(
        RATE + 'max_iter: 4 display: 0 snapshot_prefix: "run" test_iter: 3 test_interval: 1000'
    )
    stream = np.random.default_rng(4)
    table = [stream.normal(size=(rows, 3)).astype(np.float32) for rows in (2, 5, 3)]
    solver.net.layers[0].set_table(table)
    solver.test_nets[0].layers[0].set_table(table[:1])
    weight, speed = solver.net.params["ip"][0].data.copy(), 0
    for step in range(4):
        x = table[step % 3]
        loss = ((x @ weight.T) ** 2).sum()
        solver.step(1)
        assert solver.net.blobs["loss"].data == pytest.approx(loss, rel=1e-5)
        assert solver.net.blobs["x"].shape == x.shape
        speed = 0.9 * speed + 0.05 * 2 * (x @ weight.T).T @ x
        weight = weight - speed
        assert solver.net.params["ip"][0].data == pytest.approx(weight, rel=1e-4)
    assert solver.net.layers[0].at == 4
    assert solver.test_nets[0].layers[0].at == 3


def test_solve_logs_the_loss_and_saves():
    Path("own_layers.py").write_text(ROWS.replace("table = None", "table = np.ones((1, 2, 3))"))
    loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "half" }'
    half = (
        'layer { name: "half" type: "Power" bottom: "y" top: "half" power_param { scale: 0.5 } }'
    )
    Path("net.prototxt").write_text(ROWS_NET.partition('layer { name: "loss"')[0] + half + loss)
    text = RATE + 'max_iter: 2 display: 1 snapshot_prefix: "run"'
    Path("solver.prototxt").write_text(text)
    stream = io.StringIO()
    solver = kdnet.get_solver("solver.prototxt", CaffeLog(stream))
    weight = solver.net.params["ip"][0].data.copy()
    solver.solve()
    told = re.search(r"Iteration 0 .* loss = (\S+)", stream.getvalue())
    wanted = ((np.ones((2, 3)) @ weight.T / 2) ** 2).sum() / 4
    assert float(told[1]) == pytest.approx(wanted, rel=1e-4)
    assert Path("run_iter_2.caffemodel").exists()
