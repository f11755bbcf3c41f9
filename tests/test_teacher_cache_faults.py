"""What keeps a teacher's outputs from being kept, told at its place; and how blobs are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_nets import DATA, JOINED, TEACHER, edit, ok, run

from kdnet.data import teacher_cache
from kdnet.data.teacher_cache import StoredBlob, open_cache
from kdnet.data.top_k import LOGITS, PROBABILITIES, largest, whole
from kdnet.errors import DataError

CACHED = ("--cache-teacher", "kept")

TRANSFORM = "transform_param { scale: 0.00390625 }"
DUMMY = """
layer {
  name: "noise" type: "DummyData" top: "data" top: "label" include { phase: TRAIN }
  dummy_data_param { shape { dim: 6 dim: 16 } shape { dim: 6 } }
}
"""
TWO = """
layer {
  name: "more" type: "Data" top: "other" include { phase: TRAIN }
  data_param { source: "digits_lmdb" backend: LMDB batch_size: 6 }
}
layer {
  name: "both" type: "Eltwise" bottom: "data" bottom: "other" top: "both"
  include { phase: TRAIN }
}
"""
HINT = """
layer {
  name: "hint" type: "EuclideanLoss" bottom: "student/ip2" bottom: "teacher/ip" top: "hint"
  include { phase: TRAIN }
}
"""
IP = '\nlayer {\n  name: "student/ip1"'
READS = 'bottom: "data" top: "teacher/ip"'


def after_teacher(layer: str) -> tuple[str, str]:
    """Put a layer between the teacher and who reads it."""
    return IP, f"\n{layer}\n{IP}"


FAULTS = {
    "mirror": [(TRANSFORM, "transform_param { scale: 0.00390625 mirror: true }")],
    "no-records": [(DATA, DUMMY + DATA[DATA.rindex("layer {") :])],
    "noise": [
        after_teacher(
            'layer { name: "teacher/drop" type: "Dropout" bottom: "teacher/ip" top: "teacher/ip" }'
        )
    ],
    "mixed": [
        after_teacher(
            'layer { name: "teacher/mix" type: "Softmax" bottom: "teacher/ip" top: "mix"\n'
            "        softmax_param { axis: 0 } }"
        ),
        ('bottom: "teacher/ip" top: "ts_loss"', 'bottom: "mix" top: "ts_loss"'),
    ],
    "train-phase": [
        after_teacher(
            'layer { name: "teacher/bn" type: "BatchNorm" bottom: "data" top: "bn" }\n'
            + TEACHER.replace('bottom: "data"', 'bottom: "bn"')
        ),
        (TEACHER, ""),
    ],
    "two-sources": [
        (
            TEACHER,
            TWO + TEACHER.replace('bottom: "data"', 'include { phase: TRAIN } bottom: "both"'),
        )
    ],
}
WANTED = {
    "mirror": """\
joined.prototxt:5:3: error: layer "digits": the teacher's outputs cannot be kept, since mirror \
flips images at random [varying-records]
  5 |   transform_param { scale: 0.00390625 mirror: true }
    |   ^~~~~~~~~~~~~~~
help: take that out of transform_param, or train without --cache-teacher
""",
    "no-records": """\
