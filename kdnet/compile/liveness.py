"""How much memory blobs take: what is alive at once, and what a backward pass keeps.

Counted on the ops that are emitted, as if each tensor were let go after its last reader and no op
worked in place; a runtime that reuses buffers takes less, one that plans worse takes more.
Weights, constants and what is computed from them alone are not counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from kdnet.graph import Op, Tensor

# Ops that show the same values under another shape.
VIEWS = frozenset(("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))


def bytes_of(tensor: Tensor) -> int:
    """The size of a tensor's values."""
    return tensor.size * tensor.dtype.itemsize


def peak_bytes(ops: Sequence[Op], fed: Iterable[Tensor], outputs: Collection[Tensor]) -> int:
    """The most that is alive at once while ``ops`` run in their order.

    Args:
        ops: those that are needed, in order.
        fed: what is there at the beginning.
        outputs: what stays to the end.
    """
    start = list(fed)
    moving = on_data(ops, start)
    owner = _owners(moving)
    last: dict[Tensor, int] = {}
    for index, op in enumerate(moving):
        last.update((owner.get(t, t), index) for t in op.inputs if t is not None)
    kept = {owner.get(tensor, tensor) for tensor in outputs}
    alive = set(start)
    taken = peak = sum(map(bytes_of, alive))
    for index, op in enumerate(moving):
        fresh = {owner[t] for t in op.outputs if owner[t] not in alive}
        alive |= fresh
        taken += sum(map(bytes_of, fresh))
        peak = max(peak, taken)
        read = {owner.get(t, t) for t in (*op.inputs, *op.outputs) if t is not None}
        done = {t for t in read if t in alive and t not in kept and last.get(t, index) <= index}
        alive -= done
        taken -= sum(map(bytes_of, done))
    return peak


def kept_bytes(first: Sequence[Op], second: Sequence[Op], fed: Iterable[Tensor]) -> int:
    """What ``first`` makes, or was fed, and ``second`` reads: a forward and a backward pass."""
    start = list(fed)
    before = on_data(first, start)
    owner = _owners(before)
    there = set(owner.values()).union(start)
    read = {owner.get(t, t) for op in second for t in op.inputs if t is not None}
    return sum(bytes_of(tensor) for tensor in read & there)


def on_data(ops: Sequence[Op], fed: Iterable[Tensor]) -> list[Op]:
    """The ops that depend on what is fed; arithmetic on weights alone is done once."""
    moving = set(fed)
    found = []
    for op in ops:
        if moving.intersection(op.inputs):
            moving.update(op.outputs)
            found.append(op)
    return found


def _owners(ops: Sequence[Op]) -> dict[Tensor, Tensor]:
    """For each tensor that an op makes, the one that holds its values."""
    owner: dict[Tensor, Tensor] = {}
    for op in ops:
        for tensor in op.outputs:
            source = op.input(0) if op.type in VIEWS else tensor
            owner[tensor] = owner.get(source, source)
    return owner
