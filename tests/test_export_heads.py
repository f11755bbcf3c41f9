"""Which blobs of a net are heads: what its students and its teachers are used for."""

from __future__ import annotations

import pytest

from kdnet.compile.deploy.branches import Branch, Label, choose_heads, find_heads
from kdnet.compile.deploy.making import make_deploy
from kdnet.compile.forward import Forward, trace_forward
from kdnet.errors import KdnetError
from kdnet.graph import Emitter
from kdnet.net import NetState, resolve_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

DATA = """
layer { name: "d" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 9 dim: 9 } shape { dim: 4 } } }
"""
LOSS = 'layer { name: "%s_loss" type: "SoftmaxWithLoss" bottom: "%s" bottom: "label" top: "%s_l" }'
SQUARES = 'layer { name: "%s_loss" type: "EuclideanLoss" bottom: "%s" bottom: "%s" top: "%s_l" }'


def phases(text: str) -> tuple[Forward, Forward]:
    """The TEST net and the TRAIN net, traced."""
    located = read_text(text, "net.prototxt", pb.NetParameter)
    test, train = (
        trace_forward(resolve_net(located.message, located.source, NetState(phase)), Emitter(), {})
        for phase in (pb.TEST, pb.TRAIN)
    )
    return test, train


def heads_of(text: str) -> list[Branch]:
    return list(find_heads(*phases(text)))


def blobs(text: str, *, trained: bool) -> list[str]:
    return [head.blob for head in heads_of(text) if head.trained == trained]


def ip(name: str, bottom: str = "data", lr_mult: int = 1, outputs: int = 5) -> str:
    param = f"param {{ lr_mult: {lr_mult} }} param {{ lr_mult: {lr_mult} }}"
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {param} '
        f"inner_product_param {{ num_output: {outputs} }} }}\n"
    )


def ts_loss(student: str, teacher: str, kind: str = "TeacherStudentCrossEntropy") -> str:
    return (
        f'layer {{ name: "{student}_{teacher}" type: "{kind}" bottom: "{student}" '
        f'bottom: "{teacher}" top: "{student}_{teacher}" include {{ phase: TRAIN }} }}\n'
    )


def test_a_teacher_is_known_by_its_weights_and_a_loss_of_the_train_net_counts() -> None:
    text = DATA + ip("t", lr_mult=0) + ip("s") + LOSS % (("s",) * 3) + ts_loss("s", "t")
    teacher, student = heads_of(text)
    assert (teacher.blob, teacher.trained, teacher.roles) == ("t", False, {"teacher logits"})
    assert (student.blob, student.trained) == ("s", True)
    assert student.roles == {"logits", "student logits"}
    assert student.label == Label("label", 1, None)
    assert teacher.label is None


def test_a_teacher_whose_statistics_move_is_no_student() -> None:
    bn = 'layer { name: "bn" type: "BatchNorm" bottom: "t" top: "t_bn" }\n'
    text = DATA + ip("t", lr_mult=0) + bn + ip("s") + LOSS % (("s",) * 3) + ts_loss("s", "t_bn")
    assert blobs(text, trained=False) == ["t_bn"]
    assert blobs(text, trained=True) == ["s"]


def test_probabilities_are_no_head_beside_their_logits() -> None:
    soft = 'layer { name: "%s" type: "Softmax" bottom: "%s" top: "%s" }\n'
    both = soft % ("sp", "s", "sp") + soft % ("tp", "t", "tp")
    loss = ts_loss("sp", "tp", "SigmoidCrossEntropyLoss")
    text = DATA + ip("t", lr_mult=0) + ip("s") + both + LOSS % (("s",) * 3) + loss
    assert blobs(text, trained=True) == ["s"]
    assert blobs(text, trained=False) == ["tp"]
    alone = DATA + ip("t", lr_mult=0) + ip("s") + both + loss
    assert blobs(alone, trained=True) == ["sp"]


def test_features_are_no_head_beside_the_logits_they_lead_to() -> None:
    text = DATA + ip("t", lr_mult=0) + ip("f") + ip("s", "f") + LOSS % (("s",) * 3)
    assert blobs(text + ts_loss("f", "t", "EuclideanLoss"), trained=True) == ["s"]


def test_the_last_of_several_values_is_the_head() -> None:
    text = DATA + ip("t", lr_mult=0) + ip("code") + ip("out", "code", outputs=243)
    losses = ts_loss("code", "t", "EuclideanLoss") + SQUARES % ("out", "out", "data", "out")
    assert blobs(text + losses, trained=True) == ["out"]


def test_two_students_are_two_heads_in_the_order_of_the_net() -> None:
    text = DATA + ip("b") + ip("a") + LOSS % (("a",) * 3) + LOSS % (("b",) * 3)
    assert blobs(text, trained=True) == ["b", "a"]


def test_a_net_without_losses_has_its_outputs_for_heads() -> None:
    assert blobs(DATA + ip("a") + ip("b", "a") + ip("c"), trained=True) == ["b", "c"]


def test_a_head_is_the_blob_as_it_is_read_before_a_later_layer_changes_it() -> None:
    later = 'layer { name: "relu" type: "ReLU" bottom: "s" top: "s" }\n'
    text = DATA + ip("s") + LOSS % (("s",) * 3) + "\n" + later
    (head,) = heads_of(text)
    deploy = make_deploy(phases(text)[0].net, head, input_shapes={})
    assert [layer.name for layer in deploy.net.layers] == ["data", "s"]


def test_an_ignored_label_is_known() -> None:
    loss = (LOSS % (("s",) * 3))[:-1] + " loss_param { ignore_label: 255 } }"
    (head,) = heads_of(DATA + ip("s") + loss)
    assert head.label == Label("label", 1, 255)


def test_any_blob_with_weights_can_be_named() -> None:
    test, train = phases(DATA + ip("f") + ip("s", "f") + LOSS % (("s",) * 3))
    (head,) = choose_heads(find_heads(test, train), ["f"], test, train)
    assert (head.blob, head.trained, head.roles) == ("f", True, frozenset())
    loss = 'layer { name: "two" type: "Power" bottom: "data" top: "two" }'
    test, train = phases(DATA + loss + ip("s", "two") + LOSS % (("s",) * 3))
    with pytest.raises(KdnetError, match="needs no weights"):
        choose_heads(find_heads(test, train), ["two"], test, train)
