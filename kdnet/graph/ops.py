"""Named methods for the ONNX ops kdnet emits: the emitter's vocabulary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from kdnet.graph.tensor import Tensor

Operand = Tensor | int | float


class Ops(ABC):
    """Methods over ``op`` and ``constant``, which the emitter supplies.

    Binary methods accept Python numbers, which become constants of the other operand's type.
    """

    float_dtype: np.dtype[Any]

    @abstractmethod
    def op(self, op_type: str, *inputs: Tensor | None, rule: str = "", **attrs: Any) -> Tensor:
        """Append a node with one output."""

    @abstractmethod
    def constant(self, value: Any, dtype: Any = None) -> Tensor:
        """A constant, by default of the graph's float type."""

    @abstractmethod
    def ints(self, *values: int) -> Tensor:
        """A vector of int64."""

    @abstractmethod
    def like(self, value: Tensor | float, other: Tensor) -> Tensor:
        """A Python number as a constant of ``other``'s type."""

    def _binary(self, op_type: str, a: Operand, b: Operand) -> Tensor:
        if isinstance(a, Tensor):
            return self.op(op_type, a, self.like(b, a))
        if isinstance(b, Tensor):
            return self.op(op_type, self.like(a, b), b)
        raise TypeError(f"{op_type} of two numbers")

    def add(self, a: Operand, b: Operand) -> Tensor:
        """``a + b``."""
        return self._binary("Add", a, b)

    def sub(self, a: Operand, b: Operand) -> Tensor:
        """``a - b``."""
        return self._binary("Sub", a, b)

    def mul(self, a: Operand, b: Operand) -> Tensor:
        """``a * b``; a factor of exactly 1 emits nothing."""
        if isinstance(a, Tensor) and isinstance(b, int | float) and b == 1:
            return a
        return self._binary("Mul", a, b)

    def div(self, a: Operand, b: Operand) -> Tensor:
        """``a / b``."""
        return self._binary("Div", a, b)

    def maximum(self, a: Operand, b: Operand) -> Tensor:
        """Elementwise maximum of two."""
        return self._binary("Max", a, b)

    def minimum(self, a: Operand, b: Operand) -> Tensor:
        """Elementwise minimum of two."""
        return self._binary("Min", a, b)

    def pow(self, a: Operand, b: Operand) -> Tensor:
        """``a ** b``."""
        return self._binary("Pow", a, b)

    def equal(self, a: Operand, b: Operand) -> Tensor:
        """``a == b`` as bool."""
        return self._binary("Equal", a, b)

    def greater(self, a: Operand, b: Operand) -> Tensor:
        """``a > b`` as bool."""
        return self._binary("Greater", a, b)

    def less(self, a: Operand, b: Operand) -> Tensor:
        """``a < b`` as bool."""
        return self._binary("Less", a, b)

    def neg(self, x: Tensor) -> Tensor:
        """``-x``."""
        return self.op("Neg", x)

    def exp(self, x: Tensor) -> Tensor:
        """``e^x``."""
        return self.op("Exp", x)

    def log(self, x: Tensor) -> Tensor:
        """Natural logarithm."""
        return self.op("Log", x)

    def sqrt(self, x: Tensor) -> Tensor:
        """Square root."""
        return self.op("Sqrt", x)

    def abs(self, x: Tensor) -> Tensor:
        """Absolute value."""
        return self.op("Abs", x)

    def sign(self, x: Tensor) -> Tensor:
        """-1, 0 or 1."""
        return self.op("Sign", x)

    def square(self, x: Tensor) -> Tensor:
        """``x * x``."""
        return self.op("Mul", x, x)

    def relu(self, x: Tensor) -> Tensor:
        """``max(x, 0)``."""
        return self.op("Relu", x)

    def sigmoid(self, x: Tensor) -> Tensor:
        """``1 / (1 + e^-x)``."""
        return self.op("Sigmoid", x)

    def tanh(self, x: Tensor) -> Tensor:
        """Hyperbolic tangent."""
        return self.op("Tanh", x)

    def softmax(self, x: Tensor, axis: int) -> Tensor:
        """Softmax over ``axis``."""
        return self.op("Softmax", x, axis=axis)

    def log_softmax(self, x: Tensor, axis: int) -> Tensor:
        """Logarithm of the softmax over ``axis``."""
        return self.op("LogSoftmax", x, axis=axis)

    def where(self, condition: Tensor, a: Operand, b: Operand) -> Tensor:
        """``a`` where the condition holds, else ``b``."""
        other = a if isinstance(a, Tensor) else b
        if not isinstance(other, Tensor):
            other = self.constant(0.0)
        return self.op("Where", condition, self.like(a, other), self.like(b, other))

    def cast(self, x: Tensor, dtype: Any = None) -> Tensor:
        """To ``dtype``, by default the graph's float type; no node when it has it already."""
        target = np.dtype(dtype or self.float_dtype)
        return x if x.dtype == target else self.op("Cast", x, to=_onnx_dtype(target))

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """Matrix product over the last two axes."""
        return self.op("MatMul", a, b)

    def gemm(
        self,
        a: Tensor,
        b: Tensor,
        c: Tensor | None = None,
        *,
        trans_a: bool = False,
        trans_b: bool = False,
    ) -> Tensor:
        """``a·b + c`` of two matrices, each transposed first where asked."""
        inputs = (a, b) if c is None else (a, b, c)
        return self.op("Gemm", *inputs, transA=int(trans_a), transB=int(trans_b))

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """The same elements under another shape; no node when it has it already."""
        if tuple(shape) == x.shape:
            return x
        return self.op("Reshape", x, self.ints(*shape))

    def transpose(self, x: Tensor, perm: Sequence[int]) -> Tensor:
        """Axes permuted; no node for the identity."""
        if list(perm) == list(range(x.rank)):
            return x
        return self.op("Transpose", x, perm=list(perm))

    def expand(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Broadcast to ``shape``; no node when it has it already."""
        if tuple(shape) == x.shape:
            return x
        return self.op("Expand", x, self.ints(*shape))

    def concat(self, tensors: Sequence[Tensor], axis: int) -> Tensor:
        """Joined along ``axis``; no node for a single one."""
        return tensors[0] if len(tensors) == 1 else self.op("Concat", *tensors, axis=axis)

    def slice(
        self,
        x: Tensor,
        axes: Sequence[int],
        starts: Sequence[int],
        ends: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> Tensor:
        """``x[start:end:step]`` on the given axes, which are always written out."""
        steps = steps or [1] * len(axes)
        return self.op(
            "Slice", x, self.ints(*starts), self.ints(*ends), self.ints(*axes), self.ints(*steps)
        )

    def pad(
        self, x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0.0
    ) -> Tensor:
        """Constant padding on every axis; no node when there is none."""
        if not any(begins) and not any(ends):
            return x
        return self.op("Pad", x, self.ints(*begins, *ends), self.like(value, x))

    def reduce_sum(self, x: Tensor, axes: Sequence[int], *, keepdims: bool = False) -> Tensor:
        """Sum over ``axes``; no node when there are none."""
        return self._reduce("ReduceSum", x, axes, keepdims=keepdims)

    def reduce_mean(self, x: Tensor, axes: Sequence[int], *, keepdims: bool = False) -> Tensor:
        """Mean over ``axes``."""
        return self._reduce("ReduceMean", x, axes, keepdims=keepdims)

    def reduce_max(self, x: Tensor, axes: Sequence[int], *, keepdims: bool = False) -> Tensor:
        """Maximum over ``axes``."""
        return self._reduce("ReduceMax", x, axes, keepdims=keepdims)

    def _reduce(self, op_type: str, x: Tensor, axes: Sequence[int], *, keepdims: bool) -> Tensor:
        if not axes:
            return x
        return self.op(op_type, x, self.ints(*axes), keepdims=int(keepdims))

    def sum_all(self, x: Tensor) -> Tensor:
        """The sum of all elements, a scalar."""
        return self.reduce_sum(x, range(x.rank)) if x.rank else x

    def stop_gradient(self, x: Tensor) -> Tensor:
        """The same value; no gradient passes."""
        return self.op("Identity", x, rule="StopGradient")

    def scale_gradient(self, x: Tensor, factor: float) -> Tensor:
        """The same value; its gradient is multiplied by ``factor``."""
        return self.add(self.mul(x, factor), self.stop_gradient(self.mul(x, 1.0 - factor)))

    def straight_through(self, value: Tensor, gradient_of: Tensor) -> Tensor:
        """``value``, with the gradient of ``gradient_of`` (Bengio et al. 2013, section 4)."""
        return self.add(gradient_of, self.stop_gradient(self.sub(value, gradient_of)))


def _onnx_dtype(dtype: np.dtype[Any]) -> int:
    from onnx.helper import np_dtype_to_tensor_dtype

    return int(np_dtype_to_tensor_dtype(dtype))
