"""Damage to files: bytes, numbers, pieces, and what containers hold.

Every mutation is made by a ``random.Random``, so that a number stands for an input.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Sequence

_NUMBERS = (0, 1, 2, 7, 31, 32, 33, 63, 64, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000)
_LARGE = (2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_WORDS = (
    b"../../etc/passwd", b"/dev/zero", b"\x00" * 40, b"\xff" * 40, b"-1", b"1e999", b"NaN",
    b"[" * 300, b'{"a":' * 100, b"c__builtin__\neval\n", b"cos\nsystem\n", b".", b"data/",
)  # fmt: skip
# A file does not grow beyond this: what it makes a reader do must come from what it says.
LARGEST = 1 << 16

Mutation = Callable[[random.Random, bytearray], None]


def _place(rng: random.Random, data: bytearray) -> int:
    """A position, as often in the first 256 bytes, where most structure is, as anywhere."""
    end = len(data) if rng.random() < 0.5 else min(256, len(data))
    return rng.randrange(end + 1)


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(1 << rng.randrange(4)):
        if data:
            at = min(_place(rng, data), len(data) - 1)
            data[at] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, data: bytearray) -> None:
    at = _place(rng, data)
    if rng.random() < 0.3:
        word = rng.choice(_WORDS)
    else:
        width = rng.choice("BHIQ")
        value = rng.choice(_NUMBERS + _LARGE) % (1 << (8 * struct.calcsize(width)))
        word = struct.pack(rng.choice("<>") + width, value)
    data[at : at + len(word)] = word


def _varint(rng: random.Random, data: bytearray) -> None:
    value, groups = rng.choice(_NUMBERS + _LARGE), []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    at = _place(rng, data)
    data[at : at + rng.randrange(3)] = bytes([*groups, value])


def _insert(rng: random.Random, data: bytearray) -> None:
    at = _place(rng, data)
    data[at:at] = rng.choice(_WORDS) if rng.random() < 0.5 else rng.randbytes(rng.randrange(1, 9))


def _delete(rng: random.Random, data: bytearray) -> None:
    at = _place(rng, data)
    del data[at : at + (1 << rng.randrange(8))]


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[_place(rng, data) :]


def _repeat(rng: random.Random, data: bytearray) -> None:
    start = _place(rng, data)
    piece = bytes(data[start : start + (1 << rng.randrange(10))])
    at = _place(rng, data)
    data[at:at] = piece * rng.choice((1, 2, 10))


def _move(rng: random.Random, data: bytearray) -> None:
    start = _place(rng, data)
    piece = bytes(data[start : start + (1 << rng.randrange(8))])
    del data[start : start + len(piece)]
    at = _place(rng, data)
    data[at:at] = piece


MUTATIONS: Sequence[Mutation] = (
    _flip, _overwrite, _overwrite, _varint, _varint, _insert, _delete, _cut, _repeat, _move,
)  # fmt: skip


def damage(rng: random.Random, content: bytes) -> bytes:
    """The content after a few mutations, mostly one: most damage ends the reading at once."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4, 8))):
        rng.choice(MUTATIONS)(rng, data)
    return bytes(data[:LARGEST])


def mutate(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A damaged file; of a container now and then only what it holds, so that checksums hold."""
    content = rng.choice(seeds)
    if rng.random() < 0.05:
        other = rng.choice(seeds)
        content = content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]
    if content.startswith(b"PK") and rng.random() < 0.7:
        content = _in_zip(rng, content)
        return content if rng.random() < 0.8 else damage(rng, content)
    if content[8:9] == b"{" and rng.random() < 0.7:
        return _in_header(rng, content)
    return damage(rng, content)


def _in_zip(rng: random.Random, content: bytes) -> bytes:
    """A zip archive with members damaged, renamed, dropped or doubled, and right checksums."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return damage(rng, content)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(members))
        name, data = members[at]
        kind = rng.randrange(8)
        if kind == 0:
            name = damage(rng, name.encode()).decode("latin-1")[:1000] or "x"
        elif kind == 1 and len(members) > 1:
            del members[at]
            continue
        elif kind == 2:
            members.append((rng.choice(members)[0], data))
        else:
            data = damage(rng, data)
        members[at] = (name, data)
    made = io.BytesIO()
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(made, "w", kind) as archive:
        for name, data in members:
            # A name may come twice: zipfile would warn of it.
            archive.NameToInfo.clear()
            info = zipfile.ZipInfo(name)
            info.compress_type = kind
            archive.writestr(info, data)
    return made.getvalue()


def _in_header(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file with a damaged header whose length is right."""
    size = int.from_bytes(content[:8], "little")
    header, rest = content[8 : 8 + size], content[8 + size :]
    header = _in_json(rng, header) if rng.random() < 0.5 else damage(rng, header)
    return struct.pack("<Q", len(header)) + header + rest


def _in_json(rng: random.Random, text: bytes) -> bytes:
    """JSON with one value replaced by another kind of value."""
    try:
        found = json.loads(text)
    except ValueError:
        return damage(rng, text)
    holders: list[tuple[dict | list, object]] = []
    waiting = [found]
    while waiting:
        one = waiting.pop()
        keys = one.keys() if isinstance(one, dict) else range(len(one))
        holders += [(one, key) for key in keys]
        waiting += [one[key] for key in keys if isinstance(one[key], dict | list)]
    if holders:
        holder, key = rng.choice(holders)
        odd = (
            None,
            True,
            -1,
            0.5,
            2**63,
            1e308,
            "",
            "F32",
            [],
            {},
            [-1],
            [2**62, 2**62],
            "\ud800",
        )
        holder[key] = rng.choice((*odd, *_NUMBERS))  # type: ignore[index,call-overload]
    return json.dumps(found).encode()
