"""Rows of Convolution, Pooling and LRN."""

from __future__ import annotations

from functools import partial

import oracles

from tables.cases import LayerCase, distinct, tied


def _conv(case: str, bottom: tuple[int, ...], text: str, **geometry) -> LayerCase:
    return LayerCase(
        f"Convolution/{case}",
        f'type: "Convolution" convolution_param {{ {text} }}',
        (bottom,),
        partial(oracles.convolution, **geometry),
    )


def _pool(case: str, bottom: tuple[int, ...], text: str, **geometry) -> LayerCase:
    return LayerCase(
        f"Pooling/{case}",
        f'type: "Pooling" pooling_param {{ {text} }}',
        (bottom,),
        partial(oracles.pooling, **geometry),
        domain=distinct,
    )


def _lrn(case: str, text: str, oracle, channels: int = 6) -> LayerCase:
    prototxt = f'type: "LRN" lrn_param {{ {text} }}'
    return LayerCase(f"LRN/{case}", prototxt, ((2, channels, 3, 4),), oracle)


def _on_axis_2(x, w, b):
    items = oracles.convolution(x.reshape(-1, *x.shape[2:]), w, b)
    return items.reshape(*x.shape[:2], *items.shape[1:])


def _each(x_0, x_1, w, b):
    return oracles.convolution(x_0, w, b), oracles.convolution(x_1, w, b)


def _with_mask(x):
    y = oracles.pooling(x, (3, 2), stride=(2, 2))
    return y, oracles.max_places(x, y, (3, 2), (2, 2))


WITHIN = "norm_region: WITHIN_CHANNEL"

