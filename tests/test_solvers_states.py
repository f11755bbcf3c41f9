"""Solver states go from Caffe to kdnet and from kdnet to Caffe, in both formats."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from small_nets import edit, ok, run
from solver_runs import ENDINGS, LAST, SNAPSHOT, golden, train, types, write_run

from kdnet.errors import WeightsError
from kdnet.runtime.solver_states import Resume, load, write_state
from kdnet.schema import kdnet_pb2 as pb
from kdnet.solvers import solver_names
from kdnet.weights import read_weights

ARRAYS = golden()
CASES = [(solver, kind) for solver in types(ARRAYS) for kind in ENDINGS]
START = ("--weights", "start.caffemodel")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(path: str, wanted: str) -> None:
    """The weights of a file are those of the golden numbers."""
    layers = read_weights(path).layers
    assert [layer.name for layer in layers] == ["ip1", "ip2"]
    for layer in layers:
        for index, blob in enumerate(layer.blobs):
            golden_blob = ARRAYS[f"{wanted}/{layer.name}/{index}"]
            np.testing.assert_allclose(blob, golden_blob, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("solver", "kind"), CASES)
def test_kdnet_goes_on_from_caffe_s_files(solver: str, kind: str, place: Path) -> None:
    write_run(place, ARRAYS, solver, "BINARYPROTO")
    ending = ENDINGS[kind]
    for part in ("caffemodel", "solverstate"):
        path = place / f"run_iter_{SNAPSHOT}.{part}{ending}"
        path.write_bytes(ARRAYS[f"{solver}/{kind}/{part}"].tobytes())
    train(place, LAST, "--snapshot", f"run_iter_{SNAPSHOT}.solverstate{ending}")
    check(f"run_iter_{LAST}.caffemodel", f"{solver}/after")


def shapes(state: Resume) -> list[tuple[int, ...]]:
    return [array.shape for array in state.history.values()]


@pytest.mark.parametrize(("solver", "kind"), CASES)
def test_caffe_went_on_from_kdnet_s_files(solver: str, kind: str, place: Path) -> None:
    write_run(place, ARRAYS, solver, kind)
    train(place, SNAPSHOT, *START)
    ending = ENDINGS[kind]
    ours = load(f"run_iter_{SNAPSHOT}.solverstate{ending}")
    (place / "theirs").write_bytes(ARRAYS[f"{solver}/{kind}/solverstate"].tobytes())
    theirs = load("theirs")
    assert (ours.iteration, ours.step) == (theirs.iteration, theirs.step) == (SNAPSHOT, 1)
    assert ours.learned_net == theirs.learned_net == f"run_iter_{SNAPSHOT}.caffemodel{ending}"
    assert shapes(ours) == shapes(theirs)
    names = list(ours.history)
    for name, array in zip(names, theirs.history.values(), strict=True):
        if name.endswith("ip1/bias"):
            assert not ours.history[name].any(), "what stands still has zeros"
            continue
        np.testing.assert_allclose(ours.history[name], array, rtol=1e-5, atol=1e-7)
    train(place, LAST, "--snapshot", f"run_iter_{SNAPSHOT}.solverstate{ending}")
    check(f"run_iter_{LAST}.caffemodel{ending}", f"{solver}/{kind}/after_ours")
    check(f"run_iter_{LAST}.caffemodel{ending}", f"{solver}/after")


@pytest.mark.parametrize("solver", types(ARRAYS))
def test_snapshot_diff_is_what_caffe_leaves_there(solver: str, place: Path) -> None:
    write_run(place, ARRAYS, solver, "BINARYPROTO")
    edit(place / "solver.prototxt", "snapshot_format", "snapshot_diff: true snapshot_format")
    train(place, SNAPSHOT, *START)
    net = pb.NetParameter.FromString(Path(f"run_iter_{SNAPSHOT}.caffemodel").read_bytes())
    for layer in net.layer:
        for index, blob in enumerate(layer.blobs):
            diff = np.array(blob.diff, np.float32).reshape(blob.shape.dim)
            wanted = ARRAYS[f"{solver}/diff/{layer.name}/{index}"]
            np.testing.assert_allclose(diff, wanted, rtol=1e-5, atol=1e-7)
    theirs = pb.NetParameter.FromString(ARRAYS[f"{solver}/BINARYPROTO/caffemodel"].tobytes())
    sizes = [[len(blob.diff) for blob in layer.blobs] for layer in theirs.layer if layer.blobs]
    assert sizes == [[len(blob.diff) for blob in layer.blobs] for layer in net.layer]


def test_diffs_have_a_group_of_their_own_in_hdf5_and_are_no_history(place: Path) -> None:
    write_run(place, ARRAYS, "Adam", "HDF5")
    edit(place / "solver.prototxt", "snapshot_format", "snapshot_diff: true snapshot_format")
    train(place, SNAPSHOT, *START)
    with h5py.File(f"run_iter_{SNAPSHOT}.caffemodel.h5") as file:
        for name in ("ip1/0", "ip1/1", "ip2/0", "ip2/1"):
            diff = ARRAYS[f"Adam/diff/{name}"]
            np.testing.assert_allclose(file[f"diff/{name}"][()], diff, rtol=1e-5, atol=1e-7)
    state = load(f"run_iter_{SNAPSHOT}.solverstate.h5")
    assert {name.split("/")[1] for name in state.history} == {"first_moment", "second_moment"}
    train(place, LAST, "--snapshot", f"run_iter_{SNAPSHOT}.solverstate.h5")
    check(f"run_iter_{LAST}.caffemodel.h5", "Adam/after")


def test_the_log_names_the_files_as_caffe_does(place: Path) -> None:
    write_run(place, ARRAYS, "SGD", "HDF5")
    ended = train(place, SNAPSHOT, *START)
    assert "Snapshotting to HDF5 file run_iter_3.caffemodel.h5" in ended.log
    assert "Snapshotting solver state to HDF5 file run_iter_3.solverstate.h5" in ended.log
    assert "MultiStep Status: Iteration 2, step = 1" in ended.log


def everything(path: Path, *, hdf5: bool) -> Resume:
    history = {"history/momentum/a/weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    state = Resume(7, 1 << 60, "a.caffemodel", history, 2, (0.1, 0.2), 0.05, 4)
    write_state(str(path), state, hdf5=hdf5)
    return state


@pytest.mark.parametrize("hdf5", [False, True])
def test_a_state_is_read_as_it_was_written(hdf5: bool, tmp_path: Path) -> None:
    wanted = everything(tmp_path / "state", hdf5=hdf5)
    found = load(str(tmp_path / "state"))
    (name,) = wanted.history
    assert found.history[name].tobytes() == wanted.history[name].tobytes()
    for field in ("iteration", "seed", "learned_net", "step", "lowest", "last_event"):
        assert getattr(found, field) == getattr(wanted, field), field
    assert list(found.losses) == [0.1, 0.2]


def text_of(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        load(str(path))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("iter", np.array([1, 2]), '"iter" is not one number [bad-snapshot]'),
        ("iter", None, '"iter" is not one number [bad-snapshot]'),
        ("current_step", np.array([np.nan]), '"current_step" is not one number [bad-snapshot]'),
        ("learned_net", None, "is not a .solverstate file [bad-snapshot]"),
        ("learned_net", np.array([1.0]), "is not a .solverstate file [bad-snapshot]"),
        ("history/0", np.array(b"text"), "it is not an array of numbers [corrupt-weights]"),
    ],
)
def test_a_damaged_hdf5_state_is_refused(
    name: str, value: np.ndarray | None, wanted: str, tmp_path: Path
) -> None:
    path = tmp_path / "state.h5"
    everything(path, hdf5=True)
    with h5py.File(path, "a") as file:
        del file[name]
        if value is not None:
            file[name] = value
    assert wanted in text_of(path)


def test_a_weight_file_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file["data/ip/0"] = np.zeros(3)
    assert "is not a .solverstate file [bad-snapshot]" in text_of(path)
    path.write_bytes(path.read_bytes()[:200])
    assert "[truncated-weights]" in text_of(path)


def test_a_layer_whose_name_hdf5_does_not_allow_is_refused(place: Path) -> None:
    write_run(place, ARRAYS, "SGD", "HDF5")
    edit(place / "net.prototxt", 'name: "ip1"', 'name: "."')
    ended = run("train", "solver.prototxt", "--device", "cpu", "--max-iter", 1)
    assert ended.code == 1
    assert "[unwritable-layer]" in ended.faults


def test_plateau_goes_on_exactly(place: Path) -> None:
    write_run(place, ARRAYS, "SGD", "BINARYPROTO")
    edit(
        place / "solver.prototxt",
        'lr_policy: "multistep"',
        'lr_policy: "plateau" plateau_winsize: 2 plateau_winsize: 1 average_loss: 3 display: 1',
    )
    edit(place / "solver.prototxt", "base_lr: 0.1", "base_lr: 2")
    whole = train(place, 12, *START, "--out", "whole")
    said = [line for line in whole.log if line.startswith("Plateau Status")]
    assert len(said) == 2, "a rate this large keeps the loss up"
    for stop in (4, 7, 9):
        out = ("--out", f"part{stop}")
        train(place, stop, *START, *out)
        ended = train(place, 12, *out, "--snapshot", f"part{stop}/run_iter_{stop}.solverstate")
        one, two = (
            Path(name, "run_iter_12.caffemodel").read_bytes() for name in ("whole", out[1])
        )
        assert one == two
        tail = [line for line in whole.log if f"Iteration {stop}, lr" in line]
        assert [line for line in ended.log if f"Iteration {stop}, lr" in line] == tail


@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("solver", solver_names())
def test_every_solver_goes_on_bit_for_bit(solver: str, kind: str, place: Path) -> None:
    write_run(place, ARRAYS, "SGD", kind)
    momentum = "" if solver in ("AdaGrad", "RMSProp") else "momentum: 0.9"
    edit(place / "solver.prototxt", 'type: "SGD"', f'type: "{solver}"')
    edit(place / "solver.prototxt", "momentum: 0.9", f"{momentum} warmup_iter: 4 iter_size: 2")
    train(place, LAST, *START, "--out", "whole")
    train(place, SNAPSHOT, *START, "--out", "part")
    state = f"part/run_iter_{SNAPSHOT}.solverstate{ENDINGS[kind]}"
    train(place, LAST, "--out", "part", "--snapshot", state)
    one, two = (
        read_weights(f"{name}/run_iter_{LAST}.caffemodel{ENDINGS[kind]}").layers
        for name in ("whole", "part")
    )
    for straight, resumed in zip(one, two, strict=True):
        for left, right in zip(straight.blobs, resumed.blobs, strict=True):
            assert left.tobytes() == right.tobytes()


def test_a_smaller_net_s_own_history_is_all_that_is_wanted(place: Path) -> None:
    """A layer that is frozen later on leaves its history behind."""
    write_run(place, ARRAYS, "Adam", "BINARYPROTO")
    train(place, SNAPSHOT, *START)
    edit(place / "net.prototxt", "param { lr_mult: 0.5 }", "param { lr_mult: 0 }")
    ended = ok(
        *("train", "solver.prototxt", "--device", "cpu", "--max-iter", LAST),
        *("--snapshot", f"run_iter_{SNAPSHOT}.solverstate"),
    )
    assert ended.log[-1] == "Optimization Done."
