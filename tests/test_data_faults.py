"""What kdnet data refuses, and that nothing is lost or left behind when it does."""

from __future__ import annotations

import gzip
import io
import os
import re
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest
from tables.sources import PIXELS, database, datum, png, write_images, write_lmdb

from kdnet.cli import main
from kdnet.data.lmdb_writer import write_database

REPOSITORY = Path(__file__).parents[1]
GREY = np.arange(84, dtype=np.uint8).reshape(7, 4, 3)
CLASSES = np.arange(7)

Words = list[str]


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(f">2xBB{array.ndim}I", 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, prefix: str = "train") -> None:
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(GREY))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(CLASSES))


def idx_with(name: str, content: bytes) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        write_idx(folder)
        (folder / f"train-{name}-ubyte").write_bytes(content)

    return build


def both_parts(folder: Path) -> None:
    write_idx(folder)
    write_idx(folder, "test")


def made(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def archive(cut: int | None = None, size: int = 3073) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        with tarfile.open(folder / "c.tar.gz", "w:gz") as made:
            member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
            member.size = size
            made.addfile(member, io.BytesIO(bytes(size)))
        whole = (folder / "c.tar.gz").read_bytes()
        (folder / "c.tar.gz").write_bytes(whole[:cut])

    return build


def arrays(**found: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.savez(folder / "a.npz", **found)


def jpegs(offsets: list[int], content: bytes = b"") -> Callable[[Path], None]:
    whole = np.frombuffer(content, np.uint8)
    return arrays(jpeg=whole, offsets=np.array(offsets), labels=np.zeros(1, int))


def two_sizes(folder: Path) -> None:
    write_images(folder)
    (folder / "an image4.png").write_bytes(png(PIXELS[4][:, :3]))


def already(folder: Path) -> None:
    write_idx(folder)
    database()(folder)


def in_the_way(folder: Path) -> None:
    write_idx(folder)
    (folder / "db").mkdir()
    (folder / "db" / "thesis.txt").write_text("years of work")


FAULTS: dict[str, tuple[Callable[[Path], None], Words, str, str]] = {
    "archive-damaged": (
        archive(cut=60), ["c.tar.gz", "out", "--part", "train"],
        "unknown-collection", '"c.tar.gz": no known kind of images',
    ),
    "archive-parts": (
        archive(), ["c.tar.gz", "out"], "part-needed", '"c.tar.gz" has a train and a test part',
    ),
    "archive-size": (
        archive(size=3072), ["c.tar.gz", "out", "--part", "train"],
        "bad-collection", '"c.tar.gz": 3072 bytes are no whole number of 3073',
    ),
    "archive-test": (
        archive(), ["c.tar.gz", "out", "--part", "test"],
        "bad-collection", '"c.tar.gz": has no test_batch.bin',
    ),
    "array-count": (
        arrays(x=GREY, y=CLASSES[:2]), ["a.npz", "out"],
        "bad-collection", '"a.npz": labels are int64 (2,); they must be 7 whole numbers',
    ),
    "array-missing": (
        arrays(pictures=GREY, y=CLASSES), ["a.npz", "out"],
        "missing-array", '"a.npz" has no array "x"; it has pictures, y',
    ),
    "array-part": (
        arrays(x=GREY, y=CLASSES), ["a.npz", "out", "--part", "train"],
        "option-not-applicable", "--part does not apply to an archive of arrays",
    ),
    "array-resize": (
        arrays(x=GREY / 2, y=CLASSES), ["a.npz", "out", "--resize", "2", "2"],
        "option-not-applicable", "--resize does not apply to images of numbers",
    ),
    "array-shape": (
        arrays(x=GREY[0], y=CLASSES), ["a.npz", "out"],
        "bad-collection", '"a.npz": images are uint8 (4, 3)',
    ),
    "array-wide-labels": (
        arrays(x=GREY, y=CLASSES + 2**40), ["a.npz", "out"],
        "bad-collection", '"a.npz": labels do not fit 32 bits',
    ),
    "batch-label": (
        made("b.bin", b"\x0a" + bytes(3072)), ["b.bin", "out"],
        "bad-collection", '"b.bin": record 0 has label 10, not 0 to 9',
    ),
    "batch-size": (
        made("b.bin", b"abc"), ["b.bin", "out"],
        "bad-collection", '"b.bin": 3 bytes are no whole number of 3073',
    ),
    "idx-cut": (
        idx_with("images-idx3", gzip.compress(idx(GREY))[:60]), [".", "out"],
        "bad-collection", '"train-images-idx3-ubyte": is damaged at item ',
    ),
    "idx-foreign": (
        idx_with("labels-idx1", b"hello, world"), [".", "out"],
        "bad-collection", '"train-labels-idx1-ubyte": is no idx file of 1 axes of bytes',
    ),
    "idx-gray": (
        write_idx, [".", "out", "--gray"],
        "option-not-applicable", "--gray does not apply to idx files",
    ),
    "idx-header": (
        idx_with("images-idx3", idx(GREY)[:9]), [".", "out"],
        "bad-collection", '"train-images-idx3-ubyte": ends in its header',
    ),
    "idx-huge": (
        idx_with("images-idx3", struct.pack(">2xBB3I", 8, 3, 7, 2**31, 2**31)), [".", "out"],
        "bad-collection", '"train-images-idx3-ubyte": images of 2147483648 x 2147483648 pixels',
    ),
    "idx-labels": (
        idx_with("labels-idx1", idx(CLASSES[:3])), [".", "out"],
        "bad-collection", '"train-labels-idx1-ubyte": 3 labels for the 7 images of train-im',
    ),
    "idx-short": (
        idx_with("images-idx3", idx(GREY)[:-1]), [".", "out"],
        "bad-collection", '"train-images-idx3-ubyte": ends at item 6',
    ),
    "jpeg-damaged": (
        jpegs([0, 3], b"abc"), ["a.npz", "out"],
        "bad-collection", '"a.npz": image 0 cannot be decoded as an image: ',
    ),
    "jpeg-kinds": (
        jpegs([0]), ["a.npz", "out"],
        "bad-collection", '"a.npz": jpeg must be bytes and offsets whole numbers',
    ),
    "jpeg-offsets": (
        jpegs([0, 4], b"abc"), ["a.npz", "out"],
        "bad-collection", '"a.npz": offsets must rise from 0 to the size of jpeg',
    ),
    "list-missing": (
        made("list.txt", b"cat.png 1\n"), ["list.txt", "out"],
        "missing-image", '"cat.png" does not exist',
    ),
    "list-resize-encoded": (
        write_images, ["list.txt", "out", "--encoded", "--resize", "3", "3"],
        "resize-encoded", "--resize and --encoded exclude each other",
    ),
    "list-sizes": (
        two_sizes, ["list.txt", "out"],
        "image-shape", 'image 4 ("an image4.png") has shape (3, 3, 5); the first has (3, 6, 5)',
    ),
    "no-folder": (
        write_idx, [".", "none/db"],
        "cannot-write", 'cannot write "none/db": the folder does not exist',
    ),
    "no-source": (
        write_idx, ["trane-images-idx3-ubyte", "out"],
        "missing-collection", '"trane-images-idx3-ubyte" does not exist',
    ),
    "not-database": (
        in_the_way, [".", "db", "--force"],
        "target-not-database", '"db" is not a database, so it is not replaced',
    ),
    "parts": (both_parts, [".", "out"], "part-needed", '"." has a train and a test part'),
    "target": (already, [".", "db"], "target-exists", '"db" exists already'),
    "two-alike": (
        write_idx, ["train-images-idx3-ubyte", "train-images-idx3-ubyte", "out"],
        "unknown-collection", '"train-images-idx3-ubyte", "train-images-idx3-ubyte": no known',
    ),
    "unknown-file": (
        made("x", b"\0\1\2\3"), ["x", "out"], "unknown-collection", '"x": no known kind of images',
    ),
    "unknown-folder": (
        made("x", b"\0"), [".", "out"], "unknown-collection", '".": no known kind of images',
    ),
}  # fmt: skip


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("id", FAULTS)
def test_a_fault_is_told_and_nothing_is_changed(id, tmp_path, monkeypatch, capsys):
    build, words, code, message = FAULTS[id]
    build(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path)
    status = main(["data", "lmdb", *words])
    out, err = capsys.readouterr()
    assert (status, out) == (1, "")
    assert f"error: {message}" in err
    assert f"[{code}]" in err
    assert listing(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == sorted(
        {Path(name).relative_to(tmp_path).parts[0] for name in before}
    )


def test_only_a_database_is_replaced_and_only_by_force(tmp_path: Path, monkeypatch, capsys):
    already(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "lmdb", ".", "db", "--force"]) == 0
    assert capsys.readouterr().out == "db: 7 images, 1 x 4 x 3\n"
    with lmdb.open("db", readonly=True, lock=False) as environment:
        assert environment.stat()["entries"] == 7
    assert sorted(os.listdir()) == ["db", "train-images-idx3-ubyte", "train-labels-idx1-ubyte"]


def broken() -> Iterator[tuple[bytes, bytes]]:
    for row in range(1500):
        yield b"%08d" % row, bytes(100)
    raise KeyboardInterrupt


def test_an_interrupted_conversion_keeps_the_old_database(tmp_path: Path):
    database()(tmp_path)
    before = listing(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_database(tmp_path / "db", broken(), force=True)
    with pytest.raises(KeyboardInterrupt):
        write_database(tmp_path / "new", broken())
    assert listing(tmp_path) == before
    assert os.listdir(tmp_path) == ["db"]


def test_a_database_grows_past_its_first_map(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("kdnet.data.lmdb_writer._FIRST_MAP_BYTES", 2**16)
    rows = [(b"%08d" % row, bytes([row % 256]) * 2000) for row in range(2500)]
    assert write_database(tmp_path / "db", iter(rows)) == 2500
    with (
        lmdb.open(str(tmp_path / "db"), readonly=True) as environment,
        environment.begin() as view,
    ):
        assert list(view.cursor()) == rows


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from kdnet.data.lmdb_writer import write_database
from kdnet.errors import DataError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
rows = ((b"%08d" % row, bytes(1000)) for row in range(3000))
try:
    write_database(Path(sys.argv[1]), rows, force=True)
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_keeps_the_old_database(tmp_path: Path):
    database()(tmp_path)
    before = listing(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "db"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(f'error: cannot write "{tmp_path / "db"}": ')
    assert "[cannot-write]" in done.stdout
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"\xff\xff", "corrupt-record"),
        (datum(1, height=10, width=3).SerializeToString(), "record-shape"),
    ],
    ids=["corrupt", "shape"],
)
def test_a_mean_needs_whole_images_of_one_shape(value: bytes, code: str, tmp_path: Path, capsys):
    write_lmdb(tmp_path / "db", [datum(0).SerializeToString(), value])
    assert main(["data", "mean", str(tmp_path / "db"), str(tmp_path / "mean")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f'error: record 1 (key "00000001") of "{tmp_path / "db"}" ')
    assert f"[{code}]" in err
    assert os.listdir(tmp_path) == ["db"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["lmdb"],
        ["lmdb", "x"],
        ["download", "imagenet"],
        ["lmdb", "a", "b", "--resize", "0", "9"],
    ],
)
def test_a_wrong_command_line_is_a_usage_fault(words: Words, capsys):
    assert main(["data", *words]) == 2
    assert "[usage]" in capsys.readouterr().err


def test_every_fault_of_the_data_package_is_provoked_by_a_test():
    raised = re.compile(
        r'(?:fail\(\s*DataError,|refuse\(\s*(?:self\.)?layer,|remark\(\s*layer,)\s*"([a-z0-9-]+)"'
    )
    codes = {
        code
        for path in (REPOSITORY / "kdnet" / "data").rglob("*.py")
        for code in raised.findall(path.read_text())
    }
    assert len(codes) > 50
    tests = [*Path(__file__).parent.glob("test_*.py"), *Path(__file__).parent.glob("tables/*.py")]
    text = "\n".join(path.read_text() for path in tests)
    assert sorted(code for code in codes if not re.search(rf'["[]{code}["\]]', text)) == []
