"""Rows for the rules of ops that models of other frameworks bring."""

from __future__ import annotations

from tables.cases import OpCase, away_from, distinct, fixed, integers, normal, positive, uniform

AB, ABC = (0, 1), (0, 1, 2)
X = (2, 3, 4)
IMAGE = (2, 3, 4, 5)
KINKED = away_from(0, 0.1)


def _row(name, shapes, attrs=None, domain=normal, wrt=(0,), **more):
    return OpCase(name, name.partition("/")[0], shapes, attrs or {}, domain, wrt, **more)


def _zeros_too(rng, shape):
    """Rows with no zero, with one and with two."""
    x = rng.uniform(0.5, 2.0, shape)
    x[0, 0, 0] = x[1, 1, 0] = x[1, 1, 2] = 0
    return x


UNITS = [
    _row("Cos", [X]),
    _row("Elu", [X], {"alpha": 0.5}, KINKED),
    _row("Elu/default", [X], domain=KINKED),
    _row("Erf", [X]),
    _row("Gelu", [X]),
    _row("Gelu/tanh", [X], {"approximate": "tanh"}),
    _row("HardSigmoid", [X], {"alpha": 0.25, "beta": 0.4}, uniform(-1.5, 2.3)),
    _row("HardSigmoid/default", [X], domain=uniform(-4, 4)),
    _row("HardSwish", [X], domain=uniform(-5, 5)),
    _row("Max/many", [X, (3, 4), X, (4,)], wrt=(0, 1, 3)),
    _row("Max/one", [X]),
    _row("Min/many", [X, X, (1,)], wrt=ABC),
    _row("Mish", [X], domain=uniform(-6, 6)),
    _row("PRelu", [X, (3, 1)], domain=[KINKED, normal], wrt=AB),
    _row("PRelu/each", [X, X], domain=[KINKED, normal], wrt=AB),
    _row("Pow/computed", [X, X], domain=[positive, normal], wrt=AB),
    _row("Pow/zeros", [X, (4,)], domain=[positive, fixed(0, 1, 2, -0.5)]),
    _row("Selu", [X], {"alpha": 1.5, "gamma": 1.25}, KINKED),
    _row("Selu/default", [X], domain=KINKED),
    _row("Sin", [X]),
    _row("Softsign", [X], domain=KINKED),
    _row("ThresholdedRelu", [X], {"alpha": 0.5}, away_from(0.5, 0.1)),
    _row("ThresholdedRelu/default", [X], domain=away_from(1, 0.1)),
]
PRODUCTS = [
    _row("CumSum", [X, ()], domain=[normal, fixed(1, dtype=int)]),
    *[
        _row(f"Einsum/{name}", shapes, {"equation": equation}, wrt=tuple(range(len(shapes))))
        for name, equation, shapes in (
            ("ellipsis", "...ij,jk->...ik", [(2, 2, 3), (3, 4)]),
            ("implicit", "ij,jk", [(2, 3), (3, 4)]),
            ("lone-axis", "ijk,kl->il", [(2, 3, 4), (4, 2)]),
            ("outer", "i,j->ij", [(3,), (4,)]),
            ("three", "bi,ij,bj->b", [(2, 3), (3, 4), (2, 4)]),
            ("transposed", "bhqd,bhkd->bhqk", [(2, 2, 3, 4), (2, 2, 5, 4)]),
            ("trace-of-dots", "... -> ...", [(2, 3)]),
        )
    ],
    _row("Gemm/scaled", [(3, 4), (4, 5), (5,)], {"alpha": 0.5, "beta": -2.0}, wrt=ABC),
    _row("Gemm/scaled-trans", [(4, 3), (5, 4)], {"alpha": 3.0, "transA": 1, "transB": 1}, wrt=AB),
    _row("MatMul/column", [(2, 3, 4), (4,)], wrt=AB),
    _row("MatMul/row", [(4,), (2, 4, 5)], wrt=AB),
    _row("MatMul/vectors", [(4,), (4,)], wrt=AB),
    *[
        _row(f"CumSum/{name}", [X, ()], attrs, domain=[normal, fixed(-2, dtype=int)])
        for name, attrs in (
            ("exclusive", {"exclusive": 1}),
            ("reverse", {"reverse": 1, "exclusive": 1}),
        )
    ],
    *[
        _row(f"{op}/{name}", [X, *axes], {"keepdims": keepdims}, domain=domain)
        for op, domain in (
            ("ReduceL1", KINKED),
            ("ReduceL2", normal),
            ("ReduceLogSum", positive),
            ("ReduceLogSumExp", normal),
            ("ReduceProd", positive),
            ("ReduceSumSquare", normal),
        )
        for name, axes, keepdims in (("all", [], 0), ("kept", [[0, -1]], 1), ("one", [[1]], 0))
    ],
    _row("ReduceProd/zeros", [X, [-1]], domain=_zeros_too),
]
MOVES = [
    _row("DepthToSpace", [(1, 8, 2, 3)], {"blocksize": 2}),
    _row("DepthToSpace/crd", [(1, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"}),
    _row("Gather/last-row", [X, [-1]], {"axis": 1}),
    _row("Gather/one-row", [X, [1]], {"axis": 2}),
    _row("GatherND", [X, (2, 2)], domain=[normal, integers(2)]),
    *[
        _row(f"Pad/{mode}", [(2, 4, 5), [0, 2, 1, 0, 1, 3]], {"mode": mode})
        for mode in ("edge", "reflect", "wrap")
    ],
    _row(
        "ScatterElements",
        [(3, 4), (2, 4), (2, 4)],
        {"axis": 0},
        [normal, fixed(0, 1, 2, 1, 2, 0, 1, 0, dtype=int), normal],
        wrt=(0, 2),
    ),
    _row(
        "ScatterElements/add",
        [(3, 4), (3, 2), (3, 2)],
        {"axis": 1, "reduction": "add"},
        [normal, integers(4), normal],
        wrt=(0, 2),
    ),
    _row(
        "ScatterND",
        [X, (2, 1), (2, 3, 4)],
        domain=[normal, fixed(1, 0, dtype=int), normal],
        wrt=(0, 2),
    ),
    _row(
        "ScatterND/add",
        [X, (3, 2), (3, 4)],
        {"reduction": "add"},
        [normal, integers(2), normal],
        wrt=(0, 2),
    ),
    _row("Slice/backwards", [(7, 5), [5, -1], [0, -9], [0, 1], [-2, -1]]),
    _row("Slice/steps", [(7, 2, 8), [1, 0], [7, 99], [0, -1], [3, 2]]),
    _row("SpaceToDepth", [(1, 2, 4, 6)], {"blocksize": 2}),
    _row("TopK", [X, [2]], {"axis": 1}, distinct, outputs=2),
    _row("TopK/smallest", [X, [3]], {"largest": 0}, distinct, outputs=2),
    _row("Trilu", [X]),
    _row("Trilu/lower", [X, ()], {"upper": 0}, [normal, fixed(-1, dtype=int)]),
]
COORDINATES = "coordinate_transformation_mode"
NEAREST = "nearest_mode"


def _resize(name, sizes, shape=(1, 2, 3, 4), **attrs):
    return _row(f"Resize/{name}", [shape, None, None, [1, 2, *sizes]], attrs)


RESAMPLED = [
    _resize("align-corners", (5, 7), mode="linear", **{COORDINATES: "align_corners"}),
    _resize("ceil", (5, 6), **{COORDINATES: "asymmetric", NEAREST: "ceil"}),
    _resize("cubic", (6, 8), mode="cubic"),
    _resize("cubic-inside", (5, 6), mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    _resize("down", (2, 3), (1, 2, 5, 7), mode="linear"),
    _resize("floor", (6, 8), **{COORDINATES: "asymmetric", NEAREST: "floor"}),
    _resize("linear", (6, 9), mode="linear"),
    _resize("linear-3", (4, 3, 5), (1, 2, 2, 3, 3), mode="linear"),
    _resize("nearest", (6, 9)),
    _resize("one-place", (1, 8), mode="linear", **{COORDINATES: "pytorch_half_pixel"}),
    _resize("round-up", (5, 6), **{COORDINATES: "half_pixel", NEAREST: "round_prefer_ceil"}),
    _resize("symmetric", (5, 7), mode="linear", **{COORDINATES: "half_pixel_symmetric"}),
]
NORMALISED = [
    _row("InstanceNormalization", [IMAGE, (3,), (3,)], {"epsilon": 0.25}, wrt=ABC),
    _row("InstanceNormalization/default", [(2, 3, 6), (3,), (3,)], wrt=ABC),
    _row("LRN", [(2, 5, 2, 3)], {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 2.0}),
    _row("LRN/default", [(1, 4, 2, 2)], {"size": 5}),
    _row("LayerNormalization", [X, (4,), (4,)], {"epsilon": 0.25}, wrt=ABC),
    _row("LayerNormalization/axis", [X, (3, 4)], {"axis": 1}, wrt=AB),
    _row(
        "LayerNormalization/statistics", [X, (4,), (4,)], wrt=ABC, outputs=3, gradient_of=("y0",)
    ),
]
POOLED = [
    _row(
        "AveragePool/ceil-mode",
        [(1, 2, 6, 7)],
        {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1},
    ),
    _row(
        "AveragePool/inside",
        [(1, 2, 5, 6)],
        {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 1, 1, 0]},
    ),
    _row(
        "AveragePool/inside-ceil",
        [(1, 2, 6, 6)],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 0, 1], "ceil_mode": 1},
    ),
    _row("GlobalAveragePool", [IMAGE]),
    _row("GlobalMaxPool", [IMAGE], domain=distinct),
    _row(
        "MaxPool/ceil-mode",
        [(1, 2, 6, 7)],
        {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1},
        distinct,
    ),
]
CASES = [*UNITS, *PRODUCTS, *MOVES, *RESAMPLED, *NORMALISED, *POOLED]

# op, inputs, attributes, what the error says
REFUSED = [
    ("Einsum", [(3, 3)], {"equation": "ii->i"}, "with an axis twice in one factor"),
    ("Einsum", [(1, 3), (2, 4)], {"equation": "ij,ik->jk"}, "with sizes 1 and 2 along i"),
    ("GatherND", [(2, 2, 3), [[1], [0]]], {"batch_dims": 1}, "with batch_dims"),
    ("Pad", [(2, 3), [0, -1, 0, 1]], {}, "that cuts"),
    ("ScatterElements", [(2, 3), [[0, 1, 1]], (1, 3)], {"reduction": "mul"}, "with reduction mul"),
    ("Pad", [(2, 3), [0, 1], None, [1]], {}, "with axes: give the pads of every axis"),
    ("Resize", [(1, 1, 2, 2), None, None, [1, 1, 4, 4]], {"antialias": 1}, "with antialias"),
    (
        "Resize",
        [(1, 1, 2, 2), None, None, [1, 1, 4, 4]],
        {COORDINATES: "tf_half_pixel_for_nn"},
        "with coordinate_transformation_mode tf_half_pixel_for_nn",
    ),
]
