"""Safetensors: a length, a JSON header, and the arrays' bytes one after another.

Source: the format's description in the safetensors project.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from kdnet.errors import WeightsError, fail
from kdnet.weights.account import KEY
from kdnet.weights.files import Buffer, open_buffer
from kdnet.weights.model import Array
from kdnet.weights.registry import Stream, weight_format
from kdnet.weights.tensors import (
    Tensor,
    check_shape,
    corrupt,
    decode,
    little_endian,
    stream_of,
    unsupported,
)

_LENGTH_BYTES = 8
# Real headers take some 100 bytes an array; this is room for 10^5 of them.
_LONGEST_HEADER = 1 << 24
_AGAIN = "copy or download the file again"
_METADATA = "__metadata__"
_TYPES = {
    "BF16": "bfloat16",
    "BOOL": "bool",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    **{
        f"{sign}{bits}": f"{word}{bits}"
        for sign, word in (("I", "int"), ("U", "uint"))
        for bits in (8, 16, 32, 64)
    },
}
_CODES = {name: code for code, name in _TYPES.items()}


def _is_safetensors(_path: str, head: bytes) -> bool:
    if len(head) <= _LENGTH_BYTES or head[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{":
        return False
    # A text file may have its ninth letter there too: its first eight make a huge number.
    return int.from_bytes(head[:_LENGTH_BYTES], "little") < 1 << 40


def _write(
    file: BinaryIO, arrays: Iterable[tuple[str, Array]], account: Callable[[], str]
) -> None:
    """The header comes first and is known last: the numbers wait in a file without a name."""
    header: dict[str, Any] = {_METADATA: {}}
    at = 0
    with tempfile.TemporaryFile(dir=Path(file.name).parent) as numbers:
        for name, array in arrays:
            header[name] = _entry(array, at)
            at += array.nbytes
            numbers.write(little_endian(array))
        told = account()
        header[_METADATA] = {KEY: told} if told else {"format": "pt"}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _LENGTH_BYTES)
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        numbers.seek(0)
        shutil.copyfileobj(numbers, file, 1 << 20)


def _entry(blob: Array, at: int) -> dict[str, Any]:
    code = _CODES[blob.dtype.name]
    return {"dtype": code, "shape": blob.shape, "data_offsets": [at, at + blob.nbytes]}


@weight_format(
    "safetensors", sniff=_is_safetensors, write_arrays=_write, suffixes=(".safetensors",)
)
def read_safetensors(path: str) -> Stream:
    """Read a .safetensors file; nothing in it but numbers is ever believed.

    Raises:
        WeightsError: ``truncated-weights``, ``corrupt-weights`` (a header that is no JSON, names
            that occur twice, arrays that overlap, leave gaps or have other sizes than their
            shapes), ``unsupported-weights`` (8-bit floats), ``weights-too-large``.
    """
    data = open_buffer(path)
    start, header = _header(path, data)
    metadata = header.pop(_METADATA, {})
    claims = sorted((_claim(path, name, entry) for name, entry in header.items()), key=_place)
    _check_seams(path, claims, len(data) - start)
    tensors = [
        Tensor(
            claim.name,
            claim.shape,
            claim.dtype,
            partial(decode, data, start + claim.start, claim.shape, claim.dtype),
        )
        for claim in claims
    ]
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    return stream_of(path, tensors, text if isinstance(text, str) else None)


class _Claim(NamedTuple):
    """What the header says of an array, its bytes counted from the header's end."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def _place(claim: _Claim) -> tuple[int, int]:
    return claim.start, claim.stop


def _header(path: str, data: Buffer) -> tuple[int, dict[str, Any]]:
    """Where the numbers start, and the header as a mapping."""
    size = int.from_bytes(data[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + size
    if size > _LONGEST_HEADER:
        corrupt(path, f"a header of {size} bytes")
    if start > len(data):
        text = f'"{path}" is cut short: a header of {size} bytes, and {len(data)} bytes in all'
        fail(WeightsError, "truncated-weights", text, help=(_AGAIN,))
    try:
        header = json.loads(data[_LENGTH_BYTES:start].decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        corrupt(path, f"its header: {error}")
    if not isinstance(header, dict):
        corrupt(path, "its header is no JSON object")
    return start, header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f'"{twice}" is there twice')
    return found


def _claim(path: str, name: str, entry: Any) -> _Claim:
    """An array's line of the header, once it is sound in itself."""
    try:
        code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        start, stop = offsets
        numbers = [*shape, start, stop]
        sound = isinstance(code, str) and all(type(number) is int for number in numbers)
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        corrupt(path, f'the header says nothing sensible of array "{name}"')
    if code not in _TYPES:
        unsupported(path, name, code)
    taken = check_shape(path, name, shape, _TYPES[code])
    if stop - start != taken:
        corrupt(path, f'array "{name}" takes {taken} bytes, not {stop - start}')
    return _Claim(name, _TYPES[code], tuple(shape), start, stop)


def _check_seams(path: str, claims: Sequence[_Claim], size: int) -> None:
    """Every byte belongs to one array, as the format demands."""
    at = 0
    for claim in claims:
        if claim.start != at:
            corrupt(path, f'array "{claim.name}" begins at byte {claim.start}, not {at}')
        at = claim.stop
    if at > size:
        text = f'"{path}" is cut short: its arrays take {at} bytes, and {size} are there'
        fail(WeightsError, "truncated-weights", text, help=(_AGAIN,))
    if at < size:
        corrupt(path, f"{size - at} bytes at its end belong to no array")
