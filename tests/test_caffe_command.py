"""Command lines as Caffe's people write them: both spellings, the shim, and what differs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_nets import CLASSES, PIXELS, edit, ok, process, run, said

from kdnet import __version__
from kdnet.cli.caffe import main, parse
from kdnet.errors import UsageError
from kdnet.runtime import device
from kdnet.runtime.device import device_of_gpu
from kdnet.weights import LayerBlobs, philox, read_weights, write_caffemodel

NUMBER = re.compile(r"(?<![\w/])-?\d+(\.\d+)?(e[-+]?\d+)?(?![\w/])")


def student_weights(path: str = "student.caffemodel") -> str:
    stream = philox(7, "caffe-command")
    shapes = {"student/ip1": ((8, PIXELS), (8,)), "student/ip2": ((CLASSES, 8), (CLASSES,))}
    layers = [
        LayerBlobs(name, "InnerProduct", tuple(stream.random(s, "f4") for s in blobs))
        for name, blobs in shapes.items()
    ]
    write_caffemodel(path, layers)
    return path


# --- spellings


@pytest.mark.parametrize(
    "words",
    [
        ["--solver", "student_solver.prototxt"],
        ["--solver=student_solver.prototxt"],
        ["-solver", "student_solver.prototxt"],
        ["-solver=student_solver.prototxt"],
        ["student_solver.prototxt"],
        ["-model=student.prototxt", "-solver=student_solver.prototxt"],
    ],
)
@pytest.mark.usefixtures("joined")
def test_the_solver_is_named_in_any_spelling(words: list[str]) -> None:
    ended = ok("train", *words, "--device", "cpu", "--max-iter", 1)
    assert said(ended, "Optimization Done.")


@pytest.mark.usefixtures("joined")
def test_every_flag_has_both_spellings() -> None:
    path = student_weights()
    given = ["test", "-model", "student.prototxt", f"-weights={path}", "-iterations", "3"]
    given += ["-level=0", "-stage=a,b", "-sigint_effect=none", "--sighup_effect", "stop"]
    kdnet = ["test", "student.prototxt", "--weights", path, "--iterations", "3"]
    kdnet += ["--level", "0", "--stage", "a", "--stage", "b"]
    kdnet += ["--sigint-effect", "none", "--sighup-effect=stop"]
    assert ok(*given, "--device", "cpu").out == ok(*kdnet, "--device", "cpu").out


@pytest.mark.usefixtures("joined")
def test_glog_s_flags_are_named_as_ignored_once() -> None:
    flags = ["-logtostderr", "--alsologtostderr=1", "-nolog_prefix", "-v", "2", "-log_dir=logs"]
    ended = ok("train", "student.prototxt", "--device", "cpu", "--max-iter", 1, *flags, "-v=3")
    warned = [line for line in ended.log if "[ignored-flag]" in line]
    assert warned == [
        "warning: -logtostderr, -alsologtostderr, -log_prefix, -v, -log_dir: ignored, since every "
        "line goes to stderr [ignored-flag]"
    ]
    quiet = ok("train", "student.prototxt", "--device", "cpu", "--max-iter", 1)
    assert not said(quiet, "ignored-flag")


@pytest.mark.parametrize("command", ["train", "test", "time", "device-query"])
def test_help_in_caffe_s_spelling(command: str) -> None:
    assert run(command, "-help").out == run(command, "--help").out != ""


def test_a_solver_that_is_a_net_is_refused(joined: Path) -> None:
    ended = run("train", "--solver", "student.prototxt")
    assert (ended.code, "[not-a-solver]" in ended.err) == (2, True)
    assert joined.exists()


# --- devices


@pytest.mark.parametrize(("ids", "asked"), [("0", "cuda:0"), ("3", "cuda:3"), ("007", "cuda:7")])
def test_one_gpu_is_a_cuda_device(ids: str, asked: str) -> None:
    assert device_of_gpu(ids) == asked


@pytest.mark.parametrize("ids", ["0,1", "0,1,2,3", "0,0"])
def test_several_gpus_are_refused(ids: str) -> None:
    with pytest.raises(UsageError, match="several-gpus") as caught:
        device_of_gpu(ids)
    assert f"-gpu {ids} names more than one device; a net runs on one" in str(caught.value)
    assert "iter_size makes up for it" in str(caught.value)


@pytest.mark.parametrize("ids", ["x", "0,", "-1", "1.5", "cuda:0", "ALL", "²"])
def test_a_gpu_that_is_no_number_is_refused(ids: str) -> None:
    with pytest.raises(UsageError, match="bad-device"):
        device_of_gpu(ids)


@pytest.mark.parametrize(
    ("there", "asked"), [((), "cuda:0"), ((0,), "cuda:0"), ((0, 1), "several-gpus")]
)
def test_all_gpus_are_the_one_there_is(
    there: tuple[int, ...], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "why_no_cuda", lambda i: () if i in there else ("none",))
    if asked == "several-gpus":
        with pytest.raises(UsageError, match=asked):
            device_of_gpu("all")
    else:
        assert device_of_gpu("all") == asked


@pytest.mark.usefixtures("joined")
def test_device_and_gpu_together_are_refused() -> None:
    ended = run("train", "student.prototxt", "--device", "cpu", "-gpu", "0")
    assert ended.code == 2
    assert ended.faults == (
        "error: --device cpu and --gpu 0 both say where to run [two-devices]\n"
        "help: leave one of them out\n"
    )
    ok("train", "student.prototxt", "--device", "cpu", "-gpu", "", "--max-iter", 0)


# --- the shim


def test_flags_are_read_as_gflags_reads_them() -> None:
    words = "-solver=a --weights b,c train -gpu=0 -gpu 1 --logtostderr -nolog_prefix"
    assert parse([*words.split(), "--sigint-effect=none"]) == (
        ["train"],
        {
            "solver": "a",
            "weights": "b,c",
            "gpu": "1",
            "logtostderr": "",
            "nolog_prefix": "",
            "sigint_effect": "none",
        },
    )
    assert parse(["-solver=a=b", "--", "-train"]) == (["-train"], {"solver": "a=b"})
    assert parse(["-level", "-1", "-"]) == (["-"], {"level": "-1"})


TRAINING = """\
Device: cpu (asked for); seed: N
layer status blobs file
student/ip1 filler N -
student/ip2 filler N -
N of N layers loaded, N initialised by fillers
Solving Student
Learning Rate Policy: step
Iteration N, Testing net (#N)
 Test net output #N: accuracy = N
 Test net output #N: loss = N (* N = N loss)
Iteration N (N iter/s, Ns/N iters), loss = N
 Train net output #N: loss = N (* N = N loss)
Iteration N, lr = N
Snapshotting to binary proto file run_iter_2.caffemodel
Snapshotting solver state to binary proto file run_iter_2.solverstate
Iteration N, loss = N
Optimization Done.
"""


def masked(lines: list[str]) -> str:
    """The lines with numbers as N, and runs of blanks as one."""
    text = "".join(f"{line}\n" for line in lines)
    text = re.sub(r"[\d.e+-]+s/\d+ iters", "Ns/N iters", text)
    return re.sub(r" +", " ", NUMBER.sub("N", text))


def test_an_old_training_script_runs(joined: Path) -> None:
    edit(joined / "student_solver.prototxt", "max_iter: 6", "max_iter: 2")
    ended = ok("caffe", "train", "--solver=student_solver.prototxt")
    assert masked(ended.log) == TRAINING
    assert ended.out == ""


TESTING = """\
Device: cpu (asked for)
layer status blobs file
student/ip1 loaded N student.caffemodel
student/ip2 loaded N student.caffemodel
N of N layers loaded
Running for N iterations.
Batch N, accuracy = N
Batch N, loss = N
Batch N, accuracy = N
Batch N, loss = N
Loss: N
accuracy = N
loss = N (* N = N loss)
"""


@pytest.mark.usefixtures("joined")
def test_an_old_scoring_script_runs() -> None:
    path = student_weights()
    ended = ok("caffe", "test", "-model", "student.prototxt", "-weights", path, "-iterations", "2")
    assert masked(ended.log) == TESTING
    batches = [float(line.split()[-1]) for line in ended.log if re.match(r"Batch \d, loss", line)]
    mean = next(line for line in ended.log if line.startswith("loss = "))
    assert float(mean.split()[2]) == pytest.approx(sum(batches) / 2, rel=1e-4)
    assert mean.split()[4] == "0.75"


@pytest.mark.usefixtures("joined")
def test_an_old_timing_script_runs() -> None:
    ended = ok("caffe", "-iterations=2", "-model=student.prototxt", "time", "-phase", "TEST")
    assert said(ended, r"^Average Forward pass: ")
    assert said(ended, r"^Device: cpu \(asked for\)$")


def test_devices_are_queried_in_caffe_s_spelling() -> None:
    assert run("caffe", "device_query").out == run("device-query").out


def test_a_snapshot_of_the_shim_holds_frozen_layers_as_caffe_s_do(joined: Path) -> None:
    given = ("caffe", "train", "-solver", "joined_solver.prototxt")
    edit(joined / "joined_solver.prototxt", "max_iter: 6", "max_iter: 2")
    ok(*given, "-weights", "teacher.caffemodel")
    names = {layer.name for layer in read_weights("run_iter_2.caffemodel").layers}
    assert "teacher/ip" in names
    edit(joined / "joined_solver.prototxt", "max_iter: 2", "max_iter: 3")
    assert said(ok(*given, "-snapshot", "run_iter_2.solverstate"), "run_iter_3.caffemodel")


def test_without_gpu_the_solver_s_mode_decides_and_else_the_cpu(joined: Path) -> None:
    given = ("caffe", "train", "-solver", "student_solver.prototxt")
    path = joined / "student_solver.prototxt"
    edit(path, "max_iter: 6", "max_iter: 0")
    assert said(ok(*given), r"Device: cpu \(asked for\)")
    path.write_text(f"{path.read_text()} solver_mode: CPU\n")
    assert said(ok(*given), r"Device: cpu \(solver_mode: CPU\)")
    edit(path, "solver_mode: CPU", "solver_mode: GPU")
    assert not said(ok(*given), r"asked for")


def test_flags_that_an_action_does_not_read_are_named(joined: Path) -> None:
    edit(joined / "student_solver.prototxt", "max_iter: 6", "max_iter: 0")
    ended = ok(
        "caffe", "train", "-solver=student_solver.prototxt", "-iterations", "9", "-phase=TEST"
    )
    assert said(ended, "warning: -iterations, -phase: ignored, since caffe train does not read it")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (
            "trian",
            'error: there is no action "trian" [unknown-action]\nhelp: did you mean "train"?',
        ),
        ("train a.prototxt", "error: one action is wanted, not train a.prototxt [one-action]"),
        ("-solver=a", "error: one action is wanted, not none [one-action]"),
        ("train", "error: caffe train needs -solver [missing-flag]"),
        ("train -solver=", "error: caffe train needs -solver [missing-flag]"),
        ("test -model a", "error: caffe test needs -weights [missing-flag]"),
        ("time", "error: caffe time needs -model [missing-flag]"),
        ("train -solver", "error: -solver is given no value [flag-without-value]"),
        ("train -solvr a", 'error: Caffe has no flag "solvr" [unknown-flag]\nhelp: did you mean'),
        ("train -solver a -weights b -snapshot c", "exclude each other [snapshot-and-weights]"),
        ("train -solver a -gpu 0,1", "error: -gpu 0,1 names more than one device"),
        ("time -model a -phase test", "invalid choice: 'test'"),
        ("test -model a -weights b -iterations 0", "0 is not above 0"),
        ("train -solver a -sigint_effect leave", "invalid choice: 'leave'"),
    ],
)
def test_what_caffe_aborts_at_is_wrong_usage(words: str, fault: str) -> None:
    ended = run("caffe", *words.split())
    assert ended.code == 2, ended.err
    assert fault in ended.err
    assert ended.out == ""


def test_a_file_that_is_not_there_is_told_as_by_kdnet() -> None:
    ended = run("caffe", "train", "-solver", "none.prototxt")
    assert ended.code == 1
    assert ended.err == run("train", "--solver", "none.prototxt").err


def test_usage_and_version_are_results() -> None:
    for words in ([], ["-help"], ["--help"], ["train", "-helpshort"], ["-h"]):
        ended = run("caffe", *words)
        assert ended.code == 0
        assert ended.out.startswith("usage: kdnet caffe ACTION FLAGS\n")
    for words in (["-version"], ["--version"]):
        assert run("caffe", *words).out == f"caffe version 1.0.0 (kdnet {__version__})\n"


def test_the_shim_is_a_program_of_its_own(
    joined: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-version"]) == 0
    assert capsys.readouterr().out.startswith("caffe version")
    code = "import sys; from kdnet.cli.caffe import main; sys.exit(main())"
    edit(joined / "student_solver.prototxt", "max_iter: 6", "max_iter: 1")
    ended = process(joined, "--solver=student_solver.prototxt", "train", code=code)
    assert ended.code == 0, ended.err
    assert said(ended, "Optimization Done.")


def test_a_link_called_caffe_runs_old_scripts(joined: Path) -> None:
    shim = joined / "build" / "caffe"
    shim.parent.mkdir()
    shim.write_text(
        f"#!{sys.executable}\nimport sys\nfrom kdnet.cli.caffe import main\nsys.exit(main())\n"
    )
    shim.chmod(0o755)
    edit(joined / "student_solver.prototxt", "max_iter: 6", "max_iter: 1")
    script = joined / "train.sh"
    script.write_text(
        "#!/usr/bin/env sh\nset -e\n./build/caffe train --solver=student_solver.prototxt $@\n"
    )
    done = subprocess.run(
        ["sh", "train.sh", "-logtostderr"], cwd=joined, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Optimization Done." in done.stderr
