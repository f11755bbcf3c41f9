"""Training from kept teacher outputs: the same as with the teacher, which then is not run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_nets import (
    JOINED,
    JOINED_NET,
    Ended,
    edit,
    ok,
    process,
    run,
    teacher_blobs,
    write_digits,
)

from kdnet.data import teacher_cache as store
from kdnet.runtime.engine import Engine
from kdnet.weights import LayerBlobs, read_weights, write_caffemodel

ITERATIONS = 12  # 2.4 epochs of 60 records in batches of 2 x 6
CACHED = ("--cache-teacher", "kept")

DEEP = """
layer { name: "teacher/half" type: "Power" bottom: "data" top: "half" power_param { scale: 0.5 } }
layer {
  name: "teacher/ip" type: "InnerProduct" bottom: "half" top: "t" param { lr_mult: 0 }
  param { lr_mult: 0 } inner_product_param { num_output: 3 }
}
layer {
  name: "teacher/drop" type: "Dropout" bottom: "t" top: "t" phase: TEST
}
layer {
  name: "student/bn" type: "BatchNorm" bottom: "t" top: "bn" include { phase: TRAIN }
}
layer { name: "teacher/relu" type: "ReLU" bottom: "t" top: "t" relu_param { negative_slope: 0.1 } }
layer { name: "teacher/prob" type: "Softmax" bottom: "t" top: "prob" }
layer { name: "teacher/loss" type: "SoftmaxWithLoss" bottom: "t" bottom: "label" top: "t_loss" }
layer { name: "teacher/hush" type: "Silence" bottom: "prob" include { phase: TEST } }
"""
DEEP_LOSS = """
layer {
  name: "features" type: "EuclideanLoss" bottom: "student/ip2" bottom: "bn" top: "features"
  include { phase: TRAIN } loss_weight: 0.01
}
layer {
  name: "late" type: "EuclideanLoss" bottom: "student/ip2" bottom: "t" top: "late"
  include { phase: TRAIN } loss_weight: 0.01
}
"""


def trained(*more: object) -> Ended:
    return ok(*JOINED, "--max-iter", ITERATIONS, *more)


def told(ended: Ended) -> list[str]:
    return [line for line in ended.log if line.startswith("Teacher cache: ")]


def scores(ended: Ended) -> list[str]:
    return [line for line in ended.log if "net output #" in line or ", loss = " in line]


def weights(folder: str) -> bytes:
    return (Path(folder) / f"run_iter_{ITERATIONS}.caffemodel").read_bytes()


def folders() -> set[Path]:
    return {path.parent for path in Path("kept").glob("*/key.json")}


@pytest.fixture
def teacher_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A list that grows by one at every run of a frozen part."""
    found: list[str] = []
    plain = Engine.run

    def counted(self: Engine, *arguments: object, **named: object) -> object:
        if self.program.model.graph.name == "frozen":
            found.append(self.program.model.graph.name)
        return plain(self, *arguments, **named)

    monkeypatch.setattr(Engine, "run", counted)
    return found


@pytest.mark.usefixtures("joined")
def test_training_is_the_same_and_later_epochs_run_no_teacher(teacher_runs: list[str]) -> None:
    live = trained("--out", "live")
    assert teacher_runs == []
    first = trained("--out", "first", *CACHED)
    # Ten batches of the first epoch, and two that show that records do not mix.
    assert len(teacher_runs) == 12
    teacher_runs.clear()
    second = trained("--out", "second", *CACHED)
    assert len(teacher_runs) == 1
    speed = "iter/s"
    wanted = [line for line in scores(live) if speed not in line]
    for ended, name in ((first, "first"), (second, "second")):
        assert [line for line in scores(ended) if speed not in line] == wanted
        assert weights(name) == weights("live")
    assert "0 of 60 records" in told(first)[1]
    assert "60 of 60 records" in told(second)[1]
    assert told(second)[2] == "Teacher cache: 6 records checked, largest difference 0.0e+00"


