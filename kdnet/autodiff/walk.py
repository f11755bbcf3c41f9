"""The reverse walk: from the loss to the wanted tensors and nowhere else.

It owns what every rule would otherwise repeat: which ops lie on a path from a wanted tensor to
the loss, the sum where a tensor is read more than once, and the reduction where an op broadcast.
A tensor without a gradient is absent, never zero, so a frozen teacher costs no node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kdnet.autodiff.registry import Call, is_differentiable, rule_of
from kdnet.graph import Emitter, Op, Tensor


def gradients(
    g: Emitter, seeds: Sequence[tuple[Tensor, Tensor]], wanted: Iterable[Tensor]
) -> dict[Tensor, Tensor]:
    """Gradients of Σ ⟨output, seed⟩ with respect to each wanted tensor that it depends on.

    Args:
        g: the graph, to which the gradient ops are appended.
        seeds: pairs of a tensor and the gradient that arrives there, of the same shape.
        wanted: the tensors to differentiate by.

    Returns:
        A gradient for each wanted tensor on a path to a seed; the others are left out.
    """
    # In the order given: a set's would differ from one compilation to the next.
    targets = tuple(dict.fromkeys(wanted))
    ops = list(g.ops)
    active = reached(ops, targets)
    found: dict[Tensor, list[Tensor]] = {}
    for tensor, seed in seeds:
        if tensor in active:
            found.setdefault(tensor, []).append(seed)
    for op in reversed(ops):
        if not any(output in found for output in op.outputs) or not is_differentiable(op):
            continue
        wants = tuple(tensor in active for tensor in op.inputs)
        if any(wants):
            _visit(g, op, wants, found)
    return {tensor: _total(g, tensor, found[tensor]) for tensor in targets if tensor in found}


def reached(ops: Sequence[Op], targets: Iterable[Tensor]) -> set[Tensor]:
    """The float tensors that depend on a target through differentiable ops."""
    active = set(targets)
    for op in ops:
        if is_differentiable(op) and any(tensor in active for tensor in op.inputs):
            active.update(tensor for tensor in op.outputs if tensor.is_float)
    return active


def _visit(g: Emitter, op: Op, wants: tuple[bool, ...], found: dict[Tensor, list[Tensor]]) -> None:
    with g.scope(f"grad/{op.name}", op.source):
        arriving = [_total(g, t, found[t]) if t in found else None for t in op.outputs]
        returned = rule_of(op)(g, Call(op, wants), *arriving)
        for tensor, want, gradient in zip(op.inputs, wants, returned, strict=True):
            if want and tensor is not None and gradient is not None:
                found.setdefault(tensor, []).append(_unbroadcast(g, gradient, tensor.shape))


def _total(g: Emitter, tensor: Tensor, parts: list[Tensor]) -> Tensor:
    """The sum of the parts, kept as the only part so that it is emitted once."""
    if len(parts) > 1:
        with g.scope(f"grad/{tensor.name}"):
            total = parts[0]
            for part in parts[1:]:
                total = g.add(total, part)
        parts[:] = [total]
    return parts[0]


def _unbroadcast(g: Emitter, gradient: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum over the axes along which a tensor of ``shape`` was repeated."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.rank - len(shape)
    axes = list(range(extra)) + [
        extra + axis
        for axis, size in enumerate(shape)
        if size == 1 and gradient.shape[extra + axis] != 1
    ]
    return g.reshape(g.reduce_sum(gradient, axes, keepdims=False), shape)
