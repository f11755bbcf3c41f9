"""Reverse-mode gradients of ONNX ops: one rule an op type, and one walk that uses them."""

from kdnet.autodiff.registry import Call, is_differentiable, rule_names, vjp
from kdnet.autodiff.walk import gradients, reached

__all__ = ["Call", "gradients", "is_differentiable", "reached", "rule_names", "vjp"]
