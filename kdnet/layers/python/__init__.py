"""Layers in Python by the user: the layer type, and what its code sees and is called by."""

from kdnet.layers.python.allowance import Instances, allowed_python
from kdnet.layers.python.blob import Blob, Shaped, wanted_shape
from kdnet.layers.python.hosted import HostedLayer
from kdnet.layers.python.layer import Hosted, Python
from kdnet.layers.python.user import Layer

__all__ = [
    "Blob",
    "Hosted",
    "HostedLayer",
    "Instances",
    "Layer",
    "Python",
    "Shaped",
    "allowed_python",
    "wanted_shape",
]
