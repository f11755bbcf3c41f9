"""Rows for the rules of convolution, pooling and normalisation."""

from __future__ import annotations

from tables.cases import OpCase, distinct, normal

WEIGHT = "conv_weight_gradient"
INPUT = "conv_input_gradient"

# id: shapes of x and w, attributes
CONVS = {
    "basic": ((2, 3, 6, 5), (4, 3, 3, 2), {}),
    "depthwise": ((2, 4, 5, 5), (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "dilated": ((1, 2, 8, 7), (2, 2, 3, 2), {"dilations": [2, 3]}),
    "dilated-rows": ((1, 2, 9, 8), (2, 2, 3, 2), {"dilations": [2, 1], "strides": [1, 2]}),
    "dilated-strided": ((1, 2, 9, 8), (2, 2, 3, 2), {"dilations": [2, 3], "strides": [3, 2]}),
    "end-unmet": ((1, 2, 8, 8), (3, 2, 3, 3), {"strides": [3, 4]}),
    "group": ((2, 4, 4, 5), (6, 2, 3, 2), {"group": 2, "pads": [1, 0, 1, 0]}),
    "one-by-one": ((3, 4, 3, 3), (5, 4, 1, 1), {}),
    "one-item": ((1, 2, 5, 5), (3, 2, 2, 2), {"pads": [1, 1, 1, 1]}),
    "one-position": ((2, 3, 3, 4), (5, 3, 3, 4), {}),
    "pads-differ": ((2, 2, 5, 6), (3, 2, 3, 3), {"pads": [0, 2, 1, 1], "strides": [2, 1]}),
    "pads-first": ((2, 2, 5, 6), (3, 2, 3, 3), {"pads": [2, 2, 0, 0], "strides": [1, 2]}),
    "pads-wide": ((1, 2, 3, 3), (2, 2, 2, 2), {"pads": [2, 3, 3, 2]}),
    "same": ((2, 3, 4, 4), (2, 3, 5, 5), {"pads": [2, 2, 2, 2]}),
    "space-1": ((2, 3, 9), (4, 3, 3), {"strides": [2], "pads": [1, 1]}),
    "space-3": ((1, 2, 4, 3, 4), (2, 2, 2, 2, 3), {"strides": [1, 1, 2], "pads": [1, 0, 1] * 2}),
    "stride-above-kernel": ((1, 2, 8, 7), (2, 2, 2, 2), {"strides": [3, 3]}),
    "strided": ((2, 3, 7, 7), (2, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
}


# Geometries that a lowering over all items at once treats in its own way.
FOLDED = ("depthwise", "dilated", "group", "one-item", "pads-first", "space-3")


def _conv(name, shapes, attrs, **lowerings):
    x, w = shapes
    return OpCase(f"Conv/{name}", "Conv", [x, w, w[:1]], attrs, wrt=(0, 1, 2), lowerings=lowerings)


def _lowerings(name, attrs):
    fits = ["columns"]
    if attrs.get("strides", [1])[0] == 1:
        fits.append("shifts")
    folded = [f"{one}-folded" for one in fits if name in FOLDED]
    last = ["channels-last"] if attrs.get("dilations", [1])[-1] == 1 else []
    return [*last, *fits, *folded]


CONV = [
    _conv(f"{name}-{lowering}", (x, w), attrs, **{WEIGHT: lowering, INPUT: "transposed"})
    for name, (x, w, attrs) in CONVS.items()
    for lowering in _lowerings(name, attrs)
]
FLIPPED = [
    _conv(f"{name}-flipped", (x, w), attrs, **{INPUT: "flipped"})
    for name, (x, w, attrs) in CONVS.items()
    if set(attrs.get("strides", [1])) == {1} and "group" not in attrs
]
NO_BIAS = [
    OpCase("Conv/cuda", "Conv", [(2, 3, 5, 5), (4, 3, 3, 3)], wrt=(0, 1), provider="cuda"),
    OpCase("Conv/no-bias", "Conv", [(2, 3, 5, 5), (4, 3, 3, 3)], wrt=(0, 1)),
    OpCase("ConvTranspose/no-bias", "ConvTranspose", [(2, 3, 3, 2), (3, 4, 3, 3)], wrt=(0, 1)),
]
TRANSPOSED = {
    "basic": ((2, 3, 3, 2), (3, 2, 3, 2), {}),
    "cut": ((1, 2, 4, 4), (2, 2, 3, 3), {"strides": [2, 2], "pads": [1, 0, 2, 1]}),
    "dilated": ((1, 2, 3, 4), (2, 3, 2, 3), {"dilations": [3, 2], "strides": [2, 1]}),
    "extra": ((1, 2, 3, 3), (2, 2, 3, 3), {"strides": [2, 3], "output_padding": [1, 2]}),
    "group": ((2, 4, 3, 3), (4, 3, 2, 2), {"group": 2, "strides": [2, 2]}),
    "space-1": ((2, 2, 4), (2, 3, 3), {"strides": [2], "pads": [1, 1]}),
    "upsample": (
        (1, 3, 3, 2),
        (3, 1, 4, 4),
        {"group": 3, "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
}
TRANSPOSE = [
    OpCase(
        f"ConvTranspose/{name}",
        "ConvTranspose",
        [x, w, (w[1] * attrs.get("group", 1),)],
        attrs,
        wrt=(0, 1, 2),
    )
    for name, (x, w, attrs) in TRANSPOSED.items()
]
POOLS = {
    "ceil": ((1, 2, 6, 7), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 0]}),
    "end-unmet": ((1, 2, 6, 8), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    "h-w": ((1, 2, 6, 7), {"kernel_shape": [3, 2], "strides": [1, 3], "pads": [1, 1, 1, 1]}),
    "one": ((1, 2, 4, 5), {"kernel_shape": [1, 1], "strides": [2, 2]}),
    "overlap": ((2, 2, 4, 5), {"kernel_shape": [3, 2]}),
    "pads": ((1, 2, 5, 5), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "space-1": ((1, 2, 9), {"kernel_shape": [3], "strides": [2]}),
    "space-1-tiles": ((1, 2, 9), {"kernel_shape": [3], "strides": [3]}),
    "space-3": ((1, 1, 4, 5, 4), {"kernel_shape": [2, 3, 2], "strides": [1, 2, 2]}),
    "stride-above-kernel": ((1, 2, 8, 7), {"kernel_shape": [2, 2], "strides": [3, 3]}),
    "tiles": ((2, 3, 6, 4), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "whole": ((2, 3, 3, 4), {"kernel_shape": [3, 4], "strides": [3, 4]}),
}
DILATED = {"kernel_shape": [2, 3], "dilations": [3, 2], "strides": [2, 1], "pads": [1, 2, 0, 2]}


def _pools(op, attrs=None, provider="cpu", domain=normal):
    suffix = "" if provider == "cpu" else f"-{provider}"
    return [
        OpCase(
            f"{op}/{name}{suffix}",
            op,
            [x],
            {**geometry, **(attrs or {})},
            domain,
            provider=provider,
        )
        for name, (x, geometry) in POOLS.items()
    ]


MAX = [
    *_pools("MaxPool", domain=distinct),
    OpCase("MaxPool/dilated", "MaxPool", [(1, 2, 8, 8)], DILATED, distinct),
    OpCase(
        "MaxPool/tiles-cuda",
        "MaxPool",
        [POOLS["tiles"][0]],
        POOLS["tiles"][1],
        distinct,
        provider="cuda",
    ),
    OpCase(
        "MaxPool/with-indices",
        "MaxPool",
        [POOLS["ceil"][0]],
        POOLS["ceil"][1],
        distinct,
        outputs=2,
    ),
]
AVERAGE = [
    *_pools("AveragePool", {"count_include_pad": 1}),
    *_pools("AveragePool", {"count_include_pad": 1}, provider="cuda"),
    OpCase(
        "AveragePool/dilated", "AveragePool", [(1, 2, 8, 8)], {**DILATED, "count_include_pad": 1}
    ),
    OpCase("AveragePool/no-padding", "AveragePool", [(1, 2, 5, 4)], {"kernel_shape": [3, 2]}),
]
CASES = [*CONV, *FLIPPED, *NO_BIAS, *TRANSPOSE, *MAX, *AVERAGE]

SQUARE = {"kernel_shape": [2, 2]}
# op, inputs, attributes, what the error says
REFUSED = [
    ("BatchNormalization", [(2, 3), (3,), (3,), (3,), (3,)], {}, "by its statistics"),
    (
        "Conv",
        [(1, 1, 4, 4), (1, 1, 2, 2)],
        {"auto_pad": "SAME_UPPER"},
        "with auto_pad or output_shape: write the pads out",
    ),
    (
        "ConvTranspose",
        [(1, 1, 4, 4), (1, 1, 2, 2)],
        {"output_shape": [5, 5]},
        "with auto_pad or output_shape: write the pads out",
    ),
    (
        "MaxPool",
        [(1, 1, 4, 4)],
        {**SQUARE, "auto_pad": "VALID"},
        "with auto_pad: write the pads out",
    ),
    ("ReduceSum", [(2, 3)], {"noop_with_empty_axes": 1}, "with noop_with_empty_axes"),
]
