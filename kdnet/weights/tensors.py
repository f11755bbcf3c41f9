"""Files that are lists of named arrays: their types, and how names are put together into layers.

kdnet's own files carry an account: a JSON text that says which arrays are which layer's blobs.
Files of others do without; their layers follow from the names, by the rules of
:mod:`kdnet.weights.layout`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple, NoReturn

from kdnet.errors import WeightsError, fail
from kdnet.weights.account import Account, read_account
from kdnet.weights.blobs import as_float
from kdnet.weights.files import Buffer, check_memory, let_go
from kdnet.weights.layout import Made, plan
from kdnet.weights.lazy_numpy import np
from kdnet.weights.model import Array, LayerBlobs
from kdnet.weights.registry import Stream

# One array a layer of a recurrent module: weight_ih_l0, bias_hh_l1_reverse.
_RECURRENT = re.compile(r"((?:weight|bias)_(?:ih|hh))_(l\d+(?:_reverse)?)")
_LAST_PART = re.compile(r"(?:(.*)[./])?([^./]+)", re.DOTALL)
# The layer of arrays whose names have one part only.
_NAMELESS = "module"
_LARGEST_BYTES = 1 << 62
_MOST_AXES = 32

BFLOAT16 = "bfloat16"
FLOAT_TYPES = ("float16", BFLOAT16, "float32", "float64")
WHOLE_TYPES = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
TYPES = frozenset((*FLOAT_TYPES, *WHOLE_TYPES, "bool"))


class Tensor(NamedTuple):
    """An array of a file: ``load`` reads it as float32 or float64, and only when it is called."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], Array]


def item_bytes(dtype: str) -> int:
    """The size of one number of a type of :data:`TYPES`."""
    return 2 if dtype == BFLOAT16 else np.dtype(dtype).itemsize


def size_bytes(shape: Sequence[int], dtype: str) -> int:
    """The size of an array."""
    return prod(shape) * item_bytes(dtype)


def storage_type(dtype: str) -> np.dtype[Any]:
    """The little-endian type in which NumPy looks at numbers of ``dtype``."""
    return np.dtype("<u2" if dtype == BFLOAT16 else dtype).newbyteorder("<")


def as_values(stored: Array, dtype: str) -> Array:
    """Numbers seen through :func:`storage_type` as an own array of float32 or float64.

    16-bit floats become float32 without loss; integers float64, exact up to 2^53.
    """
    if dtype == BFLOAT16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return as_float(stored)


def decode(data: Buffer, start: int, shape: Sequence[int], dtype: str) -> Array:
    """The little-endian numbers at ``start``, by :func:`as_values`."""
    stored = np.frombuffer(data, storage_type(dtype), prod(shape), start)
    values = as_values(stored.reshape(tuple(shape)), dtype)
    let_go(data, stored.nbytes)
    return values


