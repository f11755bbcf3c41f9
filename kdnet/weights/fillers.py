"""Caffe's fillers: how a blob that no file fills gets its first values.

Every number is made from raw Philox words by formulas of additions, multiplications, divisions
and square roots, which IEEE 754 rounds alike on every machine. numpy's own distributions are not
used: they may change from one numpy release to the next.

A filler draws from ``philox(seed, "filler", key)``; with the layer's name and blob as the key, its
values do not depend on which other layers are in the net.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from kdnet.errors import Diagnostic, Span, WeightsError, fail
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights.random import CHUNK, philox, raw_words, unit_normal, unit_uniform

Shape = tuple[int, ...]
Floats = NDArray[np.float32]
Fill = Callable[[pb.FillerParameter, Shape, np.random.Generator, Floats], None]
Check = Callable[[pb.FillerParameter, Shape], str | None]


@dataclass(frozen=True)
class _Filler:
    """A registered filler; ``check`` says what is wrong with its parameters, or None."""

    fill: Fill
    check: Check | None
    random: bool


_fillers: dict[str, _Filler] = {}


def _filler(
    name: str, *, random: bool = True, check: Check | None = None
) -> Callable[[Fill], Fill]:
    """Register the decorated function as filler ``name``; it writes into its last argument."""

    def register(fill_function: Fill) -> Fill:
        if name in _fillers:
            raise ValueError(f'filler "{name}" is registered twice')
        _fillers[name] = _Filler(fill_function, check, random)
        return fill_function

    return register


def filler_names() -> tuple[str, ...]:
    """Every filler type, sorted."""
    return tuple(sorted(_fillers))


def is_random_filler(name: str) -> bool:
    """Whether a filler's values depend on the seed; False for constant and bilinear."""
    return name not in _fillers or _fillers[name].random


def check_filler(filler: pb.FillerParameter, shape: Shape, *, span: Span | None = None) -> None:
    """Check a filler against the shape it is to fill, without making any number.

    Raises:
        WeightsError: ``unknown-filler`` or ``bad-filler``, at ``span``.
    """
    found = _fillers.get(filler.type)
    if found is None:
        raise WeightsError(_unknown(filler.type, span))
    reason = _bad_sparse(filler) or (found.check(filler, shape) if found.check else None)
    if prod(shape) < 1 or min(shape, default=1) < 1:
        reason = f"a blob of shape {shape} has nothing to fill"
    if reason:
        fail(WeightsError, "bad-filler", f'filler "{filler.type}": {reason}', span=span)


def fill(
    filler: pb.FillerParameter,
    shape: Shape,
    *,
    seed: int,
    key: str,
    span: Span | None = None,
) -> Floats:
    """A new float32 blob of ``shape``, filled as the filler says.

    Args:
        filler: Its type, default "constant", and that type's parameters.
        shape: The blob's shape; axis 0 counts outputs, axis 1 inputs.
        seed: The run's seed.
        key: What is filled, e.g. "student/conv1/0".
        span: Where the filler is written, for messages.

    Raises:
        WeightsError: as :func:`check_filler`.
    """
    check_filler(filler, shape, span=span)
    values = np.empty(shape, np.float32)
    _fillers[filler.type].fill(filler, shape, philox(seed, "filler", key), values)
    return values


def _unknown(name: str, span: Span | None) -> Diagnostic:
    close = difflib.get_close_matches(name.lower(), filler_names(), n=1, cutoff=0.4)
    near = (f'did you mean "{close[0]}"?',) if close else ()
    every = f"the fillers are {', '.join(filler_names())}"
    return Diagnostic("unknown-filler", f'there is no filler "{name}"', span, (), (*near, every))


def _bad_sparse(filler: pb.FillerParameter) -> str | None:
    if filler.sparse != -1 and filler.type != "gaussian":
        return "sparse goes with gaussian only"
    return None


@_filler("constant", random=False)
def _constant(
    filler: pb.FillerParameter, _shape: Shape, _generator: np.random.Generator, out: Floats
) -> None:
    """Every value is ``value``, default 0."""
    out[...] = filler.value


def _check_uniform(filler: pb.FillerParameter, _shape: Shape) -> str | None:
    if not filler.min <= filler.max:
        return f"min {filler.min:g} is above max {filler.max:g}"
    return None


@_filler("uniform", check=_check_uniform)
def _uniform(
    filler: pb.FillerParameter, _shape: Shape, generator: np.random.Generator, out: Floats
) -> None:
    """U(min, max), default U(0, 1)."""
    _fill_uniform(generator, out, filler.min, filler.max)


