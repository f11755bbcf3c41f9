"""The command line: usage, weights, scores, devices, and what its exit status says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from small_nets import (
    CLASSES,
    JOINED,
    PIXELS,
    WEIGHTS,
    edit,
    ok,
    process,
    run,
    said,
    teacher_blobs,
)

from kdnet import __version__, cli, runtime
from kdnet.commands import command_modules
from kdnet.errors import RunError, UsageError
from kdnet.runtime import choose_device, device
from kdnet.weights import LayerBlobs, read_weights, write_caffemodel


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "the following arguments are required: NET|SOLVER"),
        (["train", "n", "--max-iter", "many"], "invalid count value: 'many'"),
        (["train", "n", "--max-iter", "-1"], "-1 is not in 0 to 2147483647"),
        (["train", "n", "--max-iter", "2147483648"], "2147483648 is not in 0 to 2147483647"),
        (["test", "n", "--iterations", "0"], "0 is not above 0"),
        (["train", "n", "--seed", str(2**63)], "9223372036854775808 is not in -2^63 to 2^63 - 1"),
        (["train", "n", "--seed", "x"], "invalid seed value: 'x'"),
        (["train", "n", "--no-such"], "unrecognized arguments: --no-such"),
        (["compile", "n"], "the following arguments are required: -o/--output"),
    ],
)
def test_wrong_usage_is_exit_status_2(arguments: list[str], message: str) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert message in ended.err
    assert "[usage]" in ended.err
    assert re.search(r"^help: kdnet.* --help$", ended.err, re.MULTILINE)


@pytest.mark.parametrize(
    "shape", ["data", "=3", "data=", "data=3x", "data=0x3", "data=²", "data=" + "9" * 5000]
)
def test_a_wrong_input_shape_is_exit_status_2(shape: str, joined: Path) -> None:
    ended = run(*JOINED, "--input-shape", shape)
    assert ended.code == 2
    assert "[bad-input-shape]" in ended.faults
    assert joined.exists()


def test_help_and_version_are_results() -> None:
    assert run("--version").out == f"kdnet {__version__}\n"
    assert "exit codes: 0 ok" in run("--help").out
    for command in command_modules("kdnet.cli"):
        ended = run(command, "--help")
        assert ended.code == 0
        assert ended.out.startswith(f"usage: kdnet {command}")


def test_a_bug_is_exit_status_70_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise ZeroDivisionError("an accident")

    monkeypatch.setattr(runtime, "prepare", broken)
    ended = run("train", "net.prototxt")
    assert ended.code == 70
    assert "Traceback" in ended.err
    assert "ZeroDivisionError: an accident" in ended.err
    assert ended.err.endswith(f"{cli.BUG}\n")
    assert "[internal]" in cli.BUG


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (MemoryError("Unable to allocate 9 TiB"), 3, "9 TiB [out-of-memory]"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_is_no_bug_shows_no_traceback(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(runtime, "prepare", broken)
    ended = run("train", "net.prototxt")
    assert ended.code == code
    assert text in ended.err
    assert "Traceback" not in ended.err


# --- weights


def student_file(path: str, value: float, *layers: str) -> None:
    shapes = {"student/ip1": [(8, PIXELS), (8,)], "student/ip2": [(CLASSES, 8), (CLASSES,)]}
    write_caffemodel(
        path,
        [
            LayerBlobs(name, "InnerProduct", tuple(np.full(s, value, "f4") for s in shapes[name]))
            for name in layers
        ],
    )


def first_weights(*more: object) -> dict[str, float]:
    """The first value of each layer of the snapshot of a run of no iterations."""
    ok("train", "joined.prototxt", "--device", "cpu", "--max-iter", 0, "--full", *more)
    layers = read_weights("run_iter_0.caffemodel").layers
    return {layer.name: float(layer.blobs[1].flat[0]) for layer in layers}


@pytest.mark.usefixtures("joined")
def test_weight_files_are_taken_in_order_and_later_ones_win() -> None:
    student_file("a.caffemodel", 1.0, "student/ip1", "student/ip2")
    student_file("b.caffemodel", 2.0, "student/ip2")
    teacher = float(teacher_blobs()[1][0])
    for given in (
        ["--weights", "teacher.caffemodel,a.caffemodel,b.caffemodel"],
        [*WEIGHTS, "--weights", "a.caffemodel", "--weights", "b.caffemodel"],
    ):
        found = first_weights(*given)
        assert found == {"teacher/ip": teacher, "student/ip1": 1.0, "student/ip2": 2.0}
    assert (
        first_weights("--weights", "b.caffemodel,teacher.caffemodel,a.caffemodel")["student/ip2"]
        == 1.0
    )


def test_a_shared_weight_is_what_its_last_user_holds_in_the_file(joined: Path) -> None:
    net = joined / "joined.prototxt"
    edit(
        net,
        "inner_product_param { num_output: 3 weight",
        'param { name: "w" } inner_product_param { num_output: 3 weight',
    )
    layer = (
        'layer { name: "student/again" type: "InnerProduct" bottom: "student/ip1" top: "again" '
        'param { name: "w" } inner_product_param { num_output: 3 } }\n'
        'layer { name: "hush" type: "Silence" bottom: "again" }\n'
    )
    net.write_text(net.read_text() + layer)
    shapes = [(CLASSES, 8), (CLASSES,)]
    blobs = [tuple(np.full(shape, value, "f4") for shape in shapes) for value in (1.0, 2.0)]
    names = ("student/ip2", "student/again")
    layers = [LayerBlobs(n, "InnerProduct", b) for n, b in zip(names, blobs, strict=True)]
    write_caffemodel("a.caffemodel", layers)
    ok(*JOINED, "--weights", "a.caffemodel", "--max-iter", 0)
    saved = {layer.name: layer.blobs for layer in read_weights("run_iter_0.caffemodel").layers}
    assert {float(saved[name][0].flat[0]) for name in names} == {2.0}
    assert [float(saved[name][1].flat[0]) for name in names] == [1.0, 2.0]


@pytest.mark.usefixtures("joined")
def test_every_layer_with_weights_is_accounted_for() -> None:
    student_file("a.caffemodel", 1.0, "student/ip1")
    ended = ok(*JOINED, "--weights", "a.caffemodel", "--max-iter", 1)
    table = [re.split(r"  +", line.strip()) for line in ended.log if "  " in line.strip()]
    assert ["teacher/ip", "loaded, frozen", "2", "teacher.caffemodel"] in table
    assert ["student/ip1", "loaded", "2", "a.caffemodel"] in table
    assert ["student/ip2", "filler", "2", "-"] in table
    assert said(ended, "2 of 3 layers loaded, 1 initialised by fillers")
    assert said(ended, "Finetuning from teacher.caffemodel")


def test_the_solver_s_weights_are_used_unless_the_command_line_names_others(joined: Path) -> None:
    student_file("a.caffemodel", 1.0, "student/ip1")
    student_file("b.caffemodel", 2.0, "student/ip1")
    solver = joined / "joined_solver.prototxt"
    solver.write_text(f'{solver.read_text()} weights: "teacher.caffemodel,a.caffemodel"\n')
    assert first_weights()["student/ip1"] == 1.0
    assert first_weights("--weights", "teacher.caffemodel,b.caffemodel")["student/ip1"] == 2.0
    (joined / "below").mkdir()
    os.chdir(joined / "below")
    ok("train", "../joined_solver.prototxt", "--max-iter", 0)


@pytest.mark.usefixtures("joined")
def test_an_unloaded_teacher_stops_the_run_unless_it_is_allowed() -> None:
    ended = run("train", "joined.prototxt", "--device", "cpu")
    assert ended.code == 1
    assert "[unloaded-teacher]" in ended.faults
    assert not said(ended, "Solving")
    ended = ok("train", "joined.prototxt", "--device", "cpu", "--allow-unloaded")
    assert said(ended, 'warning: frozen layer "teacher/ip" keeps random filler values')


# --- kdnet test


@pytest.mark.usefixtures("joined")
def test_a_net_is_scored_over_as_many_batches_as_asked_for() -> None:
    ok("train", "student.prototxt", "--device", "cpu", "--max-iter", 30)
    given = ("test", "student.prototxt", "--weights", "run_iter_30.caffemodel", "--device", "cpu")
    ended = ok(*given, "--iterations", 6)
    assert re.match(r"accuracy = [\d.]+\nloss = [\d.]+\n\nclassifier \"student/ip2\"", ended.out)
    assert said(ended, r"^accuracy = ")
    assert said(ended, r"^Loss: ")
    single = [ok(*given, "--iterations", n).out for n in (1, 6, 12)]
    assert single[1] == ended.out
    # 60 records make 6 batches of 10, so 12 batches see each record twice.
    assert [float(x) for x in re.findall(r"= (\S+)", single[2])] == pytest.approx(
        [float(x) for x in re.findall(r"= (\S+)", single[1])], rel=1e-5
    )
    assert single[0] != single[1]


@pytest.mark.usefixtures("joined")
def test_scoring_random_weights_is_refused_where_they_are_frozen() -> None:
    ended = run("test", "joined.prototxt", "--iterations", 1)
    assert ended.code == 1
    assert "[unloaded-teacher]" in ended.faults
    assert run("test", "joined.prototxt", "--iterations", 1, "--allow-unloaded").code == 0


# --- devices


def test_the_cpu_is_used_where_it_is_asked_for_or_the_solver_says_so(joined: Path) -> None:
    assert said(ok(*JOINED, "--max-iter", 1), r"Device: cpu \(asked for\)")
    path = joined / "joined_solver.prototxt"
    path.write_text(f"{path.read_text()} solver_mode: CPU\n")
    ended = ok("train", "joined.prototxt", *WEIGHTS, "--max-iter", 1)
    assert said(ended, r"Device: cpu \(solver_mode: CPU\)")


class NoCuda:
    """An onnxruntime with the given providers, whose CUDA does not start."""

    __version__ = "1.99"
    InferenceSession = object

    def __init__(self, *providers: str) -> None:
        self._providers = list(providers)

    def get_available_providers(self) -> list[str]:
        return self._providers

    class OrtValue:
        @staticmethod
        def ortvalue_from_numpy(*_arguments: object) -> None:
            raise RuntimeError("CUDA driver version is insufficient\nmore")


def test_auto_says_why_it_took_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "onnxruntime", lambda: NoCuda("CPUExecutionProvider"))
    chosen, why = choose_device("auto")
    assert (str(chosen), why) == ("cpu", "no CUDA: onnxruntime 1.99 is built without CUDA")


def test_asking_for_cuda_where_it_does_not_start_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "onnxruntime", lambda: NoCuda("CUDAExecutionProvider"))
    with pytest.raises(RunError) as caught:
        choose_device("cuda:1")
    assert str(caught.value) == (
        "error: cuda:1 was asked for: the CUDA provider does not start: CUDA driver version is "
        "insufficient [no-cuda]\nhelp: it needs an NVIDIA driver, CUDA 13 and cuDNN 9: "
        'pip install "kdnet[gpu]" brings all but the driver'
    )
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "", "cpu:0"])
def test_a_device_that_is_none_is_wrong_usage(name: str) -> None:
    with pytest.raises(UsageError, match="bad-device"):
        choose_device(name)


HIDE = (
    "import sys; sys.modules['onnxruntime'] = None; from kdnet.cli import main; sys.exit(main())"
)


def test_without_a_runtime_both_extras_are_named(joined: Path) -> None:
    ended = process(joined, *JOINED, code=HIDE)
    assert ended.code == 3
    lines = ended.faults.splitlines()
    assert lines[0].startswith("error: no working onnxruntime: ")
    assert lines[0].endswith("[no-runtime]")
    assert 'pip install "kdnet[cpu]" or pip install "kdnet[gpu]"' in lines[1]


def test_compiling_needs_no_runtime(joined: Path) -> None:
    ended = process(joined, "compile", "student.prototxt", "-o", "step.onnx", code=HIDE)
    assert ended.code == 0, ended.err
    assert ended.out == "step.gradient.onnx\nstep.update.onnx\n"
