"""Rows of the layers that move, repeat and cut."""

from __future__ import annotations

from functools import partial

import numpy as np
import oracles_catalogue as oracle

from tables.cases import LayerCase

CASES = (
    LayerCase("Crop/default", 'type: "Crop"', [(1, 2, 4, 3), (2, 5, 2, 3)], oracle.crop),
    LayerCase(
        "Crop/negative_axis",
        'type: "Crop" crop_param { axis: -1 offset: 3 }',
        [(2, 2, 5), (2, 1, 2)],
        partial(oracle.crop, axis=-1, offsets=(3,)),
    ),
    LayerCase(
        "Crop/offset_each",
        'type: "Crop" crop_param { axis: 1 offset: 1 offset: 0 offset: 2 }',
        [(2, 3, 2, 5), (1, 2, 1, 3)],
        partial(oracle.crop, axis=1, offsets=(1, 0, 2)),
    ),
    LayerCase(
        "Crop/offset_once",
        'type: "Crop" crop_param { offset: 1 }',
        [(1, 2, 4, 3), (1, 2, 2, 2)],
        partial(oracle.crop, offsets=(1, 1)),
    ),
    LayerCase(
        "Permute/all",
        'type: "Permute" permute_param { order: 2 order: 0 order: 3 order: 1 }',
        [(2, 3, 4, 2)],
        lambda x: np.einsum("abcd->cadb", x),
    ),
    LayerCase("Permute/none", 'type: "Permute"', [(2, 3)], lambda x: x),
    LayerCase(
        "Permute/rest_in_order",
        'type: "Permute" permute_param { order: 2 }',
        [(2, 3, 4, 2)],
        lambda x: np.einsum("abcd->cabd", x),
    ),
    LayerCase(
        "Tile/default_axis",
        'type: "Tile" tile_param { tiles: 3 }',
        [(2, 2, 3)],
        lambda x: np.concatenate([x, x, x], axis=1),
    ),
    LayerCase(
        "Tile/negative_axis",
        'type: "Tile" tile_param { axis: -1 tiles: 2 }',
        [(2, 3, 2)],
        lambda x: np.concatenate([x, x], axis=2),
    ),
    LayerCase("Tile/once", 'type: "Tile" tile_param { tiles: 1 }', [(2, 3)], lambda x: x),
)
