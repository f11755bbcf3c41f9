"""Rows of the feature losses."""

from __future__ import annotations

from functools import partial
from typing import Any

import oracles_features as oracle

from tables.cases import LayerCase

VECTORS = [(3, 4), (3, 4)]
LONGER_VECTORS = [(4, 3), (4, 5)]
MAPS = [(2, 3, 3, 4), (2, 3, 3, 4)]
MORE_CHANNELS = [(3, 2, 3, 2), (3, 4, 3, 2)]
OTHER_SPACE = [(2, 3, 5, 3), (2, 3, 2, 4)]
OTHER_MAPS = [(2, 3, 4, 3), (2, 2, 3, 4)]
OTHER_ITEMS = [(4, 2, 3), (4, 5)]
MANY_ITEMS = [(5, 3), (5, 3)]
FLOW = [(2, 3, 4, 4), (2, 2, 2, 3), (2, 3, 3, 2), (2, 2, 3, 2)]


def _loss(id_: str, text: str, bottoms: Any, function: Any, count: int = 0) -> LayerCase:
    """A row with ``count`` weights, whose teacher has no gradient."""
    type_name = id_.partition("/")[0]
    wrt = ["bottom0", *(f"weight{i}" for i in range(count))]
    return LayerCase(id_, f'type: "{type_name}" {text}', bottoms, function, wrt=wrt)


def _hint(id_: str, text: str, bottoms: Any, count: int = 0, **projector: bool) -> LayerCase:
    function = partial(oracle.hint, **projector)
    return _loss(f"Hint/{id_}", f"hint_param {{ {text} }}", bottoms, function, count)


CASES = (
    _loss("AttentionTransfer/averaged", "", OTHER_MAPS, oracle.attention_transfer),
    _loss(
        "AttentionTransfer/p_1",
        "attention_transfer_param { p: 1 }",
        MAPS,
        partial(oracle.attention_transfer, p=1),
    ),
    _loss(
        "AttentionTransfer/p_3",
        "attention_transfer_param { p: 3 spatial: NONE }",
        [(2, 2, 5), (2, 3, 5)],
        partial(oracle.attention_transfer, p=3),
    ),
    _loss("AttentionTransfer/p_default", "", MAPS, oracle.attention_transfer),
    _loss(
        "CorrelationCongruence/gaussian",
        "correlation_congruence_param { kernel: GAUSSIAN }",
        MANY_ITEMS,
        oracle.gaussian_congruence,
    ),
    _loss(
        "CorrelationCongruence/gaussian_of_order_4",
        "correlation_congruence_param { kernel: GAUSSIAN gamma: 0.75 order: 4 }",
        LONGER_VECTORS,
        partial(oracle.gaussian_congruence, gamma=0.75, order=4),
        2,
    ),
    _loss("CorrelationCongruence/neighbours", "", MANY_ITEMS, oracle.neighbours_congruence),
    _loss("CorrelationCongruence/projected", "", OTHER_ITEMS, oracle.neighbours_congruence, 2),
    _loss("CosineDistance/maps", "", MAPS, oracle.cosine_distance),
    _loss("CosineDistance/projected", "", LONGER_VECTORS, oracle.cosine_distance, 2),
    _loss("CosineDistance/vectors", "", VECTORS, oracle.cosine_distance),
    _loss("FlowMatrix/averaged", "", FLOW, oracle.flow_matrix),
    _loss("FlowMatrix/vectors_of_places", "", [(2, 3, 4), (2, 2, 4)] * 2, oracle.flow_matrix),
    _hint(
        "all_of_it",
        "projector { batch_norm: true relu: true }",
        MORE_CHANNELS,
        4,
        norm=True,
        relu=True,
    ),
    _hint("averaged", "", OTHER_SPACE),
    _hint("averaged_and_projected", "", [(2, 3, 5, 4), (2, 2, 3, 4)], 2),
    _hint("averaged_in_one_axis", "", [(2, 3, 5), (2, 3, 3)]),
    _hint("averaged_in_three_axes", "", [(2, 2, 3, 4, 2), (2, 2, 2, 3, 3)]),
    _hint(
        "batch_norm_of_vectors",
        "projector { batch_norm: true bias_term: false }",
        LONGER_VECTORS,
        3,
        bias=False,
        norm=True,
    ),
    _hint("convolution", "", MORE_CHANNELS, 2),
    _hint("convolution_always", "projector { type: CONVOLUTION }", MAPS, 2),
    _hint("inner_product", "", LONGER_VECTORS, 2),
    _hint("inner_product_always", "projector { type: INNER_PRODUCT }", VECTORS, 2),
    _hint("map_of_one_place", "", [(4, 3, 1, 1), (4, 5)], 2),
    _hint("maps", "projector { type: NONE } spatial: NONE", MAPS),
    _hint("no_bias", "projector { bias_term: false }", LONGER_VECTORS, 1, bias=False),
    _hint("relu", "projector { relu: true }", LONGER_VECTORS, 2, relu=True),
    _hint("vectors", "", VECTORS),
    _loss(
        "L2Distance/distance",
        "l2_distance_param { squared: false }",
        MAPS,
        partial(oracle.l2_distance, squared=False),
    ),
    _loss(
        "L2Distance/normalize",
        "l2_distance_param { normalize: true }",
        OTHER_SPACE,
        partial(oracle.l2_distance, normalize=True),
    ),
    _loss("L2Distance/projected", "", LONGER_VECTORS, oracle.l2_distance, 2),
    _loss("L2Distance/vectors", "", VECTORS, oracle.l2_distance),
    _loss("NeuronSelectivity/averaged", "", OTHER_MAPS, oracle.neuron_selectivity),
    _loss("NeuronSelectivity/maps", "", MAPS, oracle.neuron_selectivity),
    _loss(
        "ProbabilisticKnowledgeTransfer/other_length",
        "",
        OTHER_ITEMS,
        oracle.probabilistic_transfer,
    ),
    _loss("ProbabilisticKnowledgeTransfer/rows", "", MANY_ITEMS, oracle.probabilistic_transfer),
    _loss("RelationalAngle/other_length", "", OTHER_ITEMS, oracle.relational_angle),
    _loss("RelationalAngle/rows", "", MANY_ITEMS, oracle.relational_angle),
    _loss("RelationalDistance/other_length", "", OTHER_ITEMS, oracle.relational_distance),
    _loss("RelationalDistance/rows", "", MANY_ITEMS, oracle.relational_distance),
    _loss("SimilarityPreserving/other_length", "", OTHER_ITEMS, oracle.similarity_preserving),
    _loss("SimilarityPreserving/rows", "", MANY_ITEMS, oracle.similarity_preserving),
    _loss("VariationalInformation/averaged", "", OTHER_MAPS, oracle.variational_information, 4),
    _loss(
        "VariationalInformation/hidden",
        "variational_information_param { hidden: 6 eps: 0.25 initial_variance: 2 }",
        LONGER_VECTORS,
        partial(oracle.variational_information, eps=0.25),
        4,
    ),
    _loss(
        "VariationalInformation/map_of_one_place",
        "",
        [(4, 3), (4, 2, 1, 1)],
        oracle.variational_information,
        4,
    ),
)
