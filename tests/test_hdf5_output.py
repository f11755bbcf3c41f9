"""HDF5Output: the rows of two blobs, whole or not at all, as Caffe stores them."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from kdnet.cli import main

NET = """
layer { name: "d" type: "MemoryData" top: "data" top: "label" memory_data_param {
    source: "m.npz" batch_size: 4 channels: 3 height: 2 width: 1 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
    inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "out" type: "HDF5Output" bottom: "%s" bottom: "label"
    hdf5_output_param { file_name: "out.h5" } include { phase: %s } }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3
snapshot_after_train: false"""
TESTED = SOLVER + " test_iter: 2 test_interval: 3"
DATA = np.arange(60, dtype=np.float32).reshape(10, 3, 2, 1)
LABELS = np.arange(10) % 7


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    np.savez(tmp_path / "m.npz", data=DATA, label=LABELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(blob: str = "data", phase: str = "TEST", solver: str = SOLVER, more: str = "") -> None:
    Path("net.prototxt").write_text(NET % (blob, phase) + more)
    Path("solver.prototxt").write_text(solver)


def written() -> tuple[np.ndarray, np.ndarray]:
    with h5py.File("out.h5", "r") as file:
        assert sorted(file) == ["data", "label"]
        for dataset in file.values():
            # As Caffe writes them.
            assert (dataset.dtype, dataset.chunks) == (np.float32, None)
        return file["data"][()], file["label"][()]


def rows(*batches: int) -> np.ndarray:
    return np.concatenate([np.arange(4 * batch, 4 * batch + 4) % 10 for batch in batches])


def test_a_test_writes_the_rows_of_all_its_batches(here: Path):
    write()
    assert main(["test", "net.prototxt", "--iterations", "3", "--device", "cpu"]) == 0
    data, label = written()
    np.testing.assert_array_equal(data, DATA[rows(0, 1, 2)])
    np.testing.assert_array_equal(label, LABELS[rows(0, 1, 2)].reshape(12, 1, 1, 1))
    assert sorted(path.name for path in here.iterdir()) == [
        *("m.npz", "net.prototxt", "out.h5", "solver.prototxt")
    ]


def test_a_blob_of_fewer_axes_gets_axes_of_one():
    write("ip")
    assert main(["test", "net.prototxt", "--iterations", "1", "--device", "cpu"]) == 0
    assert [values.shape for values in written()] == [(4, 7, 1, 1), (4, 1, 1, 1)]


def test_a_net_with_no_other_output_is_tested():
    loss = (
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'
    )
    Path("net.prototxt").write_text((NET % ("ip", "TEST")).replace(loss, ""))
    assert main(["test", "net.prototxt", "--iterations", "2", "--device", "cpu"]) == 0
    assert len(written()[0]) == 8


def test_each_test_while_training_takes_the_place_of_the_last():
    write("ip", solver=TESTED)
    seen = []
    for limit in ("0", "3"):
        words = ["train", "solver.prototxt", "--device", "cpu", "--max-iter", limit]
        assert main(words) == 0
        seen.append(written()[0])
    assert seen[0].shape == seen[1].shape == (8, 7, 1, 1)
    assert (seen[0] != seen[1]).any()


@pytest.mark.parametrize(("more", "batch"), [("", 2), (" iter_size: 2", 5)])
def test_training_writes_the_rows_of_its_last_batch(more: str, batch: int):
    write(phase="TRAIN", solver=SOLVER + more)
    assert main(["train", "solver.prototxt", "--device", "cpu"]) == 0
    data, label = written()
    np.testing.assert_array_equal(data, DATA[rows(batch)])
    np.testing.assert_array_equal(label.reshape(4), LABELS[rows(batch)])


def test_training_is_the_same_beside_it(capsys):
    losses = []
    for phase in ("TRAIN", "TEST"):
        write("ip", phase, SOLVER + " display: 1")
        assert main(["train", "solver.prototxt", "--device", "cpu"]) == 0
        losses.append(re.findall("Train net output #0: (.*)", capsys.readouterr().err))
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]


def test_an_unfinished_test_leaves_the_old_file(here: Path, monkeypatch):
    write()
    Path("out.h5").write_bytes(b"old")

    def broken(*_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kdnet.runtime.tester._Means._add", broken)
    assert main(["test", "net.prototxt", "--iterations", "3", "--device", "cpu"]) == 130
    assert Path("out.h5").read_bytes() == b"old"
    assert not list(here.glob(".kdnet-*"))


@pytest.mark.parametrize("command", ["train", "test"])
def test_a_place_that_takes_no_file_is_told_before_any_work(command: str, here: Path, capsys):
    write(phase="TRAIN" if command == "train" else "TEST")
    text = Path("net.prototxt").read_text().replace('"out.h5"', '"none/out.h5"')
    Path("net.prototxt").write_text(text)
    solver = ["--solver", "solver.prototxt"] if command == "train" else []
    assert main([command, "net.prototxt", "--device", "cpu", *solver]) == 1
    err = capsys.readouterr().err
    assert "net.prototxt:8:36: error: cannot write" in err.replace("file_name: ", "")
    assert "[cannot-write]" in err
    assert "Iteration" not in err
    assert not list(here.glob(".kdnet-*"))


@pytest.mark.parametrize(
    ("bottoms", "text"),
    [
        (
            'bottom: "data" bottom: "one"',
            'layer "bad" (HDF5Output): 1 rows beside 4: the bottoms have the shapes '
            "(4, 3, 2, 1), (1, 2)",
        ),
        (
            'bottom: "five" bottom: "label"',
            'layer "bad" (HDF5Output): a blob of 5 axes, (4, 3, 2, 1, 1); at most four are stored',
        ),
        ('bottom: "data" bottom: "label"', 'layer "bad" (HDF5Output): file_name: must be given'),
    ],
)
def test_bottoms_that_make_no_rows_are_refused(bottoms: str, text: str, capsys):
    made = """layer { name: "one" type: "DummyData" top: "one"
        dummy_data_param { shape { dim: 1 dim: 2 } } }
    layer { name: "five" type: "Reshape" bottom: "data" top: "five"
        reshape_param { shape { dim: 0 dim: 0 dim: 0 dim: 0 dim: 1 } } }
    layer { name: "hush" type: "Silence" bottom: "one" bottom: "five" }"""
    name = "" if "must be" in text else 'file_name: "o.h5"'
    bad = f'layer {{ name: "bad" type: "HDF5Output" {bottoms} hdf5_output_param {{ {name} }} }}'
    write(more=made + bad)
    assert main(["test", "net.prototxt", "--device", "cpu"]) == 1
    assert text in capsys.readouterr().err
