"""What a join refuses, and where it says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from joining import DATA, IMAGES, LOSS, PLAIN, deploy, fc, joined, pair
from small_nets import run

from kdnet.errors import KdnetError

HINT = 'loss { type: "Hint" student: "fc" teacher: "fc" }'
UNLABELLED = """
layer { name: "data" type: "DummyData" top: "data"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } } }
"""


def refused(folder: Path, teacher: str, student: str, more: str = "", **options: str) -> list[str]:
    """Code, message and position of every fault of a join of two nets."""
    with pytest.raises(KdnetError) as caught:
        pair(folder, teacher, student, more, **options)
    return [
        f"{fault.code} {Path(fault.span.file).name}:{fault.span.line} {fault.message}"
        if fault.span
        else f"{fault.code} {fault.message}"
        for fault in caught.value.diagnostics
    ]


CASES = {
    "lambda": (
        (PLAIN, PLAIN, "distillation_weight: 1.5"),
        "bad-lambda join.prototxt:1 lambda must be from 0 to 1, not 1.5",
    ),
    "no_loss_type": (
        (PLAIN, PLAIN, 'loss { type: "Softmax" }'),
        'not-a-loss join.prototxt:1 "Softmax" is no loss layer',
    ),
    "unknown_type": (
        (PLAIN, PLAIN, 'loss { type: "Hintt" }'),
        'unknown-layer-type join.prototxt:1 layer "loss": there is no layer type "Hintt"',
    ),
    "arity": (
        (
            PLAIN,
            PLAIN,
            'loss { type: "EuclideanLoss" student: "fc" student: "loss" teacher: "fc" }',
        ),
        'loss-arity join.prototxt:1 "EuclideanLoss" reads values, target; 2 blobs of a student '
        "and 1 of a teacher do not fit",
    ),
    "unknown_net": (
        (PLAIN, PLAIN, 'data: "assistant"'),
        'unknown-net join.prototxt:1 data names "assistant", but the nets of the join are '
        '"teacher", "student"',
    ),
    "no_data": (
        (deploy(), PLAIN, 'data: "teacher"'),
        'no-data-layer join.prototxt:1 teacher: "{0}/t.prototxt" has no layer that reads data',
    ),
    "unlabelled": (
        (PLAIN, UNLABELLED + fc("fc"), 'loss { type: "EuclideanLoss" }'),
        'missing-logits join.prototxt:1 student: "{0}/s.prototxt" shows no class scores: no loss '
        "or metric on logits, and no Softmax at its end",
    ),
    "input_size": (
        (deploy((1, 3, 9, 9)), IMAGES % "" + fc("fc") + LOSS % "fc"),
        "input-size t.prototxt:2 teacher wants 3 x 9 x 9, but the shared records are 3 x 8 x 8",
    ),
    "input_channels": (
        (deploy((1, 1, 8, 8)), IMAGES % "" + fc("fc") + LOSS % "fc"),
        "input-size t.prototxt:2 teacher wants 1 x 8 x 8, but the shared records are 3 x 8 x 8",
    ),
    "crop_of_no_images": (
        (IMAGES % "crop_size: 4" + fc("fc") + LOSS % "fc", PLAIN),
        "unpaired-view join.prototxt:1 teacher sees the records with another crop or mean image, "
        'but the shared data layer "data" (DummyData) transforms no images',
    ),
    "more_inputs": (
        (
            DATA.replace('top: "label"', 'top: "more" top: "label"').replace(
                "shape { dim: 4 }", "shape { dim: 4 } shape { dim: 4 }"
            )
            + fc("fc", "more")
            + LOSS % "fc",
            PLAIN,
        ),
        'unmatched-input t.prototxt:2 teacher: nothing in "{0}/s.prototxt" gives what its "more" '
        "holds",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_fault_says_what_and_where(name: str, tmp_path: Path) -> None:
    arguments, expected = CASES[name]
    assert refused(tmp_path, *arguments) == [expected.replace("{0}", str(tmp_path))]


def test_scores_that_are_named_must_be_there(tmp_path: Path) -> None:
    (fault,) = refused(tmp_path, PLAIN, PLAIN, t='logits: "fd"')
    assert fault.startswith('unknown-blob join.prototxt:1 teacher: "')
    assert fault.endswith('has no blob "fd"')


def test_labels_are_needed_unless_the_teacher_alone_is_followed(tmp_path: Path) -> None:
    unlabelled = UNLABELLED + fc("fc")
    data = unlabelled + 'layer { name: "p" type: "Softmax" bottom: "fc" top: "p" }'
    (fault,) = refused(tmp_path, deploy(), data)
    assert (
        fault == "missing-label join.prototxt:1 student: there are no labels for a loss of its own"
    )
    pair(tmp_path, deploy(), data, "distillation_weight: 1")


@pytest.mark.parametrize("weights", ["weight: -1", "weight: 0"])
def test_shares_of_teachers_are_positive(weights: str, tmp_path: Path) -> None:
    other = 'teacher { net: "t.prototxt" weight: 0 } '
    (fault,) = refused(tmp_path, PLAIN, PLAIN, other, t=weights)
    assert fault.startswith("bad-share join.prototxt:1 ")


def test_rules_are_checked_against_the_net(tmp_path: Path) -> None:
    rules = 'rename: "s/pool/p/" rename: "gc=x"'
    assert refused(tmp_path, PLAIN, PLAIN, t=rules) == [
        f'unmatched-mapping join.prototxt:1 "{tmp_path}/t.prototxt" has no layer "gc"',
        f'unmatched-mapping join.prototxt:1 "{tmp_path}/t.prototxt" has no layer that '
        '"s/pool/p/" matches',
    ]
    (fault,) = refused(tmp_path, PLAIN, PLAIN, t='rename: "teacher"')
    assert fault.startswith("bad-mapping join.prototxt:1 ")
    (fault,) = refused(tmp_path, PLAIN, PLAIN, t='rename: "{name}/a" rename: "{name}/b"')
    assert fault == 'bad-mapping join.prototxt:1 "{name}/b" is a second template'
    (fault,) = refused(tmp_path, PLAIN, PLAIN, t='rename: "s/.*/x/"')
    assert fault.startswith("rename-collision")


def test_two_nets_of_one_name_clash(tmp_path: Path) -> None:
    (fault,) = refused(tmp_path, PLAIN, PLAIN, t='name: "net"', s='name: "net"')
    assert fault == 'name-clash join.prototxt:1 two nets of the join are called "net"'


def test_shared_weights_and_blobs_may_not_be_shared_by_accident(tmp_path: Path) -> None:
    named = PLAIN.replace("inner_product_param", 'param { name: "w" } inner_product_param')
    rules = 'rename: "fc=gc"'
    (fault,) = refused(tmp_path, named, named, t=rules + ' rename: "loss=l"')
    assert fault.startswith("name-clash s.prototxt:")
    assert 'would both have a shared weight "w"' in fault


def test_a_join_without_a_student_or_with_a_lonely_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(KdnetError, match="no-student"):
        joined(tmp_path, 'teacher { net: "t.prototxt" }', t=PLAIN)
    text = 'student { net: "s.prototxt" } loss { type: "TeacherStudentCrossEntropy" }'
    with pytest.raises(KdnetError, match="no-teacher"):
        joined(tmp_path, text, s=PLAIN)


def test_no_pair_of_nets_has_the_blobs(tmp_path: Path) -> None:
    text = 'teacher { net: "p.prototxt" } teacher { net: "q.prototxt" } '
    text += 'student { net: "p.prototxt" } '
    loss = 'loss { type: "EuclideanLoss" student: "fc" teacher: "fc" teacher: "gc" }'
    with pytest.raises(KdnetError, match="unknown-blob"):
        joined(tmp_path, text + loss, p=PLAIN, q=PLAIN.replace('"fc"', '"gc"'))


FLAGS = {
    "--teacher-name x --teacher t.prototxt": "--teacher-name must follow the --teacher that it",
    "--lambda high": '--lambda: "high" is no number',
    "--combine all": '--combine "all" is none of each, probabilities, logits',
    "--match a:Hint": '--match "a:Hint" is not STUDENT=TEACHER:TYPE',
    "--loss none": "--loss none leaves nothing to learn from a teacher: add --match",
    "--description d.prototxt --lambda 1": "--description stands alone",
    "--loss EuclideanLoss --loss-param x:1": 'a "EuclideanLoss" has no parameters',
}


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_that_make_no_sense_are_usage_faults(flags: str, tmp_path: Path) -> None:
    ended = run("join", *flags.split(), "-o", tmp_path / "o.prototxt")
    assert ended.code == 2
    assert FLAGS[flags] in ended.err
    assert "[bad-join-option]" in ended.err


def test_nothing_that_is_read_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pair(tmp_path, PLAIN, PLAIN)
    ended = run("join", "--description", "join.prototxt", "-o", "s.prototxt")
    assert (ended.code, "[output-is-input]" in ended.err) == (2, True)
    assert (tmp_path / "s.prototxt").read_text() == PLAIN


def test_weight_files_must_be_there(tmp_path: Path) -> None:
    pair(tmp_path, PLAIN, PLAIN, t='weights: "no.caffemodel"')
    ended = run("join", "--description", tmp_path / "join.prototxt", "-o", tmp_path / "o.prototxt")
    assert (ended.code, "[missing-net-weights]" in ended.err) == (1, True)
    assert not (tmp_path / "o.prototxt").exists()


def test_a_layer_that_flags_asked_for_is_named_without_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pair(tmp_path, PLAIN, PLAIN)
    flags = ("--teacher", "t.prototxt", "--student", "s.prototxt", "--temperature", 0)
    ended = run("join", *flags, "-o", "o.prototxt")
    assert ended.faults.startswith('error: layer "ts_loss" (TeacherStudentCrossEntropy): temp')


def test_a_net_must_be_named_and_have_layers(tmp_path: Path) -> None:
    with pytest.raises(KdnetError, match="teacher: no net is named"):
        joined(tmp_path, 'teacher { } student { net: "s.prototxt" }', s=PLAIN)
    (fault,) = refused(tmp_path, 'name: "Empty"', PLAIN)
    assert fault.startswith("empty-net t.prototxt:1 ")
