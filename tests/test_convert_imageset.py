"""kdnet data convert-imageset: records as Caffe's tool writes them, from its own arguments."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image
from tables.sources import COUNT, LABELS, LMDB, NO_LEVELDB, PIXELS, layer_of, png, write_images

from kdnet.cli import main
from kdnet.data import open_source
from kdnet.data.image import decode, resize
from kdnet.schema import kdnet_pb2 as pb

ROWS = [f"an image{row}.png" for row in range(COUNT)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_images(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["data", "convert-imageset", *words])
    out, err = capsys.readouterr()
    return status, out, err


def records(path: str) -> dict[bytes, bytes]:
    environment = lmdb.open(path, readonly=True, lock=False)
    with environment, environment.begin() as transaction:
        return dict(transaction.cursor())


def written(path: str) -> list[pb.Datum]:
    return [pb.Datum.FromString(value) for value in records(path).values()]


def test_records_are_those_of_caffe_s_tool_byte_for_byte(here: Path, capsys):
    assert run(capsys, "./", "list.txt", "db") == (0, "db: 10 images, 3 x 6 x 5\n", "")
    found = records("db")
    assert list(found) == [f"{row:08}_{name}".encode() for row, name in enumerate(ROWS)]
    # Fields 1 to 3 are the shape, 4 the pixels, 5 the label; 7, encoded, is written though false.
    wanted = b"\x08\x03\x10\x06\x18\x05\x22\x5a" + PIXELS[1].tobytes() + b"\x28\x01\x38\x00"
    assert found[b"00000001_an image1.png"] == wanted
    large = found[b"00000009_an image9.png"]
    assert large.endswith(b"\x28\xf0\xa2\x04\x38\x00")
    with open_source(layer_of(LMDB, here), seed=0) as source:
        np.testing.assert_array_equal(source.batch(0)[0], PIXELS[:4])
        np.testing.assert_array_equal(source.batch(0)[1], LABELS[:4])


@pytest.mark.parametrize(
    "words",
    [
        ["--gray", "--resize-height", "9", "--resize-width", "4"],
        ["-gray", "-resize_height=9", "-resize_width=4"],
        ["--gray=true", "--resize_height", "9", "--resize_width=4", "-logtostderr"],
        ["-noshuffle", "-gray=1", "--resize-height=9", "-resize_width", "4", "-backend", "lmdb"],
    ],
)
def test_flags_are_read_in_every_spelling(words: list[str], capsys):
    assert run(capsys, *words, "./", "list.txt", "db") == (0, "db: 10 images, 1 x 9 x 4\n", "")
    for row, datum in enumerate(written("db")):
        wanted = resize(decode(png(PIXELS[row]), 1), 9, 4)
        assert datum.data == wanted.tobytes()


@pytest.mark.parametrize("off", ["--nogray", "-gray=false", "--gray=0"])
def test_a_switch_is_turned_off_as_gflags_do(off: str, capsys):
    assert run(capsys, "--gray", off, "./", "list.txt", "db")[1] == "db: 10 images, 3 x 6 x 5\n"


def test_encoded_files_are_stored_as_they_are(capsys):
    assert run(capsys, "--encoded", "--check_size", "./", "list.txt", "db")[0] == 0
    for row, datum in enumerate(written("db")):
        assert datum == pb.Datum(data=png(PIXELS[row]), label=int(LABELS[row]), encoded=True)


@pytest.mark.parametrize(
    "words",
    [["--encoded", "--resize-height", "9", "--resize-width", "4"], ["--encode-type", "BMP"]],
    ids=["resized", "another-type"],
)
def test_files_are_encoded_anew_where_something_is_done_to_them(words, capsys):
    assert run(capsys, *words, "./", "list.txt", "db")[0] == 0
    size = (9, 4) if "9" in words else (6, 5)
    for row, datum in enumerate(written("db")):
        assert datum.encoded
        assert datum.data.startswith(b"BM" if "BMP" in words else b"\x89PNG")
        np.testing.assert_array_equal(decode(datum.data), resize(PIXELS[row], *size))


def test_a_root_is_put_before_each_path_as_it_is(here: Path, capsys):
    lines = (here / "list.txt").read_text().replace("an image", "")
    (here / "short.txt").write_text(lines)
    assert run(capsys, "./an image", "short.txt", "db")[0] == 0
    assert list(records("db"))[3] == b"00000003_3.png"


def test_a_shuffled_list_has_every_image_once_and_new_numbers(capsys):
    orders = []
    for seed in ("0", "0", "1"):
        status, *_ = run(capsys, "-shuffle", "--seed", seed, "--force", "./", "list.txt", "db")
        assert status == 0
        keys = [key.decode() for key in records("db")]
        assert [key[:8] for key in keys] == [f"{row:08}" for row in range(COUNT)]
        assert sorted(key[9:] for key in keys) == ROWS
        orders.append(keys)
    assert orders[0] == orders[1] != orders[2]


def test_what_cannot_be_read_is_left_out_with_its_number_and_said(here: Path, capsys):
    (here / "an image1.png").unlink()
    (here / "an image2.png").write_bytes(b"no image")
    status, out, err = run(capsys, "./", "list.txt", "db")
    assert (status, out) == (0, "db: 8 images, 2 left out, 3 x 6 x 5\n")
    assert err.splitlines()[0] == (
        'list.txt:2:1: warning: "./an image1.png" does not exist [missing-image]'
    )
    assert '"an image2.png" cannot be decoded as an image: ' in err
    assert [int(key[:8]) for key in records("db")] == [0, *range(3, 10)]


def test_many_warnings_are_counted(here: Path, capsys):
    more = "".join(f"gone{row}.png 1\n" for row in range(30))
    (here / "list.txt").write_text((here / "list.txt").read_text() + more)
    err = run(capsys, "./", "list.txt", "db")[2]
    assert err.count("warning:") == 20
    assert err.endswith("note: 10 more not shown\n")


def test_sizes_may_differ_unless_they_are_to_be_checked(here: Path, capsys):
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(here / "an image4.png")
    status, _, err = run(capsys, "--check-size", "./", "list.txt", "db")
    assert status == 1
    assert err.splitlines()[0] == (
        'list.txt:5:1: error: "an image4.png" has shape (3, 3, 4); the first has (3, 6, 5) '
        "[image-shape]"
    )
    assert not (here / "db").exists()
    assert run(capsys, "./", "list.txt", "db")[0] == 0
    assert [datum.height for datum in written("db")][3:6] == [6, 3, 6]


def test_names_that_are_no_utf8_stay_what_they_are(here: Path, capsys):
    name = b"\xe9t\xe9.png"
    Path(name.decode("utf-8", "surrogateescape")).write_bytes(png(PIXELS[3]))
    (here / "list.txt").write_bytes(name + b" 4\r\n")
    assert run(capsys, "./", "list.txt", "db")[0] == 0
    assert list(records("db")) == [b"00000000_" + name]


def test_a_leveldb_holds_the_same_records(capsys):
    plyvel = pytest.importorskip("plyvel", reason=NO_LEVELDB)
    for backend in ("lmdb", "leveldb"):
        assert run(capsys, f"-backend={backend}", "./", "list.txt", backend)[0] == 0
    with plyvel.DB("leveldb") as database:
        assert dict(database) == records("lmdb")
    assert run(capsys, "-backend=leveldb", "./", "list.txt", "leveldb")[0] == 1
    assert run(capsys, "-backend=leveldb", "--force", "./", "list.txt", "leveldb")[0] == 0
    assert main(["data", "compute-mean", "leveldb", "-backend", "leveldb"]) == 0


FAULTS = {
    "encoding": (
        ["--encode-type", "gif", "./", "list.txt", "db"],
        'error: images cannot be encoded as "gif" [unknown-encoding]',
    ),
    "exists": (["./", "list.txt", "."], 'error: "." exists already [target-exists]'),
    "list": (["./", "lost.txt", "db"], 'error: "lost.txt" is not a file [missing-collection]'),
    "none": (
        ["nowhere", "list.txt", "db"],
        'error: no image that "list.txt" lists can be read [no-image]\n'
        'help: "nowhere" is put before each path as it is; folders end with "/"',
    ),
    "one-side": (
        ["--resize_width=3", "./", "list.txt", "db"],
        "error: --resize-height and --resize-width must be given together [resize-one-side]\n"
        "help: with one of them Caffe keeps the size without a word",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_and_leaves_no_database(name: str, here: Path, capsys):
    words, text = FAULTS[name]
    status, out, err = run(capsys, *words)
    assert (status, out) == (2 if name == "one-side" else 1, "")
    assert text in err
    assert not (here / "db").exists()
    assert not list(here.glob(".db*"))


def test_the_mean_has_caffe_s_names_and_needs_no_file(capsys):
    assert run(capsys, "./", "list.txt", "db")[0] == 0
    said = set()
    for name in ("mean", "compute-mean", "compute-image-mean", "compute_image_mean"):
        assert main(["data", name, "db", "-backend=lmdb"]) == 0
        said.add(capsys.readouterr().out)
    means = " ".join(f"mean_value: {value:.6g}" for value in PIXELS.mean(axis=(0, 2, 3)))
    assert said == {f"db: mean of 10 images, 3 x 6 x 5; {means}\n"}
