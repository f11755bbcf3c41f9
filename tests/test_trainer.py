"""The training loop: what happens at which iteration, and that it happens again the same way."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_nets import JOINED as TRAIN
from small_nets import Ended, edit, ok, run

from kdnet.compile import Program
from kdnet.compile.program import NoiseSlot
from kdnet.data.lmdb_writer import write_database
from kdnet.data.sources.data import Data
from kdnet.runtime.feeding import batches
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import read_weights


def with_solver(folder: Path, old: str, new: str, net: str = "joined") -> None:
    edit(folder / f"{net}_solver.prototxt", old, new)


def matching(ended: Ended, pattern: str) -> list[str]:
    return [found.group(1) for line in ended.log if (found := re.fullmatch(pattern, line))]


def trained(*more: object) -> Ended:
    return ok(*TRAIN, *more)


def snapshot(folder: Path, iteration: int) -> bytes:
    return (folder / f"run_iter_{iteration}.caffemodel").read_bytes()


def test_it_learns(joined: Path) -> None:
    with_solver(joined, "max_iter: 6", "max_iter: 60")
    with_solver(joined, "test_interval: 3", "test_interval: 60")
    accuracy = matching(trained(), r"    Test net output #0: accuracy = (\S+)")
    assert float(accuracy[-1]) >= 0.95
    assert float(accuracy[-1]) > float(accuracy[0])


def test_snapshot_and_resume_equal_the_straight_run_bit_by_bit(joined: Path) -> None:
    with_solver(joined, "max_iter: 6", "max_iter: 9 snapshot: 4")
    with_solver(joined, "display: 2", "display: 1")
    straight = trained("--out", "straight")
    trained("--out", "broken", "--max-iter", 4)
    resumed = trained("--out", "broken", "--snapshot", "broken/run_iter_4.solverstate")
    for iteration in (4, 8, 9):
        one, two = snapshot(joined / "straight", iteration), snapshot(joined / "broken", iteration)
        assert one == two, iteration
    state = [(joined / folder / "run_iter_9.solverstate") for folder in ("straight", "broken")]
    messages = [pb.SolverState.FromString(path.read_bytes()) for path in state]
    assert [blob.data for blob in messages[0].history] == [
        blob.data for blob in messages[1].history
    ]
    outputs = r"    ((?:Test|Train) net output #\d+: (?:accuracy|loss|ts_loss) = .*)"
    after = matching(resumed, outputs)
    assert after
    assert after == matching(straight, outputs)[-len(after) :]
    assert matching(resumed, r"Iteration (\d+), Testing net \(#0\)") == ["6", "9"]


def test_a_run_repeats_and_another_seed_gives_another(joined: Path) -> None:
    for name, seed in (("a", ()), ("b", ()), ("c", ("--seed", 6)), ("d", ("--seed", 5))):
        trained("--out", name, *seed)
    files = [snapshot(joined / name, 6) for name in "abcd"]
    assert files[0] == files[1] == files[3]
    assert files[2] != files[0]


def test_dropout_noise_belongs_to_the_seed(joined: Path) -> None:
    """The same first weights and batches, so only the noise differs."""
    weights = "first/run_iter_0.caffemodel"
    trained("--max-iter", 0, "--out", "first")
    files = []
    for seed in (5, 5, 6):
        trained("--seed", seed, "--weights", weights, "--out", f"s{len(files)}")
        files.append(snapshot(joined / f"s{len(files)}", 6))
    assert files[0] == files[1] != files[2]
    edit(joined / "joined.prototxt", "dropout_ratio: 0.25", "dropout_ratio: 0")
    for seed in (5, 6):
        trained("--seed", seed, "--weights", weights, "--out", f"s{len(files)}")
        files.append(snapshot(joined / f"s{len(files)}", 6))
    assert files[3] == files[4] != files[0]


@pytest.mark.usefixtures("joined")
def test_the_teacher_is_no_part_of_a_snapshot_unless_asked_for() -> None:
    trained("--out", "some")
    trained("--out", "full", "--full")
    teacher = read_weights("teacher.caffemodel").layers[0]
    some = read_weights("some/run_iter_6.caffemodel")
    full = read_weights("full/run_iter_6.caffemodel")
    assert [layer.name for layer in some.layers] == ["student/ip1", "student/ip2"]
    assert [layer.name for layer in full.layers] == ["teacher/ip", "student/ip1", "student/ip2"]
    assert some.net_name == "Joined"
    for kept, blob in zip(full.layers[0].blobs, teacher.blobs, strict=True):
        assert kept.tobytes() == blob.tobytes()


def test_noise_is_drawn_anew_for_every_layer_iteration_and_micro_step() -> None:
    slots = tuple(NoiseSlot(f"noise/{name}", name, (400,)) for name in ("one", "two"))
    program = Program(onnx.ModelProto(), noise=slots)
    found = {}
    for seed in (5, 6):
        with batches(program, (), seed) as feed:
            for iteration in (0, 1):
                for micro in (0, 1):
                    for name, values in feed.next(iteration, micro).items():
                        found[seed, iteration, micro, name] = values
    assert len(found) == 16
    assert len({values.tobytes() for values in found.values()}) == 16
    for values in found.values():
        assert values.dtype == np.float32
        assert 0 <= values.min() < 0.05
        assert 0.95 < values.max() < 1
    with batches(program, (), 5, start=9) as feed:
        again = feed.next(1, 1)["noise/two"]
    assert again.tobytes() == found[5, 1, 1, "noise/two"].tobytes()


@pytest.mark.usefixtures("joined")
def test_every_source_that_was_opened_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, closed = [], []
    start, end = Data.__init__, Data.close

    def counted_start(self: Data, *arguments: object, **more: object) -> None:
        start(self, *arguments, **more)
        opened.append(self)

    def counted_end(self: Data) -> None:
        end(self)
        closed.append(self)

    monkeypatch.setattr(Data, "__init__", counted_start)
    monkeypatch.setattr(Data, "close", counted_end)
    trained()
    ok("test", "student.prototxt", "--weights", "run_iter_6.caffemodel", "--iterations", 1)
    assert opened
    assert set(opened) == set(closed)


# --- when


@pytest.mark.usefixtures("joined")
def test_tests_come_at_their_interval_and_before_the_step() -> None:
    ended = trained()
    assert matching(ended, r"Iteration (\d+), Testing net \(#0\)") == ["0", "3", "6"]
    steps = matching(ended, r"Iteration (\d+) \(.*")
    assert steps == ["0", "2", "4"]
    order = matching(ended, r"Iteration (\d+(?:, Test| \(|, lr)).*")
    assert order[:3] == ["0, Test", "0 (", "0, lr"]


def test_the_first_test_can_be_left_out(joined: Path) -> None:
    with_solver(joined, "test_iter: 2", "test_iter: 2 test_initialization: false")
    assert matching(trained(), r"Iteration (\d+), Testing net \(#0\)") == ["3", "6"]


def test_every_test_net_is_tested_in_its_own_state(joined: Path) -> None:
    rule = 'include { phase: TEST stage: "second" }'
    extra = f'layer {{ name: "hush" type: "Silence" bottom: "teacher/ip" {rule} }}\n'
    with (joined / "joined.prototxt").open("a") as file:
        file.write(extra)
    states = 'test_iter: 3 test_state { } test_state { stage: "second" }'
    with_solver(joined, "test_iter: 2", f"test_iter: 2 {states}")
    ended = trained("--max-iter", 1)
    assert matching(ended, r"Iteration 0, Testing net \((#\d)\)") == ["#0", "#1"]
    second = ended.log[ended.log.index("Iteration 0, Testing net (#1)") :]
    outputs = [line for line in second if "Test net output" in line]
    assert [line.split(": ")[1].split(" = ")[0] for line in outputs] == ["accuracy", "loss"]


def test_the_test_s_loss_is_printed_when_asked_for(joined: Path) -> None:
    with_solver(joined, "test_iter: 2", "test_iter: 2 test_compute_loss: true")
    ended = trained("--max-iter", 1)
    total = matching(ended, r"Test loss: (\S+)")
    part = matching(ended, r"    Test net output #1: loss = \S+ \(\* 0\.75 = (\S+) loss\)")
    assert total == part


def test_display_zero_prints_no_iteration(joined: Path) -> None:
    with_solver(joined, "display: 2", "display: 0")
    assert matching(trained(), r"Iteration (\d+) \(.*") == []


@pytest.mark.parametrize(
    ("asked", "iterations"),
    [
        ("", [6]),
        ("snapshot: 2", [2, 4, 6]),
        ("snapshot: 4", [4, 6]),
        ("snapshot: 4 snapshot_after_train: false", [4]),
        ("snapshot_after_train: false", []),
    ],
)
def test_snapshots_come_when_the_solver_says(
    asked: str, iterations: list[int], joined: Path
) -> None:
    with_solver(joined, "random_seed", f"{asked} random_seed")
    ended = trained()
    written = matching(ended, r"Snapshotting to binary proto file run_iter_(\d+)\.caffemodel")
    assert [int(number) for number in written] == iterations
    for kind in ("caffemodel", "solverstate"):
        found = sorted(path.name for path in joined.glob(f"run_iter_*.{kind}"))
        assert found == [f"run_iter_{iteration}.{kind}" for iteration in iterations]
    assert not list(joined.glob(".*"))


def test_max_iter_on_the_command_line_wins(joined: Path) -> None:
    trained("--max-iter", 2)
    assert sorted(path.name for path in joined.glob("*_iter_*.caffemodel")) == [
        "run_iter_2.caffemodel"
    ]


def test_the_displayed_loss_is_the_mean_of_the_last(joined: Path) -> None:
    single = r"Iteration \d+(?: \(.*\))?, loss = (\S+)"
    with_solver(joined, "display: 2", "display: 1")
    each = [float(text) for text in matching(trained(), single)]
    assert len(each) == 7
    with_solver(joined, "display: 1", "display: 1 average_loss: 3")
    smoothed = [float(text) for text in matching(trained(), single)]
    expected = [
        sum(each[max(0, i - 2) : i + 1]) / len(each[max(0, i - 2) : i + 1]) for i in range(7)
    ]
    assert smoothed == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_follows_the_policy(joined: Path) -> None:
    with_solver(joined, "display: 2", "display: 1")
    rates = matching(trained(), r"Iteration \d+, lr = (\S+)")
    assert rates == ["0.1"] * 4 + ["0.05"] * 2


# --- what goes wrong on the way


def test_data_that_fails_on_the_way_loses_no_work(joined: Path) -> None:
    edit(joined / "joined.prototxt", "digits_lmdb", "late_lmdb")
    records = []
    for index in range(30):
        label = 9 if index == 26 else index % 3
        datum = pb.Datum(channels=1, height=4, width=4, label=label, data=bytes(16))
        records.append((b"%08d" % index, datum.SerializeToString()))
    write_database(joined / "late_lmdb", records)
    with_solver(joined, "iter_size: 2", "")
    ended = run(*TRAIN)
    assert ended.code == 1
    assert ended.faults.splitlines()[0].endswith(
        'layer "loss": label 9 of batch 4, item 2, is not one of the 3 classes 0 to 2 '
        "[label-out-of-range]"
    )
    assert matching(ended, r"Snapshotting to binary proto file (\S+)") == ["run_iter_4.caffemodel"]
    assert (joined / "run_iter_4.solverstate").exists()


def test_labels_that_are_no_numbers_are_refused(joined: Path) -> None:
    labels = np.array([0, 1, np.nan, 2, 0, 1], np.float32)
    np.savez(joined / "arrays.npz", data=np.zeros((6, 1, 4, 4), np.float32), label=labels)
    text = (joined / "student.prototxt").read_text()
    memory = (
        'layer { name: "digits" type: "MemoryData" top: "data" top: "label" memory_data_param { '
        'source: "arrays.npz" batch_size: 6 channels: 1 height: 4 width: 4 } }\n'
    )
    start = text.index('layer {\n  name: "student/ip1"')
    (joined / "memory.prototxt").write_text(memory + text[start:])
    ended = run("train", "memory.prototxt", "--device", "cpu", "--max-iter", 2)
    assert ended.code == 1
    assert "label nan of batch 0, item 2, is not one of the 3 classes" in ended.faults


def test_a_loss_without_a_named_top_is_still_found(joined: Path) -> None:
    edit(joined / "joined.prototxt", 'bottom: "label" top: "loss"', 'bottom: "label"')
    with_solver(joined, "base_lr: 0.1", "base_lr: 1e30")
    ended = run(*TRAIN)
    assert ended.code == 3
    assert ended.faults.splitlines()[0].endswith("[non-finite-loss]")
    assert ended.faults.startswith("joined.prototxt:")
