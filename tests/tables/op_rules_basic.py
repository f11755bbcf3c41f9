"""Rows for arithmetic, nonlinearities, matrix products, reductions and moves of elements."""

from __future__ import annotations

from functools import partial

from tables.cases import (
    OpCase,
    away_from,
    booleans,
    distinct,
    fixed,
    integers,
    normal,
    positive,
    uniform,
)

AB = (0, 1)
X = (2, 3, 4)
KINKED = away_from(0, 0.1)
DOUBLE = 11


def _row(name, shapes, attrs=None, domain=normal, wrt=(0,), **more):
    return OpCase(name, name.partition("/")[0], shapes, attrs or {}, domain, wrt, **more)


ARITHMETIC = [
    _row("Abs", [X], domain=KINKED),
    _row("Add", [X, X], wrt=AB),
    _row("Add/broadcast", [(2, 1, 4), (3, 1)], wrt=AB),
    _row("Add/constant", [X, 2.5]),
    _row("Add/scalar", [X, ()], wrt=AB),
    _row("Clip", [X, -0.5, 0.75], domain=[away_from(-0.5, 0.01), normal, normal]),
    _row("Clip/from-below", [X, -0.5], domain=[away_from(-0.5, 0.01), normal]),
    _row("Div", [X, X], domain=[normal, positive], wrt=AB),
    _row("Div/broadcast", [(3, 1), X], domain=[normal, positive], wrt=AB),
    _row("Max", [X, X], wrt=AB),
    _row("Max/broadcast", [X, (4,)], wrt=AB),
    _row("Max/constant", [X, 0.5], domain=[away_from(0.5, 0.01), normal]),
    _row("Min", [X, X], wrt=AB),
    _row("Min/broadcast", [(3, 1), X], wrt=AB),
    _row("Mul", [X, X], wrt=AB),
    _row("Mul/broadcast", [(3, 1), X], wrt=AB),
    _row("Neg", [X]),
    _row("Pow/cube", [X, 3.0]),
    _row("Pow/fraction", [X, -0.75], domain=positive),
    _row("Pow/one", [X, 1.0]),
    _row("Pow/square", [X, 2.0]),
    _row("Pow/zero", [X, 0.0], domain=positive),
    _row("Reciprocal", [X], domain=positive),
    _row("Sqrt", [X], domain=positive),
    _row("Sub", [X, X], wrt=AB),
    _row("Sub/broadcast", [(4,), X], wrt=AB),
    _row("Sum", [X, X, (4,)], wrt=(0, 1, 2)),
    _row("Where", [(3, 4), X, X], domain=[booleans, normal, normal], wrt=(1, 2)),
    _row("Where/constant", [X, X, 0.5], domain=[booleans, normal, normal], wrt=(1,)),
]
NONLINEAR = [
    _row("Exp", [X]),
    _row("LeakyRelu", [X], {"alpha": 0.25}, domain=KINKED),
    _row("LeakyRelu/default", [X], domain=KINKED),
    _row("Log", [X], domain=positive),
    _row("LogSoftmax/first", [X], {"axis": 0}),
    _row("LogSoftmax/last", [X], {"axis": -1}),
    _row("LogSoftmax/wide", [(3, 4)], {"axis": 1}, domain=uniform(-30, 30)),
    _row("Relu", [X], domain=KINKED),
    _row("Sigmoid", [X], domain=uniform(-6, 6)),
    _row("Softmax/middle", [X], {"axis": 1}),
    _row("Softmax/one", [(3, 1)]),
    _row("Softplus", [X], domain=uniform(-6, 6)),
    _row("Tanh", [X]),
]
MATRICES = [
    *[
        _row(f"Gemm/{name}", [a, b, c], {"transA": flip_a, "transB": flip_b}, wrt=(0, 1, 2))
        for name, a, b, c, flip_a, flip_b in (
            ("plain", (3, 4), (4, 5), (5,), 0, 0),
            ("trans-a", (4, 3), (4, 5), (3, 1), 1, 0),
            ("trans-both", (4, 3), (5, 4), (3, 5), 1, 1),
            ("trans-b", (3, 4), (5, 4), (1, 5), 0, 1),
        )
    ],
    _row("Gemm/no-bias", [(3, 4), (4, 5)], wrt=AB),
    _row("MatMul", [(3, 4), (4, 5)], wrt=AB),
    _row("MatMul/batches", [(2, 3, 4), (2, 4, 5)], wrt=AB),
    _row("MatMul/broadcast", [(3, 4), (2, 2, 4, 5)], wrt=AB),
]
REDUCTIONS = [
    *[
        _row(f"{op}/{name}", [X, *axes], attrs, domain=distinct)
        for op in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
        for name, axes, attrs in (
            ("all", [], {"keepdims": 0}),
            ("kept", [[0, -1]], {"keepdims": 1}),
            ("one", [[1]], {"keepdims": 0}),
        )
    ],
]
BATCH_NORM = partial(
    _row,
    shapes=[(3, 2, 2, 3), (2,), (2,), (2,), (2,)],
    domain=[normal, normal, normal, normal, positive],
    wrt=(0, 1, 2),
)
MOVES = [
    BATCH_NORM("BatchNormalization", attrs={"epsilon": 0.25}),
    BATCH_NORM("BatchNormalization/default"),
    _row("Cast", [X], {"to": DOUBLE}),
    _row("Concat", [(2, 1), (2, 3), (2, 2)], {"axis": 1}, wrt=(0, 2)),
    _row("Concat/last", [(2, 1), (2, 3)], {"axis": -1}, wrt=AB),
    _row("Expand", [(3, 1), [2, 3, 4]]),
    _row("Flatten", [X], {"axis": 2}),
    _row("Gather", [(4, 3), (5,)], domain=[normal, integers(4)]),
    _row("Gather/axis-1", [X, (2, 2)], {"axis": 1}, domain=[normal, integers(3)]),
    _row("Gather/scalar", [X, ()], {"axis": -1}, domain=[normal, fixed(2, dtype=int)]),
    _row("GatherElements", [(3, 4), (3, 2)], {"axis": 1}, domain=[normal, integers(4)]),
    _row("Identity", [X]),
    _row("Pad", [X, [0, 1, 0, 2, 0, 3], 0.5]),
    _row("Pad/none", [(2, 3), [0, 0, 0, 0]]),
    _row("Pad/one-side", [(2, 3), [0, 2, 0, 0]]),
    _row("Reshape", [X, [4, 6]]),
    _row("Slice", [X, [1, -3], [3, -1], [1, -1], [1, 1]]),
    _row("Slice/to-the-end", [(5,), [2], [1 << 40], [0], [1]]),
    _row("Split", [(2, 6), [1, 2, 3]], {"axis": 1}, outputs=3),
    _row("Squeeze", [(2, 1, 3), [1]]),
    _row("Tile", [(2, 3), [2, 3]]),
    _row("Transpose", [X], {"perm": [2, 0, 1]}),
    _row("Transpose/reversed", [X]),
    _row("Unsqueeze", [(2, 3), [1]]),
]
CASES = [*ARITHMETIC, *NONLINEAR, *MATRICES, *REDUCTIONS, *MOVES]
