"""PyTorch's checkpoints: a zip archive of numbers and a pickle, which is never run."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import prod
from typing import Any, BinaryIO, NoReturn

from kdnet.errors import WeightsError, fail
from kdnet.weights.account import KEY
from kdnet.weights.files import Buffer, let_go, open_buffer, zip_names
from kdnet.weights.lazy_numpy import np
from kdnet.weights.model import Array
from kdnet.weights.pickles import RefusedError, View, read_pickle, write_pickle
from kdnet.weights.registry import Stream, weight_format
from kdnet.weights.tensors import (
    Tensor,
    as_values,
    check_shape,
    corrupt,
    item_bytes,
    little_endian,
    size_bytes,
    storage_type,
    stream_of,
    unsupported,
)

_ZIP = b"PK\x03\x04"
_FIRST_MEMBER = re.compile(rb"[^/]+/(data\.pkl|data/\d+|version|byteorder|\.format_version)")
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED = 1
_LONGEST_PICKLE = _LONGEST_ACCOUNT = 1 << 24
# Tensors may share their numbers, as tied weights do; not without end.
_MOST_SHARING = 64
_EPOCH = (1980, 1, 1, 0, 0, 0)
_ROOT = "archive"
_ALIGNMENT = 64
# Where training programs keep the weights among other things, the likeliest first.
_USUAL_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
_DEEPEST = 4


def _is_torch(path: str, head: bytes) -> bool:
    if not head.startswith(_ZIP):
        return False
    names = zip_names(path)
    if names is None:
        size = int.from_bytes(head[26:28], "little")
        first = head[_LOCAL_HEADER_BYTES : _LOCAL_HEADER_BYTES + size]
        return _FIRST_MEMBER.fullmatch(first) is not None
    return any(name.endswith("/data.pkl") for name in names)


def _write(
    file: BinaryIO, arrays: Iterable[tuple[str, Array]], account: Callable[[], str]
) -> None:
    """A dict of tensors, each with a storage of its own; ``torch.load`` reads it."""
    views: dict[str, tuple[str, str, tuple[int, ...]]] = {}
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays:
            key = str(len(views))
            views[name] = (key, array.dtype.name, array.shape)
            _write_member(archive, f"data/{key}", little_endian(array))
        _write_member(archive, "byteorder", memoryview(b"little"))
        _write_member(archive, f"{KEY}.json", memoryview(account().encode()))
        _write_member(archive, "version", memoryview(b"3\n"))
        _write_member(archive, "data.pkl", memoryview(write_pickle(views)))


def _write_member(archive: zipfile.ZipFile, name: str, content: memoryview) -> None:
    member = zipfile.ZipInfo(f"{_ROOT}/{name}", _EPOCH)
    member.file_size = content.nbytes
    at = archive.fp.tell() + _LOCAL_HEADER_BYTES + len(member.filename) + 4  # type: ignore[union-attr]
    padding = -at % _ALIGNMENT
    # An extra field of PyTorch's own kind, so that the numbers can be mapped.
    member.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
    with archive.open(member, "w") as file:
        file.write(content)


@weight_format("torch", sniff=_is_torch, write_arrays=_write, suffixes=(".pt", ".pth"))
def read_torch(path: str) -> Stream:
    """Read a checkpoint of ``torch.save``: a state dict, or a dict that has one.

    Raises:
        WeightsError: ``unsafe-weights`` where the pickle names anything but tensors (a class, a
            function); ``foreign-weights`` without tensors, ``truncated-weights``,
            ``corrupt-weights``, ``unsupported-weights``, ``weights-too-large``.
    """
    archive = _Archive(path)
    try:
        found = read_pickle(archive.small("data.pkl", _LONGEST_PICKLE))
    except RefusedError as error:
        _refuse(path, str(error))
    except ValueError as error:
        corrupt(path, f"its pickle: {error}")
    views, doubts = _state_dict(path, found)
    tensors = [archive.tensor(name, view) for name, view in views.items()]
    archive.check_sharing(tensors)
    text = archive.small(f"{KEY}.json", _LONGEST_ACCOUNT) if archive.has(f"{KEY}.json") else None
    stream = stream_of(path, tensors, text)
    return Stream(stream.net_name, stream.layers, doubts=doubts)


def _refuse(path: str, what: str) -> NoReturn:
    fail(
        WeightsError,
        "unsafe-weights",
        f'"{path}": its pickle wants {what}; kdnet reads tensors and runs nothing',
        help=(
            "if you trust the file, save the tensors alone, in PyTorch: "
            "torch.save(model.state_dict(), OUT)",
        ),
    )


class _Archive:
    """A checkpoint's zip archive; numbers are read where they lie."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._data: Buffer = open_buffer(path)
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = {member.filename: member for member in archive.infolist()}
        except Exception as error:  # a damaged directory raises half a dozen kinds
            text = f'"{path}" is cut short: {error}'
            fail(WeightsError, "truncated-weights", text, help=("copy it again",))
        pickles = [name for name in self._members if name.endswith("/data.pkl")]
        self._root = pickles[0].removesuffix("data.pkl") if pickles else ""
        self._sound: dict[str, tuple[int, int]] = {}
        if self.has("byteorder") and self.small("byteorder", 100) != b"little":
            unsupported(path, "data", "big-endian numbers")

    def has(self, name: str) -> bool:
        """Whether there is such a member beside the pickle."""
        return self._root + name in self._members

    def small(self, name: str, most_bytes: int) -> bytes:
        """A member's content."""
        start, stop = self._place(name)
        if stop - start > most_bytes:
            corrupt(self._path, f'"{name}" is of {stop - start} bytes')
        return self._data[start:stop]

    def tensor(self, name: str, view: View) -> Tensor:
        """A tensor whose numbers all lie in its storage."""
        storage = view.storage
        check_shape(self._path, name, view.shape, storage.dtype)
        start, stop = self._place(f"data/{storage.key}")
        count = (stop - start) // item_bytes(storage.dtype)
        size = prod(view.shape)
        last = view.offset + sum(
            (size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True)
        )
        if size > count or (size and last >= count):
            corrupt(
                self._path,
                f'tensor "{name}" of shape {list(view.shape)} and strides {list(view.strides)} '
                f"does not lie within the {count} numbers of its storage",
            )
        return Tensor(name, view.shape, storage.dtype, partial(self._load, view, start, count))

    def check_sharing(self, tensors: Iterable[Tensor]) -> None:
        """Refuse tensors that make far more of the file's numbers than there are."""
        taken = sum(size_bytes(tensor.shape, tensor.dtype) for tensor in tensors)
        if taken > _MOST_SHARING * len(self._data):
            corrupt(self._path, f"its tensors take {taken} bytes, it has {len(self._data)}")

    def _load(self, view: View, start: int, count: int) -> Array:
        stored = storage_type(view.storage.dtype)
        numbers = np.frombuffer(self._data, stored, count, start)[view.offset :]
        strides = [stride * stored.itemsize for stride in view.strides]
        strided = np.lib.stride_tricks.as_strided(numbers, view.shape, strides, writeable=False)
        values = as_values(strided, view.storage.dtype)
        let_go(self._data, values.nbytes)
        return values

    def _place(self, name: str) -> tuple[int, int]:
        """Where a member's bytes lie, once its checksum is right."""
        full = self._root + name
        if full not in self._sound:
            self._sound[full] = self._check(name)
        return self._sound[full]

    def _check(self, name: str) -> tuple[int, int]:
        member = self._members.get(self._root + name)
        if member is None:
            corrupt(self._path, f'its member "{name}" is missing')
        plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & _ENCRYPTED
        if not plain or member.compress_size != member.file_size:
            corrupt(self._path, f'its member "{name}" is packed, which PyTorch never does')
        head = self._data[member.header_offset : member.header_offset + _LOCAL_HEADER_BYTES]
        if len(head) < _LOCAL_HEADER_BYTES or not head.startswith(_ZIP):
            corrupt(self._path, f'its member "{name}" is not where the archive says')
        start = member.header_offset + _LOCAL_HEADER_BYTES
        start += int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        stop = start + member.file_size
        if stop > len(self._data):
            corrupt(self._path, f'its member "{name}" runs past the end of the file')
        with memoryview(self._data) as whole, whole[start:stop] as part:
            if zlib.crc32(part) != member.CRC:
                corrupt(self._path, f'the checksum of its member "{name}" is wrong')
        let_go(self._data, member.file_size)
        return start, stop


