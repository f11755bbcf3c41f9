"""NumPy, imported when something of it is used: weight files are renamed without it."""

from typing import TYPE_CHECKING

from kdnet.lazily import LazyModule

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

__all__ = ["np"]
