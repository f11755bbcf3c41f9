"""Rows of the heavier feature losses and of Paraphraser."""

from __future__ import annotations

from functools import partial

import numpy as np
import oracles_features_b as oracle

from tables.cases import LayerCase, fixed, integers, normal, positive

MAPS = (2, 3, 4, 4)
WIDER = [(2, 3, 4, 4), (2, 5, 4, 4)]
STUDENT = ["bottom0"]
PROJECTOR = (normal, positive, normal)


def _projected(count: int = 3) -> list[str]:
    return STUDENT + [f"weight{i}" for i in range(count)]


def _channel_wise(id_, text="", bottoms=(MAPS, MAPS), wrt=STUDENT, oracle_=None, **more):
    return LayerCase(
        f"ChannelWiseDistillation/{id_}",
        f'type: "ChannelWiseDistillation" {text}',
        bottoms,
        oracle_ or partial(oracle.channel_wise, **more),
        wrt=wrt,
    )


def _boundary(id_, text, bottoms, wrt=STUDENT, **more):
    return LayerCase(
        f"ActivationBoundary/{id_}",
        f'type: "ActivationBoundary" {text}',
        bottoms,
        partial(oracle.boundary, **more),
        weights=PROJECTOR,
        wrt=wrt,
    )


def _overhaul(id_, text, function, bottoms=WIDER, wrt=None, weights=PROJECTOR):
    return LayerCase(
        f"FeatureOverhaul/{id_}",
        f'type: "FeatureOverhaul" {text}',
        bottoms,
        function,
        weights=weights,
        wrt=_projected() if wrt is None else wrt,
    )


def _factor(id_, text, bottoms, count=6, **more):
    return LayerCase(
        f"FactorTransfer/{id_}",
        f'type: "FactorTransfer" {text}',
        bottoms,
        partial(oracle.factor_transfer, **more),
        wrt=_projected(count),
    )


def _review(id_, bottoms, text=""):
    levels = len(bottoms) // 2
    return LayerCase(
        f"KnowledgeReview/{id_}",
        f'type: "KnowledgeReview" {text}',
        bottoms,
        partial(oracle.review, levels=levels),
        wrt=[f"bottom{i}" for i in range(levels)] + [f"weight{i}" for i in range(8 * levels - 2)],
        tol=1e-5,
    )


def _contrast(id_, text, bottoms, *, records=11, nce_k=5, ready=True, wrt=None, **more):
    normaliser = fixed(7.5, 12.5) if ready else fixed(-1, -1)
    parameters = f"num_records: {records} nce_k: {nce_k} {text}"
    trained = [f"weight{i}" for i in range(4)]
    noise = more.pop("noise", None)
    domain = [normal, normal, more.pop("own", integers(records, np.float64))]
    return LayerCase(
        f"ContrastiveRepresentation/{id_}",
        f'type: "ContrastiveRepresentation" contrastive_representation_param {{ {parameters} }}',
        bottoms,
        partial(oracle.contrast, **more),
        domain=[*domain, integers(records, np.float64)],
        weights=[normal, normal, normal, normal, _rows, _rows, normaliser, fixed(9)],
        wrt=(STUDENT + trained if ready else []) if wrt is None else wrt,
        noise=noise,
        ort_tol=1e-4,
    )


def _rows(rng, shape):
    values = rng.standard_normal(shape)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _drawn(nce_k):
    return lambda rng, shape: rng.random((shape[0], nce_k), np.float32)


def _pooled_channel_wise(s, t):
    return oracle.channel_wise(oracle.pool(s, (2, 2)), t)


def _pooled_boundary(s, t, *projector):
    return oracle.boundary(oracle.pool(s, (2, 3)), oracle.pool(t, (2, 3)), *projector)


WARM = "temperature: 0.5 dim: 4"

