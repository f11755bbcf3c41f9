"""Emits a model's nodes onto an emitter, where every shape is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.checker import ValidationError
from onnx.defs import SchemaError

from kdnet.errors import GraphError, fail
from kdnet.graph.emitter import Emitter
from kdnet.graph.models.folding import folded
from kdnet.graph.models.node import Node
from kdnet.graph.models.reading import Model
from kdnet.graph.models.rewriting import emitted
from kdnet.graph.models.tensors import FLOATS, SUPPORTED
from kdnet.graph.tensor import Tensor

# Emits one node in a way of its own, or returns None for the usual one.
Special = Callable[[Emitter, Node], "tuple[Tensor, ...] | None"]
# Attributes that name an element type.
TYPES = ("to", "dtype", "output_dtype")
# What Python and ONNX raise of attributes and arrays that are not what an op takes.
MISFITS = (
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
    *(SchemaError, ValidationError),
)


def import_model(
    g: Emitter,
    model: Model,
    given: Mapping[str, Tensor],
    *,
    scope: str,
    special: Mapping[str, Special] | None = None,
) -> tuple[Tensor, ...]:
    """Emit a model and return its outputs, as floats.

    Args:
        g: The graph to append to.
        model: What :func:`read_model` returned.
        given: A tensor for each input and each weight, by its name in the model.
        scope: The name under which the nodes are called what the model calls them.
        special: By op type, how the caller emits such nodes.

    Raises:
        GraphError: unsupported-model, corrupt-model, op-misuse, mixed-items.
    """
    batch = _single(model, given)
    run = _imported(g, model, given, _Setting(scope, special or {}, batch))
    if batch:
        _check_items(g, model, given, run)
    with g.scope(scope):
        return tuple(g.cast(run.find(name)) for name in model.outputs)


def _imported(g: Emitter, model: Model, given: Mapping[str, Tensor], setting: _Setting) -> _Import:
    run = _Import(g, setting, dict(given))
    for declared in model.inputs:
        with g.scope(setting.scope):
            run.known[declared.name] = g.cast(given[declared.name], _own(g, declared.dtype))
    run.graph(model.graph)
    return run


def _single(model: Model, given: Mapping[str, Tensor]) -> int:
    """The number of items where the model's inputs are declared for one, else 0."""
    sizes = {given[one.name].shape[:1] for one in model.inputs if one.shape[:1] == (1,)}
    [size] = sizes if len(sizes) == 1 else {(0,)}
    return size[0] if size and size[0] > 1 else 0


def _check_items(g: Emitter, model: Model, given: Mapping[str, Tensor], run: _Import) -> None:
    """What comes from the items has them along its first axis, and is otherwise as for one.

    A model made for one item may mix several, such as by a reshape in which the 1 is written
    out, and nothing but the shapes would show it.
    """
    batch = run.setting.batch
    scratch = Emitter(g.float_dtype, g.provider)
    items = {one.name for one in model.inputs if one.shape[:1] == (1,)}
    alone = dict(given)
    for name in items:
        alone[name] = scratch.input(name, (1, *given[name].shape[1:]), given[name].dtype)
    single = _imported(scratch, model, alone, _Setting(run.setting.scope, {}, 0))
    for node in model.graph.node:
        if not items.intersection(node.input):
            continue
        for name in filter(None, node.output):
            made, one = run.known.get(name), single.known.get(name)
            if made is None or one is None or made.value is not None:
                continue
            shape = one.shape
            if shape[:1] != (1,) or made.shape != (batch, *shape[1:]):
                text = (
                    f'the model was made for one item, and "{name}" of shape {shape} becomes '
                    f"{made.shape} for {batch}"
                )
                fail(GraphError, "mixed-items", text, help=("export it for any batch size",))
            items.add(name)


@dataclass(frozen=True)
class _Setting:
    """What holds for all nodes: the scope, the caller's own ways, and the batch (see Node)."""

    scope: str
    special: Mapping[str, Special]
    batch: int


