"""LevelDB databases: read at any row, shared in a process, refused where they cannot be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tables.sources import COUNT, LABELS, LMDB, NO_LEVELDB, PIXELS, layer_of, leveldb

from kdnet.data import leveldb_reader, open_source
from kdnet.data.leveldb_reader import LevelDatabase
from kdnet.errors import DataError

plyvel = pytest.importorskip("plyvel", reason=NO_LEVELDB)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    leveldb(range(COUNT))(tmp_path)
    return tmp_path


def test_any_row_is_reached_from_any_other(folder: Path, monkeypatch):
    monkeypatch.setattr(leveldb_reader, "_MARK_EVERY", 3)
    database = LevelDatabase(folder / "db")
    assert database.count == COUNT
    rows = np.random.default_rng(1).integers(0, COUNT, 60).tolist()
    assert [database.record(row)[0] for row in rows] == [b"%08d" % row for row in rows]
    database.close()


def test_one_process_opens_it_as_often_as_it_likes(folder: Path):
    first, second = (LevelDatabase(folder / "db") for _ in range(2))
    assert first.record(3) == second.record(3)
    first.close()
    assert second.record(4)[0] == b"00000004"
    second.close()
    LevelDatabase(folder / "db").close()


def test_a_fault_leaves_it_closed(folder: Path):
    with pytest.raises(DataError):
        open_source(layer_of(LMDB + "transform_param { crop_size: 9 }", folder), seed=0)
    plyvel.DB(str(folder / "db")).close()


HOLDER = """
import plyvel, sys
database = plyvel.DB(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
"""


def test_another_process_that_has_it_open_is_told_of(folder: Path):
    command = [sys.executable, "-c", HOLDER, folder / "db"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline().strip() == b"open"
        with pytest.raises(DataError) as caught:
            open_source(layer_of(LMDB, folder), seed=0)
        holder.communicate(b"\n")
    (found,) = caught.value.diagnostics
    assert found.code == "unreadable-database"
    assert found.help == ("another process has it open; an LMDB may be read by many",)
    with open_source(layer_of(LMDB, folder), seed=0) as source:
        np.testing.assert_array_equal(source.batch(0)[1], LABELS[:4])


def test_the_hash_is_that_of_the_records_and_not_of_the_files(folder: Path):
    database = LevelDatabase(folder / "db")
    before = database.contents()
    database.close()
    with plyvel.DB(str(folder / "db")) as made:
        made.compact_range()
    database = LevelDatabase(folder / "db")
    assert database.contents() == before
    database.close()
    with plyvel.DB(str(folder / "db")) as made:
        made.put(b"00000003", b"other")
    database = LevelDatabase(folder / "db")
    assert database.contents() != before
    database.close()


@pytest.mark.parametrize("backend", ["", "backend: LEVELDB", "backend: LMDB"])
def test_only_a_backend_that_the_folder_is_not_is_noted(backend: str, folder: Path):
    text = LMDB.replace("backend: LMDB", backend)
    with open_source(layer_of(text, folder), seed=0) as source:
        np.testing.assert_array_equal(source.batch(0)[0], PIXELS[:4])
        codes = [note.code for note in source.notes]
    assert codes == (["backend-mismatch"] if "LMDB" in backend else [])


def test_a_missing_package_is_named(folder: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plyvel", None)
    with pytest.raises(DataError) as caught:
        open_source(layer_of(LMDB, folder), seed=0)
    (found,) = caught.value.diagnostics
    assert found.code == "missing-package"
    assert found.span is not None
    assert found.help == ("pip install plyvel",)
