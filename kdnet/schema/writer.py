"""The canonical text of a message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from kdnet.schema.fields import Field, enum_name, fields_of

_ESCAPES = {
    ord("\n"): r"\n",
    ord("\r"): r"\r",
    ord("\t"): r"\t",
    ord('"'): r"\"",
    ord("\\"): r"\\",
}
_ESCAPES |= {code: f"\\{code:03o}" for code in (*range(32), 127) if code not in _ESCAPES}


def write_text(message: Message) -> str:
    """The message as a prototxt that reads back as the same message.

    Fields come in the order of the schema's declaration, which is the order people write them
    in; numbers are as short as they can be; a shape stands on one line. Fields that the schema
    does not know have no name and are left out.
    """
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    present = {field.name: value for field, value in message.ListFields()}
    for field in fields_of(message.DESCRIPTOR).values():
        if field.name in present:
            value = present[field.name]
            for one in value if field.repeated else (value,):
                yield from _field(field, one)


def _field(field: Field, value: Any) -> Iterator[str]:
    if field.message is None:
        yield f"{field.name}: {_scalar(field, value)}"
        return
    inner = list(_lines(value))
    if field.message.name == "BlobShape" or not inner:
        yield " ".join([field.name, "{", *inner, "}"])
        return
    yield f"{field.name} {{"
    yield from (f"  {line}" for line in inner)
    yield "}"


def _scalar(field: Field, value: Any) -> str:
    if field.enum is not None:
        return enum_name(field.enum, value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPES)}"'
    if isinstance(value, bytes):
        return _bytes(value)
    if field.type == FieldDescriptor.TYPE_FLOAT:
        value = float(str(np.float32(value)))
    return repr(value).removesuffix(".0")


def _bytes(value: bytes) -> str:
    letters = value.decode("latin-1").translate(_ESCAPES)
    return '"' + "".join(a if a < "\x80" else f"\\{ord(a):03o}" for a in letters) + '"'
