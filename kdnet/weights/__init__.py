"""The parameter store: weight files, fillers, the load audit and the keyed random generator."""

from kdnet.weights.model import LayerBlobs, WeightFile
from kdnet.weights.random import philox

__all__ = ["LayerBlobs", "WeightFile", "philox"]
