"""Which of several exact lowerings a gradient rule emits.

Pure functions of the provider and the shapes. All lowerings of one gradient are equal up to
rounding. The choices for the CPU follow measurements of ONNX Runtime (``bench/``), those for CUDA
count the bytes that are copied. Conv's shapes: x (N, C, X...), dy (N, O, Y...), G groups.
"""

from __future__ import annotations

from math import prod

from kdnet.autodiff.windows import Window

CUDA = "cuda"
Shape = tuple[int, ...]


def conv_input_gradient(provider: str, window: Window, channels: int, groups: int) -> str:
    """``transposed`` (a ConvTranspose) or ``flipped`` (a Conv with the weight reversed).

    A ConvTranspose multiplies matrices and then adds up on one thread. A Conv adds nothing up,
    but has more to multiply where the output is smaller than the input, and few channels or
    places make its products thin.
    """
    if provider == CUDA or groups > 1 or set(window.strides) != {1}:
        return "transposed"
    pointwise = set(window.kernel) == {1}
    thick = channels >= 16 and prod(window.size) >= 128
    return "flipped" if window.size == window.out and (pointwise or thick) else "transposed"


def conv_weight_gradient(provider: str, window: Window, x: Shape, dy: Shape, groups: int) -> str:
    """Which way dy is brought together with the inputs that each kernel position meets.

    - ``channels-last``: one Conv of x by dy, with the channels of x behind its last axis;
    - ``columns``: a matrix product of dy and copies of x, one copy for each kernel position;
    - ``shifts``: along the first axis dy is copied instead of x; it needs stride 1 there.

    The last two add up a product for each item; with ``-folded``, one product spans all items.
    """
    c, o = x[1] // groups, dy[1] // groups
    if provider == CUDA:
        return f"{_fewest_copies(window, c, o)}-folded"
    if c > 1 and prod(window.kernel) > 1 and window.dilations[-1] == 1:
        return "channels-last"
    weights, items = c * o * prod(window.kernel), (c + o) * prod(window.out)
    return "columns-folded" if weights > 2 * items else "columns"


def _fewest_copies(window: Window, c: int, o: int) -> str:
    first, rest = window.kernel[0], prod(window.kernel[1:])
    if window.strides[0] == 1 and rest * c + first * o < first * rest * c:
        return "shifts"
    return "columns"


def max_pool_gradient(window: Window) -> str:
    """``tiles`` where the windows cover the input exactly once, else ``separable``."""
    return "tiles" if window.tiles else "separable"


def average_pool_gradient(provider: str, window: Window) -> str:
    """``tiles``, ``pooled`` (an average pooling of dy with zeros between) or ``spread``."""
    if window.tiles:
        return "tiles"
    dense = window.span == window.kernel
    return "pooled" if dense and provider != CUDA else "spread"
