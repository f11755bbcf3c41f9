"""Cutting a window out of an image and stretching it, as R-CNN's data layer does."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np

from kdnet.data.image import Pixels, resize

Corners = tuple[int, int, int, int]
"""x1, y1, x2, y2, all inside the window."""

Side = tuple[int, int]
"""First and last pixel along one axis, both included."""


@dataclass(frozen=True)
class Warp:
    """How windows become squares of ``size`` pixels.

    Attributes:
        size: crop_size.
        context: Pixels of the surroundings on each side, measured after stretching.
        square: Whether the tightest square around the window is taken instead of the window.
    """

    size: int
    context: int = 0
    square: bool = False

    def cut(
        self, image: Pixels, corners: Corners, *, flip: bool
    ) -> tuple[Pixels, tuple[int, int]]:
        """The stretched pixels, and the empty rows above and columns before them.

        Args:
            image: (C, H, W).
            corners: The window.
            flip: Mirror the window, its padding too.

        Returns:
            (C, h, w) and the padding; what it leaves below and behind stays empty as well.

        Raises:
            ValueError: The window, or what is left of it, holds no pixel of the image.
        """
        rows, columns, shape, pads = self._place(image.shape[1:], corners, flip=flip)
        if min(shape) < 1:
            raise ValueError("has no pixel in the image")
        part = resize(image[:, rows[0] : rows[1] + 1, columns[0] : columns[1] + 1], *shape)
        return part[:, :, ::-1] if flip else part, pads

    def _place(
        self, extents: tuple[int, ...], corners: Corners, *, flip: bool
    ) -> tuple[Side, Side, tuple[int, int], tuple[int, int]]:
        x1, y1, x2, y2 = corners
        if x2 < x1 or y2 < y1:
            raise ValueError("is empty")
        if not (self.context or self.square):
            if min(x1, y1) < 0 or x2 >= extents[1] or y2 >= extents[0]:
                raise ValueError(f"leaves the image of {extents[1]} x {extents[0]} pixels")
            return (y1, y2), (x1, x2), (self.size, self.size), (0, 0)
        tall, broad = self._surroundings(corners)
        rows, height, above = self._clipped(tall, extents[0])
        columns, width, beside = self._clipped(broad, extents[1])
        pads = (above[0], beside[1] if flip else beside[0])
        fits = (min(height, self.size - pads[0]), min(width, self.size - pads[1]))
        return rows, columns, fits, pads

    def _surroundings(self, corners: Corners) -> tuple[Side, Side]:
        """Rows and columns of the window with its context, in single precision as in Caffe."""
        x1, y1, x2, y2 = corners
        grown = np.float32(self.size) / np.float32(self.size - 2 * self.context)
        half_x, half_y = np.float32(x2 - x1 + 1) / 2, np.float32(y2 - y1 + 1) / 2
        centre_x, centre_y = np.float32(x1) + half_x, np.float32(y1) + half_y
        if self.square:
            half_x = half_y = max(half_x, half_y)
        rows = (centre_y - half_y * grown, centre_y + half_y * grown)
        columns = (centre_x - half_x * grown, centre_x + half_x * grown)
        return (_round(rows[0]), _round(rows[1])), (_round(columns[0]), _round(columns[1]))

    def _clipped(self, side: Side, extent: int) -> tuple[Side, int, Side]:
        """The part inside the image, its pixels after stretching, and the padding around it."""
        first, last = side
        before, after = max(0, -first), max(0, last - extent + 1)
        inside = (first + before, last - after)
        scale = np.float32(self.size) / np.float32(last - first + 1)
        pads = (_round(np.float32(before) * scale), _round(np.float32(after) * scale))
        return inside, _round(np.float32(inside[1] - inside[0] + 1) * scale), pads


def _round(value: np.float32) -> int:
    """The nearest whole number, halves away from zero."""
    exact = float(value)
    return floor(exact + 0.5) if exact >= 0 else -floor(0.5 - exact)
