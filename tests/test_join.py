"""Joined nets: what they are made of, whatever the nets were."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joining import DATA, LOSS, PLAIN, deploy, fc, joined, layers, pair

from kdnet.net.rename import parse_rules
from kdnet.schema import kdnet_pb2 as pb

NETS = Path(__file__).parents[1] / "nets"
NAMES = st.from_regex(r"[a-z]{1,6}[0-9]{0,2}", fullmatch=True)
NOISY = """
layer { name: "noise" type: "Dropout" bottom: "data" top: "noise" include { phase: TRAIN } }
layer { name: "noise" type: "Power" bottom: "data" top: "noise" include { phase: TEST } }
"""


def chain(names: list[str]) -> str:
    """A net whose layers follow one another; the last one gives the scores."""
    text, bottom = DATA, "data"
    for name in names:
        text += fc(name, bottom)
        bottom = name
    return text + LOSS % bottom


@settings(max_examples=15, deadline=None)
@given(
    teacher=st.lists(NAMES, min_size=1, max_size=4, unique=True),
    student=st.lists(NAMES, min_size=1, max_size=4, unique=True),
)
def test_a_join_has_the_sum_of_both_minus_shared_inputs(teacher, student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("join")
    reserved = {"data", "label", "loss"}
    teacher = [name for name in teacher if name not in reserved] or ["a"]
    student = [name for name in student if name not in reserved] or ["a"]
    net = pair(folder, chain(teacher), chain(student))
    expected = {"data", *(f"teacher/{name}" for name in teacher), *student, "loss", "ts_loss"}
    assert [one.message.name for one in net.layers].count("data") == 1
    assert set(layers(net)) == expected
    assert len(net.layers) == len(expected)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(NAMES, min_size=1, max_size=6, unique=True),
    prefix=st.sampled_from(["teacher/", "t-", "a.b/"]),
)
def test_inverse_rules_undo_a_renaming(names, prefix):
    there = parse_rules([f"{prefix}{{name}}", r"s|^([a-z]+)(\d*)$|\1_t_\2|"])
    back = parse_rules([rf"s#^{prefix.replace('.', '[.]')}([a-z]+)_t_(\d*)$#\1\2#"])
    assert [back.rename(there.rename(name)) for name in names] == names


def test_the_teacher_is_frozen_in_test_phase_and_without_fillers(tmp_path):
    bn = 'layer { name: "bn" type: "BatchNorm" bottom: "fc" top: "fc" %s }'
    drop = 'layer { name: "drop" type: "Dropout" bottom: "fc" top: "fc" }'
    teacher = DATA + fc("fc") + bn % "batch_norm_param { eps: 1e-3 use_global_stats: false }"
    net = pair(tmp_path, teacher + drop + LOSS % "fc", PLAIN)
    found = layers(net)
    assert [(p.lr_mult, p.decay_mult) for p in found["teacher/fc"].param] == [(0, 0)] * 2
    assert not found["teacher/fc"].inner_product_param.HasField("weight_filler")
    assert found["fc"].inner_product_param.HasField("weight_filler")
    assert not found["fc"].param
    teachers = [one for name, one in found.items() if name.startswith("teacher/")]
    assert len(teachers) == 3
    assert {one.phase for one in teachers} == {pb.TEST}
    assert not found["teacher/bn"].batch_norm_param.HasField("use_global_stats")
    assert found["teacher/bn"].batch_norm_param.eps == pytest.approx(1e-3)


def test_a_teacher_may_be_trained_on(tmp_path):
    net = pair(tmp_path, PLAIN, PLAIN, t="frozen: false")
    found = layers(net)
    assert not found["teacher/fc"].param
    assert not found["teacher/fc"].HasField("phase")
    assert list(found["teacher/loss"].loss_weight) == pytest.approx([0.1])


def test_a_kept_loss_of_the_teacher_is_shown_and_weighs_nothing(tmp_path):
    found = layers(pair(tmp_path, PLAIN, PLAIN, t="keep_losses: true"))
    assert list(found["teacher/loss"].loss_weight) == [0]
    assert list(found["loss"].loss_weight) == pytest.approx([0.1])


def test_a_student_without_its_losses_learns_from_the_teacher_alone(tmp_path):
    prob = 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }'
    metric = 'layer { name: "acc" type: "Accuracy" bottom: "prob" bottom: "label" top: "acc" }'
    student = DATA + fc("fc") + prob + metric + LOSS % "fc"
    found = layers(pair(tmp_path, PLAIN, student, s="keep_losses: false keep_metrics: false"))
    assert set(found) == {"data", "teacher/fc", "fc", "ts_loss"}


def test_every_loss_of_the_student_is_scaled(tmp_path):
    aux = fc("aux") + LOSS.replace('"loss"', '"aux_loss"') % "aux"
    student = DATA + aux.replace('top: "aux_loss"', 'top: "aux_loss" loss_weight: 0.5') + fc("fc")
    found = layers(pair(tmp_path, PLAIN, student + LOSS % "fc", "distillation_weight: 0.75"))
    assert list(found["aux_loss"].loss_weight) == [0.125]
    assert list(found["loss"].loss_weight) == [0.25]
    assert list(found["ts_loss"].loss_weight) == [0.75]
    assert list(found["ts_loss"].bottom) == ["fc", "teacher/fc"]


def test_scores_are_found_below_a_softmax_that_only_metrics_read(tmp_path):
    prob = 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }'
    metric = 'layer { name: "acc" type: "Accuracy" bottom: "prob" bottom: "label" top: "acc" }'
    found = layers(pair(tmp_path, DATA + fc("fc") + prob + metric, PLAIN))
    assert list(found["ts_loss"].bottom) == ["fc", "teacher/fc"]
    assert "teacher/prob" not in found


def test_named_scores_win_and_the_rest_of_the_teacher_goes(tmp_path):
    teacher = DATA + fc("a") + fc("b", "a") + LOSS % "b"
    found = layers(pair(tmp_path, teacher, PLAIN, t='logits: "a"'))
    assert list(found["ts_loss"].bottom) == ["fc", "teacher/a"]
    assert "teacher/b" not in found


def test_deploy_nets_are_wired_to_the_shared_data(tmp_path):
    net = joined(
        tmp_path,
        'teacher { net: "d.prototxt" } student { net: "d.prototxt" rename: "s_{name}" } '
        'student { net: "p.prototxt" name: "plain" }',
        d=deploy(),
        p=PLAIN,
    )
    found = layers(net)
    assert found["teacher/fc"].bottom == ["data"]
    assert found["s_loss"].bottom == ["s_fc", "label"]
    assert found["student1_accuracy"].bottom == ["s_fc", "label"]
    assert "s_prob" not in found
    assert "teacher/prob" not in found


def test_data_layers_come_from_the_net_that_is_named(tmp_path):
    teacher = PLAIN.replace('name: "data"', 'name: "theirs"').replace('"label"', '"class"')
    found = layers(pair(tmp_path, teacher, PLAIN, 'data: "teacher"'))
    assert found["theirs"].top == ["data", "class"]
    assert found["loss"].bottom == ["fc", "class"]
    assert "data" not in found


def test_a_layer_in_place_on_the_data_leaves_the_others_their_own(tmp_path):
    power = (
        'layer { name: "half" type: "Power" bottom: "data" top: "data" power_param { scale: 2 } }'
    )
    net = pair(tmp_path, PLAIN, DATA + power + fc("fc") + LOSS % "fc")
    found = layers(net)
    assert (found["half"].bottom, found["half"].top) == (["data"], ["student/data"])
    assert found["fc"].bottom == ["student/data"]
    assert found["teacher/fc"].bottom == ["data"]


def test_shared_weights_are_renamed_with_their_net(tmp_path):
    shared = 'layer { name: "b" type: "InnerProduct" bottom: "data" top: "b" param { name: "w" } '
    shared += "inner_product_param { num_output: 3 } }"
    net = DATA + shared.replace('"b"', '"a"') + shared + fc("fc", "b") + LOSS % "fc"
    net = net.replace('bottom: "data" top: "b"', 'bottom: "data" top: "b"')
    found = layers(pair(tmp_path, net, net))
    assert found["teacher/b"].param[0].name == "teacher/w"
    assert found["b"].param[0].name == "w"


def test_two_teachers_with_the_same_names_share_the_weight_of_the_loss(tmp_path):
    text = 'teacher { net: "p.prototxt" weight: 3 } teacher { net: "p.prototxt" } '
    found = layers(joined(tmp_path, text + 'student { net: "p.prototxt" }', p=PLAIN))
    weights = {name: list(one.loss_weight) for name, one in found.items() if "ts_loss" in name}
    assert weights["teacher1/ts_loss"] == pytest.approx([0.675])
    assert weights["teacher2/ts_loss"] == pytest.approx([0.225])


def test_three_students_learn_side_by_side(tmp_path):
    text = 'teacher { net: "p.prototxt" } ' + 'student { net: "p.prototxt" } ' * 3
    found = layers(joined(tmp_path, text, p=PLAIN))
    for number in (1, 2, 3):
        name = f"student{number}"
        assert found[f"{name}/ts_loss"].bottom == [f"{name}/fc", "teacher/fc"]
        assert found[f"{name}/loss"].bottom == [f"{name}/fc", "label"]


def test_students_may_learn_from_one_another_without_a_teacher(tmp_path):
    loss = 'loss { type: "TeacherStudentCrossEntropy" student: "fc" teacher: "fc" weight: 0.5 }'
    text = 'student { net: "p.prototxt" } ' * 2 + loss
    found = layers(joined(tmp_path, text, p=PLAIN))
    pairs = [list(one.bottom) for name, one in found.items() if "cross" in name]
    assert pairs == [["student1/fc", "student2/fc"], ["student2/fc", "student1/fc"]]
    assert not found["student1/loss"].loss_weight


def test_joined_names_choose_one_of_two_teachers(tmp_path):
    text = 'teacher { net: "p.prototxt" } ' * 2 + 'student { net: "p.prototxt" } '
    loss = 'loss { type: "EuclideanLoss" student: "fc" teacher: "teacher2/fc" weight: 2 }'
    found = layers(joined(tmp_path, text + loss, p=PLAIN))
    (name,) = [name for name in found if "euclidean" in name]
    assert name == "teacher2/euclideanloss_loss"
    assert list(found[name].bottom) == ["fc", "teacher2/fc"]
    assert list(found[name].loss_weight) == [2]
    assert not found["loss"].loss_weight


def test_bottoms_follow_the_roles_of_the_loss(tmp_path):
    loss = 'loss { type: "DecoupledKnowledgeDistillation" }'
    found = layers(pair(tmp_path, PLAIN, PLAIN, loss))
    assert list(found["ts_loss"].bottom) == ["fc", "teacher/fc", "label"]


def test_scores_of_other_ranks_are_flattened(tmp_path):
    conv = """layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
      convolution_param { num_output: 3 kernel_size: 8 } }"""
    found = layers(pair(tmp_path, DATA + conv + LOSS % "conv", PLAIN))
    assert found["ts_loss"].bottom == ["fc", "teacher/conv/flat"]
    assert found["teacher/conv/flat"].type == "Flatten"


def test_joining_twice_gives_the_same_net(tmp_path):
    first, second = pair(tmp_path, PLAIN, PLAIN), pair(tmp_path, PLAIN, PLAIN)
    assert first.net.message == second.net.message
    assert [one.comment for one in first.layers] == [one.comment for one in second.layers]


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ("imagenet/vgg16", "imagenet/alexnet"),
        ("imagenet/resnet50", "imagenet/alexnet"),
        ("cifar10/full_teacher", "cifar10/mini"),
        ("cifar10/nin", "cifar10/quick"),
    ],
)
def test_the_nets_of_the_repository_join(teacher, student, tmp_path):
    text = f'teacher {{ net: "{NETS / teacher}.prototxt" }} '
    text += f'student {{ net: "{NETS / student}.prototxt" }}'
    found = layers(joined(tmp_path, text))
    frozen = [
        p.lr_mult for name, one in found.items() if name[:8] == "teacher/" for p in one.param
    ]
    assert frozen
    assert set(frozen) == {0}
    assert found["ts_loss"].teacher_student_cross_entropy_param.temperature == 4


def test_a_net_that_is_never_tested_needs_no_test_data(tmp_path):
    train = PLAIN.replace('top: "label"', 'top: "label" include { phase: TRAIN }', 1)
    assert layers(pair(tmp_path, train, train))["ts_loss"].bottom == ["fc", "teacher/fc"]


def test_layers_of_training_alone_are_no_part_of_a_teacher(tmp_path):
    net = pair(tmp_path, DATA + NOISY + fc("fc", "noise") + LOSS % "fc", PLAIN)
    (noise,) = [one.message for one in net.layers if one.message.name == "teacher/noise"]
    assert (noise.type, len(noise.include)) == ("Power", 0)


def test_a_teacher_in_train_phase_keeps_its_rules(tmp_path):
    teacher = DATA + NOISY + fc("fc", "noise") + LOSS % "fc"
    net = pair(tmp_path, teacher, PLAIN, t="phase: TRAIN")
    found = [one.message for one in net.layers if one.message.name == "teacher/noise"]
    assert [one.include[0].phase for one in found] == [pb.TRAIN, pb.TEST]
    assert not any(one.HasField("phase") for one in found)


def test_every_layer_with_weights_can_be_frozen(tmp_path):
    """Whatever shape a layer wants, the weights that would train are counted."""
    text = DATA + "".join(
        f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}" {more} }}'
        for name, kind, bottom, more in [
            ("conv", "Convolution", "data", "convolution_param { num_output: 4 kernel_size: 3 }"),
            ("scale", "Scale", "conv", "scale_param { bias_term: true }"),
            ("bias", "Bias", "scale", ""),
            ("bn", "BatchNorm", "bias", ""),
            ("tall", "Scale", "bn", "scale_param { axis: 0 num_axes: 2 }"),
        ]
    )
    teacher = text + fc("fc", "tall") + LOSS % "fc"
    found = layers(pair(tmp_path, teacher, PLAIN))
    counts = {name: len(one.param) for name, one in found.items() if one.param}
    wanted = {"conv": 2, "scale": 2, "bias": 1, "bn": 3, "tall": 1, "fc": 2}
    assert counts == {f"teacher/{name}": count for name, count in wanted.items()}


def test_a_loss_that_reads_no_teacher_is_a_student_s_own(tmp_path):
    text = (
        'student { net: "p.prototxt" } loss { type: "TeacherFreeKnowledgeDistillation" weight: 1 }'
    )
    found = layers(joined(tmp_path, text, p=PLAIN))
    assert list(found["ts_loss"].bottom) == ["fc", "label"]


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    student = DATA + fc("ts_loss") + LOSS % "ts_loss"
    found = layers(pair(tmp_path, PLAIN, student))
    assert list(found["ts_loss_2"].bottom) == ["ts_loss", "teacher/fc"]


def test_a_student_may_teach_itself(tmp_path):
    student = DATA + fc("shallow") + fc("deep", "shallow") + LOSS % "deep"
    loss = 'loss { type: "TeacherStudentCrossEntropy" student: "shallow" teacher: "deep" }'
    found = layers(joined(tmp_path, 'student { net: "s.prototxt" } ' + loss, s=student))
    (name,) = [name for name in found if name.startswith("teacherstudent")]
    assert list(found[name].bottom) == ["shallow", "deep"]


def test_only_students_that_have_the_blob_are_matched(tmp_path):
    other = PLAIN.replace('"fc"', '"gc"')
    text = (
        'teacher { net: "p.prototxt" } student { net: "p.prototxt" } student { net: "q.prototxt" }'
    )
    loss = ' loss { type: "EuclideanLoss" student: "gc" }'
    found = layers(joined(tmp_path, text + loss, p=PLAIN, q=other))
    assert list(found["student2/euclideanloss_loss"].bottom) == ["student2/gc", "teacher/fc"]
    assert "student1/euclideanloss_loss" not in found
