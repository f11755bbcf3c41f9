"""Rows of BatchNorm, Scale and Bias."""

from __future__ import annotations

from functools import partial

import oracles_layers as oracle

from tables.cases import LayerCase, fixed, normal, positive

STATISTICS = (normal, positive, fixed(2.5))


def _stored(text: str, **parameters: float) -> dict[str, object]:
    return {
        "prototxt": f'type: "BatchNorm" {text}',
        "oracle": partial(oracle.batch_norm_stored, **{"eps": oracle.EPS, **parameters}),
        "weights": STATISTICS,
    }


def _trained(text: str = "", **parameters: float) -> dict[str, object]:
    return {
        "prototxt": f'type: "BatchNorm" {text}',
        "oracle": partial(oracle.batch_norm_train, **parameters),
        "weights": STATISTICS,
    }


def _bias(x, b, axis=1):
    return oracle.affine(x, None, b, axis=axis)


def _scale(x, s, b=None, axis=1):
    return oracle.affine(x, s, b, axis=axis)


CASES = (
    LayerCase(
        id="BatchNorm/batch",
        bottoms=[(3, 2, 2, 2)],
        **_trained("batch_norm_param { eps: 0.5 }", eps=0.5),
    ),
    LayerCase(id="BatchNorm/batch_default_eps", bottoms=[(8, 3)], **_trained()),
    LayerCase(
        id="BatchNorm/batch_in_test",
        bottoms=[(5, 2)],
        phase="TEST",
        **_trained("batch_norm_param { use_global_stats: false }"),
    ),
    LayerCase(
        id="BatchNorm/batch_moving_average",
        bottoms=[(4, 3, 2)],
        **_trained("batch_norm_param { moving_average_fraction: 0.75 }", kept=0.75),
    ),
    LayerCase(
        id="BatchNorm/batch_of_one",
        bottoms=[(1, 3)],
        **_trained("batch_norm_param { eps: 0.5 }", eps=0.5),
    ),
    LayerCase(
        id="BatchNorm/batch_one_axis",
        bottoms=[(6,)],
        **_trained("batch_norm_param { eps: 0.25 }", eps=0.25),
    ),
    LayerCase(
        id="BatchNorm/batch_one_channel",
        bottoms=[(4, 1, 3)],
        **_trained("batch_norm_param { eps: 0.25 }", eps=0.25),
    ),
    LayerCase(
        id="BatchNorm/empty_statistics",
        bottoms=[(2, 3, 2)],
        phase="TEST",
        **{
            **_stored("batch_norm_param { eps: 0.25 }", eps=0.25),
            "weights": (normal, positive, fixed(0)),
        },
    ),
    LayerCase(
        id="BatchNorm/global_stats",
        bottoms=[(2, 3, 2, 2)],
        **_stored("batch_norm_param { use_global_stats: true }"),
    ),
    LayerCase(id="BatchNorm/test_phase", bottoms=[(4, 3)], phase="TEST", **_stored("")),
    LayerCase("Bias/channels", 'type: "Bias"', [(2, 3, 2, 2)], _bias),
    LayerCase(
        "Bias/last_axis",
        'type: "Bias" bias_param { axis: -1 }',
        [(2, 3, 4)],
        partial(_bias, axis=2),
    ),
    LayerCase("Bias/scalar", 'type: "Bias" bias_param { num_axes: 0 }', [(2, 3)], _bias),
    LayerCase(
        "Bias/two_bottoms",
        'type: "Bias" bias_param { axis: 0 }',
        [(2, 3, 4), (2, 3)],
        partial(_bias, axis=0),
    ),
    LayerCase("Scale/channels", 'type: "Scale"', [(2, 3, 2, 2)], _scale),
    LayerCase(
        "Scale/scalar",
        'type: "Scale" scale_param { num_axes: 0 bias_term: true }',
        [(2, 3, 2)],
        _scale,
    ),
    LayerCase(
        "Scale/to_the_end",
        'type: "Scale" scale_param { axis: 1 num_axes: -1 bias_term: true }',
        [(2, 3, 4)],
        _scale,
    ),
    LayerCase(
        "Scale/two_axes",
        'type: "Scale" scale_param { axis: 0 num_axes: 2 }',
        [(2, 3, 4)],
        partial(_scale, axis=0),
    ),
    LayerCase(
        "Scale/two_bottoms",
        'type: "Scale" scale_param { bias_term: true }',
        [(2, 3, 4), (3,)],
        _scale,
    ),
    LayerCase(
        "Scale/two_bottoms_scalar",
        'type: "Scale"',
        [(2, 3), ()],
        _scale,
    ),
    LayerCase(
        "Scale/with_bias",
        'type: "Scale" scale_param { bias_term: true }',
        [(2, 3, 2, 2)],
        _scale,
    ),
)