CASES = (
    _conv("basic", (2, 3, 5, 4), "num_output: 2 kernel_size: 3 engine: CAFFE"),
    _conv(
        "dilation",
        (1, 2, 7, 6),
        "num_output: 3 kernel_size: 2 dilation: 3 dilation: 2 force_nd_im2col: true",
        dilation=(3, 2),
    ),
    _conv(
        "group",
        (2, 4, 5, 5),
        "num_output: 6 kernel_size: 3 group: 2 pad: 1 stride: 2",
        group=2,
        pad=(1,),
        stride=(2,),
    ),
    _conv(
        "h_w",
        (2, 2, 5, 6),
        "num_output: 2 kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 3 pad_h: 1 pad_w: 0",
        stride=(2, 3),
        pad=(1, 0),
    ),
    _conv("no_bias", (2, 2, 4, 4), "num_output: 2 kernel_size: 2 bias_term: false"),
    LayerCase(
        "Convolution/on_axis_2",
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: 2 axis: 2 }',
        ((2, 3, 2, 3, 4),),
        _on_axis_2,
    ),
    _conv("one_spatial_axis", (2, 3, 7), "num_output: 2 kernel_size: 3 axis: -2"),
    _conv("pad_h_alone", (1, 2, 3, 4), "num_output: 2 kernel_size: 3 pad_h: 2", pad=(2, 0)),
    _conv(
        "three_spatial_axes",
        (1, 2, 3, 4, 3),
        "num_output: 2 kernel_size: 2 pad: 1 pad: 0 pad: 1",
        pad=(1, 0, 1),
    ),
    LayerCase(
        "Convolution/two_bottoms",
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 }',
        ((1, 2, 4, 4), (1, 2, 4, 4)),
        _each,
        tops=2,
    ),
    _lrn("across", "alpha: 0.5", partial(oracles.lrn_across, size=5, alpha=0.5, beta=0.75, k=1)),
    _lrn(
        "across_k",
        "local_size: 3 alpha: 2 beta: 0.5 k: 1.5",
        partial(oracles.lrn_across, size=3, alpha=2, beta=0.5, k=1.5),
    ),
    _lrn(
        "across_many_channels",
        "engine: CUDNN",
        partial(oracles.lrn_across, size=5, alpha=1, beta=0.75, k=1),
        channels=17,
    ),
    _lrn(
        "within",
        f"{WITHIN} local_size: 3 alpha: 0.5 k: 7",
        partial(oracles.lrn_within, size=3, alpha=0.5, beta=0.75),
    ),
    _lrn(
        "within_wider_than_plane",
        f"{WITHIN} local_size: 7 alpha: 2",
        partial(oracles.lrn_within, size=7, alpha=2, beta=0.75),
    ),
    _pool(
        "ave",
        (2, 2, 6, 4),
        "pool: AVE kernel_size: 2 stride: 2",
        kernel=(2, 2),
        stride=(2, 2),
        average=True,
    ),
    _pool(
        "ave_ceil",
        (1, 2, 6, 7),
        "pool: AVE kernel_size: 3 stride: 2",
        kernel=(3, 3),
        stride=(2, 2),
        average=True,
    ),
    _pool(
        "ave_floor",
        (1, 2, 6, 7),
        "pool: AVE kernel_size: 3 stride: 2 round_mode: FLOOR",
        kernel=(3, 3),
        stride=(2, 2),
        average=True,
        ceil=False,
    ),
    _pool(
        "ave_global",
        (2, 2, 3, 4),
        "pool: AVE global_pooling: true",
        kernel=(3, 4),
        average=True,
    ),
    _pool(
        "ave_h_w",
        (1, 2, 6, 7),
        "pool: AVE kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 3 pad_h: 1 pad_w: 1",
        kernel=(3, 2),
        stride=(1, 3),
        pad=(1, 1),
        average=True,
    ),
    _pool(
        "ave_larger_than_input",
        (1, 2, 2, 5),
        "pool: AVE kernel_size: 3 stride: 2",
        kernel=(3, 3),
        stride=(2, 2),
        average=True,
    ),
    _pool(
        "ave_pad",
        (1, 2, 5, 6),
        "pool: AVE kernel_size: 3 stride: 2 pad: 1",
        kernel=(3, 3),
        stride=(2, 2),
        pad=(1, 1),
        average=True,
    ),
    _pool(
        "ave_pad_clipped",
        (1, 2, 5, 4),
        "pool: AVE kernel_size: 2 stride: 2 pad: 1",
        kernel=(2, 2),
        stride=(2, 2),
        pad=(1, 1),
        average=True,
    ),
    _pool(
        "ave_pad_h_clips_w",
        (1, 2, 5, 4),
        "pool: AVE kernel_size: 2 stride: 3 pad_h: 1 pad_w: 0",
        kernel=(2, 2),
        stride=(3, 3),
        pad=(1, 0),
        average=True,
    ),
    _pool(
        "max",
        (2, 2, 6, 4),
        "kernel_size: 2 stride: 2 engine: CAFFE",
        kernel=(2, 2),
        stride=(2, 2),
    ),
    _pool(
        "max_ceil",
        (1, 2, 6, 7),
        "pool: MAX kernel_size: 3 stride: 2",
        kernel=(3, 3),
        stride=(2, 2),
    ),
    _pool(
        "max_floor",
        (1, 2, 6, 7),
        "kernel_size: 3 stride: 2 round_mode: FLOOR",
        kernel=(3, 3),
        stride=(2, 2),
        ceil=False,
    ),
    _pool(
        "max_floor_in_a_forks_words",
        (1, 2, 6, 7),
        "kernel_size: 3 stride: 2 ceil_mode: false",
        kernel=(3, 3),
        stride=(2, 2),
        ceil=False,
    ),
    _pool(
        "max_global",
        (2, 2, 3, 4),
        "global_pooling: true stride: 1 pad: 0",
        kernel=(3, 4),
    ),
    _pool(
        "max_huge",
        (1, 2, 3, 4),
        "kernel_size: 4000000000 stride: 4000000000 pad: 1",
        kernel=(4 * 10**9, 4 * 10**9),
        stride=(4 * 10**9, 4 * 10**9),
        pad=(1, 1),
    ),
    LayerCase(
        "Pooling/max_mask",
        'type: "Pooling" pooling_param { kernel_h: 3 kernel_w: 2 stride: 2 }',
        ((2, 2, 5, 4),),
        _with_mask,
        domain=distinct,
        tops=2,
    ),
    LayerCase(
        "Pooling/max_mask_of_ties",
        'type: "Pooling" pooling_param { kernel_h: 3 kernel_w: 2 stride: 2 }',
        ((2, 2, 5, 4),),
        _with_mask,
        domain=tied,
        wrt=[],
        tops=2,
    ),
    _pool(
        "max_overlap",
        (2, 2, 4, 5),
        "kernel_size: 3",
        kernel=(3, 3),
    ),
    _pool(
        "max_pad",
        (1, 2, 5, 5),
        "kernel_size: 3 stride: 2 pad: 1",
        kernel=(3, 3),
        stride=(2, 2),
        pad=(1, 1),
    ),
    _pool(
        "max_pad_clipped",
        (1, 2, 5, 4),
        "kernel_size: 2 stride: 2 pad: 1",
        kernel=(2, 2),
        stride=(2, 2),
        pad=(1, 1),
    ),
    _pool(
        "max_stride_above_kernel",
        (1, 2, 8, 7),
        "kernel_size: 2 stride: 3",
        kernel=(2, 2),
        stride=(3, 3),
    ),
)
