"""Rows of Deconvolution, MVN, and the layers that hold or read tables."""

from __future__ import annotations

from functools import partial

import numpy as np
import oracles
import oracles_catalogue as oracle

from tables.cases import Array, LayerCase, integers, normal

EMBED = "embed_param { num_output: 3 input_dim: 4 %s }"


def spread(x: Array, w: Array, b: Array | None = None, *, group: int = 1, **steps: int) -> Array:
    """A Deconvolution with the same numbers on every spatial axis, of maps (N, C, H, W)."""
    axes = w.ndim - 2
    each = {"strides": ("stride", 1), "dilations": ("dilation", 1)}
    given = {name: [steps.get(short, least)] * axes for name, (short, least) in each.items()}
    pads = [steps.get("pad", 0)] * 2 * axes
    return oracles.conv_transpose(x, w, b, **given, pads=pads, group=group)


def _deconvolution(name: str, params: str, shape: tuple[int, ...], **steps: int) -> LayerCase:
    text = f'type: "Deconvolution" convolution_param {{ {params} }}'
    return LayerCase(f"Deconvolution/{name}", text, [shape], partial(spread, **steps))


CASES = (
    LayerCase(
        "BatchReindex/drop_and_repeat",
        'type: "BatchReindex"',
        [(4, 2, 3), (5,)],
        lambda x, places: x[places.astype(int)],
        domain=[normal, integers(4, np.float64)],
        wrt=["bottom0"],
    ),
    _deconvolution("basic", "num_output: 2 kernel_size: 3", (2, 3, 3, 2)),
    _deconvolution(
        "dilated",
        "num_output: 2 kernel_size: 2 dilation: 2 bias_term: false",
        (1, 2, 3, 3),
        dilation=2,
    ),
    _deconvolution(
        "groups",
        "num_output: 4 kernel_size: 2 stride: 2 group: 2",
        (1, 4, 3, 2),
        stride=2,
        group=2,
    ),
    _deconvolution(
        "one_axis", "num_output: 2 kernel_size: 3 stride: 2 pad: 1", (2, 3, 4), stride=2, pad=1
    ),
    _deconvolution(
        "stride_pad",
        "num_output: 3 kernel_size: 4 stride: 2 pad: 1",
        (1, 2, 3, 3),
        stride=2,
        pad=1,
    ),
    LayerCase(
        "Embed/basic",
        f'type: "Embed" {EMBED % ""}',
        [(5, 2)],
        oracle.embed,
        domain=integers(4, np.float64),
        wrt=["weight0", "weight1"],
    ),
    LayerCase(
        "Embed/no_bias",
        f'type: "Embed" {EMBED % "bias_term: false"}',
        [(6,)],
        oracle.embed,
        domain=integers(4, np.float64),
        wrt=["weight0"],
    ),
    LayerCase(
        "MVN/across_channels",
        'type: "MVN" mvn_param { across_channels: true }',
        [(2, 3, 2, 2)],
        partial(oracle.mvn, across=True),
    ),
    LayerCase("MVN/default", 'type: "MVN"', [(2, 3, 2, 4)], oracle.mvn),
    LayerCase(
        "MVN/eps",
        'type: "MVN" mvn_param { eps: 0.5 }',
        [(2, 3, 5)],
        partial(oracle.mvn, eps=0.5),
        wrt=[],
    ),
    LayerCase(
        "MVN/mean_only",
        'type: "MVN" mvn_param { normalize_variance: false }',
        [(2, 3, 2, 2)],
        partial(oracle.mvn, variance=False),
    ),
    LayerCase(
        "Parameter/matrix",
        'type: "Parameter" parameter_param { shape { dim: 2 dim: 3 } }',
        [],
        lambda w: w,
    ),
    LayerCase("Parameter/number", 'type: "Parameter"', [], lambda w: w),
)
