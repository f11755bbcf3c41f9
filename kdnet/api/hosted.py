"""The Python layers of a net: instances of the user's classes that live as long as it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from numpy.typing import NDArray

from kdnet.api.blobs import Parameter
from kdnet.api.weights import Weights
from kdnet.layers.python import HostedLayer, Instances, allowed_python
from kdnet.net import LayerModel, NetModel

Array = NDArray[Any]


class PythonLayers:
    """Those of one net, by their index.

    A program that calls kdnet may run Python code anyway, so no flag is asked for.

    Args:
        net: the net.
        instances: those that nets of the same solver have made; the net's own are added.
    """

    def __init__(self, net: NetModel, instances: Instances | None = None) -> None:
        self._net = net
        self._instances: Instances = {} if instances is None else instances

    def allowed(self) -> AbstractContextManager[None]:
        """The block in which the net's Python layers may be traced."""
        return allowed_python(instances=self._instances)

    def get(self, index: int) -> HostedLayer | None:
        """The Python layer at an index; None where there is another layer."""
        return self._instances.get(id(self._net.layers[index].message))

    def all(self) -> list[HostedLayer | None]:
        """For each layer what :meth:`get` gives."""
        return [self.get(index) for index in range(len(self._net.layers))]

    def items(self) -> list[tuple[LayerModel, HostedLayer]]:
        """The Python layers, with their models."""
        found = zip(self._net.layers, self.all(), strict=True)
        return [(layer, hosted) for layer, hosted in found if hosted is not None]

    def keep_arrays(self, weights: Weights) -> None:
        """Let the arrays that the code made be the net's, since the code may hold on to them."""
        for layer, hosted in self.items():
            for index, blob in enumerate(hosted.blobs):
                weights.hold((layer.name, index), blob.data, blob.diff)

    def adopt(self, params: Mapping[str, Sequence[Parameter]]) -> None:
        """Let the code work on the net's own weights."""
        for layer, hosted in self.items():
            hosted.adopt(params.get(layer.name, ()))
