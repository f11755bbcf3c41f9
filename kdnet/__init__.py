"""kdnet trains small nets from big ones, the Caffe way.

The names below, pycaffe's, are imported when they are first used: ``import kdnet`` alone loads
neither numpy nor the runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kdnet import io, layers, proto
    from kdnet.api.mode import set_device, set_mode_cpu, set_mode_gpu, set_random_seed
    from kdnet.api.net import Net
    from kdnet.api.solver import (
        AdaDeltaSolver,
        AdaGradSolver,
        AdamSolver,
        NesterovSolver,
        RMSPropSolver,
        SGDSolver,
        Solver,
        get_solver,
    )
    from kdnet.layers.python import Layer
    from kdnet.layers.spec import NetSpec, layer_type_list, params, to_proto

__version__ = "0.1.0"

TRAIN: Final = 0
TEST: Final = 1

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "Layer",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "__version__",
    "get_solver",
    "io",
    "layer_type_list",
    "layers",
    "params",
    "proto",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_random_seed",
    "to_proto",
]

# The module of each name; a name that is a module itself has none to be looked up in.
_PLACES: dict[str, str] = {
    "get_solver": "kdnet.api.solver",
    "Solver": "kdnet.api.solver",
    "SGDSolver": "kdnet.api.solver",
    "RMSPropSolver": "kdnet.api.solver",
    "NesterovSolver": "kdnet.api.solver",
    "AdamSolver": "kdnet.api.solver",
    "AdaGradSolver": "kdnet.api.solver",
    "AdaDeltaSolver": "kdnet.api.solver",
    "Layer": "kdnet.layers.python",
    "Net": "kdnet.api.net",
    "NetSpec": "kdnet.layers.spec",
    "io": "",
    "layer_type_list": "kdnet.layers.spec",
    "layers": "",
    "params": "kdnet.layers.spec",
    "proto": "",
    "set_device": "kdnet.api.mode",
    "set_mode_cpu": "kdnet.api.mode",
    "set_mode_gpu": "kdnet.api.mode",
    "set_random_seed": "kdnet.api.mode",
    "to_proto": "kdnet.layers.spec",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'kdnet' has no attribute {name!r}")
    place = _PLACES[name]
    found = importlib.import_module(place or f"kdnet.{name}")
    value: object = getattr(found, name) if place else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
