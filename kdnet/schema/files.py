"""Reading prototxt files: what can be wrong with a file before its text is read."""

from __future__ import annotations

import os
import re
from typing import NoReturn, TypeVar

from google.protobuf.message import Message

from kdnet.errors import Diagnostic, SchemaError, Span, fail, nearest
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema.forks import refuse_fork_fields
from kdnet.schema.reader import read_text
from kdnet.schema.sniff import BINARY_NET, describe_binary
from kdnet.schema.source import Document, Located
from kdnet.schema.upgrade import upgrade_net, upgrade_solver
from kdnet.schema.upgrades import snapshot_prefix_in

M = TypeVar("M", bound=Message)

# Ten thousand layers take 4 MB; what is larger was not written by hand.
LARGEST_TEXT_BYTES = 16 << 20
_HEAD_BYTES = 4096
# A string, which may hold a #, or a comment.
_COMMENT = re.compile(r"""("[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*')|\#[^\n]*""")
# Bytes that are not UTF-8, as surrogateescape decodes them.
_FOREIGN = re.compile("[\udc80-\udcff]")
_OTHER_TEXTS = (
    (
        "a pointer of Git LFS",
        re.compile(r"version https://git-lfs\.github\.com/spec/"),
        "git lfs pull fetches the file that it stands for",
    ),
    (
        "a web page (HTML)",
        re.compile(r"\s*<(!doctype\s+html|html)\b", re.IGNORECASE),
        "download the file itself: the raw file of a repository",
    ),
)


def read_prototxt(path: str | os.PathLike[str], message_type: type[M]) -> Located[M]:
    """Read a message from a text file.

    Args:
        path: the file; diagnostics show it as it is given here.
        message_type: the generated class of the message.

    Raises:
        SchemaError: the file is missing, unreadable, no text, or has faults; all faults.
    """
    file = os.fspath(path)
    return read_text(_decode(_read_bytes(file), file), file, message_type)


def _read_bytes(file: str) -> bytes:
    try:
        with open(file, "rb") as stream:
            data = stream.read(_HEAD_BYTES)
            if b"\0" not in data:
                data += stream.read(LARGEST_TEXT_BYTES + 1 - len(data))
    except FileNotFoundError:
        _missing(file)
    except IsADirectoryError:
        _directory(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        fail(SchemaError, "unreadable-file", f'cannot read "{file}": {reason}')
    if len(data) > LARGEST_TEXT_BYTES:
        limit = LARGEST_TEXT_BYTES >> 20
        fail(SchemaError, "file-too-large", f'"{file}" is larger than {limit} MiB')
    return data


def _missing(file: str) -> NoReturn:
    folder, name = os.path.split(file)
    near = nearest(name, _names(folder))
    help_lines: tuple[str, ...] = ()
    if folder and not os.path.isdir(folder):
        help_lines = (f'there is no folder "{folder}"',)
    elif near:
        help_lines = (f'did you mean "{os.path.join(folder, near)}"?',)
    fail(SchemaError, "file-not-found", f'there is no file "{file}"', help=help_lines)


def _directory(file: str) -> NoReturn:
    inside = sorted(name for name in _names(file) if name.endswith(".prototxt"))[:5]
    help_lines = (f"it holds {', '.join(inside)}",) if inside else ()
    fail(SchemaError, "not-a-file", f'"{file}" is a folder, not a prototxt', help=help_lines)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")
    except OSError:
        return []


def _decode(data: bytes, file: str) -> str:
    nul = data.find(b"\0")
    if nul >= 0:
        raise _not_text(data, file, nul, "a NUL character")
    text = data.decode(errors="surrogateescape")
    text, bad = _without_foreign_letters(text)
    if bad is not None:
        what = f"byte 0x{data[bad]:02x} is not UTF-8"
        raise _not_text(data, file, bad, what)
    for kind, pattern, hint in _OTHER_TEXTS:
        if pattern.match(text):
            message = f'"{file}" is no prototxt: this looks like {kind}'
            fail(SchemaError, "not-a-text-file", message, help=(hint,))
    return text


def _without_foreign_letters(text: str) -> tuple[str, int | None]:
    """The text with bytes in comments that are not UTF-8 replaced, and the first one elsewhere."""
    if not _FOREIGN.search(text):
        return text, None
    spared = _COMMENT.sub(lambda found: found[1] or _FOREIGN.sub("\ufffd", found[0]), text)
    bad = _FOREIGN.search(spared)
    return spared, len(text[: bad.start()].encode(errors="surrogateescape")) if bad else None


def _not_text(data: bytes, file: str, bad: int, what: str) -> SchemaError:
    """Says what the file is where it can be told, else where its first bad byte is."""
    code = "not-a-text-file"
    kind = describe_binary(data[:_HEAD_BYTES])
    if kind in (None, BINARY_NET):
        refuse_fork_fields(_beginning(file), file)
    if kind:
        return SchemaError(Diagnostic(code, f'"{file}" is no prototxt: this looks like {kind}'))
    text = data[:bad].decode(errors="replace")
    at = Document(text, file).span(len(text), len(text))
    place = Span(file, at.line, at.column)
    help_lines = ("a prototxt is text in UTF-8",)
    return SchemaError(Diagnostic(code, f"the file is no text: {what}", place, help=help_lines))


def _beginning(file: str) -> bytes:
    """As much of a binary file as a net without weights has."""
    with open(file, "rb") as stream:
        return stream.read(LARGEST_TEXT_BYTES)


def read_net(path: str | os.PathLike[str]) -> Located[pb.NetParameter]:
    """Read a net in any of Caffe's formats, upgraded to today's.

    Raises:
        SchemaError: as :func:`read_prototxt` and ``upgrade_net``.
    """
    located = read_prototxt(path, pb.NetParameter)
    return Located(*upgrade_net(located.message, located.source))


def read_solver(path: str | os.PathLike[str]) -> Located[pb.SolverParameter]:
    """Read a solver, upgraded to today's format.

    A snapshot_prefix that names a folder, by a slash at its end or by being one, gets the
    solver file's name without its extension appended, as in Caffe.

    Raises:
        SchemaError: as :func:`read_prototxt` and ``upgrade_solver``.
    """
    located = read_prototxt(path, pb.SolverParameter)
    solver, source = upgrade_solver(located.message, located.source)
    prefix = snapshot_prefix_in(solver.snapshot_prefix, os.fspath(path))
    if prefix != solver.snapshot_prefix:
        solver.snapshot_prefix = prefix
    return Located(solver, source)
