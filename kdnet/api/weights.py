"""The weights of a net in arrays that a program may hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
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
        version: goes up whenever values are loaded from a file.
        replaced: goes up whenever arrays are replaced by others.
        looked: the weights whose arrays a program may hold.
        parent: the weights whose arrays these are.
        pull: where the values are kept elsewhere, fetches those of these names, or all.
        settle: where gradients were postponed, computes them.
    """

    def __init__(self, slots: Sequence[WeightSlot], seed: int) -> None:
        self.slots = {slot.name: slot for slot in slots}
        first, _ = initial_values(slots, (), seed=seed, allow_unloaded=True)
        self.values = {
            name: np.array(array, np.float32, order="C") for name, array in first.items()
        }
        self.slopes = {name: np.zeros_like(array) for name, array in self.values.items()}
        self.version = 0
        self.replaced = 0
        self.looked: set[str] = set()
        self.parent: Weights | None = None
        self.pull: Callable[[Collection[str] | None], None] | None = None
        self.settle: Callable[[], None] | None = None
        self._names = {user: slot.name for slot in slots for user in slot.users}

    def name(self, user: User) -> str:
        """The weight that is a layer's blob of that number."""
        return self._names[user]

    def hold(self, user: User, data: Array, diff: Array) -> None:
        """Let these arrays be a weight's, with the values that it has, if they have its shape."""
        name = self._names[user]
        if data.shape == self.slots[name].shape:
            data[...], diff[...] = self.values[name], self.slopes[name]
            self.values[name], self.slopes[name] = data, diff

    def trained(self, *, every: bool) -> frozenset[User]:
        """The blobs whose gradients count: those with an lr_mult, or every one."""
        slots = self.slots.values()
        return frozenset(user for slot in slots if slot.lr_mult or every for user in slot.users)

    def parameters(self, net: NetModel) -> dict[str, list[Parameter]]:
        """The blobs of each layer that has any, in the net's order."""
        found: dict[str, dict[int, Parameter]] = {}
        for slot in self.slots.values():
            for (layer, index), shape in zip(slot.users, slot.user_shapes, strict=True):
                views = (table[slot.name].reshape(shape) for table in (self.values, self.slopes))
                parameter = Parameter(*views)
                parameter.before_data = partial(self.look, slot.name)
                parameter.before_diff = self._before_slopes
                found.setdefault(layer, {})[index] = parameter
        return {
            layer.name: [found[layer.name][index] for index in sorted(found[layer.name])]
            for layer in net.layers
            if layer.name in found
        }

    def look(self, name: str) -> None:
        """A program is handed the array of a weight."""
        root = self.parent or self
        root.looked.add(name)
        if root.pull is not None:
            root.pull((name,))

    def fresh(self) -> None:
        """Make sure that the arrays hold the present values."""
        root = self.parent or self
        if root.pull is not None:
            root.pull(None)

    def _before_slopes(self) -> None:
        if self.settle is not None:
            self.settle()

    def clear_slopes(self) -> None:
        """Set every gradient to 0."""
        for slope in self.slopes.values():
            slope[...] = 0

    def load(self, files: Sequence[WeightFile]) -> Audit:
        """Fill layers by name; what became of each.

        Raises:
            WeightsError: weights-shape-mismatch, weights-blob-count.
        """
        self.fresh()
        targets = targets_of(self.slots.values())
        loaded, audit = assign(targets, files, allow_unloaded=True)
        for user, array in loaded.items():
            values = self.values[self.name(user)]
            values[...] = array.reshape(values.shape)
        (self.parent or self).version += 1
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
        self.parent = other.parent or other
        self.replaced += 1

    def replace(self, values: Mapping[str, Array]) -> None:
        """Write new values into the arrays."""
        for name, array in values.items():
            if name in self.values:
                self.values[name][...] = array

    def layers(self, net: NetModel) -> list[LayerBlobs]:
        """Every layer of the net as a weight file holds it, with its message, as Caffe saves."""
        self.fresh()
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
