"""Rows of the layers that join, cut and reshape blobs, and of InnerProduct and Softmax."""

from __future__ import annotations

from functools import partial

import numpy as np
import oracles_layers as oracle

from tables.cases import LayerCase, distinct

THREE = [(2, 3, 2)] * 3


def _offset(by):
    return lambda rng, shape: distinct(rng, shape) + by


def _weighted(*xs, coefficients=(1, 1, 1)):
    return sum(c * x for c, x in zip(coefficients, xs, strict=True))


def _joined(*xs, axis=1):
    return np.concatenate(xs, axis)


def _as(*shape):
    return lambda x: x.reshape(shape)


CASES = (
    LayerCase("Concat/channels", 'type: "Concat"', [(2, 3, 2), (2, 1, 2), (2, 2, 2)], _joined),
    LayerCase(
        "Concat/concat_dim",
        'type: "Concat" concat_param { concat_dim: 0 }',
        [(2, 3), (1, 3)],
        partial(_joined, axis=0),
    ),
    LayerCase(
        "Concat/last_axis",
        'type: "Concat" concat_param { axis: -1 }',
        [(2, 3, 2), (2, 3, 1)],
        partial(_joined, axis=-1),
    ),
    LayerCase("Concat/one", 'type: "Concat"', [(2, 3)], _joined),
    LayerCase(
        "Eltwise/max",
        'type: "Eltwise" eltwise_param { operation: MAX }',
        THREE,
        lambda *xs: np.max(xs, axis=0),
        domain=[_offset(0), _offset(1 / 64), _offset(1 / 32)],
    ),
    LayerCase(
        "Eltwise/prod",
        'type: "Eltwise" eltwise_param { operation: PROD }',
        THREE,
        lambda a, b, c: a * b * c,
    ),
    LayerCase(
        "Eltwise/prod_unstable",
        'type: "Eltwise" eltwise_param { operation: PROD stable_prod_grad: false }',
        [(2, 3), (2, 3)],
        lambda a, b: a * b,
    ),
    LayerCase("Eltwise/sum", 'type: "Eltwise"', [(2, 3), (2, 3)], lambda a, b: a + b),
    LayerCase(
        "Eltwise/sum_coeff",
        'type: "Eltwise" eltwise_param { coeff: 0.5 coeff: -1 coeff: 1 }',
        THREE,
        partial(_weighted, coefficients=(0.5, -1, 1)),
    ),
    LayerCase("Eltwise/sum_three", 'type: "Eltwise"', THREE, _weighted),
    LayerCase(
        "Flatten/all",
        'type: "Flatten" flatten_param { axis: 0 }',
        [(2, 3, 2)],
        _as(12),
    ),
    LayerCase("Flatten/default", 'type: "Flatten"', [(2, 3, 2, 2)], _as(2, 12)),
    LayerCase(
        "Flatten/middle",
        'type: "Flatten" flatten_param { axis: -3 end_axis: -2 }',
        [(2, 3, 2, 2)],
        _as(2, 6, 2),
    ),
    LayerCase(
        "HDF5Output/two",
        'type: "HDF5Output" hdf5_output_param { file_name: "nowhere.h5" }',
        [(2, 3), (2,)],
        lambda *_: (),
        tops=0,
    ),
    LayerCase(
        "InnerProduct/axis",
        'type: "InnerProduct" inner_product_param { num_output: 4 axis: 2 }',
        [(2, 3, 5)],
        partial(oracle.inner_product, axis=2),
    ),
    LayerCase(
        "InnerProduct/default",
        'type: "InnerProduct" inner_product_param { num_output: 4 }',
        [(2, 3, 2)],
        oracle.inner_product,
    ),
    LayerCase(
        "InnerProduct/no_bias",
        'type: "InnerProduct" inner_product_param { num_output: 4 bias_term: false }',
        [(2, 3)],
        oracle.inner_product,
    ),
    LayerCase(
        "InnerProduct/transpose",
        'type: "InnerProduct" inner_product_param { num_output: 4 transpose: true }',
        [(2, 3)],
        partial(oracle.inner_product, transpose=True),
    ),
    LayerCase(
        "Reshape/copy_and_infer",
        'type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }',
        [(2, 3, 2, 2)],
        _as(2, 12),
    ),
    LayerCase(
        "Reshape/exact",
        'type: "Reshape" reshape_param { shape { dim: 4 dim: 3 } }',
        [(2, 3, 2)],
        _as(4, 3),
    ),
    LayerCase(
        "Reshape/insert_behind",
        'type: "Reshape" reshape_param { axis: -1 num_axes: 0 shape { dim: 1 dim: 1 } }',
        [(2, 3)],
        _as(2, 3, 1, 1),
    ),
    LayerCase(
        "Reshape/middle",
        'type: "Reshape" reshape_param { axis: 1 num_axes: 2 shape { dim: -1 dim: 2 } }',
        [(2, 3, 4, 2)],
        _as(2, 6, 2, 2),
    ),
    LayerCase("Silence/two", 'type: "Silence"', [(2, 3), (4,)], lambda *_: (), tops=0),
    LayerCase(
        "Slice/equal",
        'type: "Slice"',
        [(2, 6)],
        lambda x: oracle.cut(x, [2, 4], 1),
        tops=3,
    ),
    LayerCase(
        "Slice/many",
        'type: "Slice" slice_param { axis: 0 }',
        [(70, 2)],
        lambda x: oracle.cut(x, range(1, 70), 0),
        tops=70,
    ),
    LayerCase("Slice/one", 'type: "Slice"', [(2, 6)], lambda x: x),
    LayerCase(
        "Slice/points",
        'type: "Slice" slice_param { axis: -2 slice_point: 1 slice_point: 3 }',
        [(2, 6, 2)],
        lambda x: oracle.cut(x, [1, 3], 1),
        tops=3,
    ),
    LayerCase(
        "Slice/slice_dim",
        'type: "Slice" slice_param { slice_dim: 0 slice_point: 3 }',
        [(4, 2)],
        lambda x: oracle.cut(x, [3], 0),
        tops=2,
    ),
    LayerCase(
        "Softmax/default",
        'type: "Softmax"',
        [(2, 5, 2)],
        oracle.softmax,
    ),
    LayerCase(
        "Softmax/last_axis",
        'type: "Softmax" softmax_param { axis: -1 }',
        [(2, 2, 5)],
        partial(oracle.softmax, axis=-1),
    ),
    LayerCase("Split/two", 'type: "Split"', [(2, 3)], lambda x: (x, x), tops=2),
)
