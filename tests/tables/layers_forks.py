"""Rows of the layers of Caffe's forks."""

from __future__ import annotations

from functools import partial
from math import prod

import numpy as np
import oracles
import oracles_forks as oracle

from tables.cases import Domain, LayerCase, integers, normal, positive, uniform

BN_WEIGHTS = (normal, normal, normal, positive)
KD = 'type: "KnowledgeDistillation"'
SOFT = "knowledge_distillation_param"


def _depthwise(name: str, case: str, text: str, **geometry) -> LayerCase:
    return LayerCase(
        f"{name}/{case}",
        f'type: "{name}" convolution_param {{ {text} }}',
        [(2, 4, 5, 6)],
        partial(oracles.convolution, group=4, **geometry),
    )


def _interp(case: str, shape: tuple[int, ...], text: str, size, **cut: int) -> LayerCase:
    prototxt = f'type: "Interp" interp_param {{ {text} }}'
    return LayerCase(f"Interp/{case}", prototxt, [shape], partial(oracle.interp, size=size, **cut))


def _places(count: int) -> Domain:
    """Different places of a plane of ``count``, for each plane of the mask."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        planes = [rng.permutation(count)[: prod(shape[2:])] for _ in range(prod(shape[:2]))]
        return np.array(planes, np.float64).reshape(shape)

    return draw


def _unpool(case: str, text: str, size: tuple[int, int]) -> LayerCase:
    return LayerCase(
        f"Upsample/{case}",
        f'type: "Upsample" {text}',
        [(2, 2, 2, 3), (2, 2, 2, 3)],
        partial(oracle.unpool, size=size),
        domain=(normal, _places(prod(size))),
        wrt=["bottom0"],
    )


def _like_reference(x, reference):
    return oracle.interp(x, size=reference.shape[2:])


def _with_probabilities(student, teacher):
    return oracle.divergence(student, teacher), oracle.softmax(student, 1)


CASES = (
    LayerCase("Axpy/maps", 'type: "Axpy"', [(2, 3), (2, 3, 2, 4), (2, 3, 2, 4)], oracle.axpy),
    LayerCase("Axpy/spread", 'type: "Axpy"', [(2, 3, 1, 1), (2, 3, 2), (2, 3, 2)], oracle.axpy),
    LayerCase(
        "BN/frozen",
        'type: "BN" bn_param { frozen: true eps: 0.25 engine: CAFFE }',
        [(2, 3, 2, 2)],
        partial(oracle.bn_stored, eps=0.25),
        weights=BN_WEIGHTS,
    ),
    LayerCase(
        "BN/inference",
        'type: "BN" bn_param { bn_mode: INFERENCE }',
        [(2, 3, 2, 2)],
        oracle.bn_inference,
    ),
    LayerCase(
        "BN/learn_in_test",
        'type: "BN" bn_param { scale_filler { value: 1 } }',
        [(4, 3, 2)],
        lambda *given: oracle.bn_learn(*given)[0],
        phase="TEST",
    ),
    LayerCase(
        "BN/learn_statistics",
        'type: "BN" bn_param { bn_mode: LEARN }',
        [(3, 2, 2, 2)],
        oracle.bn_learn,
        tops=3,
        wrt=[],
    ),
    LayerCase(
        "BN/test", 'type: "BN"', [(4, 3)], oracle.bn_stored, weights=BN_WEIGHTS, phase="TEST"
    ),
    LayerCase(
        "BN/train",
        'type: "BN" bn_param { momentum: 0.75 eps: 0.5 }',
        [(3, 2, 2, 2)],
        partial(oracle.bn_train, kept=0.75, eps=0.5),
        weights=BN_WEIGHTS,
    ),
    LayerCase("BN/train_default", 'type: "BN"', [(8, 3)], oracle.bn_train, weights=BN_WEIGHTS),
    _depthwise("ConvolutionDepthwise", "no_counts", "kernel_size: 3 stride: 2", stride=(2, 2)),
    _depthwise(
        "ConvolutionDepthwise",
        "output_and_dilation",
        "num_output: 4 kernel_h: 3 kernel_w: 2 pad: 1 dilation: 2 bias_term: false",
        pad=(1, 1),
        dilation=(2, 2),
    ),
    _depthwise("DepthwiseConvolution", "group", "num_output: 4 group: 4 kernel_size: 3"),
    _depthwise(
        "DepthwiseConvolution",
        "several_filters",
        "num_output: 8 kernel_size: 3 pad: 1",
        pad=(1, 1),
    ),
    _interp("column_and_crop", (1, 2, 5, 4), "shrink_factor: 4 pad_beg: -1", (1, 1), begin=1),
    _interp(
        "crop", (1, 2, 6, 7), "zoom_factor: 2 pad_beg: -1 pad_end: -2", (5, 7), begin=1, end=2
    ),
    _interp("down", (2, 1, 7, 9), "shrink_factor: 3", (3, 3)),
    _interp("from_one_pixel", (2, 3, 1, 1), "height: 3 width: 4", (3, 4)),
    _interp("same", (1, 2, 3, 4), "height: 3 width: 4", (3, 4)),
    _interp("shrink_and_zoom", (1, 2, 7, 6), "zoom_factor: 3 shrink_factor: 2", (10, 7)),
    _interp(
        "size_before_both",
        (1, 2, 3, 4),
        "zoom_factor: 3 shrink_factor: 2 height: 4 width: 5",
        (4, 5),
    ),
    LayerCase(
        "Interp/two_bottoms",
        'type: "Interp"',
        [(2, 2, 3, 2), (1, 1, 4, 5)],
        _like_reference,
        wrt=["bottom0"],
    ),
    _interp("zoom_before_size", (1, 2, 3, 2), "zoom_factor: 2 height: 9 width: 9", (5, 3)),
    LayerCase(
        "KnowledgeDistillation/axis",
        f"{KD} {SOFT} {{ temperature: 2 }} softmax_param {{ axis: -1 }}",
        [(2, 3, 4), (2, 3, 4)],
        partial(oracle.divergence, temperature=2, axis=2),
        wrt=["bottom0"],
    ),
    LayerCase(
        "KnowledgeDistillation/default", KD, [(4, 3), (4, 3)], oracle.divergence, wrt=["bottom0"]
    ),
    LayerCase(
        "KnowledgeDistillation/ignore_label",
        f"{KD} {SOFT} {{ temperature: 4 }} loss_param {{ ignore_label: 2 }}",
        [(3, 4, 2, 2), (3, 4, 2, 2), (3, 1, 2, 2)],
        partial(oracle.divergence, temperature=4, ignore=2),
        domain=(normal, normal, integers(4, np.float64)),
        wrt=["bottom0"],
    ),
    LayerCase(
        "KnowledgeDistillation/per_item",
        f"{KD} {SOFT} {{ temperature: 4 }} loss_param {{ normalize: false }}",
        [(2, 3, 2), (2, 3, 2)],
        partial(oracle.divergence, temperature=4, per_item=True),
        wrt=["bottom0"],
    ),
    LayerCase("L1Loss/maps", 'type: "L1Loss"', [(3, 2, 2), (3, 4)], oracle.l1_loss),
    LayerCase(
        "Normalize/across",
        'type: "Normalize"',
        [(2, 3, 2, 2)],
        oracle.normalize,
    ),
    LayerCase(
        "Normalize/channels",
        'type: "Normalize" norm_param { channel_shared: false eps: 0.5 }',
        [(2, 3, 2)],
        partial(oracle.normalize, eps=0.5),
    ),
    LayerCase(
        "Normalize/places",
        'type: "Normalize" norm_param { across_spatial: false channel_shared: false '
        'scale_filler { type: "constant" value: 20 } }',
        [(2, 3, 2, 2)],
        partial(oracle.normalize, across=False),
    ),
    LayerCase(
        "Normalize/vectors",
        'type: "Normalize" norm_param { across_spatial: false eps: 0 }',
        [(3, 4)],
        partial(oracle.normalize, across=False, eps=0),
    ),
    LayerCase(
        "ReLU6/both_ends",
        'type: "ReLU6"',
        [(3, 8)],
        lambda x: np.clip(x, 0, 6),
        domain=uniform(-4, 10),
    ),
    LayerCase(
        "ShuffleChannel/groups",
        'type: "ShuffleChannel" shuffle_channel_param { group: 3 }',
        [(2, 6, 2, 3)],
        partial(oracle.shuffle_channel, group=3),
    ),
    LayerCase("ShuffleChannel/one", 'type: "ShuffleChannel"', [(2, 4)], lambda x: x),
    LayerCase(
        "ShuffleChannel/two",
        'type: "ShuffleChannel" shuffle_channel_param { group: 2 }',
        [(2, 6)],
        partial(oracle.shuffle_channel, group=2),
    ),
    LayerCase(
        "SmoothL1Loss/both_weights",
        'type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 3 }',
        [(2, 3, 2, 2)] * 4,
        partial(oracle.smooth_l1_loss, sigma=3),
        wrt=["bottom0", "bottom1"],
    ),
    LayerCase("SmoothL1Loss/default", 'type: "SmoothL1Loss"', [(4, 3)] * 2, oracle.smooth_l1_loss),
    LayerCase(
        "SmoothL1Loss/inside_weights",
        'type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 0.5 }',
        [(4, 3)] * 3,
        partial(oracle.smooth_l1_loss, sigma=0.5),
        wrt=["bottom0", "bottom1"],
    ),
    LayerCase(
        "SoftmaxWithCrossEntropyLoss/default",
        'type: "SoftmaxWithCrossEntropyLoss"',
        [(4, 3), (4, 3)],
        oracle.divergence,
        wrt=["bottom0"],
    ),
    LayerCase(
        "SoftmaxWithCrossEntropyLoss/per_item",
        'type: "SoftmaxWithCrossEntropyLoss" loss_param { normalize: false }',
        [(2, 3, 4), (2, 3, 4)],
        partial(oracle.divergence, per_item=True),
        wrt=["bottom0"],
    ),
    LayerCase(
        "SoftmaxWithCrossEntropyLoss/probabilities",
        'type: "SoftmaxWithCrossEntropyLoss"',
        [(4, 3), (4, 3)],
        _with_probabilities,
        tops=2,
        wrt=["bottom0"],
    ),
    _unpool("default", "", (4, 6)),
    _unpool("factors", "upsample_param { scale_h: 2 scale_w: 3 pad_out_h: true }", (3, 9)),
    _unpool("pad_out", "upsample_param { scale: 2 pad_out_w: true }", (4, 5)),
    LayerCase(
        "Upsample/repeated",
        'type: "Upsample" upsample_param { scale: 2 }',
        [(2, 3, 2, 3)],
        partial(oracle.repeated, scale=2),
    ),
    LayerCase("Upsample/repeated_once", 'type: "Upsample"', [(2, 1, 2, 2)], lambda x: x),
    _unpool("size", "upsample_param { scale: 2 upsample_h: 3 upsample_w: 7 }", (3, 7)),
)
