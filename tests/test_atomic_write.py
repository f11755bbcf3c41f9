"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tables.formats import SAMPLE

from kdnet.errors import WeightsError
from kdnet.weights import LayerBlobs, atomic_write, write_caffemodel


def write_fault(path: str | Path, content: bytes = b"new") -> str:
    with pytest.raises(WeightsError) as caught, atomic_write(path) as file:
        file.write(content)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "cannot-write"
    return str(caught.value)


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as file:
        file.write(b"new")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    assert (tmp_path / "a").read_bytes() == b"new"


def test_an_old_files_permissions_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with atomic_write(path) as file:
        file.write(b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_bytes() == b"new"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def _interrupted(path: Path, error: type[BaseException]) -> None:
    with atomic_write(path) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_the_block_leaves_the_old_file(
    error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(error):
        _interrupted(path, error)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_fault_of_another_file_is_not_blamed_on_this_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()


def test_the_file_appears_only_at_the_end(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as file:
        file.write(b"new")
        file.flush()
        assert not (tmp_path / "a").exists()


def test_folders_devices_and_missing_folders_are_refused(tmp_path: Path) -> None:
    assert "it is a folder" in write_fault(tmp_path)
    assert "it is not an ordinary file" in write_fault("/dev/null")
    text = write_fault(tmp_path / "no" / "a")
    assert f'create the folder "{tmp_path / "no"}" first' in text
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_write_protected_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o444)
    assert "write-protected" in write_fault(path)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 64 KiB; the write that tries fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_file_that_may_not_grow_leaves_the_old_one(tmp_path: Path) -> None:
    check_full(tmp_path, os.strerror(errno.EFBIG))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        check_full(disk, os.strerror(errno.ENOSPC))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def check_full(folder: Path, reason: str) -> None:
    path = folder / "a.caffemodel"
    write_caffemodel(str(path), SAMPLE)
    before = path.read_bytes()
    large = LayerBlobs("fc", "InnerProduct", (np.zeros(1 << 16, np.float32),))
    with pytest.raises(WeightsError) as caught:
        write_caffemodel(str(path), [large])
    assert str(caught.value) == f'error: cannot write "{path}": {reason} [cannot-write]'
    assert path.read_bytes() == before
    assert os.listdir(folder) == ["a.caffemodel"]