def little_endian(blob: Array) -> memoryview:
    """An array's numbers as bytes, without a copy where they lie so in memory."""
    little = np.ascontiguousarray(blob, blob.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def check_shape(path: str, name: str, shape: Sequence[int], dtype: str) -> int:
    """The size in bytes of an array that a file claims to hold.

    Raises:
        WeightsError: ``corrupt-weights`` or ``weights-too-large``.
    """
    if any(size < 0 for size in shape) or len(shape) > _MOST_AXES:
        corrupt(path, f'array "{name}" has shape {list(shape)[:_MOST_AXES]}')
    taken = size_bytes(shape, dtype)
    check_memory(path, taken)
    # NumPy multiplies the other axes of an empty array too.
    if prod(max(size, 1) for size in shape) * item_bytes(dtype) >= _LARGEST_BYTES:
        corrupt(path, f'empty array "{name}" has shape {list(shape)}')
    return taken


def corrupt(path: str, reason: str) -> NoReturn:
    """Raise ``corrupt-weights``."""
    fail(WeightsError, "corrupt-weights", f'"{path}" is damaged: {reason}')


def check_text(path: str, name: str) -> None:
    """Refuse a name that cannot be written as UTF-8.

    Raises:
        WeightsError: ``corrupt-weights``.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        corrupt(path, f"the name {name!a} is no text")


def unsupported(path: str, name: str, kind: str) -> NoReturn:
    """Raise ``unsupported-weights`` for an array of a type that kdnet does not read."""
    fail(
        WeightsError,
        "unsupported-weights",
        f'"{path}": array "{name}" is of type {kind}, which kdnet does not read',
        help=(f"it reads {', '.join(sorted(TYPES))}",),
    )


def stream_of(path: str, tensors: Sequence[Tensor], account: str | bytes | None) -> Stream:
    """The layers of a file's arrays: as the account says, else by their names.

    Raises:
        WeightsError: ``corrupt-weights`` where a name occurs twice.
    """
    return accounted(path, tensors, account) or Stream("", grouped(tensors))


def accounted(path: str, tensors: Sequence[Tensor], account: str | bytes | None) -> Stream | None:
    """The layers as the account says; None where it is none of these arrays.

    Raises:
        WeightsError: ``corrupt-weights`` where a name occurs twice, or is no text.
    """
    named = {tensor.name: tensor for tensor in tensors}
    if len(named) != len(tensors):
        counts = Counter(tensor.name for tensor in tensors)
        twice = next(name for name, count in counts.items() if count > 1)
        corrupt(path, f'array "{twice}" is there twice')
    for name in named:
        check_text(path, name)
    found = read_account(account)
    if found is None or not found.lists(named):
        return None
    return Stream(found.net_name, _accounted(found, named))


def _accounted(account: Account, named: Mapping[str, Tensor]) -> Iterator[LayerBlobs]:
    for layer in account.layers:
        tensors = [named[name] for name in layer.arrays]
        yield LayerBlobs(
            layer.name,
            layer.type,
            tuple(tensor.load() for tensor in tensors),
            tuple(tensor.dtype for tensor in tensors),
            layer.message,
        )


def grouped(tensors: Sequence[Tensor]) -> Iterator[LayerBlobs]:
    """Layers in the order of their first arrays."""
    groups: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        layer, leaf = split_name(tensor.name)
        group = groups.setdefault(layer, {})
        # Names that differ in their separators alone are different arrays all the same.
        group[tensor.name if leaf in group else leaf] = tensor
    for layer, group in groups.items():
        yield from layers_of(layer, group)


def split_name(name: str) -> tuple[str, str]:
    """An array's layer, and what it is there: "a.b.weight" -> "a.b", "weight"."""
    found = _LAST_PART.fullmatch(name)
    if found is None:
        return _NAMELESS, name
    layer, leaf = found[1] or _NAMELESS, found[2].removesuffix(":0")
    module = _RECURRENT.fullmatch(leaf)
    if module is None:
        return layer, leaf
    return (layer if module[2] == "l0" else f"{layer}.{module[2]}"), module[1]


def layers_of(name: str, group: Mapping[str, Tensor]) -> Iterator[LayerBlobs]:
    """The Caffe layers of one layer's arrays, by the rules of :mod:`kdnet.weights.layout`."""
    for rule, taken in plan({leaf: tensor.shape for leaf, tensor in group.items()}):
        if rule is None:
            tensor = group[taken[0]]
            yield LayerBlobs(tensor.name, "", (tensor.load(),), (tensor.dtype,))
            continue
        arrays = {leaf: group[leaf].load() for leaf in taken}
        yield from blobs_of(name, rule.make(arrays), group)


def blobs_of(
    layer: str, made: Sequence[Made], sources: Mapping[str, Tensor]
) -> Iterator[LayerBlobs]:
    """What a rule made of a layer's arrays, with the types that these have in the file."""
    for one in made:
        stored = [
            sources[source].dtype if source else blob.dtype.name
            for source, blob in zip(one.sources, one.blobs, strict=True)
        ]
        yield LayerBlobs(layer + one.suffix, one.type, one.blobs, tuple(stored))