@dataclass
class _Import:
    """The tensors that are known by name so far."""

    g: Emitter
    setting: _Setting
    known: dict[str, Tensor] = field(default_factory=dict)

    def find(self, name: str) -> Tensor:
        """The tensor of a name."""
        if name not in self.known:
            fail(GraphError, "corrupt-model", f'nothing makes "{name}"')
        return self.known[name]

    def graph(self, graph: onnx.GraphProto) -> None:
        """Emit every node of a graph."""
        for tensor in graph.initializer:
            self.known[tensor.name] = self.constant(numpy_helper.to_array(tensor))
        for proto in graph.node:
            try:
                self._node(proto)
            except MISFITS as error:
                text = f'node "{proto.name}" ({proto.op_type}): {error}'
                fail(GraphError, "corrupt-model", text)

    def constant(self, value: NDArray[Any]) -> Tensor:
        """An array of the model, its floats in the graph's float type."""
        return self.g.constant(value, _own(self.g, value.dtype))

    def _node(self, proto: onnx.NodeProto) -> None:
        inputs = [self.find(name) if name else None for name in proto.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        outputs = list(proto.output)
        while len(outputs) > 1 and not outputs[-1]:
            outputs.pop()
        name = proto.name or (proto.output[0] if proto.output else proto.op_type)
        batch = self.setting.batch
        node = Node(proto.op_type, name, tuple(inputs), tuple(outputs), {}, batch)
        if proto.op_type == "If":
            made: Iterable[Tensor] = self._branch(node, proto)
        else:
            node = replace(node, attrs={a.name: self._attribute(node, a) for a in proto.attribute})
            made = self._made(node)
        self.known.update(
            (output, tensor) for output, tensor in zip(outputs, made, strict=False) if output
        )

    def _made(self, node: Node) -> Iterable[Tensor]:
        if node.op_type == "Constant":
            return [self._constant_node(node)]
        found = folded(node)
        if found is not None:
            return [self.constant(value) for value in found]
        with self.g.scope(f"{self.setting.scope}/{node.name.strip('/')}"):
            own = self.setting.special.get(node.op_type)
            made = own(self.g, node) if own else None
            return emitted(self.g, node) if made is None else made

    def _constant_node(self, node: Node) -> Tensor:
        [(name, value)] = node.attrs.items()
        if name == "value":
            return self.constant(numpy_helper.to_array(value))
        if name in ("value_float", "value_floats", "value_int", "value_ints"):
            kind = np.int64 if name.startswith("value_int") else np.float32
            return self.constant(np.asarray(value, kind))
        return node.unsupported(f"its {name} is no array of numbers")

    def _attribute(self, node: Node, attribute: onnx.AttributeProto) -> Any:
        """Its value: text as str, element types and arrays with the graph's float type."""
        value = helper.get_attribute_value(attribute)
        if attribute.name in TYPES and attribute.type == onnx.AttributeProto.INT:
            return self._type(node, value)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if isinstance(value, onnx.TensorProto):
            array = numpy_helper.to_array(value)
            return numpy_helper.from_array(array.astype(_own(self.g, array.dtype)))
        return value

    def _type(self, node: Node, number: int) -> int:
        if number not in SUPPORTED:
            node.unsupported("it makes elements of a type that kdnet has not")
        return helper.np_dtype_to_tensor_dtype(self.g.float_dtype) if number in FLOATS else number

    def _branch(self, node: Node, proto: onnx.NodeProto) -> list[Tensor]:
        """The branch that a constant condition takes."""
        value = node.input(0).value
        if value is None:
            node.unsupported("its condition depends on the data")
        wanted = "then_branch" if bool(value.reshape(-1)[0]) else "else_branch"
        [graph] = [a.g for a in proto.attribute if a.name == wanted]
        setting = replace(self.setting, scope=f"{self.setting.scope}/{node.name}")
        inner = _Import(self.g, setting, dict(self.known))
        inner.graph(graph)
        return [inner.find(output.name) for output in graph.output]


def _own(g: Emitter, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """All floats are of the graph's one float type."""
    return g.float_dtype if np.issubdtype(dtype, np.floating) else dtype
