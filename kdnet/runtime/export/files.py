"""Where an export goes, and how its files take their places together."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EISDIR
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from kdnet.errors import UsageError, WeightsError, fail

ENDINGS = (".prototxt", ".caffemodel", ".onnx")


def stems(output: str, names: Sequence[str], originals: Sequence[str]) -> list[Path]:
    """The path without its ending for each student.

    ``output`` is a folder if it is one or ends as one, and each student is named in it by its
    head; else it is the one student's own path.

    Args:
        output: what ``-o`` says.
        names: the students' heads as they are called in the export.
        originals: the heads as the net calls them, for names that would clash.

    Raises:
        UsageError: several-students, for one path and many students.
    """
    if output.endswith(("/", os.sep)) or Path(output).is_dir():
        own = [_file_name(name) for name in names]
        if max(Counter(own).values(), default=0) > 1:
            own = [f"{_file_name(name)}_{i}" for i, name in enumerate(originals, start=1)]
        return [Path(output) / name for name in own]
    if len(names) > 1:
        told = ", ".join(f'"{name}"' for name in originals)
        text = f'"{output}" is the place of one student, and there are {len(names)}: {told}'
        hint = (f"choose one with --head, or name a folder: -o {output}/",)
        fail(UsageError, "several-students", text, help=hint)
    path = Path(output)
    return [path.with_suffix("") if path.suffix in ENDINGS else path]


def _file_name(head: str) -> str:
    return re.sub(r"[^\w.-]+", "_", head).strip("._") or "student"


@contextmanager
def staged(folder: Path) -> Iterator[Callable[[str], str]]:
    """Files that take their places in ``folder`` only when the block ends without a fault.

    The block gets a function from a file's name to the path where it is to be written meanwhile.

    Raises:
        WeightsError: cannot-write; unless it is the disk that fails while files are moved, what
            was there before stays whole.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".kdnet-", dir=folder) as made:
            yield lambda name: _reserve(folder, Path(made), name)
            for file in sorted(Path(made).iterdir()):
                file.replace(_target(folder / file.name))
            is_new = False
    except OSError as error:
        _cannot_write(str(folder), error.strerror or str(error))
    finally:
        if is_new:
            with suppress(OSError):
                folder.rmdir()


def _target(path: Path) -> Path:
    """A symbolic link stays a link: the file that it names is replaced."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _reserve(folder: Path, made: Path, name: str) -> str:
    if (folder / name).is_dir():
        _cannot_write(str(folder / name), os.strerror(EISDIR))
    return str(made / name)


def _cannot_write(path: str, reason: str) -> NoReturn:
    fail(WeightsError, "cannot-write", f'cannot write "{path}": {reason}')
