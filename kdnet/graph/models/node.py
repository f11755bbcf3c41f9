"""A node of a model that is being imported, with the tensors it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from kdnet.errors import GraphError, fail
from kdnet.graph.tensor import Tensor


@dataclass(frozen=True)
class Node:
    """One node: absent inputs are None, and an output that nobody names is "".

    ``batch`` is the number of items where the model was made for one, else 0.
    """

    op_type: str
    name: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]
    batch: int = 0

    def __str__(self) -> str:
        return f'node "{self.name}" ({self.op_type})'

    def input(self, index: int) -> Tensor:
        """The input at ``index``, which the op type requires."""
        found = self.optional(index)
        if found is None:
            fail(GraphError, "corrupt-model", f"{self} has no input {index}")
        return found

    def optional(self, index: int) -> Tensor | None:
        """The input at ``index``, or None."""
        return self.inputs[index] if index < len(self.inputs) else None

    def ints(self, index: int, default: list[int] | None = None) -> list[int]:
        """The integers of an input that must be known when the graph is made."""
        tensor = self.optional(index)
        if tensor is None and default is not None:
            return default
        found = self.input(index)
        if found.value is None:
            self.unsupported(f"its input {index} depends on the data")
        return [int(item) for item in found.value.reshape(-1)]

    def unsupported(self, why: str) -> NoReturn:
        """Raise unsupported-model."""
        fail(GraphError, "unsupported-model", f"{self}: {why}")
