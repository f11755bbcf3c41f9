"""Which layers a net has in a state, and how their blobs and weights are joined."""

from __future__ import annotations

import pytest

from kdnet.compile import Forward, trace_forward
from kdnet.errors import LayerError, NetError
from kdnet.graph import Emitter
from kdnet.net import NetModel, NetState, resolve_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

TRAIN, TEST = NetState(pb.TRAIN), NetState(pb.TEST)
DATA = """
layer { name: "in" type: "DummyData" top: "x" top: "t"
  dummy_data_param { shape { dim: 4 dim: 6 } shape { dim: 4 } } }
"""


def net(text: str, state: NetState = TRAIN) -> NetModel:
    located = read_text(text, "net.prototxt", pb.NetParameter)
    return resolve_net(located.message, located.source, state)


def names(text: str, state: NetState) -> list[str]:
    return [layer.name for layer in net(text, state).layers]


def forward(text: str, state: NetState = TRAIN) -> Forward:
    return trace_forward(net(text, state), Emitter())


def ip(name: str, bottom: str, top: str, more: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" '
        f"inner_product_param {{ num_output: 3 }} {more} }}\n"
    )


RULES = """
layer { name: "always" type: "DummyData" top: "a" }
layer { name: "train" type: "DummyData" top: "b" include { phase: TRAIN } }
layer { name: "test" type: "DummyData" top: "c" include { phase: TEST } }
layer { name: "not_test" type: "DummyData" top: "d" exclude { phase: TEST } }
layer { name: "high" type: "DummyData" top: "e" include { min_level: 2 } }
layer { name: "low" type: "DummyData" top: "f" include { max_level: 1 } }
layer { name: "staged" type: "DummyData" top: "g" include { stage: "s" stage: "r" } }
layer { name: "not_staged" type: "DummyData" top: "h" include { not_stage: "s" } }
layer { name: "either" type: "DummyData" top: "i"
  include { phase: TEST stage: "s" } include { phase: TRAIN min_level: 2 } }
layer { name: "neither" type: "DummyData" top: "j"
  exclude { phase: TEST } exclude { stage: "s" } }
"""


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        (TRAIN, "always train not_test low not_staged neither"),
        (TEST, "always test low not_staged"),
        (NetState(pb.TRAIN, 1), "always train not_test low not_staged neither"),
        (NetState(pb.TRAIN, 2), "always train not_test high not_staged either neither"),
        (NetState(pb.TEST, 0, ("s",)), "always test low either"),
        (NetState(pb.TEST, 0, ("s", "r")), "always test low staged either"),
        (NetState(pb.TRAIN, 0, ("s",)), "always train not_test low"),
        (NetState(pb.TRAIN, -1, ("other",)), "always train not_test low not_staged neither"),
    ],
)
def test_rules_choose_layers_by_phase_level_and_stage(state: NetState, wanted: str) -> None:
    assert names(RULES, state) == wanted.split()


def test_a_message_s_state_is_laid_over_what_was_asked_for() -> None:
    asked = NetState(pb.TRAIN, 1, ("a",))
    assert asked.merged(pb.NetState()) == asked
    message = pb.NetState(phase=pb.TEST, level=3, stage=["b"])
    assert asked.merged(message) == NetState(pb.TEST, 3, ("a", "b"))


def test_outputs_are_the_unread_blobs_in_alphabetical_order() -> None:
    tops = ["zebra", "ant", "Bee", "cat", "dog", "emu", "fox"]
    text = DATA + "".join(ip(top, "x", top) for top in tops) + ip("last", "ant", "gnu")
    assert net(text).outputs == ("Bee", "cat", "dog", "emu", "fox", "gnu", "t", "zebra")


def test_a_blob_written_in_place_is_an_output_once_and_read_by_the_next() -> None:
    relu = 'layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }\n'
    assert net(DATA + ip("ip", "x", "y") + relu).outputs == ("t", "y")
    found = forward(DATA + ip("ip", "x", "y") + relu + ip("ip2", "y", "z"))
    gemm = next(op for op in found.g.ops if op.name == "ip2/Gemm")
    assert gemm.input(0).name == "relu/Relu"
    assert [r.blob for r in found.reports()] == ["t", "z"]


def test_in_place_counts_only_at_the_same_index() -> None:
    swapped = 'layer { name: "s" type: "Slice" bottom: "x" top: "other" top: "x" }\n'
    with pytest.raises(NetError, match='top "x" is already produced'):
        net(DATA + swapped)


def test_the_same_top_twice_in_a_layer_has_two_producers() -> None:
    with pytest.raises(NetError, match="duplicate-top"):
        net('layer { name: "in" type: "DummyData" top: "x" top: "x" }')


def test_a_layer_left_out_makes_no_blob_and_says_nothing() -> None:
    text = DATA + ip("a", "x", "y", "include { phase: TEST }") + ip("b", "x", "y")
    assert names(text, TRAIN) == ["in", "b"]
    with pytest.raises(NetError, match="duplicate-top"):
        net(text, TEST)


def test_a_blob_of_another_phase_is_unknown() -> None:
    text = DATA + ip("a", "x", "y", "include { phase: TEST }") + ip("b", "y", "z")
    with pytest.raises(NetError) as caught:
        net(text)
    assert (
        str(caught.value)
        .splitlines()[0]
        .endswith('layer "b": bottom "y" is not produced by any earlier layer [unknown-bottom]')
    )


