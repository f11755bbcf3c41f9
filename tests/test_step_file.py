"""Step files: they stand alone, and they take the steps that kdnet itself takes."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from small_nets import edit, ok, run, teacher_blobs

from kdnet.graph import files
from kdnet.runtime import CaffeLog, Trainer, TrainOptions, prepare
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import read_text

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "run_step.py"
COMPILE = ("compile", "joined.prototxt", "--weights", "teacher.caffemodel")
STEPS = 6


@pytest.fixture
def single(joined: Path) -> Path:
    """The joined net without dropout, trained a batch an iteration."""
    edit(joined / "joined.prototxt", "dropout_ratio: 0.25", "dropout_ratio: 0")
    edit(joined / "joined_solver.prototxt", "iter_size: 2", "clip_gradients: 1.5")
    return joined


def compiled(*more: str, to: str = "step.onnx") -> list[str]:
    return ok(*COMPILE, "-o", to, *more).out.split()


def meaning(path: str) -> dict[str, object]:
    props = onnx.load(path).metadata_props
    return {entry.key.removeprefix("kdnet."): json.loads(entry.value) for entry in props}


def trained() -> tuple[list[float], list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Each iteration's loss, the batches that were read, and the weights at the end."""
    options = TrainOptions(
        "joined.prototxt", weights=("teacher.caffemodel",), device="cpu", max_iter=STEPS
    )
    prepared = prepare(options, CaffeLog(io.StringIO()))
    losses: list[float] = []
    prepared.on_iteration = lambda _iteration, loss: losses.append(loss)
    source = prepared.sources[0]
    count = STEPS * prepared.training.iter_size
    batches = [dict(zip(source.tops, source.batch(i), strict=True)) for i in range(count)]
    trainer = Trainer(prepared)
    trainer.solve()
    weights = trainer._stepper.weights()
    prepared.close()
    return losses, batches, weights


def stacked(batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def example(step: str, batches: str) -> subprocess.CompletedProcess[str]:
    # Isolated: neither this folder nor the environment's variables are on its path.
    command = [sys.executable, "-I", str(EXAMPLE), step, batches]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def losses_in(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"^step \d+: loss (\S+)$", text, re.MULTILINE)]


@pytest.mark.usefixtures("single")
def test_the_example_takes_the_same_steps() -> None:
    losses, batches, _ = trained()
    np.savez("batches.npz", **stacked(batches))
    assert compiled() == ["step.onnx"]
    done = example("step.onnx", "batches.npz")
    assert (done.returncode, done.stderr) == (0, "")
    found = losses_in(done.stdout)
    assert len(found) == STEPS
    np.testing.assert_allclose(found, losses, rtol=1e-6)
    assert losses[-1] < losses[0]


@pytest.mark.usefixtures("single")
def test_scheduled_numbers_are_in_the_file() -> None:
    """The example feeds them, and so takes the steps of a scheduled run."""
    moving = (
        'schedule { layer: "ts_loss" value: 2 value: 0 at: 0 at: 4 } '
        'schedule { layer: "ts_loss" field: "temperature" value: 2 value: 5 at: 1 at: 3 }'
    )
    edit(Path("joined_solver.prototxt"), "max_iter: 6", f"max_iter: 6 {moving}")
    compiled()
    assert sorted(meaning("step.onnx")["scalars"]) == [
        "scalar/ts_loss/loss_weight",
        "scalar/ts_loss/temperature",
    ]
    losses, batches, _ = trained()
    np.savez("batches.npz", **stacked(batches))
    found = losses_in(example("step.onnx", "batches.npz").stdout)
    np.testing.assert_allclose(found, losses, rtol=1e-5)


