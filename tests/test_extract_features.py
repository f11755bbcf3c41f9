"""kdnet extract-features: what a net says of each item, as Caffe writes it and as arrays."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
from small_nets import PIXELS, ok, run, teacher_blobs

from kdnet.data.opening import open_database
from kdnet.schema import kdnet_pb2 as pb

NET = ("teacher.caffemodel", "joined.prototxt")


@pytest.fixture(autouse=True)
def _in_the_workplace(joined: Path) -> None:
    """The net, its data and its weights lie in the working directory."""
    assert joined == Path.cwd()


def stored(path: str) -> list[tuple[bytes, pb.Datum]]:
    with lmdb.open(path, readonly=True, lock=False) as env, env.begin() as reading:
        return [(key, pb.Datum.FromString(value)) for key, value in reading.cursor()]


def images(count: int) -> np.ndarray:
    """The first items as the TEST data layer gives them."""
    # Another test's solver may still hold it, and a process may open an LMDB once.
    digits = open_database(Path("digits_lmdb"))
    values = [pb.Datum.FromString(digits.record(row)[1]).data for row in range(count)]
    digits.close()
    pixels = [np.frombuffer(value, np.uint8) for value in values]
    return np.array(pixels, np.float32) * np.float32(0.00390625)


def scores(count: int) -> np.ndarray:
    weight, bias = teacher_blobs()
    found: np.ndarray = images(count) @ weight.T + bias
    return found


def test_a_database_as_caffe_writes_it() -> None:
    ended = ok("extract-features", *NET, "teacher/ip", "out_lmdb", "2", "lmdb", "CPU")
    assert ended.out == "out_lmdb: 20 rows of teacher/ip, 3, lmdb\n"
    records = stored("out_lmdb")
    assert [key for key, _ in records] == [b"%010d" % number for number in range(20)]
    first = records[0][1]
    assert (first.channels, first.height, first.width) == (3, 1, 1)
    assert [field.name for field, _ in first.ListFields()] == [
        *("channels", "height", "width", "float_data")
    ]
    found = np.array([datum.float_data for _, datum in records])
    np.testing.assert_allclose(found, scores(20), rtol=1e-5)


def test_several_blobs_in_one_pass() -> None:
    ended = ok(
        *("extract-features", *NET, "teacher/ip,data,label", "a.npz,b.h5,c_lmdb", 3),
    )
    assert [line.split(": ")[1] for line in ended.out.splitlines()] == [
        "30 rows of teacher/ip, 3, npz",
        "30 rows of data, 1x4x4, hdf5",
        "30 rows of label, 1, lmdb",
    ]
    with np.load("a.npz") as file:
        np.testing.assert_allclose(file["teacher/ip"], scores(30), rtol=1e-5)
    with h5py.File("b.h5") as file:
        np.testing.assert_array_equal(file["data"][:].reshape(30, PIXELS), images(30))
    labels = [datum.float_data[0] for _, datum in stored("c_lmdb")]
    assert labels == [number % 3 for number in range(30)]


@pytest.mark.parametrize("words", [["--to", "hdf5"], ["--to", "hdf5", "--device", "cpu"]])
def test_a_form_for_every_output(words: list[str]) -> None:
    ok("extract-features", *NET, "teacher/ip", "out.npz", 1, *words)
    with h5py.File("out.npz") as file:
        assert file["teacher/ip"].shape == (10, 3)


def test_a_leveldb() -> None:
    plyvel = pytest.importorskip("plyvel")
    ok("extract-features", *NET, "teacher/ip", "out_leveldb", 1, "leveldb")
    database = plyvel.DB("out_leveldb")
    try:
        keys = [key for key, _ in database]
    finally:
        database.close()
    assert keys == [b"%010d" % number for number in range(10)]


def test_data_begins_anew_after_its_last_item() -> None:
    ok("extract-features", *NET, "data", "out.npz", 7)
    with np.load("out.npz") as file:
        np.testing.assert_array_equal(file["data"][60:], file["data"][:10])


def test_a_blob_made_anew_in_place_is_its_last_value() -> None:
    ok("extract-features", *NET, "student/ip1", "out.npz", 1)
    with np.load("out.npz") as file:
        assert file["student/ip1"].min() == 0


def test_a_blob_of_one_number_has_a_row_a_batch() -> None:
    ok("extract-features", *NET, "loss", "out_lmdb", 3)
    found = [datum.float_data[0] for _, datum in stored("out_lmdb")]
    assert len(found) == 3
    assert min(found) > 0


def test_only_what_the_blobs_need_is_read_and_run() -> None:
    Path("net.prototxt").write_text(
        Path("joined.prototxt").read_text()
        + 'layer { name: "other" type: "HDF5Data" top: "x" hdf5_data_param { source: "no" '
        "batch_size: 1 } include { phase: TEST } }"
    )
    ok("extract-features", "teacher.caffemodel", "net.prototxt", "label", "out.npz", 1)


def test_a_database_is_replaced_only_when_asked_to() -> None:
    asked = ("extract-features", *NET, "teacher/ip", "out_lmdb")
    ok(*asked, 1)
    ended = run(*asked, 2)
    assert (ended.code, "[target-exists]" in ended.err) == (1, True)
    ok(*asked, 2, "--force")
    assert len(stored("out_lmdb")) == 20


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("teacher/ip,data", "a.npz", 1), "blob-count", 2),
        (("data,label", "a.npz,./a.npz", 1), "same-output", 2),
        (("teacher/op", "a.npz", 1), "unknown-blob", 2),
        (("data", "no/a.npz", 1), "cannot-write", 1),
        (("data", "no/lmdb", 1), "cannot-write", 1),
        (("data", "a.npz", 0), "usage", 2),
        (("data", "a.npz", 1, "mdb"), "unknown-word", 2),
        (("data", "a.npz", 1, "lmdb", "CPU", "0", "1"), "unknown-word", 2),
        (("data", "a.npz", 1, "--input-shape", "nothing=3"), "unknown-input", 2),
    ],
)
def test_faults(arguments: tuple[object, ...], code: str, status: int) -> None:
    ended = run("extract-features", *NET, *arguments)
    assert (ended.code, f"[{code}]" in ended.err) == (status, True), ended.err
    assert not Path("a.npz").exists()


@pytest.mark.parametrize("words", [["GPU", "99"], ["lmdb", "GPU", "DEVICE_ID=99"]])
def test_a_gpu_that_is_not_there(words: list[str]) -> None:
    ended = run("extract-features", *NET, "data", "a.npz", 1, *words)
    assert ended.code == 3
    assert "99" in ended.err or "CUDA" in ended.err


def test_more_axes_than_a_record_has() -> None:
    reshaped = (
        'layer { name: "five" type: "Reshape" bottom: "data" top: "five" '
        "reshape_param { shape { dim: [0, 1, 2, 2, 4] } } }"
    )
    Path("net.prototxt").write_text(Path("joined.prototxt").read_text() + reshaped)
    asked = ("extract-features", "teacher.caffemodel", "net.prototxt", "five")
    ended = run(*asked, "a_lmdb", 1)
    assert (ended.code, "[too-many-axes]" in ended.err) == (1, True)
    assert ok(*asked, "a.npz", 1).out == "a.npz: 10 rows of five, 1x2x2x4, npz\n"


def test_a_full_disk_is_found_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(".")._replace(free=9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: full)
    ended = run("extract-features", *NET, "data", "a.npz", 1)
    assert (ended.code, "[disk-space]" in ended.err) == (1, True)


def test_nothing_is_left_beside_the_outputs() -> None:
    before = {path.name for path in Path().iterdir()}
    ok("extract-features", *NET, "data,label", "a.h5,b_lmdb", 1)
    assert {path.name for path in Path().iterdir()} - before == {"a.h5", "b_lmdb"}
