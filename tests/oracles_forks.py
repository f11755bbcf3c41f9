"""What the layers of Caffe's forks compute, in numpy float64, place by place as the forks do.

Nothing here imports kdnet. Bottoms come first, then weights, then parameters by keyword.
"""

from __future__ import annotations

from math import floor

import numpy as np

Array = np.ndarray


def axpy(a: Array, x: Array, y: Array) -> Array:
    """hujie-frank/SENet axpy_layer."""
    found = np.array(y)
    for n, c in np.ndindex(*x.shape[:2]):
        found[n, c] += a.reshape(x.shape[:2])[n, c] * x[n, c]
    return found


def shuffle_channel(x: Array, *, group: int) -> Array:
    """farmingyard/ShuffleNet shuffle_channel_layer: rows become columns."""
    found, columns = np.empty_like(x), x.shape[1] // group
    for row in range(group):
        for column in range(columns):
            found[:, column * group + row] = x[:, row * columns + column]
    return found


def normalize(
    x: Array, scale: Array, *, across: bool = True, eps: float = float(np.float32(1e-10))
) -> Array:
    """weiliu89/caffe normalize_layer."""
    found = np.empty_like(x)
    for n in range(len(x)):
        if across:
            norm = np.sqrt(np.sum(x[n] ** 2) + eps)
            found[n] = x[n] / norm
            continue
        for place in np.ndindex(*x.shape[2:]):
            vector = x[(n, slice(None), *place)]
            found[(n, slice(None), *place)] = vector / np.sqrt(vector @ vector + eps)
    return found * scale.reshape(-1, *[1] * (x.ndim - 2))


def l1_loss(a: Array, b: Array) -> Array:
    """NVIDIA/caffe l1_loss_layer."""
    return np.asarray(np.sum(np.abs(a - b.reshape(a.shape))) / len(a))


def smooth_l1_loss(
    a: Array, b: Array, inside: Array | None = None, outside: Array | None = None, *, sigma=1.0
) -> Array:
    """rbgirshick/caffe-fast-rcnn smooth_L1_loss_layer."""
    total = 0.0
    for place in np.ndindex(*a.shape):
        d = a[place] - b[place]
        d *= 1 if inside is None else inside[place]
        far = abs(d)
        term = d * d * sigma**2 / 2 if far < 1 / sigma**2 else far - 0.5 / sigma**2
        total += term * (1 if outside is None else outside[place])
    return np.asarray(total / len(a))


def interp(x: Array, *, size: tuple[int, int], begin: int = 0, end: int = 0) -> Array:
    """hszhao/PSPNet interp_layer and interp: pixel by pixel."""
    x = x[:, :, begin : x.shape[2] - end, begin : x.shape[3] - end]
    high, wide = x.shape[2:]
    steps = [(a - 1) / (b - 1) if b > 1 else 0.0 for a, b in zip((high, wide), size, strict=True)]
    found = np.empty((*x.shape[:2], *size))
    for i, j in np.ndindex(*size):
        top, left = floor(steps[0] * i + 1e-9), floor(steps[1] * j + 1e-9)
        down, right = int(top < high - 1), int(left < wide - 1)
        low, side = steps[0] * i - top, steps[1] * j - left
        found[:, :, i, j] = (1 - low) * (
            (1 - side) * x[:, :, top, left] + side * x[:, :, top, left + right]
        ) + low * (
            (1 - side) * x[:, :, top + down, left] + side * x[:, :, top + down, left + right]
        )
    return found


def unpool(x: Array, mask: Array, *, size: tuple[int, int]) -> Array:
    """alexgkendall/caffe-segnet upsample_layer."""
    found = np.zeros((*x.shape[:2], size[0] * size[1]))
    for n, c, i, j in np.ndindex(*x.shape):
        found[n, c, int(mask[n, c, i, j])] = x[n, c, i, j]
    return found.reshape(*x.shape[:2], *size)


def repeated(x: Array, *, scale: int) -> Array:
    """eric612/MobileNet-YOLO upsample_layer."""
    found = np.empty((*x.shape[:2], x.shape[2] * scale, x.shape[3] * scale))
    for i, j in np.ndindex(*found.shape[2:]):
        found[:, :, i, j] = x[:, :, i // scale, j // scale]
    return found


def _channels(x: Array) -> tuple[int, ...]:
    return (1, x.shape[1], *[1] * (x.ndim - 2))


def _moments(x: Array) -> tuple[Array, Array]:
    axes = (0, *range(2, x.ndim))
    mean = np.mean(x, axes, keepdims=True)
    return mean, np.mean((x - mean) ** 2, axes, keepdims=True)


def bn_train(
    x: Array,
    slope: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    *,
    kept: float = float(np.float32(0.9)),
    eps: float = float(np.float32(1e-5)),
) -> tuple[Array, Array, Array]:
    """yjxiong/caffe bn_layer in TRAIN: the top, then mean and variance as they become."""
    mu, v = _moments(x)
    y = (x - mu) / np.sqrt(v + eps) * slope.reshape(_channels(x)) + bias.reshape(_channels(x))
    later = [
        kept * old + (1 - kept) * new.reshape(old.shape)
        for old, new in ((mean, mu), (variance, v))
    ]
    return y, later[0], later[1]


def bn_stored(
    x: Array,
    slope: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    *,
    eps: float = float(np.float32(1e-5)),
) -> Array:
    """yjxiong/caffe bn_layer in TEST, or frozen."""
    s, b, mu, v = (blob.reshape(_channels(x)) for blob in (slope, bias, mean, variance))
    return (x - mu) / np.sqrt(v + eps) * s + b


def bn_learn(x: Array, scale: Array, shift: Array) -> tuple[Array, Array, Array]:
    """alexgkendall/caffe-segnet bn_layer with LEARN: the top, mean and variance."""
    mu, v = _moments(x)
    y = (x - mu) / np.sqrt(v + 1e-9) * scale.reshape(_channels(x)) + shift.reshape(_channels(x))
    return y, mu.reshape(scale.shape), v.reshape(scale.shape)


def bn_inference(x: Array, scale: Array, shift: Array) -> Array:
    """alexgkendall/caffe-segnet bn_layer with INFERENCE."""
    return x * scale.reshape(_channels(x)) + shift.reshape(_channels(x))


def softmax(x: Array, axis: int) -> Array:
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def divergence(
    student: Array,
    teacher: Array,
    labels: Array | None = None,
    *,
    temperature: float = 1.0,
    axis: int = 1,
    ignore: int | None = None,
    per_item: bool = False,
) -> Array:
    """T² times what wentianli/knowledge_distillation_caffe prints; at T = 1 also yjxiong/caffe's.

    ``per_item`` divides by the items of the batch.
    """
    p, q = softmax(teacher / temperature, axis), softmax(student / temperature, axis)
    terms = np.sum(p * (np.log(p) - np.log(q)), axis)
    counted = np.ones(terms.shape, bool)
    if labels is not None:
        counted = labels.reshape(terms.shape) != ignore
    divisor = np.prod(student.shape[:axis]) if per_item else max(1, counted.sum())
    return np.asarray(temperature**2 * np.sum(terms[counted]) / divisor)