def test_the_example_imports_only_the_runtime_and_numpy() -> None:
    tree = ast.parse(EXAMPLE.read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {"json", "sys", "numpy", "onnxruntime"}
    lines = [line for line in EXAMPLE.read_text().split('"""')[2].splitlines() if line]
    assert len(lines) <= 30


def test_the_example_draws_its_own_noise(joined: Path) -> None:
    edit(joined / "joined_solver.prototxt", "iter_size: 2", "")
    _, batches, _ = trained()
    np.savez("batches.npz", **stacked(batches))
    compiled()
    assert list(meaning("step.onnx")["noise"].values()) == [[6, 8]]
    runs = [losses_in(example("step.onnx", "batches.npz").stdout) for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(runs[0]) == STEPS
    assert np.isfinite(runs[0]).all()


@pytest.mark.usefixtures("joined")
def test_the_example_refuses_two_files_with_a_sentence() -> None:
    compiled()
    np.savez("batches.npz", x=np.zeros(1))
    done = example("step.gradient.onnx", "batches.npz")
    assert done.returncode == 1
    assert done.stderr.startswith("this net was compiled with iter_size > 1")


def outputs_of(session: ort.InferenceSession, feeds: dict[str, object]) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


@pytest.mark.parametrize("size", [2, 3])
def test_two_files_take_the_same_steps_too(size: int, joined: Path) -> None:
    edit(joined / "joined.prototxt", "dropout_ratio: 0.25", "dropout_ratio: 0")
    edit(joined / "joined_solver.prototxt", "iter_size: 2", f"iter_size: {size}")
    losses, batches, weights = trained()
    paths = compiled(to="below/step.onnx")
    assert paths == ["below/step.gradient.onnx", "below/step.update.onnx"]
    main, update = (ort.InferenceSession(path, quiet()) for path in paths)
    first, second = (meaning(path) for path in paths)
    assert first["iter_size"] == second["iter_size"] == size
    assert set(first["state"]) == set(second["reads"])
    found, live = [], {}
    for step in range(STEPS):
        total, sums = 0.0, {}
        for batch in batches[step * size : (step + 1) * size]:
            reads = {name: live[name] for name in first["reads"] if name in live}
            values = outputs_of(main, {**batch, **reads, **sums})
            sums = {name: values[following] for name, following in first["state"].items()}
            total += float(values[first["loss"]])
        found.append(total / size)
        state = {name: live[name] for name in second["state"] if name in live}
        rate = np.array(second["rates"][step], np.float32)
        values = outputs_of(update, {**sums, **state, second["rate"]: rate})
        live = {name: values[following] for name, following in second["state"].items()}
    np.testing.assert_allclose(found, losses, rtol=1e-6)
    for name, value in weights.items():
        if name in live:
            np.testing.assert_allclose(live[name], value, rtol=1e-5, atol=1e-7)


def quiet() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return options


# --- what is inside


@pytest.mark.usefixtures("single")
def test_a_step_file_is_whole_and_valid() -> None:
    compiled()
    model = onnx.load("step.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    inputs = {entry.name for entry in model.graph.input}
    weight, bias = teacher_blobs()
    np.testing.assert_array_equal(held["teacher/ip/weight"], weight)
    np.testing.assert_array_equal(held["teacher/ip/bias"], bias)
    assert not {"teacher/ip/weight", "teacher/ip/bias"} & inputs
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    state = meaning("step.onnx")["state"]
    assert set(state) <= inputs & held.keys()
    assert held["student/ip1/weight"].any()
    assert not held["history/momentum/student/ip1/weight"].any()


@pytest.mark.usefixtures("single")
def test_the_metadata_says_what_is_what() -> None:
    compiled("--seed", "9")
    model = onnx.load("step.onnx")
    found = meaning("step.onnx")
    inputs = [entry.name for entry in model.graph.input]
    outputs = {entry.name for entry in model.graph.output}
    told = [*found["data"], *found["noise"], *found["reads"], *found["state"], found["rate"]]
    assert sorted(told) == sorted(inputs)
    assert {*found["state"].values(), *found["reports"], found["loss"]} == outputs
    assert found["data"] == {"data": [6, 1, 4, 4], "label": [6]}
    assert found["reports"] == {
        "output/loss": {"blob": "loss", "loss_weight": 0.75},
        "output/ts_loss": {"blob": "ts_loss", "loss_weight": 0.25},
    }
    assert found["seed"] == 9
    assert found["net"] == "Joined"
    assert found["rates"] == pytest.approx([0.1] * 4 + [0.05] * 2)
    solver = read_text(found["solver"], "solver", pb.SolverParameter).message
    assert (solver.momentum, solver.max_iter) == (pytest.approx(0.9), 6)


@pytest.mark.usefixtures("single")
def test_compiling_starts_where_training_starts() -> None:
    compiled()
    held = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load("step.onnx").graph.initializer
    }
    options = TrainOptions("joined.prototxt", weights=("teacher.caffemodel",), device="cpu")
    prepared = prepare(options, CaffeLog(io.StringIO()))
    for name, value in prepared.values.items():
        np.testing.assert_array_equal(held[name], value)
    prepared.close()


@pytest.mark.usefixtures("single")
def test_compiling_twice_writes_the_same_bytes_and_leaves_nothing_else() -> None:
    before = set(os.listdir())
    compiled(to="one.onnx")
    compiled(to="two.onnx")
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()
    assert set(os.listdir()) - before == {"one.onnx", "two.onnx"}


def test_a_net_compiles_without_its_data(single: Path) -> None:
    edit(single / "joined.prototxt", '"digits_lmdb"', '"nowhere"')
    ended = run(*COMPILE, "-o", "step.onnx")
    assert ended.code == 1
    assert "[missing-data-source]" in ended.faults
    compiled("--input-shape", "data=1x4x4")
    assert meaning("step.onnx")["data"] == {"data": [6, 1, 4, 4], "label": [6]}


@pytest.mark.usefixtures("single")
def test_an_unloaded_teacher_is_not_written() -> None:
    ended = run(*COMPILE[:2], "-o", "step.onnx")
    assert ended.code == 1
    assert "[unloaded-teacher]" in ended.faults
    assert not Path("step.onnx").exists()


def test_large_weights_go_beside_the_file(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(single / "joined.prototxt", "num_output: 8", "num_output: 64")
    losses, batches, _ = trained()
    np.savez("batches.npz", **stacked(batches))
    monkeypatch.setattr(files, "EXTERNAL_FROM_BYTES", 1000)
    (single / "below").mkdir()
    assert compiled(to="below/step.onnx") == ["below/step.onnx", "below/step.onnx.data"]
    assert sorted(os.listdir("below")) == ["step.onnx", "step.onnx.data"]
    size = os.path.getsize("below/step.onnx.data")
    compiled(to="below/step.onnx")
    assert os.path.getsize("below/step.onnx.data") == size
    os.chdir("/")
    done = example(str(single / "below" / "step.onnx"), str(single / "batches.npz"))
    np.testing.assert_allclose(losses_in(done.stdout), losses, rtol=1e-6)


def test_a_link_stays_a_link(single: Path) -> None:
    (single / "real").mkdir()
    (single / "step.onnx").symlink_to("real/step.onnx")
    assert compiled() == ["step.onnx"]
    assert (single / "step.onnx").is_symlink()
    assert (single / "real" / "step.onnx").is_file()
