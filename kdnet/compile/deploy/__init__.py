"""The deploy graph of a student: its layers alone, folded, for any batch size."""

from kdnet.compile.deploy.branches import Branch, Label, choose_heads, find_heads
from kdnet.compile.deploy.making import Deploy, Preprocess, blobs_of, make_deploy, onnx_model

__all__ = [
    "Branch",
    "Deploy",
    "Label",
    "Preprocess",
    "blobs_of",
    "choose_heads",
    "find_heads",
    "make_deploy",
    "onnx_model",
]
