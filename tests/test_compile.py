"""The compiled graphs: one standard ONNX model, the same each time, nothing for what is frozen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from small_nets import JOINED_NET, SOLVER

from kdnet.compile import Training, compile_evaluation, compile_training
from kdnet.compile.program import LOSS, RATE, Program
from kdnet.errors import LayerError
from kdnet.graph import SOURCE_KEY
from kdnet.graph.serialize import listing
from kdnet.net import NetState, SolverModel, resolve_net
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

GRAPHS = Path(__file__).parent / "cases" / "graphs"
NAMES = sorted(path.stem for path in GRAPHS.glob("*.prototxt"))
DIGIT = "shape { dim: 1 dim: 4 dim: 4 }"
JOINED = JOINED_NET.replace("backend: LMDB", f"backend: LMDB {DIGIT}")
FEATURES = """
layer { name: "in" type: "DummyData" top: "x" top: "t"
  dummy_data_param { shape { dim: 4 dim: 6 dim: 2 } shape { dim: 4 } } }
layer { name: "bn" type: "BatchNorm" bottom: "x" top: "bn" }
layer { name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param { bias_term: true } }
layer { name: "a" type: "InnerProduct" bottom: "bn" top: "a" param { name: "w" }
  inner_product_param { num_output: 12 } }
layer { name: "split" type: "Split" bottom: "a" top: "a1" top: "a2" }
layer { name: "b" type: "InnerProduct" bottom: "a1" top: "b" inner_product_param { num_output: 12 }
  param { name: "v" } }
layer { name: "c" type: "InnerProduct" bottom: "a2" top: "c" inner_product_param { num_output: 12 }
  param { name: "v" } }
layer { name: "d" type: "InnerProduct" bottom: "bn" top: "d" param { name: "w" }
  inner_product_param { num_output: 12 } }
layer { name: "sum" type: "Eltwise" bottom: "b" bottom: "c" bottom: "d" top: "sum" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "sum" bottom: "t" }
layer { name: "loss2" type: "SoftmaxWithLoss" bottom: "a1" bottom: "t"
  top: "loss2" loss_weight: 2 }
