"""The account that kdnet adds to files which are lists of named arrays.

One JSON text: the net's name, and for each layer its name, its Caffe type, the other fields of
its message and the names of its arrays. With it a file is read back as it was written, layers
without blobs and their order included. It counts only while it names exactly the arrays that are
there: other programs change arrays and keep texts that they do not know.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from kdnet.errors import WeightsError, fail
from kdnet.weights.model import LayerBlobs
from kdnet.weights.wire import WireError, fields

KEY = "kdnet"
# What a zip archive can hold, with room for an ending.
_LONGEST_NAME_BYTES = 60_000
# Under their usual names, so that other programs know them; a third blob is just a number.
_LEAVES = {"BatchNorm": ("mean", "variance", "scale_factor")}
_USUAL = ("weight", "bias")


@dataclass(frozen=True)
class AccountLayer:
    """One layer: what is known of it beside its arrays, and the names of these."""

    name: str
    type: str
    message: bytes
    arrays: tuple[str, ...]


@dataclass
class Account:
    """The net's name, and its layers in order."""

    net_name: str
    layers: list[AccountLayer] = field(default_factory=list)

    def add(self, layer: LayerBlobs, arrays: Iterable[str]) -> None:
        """Note a layer that is being written, and the names under which its arrays go."""
        self.layers.append(AccountLayer(layer.name, layer.type, layer.message, tuple(arrays)))

    def lists(self, names: Iterable[str]) -> bool:
        """Whether these are its arrays, each once."""
        return sorted(name for layer in self.layers for name in layer.arrays) == sorted(names)

    def text(self) -> str:
        """The account as JSON."""
        rows = [
            {
                "name": layer.name,
                "type": layer.type,
                "message": base64.b64encode(layer.message).decode(),
                "blobs": layer.arrays,
            }
            for layer in self.layers
        ]
        return json.dumps({"net": self.net_name, "layers": rows}, separators=(",", ":"))


class Naming:
    """Gives the arrays of a file their names, ``<layer>.weight`` and so on, each once."""

    def __init__(self, what: str, separator: str = "/") -> None:
        self._what = what
        self._separator = separator
        self._used: set[str] = set()

    def names(self, layer: LayerBlobs) -> tuple[str, ...]:
        """The names of a layer's arrays.

        Raises:
            WeightsError: ``unwritable-layer``: a layer before has them.
        """
        usual = _LEAVES.get(layer.type, _USUAL) if self._separator == "." else ()
        leaves = [*usual, *map(str, range(len(usual), len(layer.blobs)))][: len(layer.blobs)]
        return self.take(layer, (f"{layer.name}{self._separator}{leaf}" for leaf in leaves))

    def take(self, layer: LayerBlobs, names: Iterable[str]) -> tuple[str, ...]:
        """The same names, once it is sure that no layer before has them.

        Raises:
            WeightsError: ``unwritable-layer``.
        """
        taken = tuple(names)
        for name in taken:
            if name in self._used:
                self._refuse(layer, f'it would hold "{name}" twice')
            if "\0" in name or len(name.encode()) > _LONGEST_NAME_BYTES:
                self._refuse(layer, "it has no room for such a name")
            self._used.add(name)
        return taken

    def _refuse(self, layer: LayerBlobs, reason: str) -> NoReturn:
        fail(
            WeightsError,
            "unwritable-layer",
            f"layer {layer.name[:100]!a} cannot be written to {self._what}: {reason}",
            help=("rename the layer, or write a .caffemodel",),
        )


def read_account(text: str | bytes | None) -> Account | None:
    """The account that the text says, or None when it is none."""
    try:
        found = json.loads(text or "null")
        layers = [_layer(row) for row in found["layers"]]
        return Account(_text(found["net"]), layers)
    except (TypeError, KeyError, ValueError, RecursionError, WireError):
        return None


def _layer(row: Any) -> AccountLayer:
    message = base64.b64decode(_text(row["message"]), validate=True)
    for _ in fields(message, 0, len(message)):
        pass
    arrays = tuple(_text(name) for name in row["blobs"])
    return AccountLayer(_text(row["name"]), _text(row["type"]), message, arrays)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()
    return value
