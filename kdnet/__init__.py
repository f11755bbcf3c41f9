"""kdnet trains small nets from big ones, the Caffe way.

The names below, pycaffe's, are imported when they are first used: ``import kdnet`` alone loads
neither numpy nor the runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdnet import io

__version__ = "0.1.0"

__all__ = ["__version__", "io"]

# The module of each name; a name that is a module itself has none to be looked up in.
_PLACES: dict[str, str] = {
    "io": "",
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
