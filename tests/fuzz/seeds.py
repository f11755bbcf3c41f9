"""Valid files of every format, for mutations to begin with."""

from __future__ import annotations

import functools
from pathlib import Path
from tempfile import TemporaryDirectory

from tables.formats import CASES

from kdnet.weights.registry import registered_formats

# Beside the readers: renaming walks a binary NetParameter by itself.
RENAME = "rename"


def readers() -> tuple[str, ...]:
    """Everything that can be fuzzed."""
    return (*sorted(found.name for found in registered_formats()), RENAME)


@functools.cache
def _files(reader: str) -> tuple[tuple[bytes, ...], dict[str, bytes]]:
    """The valid files for a reader, and what lies beside them, by name."""
    name = "caffemodel" if reader == RENAME else reader
    found, beside = [], {}
    for case in CASES:
        if case.format != name:
            continue
        with TemporaryDirectory() as folder:
            path = Path(folder) / "seed"
            case.build(path)
            found.append(path.read_bytes())
            path.unlink()
            beside |= {one.name: one.read_bytes() for one in Path(folder).iterdir()}
    assert found, f"no file of {name} to begin with"
    return tuple(found), beside


def seeds(reader: str) -> tuple[bytes, ...]:
    """The content of each valid file for one reader: the rows of the table."""
    return _files(reader)[0]


def place_beside(reader: str, folder: Path) -> None:
    """Put the files into ``folder`` that some of the valid files name."""
    for name, content in _files(reader)[1].items():
        (folder / name).write_bytes(content)
