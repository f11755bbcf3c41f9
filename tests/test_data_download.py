"""Fetching published collections: by digest, from a folder or over a network."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdnet.cli import main
from kdnet.data import download
from kdnet.data.download import PUBLISHED, Collection, RemoteFile, obtain
from kdnet.errors import DataError

PLAIN = bytes(range(256)) * 40
OTHER = b"some archive"


def remote(name: str, content: bytes) -> RemoteFile:
    return RemoteFile(name, hashlib.sha256(content).hexdigest(), len(content), len(content))


FILES = (remote("a-ubyte.gz", PLAIN), remote("b.tar.gz", OTHER))


def collection(base: str = "http://127.0.0.1:9/") -> Collection:
    return Collection(base, FILES)


def write_published(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "a-ubyte.gz").write_bytes(gzip.compress(PLAIN))
    (folder / "b.tar.gz").write_bytes(OTHER)


@pytest.fixture
def served(tmp_path: Path, monkeypatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the address on this machine where its files are."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    write_published(folder)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *more: object) -> None:
            super().__init__(*more, directory=str(folder))

        def log_message(self, *_more: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def code_of(caught: pytest.ExceptionInfo[DataError]) -> str:
    (found,) = caught.value.diagnostics
    return found.code


def test_files_are_fetched_checked_and_not_fetched_again(served, tmp_path: Path):
    folder, base = served
    steps: list[int] = []
    told: list[int] = []

    def start(total: int):
        told.append(total)
        return steps.append

    out = tmp_path / "new" / "out"
    assert obtain(collection(base), out, start=start) == [out / "a-ubyte.gz", out / "b.tar.gz"]
    for file in FILES:
        assert (out / file.name).read_bytes() == (folder / file.name).read_bytes()
    assert told == [len(PLAIN) + len(OTHER)]
    assert sum(steps) == sum((folder / file.name).stat().st_size for file in FILES)
    (folder / "a-ubyte.gz").unlink()
    assert len(obtain(collection(base), out)) == 2


@pytest.mark.parametrize(
    "content",
    [gzip.compress(PLAIN[:-1]), gzip.compress(PLAIN + b"x"), gzip.compress(PLAIN)[:-9], PLAIN[1:],
     bytes(3 * 2**20)],
    ids=["short", "long", "cut", "other", "huge"],
)  # fmt: skip
def test_wrong_content_is_refused_and_not_kept(content: bytes, served, tmp_path: Path):
    folder, base = served
    (folder / "a-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError) as caught:
        obtain(collection(base), tmp_path / "out")
    assert code_of(caught) == "wrong-content"
    assert os.listdir(tmp_path / "out") == []


def test_an_address_that_does_not_answer_is_told_with_what_else_helps(served, tmp_path: Path):
    folder, base = served
    (folder / "b.tar.gz").unlink()
    for address in (base, "http://127.0.0.1:9/"):
        with pytest.raises(DataError) as caught:
            obtain(collection(address), tmp_path / "out")
        assert code_of(caught) == "no-network"
        assert caught.value.diagnostics[0].help == (
            "give files that are already there with --from DIR",
        )
    assert os.listdir(tmp_path / "out") == ["a-ubyte.gz"]


def test_another_file_of_that_name_is_left_alone(tmp_path: Path):
    (tmp_path / "a-ubyte.gz").write_bytes(b"mine")
    with pytest.raises(DataError) as caught:
        obtain(collection(), tmp_path)
    assert code_of(caught) == "target-exists"
    assert (tmp_path / "a-ubyte.gz").read_bytes() == b"mine"


@pytest.mark.parametrize("pack", ["same", "again", "plain"])
def test_files_of_a_folder_are_taken_whatever_their_compression(pack: str, tmp_path: Path):
    source, out = tmp_path / "source", tmp_path / "out"
    write_published(source)
    if pack == "again":
        (source / "a-ubyte.gz").write_bytes(gzip.compress(PLAIN, 1, mtime=7))
    if pack == "plain":
        (source / "a-ubyte.gz").unlink()
        (source / "a-ubyte").write_bytes(PLAIN)
    obtain(collection(), out, source=source)
    assert gzip.decompress((out / "a-ubyte.gz").read_bytes()) == PLAIN
    assert (out / "b.tar.gz").read_bytes() == OTHER


def test_a_file_that_is_not_in_the_folder_is_named(tmp_path: Path):
    source = tmp_path / "source"
    write_published(source)
    (source / "a-ubyte.gz").rename(source / "a-ubite.gz")
    with pytest.raises(DataError) as caught:
        obtain(collection(), tmp_path / "out", source=source)
    assert str(caught.value) == (
        f'error: "{source / "a-ubyte.gz"}" does not exist [missing-file]\n'
        f'help: did you mean "{source / "a-ubite.gz"}"?'
    )
    assert os.listdir(tmp_path / "out") == []


def test_the_command_prints_the_files(tmp_path: Path, monkeypatch, capsys):
    write_published(tmp_path / "source")
    monkeypatch.setitem(PUBLISHED, "mnist", collection())
    monkeypatch.chdir(tmp_path)
    assert main(["data", "download", "mnist", "--from", "source"]) == 0
    out = f"{Path('mnist', 'a-ubyte.gz')}\n{Path('mnist', 'b.tar.gz')}\n"
    assert capsys.readouterr().out == out
    assert main(["data", "download", "mnist", "none/../other", "--from", "sauce"]) == 1
    assert "[missing-file]" in capsys.readouterr().err


def test_the_published_collections_are_complete_and_fetched_by_a_safe_protocol():
    from kdnet.cli.data.download import COLLECTIONS

    assert sorted(PUBLISHED) == sorted(COLLECTIONS)
    for found in PUBLISHED.values():
        assert found.base.startswith("https://")
        assert found.base.endswith("/")
        digests = [file.sha256 for file in found.files]
        assert len(set(digests)) == len(digests)
        assert all(len(bytes.fromhex(digest)) == 32 for digest in digests)
    assert download.PUBLISHED["mnist"].files[0].size_bytes == 16 + 60_000 * 28 * 28
