"""Every field of SolverParameter does something, or is named as ignored with the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_nets import Ended, run

from kdnet.runtime.setup import IGNORED
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import LayerBlobs, philox, write_caffemodel

NET = """
layer { name: "made" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 4 dim: 3 } shape { dim: 4 } data_filler { type: "gaussian" } data_filler { } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: OUTPUTS weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "more" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "more"
  include { stage: "more" } }
"""
INLINE = NET.replace("OUTPUTS", "2")
BASE = 'snapshot_prefix: "run" solver_mode: CPU random_seed: 3 display: 1 base_lr: 0.1 max_iter: 4'
NAMED = 'net: "net.prototxt"'
TESTED = "test_iter: 1 test_interval: 2"
SPEED = re.compile(r" \([^()]* iter/s, [^()]* iters\)")


@dataclass(frozen=True)
class Row:
    """A solver with and without a field: the two runs must differ, and the first must be good.

    ``more`` is in both, ``without`` what stands in the field's place.
    """

    field: str
    given: str
    more: str = NAMED
    without: str = ""


# In which test a field is tried that does nothing on a machine like this.
ELSEWHERE = {"device_id": "test_ignored_fields.py::test_device_id_is_the_cuda_device_unless"}
ROWS = [
    Row("average_loss", "average_loss: 3"),
    Row("base_lr", "base_lr: 0.05"),
    Row("clip_gradients", "clip_gradients: 0.01"),
    Row("debug_info", "debug_info: true"),
    Row("delta", "delta: 0.5", f'{NAMED} type: "AdaGrad"'),
    Row("display", "display: 2"),
    Row("gamma", "gamma: 0.9", f'{NAMED} lr_policy: "exp"', "gamma: 0.5"),
    Row("iter_size", "iter_size: 2"),
    Row("layer_wise_reduce", "layer_wise_reduce: false"),
    Row("lr_policy", 'lr_policy: "exp"', f"{NAMED} gamma: 0.5", 'lr_policy: "fixed"'),
    Row("max_iter", "max_iter: 3"),
    Row("min_lr", "min_lr: 0.09", f'{NAMED} lr_policy: "exp" gamma: 0.5'),
    Row("momentum", "momentum: 0.5"),
    Row("momentum2", "momentum2: 0.5", f'{NAMED} type: "Adam"'),
    Row("mult_factor", "mult_factor: 2", f'{NAMED} lr_policy: "sgdr" stepsize: 2'),
    Row("net", 'net: "wide.prototxt"', "", NAMED),
    Row("net_param", f"net_param {{ {INLINE} }}", ""),
    Row(
        "plateau_winsize",
        "plateau_winsize: 1",
        f'{NAMED} lr_policy: "plateau" gamma: 0.5 average_loss: 4',
        "plateau_winsize: 9",
    ),
    Row("power", "power: 2", f'{NAMED} lr_policy: "inv" gamma: 0.5', "power: 1"),
    Row("rampup_interval", "rampup_interval: 3"),
    Row("rampup_lr", "rampup_lr: 0.01", f"{NAMED} rampup_interval: 3"),
    Row("random_seed", "random_seed: 4"),
    Row("regularization_type", 'regularization_type: "L1"', f"{NAMED} weight_decay: 0.1"),
    Row("rms_decay", "rms_decay: 0.5", f'{NAMED} type: "RMSProp"'),
    Row("schedule", 'schedule { layer: "ip" field: "lr_mult" value: 0 }'),
    Row("snapshot", "snapshot: 2"),
    Row("snapshot_after_train", "snapshot_after_train: false"),
    Row("snapshot_diff", "snapshot_diff: true"),
    Row("snapshot_format", "snapshot_format: HDF5"),
    Row("snapshot_prefix", 'snapshot_prefix: "other"'),
    Row("solver_mode", "solver_mode: GPU"),
    Row("solver_type", "solver_type: ADAM"),
    Row("stepsize", "stepsize: 2", f'{NAMED} lr_policy: "step" gamma: 0.5', "stepsize: 1"),
    Row("stepvalue", "stepvalue: 2", f'{NAMED} lr_policy: "multistep" gamma: 0.5'),
    Row("test_compute_loss", "test_compute_loss: true", f"{NAMED} {TESTED}"),
    Row("test_initialization", "test_initialization: false", f"{NAMED} {TESTED}"),
    Row("test_interval", "test_interval: 3", f"{NAMED} test_iter: 1", "test_interval: 2"),
    Row("test_iter", "test_iter: 2", f"{NAMED} test_interval: 2", "test_iter: 1"),
    Row("test_net", 'test_net: "net.prototxt"', f'train_net: "net.prototxt" {TESTED}'),
    Row("test_net_param", f"test_net_param {{ {INLINE} }}", f'train_net: "net.prototxt" {TESTED}'),
    Row("test_state", 'test_state { stage: "more" }', f"{NAMED} {TESTED}"),
    Row("train_net", 'train_net: "net.prototxt"', ""),
    Row("train_net_param", f"train_net_param {{ {INLINE} }}", ""),
    Row("train_state", 'train_state { stage: "more" }'),
    Row("type", 'type: "Adam"'),
    Row("warmup_iter", "warmup_iter: 3"),
    Row("warmup_start_lr", "warmup_start_lr: 0.01", f"{NAMED} warmup_iter: 3"),
    Row("weight_decay", "weight_decay: 0.1"),
    Row("weights", 'weights: "start.caffemodel"'),
]
Outcome = tuple[int, list[str], dict[str, bytes]]


def test_every_field_has_a_row() -> None:
    fields = {field.name for field in pb.SolverParameter.DESCRIPTOR.fields}
    assert len([f for f in pb.SolverParameter.DESCRIPTOR.fields if f.number < 10000]) == 42
    assert {row.field for row in ROWS} | set(ELSEWHERE) == fields
    assert set(IGNORED) <= fields
    for place in ELSEWHERE.values():
        name, test = place.split("::")
        assert f"def {test}" in (Path(__file__).parent / name).read_text()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, outputs in (("net", "2"), ("wide", "3")):
        Path(f"{name}.prototxt").write_text(NET.replace("OUTPUTS", outputs))
    weight = philox(2, "start").random((2, 3), "float32")
    blobs = LayerBlobs("ip", "InnerProduct", (weight, weight[:, 0]))
    write_caffemodel("start.caffemodel", [blobs])
    return tmp_path


def said(ended: Ended) -> list[str]:
    """What the log says, without the speed."""
    return [SPEED.sub("", line) for line in ended.log]


def outcome(text: str) -> Outcome:
    """The exit status, the log, and the files that a run with such a solver leaves."""
    before = set(Path().iterdir())
    fields = [
        part for part in re.findall(r"\w+: \S+", BASE) if f"{part.split(':')[0]}:" not in text
    ]
    Path("solver.prototxt").write_text(f"{text}\n{' '.join(fields)}\n")
    ended = run("train", "solver.prototxt")
    made = sorted(set(Path().iterdir()) - before - {Path("solver.prototxt")})
    files = {path.name: path.read_bytes() for path in made}
    for path in made:
        path.unlink()
    return ended.code, said(ended), files


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("row", ROWS, ids=[row.field for row in ROWS])
def test_a_field_makes_a_difference(row: Row) -> None:
    plain = outcome(f"{row.more} {row.without}")
    changed = outcome(f"{row.more} {row.given}")
    assert changed[0] == 0, changed[1]
    assert changed != plain
    named = any(f"warning: {row.field} is ignored: " in line for line in changed[1])
    assert named == (row.field in IGNORED)


@pytest.mark.usefixtures("place")
def test_a_run_repeats() -> None:
    """Else every row above would hold."""
    assert outcome(NAMED) == outcome(NAMED)


@pytest.mark.usefixtures("place")
def test_solver_type_is_the_old_way_to_say_type() -> None:
    assert outcome(f"{NAMED} solver_type: ADAM")[2] == outcome(f'{NAMED} type: "Adam"')[2]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("average_loss: 0", "average_loss must be at least 1; it is 0 [bad-solver-field]"),
        ("iter_size: 0", "iter_size must be at least 1; it is 0 [bad-solver-field]"),
        ('type: "RMSProp" momentum: 0.9', "RMSProp has no momentum [bad-solver-field]"),
    ],
)
def test_what_caffe_checks_is_refused_at_its_place(text: str, wanted: str, place: Path) -> None:
    Path("solver.prototxt").write_text(f"{NAMED} {BASE}\n{text}\n")
    ended = run("train", "solver.prototxt")
    assert ended.code == 1
    assert ended.faults.startswith("solver.prototxt:2:")
    assert wanted in ended.faults
    assert not list(place.glob("run_iter*"))


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("prefix", ["made", "made/", "new/"])
def test_a_prefix_that_is_a_folder_gets_the_solver_s_name(prefix: str) -> None:
    Path("made").mkdir()
    text = BASE.replace('"run"', f'"{prefix}"')
    Path("my_solver.prototxt").write_text(f"{NAMED} {text}")
    assert run("train", "my_solver.prototxt").code == 0
    stem = f"{prefix.rstrip('/')}/my_solver"
    assert Path(f"{stem}_iter_4.caffemodel").is_file()
    run("train", "my_solver.prototxt", "--out", "out")
    assert Path("out/my_solver_iter_4.caffemodel").is_file()


@pytest.mark.usefixtures("place")
def test_weights_may_stand_in_a_list_with_spaces() -> None:
    text = f'{NAMED} weights: "start.caffemodel , start.caffemodel" {BASE}'
    Path("solver.prototxt").write_text(text)
    ended = run("train", "solver.prototxt")
    assert ended.code == 0
    assert ended.log.count("Finetuning from start.caffemodel") == 2
