"""The class that layers written in Python derive from."""

from __future__ import annotations

from typing import Any

from kdnet.layers.python.blob import Blob, Blobs


class Layer:
    """A layer in Python, as pycaffe's ``caffe.Layer``.

    A subclass overrides what it needs. ``bottom`` and ``top`` are lists of blobs.

    Attributes:
        param_str: ``python_param { param_str: ... }``, as it is.
        phase: 0 in TRAIN, 1 in TEST.
        name: the layer's name in the net.
        type: "Python".
        blobs: its weights, which ``setup`` adds and fills: ``self.blobs.add_blob(5, 3)``.
            ``backward`` adds to their ``diff``, which is 0 before.
    """

    param_str: str = ""
    phase: int = 0
    name: str = ""
    type: str = "Python"
    blobs: Blobs

    def setup(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Called once, before the first reshape."""

    def reshape(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Give every top its shape; called before each forward pass."""

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Write ``data`` of the tops."""
        raise NotImplementedError("a Python layer needs forward(self, bottom, top)")

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Write ``diff`` of the bottoms that ``propagate_down`` asks for, and of the weights.

        Raises:
            NotImplementedError: the layer has no gradient.
        """
        raise NotImplementedError("it has no backward(self, top, propagate_down, bottom)")

    def __init__(self, *_given: Any) -> None:
        """Take whatever a subclass hands on."""