@pytest.mark.parametrize("flags", [(), ("--full",)])
def test_a_deep_teacher_with_in_place_layers_trains_the_same(
    flags: tuple[str, ...], joined: Path, teacher_runs: list[str]
) -> None:
    head = JOINED_NET[: JOINED_NET.index('\nlayer {\n  name: "teacher/ip"')]
    tail = JOINED_NET[JOINED_NET.index('\nlayer {\n  name: "student/ip1"') :]
    text = f"{head}{DEEP}{tail}{DEEP_LOSS}".replace('bottom: "teacher/ip"', 'bottom: "t"')
    (joined / "joined.prototxt").write_text(text)
    live = trained("--out", "live", *flags)
    cached = trained("--out", "cached", *flags, *CACHED)
    assert weights("cached") == weights("live")
    wanted = [line for line in scores(live) if "iter/s" not in line]
    assert [line for line in scores(cached) if "iter/s" not in line] == wanted
    assert any("t_loss" in line for line in wanted)
    # Of "t" both the first version and the last are read; the teacher's own loss speaks of a
    # batch, so it stays.
    kept = '"t@teacher/drop" (float32), "t" (float32), "prob" (float32)'
    assert told(cached)[0] == f"Teacher cache: {kept} of 4 frozen layers"
    layers = [
        layer.name for layer in read_weights(f"cached/run_iter_{ITERATIONS}.caffemodel").layers
    ]
    assert ("teacher/ip" in layers) == bool(flags)
    assert teacher_runs


SHARED = """
layer {
  name: "student/mid" type: "InnerProduct" bottom: "data" top: "mid"
  inner_product_param { num_output: 16 weight_filler { type: "xavier" } }
}
layer {
  name: "student/same" type: "InnerProduct" bottom: "mid" top: "same"
  param { name: "w" lr_mult: 0 } param { name: "b" lr_mult: 0 }
  inner_product_param { num_output: 3 }
}
layer {
  name: "alike" type: "EuclideanLoss" bottom: "same" bottom: "teacher/ip" top: "alike"
  include { phase: TRAIN }
}
"""


def test_a_frozen_weight_that_the_student_shares_is_one(joined: Path) -> None:
    net = joined / "joined.prototxt"
    edit(
        net,
        "  param { lr_mult: 0 } param { lr_mult: 0 }",
        '  param { name: "w" lr_mult: 0 } param { name: "b" lr_mult: 0 }',
    )
    net.write_text(net.read_text() + SHARED)
    live = trained("--out", "live", "--full", "--allow-unloaded")
    cached = trained("--out", "cached", "--full", "--allow-unloaded", *CACHED)
    assert weights("cached") == weights("live")
    assert any("alike" in line for line in scores(cached))
    assert len(scores(cached)) == len(scores(live))


def test_what_a_schedule_moves_stays_with_the_rest(joined: Path) -> None:
    net = joined / "joined.prototxt"
    net.write_text(
        net.read_text()
        + 'layer { name: "own" type: "SoftmaxWithLoss" bottom: "teacher/ip" bottom: "label" }'
    )
    edit(
        joined / "joined_solver.prototxt",
        "random_seed: 5",
        'random_seed: 5 schedule { layer: "own" value: 1 value: 0 }'
        ' schedule { layer: "ts_loss" value: 1 value: 0 }',
    )
    live, cached = trained("--out", "live"), trained("--out", "cached", *CACHED)
    assert weights("cached") == weights("live")
    wanted = [line for line in scores(live) if "iter/s" not in line]
    assert [line for line in scores(cached) if "iter/s" not in line] == wanted


@pytest.mark.usefixtures("joined")
def test_a_resumed_run_equals_the_straight_one() -> None:
    trained("--out", "live")
    ok(*JOINED, "--max-iter", 3, "--out", "broken", *CACHED)
    resumed = trained("--out", "broken", "--snapshot", "broken/run_iter_3.solverstate", *CACHED)
    assert weights("broken") == weights("live")
    assert "of 60 records" in told(resumed)[1]
    assert "checked" in told(resumed)[2]


