"""The one keyed random generator: fillers, dropout masks and augmentation all draw from it.

A number depends only on the seed and on the key it is drawn under (a layer's name, an
iteration), never on what was drawn before. So a resumed run, a net with one layer more, and a
run on another device see the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Words = NDArray[np.uint64]

# Values made at a time: their temporaries stay in the processor's cache. The order of normal
# values depends on it.
CHUNK = 8192

_SQRT_HALF_BITS = int(np.float64(math.sqrt(0.5)).view(np.int64))
_LOG_TERMS = [1 / (2 * k + 1) for k in range(8)]
_SIN_TERMS = [(-1) ** k / math.factorial(2 * k + 1) for k in range(9)]
_COS_TERMS = [(-1) ** k / math.factorial(2 * k) for k in range(10)]


def philox(seed: int, *key: str | int) -> np.random.Generator:
    """A generator of the Philox4x64-10 stream that belongs to ``(seed, *key)``.

    The 128-bit Philox key is a BLAKE2b digest of the parts, each written with its kind and its
    length, so that ``("ab", "c")`` and ``("a", "bc")``, or ``1`` and ``"1"``, differ. Python's own
    ``hash`` would differ between processes.

    The raw words of the stream, and ``Generator.random``, which scales them, are the same in
    every numpy; its other distributions may change between numpy releases.

    Args:
        seed: The run's seed, any integer.
        key: What the numbers are for, e.g. ``"dropout", "student/drop1", iteration``.

    Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (int(seed), *key):
        text = str(part).encode()
        kind = b"s" if isinstance(part, str) else b"i"
        digest.update(kind + str(len(text)).encode() + b":" + text)
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest.digest(), "little")))


def raw_words(generator: np.random.Generator, count: int) -> Words:
    """The next ``count`` 64-bit words of the stream."""
    return np.asarray(generator.bit_generator.random_raw(count), np.uint64)


def unit_uniform(words: Words) -> Doubles:
    """Numbers of [0, 1) with 53 random bits, from the high bits of each word."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def unit_normal(generator: np.random.Generator, count: int) -> Doubles:
    """``count`` <= :data:`CHUNK` numbers of the standard normal distribution.

    Box-Muller, with two 64-bit words a pair:

        r = √(-2 ln u),  u ∈ (0, 1];   x = r sin a,  y = ±r cos a,  a ∈ [-π/2, π/2)

    Logarithm, sine and cosine are polynomials here, made of additions and multiplications alone:
    IEEE 754 rounds those alike everywhere, while the functions of a C library, and numpy's vector
    versions of them, differ in the last bit between machines. Their error is below 1e-13.

    Source: G. Box and M. Muller, "A note on the generation of random normal deviates", 1958.
    """
    pairs = (count + 1) // 2
    radius = np.sqrt(-2.0 * _log(unit_uniform(raw_words(generator, pairs)) + 2.0**-53))
    words = raw_words(generator, pairs)
    angle = (unit_uniform(words) - 0.5) * math.pi
    square = angle * angle
    sign = 1.0 - 2.0 * (words & np.uint64(1))
    values = np.empty(2 * pairs)
    np.multiply(radius * angle, _polynomial(square, _SIN_TERMS), out=values[:pairs])
    np.multiply(radius * sign, _polynomial(square, _COS_TERMS), out=values[pairs:])
    return values[:count]


def _log(x: Doubles) -> Doubles:
    """ln x = e ln 2 + 2 artanh((m - 1) / (m + 1)) for x = m 2^e > 0 with m in [√½, √2)."""
    bits = x.view(np.int64)
    exponent = (bits - _SQRT_HALF_BITS) >> 52
    mantissa = (bits - (exponent << 52)).view(np.float64)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    result: Doubles = ratio * _polynomial(ratio * ratio, _LOG_TERMS) * 2.0
    result += exponent * math.log(2.0)
    return result


def _polynomial(x: Doubles, terms: Sequence[float]) -> Doubles:
    """Σ_k terms[k] x^k by Horner's rule, in place."""
    value = np.full_like(x, terms[-1])
    for term in terms[-2::-1]:
        value *= x
        value += term
    return value