"""


def solver(text: str = SOLVER) -> SolverModel:
    located = read_text(text, "solver.prototxt", pb.SolverParameter)
    return SolverModel(located.message, located.source)


def net(text: str, phase: int = pb.TRAIN):
    located = read_text(text, "net.prototxt", pb.NetParameter)
    return resolve_net(located.message, located.source, NetState(phase))


def compiled(text: str, solver_text: str = SOLVER, provider: str = "cpu") -> Training:
    return compile_training(net(text), solver(solver_text), provider=provider)


def programs(training: Training) -> list[Program]:
    return [training.main, *([training.update] if training.update else [])]


def sample_programs() -> list[Program]:
    training = compiled(JOINED)
    evaluation = compile_evaluation(net(JOINED, pb.TEST), live=training.live)
    found = [*programs(training), *programs(compiled(FEATURES, "base_lr: 1")), evaluation.program]
    return [*found, compile_evaluation(net(FEATURES, pb.TEST)).program]


@pytest.mark.parametrize(
    "program", sample_programs(), ids=lambda program: program.model.graph.name
)
class TestModel:
    def test_passes_the_full_checker_and_strict_inference(self, program: Program) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(program.model)
        for tensor in model.graph.initializer:
            if tensor.name in program.frozen:
                # Handed to the session; here the values do not matter.
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")
                tensor.raw_data = bytes(4 * int(onnx.numpy_helper.np.prod(tensor.dims)))
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)

    def test_is_of_the_standard_alone(self, program: Program) -> None:
        model = program.model
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]
        assert model.ir_version == 10
        assert {node.domain for node in model.graph.node} == {""}
        assert len(model.functions) == 0

    def test_every_node_says_where_in_the_prototxt_it_comes_from(self, program: Program) -> None:
        place = re.compile(r"(net|solver)\.prototxt:\d+:\d+")
        for node in program.model.graph.node:
            sources = [entry.value for entry in node.metadata_props if entry.key == SOURCE_KEY]
            assert len(sources) == 1, node.name
            assert place.fullmatch(sources[0]), (node.name, sources)

    def test_names_are_scope_paths_and_unique(self, program: Program) -> None:
        graph = program.model.graph
        names = [node.name for node in graph.node]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[\w() ]+(/[\w() .]+)+", name) for name in names), names
        made = [output for node in graph.node for output in node.output if output]
        known = made + [entry.name for entry in (*graph.input, *graph.initializer)]
        assert len(set(known)) == len(known)

    def test_shapes_are_static_and_floats_are_float32(self, program: Program) -> None:
        graph = program.model.graph
        for entry in (*graph.input, *graph.output):
            assert entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
            assert all(dim.HasField("dim_value") for dim in entry.type.tensor_type.shape.dim)

    def test_inputs_and_outputs_are_what_the_program_says(self, program: Program) -> None:
        graph = program.model.graph
        state = [slot.name for slot in program.state]
        rate = [RATE] if program.has_rate else []
        noise = [slot.name for slot in program.noise]
        given = [*program.data, *noise, *program.reads, *state, *rate]
        assert [entry.name for entry in graph.input] == given
        assert {entry.name for entry in graph.output} == {
            *(slot.following for slot in program.state),
            *(report.output for report in program.reports),
            *([LOSS] if program.has_loss else []),
        }


def test_compiling_twice_gives_the_same_bytes() -> None:
    for text in (JOINED, FEATURES):
        for first, second in zip(programs(compiled(text)), programs(compiled(text)), strict=True):
            one = first.model.SerializeToString(deterministic=True)
            assert one == second.model.SerializeToString(deterministic=True)


def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(FEATURES)
    (tmp_path / "net_solver.prototxt").write_text(
        f'net: "net.prototxt"\n{SOLVER}'.replace("test_i", "#")
    )
    files = []
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "kdnet", "compile", "net.prototxt", "-o", f"{seed}.onnx"]
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(GRAPHS.parents[2])}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        files.append(
            [(tmp_path / f"{seed}.{part}.onnx").read_bytes() for part in ("gradient", "update")]
        )
    assert files[0] == files[1]


# --- what is frozen


def test_a_frozen_teacher_has_no_gradient_no_history_and_no_input() -> None:
    training = compiled(JOINED)
    for program in programs(training):
        graph = program.model.graph
        names = [node.name for node in graph.node] + [entry.name for entry in graph.input]
        assert not [
            name for name in names if re.search(r"(grad|history|next|update).*teacher", name)
        ]
        assert not [entry.name for entry in graph.input if "teacher" in entry.name]
    assert training.main.frozen == ("teacher/ip/weight", "teacher/ip/bias")
    assert {slot.name: slot.role for slot in training.weights} == {
        "teacher/ip/weight": "frozen",
        "teacher/ip/bias": "frozen",
        "student/ip1/weight": "trained",
        "student/ip1/bias": "trained",
        "student/ip2/weight": "trained",
        "student/ip2/bias": "trained",
    }


def test_a_teacher_that_is_trained_too_has_a_gradient_of_its_own_loss_only() -> None:
    trained = JOINED.replace("lr_mult: 0", "lr_mult: 1")
    training = compiled(trained)
    assert "teacher/ip/weight" not in training.live
    own = (
        'layer { name: "own" type: "SoftmaxWithLoss" bottom: "teacher/ip" bottom: "label" '
        'top: "own" }'
    )
    assert "teacher/ip/weight" in compiled(trained + own).live


def test_a_single_frozen_blob_is_frozen_alone() -> None:
    text = JOINED.replace("param { lr_mult: 1 } param", "param { lr_mult: 0 } param")
    training = compiled(text)
    assert "student/ip1/weight" in training.main.frozen
    assert "student/ip1/bias" in training.live
    assert "history/momentum/student/ip1/weight" not in training.histories


def test_a_test_net_drops_a_teacher_whose_top_is_silenced() -> None:
    silence = 'layer { name: "hush" type: "Silence" bottom: "teacher/ip" include { phase: TEST } }'
    evaluation = compile_evaluation(net(JOINED + silence, pb.TEST))
    assert [slot.name for slot in evaluation.weights if "teacher" in slot.name] == []
    assert [
        node.name for node in evaluation.program.model.graph.node if "teacher" in node.name
    ] == []
    assert [report.blob for report in evaluation.program.reports] == ["accuracy", "loss"]


def test_a_test_net_reads_live_weights_and_holds_the_frozen_ones() -> None:
    live = compiled(JOINED).live
    program = compile_evaluation(net(JOINED, pb.TEST), live=live).program
    assert set(program.reads) == live
    assert program.frozen == ("teacher/ip/weight", "teacher/ip/bias")
    assert program.state == ()
    assert program.noise == ()


def test_nothing_to_train_is_refused() -> None:
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 } inner_product_param"
    all_frozen = re.sub(r"param \{ lr_mult[^}]*\}", "", JOINED)
    with pytest.raises(LayerError, match="no loss depends on a weight"):
        compiled(all_frozen.replace("inner_product_param", frozen))
    with pytest.raises(LayerError, match="it has no loss"):
        compiled(re.sub(r"loss_weight: [\d.]+", "loss_weight: 0", JOINED))


# --- batch normalisation, shared weights, several losses


def test_statistics_are_state_that_no_solver_touches() -> None:
    training = compiled(FEATURES, "base_lr: 1 weight_decay: 0.1")
    state = {slot.name for slot in training.main.state}
    assert {"bn/mean", "bn/variance", "bn/scale_factor"} < state
    assert not [name for name in training.histories if name.startswith("history/momentum/bn/")]


def test_statistics_belong_to_the_gradient_graph_where_there_are_two() -> None:
    training = compiled(FEATURES, "base_lr: 1 iter_size: 3")
    assert training.update is not None
    assert "bn/mean" in {slot.name for slot in training.main.state}
    assert not [slot.name for slot in training.update.state if slot.name.startswith("bn/")]
    accumulated = {slot.name for slot in training.accumulators}
    assert accumulated == {f"accumulated/{name}" for name in training.histories.values()}
    assert set(training.update.reads) == accumulated


def test_a_shared_weight_has_one_update_and_one_history() -> None:
    training = compiled(FEATURES, "base_lr: 1")
    names = [slot.name for slot in training.main.state]
    assert names.count("a/weight") == 1
    assert "d/weight" not in names


def test_the_provider_is_passed_on_to_the_rules() -> None:
    assert compiled(FEATURES, "base_lr: 1", provider="cuda").main.model.ByteSize() > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_is_the_one_that_was_looked_at(name: str) -> None:
    path = GRAPHS / f"{name}.prototxt"
    located = read_text(path.read_text(), path.name, pb.NetParameter)
    model = resolve_net(located.message, located.source, NetState(pb.TRAIN))
    text = "base_lr: 0.1 momentum: 0.9 weight_decay: 0.01 clip_gradients: 5"
    training = compile_training(model, solver(text))
    test = compile_evaluation(
        resolve_net(located.message, located.source, NetState(pb.TEST)), live=training.live
    )
    found = f"{listing(training.main.model)}\n{listing(test.program.model)}"
    assert found == path.with_suffix(".txt").read_text()


def test_there_are_graphs_to_look_at() -> None:
    assert NAMES
    assert sorted(path.stem for path in GRAPHS.glob("*.txt")) == NAMES
