"""Files as kdnet opens them: written whole or not at all, and read without a second copy."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from kdnet.errors import WeightsError, did_you_mean, fail

Buffer = bytes | mmap.mmap

# Below this size one read is cheaper than mapping pages.
_MAP_FROM_BYTES = 1 << 20


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` only when the block ends without a fault.

    The bytes go to a temporary file in the same folder, which is flushed to the disk before it is
    renamed over ``path``; the rename itself is flushed too. Whatever ends the block early, an
    exception, Ctrl-C or a full disk, leaves the old file whole and no temporary file behind. A
    symbolic link stays a link: the file that it names is replaced. The old file's permissions are
    kept.

    Raises:
        WeightsError: ``cannot-write``: no such folder, no permission, no space, or ``path`` is
            there and is not an ordinary file.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".kdnet-{os.urandom(6).hex()}.tmp")
    try:
        mode = _check_target(target)
        with _remove_on_failure(temporary):
            with temporary.open("xb") as file:
                if mode is not None:
                    temporary.chmod(mode)
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        _flush_folder(target.parent)
    except OSError as error:
        # A fault of another file, such as one copied from, carries that file's name.
        if error.filename not in (None, str(temporary), str(target), str(target.parent)):
            raise
        _cannot_write(path, error.strerror or str(error))


def _check_target(target: Path) -> int | None:
    """The permission bits to keep, or None for a new file; raises OSError if it may not be."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise OSError(0, "it is a folder", str(target))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "it is not an ordinary file", str(target))
    if not os.access(target, os.W_OK):
        raise OSError(0, "it is write-protected", str(target))
    return stat.S_IMODE(found.st_mode)


@contextlib.contextmanager
def _remove_on_failure(temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _flush_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut; Windows cannot open a folder to do it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: str | os.PathLike[str], reason: str) -> NoReturn:
    parent = Path(path).parent
    advice = () if parent.is_dir() else (f'create the folder "{parent}" first',)
    fail(WeightsError, "cannot-write", f'cannot write "{path}": {reason}', help=advice)


def check_readable(path: str) -> int:
    """The size in bytes of an ordinary, readable file.

    Raises:
        WeightsError: ``missing-weights`` (the nearest existing path is named) or
            ``unreadable-weights`` (a folder, a device, no permission).
    """
    try:
        found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        fail(
            WeightsError,
            "missing-weights",
            f'there is no weight file "{path}"',
            help=_nearest_path(path),
        )
    except (OSError, ValueError) as error:
        _unreadable(path, str(getattr(error, "strerror", None) or error))
    if stat.S_ISDIR(found.st_mode):
        _unreadable(path, "it is a folder", help=_weights_inside(Path(path)))
    if not stat.S_ISREG(found.st_mode):
        _unreadable(path, "it is not an ordinary file")
    return found.st_size


def open_buffer(path: str) -> Buffer:
    """The bytes of a file: read when small, mapped when large, so that nothing is held twice.

    A mapping is let go with its last reference; whoever keeps numbers copies them out.

    Raises:
        WeightsError: as :func:`check_readable`.
    """
    size_bytes = check_readable(path)
    try:
        with Path(path).open("rb") as file:
            if size_bytes < _MAP_FROM_BYTES:
                return file.read()
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        _unreadable(path, error.strerror or str(error))


def let_go(data: Buffer, size_bytes: int) -> None:
    """Give back the memory that ``size_bytes`` just read from a mapping take; the file has them.

    A file of any size then passes through in the memory of its largest array.
    """
    if size_bytes >= _MAP_FROM_BYTES and isinstance(data, mmap.mmap) and os.name != "nt":
        data.madvise(mmap.MADV_DONTNEED)


def _unreadable(path: str, reason: str, **more: object) -> NoReturn:
    fail(
        WeightsError, "unreadable-weights", f'cannot read weights from "{path}": {reason}', **more
    )


def _nearest_path(path: str) -> tuple[str, ...]:
    """Advice naming a like-named file in the folder, else the folder that is there."""
    wanted = Path(path)
    if not wanted.parent.is_dir():
        existing = next((p for p in wanted.parents if p.is_dir()), Path())
        return (f'the folder "{wanted.parent}" does not exist; "{existing}" does',)
    with contextlib.suppress(OSError):
        siblings = {entry.name for entry in wanted.parent.iterdir() if entry.is_file()}
        prefix = path[: len(path) - len(wanted.name)]
        return did_you_mean(path, (prefix + name for name in siblings))
    return ()


def _weights_inside(folder: Path) -> tuple[str, ...]:
    endings = (".caffemodel", ".bin", ".h5", ".npz", ".onnx", ".pt", ".pth", ".safetensors")
    with contextlib.suppress(OSError):
        found = sorted(p for p in folder.iterdir() if p.suffix in endings)
        return tuple(f'it contains "{p}"' for p in found[:3])
    return ()


def check_memory(path: str, size_bytes: int) -> None:
    """Refuse a blob that this machine's memory cannot hold, before any is taken.

    Raises:
        WeightsError: ``weights-too-large``.
    """
    try:
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return
    if size_bytes > memory_bytes:
        fail(
            WeightsError,
            "weights-too-large",
            f'"{path}": a blob takes {size_bytes / 2**30:.1f} GiB, more than the '
            f"{memory_bytes / 2**30:.1f} GiB of this machine",
        )


def zip_names(path: str) -> list[str] | None:
    """The names in a zip archive, or None when it is no whole zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # a damaged directory raises half a dozen kinds, struct.error among them
        return None
