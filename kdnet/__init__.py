"""kdnet trains small nets from big ones, the Caffe way.

The names below, pycaffe's, are imported when they are first used: ``import kdnet`` alone loads
neither numpy nor the runtime. Type checkers find them in the stub beside this file.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

TRAIN = 0
TEST = 1

# The names that each module offers here; a module without names is offered itself.
_OFFERED = {
    "kdnet.api.classifier": ("Classifier",),
    "kdnet.api.mode": ("set_device", "set_mode_cpu", "set_mode_gpu", "set_random_seed"),
    "kdnet.api.net": ("Net",),
    "kdnet.api.solver": (
        "AdaDeltaSolver",
        "AdaGradSolver",
        "AdamSolver",
        "NesterovSolver",
        "RMSPropSolver",
        "SGDSolver",
        "Solver",
        "get_solver",
    ),
    "kdnet.errors": (),
    "kdnet.io": (),
    "kdnet.layers": (),
    "kdnet.layers.python": ("Layer",),
    "kdnet.layers.spec": ("NetSpec", "layer_type_list", "params", "to_proto"),
    "kdnet.proto": (),
}
_MODULES = [module for module, names in _OFFERED.items() if not names]
_PLACES = {name: module for module, names in _OFFERED.items() for name in names}
_PLACES |= {module.removeprefix("kdnet."): module for module in _MODULES}

__all__ = sorted(["TEST", "TRAIN", "__version__", *_PLACES])  # noqa: PLE0605  # it is a list


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'kdnet' has no attribute {name!r}", name=name)
    found: object = importlib.import_module(_PLACES[name])
    if _PLACES[name] not in _MODULES:
        found = getattr(found, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
