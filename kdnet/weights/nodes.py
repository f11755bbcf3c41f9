"""The layers of an ONNX model: what its nodes read, and what is left by names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kdnet.weights.layout_onnx import NODE_RULES, Node, NodeRule, is_added_bias
from kdnet.weights.model import LayerBlobs
from kdnet.weights.tensors import Tensor, blobs_of, grouped, split_name

# The last parts of names behind which a layer's name stands.
_USUAL = ("weight", "kernel", "gamma", "weight_ih")


class _Claim(NamedTuple):
    """The arrays that a node reads as weights, by what they are."""

    layer: str
    node: Node
    rule: NodeRule
    tensors: Mapping[str, Tensor]


def layers_of_nodes(nodes: Sequence[Node], tensors: Sequence[Tensor]) -> Iterator[LayerBlobs]:
    """Layers in the order of the nodes that first read them, then those that no rule knows."""
    left = {tensor.name: tensor for tensor in tensors}
    claims = list(_claims(nodes, left))
    for claim in claims:
        arrays = {leaf: tensor.load() for leaf, tensor in claim.tensors.items()}
        made = claim.rule.make(claim.node, arrays)
        yield from blobs_of(claim.layer, made, claim.tensors)
    yield from grouped(list(left.values()))


def _claims(nodes: Sequence[Node], left: dict[str, Tensor]) -> Iterator[_Claim]:
    readers = _readers(nodes)
    for node in nodes:
        rule = NODE_RULES.get(node.op)
        if rule is None:
            continue
        wanted = {
            leaf: name
            for leaf, name in zip(rule.leaves, node.inputs, strict=False)
            if leaf and name
        }
        if not wanted or not all(name in left for name in wanted.values()):
            continue
        if rule.may_add and "bias" not in wanted:
            wanted |= _added(node, left[wanted["weight"]].shape, readers, left)
        found = {leaf: left[name] for leaf, name in wanted.items()}
        if not rule.fits(node, {leaf: tensor.shape for leaf, tensor in found.items()}):
            continue
        for name in set(wanted.values()):
            del left[name]
        yield _Claim(_layer(node, next(iter(found.values()))), node, rule, found)


def _readers(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            found.setdefault(name, []).append(node)
    return found


def _added(
    node: Node,
    weight: tuple[int, ...],
    readers: Mapping[str, list[Node]],
    left: Mapping[str, Tensor],
) -> dict[str, str]:
    """The bias in an Add that alone reads what the node makes."""
    following = readers.get(node.outputs[0], []) if node.outputs else []
    if len(following) != 1 or following[0].op != "Add":
        return {}
    for name in following[0].inputs:
        if name in left and is_added_bias(node, weight, left[name].shape):
            return {"bias": name}
    return {}


def _layer(node: Node, first: Tensor) -> str:
    """The array's name without its last part, else the node's name, else the array's."""
    layer, leaf = split_name(first.name)
    if leaf in _USUAL and layer != first.name:
        return layer
    return node.layer or first.name
