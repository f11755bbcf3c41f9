"""What the heavier feature losses compute, in numpy float64, written from the papers.

Nothing here imports kdnet. Bottoms come first, then weights, then parameters by keyword.
"""

from __future__ import annotations

from math import ceil, erf, pi

import numpy as np
import oracles

Array = np.ndarray

TEMPERATURE = float(np.float32(0.07))


def _log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def _unit(x: Array) -> Array:
    """Each item by its length."""
    rows = x.reshape(len(x), -1)
    return rows / np.sqrt((rows**2).sum(1, keepdims=True))


def conv(x: Array, w: Array, b: Array | None = None) -> Array:
    """With a stride of 1 and as much padding as keeps the size."""
    axes = x.ndim - 2
    pads = [size // 2 for size in w.shape[2:]] * 2
    return oracles.conv(x, w, b, strides=[1] * axes, dilations=[1] * axes, pads=pads, group=1)


def batch_norm(x: Array, scale: Array, shift: Array) -> Array:
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    spread = (-1, *[1] * (x.ndim - 2))
    y = (x - mean) / np.sqrt(variance + 1e-5)
    return y * scale.reshape(spread) + shift.reshape(spread)


def connected(s: Array, weight: Array, scale: Array, shift: Array) -> Array:
    """The projector of AB and OFD."""
    product = conv(s, weight) if s.ndim > 2 else s @ weight.T
    return batch_norm(product, scale, shift)


def pool(x: Array, size: tuple[int, ...]) -> Array:
    """Adaptive average pooling of maps, place by place."""
    found = np.empty((*x.shape[:2], *size))
    for place in np.ndindex(size):
        window = tuple(
            slice(i * n // o, ceil((i + 1) * n / o))
            for i, n, o in zip(place, x.shape[2:], size, strict=True)
        )
        found[(..., *place)] = x[(..., *window)].mean((2, 3))
    return found


def nearest(x: Array, size: tuple[int, int]) -> Array:
    rows, columns = (np.arange(o) * n // o for n, o in zip(x.shape[2:], size, strict=True))
    return x[:, :, rows][:, :, :, columns]


def channel_wise(s: Array, t: Array, *, temperature: float = 4.0) -> Array:
    rows = (*s.shape[:2], -1)
    log_q = _log_softmax(s.reshape(rows) / temperature, 2)
    log_p = _log_softmax(t.reshape(rows) / temperature, 2)
    return np.mean((np.exp(log_p) * (log_p - log_q)).sum(2)) * temperature**2


def boundary(s: Array, t: Array, *projector: Array, margin: float = 1.0) -> Array:
    if projector:
        s = connected(s, *projector)
    off = (s > -margin) & (t <= 0)
    on = (s <= margin) & (t > 0)
    return np.sum((s + margin) ** 2 * off + (s - margin) ** 2 * on) / len(s)


def normal_margin(scale: float, shift: float) -> float:
    """The mean of a normal variable where it is negative."""
    deviation = abs(scale)
    share = (1 - erf(shift / deviation / np.sqrt(2))) / 2
    if share <= 0.001:
        return -3 * deviation
    density = np.exp(-((shift / deviation) ** 2) / 2) / np.sqrt(2 * pi)
    return shift - deviation * density / share


def batch_margin(t: Array) -> Array:
    rows = np.moveaxis(t, 1, 0).reshape(t.shape[1], -1)
    return np.array([row[row < 0].mean() if (row < 0).any() else 0.0 for row in rows])


def overhaul(s: Array, t: Array, margins: Array) -> Array:
    """By the three cases of the teacher's value."""
    m = np.broadcast_to(margins, t.shape[1]).reshape(-1, *[1] * (t.ndim - 2))
    low = (s - m) ** 2 * ((s > m) & (t <= m))
    middle = (s - t) ** 2 * ((s > t) & (t > m) & (t <= 0))
    return np.sum(low + middle + (s - t) ** 2 * (t > 0)) / len(s)


def overhaul_given(s: Array, t: Array, *projector: Array, margin: Array) -> Array:
    return overhaul(connected(s, *projector), t, np.asarray(margin))


def overhaul_batch(s: Array, t: Array, *projector: Array) -> Array:
    return overhaul(connected(s, *projector) if projector else s, t, batch_margin(t))


def overhaul_normal(s: Array, t: Array, *weights: Array) -> Array:
    margins = [normal_margin(*pair) for pair in zip(*weights[3:], strict=True)]
    return overhaul(connected(s, *weights[:3]), t, np.array(margins))


def stack(x: Array, weights: tuple[Array, ...], each: int = 2) -> Array:
    """Convolutions with leaky ReLUs, batch normalised where each has four blobs."""
    for start in range(0, len(weights), each):
        x = conv(x, *weights[start : start + 2])
        if each == 4:
            x = batch_norm(x, *weights[start + 2 : start + 4])
        x = np.where(x > 0, x, np.float64(np.float32(0.1)) * x)
    return x


def factor_transfer(
    s: Array, t: Array, *translator: Array, channel_power: int = 0, power: int = 1
) -> Array:
    s = stack(s, translator, 4 if len(translator) == 12 else 2)
    size = tuple(min(pair) for pair in zip(s.shape[2:], t.shape[2:], strict=True))
    factors = []
    for x in (pool(s, size), pool(t, size)):
        factors.append(_unit((x**channel_power).mean(1) if channel_power else x))
    return np.mean(np.abs(factors[0] - factors[1]) ** power)


def paraphraser(x: Array, *weights: Array, tops: int = 2) -> tuple[Array, ...]:
    factor = stack(x, weights[:6])
    return (factor, stack(factor, weights[6:]))[:tops]


def hierarchical(s: Array, t: Array) -> float:
    total, weight, weights = np.mean((s - t) ** 2), 1.0, 1.0
    for size in (4, 2, 1):
        if size < s.shape[2]:
            weight /= 2
            total += weight * np.mean((pool(s, (size, size)) - pool(t, (size, size))) ** 2)
            weights += weight
    return total / weights


def review(*inputs: Array, levels: int) -> Array:
    maps = [x.reshape(*x.shape, 1, 1) if x.ndim == 2 else x for x in inputs[: 2 * levels]]
    weights, result, total = inputs[2 * levels :], None, 0.0
    for level in reversed(range(levels)):
        own = weights[level * 8 : level * 8 + 8]
        x, t = batch_norm(conv(maps[level], own[0]), *own[1:3]), maps[levels + level]
        if result is not None:
            r = nearest(result, x.shape[2:])
            shares = 1 / (1 + np.exp(-conv(np.concatenate([x, r], 1), *own[6:8])))
            x = x * shares[:, :1] + r * shares[:, 1:]
        result = nearest(x, t.shape[2:])
        total += hierarchical(batch_norm(conv(result, own[3]), *own[4:6]), t)
    return np.asarray(total)


def contrast(
    s: Array,
    t: Array,
    *rest: Array,
    noise: Array | None = None,
    temperature: float = TEMPERATURE,
    momentum: float = 0.5,
) -> tuple[Array, ...]:
    """The loss, then both memories, the normalisers and the counter after the step."""
    counter = rest[-1] if len(rest) == 8 and rest[0].ndim == 2 else None
    first = 0 if counter is not None else len(rest) - 7
    numbers, weights = rest[:first], rest[first : first + 7]
    records = len(weights[4])
    v = _unit(s.reshape(len(s), -1) @ weights[0].T + weights[1])
    u = _unit(t.reshape(len(t), -1) @ weights[2].T + weights[3])
    if counter is None:
        own = numbers[0].astype(int)
    else:
        own = (int(counter[0]) + np.arange(len(s))) % records
    if len(numbers) > 1:
        negatives = numbers[1].astype(int)
    else:
        negatives = np.floor(noise * records).astype(int)
    index = np.concatenate([own[:, np.newaxis], negatives], 1)
    loss, constants = 0.0, []
    for x, memory, known in ((v, weights[5], weights[6][0]), (u, weights[4], weights[6][1])):
        powers = np.exp(np.einsum("nd,nkd->nk", x, memory[index]) / temperature)
        constants.append(powers.mean() * records if known < 0 else known)
        loss += contrast_term(powers / constants[-1], records)
    after = [moved(m, x, own, momentum) for m, x in ((weights[4], v), (weights[5], u))]
    found = (np.asarray(loss), *after, np.array(constants))
    return found if counter is None else (*found, (counter + len(s)) % records)


def contrast_term(p: Array, records: int) -> float:
    chance = (p.shape[1] - 1) / records
    hit = np.log(p[:, 0] / (p[:, 0] + chance + 1e-7)).sum()
    return -(hit + np.log(chance / (p[:, 1:] + chance + 1e-7)).sum()) / len(p)


def moved(memory: Array, embedding: Array, own: Array, momentum: float) -> Array:
    """Every row from its old value; of a record's several items the last one counts."""
    found = memory.copy()
    for row, record in zip(embedding, own, strict=True):
        found[record] = momentum * memory[record] + (1 - momentum) * row
        found[record] /= np.linalg.norm(found[record])
    return found
