"""Models made elsewhere: reading an .onnx file, and emitting its ops with static shapes."""

from kdnet.graph.models.importing import Special, import_model
from kdnet.graph.models.node import Node
from kdnet.graph.models.reading import Declared, Model, read_model
from kdnet.graph.models.tensors import Held

__all__ = ["Declared", "Held", "Model", "Node", "Special", "import_model", "read_model"]
