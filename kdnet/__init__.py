"""kdnet trains small nets from big ones, the Caffe way.

The names below, pycaffe's, are imported when they are first used: ``import kdnet`` alone loads
neither numpy nor the runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kdnet.lazily import offered
from kdnet.version import __version__

if TYPE_CHECKING:
    from kdnet import draw, errors, io, layers, proto
    from kdnet.api.classifier import Classifier
    from kdnet.api.detector import Detector
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
    from kdnet.api.timer import Timer
    from kdnet.layers.python import Layer
    from kdnet.layers.spec import NetSpec, layer_type_list, params, to_proto
else:
    __getattr__, __dir__ = offered(__name__)

TRAIN: Final = 0
TEST: Final = 1

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "Timer",
    "__version__",
    "draw",
    "errors",
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
