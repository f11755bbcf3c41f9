"""The table of gradient rules: op type -> vector-Jacobian product."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

from kdnet.errors import GraphError, fail
from kdnet.graph import Op, Tensor


@dataclass(frozen=True)
class Call:
    """An op as a rule sees it; ``wants[i]`` says whether input i's gradient will be used.

    A rule may return None where ``wants`` is false; it must where no gradient exists.
    """

    op: Op
    wants: tuple[bool, ...]

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The op's attributes, as emitted."""
        return self.op.attrs

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.op.input(0)

    @property
    def y(self) -> Tensor:
        """The first output."""
        return self.op.output

    def input(self, index: int) -> Tensor:
        """The input at ``index``."""
        return self.op.input(index)

    def constant(self, index: int) -> list[int]:
        """The integers of a constant input, such as axes or a shape."""
        value = self.op.input(index).value
        if value is None:
            self.unsupported(f"with a computed input {index}")
        return [int(item) for item in value.reshape(-1)]

    def unsupported(self, what: str) -> NoReturn:
        """Raise the located error of a case without a gradient."""
        where = f" ({self.op.source})" if self.op.source else ""
        fail(
            GraphError,
            "unsupported-gradient",
            f"no gradient of {self.op.type} {what}, at {self.op.name}{where}",
        )


Gradients = Sequence[Tensor | None]
Rule = Callable[..., Gradients]

_RULES: dict[str, Rule] = {}

# Piecewise constant, integer or boolean valued: their gradient is zero wherever it exists.
NON_DIFFERENTIABLE = frozenset(
    {
        *("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual"),
        *("ArgMax", "ArgMin", "Ceil", "Floor", "Not", "OneHot", "Or", "Round", "Sign", "Xor"),
        *("ConstantOfShape", "EyeLike", "Hardmax", "Shape", "Size", "StopGradient"),
    }
)


def vjp(*op_types: str) -> Callable[[Rule], Rule]:
    """Register a rule ``(g, call, *output gradients) -> one gradient or None per input``.

    The gradient of an output that the loss does not depend on arrives as None. A gradient may
    have the op's broadcast shape: the walk sums it back to the input's.
    """

    def register(rule: Rule) -> Rule:
        for op_type in op_types:
            if op_type in _RULES:
                raise ValueError(
                    f"two gradient rules for {op_type}: {_RULES[op_type].__module__} "
                    f"and {rule.__module__}"
                )
            _RULES[op_type] = rule
        return rule

    return register


@cache
def _rules() -> Mapping[str, Rule]:
    package = importlib.import_module("kdnet.autodiff.rules")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return _RULES


def rule_names() -> tuple[str, ...]:
    """Every op type with a rule, sorted."""
    return tuple(sorted(_rules()))


def key_of(op: Op) -> str:
    """The name under which the op's rule is registered."""
    return op.rule or op.type


def is_differentiable(op: Op) -> bool:
    """Whether gradients can pass through the op at all."""
    return key_of(op) not in NON_DIFFERENTIABLE


def rule_of(op: Op) -> Rule:
    """The op's rule; a located error when it has none and is not declared flat."""
    found = _rules().get(key_of(op))
    if found is None:
        where = f" ({op.source})" if op.source else ""
        fail(GraphError, "no-gradient-rule", f"{op.type} has no gradient rule: {op.name}{where}")
    return found
