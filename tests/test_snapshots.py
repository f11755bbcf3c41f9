"""Snapshots: what the files hold, what they refuse, and what a failed write leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from small_nets import JOINED as TRAIN
from small_nets import Ended, ok, process, run

from kdnet.errors import WeightsError
from kdnet.runtime.solver_states import load
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import read_weights

CAFFE = Path(__file__).parent / "golden" / "caffe"


def trained(*more: object) -> Ended:
    return ok(*TRAIN, *more)


def edit(path: Path, change: object) -> None:
    message = pb.SolverState.FromString(path.read_bytes())
    change(message)
    path.write_bytes(message.SerializeToString())


def test_the_files_are_what_caffe_reads(joined: Path) -> None:
    trained()
    state = pb.SolverState.FromString((joined / "run_iter_6.solverstate").read_bytes())
    assert (state.iter, state.learned_net) == (6, "run_iter_6.caffemodel")
    assert [tuple(blob.shape.dim) for blob in state.history] == [(8, 16), (8,), (3, 8), (3,)]
    assert list(state.history_name) == [
        f"history/momentum/student/{name}"
        for name in ("ip1/weight", "ip1/bias", "ip2/weight", "ip2/bias")
    ]
    net = pb.NetParameter.FromString((joined / "run_iter_6.caffemodel").read_bytes())
    assert [(layer.name, layer.type, len(layer.blobs)) for layer in net.layer] == [
        ("student/ip1", "InnerProduct", 2),
        ("student/ip2", "InnerProduct", 2),
    ]


def test_what_was_saved_is_what_is_loaded(joined: Path) -> None:
    trained()
    resume = load(str(joined / "run_iter_6.solverstate"))
    assert (resume.iteration, resume.seed) == (6, 5)
    assert all(array.dtype == np.float32 for array in resume.history.values())
    assert any(np.abs(array).max() > 0 for array in resume.history.values())


def test_a_pair_of_files_may_be_moved_together(joined: Path) -> None:
    trained("--max-iter", 4, "--out", "first")
    straight = trained("--out", "first", "--snapshot", "first/run_iter_4.solverstate")
    wanted = (joined / "first/run_iter_6.caffemodel").read_bytes()
    (joined / "moved").mkdir()
    for kind in ("caffemodel", "solverstate"):
        (joined / f"first/run_iter_4.{kind}").rename(joined / f"moved/run_iter_4.{kind}")
    # A file of the old name that does not belong to this snapshot must not be taken.
    shutil.copy(joined / "first/run_iter_6.caffemodel", joined / "first/run_iter_4.caffemodel")
    trained("--out", "second", "--snapshot", "moved/run_iter_4.solverstate")
    assert (joined / "second/run_iter_6.caffemodel").read_bytes() == wanted
    assert straight.code == 0


@pytest.mark.usefixtures("joined")
def test_a_snapshot_keeps_the_run_s_seed() -> None:
    trained("--max-iter", 4, "--seed", 77)
    ended = trained("--snapshot", "run_iter_4.solverstate")
    assert any(line.endswith("; seed: 77") for line in ended.log)


@pytest.mark.usefixtures("joined")
def test_weights_without_their_teacher_do_not_go_on() -> None:
    trained("--max-iter", 4)
    ended = run("train", "joined.prototxt", "--snapshot", "run_iter_4.solverstate")
    assert ended.code == 1
    assert 'frozen layer "teacher/ip" was filled by no file' in ended.faults
    trained("--max-iter", 4, "--full")
    alone = run("train", "joined.prototxt", "--snapshot", "run_iter_4.solverstate")
    assert alone.code == 0


def test_a_resumed_run_that_is_done_already_ends_at_once(joined: Path) -> None:
    trained()
    before = (joined / "run_iter_6.caffemodel").read_bytes()
    ended = trained("--snapshot", "run_iter_6.solverstate")
    assert ended.log[-1] == "Optimization Done."
    assert (joined / "run_iter_6.caffemodel").read_bytes() == before


def test_caffe_s_own_snapshot_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with np.load(CAFFE / "files" / "expected.npz") as file:
        golden = {name: file[name] for name in file.files}
    with np.load(CAFFE / "lenet_fashion.npz") as file:
        images, labels = file["images"][:16], file["labels"][:16]
    data = images[:, np.newaxis].astype(np.float32) / 256
    np.savez("data.npz", data=data, label=labels.astype(np.float32))
    text = str(golden["net"])
    text = text[text.index('layer {\n  name: "conv1"') :]
    memory = (
        'layer { name: "mnist" type: "MemoryData" top: "data" top: "label" memory_data_param '
        '{ source: "data.npz" batch_size: 16 channels: 1 height: 28 width: 28 } }\n'
    )
    Path("net.prototxt").write_text(memory + text)
    solver = str(golden["solver/binaryproto"]).replace("max_iter: 10", "max_iter: 6 display: 1")
    Path("solver.prototxt").write_text(solver)
    state = CAFFE / "files" / "lenet_tiny_iter_3.solverstate"
    ended = run("train", "solver.prototxt", "--snapshot", state)
    assert ended.code == 0, ended.err
    losses = [line.rsplit(" ", 1)[1] for line in ended.log if ", loss = " in line]
    np.testing.assert_allclose(np.array(losses[:3], float), golden["loss_after"], rtol=1e-5)
    for layer in read_weights("lenet_tiny_iter_6.caffemodel").layers:
        for index, blob in enumerate(layer.blobs):
            wanted = golden[f"after/{layer.name}/{index}"]
            np.testing.assert_allclose(blob, wanted, rtol=1e-4, atol=1e-6)


# --- what does not fit


def rename_history(message: pb.SolverState) -> None:
    message.history_name[1] = "history/momentum/student/ip9/bias"


def reshape_history(message: pb.SolverState) -> None:
    del message.history[1].shape.dim[:]
    message.history[1].shape.dim.extend([2, 4])


def drop_history(message: pb.SolverState) -> None:
    del message.history[-1]
    del message.history_name[-1]


def unname_too_few(message: pb.SolverState) -> None:
    drop_history(message)
    del message.history_name[:]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (rename_history, "history/momentum/student/ip1/bias, history/momentum/student/ip9/bias"),
        (reshape_history, "history/momentum/student/ip1/bias"),
        (drop_history, "history/momentum/student/ip2/bias"),
        (unname_too_few, "history/momentum/student/ip1/weight"),
    ],
)
def test_a_history_of_another_net_is_refused(change: object, named: str, joined: Path) -> None:
    trained("--max-iter", 4)
    edit(joined / "run_iter_4.solverstate", change)
    ended = run(*TRAIN, "--snapshot", "run_iter_4.solverstate")
    assert ended.code == 1
    lines = ended.faults.splitlines()
    assert lines[0] == (
        'error: "run_iter_4.solverstate" was written by another net or solver: its history '
        "does not fit [snapshot-mismatch]"
    )
    assert lines[1].startswith(f"note: missing, unknown or of another shape: {named}")


def test_a_state_cut_short_is_refused(joined: Path) -> None:
    trained("--max-iter", 4)
    path = joined / "run_iter_4.solverstate"
    whole = path.read_bytes()
    for size in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        ended = run(*TRAIN, "--snapshot", path.name)
        assert ended.code == 1, size
        assert "[bad-snapshot]" in ended.faults or "[snapshot-mismatch]" in ended.faults, size


def test_names_and_blobs_of_a_state_must_match_in_number(joined: Path) -> None:
    trained("--max-iter", 4)
    edit(joined / "run_iter_4.solverstate", lambda message: message.history_name.append("more"))
    with pytest.raises(WeightsError, match="names 5 of 4 histories"):
        load("run_iter_4.solverstate")


def test_a_state_whose_weights_are_gone_names_the_file(joined: Path) -> None:
    trained("--max-iter", 4)
    (joined / "run_iter_4.caffemodel").unlink()
    ended = run(*TRAIN, "--snapshot", "run_iter_4.solverstate")
    assert ended.code == 1
    assert 'there is no weight file "run_iter_4.caffemodel"' in ended.faults


# --- when the disk is full

FULL_DISK = """
import resource, sys
from kdnet.cli import main
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("limit", [0, 300])
def test_a_full_disk_leaves_the_old_snapshot_whole(limit: int, joined: Path) -> None:
    pytest.importorskip("resource", reason="this system has no file size limits")
    trained("--max-iter", 4)
    before = {path.name: path.read_bytes() for path in joined.glob("run_iter_4.*")}
    assert min(len(content) for content in before.values()) > limit
    ended = process(joined, limit, *TRAIN, "--max-iter", 4, code=FULL_DISK)
    assert ended.faults == (
        'error: cannot write "run_iter_4.caffemodel": File too large [cannot-write]\n'
    )
    assert ended.code == 1
    assert {path.name: path.read_bytes() for path in joined.glob("run_iter_4.*")} == before
    assert not [path.name for path in joined.iterdir() if path.name.startswith(".")]


def test_a_place_that_takes_no_files_is_refused_before_the_first_step(joined: Path) -> None:
    (joined / "file").write_text("")
    for out in ("file", "file/below"):
        ended = run(*TRAIN, "--out", out)
        assert ended.code == 1
        assert f'cannot write snapshots to the folder "{out}"' in ended.faults
        assert not any(line.startswith("Iteration") for line in ended.log)


def test_a_run_that_saves_nothing_needs_no_place(joined: Path) -> None:
    path = joined / "joined_solver.prototxt"
    path.write_text(path.read_text() + "snapshot_after_train: false\n")
    trained("--out", "teacher.caffemodel")
