"""The one keyed random generator: fillers, dropout masks and augmentation all draw from it.

A number depends only on the seed and on the key it is drawn under (a layer's name, an
iteration), never on what was drawn before. So a resumed run, a net with one layer more, and a
run on another device see the same numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np


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
