"""The emitter: ops are appended under a scope, and each output has its static shape at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from onnx.shape_inference import InferenceError

from kdnet.errors import Diagnostic, GraphError
from kdnet.graph.ops import Ops
from kdnet.graph.serialize import infer_types, make_node
from kdnet.graph.tensor import Op, Tensor

Scalar = int | float


class Emitter(Ops):
    """An append-only graph under construction.

    Names are scope paths (``student/ip2/Gemm``), numbered only within their own scope, so that
    compiling the same net twice gives the same names. ``float_dtype`` is float32 except in
    gradient checks, which run the same graph in float64. ``provider`` ("cpu" or "cuda") lets a
    rule choose among exact lowerings.
    """

    def __init__(self, float_dtype: Any = np.float32, provider: str = "cpu") -> None:
        self.float_dtype = np.dtype(float_dtype)
        self.provider = provider
        self.ops: list[Op] = []
        self._constants: dict[str, Tensor] = {}
        self._names: dict[str, int] = {}
        self._scope = ""
        self._source = ""

    @contextmanager
    def scope(self, name: str, source: str = "") -> Iterator[None]:
        """Ops emitted inside are named ``name/...`` and carry ``source``."""
        outer = (self._scope, self._source)
        self._scope = name
        self._source = source or self._source
        try:
            yield
        finally:
            self._scope, self._source = outer

    def input(self, name: str, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """A tensor from outside; ``dtype`` defaults to the graph's float type.

        Whether it becomes an input of a model or an initializer is said when one is written.
        """
        return Tensor(self._unique(name), np.dtype(dtype or self.float_dtype), tuple(shape))

    def constant(self, value: Any, dtype: Any = None) -> Tensor:
        """A constant, interned by its content; ``dtype`` defaults to the graph's float type."""
        array = np.asarray(value, dtype=np.dtype(dtype or self.float_dtype))
        key = _constant_name(array)
        known = self._constants.get(key)
        if known is not None and known.value is not None and np.array_equal(known.value, array):
            return known
        tensor = Tensor(self._unique(key), array.dtype, array.shape, array)
        self._constants.setdefault(key, tensor)
        return tensor

    def ints(self, *values: int) -> Tensor:
        """A vector of int64, for shapes, axes, starts and the like."""
        return self.constant(np.array(values, np.int64), np.int64)

    def like(self, value: Tensor | Scalar, other: Tensor) -> Tensor:
        """A Python number as a constant of ``other``'s type; tensors pass through."""
        return value if isinstance(value, Tensor) else self.constant(value, other.dtype)

    def op(self, op_type: str, *inputs: Tensor | None, rule: str = "", **attrs: Any) -> Tensor:
        """Append a node with one output."""
        return self.multi(op_type, *inputs, count=1, rule=rule, **attrs)[0]

    def multi(
        self, op_type: str, *inputs: Tensor | None, count: int, rule: str = "", **attrs: Any
    ) -> tuple[Tensor, ...]:
        """Append a node with ``count`` outputs."""
        name = self._unique(f"{self._scope}/{op_type}" if self._scope else op_type)
        names = [name] + [f"{name}.{index}" for index in range(1, count)]
        node = make_node(op_type, name, [t.name if t else "" for t in inputs], names, attrs)
        try:
            types = infer_types(node, inputs)
        except (InferenceError, ValueError) as error:
            raise GraphError(self._misuse(op_type, inputs, error)) from error
        outputs = tuple(Tensor(n, d, s) for n, (d, s) in zip(names, types, strict=True))
        self.ops.append(Op(op_type, name, inputs, outputs, attrs, self._source, rule))
        return outputs

    def _misuse(
        self, op_type: str, inputs: Sequence[Tensor | None], error: Exception
    ) -> Diagnostic:
        shapes = ", ".join("-" if t is None else str(t.shape) for t in inputs)
        where = f" ({self._source})" if self._source else ""
        return Diagnostic("op-misuse", f"{op_type} of {shapes}{where}: {error}")

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0) + 1
        self._names[name] = count
        return name if count == 1 else f"{name}_{count}"


def _constant_name(array: np.ndarray[Any, Any]) -> str:
    kind = array.dtype.name
    if array.size <= 8:
        values = "_".join(str(item) for item in array.reshape(-1).tolist())
        return f"const/{kind}/{'x'.join(map(str, array.shape)) or 'scalar'}/{values}"
    return f"const/{kind}/{'x'.join(map(str, array.shape))}"
