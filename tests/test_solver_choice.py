"""Which solver and which net a run takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_nets import (
    JOINED,
    WEIGHTS,
    edit,
    ok,
    run,
    said,
)

from kdnet import runtime
from kdnet.errors import NetError, SchemaError
from kdnet.net import solver_beside


def test_the_solver_beside_a_net_is_used_and_named(joined: Path) -> None:
    ended = ok(*JOINED, "--max-iter", 1)
    assert said(ended, r'using the solver beside the net: "joined_solver\.prototxt"')
    (joined / "joined_solver.prototxt").rename(joined / "my_solver_2.prototxt")
    ended = ok(*JOINED, "--max-iter", 1)
    assert said(ended, r'using the solver beside the net: "my_solver_2\.prototxt"')


def test_a_net_in_another_folder_finds_its_solver_and_its_data_there(joined: Path) -> None:
    (joined / "elsewhere").mkdir()
    os.chdir(joined / "elsewhere")
    ended = ok("train", "../joined.prototxt", "--weights", "../teacher.caffemodel")
    assert said(ended, r'using the solver beside the net: "\.\./joined_solver\.prototxt"')
    assert (joined / "elsewhere" / "run_iter_6.caffemodel").exists()
    ended = ok("train", "../joined_solver.prototxt", "--weights", "../teacher.caffemodel")
    assert said(ended, "Solving Joined")


def test_a_net_without_a_solver_states_its_defaults(joined: Path) -> None:
    (joined / "joined_solver.prototxt").unlink()
    ended = ok(*JOINED, "--max-iter", 2)
    assert said(
        ended,
        r"no solver given and none beside the net: SGD, base_lr 0\.01, lr_policy inv, "
        r"momentum 0\.9, weight_decay 0\.0005, 1000 iterations",
    )
    assert (joined / "joined_iter_2.caffemodel").exists()


def test_a_solver_named_is_the_one_taken(joined: Path) -> None:
    text = (joined / "joined_solver.prototxt").read_text()
    (joined / "other.prototxt").write_text(text.replace("max_iter: 6", "max_iter: 1"))
    ended = ok(*JOINED, "--solver", "other.prototxt")
    assert not said(ended, "beside the net")
    assert (joined / "run_iter_1.caffemodel").exists()


def test_a_solver_alone_names_its_net(joined: Path) -> None:
    assert said(ok("train", "joined_solver.prototxt", *WEIGHTS), "Solving Joined")
    assert (joined / "run_iter_6.solverstate").exists()


def test_two_solvers_that_name_the_net_are_ambiguous(joined: Path) -> None:
    own = joined / "joined_solver.prototxt"
    own.rename(joined / "a_solver.prototxt")
    (joined / "b_solver.prototxt").write_text((joined / "a_solver.prototxt").read_text())
    ended = run(*JOINED)
    assert ended.code == 1
    assert ended.faults == (
        'error: more than one solver in the folder names "joined.prototxt": "a_solver.prototxt", '
        '"b_solver.prototxt" [ambiguous-solver]\nhelp: choose one with --solver\n'
    )
    with pytest.raises(NetError, match="ambiguous-solver"):
        solver_beside("joined.prototxt")


def test_a_solver_that_names_the_net_is_not_passed_over_for_its_faults(joined: Path) -> None:
    own = joined / "joined_solver.prototxt"
    own.rename(joined / "fast_solver.prototxt")
    edit(joined / "fast_solver.prototxt", "base_lr: 0.1", "base_lr: fast")
    ended = run(*JOINED)
    assert ended.code == 1
    assert ended.faults.startswith("fast_solver.prototxt:3:10: error: ")
    edit(joined / "fast_solver.prototxt", "joined.prototxt", "other.prototxt")
    assert solver_beside("joined.prototxt") is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('name: "N" layer { name: "a" tpye: "ReLU" }', "LayerParameter"),
        ('name: "N" layer { name: "a" type: "ReLU"', "layer"),
        ('nmae: "N" layer { name: "a" }', "NetParameter"),
        ('net: "n" base_rl: 0.1 max_iter: 3', "SolverParameter"),
        ("base_rl: 0.1", "SolverParameter"),
        ('net: "n" max_iter: 3 lr_policy: "fixed', "string"),
    ],
)
def test_a_file_with_faults_is_judged_as_what_it_is_nearer_to(
    text: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("some.prototxt").write_text(text)
    ended = run("train", "some.prototxt")
    assert ended.code == 1
    assert len([line for line in ended.faults.splitlines() if "error:" in line]) == 1
    assert kind in ended.faults.splitlines()[0]


@pytest.mark.usefixtures("joined")
def test_levels_and_stages_choose_layers() -> None:
    path = Path("joined.prototxt")
    rule = 'include { phase: TRAIN stage: "distil" min_level: 2 }'
    edit(path, "include { phase: TRAIN } loss_weight: 0.25", f"{rule} loss_weight: 0.25")
    plain = ok(*JOINED, "--max-iter", 1)
    assert not said(plain, "ts_loss")
    assert not said(ok(*JOINED, "--max-iter", 1, "--stage", "distil"), "ts_loss")
    asked = ok(*JOINED, "--max-iter", 1, "--stage", "a,distil", "--level", 2)
    assert said(asked, "Train net output #1: ts_loss")


def test_states_are_laid_over_one_another_and_the_command_line_comes_last(joined: Path) -> None:
    rule = 'include { phase: TRAIN stage: "distil" min_level: 2 }'
    edit(joined / "joined.prototxt", "include { phase: TRAIN } loss_weight: 0.25", rule)
    net, solver = joined / "joined.prototxt", joined / "joined_solver.prototxt"
    texts = net.read_text(), solver.read_text()
    distils = "Train net output #1: ts_loss"
    for in_net, in_solver, asked, wanted in (
        ('stage: "distil" level: 2', "", [], True),
        ("", 'stage: "distil" level: 2', [], True),
        ('stage: "distil"', "level: 2", [], True),
        ("level: 1", 'stage: "distil" level: 2', [], True),
        ("level: 2", 'stage: "distil" level: 1', [], False),
        ('level: 2 stage: "distil"', "", ["--level", 1], False),
        ("level: 1", "level: 0", ["--level", 2, "--stage", "distil"], True),
    ):
        net.write_text(f"{texts[0]} state {{ {in_net} }}")
        solver.write_text(f"{texts[1]} train_state {{ {in_solver} }}")
        ended = ok(*JOINED, "--max-iter", 1, *asked)
        assert said(ended, distils) == wanted, (in_net, in_solver, asked)


def test_faults_of_a_net_are_the_schema_s(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="file-not-found"):
        runtime.prepare(runtime.TrainOptions(str(tmp_path / "none.prototxt")), None)
