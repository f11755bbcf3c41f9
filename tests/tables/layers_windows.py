"""Rows of Im2col, SPP, and of Convolution, Deconvolution and Pooling over any number of axes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import oracles
import oracles_windows as windows

from tables.cases import Array, LayerCase, Shape, distinct, positive

IDENTITY = {"stride": (1, 1), "pad": (0, 0), "dilation": (1, 1)}


def _im2col(case: str, bottom: Shape, text: str, **geometry: Any) -> LayerCase:
    return LayerCase(
        f"Im2col/{case}",
        f'type: "Im2col" convolution_param {{ {text} }}',
        (bottom,),
        partial(windows.im2col, **{**IDENTITY, **geometry}),
    )


def _pool(case: str, bottom: Shape, text: str, oracle: Callable[..., Array]) -> LayerCase:
    return LayerCase(
        f"Pooling/{case}",
        f'type: "Pooling" pooling_param {{ {text} }}',
        (bottom,),
        oracle,
        domain=distinct,
    )


def _drawn(case: str, bottom: Shape, text: str, noise: Shape, **window: Any) -> LayerCase:
    """STOCHASTIC in TRAIN, of positive values."""
    return LayerCase(
        f"Pooling/{case}",
        f'type: "Pooling" pooling_param {{ pool: STOCHASTIC {text} }}',
        (bottom,),
        partial(windows.picked, **window),
        domain=positive,
        noise=lambda rng, _bottom: rng.random(noise),
    )


def _weighted(
    case: str, bottom: Shape, text: str, domain: Any = positive, wrt: Any = None, **window: Any
) -> LayerCase:
    """STOCHASTIC in TEST."""
    return LayerCase(
        f"Pooling/{case}",
        f'type: "Pooling" pooling_param {{ pool: STOCHASTIC {text} }}',
        (bottom,),
        partial(windows.pool, reduce=windows.by_value, **window),
        domain=domain,
        wrt=wrt,
        phase="TEST",
    )


def _spp(case: str, bottom: Shape, text: str, oracle: Callable[..., Array], **more: Any) -> Any:
    text = f'type: "SPP" spp_param {{ {text} }}'
    return LayerCase(f"SPP/{case}", text, (bottom,), oracle, **{"domain": distinct, **more})


def _flat(op: Callable[..., Array], group: int) -> Callable[..., Array]:
    """A convolution without spatial axes: one of a single place."""

    def product(x: Array, w: Array, b: Array) -> Array:
        geometry = {"strides": [1], "dilations": [1], "pads": [0, 0], "group": group}
        return op(x[..., np.newaxis], w[..., np.newaxis], b, **geometry)[..., 0]

    return product


def _holes(rng: np.random.Generator, shape: Shape) -> Array:
    """Positive values, but whole rows of zeros, whose windows add up to nothing."""
    values = positive(rng, shape)
    values[:, :, : shape[2] // 2] = 0
    return values


def _noise_of_levels(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.random((*shape[:2], 5))


CASES = (
    LayerCase(
        "Convolution/no_spatial_axis",
        'type: "Convolution" convolution_param { num_output: 2 group: 2 }',
        ((3, 4),),
        _flat(oracles.conv, 2),
    ),
    LayerCase(
        "Convolution/three_spatial_axes_each",
        'type: "Convolution" convolution_param { num_output: 2 group: 2'
        " kernel_size: 3 kernel_size: 2 kernel_size: 2 stride: 2 stride: 1 stride: 3"
        " pad: 1 pad: 0 pad: 2 dilation: 1 dilation: 2 dilation: 1 }",
        ((1, 4, 5, 4, 6),),
        partial(oracles.convolution, stride=(2, 1, 3), pad=(1, 0, 2), dilation=(1, 2, 1), group=2),
    ),
    LayerCase(
        "Deconvolution/no_spatial_axis",
        'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 3 group: 2 }',
        ((3, 4),),
        _flat(oracles.conv_transpose, 2),
    ),
    LayerCase(
        "Deconvolution/three_spatial_axes",
        'type: "Deconvolution" convolution_param { num_output: 2 group: 2'
        " kernel_size: 3 kernel_size: 2 kernel_size: 2 stride: 2 stride: 1 stride: 2"
        " pad: 1 pad: 0 pad: 1 dilation: 1 dilation: 2 dilation: 1 }",
        ((1, 4, 2, 3, 2),),
        partial(
            oracles.conv_transpose,
            strides=(2, 1, 2),
            pads=(1, 0, 1, 1, 0, 1),
            dilations=(1, 2, 1),
            group=2,
        ),
    ),
    _im2col(
        "dilation",
        (1, 2, 5, 4),
        "kernel_size: 2 dilation: 2 engine: CAFFE",
        kernel=(2, 2),
        dilation=(2, 2),
    ),
    _im2col(
        "h_w",
        (2, 2, 4, 5),
        "kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 0 pad_w: 1 num_output: 7",
        kernel=(2, 3),
        stride=(1, 2),
        pad=(0, 1),
    ),
    _im2col("one_by_one", (1, 2, 3, 2), "kernel_size: 1", kernel=(1, 1)),
    _im2col(
        "one_spatial_axis",
        (2, 3, 7),
        "kernel_size: 3 stride: 2 pad: 1 force_nd_im2col: true",
        kernel=(3,),
        stride=(2,),
        pad=(1,),
        dilation=(1,),
    ),
    _im2col(
        "stride_above_kernel",
        (1, 2, 6, 6),
        "kernel_size: 1 stride: 4",
        kernel=(1, 1),
        stride=(4, 4),
    ),
    _im2col(
        "three_spatial_axes",
        (1, 2, 3, 4, 3),
        "kernel_size: 2 kernel_size: 2 kernel_size: 1 dilation: 1 dilation: 2 dilation: 1"
        " pad: 1 pad: 0 pad: 0 axis: -4",
        kernel=(2, 2, 1),
        stride=(1, 1, 1),
        pad=(1, 0, 0),
        dilation=(1, 2, 1),
    ),
    _pool(
        "ave_one_axis",
        (2, 2, 7),
        "pool: AVE kernel_size: 3 stride: 2 pad: 1",
        partial(windows.pool, reduce=windows.mean, kernel=(3,), stride=(2,), pad=(1,)),
    ),
    _pool(
        "ave_three_axes",
        (1, 2, 3, 4, 5),
        "pool: AVE kernel_shape: 1 kernel_shape: 2 kernel_shape: 3"
        " strides: 1 strides: 2 strides: 3 pads: 0 pads: 1 pads: 1",
        partial(
            windows.pool, reduce=windows.mean, kernel=(1, 2, 3), stride=(1, 2, 3), pad=(0, 1, 1)
        ),
    ),
    _pool(
        "global_three_axes",
        (2, 2, 2, 3, 2),
        "pool: AVE global_pooling: true",
        partial(windows.pool, reduce=windows.mean, kernel=(2, 3, 2)),
    ),
    _pool(
        "max_kernel_shape",
        (1, 2, 4, 6),
        "kernel_shape: 2 kernel_shape: 3 stride: 2",
        partial(windows.pool, reduce=windows.largest, kernel=(2, 3), stride=(2, 2)),
    ),
    _pool(
        "max_one_axis",
        (2, 2, 7),
        "kernel_size: 2 stride: 2",
        partial(windows.pool, reduce=windows.largest, kernel=(2,), stride=(2,)),
    ),
    _pool(
        "max_three_axes",
        (1, 2, 3, 4, 5),
        "kernel_size: 2 stride: 2 pad: 1",
        partial(
            windows.pool, reduce=windows.largest, kernel=(2, 2, 2), stride=(2, 2, 2), pad=(1, 1, 1)
        ),
    ),
    _weighted(
        "stochastic_test",
        (2, 2, 5, 4),
        "kernel_size: 3 stride: 2",
        kernel=(3, 3),
        stride=(2, 2),
    ),
    _weighted(
        "stochastic_test_of_zeros",
        (1, 2, 4, 4),
        "kernel_size: 2 stride: 2",
        _holes,
        wrt=[],
        kernel=(2, 2),
        stride=(2, 2),
    ),
    _drawn(
        "stochastic_train",
        (2, 2, 4, 6),
        "kernel_size: 2 stride: 2",
        (2, 2, 2, 3),
        kernel=(2, 2),
    ),
    _drawn(
        "stochastic_train_global",
        (2, 2, 3, 3),
        "global_pooling: true",
        (2, 2, 1, 1),
        kernel=(3, 3),
    ),
    _drawn(
        "stochastic_train_overlap",
        (1, 2, 5, 4),
        "kernel_h: 3 kernel_w: 2 stride: 2",
        (1, 2, 2, 2),
        kernel=(3, 2),
        stride=(2, 2),
    ),
    _drawn(
        "stochastic_train_partial",
        (1, 2, 5, 7),
        "kernel_size: 2 stride: 2",
        (1, 2, 3, 4),
        kernel=(2, 2),
    ),
    _spp(
        "ave",
        (1, 2, 5, 6),
        "pyramid_height: 2 pool: AVE",
        partial(windows.pyramid, reduce=windows.mean, levels=2),
    ),
    _spp(
        "ave_deep",
        (1, 1, 9, 7),
        "pyramid_height: 3 pool: AVE",
        partial(windows.pyramid, reduce=windows.mean, levels=3),
    ),
    _spp(
        "max",
        (2, 2, 4, 4),
        "pyramid_height: 3 engine: CAFFE",
        partial(windows.pyramid, reduce=windows.largest, levels=3),
    ),
    _spp(
        "max_uneven",
        (1, 2, 5, 7),
        "pyramid_height: 2",
        partial(windows.pyramid, reduce=windows.largest, levels=2),
    ),
    _spp(
        "one_level",
        (2, 3, 3, 2),
        "pyramid_height: 1",
        partial(windows.pyramid, reduce=windows.largest, levels=1),
    ),
    _spp(
        "stochastic_test",
        (2, 2, 4, 6),
        "pyramid_height: 2 pool: STOCHASTIC",
        partial(windows.pyramid, reduce=windows.by_value, levels=2),
        domain=positive,
        phase="TEST",
    ),
    _spp(
        "stochastic_train",
        (2, 2, 4, 6),
        "pyramid_height: 2 pool: STOCHASTIC",
        partial(windows.pyramid_picked, levels=2),
        domain=positive,
        noise=_noise_of_levels,
    ),
)