def test_all_wiring_faults_are_reported() -> None:
    text = DATA + ip("a", "q", "y", "loss_weight: 1 loss_weight: 1") + ip("b", "x", "y")
    with pytest.raises(NetError) as caught:
        net(text)
    codes = [found.code for found in caught.value.diagnostics]
    assert codes == ["loss-weight-count", "unknown-bottom", "duplicate-top"]


def test_a_layer_may_run_in_another_phase_than_its_net() -> None:
    drop = (
        'layer {{ name: "{0}" type: "Dropout" bottom: "x" top: "{0}" {1} '
        "dropout_param {{ dropout_ratio: 0.5 }} }}\n"
    )
    found = forward(DATA + drop.format("noisy", "") + drop.format("quiet", "phase: TEST"))
    assert [item.layer for item in found.trace.noise] == ["noisy"]
    assert found.blobs["quiet"] is found.blobs["x"]
    found = forward(DATA + drop.format("noisy", "phase: TRAIN"), TEST)
    assert [item.layer for item in found.trace.noise] == ["noisy"]


# --- weights and losses


def shared(first: str, second: str, outputs: int = 3) -> str:
    other = ip("b", "x", "z", f"param {{ {second} }}").replace(
        "num_output: 3", f"num_output: {outputs}"
    )
    return DATA + ip("a", "x", "y", f"param {{ {first} }}") + other


def test_weights_of_one_param_name_are_one_blob() -> None:
    found = forward(shared('name: "w"', 'name: "w"'))
    blobs = list(found.weights.values())
    assert [tensor.name for tensor in found.weights] == ["a/weight", "a/bias", "b/bias"]
    assert blobs[0].users == {("a", 0): (3, 6), ("b", 0): (3, 6)}
    gemms = [op for op in found.g.ops if op.type == "Gemm"]
    assert gemms[0].input(1) is gemms[1].input(1)


@pytest.mark.parametrize(
    ("first", "second", "lr", "decay"),
    [
        ("", "", 1, 1),
        ("lr_mult: 2", "", 2, 1),
        ("", "lr_mult: 2 decay_mult: 0", 2, 0),
        ("decay_mult: 3", "lr_mult: 2 decay_mult: 3", 2, 3),
    ],
)
def test_multipliers_of_a_shared_weight_may_stand_at_any_user(
    first: str, second: str, lr: float, decay: float
) -> None:
    blob = next(
        iter(forward(shared(f'name: "w" {first}', f'name: "w" {second}')).weights.values())
    )
    assert (blob.lr_mult, blob.decay_mult) == (lr, decay)


def test_contradicting_multipliers_are_refused() -> None:
    with pytest.raises(LayerError, match="shared-multiplier-mismatch"):
        forward(shared('name: "w" decay_mult: 1', 'name: "w" decay_mult: 0'))


def test_permissive_sharing_asks_for_the_number_of_values_only() -> None:
    text = (
        DATA
        + ip("a", "x", "y", 'param { name: "w" }')
        + 'layer { name: "r" type: "Reshape" bottom: "x" top: "r" '
        "reshape_param { shape { dim: 12 dim: 2 } } }\n"
        + ip("b", "r", "z", 'param { name: "w" SHARE }').replace("num_output: 3", "num_output: 9")
    )
    with pytest.raises(LayerError, match=r"blob 0 of shape \(9, 2\) shares \"w\""):
        forward(text.replace("SHARE", "share_mode: STRICT"))
    found = forward(text.replace("SHARE", "share_mode: PERMISSIVE"))
    blob = next(iter(found.weights.values()))
    assert blob.users == {("a", 0): (3, 6), ("b", 0): (9, 2)}


def test_layers_without_weights_may_share_a_name() -> None:
    relu = 'layer { name: "same" type: "ReLU" bottom: "x" top: "x" }\n'
    assert len(forward(DATA + relu * 2).g.ops) == 2


def test_layers_with_weights_may_not() -> None:
    with pytest.raises(LayerError, match="duplicate-layer-name"):
        forward(DATA + ip("same", "x", "y") + ip("same", "x", "z"))


LOSS = 'layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" {} }}\n'


@pytest.mark.parametrize(
    ("given", "weight"), [("", 1), ("loss_weight: 0.5", 0.5), ("loss_weight: 0", None)]
)
@pytest.mark.parametrize("top", ["", 'top: "loss"'])
def test_a_loss_counts_with_or_without_a_named_top(top: str, given: str, weight: float) -> None:
    found = forward(DATA + LOSS.format(f"{top} {given}"))
    assert [loss.weight for loss in found.losses] == ([] if weight is None else [weight])
    assert net(DATA + LOSS.format(top)).outputs == (("loss",) if top else ())


def test_any_top_may_be_weighed() -> None:
    found = forward(DATA + ip("a", "x", "y", "loss_weight: 2") + ip("b", "y", "z"))
    assert [(loss.top.shape, loss.weight) for loss in found.losses] == [((4, 3), 2)]
    assert [report.loss_weight for report in found.reports()] == [0, 0]


def test_propagate_down_false_stops_the_gradient_at_that_bottom() -> None:
    found = forward(DATA + ip("a", "x", "y") + ip("b", "y", "z", "propagate_down: false"))
    stops = [op.name for op in found.g.ops if op.rule == "StopGradient"]
    assert stops == ["b/Identity"]