def _state_dict(path: str, found: Any) -> tuple[Mapping[str, View], tuple[str, ...]]:
    """The tensors by name, and a note where others were left out."""
    if isinstance(found, View):
        return {"tensor": found}, ()
    dicts = dict(_dicts_of_tensors(found, ()))
    usual = [key for key in dicts if len(key) == 1 and key[0] in _USUAL_KEYS]
    chosen = min(usual, key=lambda key: _USUAL_KEYS.index(key[0]), default=None)
    if chosen is not None:
        others = ", ".join(f'"{".".join(key)}"' for key in dicts if key not in (chosen, ()))
        note = f'read "{chosen[0]}" and left out {others}'
        return dicts[chosen], ((note,) if others else ())
    views = {
        ".".join((*key, name)): view
        for key, tensors in dicts.items()
        for name, view in tensors.items()
    }
    if not views:
        text = f'"{path}" is a PyTorch checkpoint without a dict of tensors'
        fail(WeightsError, "foreign-weights", text, help=(_SAVE,))
    return views, ()


_SAVE = "save a state dict: torch.save(model.state_dict(), OUT)"


def _dicts_of_tensors(
    found: Any, key: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, View]]]:
    """Every dict that has tensors, reached through dicts with texts as keys."""
    if not isinstance(found, dict) or len(key) > _DEEPEST:
        return
    views = {
        name: value
        for name, value in found.items()
        if isinstance(name, str) and isinstance(value, View)
    }
    if views:
        yield key, views
    for name, value in found.items():
        if isinstance(name, str):
            yield from _dicts_of_tensors(value, (*key, name))