joined.prototxt:3:1: error: layer "noise": the teacher's outputs cannot be kept: a DummyData \
layer has no records [no-records]
  3 | layer {
    | ^~~~~
help: Data, HDF5Data, ImageData and MemoryData have records
""",
    "noise": """\
joined.prototxt:20:1: error: layer "teacher/drop" (Dropout) draws new noise for every batch \
[frozen-noise]
  20 | layer { name: "teacher/drop" type: "Dropout" bottom: "teacher/ip" top: "teacher/ip" }
     | ^~~~~
help: give it phase: TEST, as the layers of a teacher have
""",
    "mixed": """\
joined.prototxt:20:1: error: layer "teacher/mix": blob "mix" of one record depends on the other \
records of the batch, so it cannot be kept by record [mixed-records]
  20 | layer { name: "teacher/mix" type: "Softmax" bottom: "teacher/ip" top: "mix"
     | ^~~~~
""",
    "train-phase": """\
joined.prototxt:1:1: error: net "Joined" has no frozen part whose outputs could be kept \
[nothing-frozen]
  1 | name: "Joined"
    | ^
joined.prototxt:14:1: note: layer "teacher/bn" (BatchNorm) updates its statistics, so layer \
"teacher/ip" is not kept
  14 | layer { name: "teacher/bn" type: "BatchNorm" bottom: "data" top: "bn" }
     | ^~~~~
help: a teacher is frozen when lr_mult is 0 for all its weights and it is in TEST
""",
    "two-sources": """\
joined.prototxt:3:1: error: the frozen part reads "digits" and "more"; its outputs belong to \
records of one data layer [frozen-two-sources]
  3 | layer {
    | ^~~~~
joined.prototxt:14:1: note: layer "more"
  14 | layer {
     | ^~~~~
""",
}


def change(folder: Path, name: str) -> None:
    path = folder / "joined.prototxt"
    for old, new in FAULTS[name]:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("name", FAULTS)
def test_a_teacher_that_cannot_be_kept_is_told_why(name: str, joined: Path) -> None:
    change(joined, name)
    assert run(*JOINED).code == 0
    ended = run(*JOINED, *CACHED)
    assert (ended.faults, ended.code) == (WANTED[name], 1)


def test_the_largest_classes_are_kept_of_class_scores_only(joined: Path) -> None:
    (joined / "joined.prototxt").write_text((joined / "joined.prototxt").read_text() + HINT)
    ended = run(*JOINED, *CACHED, "--cache-top-k", 2)
    assert ended.code == 1
    assert ended.faults.splitlines()[0] == (
        'joined.prototxt:14:1: error: layer "teacher/ip": --cache-top-k keeps class scores, and '
        'blob "teacher/ip" is not only those [cache-top-k]'
    )
    assert 'note: layer "hint" reads it as target' in ended.faults
    ok(*JOINED, *CACHED, "--cache-fp16")


def test_as_many_classes_as_there_are_is_all_of_them(joined: Path) -> None:
    log = ok(*JOINED, *CACHED, "--cache-top-k", 3).log
    assert 'Teacher cache: "teacher/ip" (float32) of 1 frozen layers' in log
    assert joined.exists()


@pytest.mark.parametrize("flags", [("--cache-top-k", 2), ("--cache-fp16",)])
def test_how_without_where_is_wrong_usage(flags: tuple[object, ...]) -> None:
    ended = run("train", "net.prototxt", *flags)
    assert ended.code == 2
    assert f"error: {flags[0]} says how" in ended.faults
    assert "[cache-without-folder]" in ended.faults


@pytest.mark.usefixtures("joined")
def test_values_that_float16_cannot_hold_are_found(joined: Path) -> None:
    edit(joined / "joined.prototxt", TRANSFORM, "transform_param { scale: 1000 }")
    ended = run(*JOINED, *CACHED, "--cache-fp16", "--max-iter", 1)
    assert ended.code == 1
    assert "has values beyond float16's 65504 [fp16-range]" in ended.faults


def test_a_teacher_that_is_kept_in_part_is_told(joined: Path) -> None:
    """The part below a BatchNorm in TRAIN is kept, the rest is run live."""
    below = TEACHER.replace("num_output: 3", 'num_output: 16 weight_filler { type: "constant" }')
    below = below.replace("teacher/ip", "teacher/low")
    batch_norm = 'layer { name: "teacher/bn" type: "BatchNorm" bottom: "teacher/low" top: "bn" }'
    top = TEACHER.replace('bottom: "data"', 'bottom: "bn"')
    edit(joined / "joined.prototxt", TEACHER, f"{below}{batch_norm}{top}")
    log = "\n".join(ok(*JOINED, *CACHED, "--allow-unloaded").log)
    assert 'Teacher cache: "teacher/low" (float32) of 1 frozen layers' in log
    text = (
        'layer "teacher/bn" (BatchNorm) updates its statistics, so layer "teacher/ip" is not kept'
    )
    assert f"warning: {text} [moving-teacher]" in log


def blob(**more: object) -> StoredBlob:
    return StoredBlob("t", (4,), **more)


def test_what_was_not_brought_to_the_disk_is_not_there(tmp_path: Path) -> None:
    first, told = open_cache(tmp_path, {"a": 1}, [blob()], 5)
    assert told == ""
    rows, values = np.array([3, 1]), np.arange(8, dtype=np.float32).reshape(2, 4)
    first.write(rows[:1], [values[:1]])
    first.flush()
    first.write(rows[1:], [values[1:]])
    second, _ = open_cache(tmp_path, {"a": 1}, [blob()], 5)
    assert second.has(np.arange(5)).tolist() == [False, False, False, True, False]
    np.testing.assert_array_equal(second.read(rows[:1])[0], values[:1])
    first.close()
    third, _ = open_cache(tmp_path, {"a": 1}, [blob()], 5)
    assert (third.count, third.size) == (2, 5)
    np.testing.assert_array_equal(third.read(rows)[0], values)


def test_values_reach_the_disk_at_intervals(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(teacher_cache, "FLUSH_EVERY_S", 0)
    cache, _ = open_cache(tmp_path, {}, [blob()], 5)
    cache.write(np.array([0]), [np.zeros((1, 4), np.float32)])
    assert open_cache(tmp_path, {}, [blob()], 5)[0].count == 1


def test_an_output_that_is_no_number_is_not_kept(tmp_path: Path) -> None:
    cache, _ = open_cache(tmp_path, {}, [blob()], 5)
    values = np.zeros((2, 4), np.float32)
    values[1, 2] = np.nan
    with pytest.raises(DataError, match="of record 4 is not finite") as caught:
        cache.write(np.array([2, 4]), [values])
    assert caught.value.diagnostics[0].code == "non-finite-teacher"


@pytest.mark.parametrize("made", [blob(), blob(fp16=True), blob(top_k=2, form=LOGITS)])
def test_the_error_of_what_is_kept_is_that_of_its_storage(made: StoredBlob) -> None:
    live = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    arrays = made.encoded(live)
    assert made.error(live, arrays).max() <= (4e-4 if made.fp16 else 0)
    other = live.copy()
    other[7, live[7].argmax()] += 0.1 * np.abs(live).max()
    errors = made.error(other, arrays)
    assert (errors > 0.05).tolist() == [row == 7 for row in range(20)]


def test_neighbours_that_changed_places_are_no_error() -> None:
    made = blob(top_k=2, form=LOGITS)
    live = np.array([[3, 2, 1.999, 0]], np.float32)
    arrays = made.encoded(np.array([[3, 1.999, 2, 0]], np.float32))
    assert made.error(live, arrays).max() < 1e-3
    arrays = made.encoded(np.array([[3, 0, 1.999, 2]], np.float32))
    assert made.error(live, arrays).max() > 0.5


@given(st.integers(0, 2**31), st.integers(1, 5), st.floats(0.1, 30))
def test_the_kept_classes_have_exactly_their_probabilities(
    seed: int, k: int, scale: float
) -> None:
    logits = scale * np.random.default_rng(seed).normal(size=(3, 6)).astype(np.float32)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    for form, scores in ((LOGITS, logits), (PROBABILITIES, p)):
        values, classes, rest = largest(scores, k, form)
        found = whole(values, classes, rest, count=6, form=form)
        if form == LOGITS:
            found = np.exp(found - found.max(1, keepdims=True))
            found /= found.sum(1, keepdims=True)
        kept = np.take_along_axis(p, classes.astype(int), 1)
        np.testing.assert_allclose(np.take_along_axis(found, classes.astype(int), 1), kept, 2e-5)
        np.testing.assert_allclose(found.sum(1), 1, 1e-5)
        others = np.sort(found, 1)[:, : 6 - k]
        np.testing.assert_allclose(others.max(1), others.min(1), 1e-5)
