"""What a person can say wrong to ``kdnet sweep``, and what values and names mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_nets import WEIGHTS, edit, run
from test_sweep import LAMBDAS, SWEEP, grid_of, plan, rows, swept

from kdnet.compile import trace_forward
from kdnet.errors import KdnetError, UsageError
from kdnet.graph import Emitter
from kdnet.net import NetModel, NetState, resolve_net
from kdnet.runtime.sweep.axes import losses_of
from kdnet.runtime.sweep.fields import find_field
from kdnet.runtime.sweep.values import read_variable
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

LAYERS = """
layer { name: "hint" type: "EuclideanLoss" bottom: "student/ip2" bottom: "teacher/ip" top: "hint" }
layer { name: "watch" type: "SoftmaxWithLoss" bottom: "teacher/ip" bottom: "label" top: "watch" }
layer {
  name: "pull" type: "EuclideanLoss" bottom: "student/ip2" bottom: "student/ip2" top: "pull"
}
"""


def values(listed: str) -> list[str]:
    return [value.text for value in read_variable(f"x={listed}").values]


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ("1,4,20", "1 4 20"),
        ("0:1:0.25", "0 0.25 0.5 0.75 1"),
        ("0:1:0.1", "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1"),
        ("0:1:0.4", "0 0.4 0.8"),
        ("1:-0.5:-0.5", "1 0.5 0 -0.5"),
        ("3:3:1", "3"),
        ("0,10:30:10,1e-5", "0 10 20 30 1e-5"),
        ("100:300:100", "100 200 300"),
        ("1e-3:3e-3:1e-3", "0.001 0.002 0.003"),
        (" a , b ", "a b"),
        ("inv,step", "inv step"),
    ],
)
def test_lists_and_ranges_are_exact(listed: str, found: str) -> None:
    assert values(listed) == found.split()


@given(
    st.integers(-50, 50), st.integers(0, 40), st.sampled_from(["0.1", "0.01", "0.125", "7", "0.3"])
)
def test_a_range_ends_where_it_says(start: int, steps: int, step: str) -> None:
    from decimal import Decimal

    last = start + steps * Decimal(step)
    found = values(f"{start}:{last}:{step}")
    assert len(found) == steps + 1
    assert [Decimal(found[0]), Decimal(found[-1])] == [start, last]


BAD_VALUES = [
    ("lambda", "is not NAME=VALUES"),
    ("=1", "is not NAME=VALUES"),
    ("lambda=", "is not NAME=VALUES"),
    ("lambda=1,,2", "a value is empty"),
    ("lambda=0:1", "is not START:STOP:STEP"),
    ("lambda=0:1:0.1:2", "is not START:STOP:STEP"),
    ("lambda=0:one:0.1", "is not START:STOP:STEP"),
    ("lambda=0:nan:0.1", "is not START:STOP:STEP"),
    ("lambda=0:1e999999999:1", "is not START:STOP:STEP"),
    ("lambda=0:1:0", "no step of 0 leads to 1"),
    ("lambda=0:1:-0.1", "no step of -0.1 leads to 1"),
    ("lambda=0:1:1e-50", "has more than 1000 values"),
    ("lambda=0:2000:1", "has more than 1000 values"),
    ("lambda=0:600:1,1000:1600:1", "at most 1000 values"),
    ("lambda=1,1.0", "1.0 is given twice"),
    ("type=a,a", "a is given twice"),
]


@pytest.mark.parametrize(("argument", "text"), BAD_VALUES)
def test_values_that_are_none_are_refused(argument: str, text: str) -> None:
    with pytest.raises(UsageError, match="bad-sweep-values") as caught:
        read_variable(argument)
    assert text in caught.value.diagnostics[0].message
    span = caught.value.diagnostics[0].span
    assert span is not None
    assert 1 <= span.column <= len(argument) + 1


BAD_NAMES = [
    ("lamda=0,1", "unknown-sweep-variable", 'did you mean "lambda"?'),
    ("temprature=1,2", "unknown-sweep-variable", 'did you mean "temperature"?'),
    ("base_lrr=1,2", "unknown-sweep-variable", 'did you mean "base_lr"?'),
    ("qqq=1,2", "unknown-sweep-variable", "name it LAYER.field"),
    ("ts_los.loss_weight=1", "unknown-sweep-variable", 'did you mean "ts_loss"?'),
    ("ts_loss.temprature=1", "unknown-sweep-field", 'did you mean "temperature"?'),
    ("ts_loss.loss_param=1", "unknown-sweep-field", "it has ignore_label"),
    ("ts_loss.loss_param.norm=1", "unknown-sweep-field", 'did you mean "normalize"?'),
    ("ts_loss.temperature.x=1", "unknown-sweep-field", 'has no field "x"'),
    ("ts_loss.temperature.0=1", "unknown-sweep-field", "no teacher_student_cross_entropy_param"),
    ("ts_loss.0=1", "unknown-sweep-field", "no 0, there is one"),
    ("student/ip1.param.7.lr_mult=1", "unknown-sweep-field", "no param.7, there is 2 of them"),
    ("student/ip1.param.lr_mult=1", "unknown-sweep-field", "ip1.param.0.lr_mult"),
    ("digits.dummy_data_param.shape=1", "unknown-sweep-field", "is a message, not a value"),
    ("student/ip1.bottom=data", "swept-wiring", "all students of a sweep are wired alike"),
    ("student/ip1.name=x", "swept-wiring", '"name" wires'),
    ("ts_loss.temperature=1,x", "bad-sweep-value", 'wants a decimal number, not "x"'),
    ('ts_loss.temperature=1 } name "x"', "bad-sweep-value", '"temperature" wants one value'),
    ("ts_loss.loss_param.normalization=FUL", "bad-sweep-value", 'did you mean "FULL"?'),
    ("student/ip1.num_output=1.5", "bad-sweep-value", "wants a whole number"),
    ("lambda=a,b", "bad-sweep-value", 'lambda wants a number, not "a"'),
    ("momentum=x", "bad-sweep-value", "wants a decimal number"),
    ("random_seed=1,2", "swept-solver-field", "use --seeds N"),
    ("net=a,b", "swept-solver-field", "run a sweep for each net"),
    ("stepvalue=1,2", "swept-solver-field", "write it in the solver"),
    ("lr_policy=stp", "unknown-lr-policy", 'did you mean "step"?'),
    ("type=SGDD", "unknown-solver", 'did you mean "SGD"?'),
    ("temperature=1,-4", "bad-parameter", "must be positive, not -4"),
    ("ts_loss.type=Sofmax", "unknown-layer-type", 'did you mean "Softmax"?'),
]


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize(("argument", "code", "text"), BAD_NAMES, ids=lambda part: part[:24])
def test_names_that_are_none_are_refused(argument: str, code: str, text: str) -> None:
    with pytest.raises(KdnetError) as caught:
        grid_of(argument)
    assert caught.value.diagnostics[0].code == code
    assert text in str(caught.value)


def test_which_of_several_values_is_asked_for() -> None:
    text = """
    layer { name: "in" type: "DummyData" top: "a" top: "b"
            dummy_data_param { num: 1 channels: 1 channels: 2 } }
    """
    located = read_text(text, "net.prototxt", pb.NetParameter)
    (layer,) = resolve_net(located.message, located.source, NetState(pb.TRAIN)).layers
    (value,) = read_variable("in.channels=1").values
    with pytest.raises(UsageError, match=r"say which: in\.dummy_data_param\.channels\.0"):
        find_field(layer, "channels", value)
    assert find_field(layer, "channels.1", value) == ("dummy_data_param", "channels", 1)
    assert find_field(layer, "num", value) == ("dummy_data_param", "num")


@pytest.mark.usefixtures("joined")
def test_two_variables_of_one_field_are_refused() -> None:
    for first, second in (("lambda=0,1", "ts_loss.loss_weight=0,1"), ("momentum=0", "momentum=1")):
        with pytest.raises(UsageError, match=r"both set .*duplicate-variable"):
            grid_of(first, second)


@pytest.mark.usefixtures("joined")
def test_more_settings_than_anybody_waits_for_are_refused() -> None:
    with pytest.raises(UsageError, match=r"has 10000 settings; at most 4096.*too-many-settings"):
        grid_of("base_lr=1:100:1", "momentum=1:100:1")


def test_a_variable_that_a_schedule_replaces_is_refused(joined: Path) -> None:
    with (joined / "joined_solver.prototxt").open("a") as file:
        file.write('schedule { layer: "ts_loss" value: [0.5, 0.1] }')
    with pytest.raises(UsageError, match=r"schedules loss_weight of.*scheduled-variable"):
        grid_of("lambda=0,1")
    grid_of("temperature=1,4")


def test_lambda_wants_a_teacher(joined: Path) -> None:
    ended = run("sweep", "student.prototxt", *LAMBDAS, "--device", "cpu")
    assert ended.code == 2
    assert "[no-teacher-loss]" in ended.err
    assert not (joined / "runs").exists()


@pytest.mark.usefixtures("joined")
def test_weights_that_leave_nothing_to_train_are_refused() -> None:
    with pytest.raises(KdnetError, match=r"every loss_weight is 0.*nothing-to-train"):
        grid_of("loss.loss_weight=0", "ts_loss.loss_weight=0,1")


def weights_of(net: NetModel) -> dict[str, list[float]]:
    return {layer.name: list(layer.message.loss_weight) for layer in net.layers}


def test_lambda_weighs_what_has_a_teacher_by_role_or_by_structure(joined: Path) -> None:
    """What the teacher alone has to do with is no loss of the student, nor one that is shared."""
    with (joined / "joined.prototxt").open("a") as file:
        file.write(LAYERS)
    nets = (plan().net, plan().tests[0][0])
    losses = losses_of([trace_forward(net, Emitter()) for net in nets])
    assert (losses.taught, losses.others) == (("ts_loss", "hint"), ("loss", "pull"))
    found = weights_of(grid_of("lambda=0.3").settings[0].variant.nets[0])
    assert found["ts_loss"] == found["hint"] == [pytest.approx(0.3)]
    assert found["loss"] == found["pull"] == [pytest.approx(0.7)]
    assert found["watch"] == []


def test_further_tops_keep_their_weights(joined: Path) -> None:
    edit(
        joined / "joined.prototxt",
        'top: "loss"\n  loss_weight: 0.75',
        'top: "loss" top: "p"\n  loss_weight: 0.75 loss_weight: 0.5',
    )
    found = weights_of(grid_of("lambda=0.3").settings[0].variant.nets[0])
    assert found["loss"] == [pytest.approx(0.7), 0.5]
    found = weights_of(grid_of("loss.loss_weight.1=0.125").settings[0].variant.nets[0])
    assert found["loss"] == [0.75, 0.125]


def test_a_folder_of_another_sweep_is_left_alone(joined: Path) -> None:
    swept(*LAMBDAS)
    before = rows(joined)
    ended = run(*SWEEP, "--set", "temperature=1,4")
    assert ended.code == 2
    assert "holds no sweep of temperature [other-sweep]" in ended.err
    assert rows(joined) == before
    swept("--set", "temperature=1,4", "--fresh")
    assert next(iter(rows(joined)[0])) == "temperature"


@pytest.mark.parametrize(
    ("old", "new"), [("\n0,", "\n0"), (",3,", ",three,"), (",0.", ",O."), ("\n0,", "\n\n0,")]
)
def test_a_damaged_table_is_told_with_its_line(joined: Path, old: str, new: str) -> None:
    swept(*LAMBDAS, "--max-iter", 3)
    path = joined / "out" / "results.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    ended = run(*SWEEP, *LAMBDAS)
    assert ended.code == 2
    assert "[bad-results]" in ended.err
    assert "out/results.csv:" in ended.err


def test_an_empty_or_foreign_table_is_left_alone(joined: Path) -> None:
    (joined / "out").mkdir()
    path = joined / "out" / "results.csv"
    for content, code in (
        (b"", "other-sweep"),
        (b"a,b\n", "other-sweep"),
        (b"\xff", "bad-results"),
    ):
        path.write_bytes(content)
        ended = run(*SWEEP, *LAMBDAS)
        assert f"[{code}]" in ended.err
        assert path.read_bytes() == content


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--by", "acuracy"), 'did you mean "accuracy"?'),
        (("--by", "zzz"), "it reports accuracy, loss"),
        (("--seeds", "0"), "0 is not above 0"),
        (("--side-by-side", "0"), "0 is not above 0"),
        (("--side-by-side", "many"), "invalid _side_by_side value"),
    ],
)
def test_flags_that_mean_nothing_are_refused(more: tuple[str, str], text: str) -> None:
    ended = run(*SWEEP, *LAMBDAS, *more)
    assert ended.code == 2
    assert text in ended.err


@pytest.mark.usefixtures("joined")
def test_a_report_that_nobody_makes_is_named() -> None:
    assert "[unknown-report]" in run(*SWEEP, *LAMBDAS, "--by", "zzz").err


def test_a_teacher_that_no_file_fills_stops_the_sweep(joined: Path) -> None:
    ended = run("sweep", "joined.prototxt", *LAMBDAS, "--device", "cpu", "--out", "out")
    assert ended.code == 1
    assert 'layer "teacher/ip"' in ended.err
    assert "[unloaded-teacher]" in ended.err
    assert not (joined / "out" / "results.csv").exists()
    ended = run("sweep", "joined.prototxt", *LAMBDAS, "--out", "out", "--allow-unloaded")
    assert ended.code == 0
    assert WEIGHTS[1] not in ended.err


def test_the_first_nets_have_a_teacher_by_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stock sigmoid cross-entropy of two softmaxes, one of them of a frozen net."""
    monkeypatch.chdir(Path(__file__).parents[1])
    stock = plan("nets/cifar10/stock_joined.prototxt")
    nets = [stock.net, *(net for net, _ in stock.tests)]
    losses = losses_of([trace_forward(net, Emitter()) for net in nets])
    assert (losses.taught, losses.others) == (("ts_loss",), ("loss",))
