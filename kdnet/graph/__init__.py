"""The emitter: a typed, scoped, append-only list of ONNX ops with static shapes."""

from kdnet.graph.emitter import Emitter
from kdnet.graph.files import embed_arrays, save_model
from kdnet.graph.serialize import IR_VERSION, OPSET, SOURCE_KEY, listing, outside, to_model
from kdnet.graph.tensor import Op, Tensor

__all__ = [
    "IR_VERSION",
    "OPSET",
    "SOURCE_KEY",
    "Emitter",
    "Op",
    "Tensor",
    "embed_arrays",
    "listing",
    "outside",
    "save_model",
    "to_model",
]
