"""A teacher known by its answers: they follow the records, in every file and form."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_nets import JOINED, TEACHER, WEIGHTS, Ended, edit, ok, run
from tables.sources import (
    COUNT,
    DUMMY,
    HDF5,
    IMAGES,
    LABELS,
    LMDB,
    database,
    layer_of,
    write_hdf5,
    write_images,
    write_lmdb,
)

from kdnet.data import Source, open_source
from kdnet.errors import DataError
from kdnet.net import LayerModel
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import read_weights

CLASSES = 6
LOGITS = np.random.default_rng(1).normal(scale=3, size=(COUNT, CLASSES)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


PROBABILITIES = softmax(LOGITS)
ORDER = np.argsort(-LOGITS, axis=1)
KEPT, OTHERS = ORDER[:, :2], ORDER[:, 2:]
TOP = {
    "logits": np.take_along_axis(LOGITS, KEPT, 1),
    "logits_classes": KEPT,
    "logits_rest": np.log(np.exp(np.take_along_axis(LOGITS, OTHERS, 1)).sum(1)),
}


def spread(values: np.ndarray, each: np.ndarray) -> np.ndarray:
    found = np.repeat(each[:, None], CLASSES, axis=1).astype(np.float32)
    np.put_along_axis(found, KEPT, values, axis=1)
    return found


def answers_layer(fields: str, source: str = "@/answers.npz") -> str:
    return (
        'name: "answers" type: "SoftLabels" top: "t" '
        f'soft_labels_param {{ source: "{source}" num_classes: {CLASSES} {fields} }}'
    )


def batch_of(text: str, folder: Path, of: str = IMAGES, index: int = 0) -> tuple[np.ndarray, ...]:
    """Answers and labels of a batch, the latter as floats."""
    with ExitStack() as opened:
        data = opened.enter_context(open_source(layer_of(of, folder), seed=3))
        answers = opened.enter_context(open_source(layer_of(text, folder), seed=3))
        answers.attach({source.layer.name: source for source in (data, answers)})
        assert answers.shapes == ((len(data.records(0)), CLASSES),)
        (found,) = answers.batch(index)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        assert answers.record_count == COUNT
        np.testing.assert_array_equal(answers.records(index), data.records(index))
        return found, data.batch(index)[1]


def attached(layer: LayerModel, data: list[Source]) -> None:
    """Open a source of answers beside data, and read a batch."""
    with open_source(layer, seed=0) as answers:
        answers.attach({source.layer.name: source for source in (*data, answers)})
        answers.batch(0)


def npz(**arrays: np.ndarray) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        np.savez(folder / "answers.npz", **arrays)
        return "@/answers.npz"

    return write


def hdf5(folder: Path) -> str:
    with h5py.File(folder / "answers.h5", "w") as file:
        file["logits"] = LOGITS.astype(np.float16)
    return "@/answers.h5"


def hdf5_list(folder: Path) -> str:
    for name, rows in (("one.h5", slice(0, 3)), ("two.h5", slice(3, COUNT))):
        with h5py.File(folder / name, "w") as file:
            file["logits"] = LOGITS[rows, :, None, None]
    (folder / "answers.txt").write_text("one.h5\ntwo.h5\n")
    return "@/answers.txt"


def hdf5_top(folder: Path) -> str:
    with h5py.File(folder / "answers.h5", "w") as file:
        for name, array in TOP.items():
            file[name] = array
    return "@/answers.h5"


def lmdb(folder: Path) -> str:
    records = []
    for row in LOGITS:
        datum = pb.Datum(channels=CLASSES, height=1, width=1)
        datum.float_data.extend(row.tolist())
        records.append(datum.SerializeToString())
    write_lmdb(folder / "answers_lmdb", records)
    return "@/answers_lmdb"


P_TOP = np.take_along_axis(PROBABILITIES, KEPT, 1)
P_EACH = (1 - P_TOP.sum(1)) / (CLASSES - 2)
WHOLE_TOP = spread(TOP["logits"], TOP["logits_rest"] - np.log(CLASSES - 2))
FILES = {
    "npz": (npz(logits=LOGITS), "", LOGITS),
    "hdf5": (hdf5, "", LOGITS.astype(np.float16)),
    "hdf5-list": (hdf5_list, "", LOGITS),
    "lmdb": (lmdb, "", LOGITS),
    "named": (npz(teacher=LOGITS), 'dataset: "teacher"', LOGITS),
    "as-probabilities": (npz(logits=LOGITS), "top_form: PROBABILITIES", PROBABILITIES),
    "probabilities": (npz(logits=PROBABILITIES), "form: PROBABILITIES", PROBABILITIES),
    "as-logits": (
        npz(logits=np.where(PROBABILITIES > 0.1, PROBABILITIES, 0)),
        "form: PROBABILITIES top_form: LOGITS",
        np.where(PROBABILITIES > 0.1, np.log(PROBABILITIES), np.log(1e-12)),
    ),
    "top-k": (npz(**TOP), "top_k: 2", WHOLE_TOP),
    "top-k-hdf5": (hdf5_top, "top_k: 2", WHOLE_TOP),
    "top-k-floor": (
        npz(logits=TOP["logits"], logits_classes=KEPT),
        "top_k: 2 floor: -9",
        spread(TOP["logits"], np.full(COUNT, -9.0)),
    ),
    "top-k-probabilities": (
        npz(logits=P_TOP, logits_classes=KEPT),
        "top_k: 2 form: PROBABILITIES",
        spread(P_TOP, P_EACH),
    ),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("shuffle", [False, True])
def test_answers_follow_the_records(name: str, shuffle: bool, tmp_path: Path) -> None:
    write_images(tmp_path)
    build, fields, wanted = FILES[name]
    source = build(tmp_path)
    of = IMAGES.replace("4 }", "4 shuffle: true }") if shuffle else IMAGES
    rows = []
    for index in (0, 1, 4):
        found, labels = batch_of(answers_layer(fields, source), tmp_path, of, index)
        rows += [int(np.argmax(label == LABELS)) for label in labels]
        # Labels 1 occur twice, at rows 1 and 3.
        same = [row for row in range(4) if labels[row] != 1]
        chosen = [rows[-4:][row] for row in same]
        np.testing.assert_allclose(found[same], wanted[chosen], rtol=1e-5, atol=1e-6)
    assert (rows[:4] == [0, 1, 2, 1]) == (not shuffle)


def test_an_lmdb_and_hdf5_data_are_answered_too(tmp_path: Path) -> None:
    database()(tmp_path)
    write_hdf5(tmp_path)
    npz(logits=LOGITS)(tmp_path)
    skipping = LMDB.replace("4 backend", "4 rand_skip: 3 backend")
    for of in (LMDB, HDF5, skipping):
        found, labels = batch_of(answers_layer('of: "d"' if of == LMDB else ""), tmp_path, of, 2)
        wanted = [int(np.argmax(label == LABELS)) for label in labels]
        np.testing.assert_array_equal(found[labels != 1], LOGITS[wanted][labels != 1])


@pytest.mark.parametrize(
    ("fields", "build", "code", "text"),
    [
        ('of: "imagse"', npz(logits=LOGITS), "no-followed-layer", 'no data layer "imagse"'),
        ('of: "u"', npz(logits=LOGITS), "no-followed-layer", "a DummyData layer has no records"),
        ("", npz(logits=LOGITS), "no-followed-layer", "of is not given"),
        ('of: "i"', npz(logits=LOGITS[:9]), "answer-count", "9 answers for the 10 records"),
        ('of: "i" batch_size: 3', npz(logits=LOGITS), "item-shape", "has batches of 4"),
        ('of: "i"', npz(logits=LOGITS[:, :5]), "answer-shape", "have 5 values, but num_classes"),
        ('of: "i" top_k: 3', npz(**TOP), "answer-shape", "have 2 values, but top_k is 3"),
        ('of: "i" top_k: 7', npz(**TOP), "answer-shape", "top_k is 7 of 6 classes"),
        ('of: "i"', npz(scores=LOGITS), "missing-array", 'no array "logits"'),
        ('of: "i"', npz(logits=np.array(3)), "bad-dataset", "must be numbers with rows"),
        ('of: "i" top_k: 2', npz(logits=LOGITS[:, :2]), "missing-array", '"logits_classes"'),
        (
            'of: "i" top_k: 2',
            npz(logits=TOP["logits"], logits_classes=KEPT[:3]),
            "dataset-rows",
            "different numbers of rows: [3, 10]",
        ),
        (
            'of: "i" top_k: 2',
            npz(logits=TOP["logits"], logits_classes=KEPT),
            "answers-without-rest",
            'has no "logits_rest"',
        ),
        (
            'of: "i" top_k: 2 floor: 0',
            npz(logits=TOP["logits"], logits_classes=KEPT + 2),
            "answer-classes",
            "has an answer for class",
        ),
        ('of: "i" top_k: 2', lmdb, "answers-without-classes", "holds the scores of all classes"),
    ],
)
def test_answers_that_do_not_fit_are_told(
    fields: str, build: Callable[[Path], str], code: str, text: str, tmp_path: Path
) -> None:
    write_images(tmp_path)
    layer = layer_of(answers_layer(fields, build(tmp_path)), tmp_path)
    dummy = layer_of(DUMMY + "dummy_data_param { shape { dim: 4 } }", tmp_path)
    data = [open_source(layer_of(IMAGES, tmp_path), seed=0), open_source(dummy, seed=0)]
    with pytest.raises(DataError) as caught:
        attached(layer, data)
    (found,) = caught.value.diagnostics
    assert found.code == code
    assert text in found.message
    assert found.message.startswith('layer "answers": ')
    assert found.span is not None


def test_an_lmdb_of_several_widths_is_told(tmp_path: Path) -> None:
    write_images(tmp_path)
    wide = pb.Datum(channels=6, height=1, width=1, float_data=[0] * 6).SerializeToString()
    less = pb.Datum(channels=5, height=1, width=1, float_data=[0] * 5).SerializeToString()
    write_lmdb(tmp_path / "answers_lmdb", [wide] * 9 + [less])
    with pytest.raises(DataError, match="has 5 numbers; the first has 6"):
        batch_of(answers_layer("", "@/answers_lmdb"), tmp_path, index=2)


def test_answers_alone_answer_nothing(tmp_path: Path) -> None:
    npz(logits=LOGITS)(tmp_path)
    with (
        open_source(layer_of(answers_layer(""), tmp_path), seed=0) as source,
        pytest.raises(DataError, match="there is none here"),
    ):
        source.batch(0)


def test_what_answers_are_is_their_content_and_form(tmp_path: Path) -> None:
    def identity(fields: str, name: str) -> dict[str, str]:
        with open_source(layer_of(answers_layer(fields, f"@/{name}"), tmp_path), seed=0) as source:
            assert source.varies == ""
            return source.identity()

    for name, array in (("a.npz", LOGITS), ("b.npz", LOGITS), ("c.npz", -LOGITS)):
        np.savez(tmp_path / name, logits=array)
    assert identity("", "a.npz") == identity('of: "x" batch_size: 3', "b.npz")
    assert identity("", "a.npz") != identity("", "c.npz")
    assert identity("", "a.npz") != identity("top_form: PROBABILITIES", "a.npz")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ('of: "digtis" num_classes: 3', 'of: no data layer "digtis" stands above'),
        ("", "num_classes: must be positive"),
    ],
)
def test_a_layer_without_its_data_or_classes_is_told(fields, text, joined: Path) -> None:
    answers = ANSWERS.replace('"answers.npz" num_classes: 3', f'"answers.npz" {fields}')
    edit(joined / "joined.prototxt", TEACHER, answers)
    ended = run("train", "joined.prototxt", "--device", "cpu")
    assert ended.code == 1
    assert f'layer "answers" (SoftLabels): {text}' in ended.faults


# --- kdnet data soft-labels

TOOL = ("data", "soft-labels", "joined.prototxt", "--blob", "teacher/ip", *WEIGHTS)
ANSWERS = """
layer {
  name: "answers" type: "SoftLabels" top: "teacher/ip"
  soft_labels_param { source: "answers.npz" num_classes: 3 }
}
"""
TESTED = 'top: "label" include { phase: TEST stage: "none" }'
LAST = "run_iter_6.caffemodel"


def first_weight() -> np.ndarray:
    return read_weights(LAST).layers[0].blobs[0]


def refused(*arguments: object) -> Ended:
    ended = run(*TOOL, *arguments)
    assert ended.code in (1, 2), ended.err
    return ended


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_student_of_written_answers_is_that_of_the_teacher(shuffled: bool, joined: Path) -> None:
    net = joined / "joined.prototxt"
    ended = ok(*TOOL, "-o", "answers.npz", "--device", "cpu")
    assert ended.out == "answers.npz: 60 answers of 3 logits, float32\n"
    ok(*JOINED)
    wanted = first_weight()
    edit(net, TEACHER, ANSWERS.replace(" num", ' of: "digits" num') if shuffled else ANSWERS)
    ended = ok("train", "joined.prototxt", "--device", "cpu")
    np.testing.assert_array_equal(first_weight(), wanted)


@pytest.mark.parametrize("name", ["answers.npz", "answers.h5"])
@pytest.mark.parametrize("flags", [(), ("--fp16",), ("--top-k", 2), ("--top-k", 2, "--fp16")])
def test_every_file_holds_the_answers(name: str, flags: tuple[object, ...], joined: Path) -> None:
    ok(*TOOL, "-o", "whole.npz")
    ended = ok(*TOOL, "-o", name, *flags)
    kind = "float16" if "--fp16" in flags else "float32"
    kept = ", the 2 largest logits" if 2 in flags else ""
    assert ended.out == f"{name}: 60 answers of 3 logits, {kind}{kept}\n"
    with np.load("whole.npz") as file:
        logits = file["logits"]
    assert logits.shape == (60, 3)
    if name.endswith(".npz"):
        with np.load(name) as file:
            found = {key: file[key] for key in file.files}
    else:
        with h5py.File(name) as file:
            found = {key: file[key][:] for key in file}
    assert found["logits"].dtype == kind
    if 2 not in flags:
        np.testing.assert_allclose(found["logits"], logits, rtol=1e-3)
        return
    np.testing.assert_allclose(found["logits"], np.sort(logits, 1)[:, :0:-1], rtol=1e-3)
    np.testing.assert_array_equal(found["logits_classes"], np.argsort(-logits, 1)[:, :2])
    np.testing.assert_allclose(found["logits_rest"], logits.min(1), rtol=1e-5)
    assert not [path for path in joined.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("joined")
def test_answers_of_the_test_data_and_of_probabilities() -> None:
    ended = ok(*TOOL, "-o", "p.npz", "--data", "test", "--form", "probabilities")
    assert ended.out == "p.npz: 60 answers of 3 probabilities, float32\n"
    with np.load("p.npz") as file:
        assert file.files == ["probabilities"]


def test_what_cannot_be_answered_is_told(joined: Path) -> None:
    assert "[answers-suffix]" in refused("-o", "answers.txt").faults
    unknown = refused("-o", "a.npz", "--blob", "teacher/pi").faults
    assert 'help: did you mean "teacher/ip"?' in unknown
    assert "[unknown-blob]" in unknown
    assert "[cannot-write]" in refused("-o", "nowhere/a.npz").faults
    assert "[not-per-record]" in refused("-o", "a.npz", "--blob", "loss").faults
    edit(joined / "joined.prototxt", "{ scale: 0.00390625 }", "{ mirror: true }")
    assert "[varying-records]" in refused("-o", "a.npz").faults
    edit(joined / "joined.prototxt", 'top: "label" include { phase: TRAIN }', TESTED)
    assert "[unknown-bottom]" in refused("-o", "a.npz").faults
    assert not [path for path in joined.iterdir() if path.suffix == ".npz"]
