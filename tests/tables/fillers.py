"""The filler table: one row a way of filling, with what its numbers must look like."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class FillerCase:
    """A filler's prototxt text, the shape it fills, and its distribution.

    ``low`` and ``high`` bound every value, ``mean`` and ``std`` are those of the distribution.
    ``digest`` is the BLAKE2b-64 of the float32 bytes under seed 1 and key "case": it must never
    change, on any machine or with any numpy.
    """

    id: str
    text: str
    shape: tuple[int, ...]
    low: float
    high: float
    mean: float
    std: float
    digest: str


def uniform(id: str, text: str, shape: tuple[int, ...], bound: float, digest: str) -> FillerCase:
    """A row whose values spread evenly over ±bound."""
    return FillerCase(id, text, shape, -bound, bound, 0.0, bound / math.sqrt(3), digest)


def normal(
    id: str, text: str, shape: tuple[int, ...], mean: float, std: float, digest: str
) -> FillerCase:
    """A row of normal values; none of a few ten thousand lies six sigma out."""
    return FillerCase(id, text, shape, mean - 6 * std, mean + 6 * std, mean, std, digest)


# A convolution of 40 outputs and 20 inputs: fan_in 20·9 = 180, fan_out 40·9 = 360.
CONV = (40, 20, 3, 3)
BILINEAR_4 = (0.25, 0.75, 0.75, 0.25)
_BILINEAR_STD = math.sqrt((sum(v * v for v in BILINEAR_4) / 4) ** 2 - 0.25**2)

CASES = (
    FillerCase(
        "bilinear",
        'type: "bilinear"',
        (3, 1, 4, 4),
        0.0625,
        0.5625,
        0.25,
        _BILINEAR_STD,
        "d0aec1f5858f4876",
    ),
    FillerCase(
        "constant",
        'type: "constant" value: -1.5',
        (4, 5),
        -1.5,
        -1.5,
        -1.5,
        0.0,
        "941b692ac3bb4b2b",
    ),
    FillerCase("constant/default", "sparse: -1", (7,), 0.0, 0.0, 0.0, 0.0, "7ee3b386e23c135e"),
    normal("gaussian", 'type: "gaussian" mean: 2 std: 0.5', CONV, 2.0, 0.5, "3771d48ee92dec3c"),
    # A value is kept with probability 10/40, so the variance is a quarter of 1.
    FillerCase(
        "gaussian/sparse",
        'type: "gaussian" sparse: 10',
        CONV,
        -6.0,
        6.0,
        0.0,
        0.5,
        "781a7351da0fb9ba",
    ),
    normal("msra", 'type: "msra"', CONV, 0.0, math.sqrt(2 / 180), "51c31e71af1e70c3"),
    normal(
        "msra/average",
        'type: "msra" variance_norm: AVERAGE',
        CONV,
        0.0,
        math.sqrt(2 / 270),
        "97a72bbad7b2e935",
    ),
    normal(
        "msra/fan_out",
        'type: "msra" variance_norm: FAN_OUT',
        CONV,
        0.0,
        math.sqrt(2 / 360),
        "7a7f7237e8826ccb",
    ),
    # Items of 500 values that sum to 1: uniform on [0, 2/500), nearly.
    FillerCase(
        "positive_unitball",
        'type: "positive_unitball"',
        (20, 500),
        0.0,
        0.0046,
        0.002,
        0.004 / math.sqrt(12),
        "82c10da79c686292",
    ),
    FillerCase(
        "uniform", 'type: "uniform"', CONV, 0.0, 1.0, 0.5, 1 / math.sqrt(12), "843a2ba87fdf8a82"
    ),
    uniform("uniform/range", 'type: "uniform" min: -3 max: 3', CONV, 3.0, "6e48a2e7112c88ee"),
    uniform("xavier", 'type: "xavier"', CONV, math.sqrt(3 / 180), "a021ee008fe9fc30"),
    uniform(
        "xavier/average",
        'type: "xavier" variance_norm: AVERAGE',
        CONV,
        math.sqrt(3 / 270),
        "00507aded8cc65c5",
    ),
    uniform(
        "xavier/fan_out",
        'type: "xavier" variance_norm: FAN_OUT',
        CONV,
        math.sqrt(3 / 360),
        "01100fa36c494be3",
    ),
    # One axis: Caffe takes fan_in 1 and fan_out the count.
    uniform(
        "xavier/vector",
        'type: "xavier" variance_norm: FAN_OUT',
        (5000,),
        math.sqrt(3 / 5000),
        "e6ea1ed142906b07",
    ),
)
