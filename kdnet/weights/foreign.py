"""What a file that is no weight file looks like, so that the message can say it."""

from __future__ import annotations

import contextlib

from kdnet.weights.files import zip_names
from kdnet.weights.wire import VARINT, Field, WireError, fields

# The pickle of the number with which such a checkpoint begins.
_OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
# (offset, bytes there, what such a file is)
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer, whose file was not downloaded"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x93NUMPY", "a single NumPy array (.npy)"),
    (0, _OLD_TORCH, "a PyTorch checkpoint of the format before 1.6; save it again with PyTorch"),
    (0, b"\x80\x02", "a Python pickle; kdnet never unpickles"),
    (0, b"\x80\x03", "a Python pickle; kdnet never unpickles"),
    (0, b"\x80\x04", "a Python pickle; kdnet never unpickles"),
    (0, b"\x80\x05", "a Python pickle; kdnet never unpickles"),
    (0, b"GGUF", "a GGUF file"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (16, b"\xde\xc0\xef\xbe", "an LMDB database"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x7fELF", "a program"),
)
_ZIP = b"PK\x03\x04"
_PROTOTXT_WORDS = (b"layer", b"name:", b"net:", b"base_lr", b"input:", b"train_net")


def describe(path: str, head: bytes) -> str | None:
    """What the file with these first bytes is, or None when nothing foreign is known of it."""
    if not head:
        return "an empty file"
    if not any(head):
        return "nothing but zero bytes"
    for offset, signature, what in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return what
    if head.startswith(_ZIP):
        return _describe_zip(path)
    return _describe_text(head) or _describe_message(head)


def _describe_zip(path: str) -> str:
    names = zip_names(path)
    if names is None:
        return "a zip archive that is cut short or damaged"
    if any(name.endswith(".weights.h5") for name in names):
        return "a Keras archive (.keras); save its weights with model.save_weights"
    return "a zip archive"


def _describe_text(head: bytes) -> str | None:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return None
        text = head[: error.start].decode()
    if not all(letter.isprintable() or letter in "\r\n\t\f" for letter in text):
        return None
    start = text.lstrip("\ufeff \r\n\t").lower()
    if start.startswith(("<!doctype", "<html", "<?xml")):
        return "a web page, as a download that failed leaves it"
    if any(word in head for word in _PROTOTXT_WORDS):
        return "a net or solver definition in text form (.prototxt), which holds no weights"
    return "a text file"


def _describe_message(head: bytes) -> str | None:
    """Other protobuf messages, whose field 1 is a number where a net has its name."""
    found: list[Field] = []
    # The head ends inside a field, as it must for a large file.
    with contextlib.suppress(WireError):
        found.extend(fields(head, 0, len(head)))
    if not found or (found[0].number, found[0].wire) != (1, VARINT):
        return None
    second = found[1] if len(found) > 1 else found[0]
    if (second.number, second.wire) == (2, VARINT):
        return "a single blob, such as a mean file (.binaryproto)"
    return "a protobuf message of another kind, such as an ONNX model"
