"""A joined net as a file that a person reads and edits."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kdnet.net.join.build import Joined
from kdnet.net.join.model import Member, Placed
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import write_text

_WIDTH = 99
_FIELDS = 3
# A message without messages in it; a written text has no line breaks inside its strings.
_LEAF = re.compile(r"(?P<head> +\w+ \{)\n(?P<fields>(?: +\w+: .*\n)+) +\}\n")


def joined_text(joined: Joined, output: str, command: str, after: Sequence[str]) -> str:
    """The prototxt.

    Args:
        joined: The net.
        output: The file that it is for; paths of data that lie beside the nets are written as
            seen from its folder.
        command: The command that made it.
        after: What to do with it, a line each.
    """
    lines = ["Made by:", "", f"    {command}", ""]
    for member in joined.members:
        lines += _wrapped(_renames(member))
    if after:
        lines += ["", *after]
    parts = [_comment(lines), write_text(pb.NetParameter(name=joined.name))]
    for one in joined.layers:
        parts.append(_comment(_wrapped(one.comment)) if one.comment else "")
        parts.append(_compact(write_text(pb.NetParameter(layer=[_rebased(one, output)]))))
    return "".join(parts)


def _compact(text: str) -> str:
    """Short messages of numbers and words on one line, as people write them."""
    return _LEAF.sub(_on_one_line, text)


def _on_one_line(found: re.Match[str]) -> str:
    fields = [line.strip() for line in found["fields"].splitlines()]
    line = f"{found['head']} {' '.join(fields)} }}\n"
    return line if len(fields) <= _FIELDS and len(line) <= _WIDTH else found[0]


def _renames(member: Member) -> str:
    rules = ", ".join(member.rules)
    return f"{member.name}: {member.path}, its layers and blobs renamed by {rules}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH - 2, break_long_words=False, break_on_hyphens=False)


def _comment(lines: Sequence[str]) -> str:
    # A name with a line break in it must not end the comment.
    flat = [piece for line in lines for piece in line.splitlines() or [""]]
    return "".join(f"# {line}".rstrip() + "\n" for line in flat)


def _rebased(one: Placed, output: str) -> pb.LayerParameter:
    """The layer with paths that still lead to the files that its own net's file meant."""
    place = one.source.span(())
    message = pb.LayerParameter()
    message.CopyFrom(one.message)
    if place is None or Path(place.file).parent == Path(output).parent:
        return message
    for holder, name, value in _strings(message):
        beside = Path(place.file).parent / value
        if not Path(value).exists() and value and beside.exists():
            setattr(holder, name, os.path.relpath(beside, Path(output).parent))
    return message


def _strings(message: Any) -> Iterator[tuple[Any, str, str]]:
    """The texts among a layer's parameters: (message, field, text)."""
    for spec, value in message.ListFields():
        if spec.message_type is not None and hasattr(value, "ListFields"):
            for inner, text in value.ListFields():
                if isinstance(text, str):
                    yield value, inner.name, text
            yield from _strings(value)