def _check_gaussian(filler: pb.FillerParameter, shape: Shape) -> str | None:
    if not filler.std > 0:
        return f"std {filler.std:g} is not positive"
    if filler.sparse < -1:
        return f"sparse {filler.sparse} is negative"
    if shape and filler.sparse > shape[0]:
        return f"sparse {filler.sparse} is above the {shape[0]} outputs of shape {shape}"
    if filler.sparse >= 0 and not shape:
        return "sparse needs a blob with axes"
    return None


@_filler("gaussian", check=_check_gaussian)
def _gaussian(
    filler: pb.FillerParameter, shape: Shape, generator: np.random.Generator, out: Floats
) -> None:
    """N(mean, std²); with ``sparse`` s >= 0 a value is kept with probability s / shape[0].

    Otherwise it is 0, so that an output has s inputs that are not zero, on average, where inputs
    and outputs are as many.
    """
    _fill_normal(generator, out, filler.mean, filler.std)
    if filler.sparse >= 0:
        flat = out.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            part *= unit_uniform(raw_words(generator, part.size)) < filler.sparse / shape[0]


@_filler("positive_unitball")
def _positive_unitball(
    _filler: pb.FillerParameter, shape: Shape, generator: np.random.Generator, out: Floats
) -> None:
    """Uniform on [0, 1), then each item of axis 0 is divided by its sum, and so sums to 1.

    The uniform numbers are whole multiples of 2^-24 (float32 holds no more bits), so that the sum
    of up to 2^29 of them is exact in float64, in whatever order it is taken.
    """
    flat = out.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        part[...] = raw_words(generator, part.size) >> np.uint64(40)
    items = out.reshape(shape[0] if shape else 1, -1)
    totals = np.maximum(items.sum(axis=1, keepdims=True, dtype=np.float64), 1.0)
    np.divide(items, totals, out=items, casting="same_kind")


def _fan(filler: pb.FillerParameter, shape: Shape) -> float:
    """Caffe's n: fan_in = count / shape[0], fan_out = count / shape[1], or their average."""
    count = prod(shape)
    fan_in = count // shape[0] if shape else count
    fan_out = count // shape[1] if len(shape) > 1 else count
    if filler.variance_norm == pb.FillerParameter.FAN_OUT:
        return fan_out
    if filler.variance_norm == pb.FillerParameter.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_in


@_filler("xavier")
def _xavier(
    filler: pb.FillerParameter, shape: Shape, generator: np.random.Generator, out: Floats
) -> None:
    """U(-√(3/n), √(3/n)), whose variance is 1/n; n as ``variance_norm`` says.

    Source: X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward
    neural networks", 2010.
    """
    scale = math.sqrt(3 / _fan(filler, shape))
    _fill_uniform(generator, out, -scale, scale)


@_filler("msra")
def _msra(
    filler: pb.FillerParameter, shape: Shape, generator: np.random.Generator, out: Floats
) -> None:
    """N(0, 2/n); n as ``variance_norm`` says.

    Source: K. He et al., "Delving deep into rectifiers", 2015.
    """
    _fill_normal(generator, out, 0.0, math.sqrt(2 / _fan(filler, shape)))


def _check_bilinear(_filler: pb.FillerParameter, shape: Shape) -> str | None:
    if len(shape) != 4:
        return f"a blob of shape {shape} does not have 4 axes"
    if shape[2] != shape[3]:
        return f"the kernel of shape {shape} is not square"
    return None


@_filler("bilinear", random=False, check=_check_bilinear)
def _bilinear(
    _filler: pb.FillerParameter, shape: Shape, _generator: np.random.Generator, out: Floats
) -> None:
    """The kernel that makes a Deconvolution interpolate linearly, the same in every channel.

    w[y, x] = (1 - |x/f - c|) (1 - |y/f - c|) with f = ⌈k/2⌉ and c = (k - 1) / (2 f) for kernel
    size k.
    """
    size = shape[3]
    factor = (size + 1) // 2
    centre = (size - 1) / (2 * factor)
    ramp = 1 - np.abs(np.arange(size) / factor - centre)
    out[...] = ramp[:, np.newaxis] * ramp


def _fill_uniform(generator: np.random.Generator, out: Floats, low: float, high: float) -> None:
    flat = out.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        part[...] = unit_uniform(raw_words(generator, part.size)) * (high - low) + low


def _fill_normal(generator: np.random.Generator, out: Floats, mean: float, std: float) -> None:
    flat = out.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        part[...] = unit_normal(generator, part.size) * std + mean