def weights_differ(folder: Path) -> None:
    weight, bias = teacher_blobs()
    (folder / "teacher.caffemodel").unlink()
    write_caffemodel(
        folder / "teacher.caffemodel", [LayerBlobs("teacher/ip", "InnerProduct", (weight, -bias))]
    )


def layer_differs(folder: Path) -> None:
    edit(
        folder / "joined.prototxt",
        'type: "InnerProduct" bottom: "data" top: "teacher/ip"',
        'type: "InnerProduct" bottom: "data" top: "t0"',
    )
    edit(
        folder / "joined.prototxt",
        '\nlayer {\n  name: "student/ip1"',
        '\nlayer { name: "teacher/relu" type: "ReLU" bottom: "t0" top: "teacher/ip" }'
        '\nlayer {\n  name: "student/ip1"',
    )


def scale_differs(folder: Path) -> None:
    edit(folder / "joined.prototxt", "scale: 0.00390625", "scale: 0.0078125")


def data_differ(folder: Path) -> None:
    (folder / "digits_lmdb").unlink()
    write_digits(folder / "digits_lmdb", 48)


CHANGES = {
    "weights": (weights_differ, "differs in weights teacher/ip/bias"),
    "layer": (layer_differs, "differs in layers 001 teacher/ip (InnerProduct), layers 002"),
    "transform": (scale_differs, "differs in data transform"),
    "data": (data_differ, "differs in records, data contents"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_decides_an_output_decides_the_folder(what: str, joined: Path) -> None:
    change, text = CHANGES[what]
    trained(*CACHED)
    (before,) = folders()
    content = (before / "00_teacher_ip.values").read_bytes()
    change(joined)
    ended = trained("--out", "cached", *CACHED)
    assert len(folders()) == 2
    assert text in told(ended)[1]
    assert "0 of " in told(ended)[1]
    assert (before / "00_teacher_ip.values").read_bytes() == content
    trained("--out", "live")
    assert weights("cached") == weights("live")


def test_what_decides_nothing_leaves_the_folder(joined: Path) -> None:
    trained(*CACHED)
    edit(joined / "joined.prototxt", "batch_size: 6", "batch_size: 7")
    edit(joined / "joined.prototxt", 'source: "digits_lmdb"', 'source: "moved/db"')
    edit(joined / "joined.prototxt", 'name: "digits"', 'name: "other"')
    edit(joined / "joined.prototxt", "lr_mult: 2 decay_mult: 0", "lr_mult: 3")
    (joined / "moved").mkdir()
    shutil.copytree(joined / "digits_lmdb", joined / "moved" / "db")
    ended = trained("--out", "cached", *CACHED)
    assert len(folders()) == 1
    assert "60 of 60 records" in told(ended)[1]
    trained("--out", "live")
    np.testing.assert_allclose(
        read_weights(f"cached/run_iter_{ITERATIONS}.caffemodel").layers[0].blobs[0],
        read_weights(f"live/run_iter_{ITERATIONS}.caffemodel").layers[0].blobs[0],
        rtol=1e-6,
        atol=1e-7,
    )


KILLED = """
import os, signal, sys
from kdnet.cli import main
from kdnet.data import teacher_cache
from kdnet.runtime import trainer

teacher_cache.FLUSH_EVERY_S = 0
plain = trainer.Trainer.iterate

def iterate(self):
    if self.iteration == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self)

trainer.Trainer.iterate = iterate
main(sys.argv[1:])
"""


def test_a_killed_run_leaves_a_cache_that_can_be_used(
    joined: Path, teacher_runs: list[str]
) -> None:
    assert process(joined, *JOINED, *CACHED, code=KILLED).code == -9
    (folder,) = folders()
    present = np.fromfile(folder / "present", np.uint8)
    assert 36 <= present.sum() <= 60
    trained("--out", "live")
    ended = trained("--out", "cached", *CACHED)
    assert weights("cached") == weights("live")
    assert f"{present.sum()} of 60 records" in told(ended)[1]
    assert len(teacher_runs) == 1 + (60 - present.sum()) // 6


def test_float16_and_the_largest_classes_train_nearly_the_same(joined: Path) -> None:
    edit(joined / "joined.prototxt", "scale: 0.00390625", "scale: 0.0039")
    trained("--out", "live")
    wanted = read_weights(f"live/run_iter_{ITERATIONS}.caffemodel").layers[0].blobs[0]
    for name, flags in (("half", ["--cache-fp16"]), ("top", ["--cache-top-k", 2])):
        first = trained("--out", name, *CACHED, *flags)
        again = trained("--out", f"{name}2", *CACHED, *flags)
        assert weights(name) == weights(f"{name}2")
        assert weights(name) != weights("live") or name == "top"
        found = read_weights(f"{name}/run_iter_{ITERATIONS}.caffemodel").layers[0].blobs[0]
        np.testing.assert_allclose(found, wanted, atol=1e-3)
        assert ("float16" in told(first)[0]) == (name == "half")
        assert "60 of 60" in told(again)[1]
    assert "the 2 largest logits" in told(again)[0]
    sizes = [path.stat().st_size for path in Path("kept").glob("*/00_teacher_ip.values")]
    assert sorted(sizes) == [60 * 3 * 2, 60 * 2 * 4]


def code_of(ended: Ended) -> str:
    assert ended.code == 1, ended.err
    return ended.faults


def test_a_cache_that_is_not_the_teacher_s_is_found_out(joined: Path) -> None:
    trained(*CACHED)
    (folder,) = folders()
    values = np.memmap(folder / "00_teacher_ip.values", np.float32, "r+", shape=(60, 3))
    values[4, 1] += 0.01
    values.flush()
    faults = code_of(run(*JOINED, *CACHED))
    assert "[cache-mismatch]" in faults
    assert 'layer "teacher/ip"' in faults
    assert "record 4 differs by" in faults
    assert f'help: delete the folder "{folder}": it is made anew' in faults
    assert faults.startswith("joined.prototxt:")
    shutil.rmtree(folder)
    trained(*CACHED)
    assert joined.exists()


@pytest.mark.usefixtures("joined")
def test_a_damaged_cache_is_refused() -> None:
    trained(*CACHED)
    (folder,) = folders()
    key = folder / "key.json"
    good = key.read_text()
    for text in ("{}", good.replace("60", "61")):
        key.write_text(text)
        assert "[damaged-cache]" in code_of(run(*JOINED, *CACHED))
    key.write_text(good)
    values = folder / "00_teacher_ip.values"
    values.write_bytes(values.read_bytes()[:-1])
    assert "has 719 of 720 bytes" in code_of(run(*JOINED, *CACHED))
    values.unlink()
    assert "[damaged-cache]" in code_of(run(*JOINED, *CACHED))


@pytest.mark.usefixtures("joined")
def test_a_disk_without_room_is_told_before_anything_is_made(monkeypatch) -> None:
    usage = shutil.disk_usage(".")._replace(free=700)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _path: usage)
    faults = code_of(run(*JOINED, *CACHED))
    assert "[disk-space]" in faults
    assert "need 0.0 MB" in faults
    assert not list(Path("kept").iterdir())


@pytest.mark.usefixtures("joined")
def test_a_folder_that_cannot_be_made_is_told() -> None:
    Path("kept").write_text("a file")
    assert "[cannot-write]" in code_of(run(*JOINED, *CACHED))


@pytest.mark.usefixtures("joined")
def test_the_key_can_be_read_by_people() -> None:
    trained(*CACHED)
    (folder,) = folders()
    key = json.loads((folder / "key.json").read_text())
    assert key["records"] == 60
    assert key["device"] == "cpu"
    assert set(key["weights"]) == {"teacher/ip/weight", "teacher/ip/bias"}
    assert key["blobs"] == {"teacher/ip": "[3] float32"}
    assert key["data"]["type"] == "Data"
    assert not [path for path in Path("kept").iterdir() if path.name.startswith(".")]
