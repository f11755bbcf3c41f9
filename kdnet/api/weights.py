"""The weights of a net in arrays that a program may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnet.api.blobs import Parameter
from kdnet.compile import WeightSlot
from kdnet.errors import WeightsError, fail
from kdnet.net import NetModel
from kdnet.runtime.loading import initial_values, targets_of
from kdnet.weights import Audit, LayerBlobs, WeightFile, assign

Array = NDArray[Any]
User = tuple[str, int]


class Weights:
    """Every weight of a net: its values and its gradient.

    Attributes:
        slots: what the weights are, by name.
        values: float32 arrays by name.
        slopes: gradients by name.
        version: goes up whenever arrays are replaced by others.
    """

    def __init__(self, slots: Sequence[WeightSlot], seed: int) -> None:
        self.slots = {slot.name: slot for slot in slots}
        first, _ = initial_values(slots, (), seed=seed, allow_unloaded=True)
        self.values = {
            name: np.array(array, np.float32, order="C") for name, array in first.items()
        }
        self.slopes = {name: np.zeros_like(array) for name, array in self.values.items()}
        self.version = 0
        self._names = {user: slot.name for slot in slots for user in slot.users}

    def name(self, user: User) -> str:
        """The weight that is a layer's blob of that number."""
        return self._names[user]

    def parameters(self, net: NetModel) -> dict[str, list[Parameter]]:
        """The blobs of each layer that has any, in the net's order."""
        found: dict[str, dict[int, Parameter]] = {}
        for slot in self.slots.values():
            for (layer, index), shape in zip(slot.users, slot.user_shapes, strict=True):
                views = (table[slot.name].reshape(shape) for table in (self.values, self.slopes))
                found.setdefault(layer, {})[index] = Parameter(*views)
        return {
            layer.name: [found[layer.name][index] for index in sorted(found[layer.name])]
            for layer in net.layers
            if layer.name in found
        }

    def load(self, files: Sequence[WeightFile]) -> Audit:
        """Fill layers by name; what became of each.

        Raises:
            WeightsError: weights-shape-mismatch, weights-blob-count.
        """
        targets = targets_of(self.slots.values())
        loaded, audit = assign(targets, files, allow_unloaded=True)
        for user, array in loaded.items():
            values = self.values[self.name(user)]
            values[...] = array.reshape(values.shape)
        return audit

    def adopt(self, other: Weights) -> None:
        """Use another net's arrays for the weights of layers with the same name.

        Raises:
            WeightsError: share-mismatch.
        """
        for user, name in self._names.items():
            theirs = other._names.get(user)
            if theirs is None:
                continue
            shape, found = self.slots[name].shape, other.slots[theirs].shape
            if shape != found:
                text = f'layer "{user[0]}": blob {user[1]} has shape {shape} here, {found} there'
                fail(WeightsError, "share-mismatch", text, span=self.slots[name].span)
            self.values[name] = other.values[theirs]
        self.version += 1

    def replace(self, values: Mapping[str, Array]) -> None:
        """Write new values into the arrays."""
        for name, array in values.items():
            if name in self.values:
                self.values[name][...] = array

    def layers(self, net: NetModel) -> list[LayerBlobs]:
        """Every layer of the net as a weight file holds it, with its message, as Caffe saves."""
        params = self.parameters(net)
        found = []
        for layer in net.layers:
            message = type(layer.message)()
            message.CopyFrom(layer.message)
            for field in ("name", "type", "blobs"):
                message.ClearField(field)
            blobs = tuple(parameter.data for parameter in params.get(layer.name, ()))
            raw = message.SerializeToString(deterministic=True)
            found.append(LayerBlobs(layer.name, layer.type, blobs, (), raw))
        return found
