"""Reading a weight file of any format, known by its content and never by its ending."""

from __future__ import annotations

import os
from collections.abc import Mapping

import kdnet.weights.formats  # noqa: F401  # registers every format
from kdnet.errors import WeightsError, fail
from kdnet.weights.files import check_readable
from kdnet.weights.foreign import describe
from kdnet.weights.model import WeightFile
from kdnet.weights.registry import HEAD_BYTES, Stream, WeightFormat, registered_formats


def stream_weights(
    path: str | os.PathLike[str], flattened: Mapping[str, int] | None = None
) -> tuple[WeightFormat, Stream]:
    """The file's format and its layers one at a time, so that only one is held in memory.

    Args:
        path: A weight file of any format.
        flattened: What a Keras file of weights alone does not say: the channels of the maps that
            a Flatten makes one vector of for a dense layer, by that layer's name. Its columns are
            put in Caffe's order: channels, rows, columns.

    Raises:
        WeightsError: as :func:`read_weights`; faults inside a layer come when it is reached.
            ``wrong-flatten`` where ``flattened`` does not fit the file.
    """
    name = os.fspath(path)
    found = sniff_format(name)
    stream = found.read(name)
    if not flattened:
        return found, stream
    if stream.flattened is None:
        fail(
            WeightsError,
            "wrong-flatten",
            f'"{name}" says itself in which order the columns of its dense layers are',
        )
    return found, stream.flattened(flattened)


def read_weights(path: str | os.PathLike[str]) -> WeightFile:
    """Read a weight file whole.

    Raises:
        WeightsError: ``missing-weights``, ``unreadable-weights``, ``foreign-weights`` (it says
            what the file looks like), ``truncated-weights``, ``corrupt-weights``,
            ``unsafe-weights`` (it wants code run, or a file elsewhere read),
            ``unsupported-weights``, ``weights-too-large`` or ``missing-blob``.
    """
    found, stream = stream_weights(path)
    layers = tuple(stream.layers)
    return WeightFile(os.fspath(path), found.name, stream.net_name, layers, stream.doubts)


def sniff_format(path: str) -> WeightFormat:
    """The format of the file at ``path``, known by its first bytes.

    Raises:
        WeightsError: ``missing-weights``, ``unreadable-weights`` or ``foreign-weights``.
    """
    check_readable(path)
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        fail(
            WeightsError,
            "unreadable-weights",
            f'cannot read weights from "{path}": {error.strerror or error}',
        )
    formats = registered_formats()
    for candidate in formats:
        if candidate.sniff is not None and candidate.sniff(path, head):
            return candidate
    what = describe(path, head)
    if what is not None:
        fail(
            WeightsError,
            "foreign-weights",
            f'"{path}" is not a weight file: it looks like {what}',
            help=(f"kdnet reads {', '.join(sorted(known.name for known in formats))}",),
        )
    return formats[-1]