CASES = (
    _boundary("default", "", [MAPS, MAPS]),
    _boundary("margin", "activation_boundary_param { margin: 0.25 }", [(4, 6)] * 2, margin=0.25),
    _boundary("projector", "", WIDER, _projected()),
    LayerCase(
        "ActivationBoundary/space",
        'type: "ActivationBoundary"',
        [(2, 3, 4, 3), (2, 5, 2, 5)],
        _pooled_boundary,
        weights=PROJECTOR,
        wrt=_projected(),
    ),
    _boundary("vectors", "", [(4, 3), (4, 5)], _projected()),
    _channel_wise("default"),
    _channel_wise("space", bottoms=[(2, 3, 4, 4), (2, 3, 2, 2)], oracle_=_pooled_channel_wise),
    _channel_wise(
        "temperature",
        "channel_wise_distillation_param { temperature: 0.5 }",
        [(2, 3, 5)] * 2,
        temperature=0.5,
    ),
    _contrast("counted", WARM, [(3, 4), (3, 5)], temperature=0.5, noise=_drawn(5)),
    _contrast(
        "dense",
        "dim: 64 temperature: 0.5",
        [(3, 4), (3, 5), (3,), (3, 5)],
        temperature=0.5,
    ),
    _contrast("drawn", WARM, [(3, 4), (3, 5), (3,)], temperature=0.5, noise=_drawn(5)),
    _contrast(
        "maps",
        "momentum: 0.25 temperature: 1 dim: 3",
        [(3, 2, 2, 2), (3, 2, 1, 1), (3,), (3, 5)],
        temperature=1,
        momentum=0.25,
    ),
    _contrast(
        "repeated_record",
        WARM,
        [(4, 4), (4, 5), (4,), (4, 5)],
        own=fixed(3, 7, 3, 3),
        temperature=0.5,
    ),
    _contrast("sparse", WARM, [(3, 4), (3, 5), (3,), (3, 5)], records=99, temperature=0.5),
    _contrast("unset", WARM, [(3, 4), (3, 5), (3,), (3, 5)], ready=False, temperature=0.5),
    _factor("batch_norm", "factor_transfer_param { translator: BATCH_NORM }", WIDER, 12),
    _factor("default", "", WIDER),
    _factor(
        "given",
        "factor_transfer_param { translator: NONE power: 2 }",
        [MAPS, MAPS],
        0,
        power=2,
    ),
    _factor(
        "means",
        "factor_transfer_param { translator: NONE channel_power: 2 }",
        [(2, 3, 4, 4), (2, 5, 2, 2)],
        0,
        channel_power=2,
    ),
    _factor(
        "powers",
        "factor_transfer_param { translator: NONE channel_power: 1 power: 3 }",
        WIDER,
        0,
        channel_power=1,
        power=3,
    ),
    _factor("space", "", [(2, 3, 3, 3), (2, 2, 2, 2)]),
    _overhaul("batch", "", oracle.overhaul_batch),
    _overhaul(
        "batch_norm_margin",
        'param {} param {} param {} param { name: "scale" } param { name: "shift" } '
        "feature_overhaul_param { batch_norm_margin: true }",
        oracle.overhaul_normal,
        [(3, 3, 2, 2), (3, 4, 2, 2)],
        weights=(*PROJECTOR, fixed(0.5, -1.5, 2, 0.25), fixed(-0.5, 0.75, 0.1, 1)),
    ),
    _overhaul(
        "margin",
        "feature_overhaul_param { margin: -0.25 }",
        partial(oracle.overhaul_given, margin=-0.25),
    ),
    _overhaul(
        "margin_each",
        "feature_overhaul_param { margin: -0.25 margin: -0.5 margin: -1 margin: -2 margin: -4 }",
        partial(oracle.overhaul_given, margin=(-0.25, -0.5, -1, -2, -4)),
    ),
    _overhaul(
        "no_projector",
        "feature_overhaul_param { projector { type: NONE } }",
        oracle.overhaul_batch,
        [MAPS, MAPS],
        STUDENT,
    ),
    _overhaul("vectors", "", oracle.overhaul_batch, [(6, 3), (6, 5)]),
    _review("one", [(3, 4, 5, 5), (3, 3, 5, 5)]),
    _review("pooled", [(3, 2, 4, 4), (3, 5), (3, 3, 4, 4), (3, 4, 1, 1)]),
    _review(
        "three",
        [(2, 2, 6, 6), (2, 3, 3, 3), (2, 4, 2, 2), (2, 3, 6, 6), (2, 2, 6, 6), (2, 3, 3, 3)],
        "knowledge_review_param { mid_channels: 3 }",
    ),
    LayerCase(
        "Paraphraser/default", 'type: "Paraphraser"', [(2, 4, 3, 3)], oracle.paraphraser, tops=2
    ),
    LayerCase(
        "Paraphraser/factor",
        'type: "Paraphraser" paraphraser_param { rate: 0.75 }',
        [(2, 4, 3, 3)],
        partial(oracle.paraphraser, tops=1),
        wrt=["bottom0", *(f"weight{i}" for i in range(6))],
    ),
)
