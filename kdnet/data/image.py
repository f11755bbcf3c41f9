"""Compressed images as Caffe sees them: OpenCV's channel order and OpenCV's resizing."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdnet.data.packages import package

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

MAX_PIXELS = 2**26
"""An image that claims more pixels than this is refused before it is decoded."""

_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")
ENCODERS = {
    "jpg": "JPEG",
    "jpeg": "JPEG",
    "png": "PNG",
    "bmp": "BMP",
    "ppm": "PPM",
    "pgm": "PPM",
    "tif": "TIFF",
    "tiff": "TIFF",
    "webp": "WEBP",
}
"""Pillow's name for how files of an ending are encoded."""

_UNCHANGED = {"1": "L", "L": "L", "RGBA": "RGBA", "LA": "RGBA", "PA": "RGBA"}
# Weights of red, green and blue, their bits, and what is added before these are dropped.
_GREY = {
    "PNG": ((9797, 19234, 3737), 15, 0),
    "WEBP": ((9798, 19235, 3735), 15, 1 << 14),
}
_WIDE = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_WEIGHT_BITS = 11


def decode(data: bytes, channels: int | None = None) -> Pixels:
    """Pixels of a JPEG, PNG, BMP, PPM, TIFF or WebP image.

    Args:
        data: The whole file.
        channels: 3 for colour, 1 for grey, None for what the file has (1, 3, or 4 with alpha).

    Returns:
        Shape (channels, height, width); colours in the order blue, green, red, alpha.

    Raises:
        ValueError: The bytes are no such image, are cut short, or hold more than 8 bits a channel.

    EXIF orientation is ignored, as in the OpenCV 2 that Caffe was written for. A JPEG's colours
    are those of libjpeg-turbo; a Caffe linked with another JPEG library differs where they change
    sharply.
    """
    pillow = package("PIL.Image", "Pillow")
    try:
        with pillow.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it claims {image.width} x {image.height} pixels")
            pixels = _decoded(image, channels)
    except Exception as error:
        # Pillow's plugins raise nearly anything for a damaged file.
        raise ValueError(f"cannot be decoded as an image: {error}") from None
    return _blue_first(pixels)


def encode(image: Pixels, kind: str) -> bytes:
    """An image file of pixels (C, H, W), one channel or blue, green, red.

    Args:
        image: The pixels.
        kind: One of :data:`ENCODERS`, in any case. JPEG has quality 95, OpenCV's.
    """
    pillow = package("PIL.Image", "Pillow")
    name = ENCODERS[kind.lower()]
    plain = image[0] if len(image) == 1 else image[::-1].transpose(1, 2, 0)
    file = io.BytesIO()
    # JPEG alone heeds the quality that OpenCV has by default, WebP alone the other.
    pillow.fromarray(np.ascontiguousarray(plain)).save(file, name, quality=95, lossless=True)
    return file.getvalue()


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Bilinear resizing without smoothing, by OpenCV's INTER_LINEAR arithmetic for bytes.

    Weights are multiples of 1/2048 and pixel centres are aligned. Columns beyond the edge take the
    edge's weight whole, rows mix the edge with itself and round twice, as OpenCV does: the bytes
    are those of OpenCV 4.14. Pillow's own resizing averages over the shrunk area and differs.

    Shapes:
        image  (C, H, W) -> (C, height, width)
    """
    if image.shape[1:] == (height, width):
        return image
    size = image.shape[2]
    first, part = _taps(size, width)
    part[(first < 0) | (first >= size - 1)] = 0
    left, right, wx = _mixed(first, part, size)
    upper, lower, wy = _mixed(*_taps(image.shape[1], height), image.shape[1])
    one = 1 << _WEIGHT_BITS
    wide = image.astype(np.int32)
    rows = wide[:, :, left] * (one - wx) + wide[:, :, right] * wx
    wy = wy[:, None]
    mixed = ((rows[:, upper] >> 4) * (one - wy) >> 16) + ((rows[:, lower] >> 4) * wy >> 16)
    return ((mixed + 2) >> 2).astype(np.uint8)


def _decoded(image: Image.Image, channels: int | None) -> Pixels:
    """Pixels (H, W) or (H, W, C), red first."""
    if image.mode in _WIDE:
        raise ValueError(f"it has more than 8 bits a channel (mode {image.mode})")
    if channels == 1:
        # Lets the JPEG decoder hand out its luma, as OpenCV does, rather than converting.
        image.draft("L", image.size)
    plain = image.convert("RGBA") if _has_clear_colours(image) else image
    mode = _mode(plain.mode, channels)
    if mode == "L" and plain.mode in ("RGB", "RGBA", "P"):
        return _grey(np.asarray(plain.convert("RGB")), image.format or "")
    return np.asarray(plain.convert(mode))


def _has_clear_colours(image: Image.Image) -> bool:
    return image.mode == "P" and "transparency" in image.info


def _mode(mode: str, channels: int | None) -> str:
    if channels is None:
        return _UNCHANGED.get(mode, "RGB")
    return "L" if channels == 1 else "RGB"


def _grey(colours: Pixels, kind: str) -> Pixels:
    """Grey as OpenCV's reader of a kind of file makes it: 0.299 R + 0.587 G + 0.114 B."""
    weights, bits, half = _GREY.get(kind, ((4899, 9617, 1868), 14, 1 << 13))
    sums = colours.astype(np.int32) @ np.array(weights, np.int32)
    grey: Pixels = ((sums + half) >> bits).astype(np.uint8)
    return grey


def _blue_first(pixels: Pixels) -> Pixels:
    if pixels.ndim == 2:
        return pixels[None].copy()
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return np.ascontiguousarray(pixels[:, :, order].transpose(2, 0, 1))


def _taps(size: int, new_size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The first of the two pixels that each new pixel mixes, and the share of the second."""
    # OpenCV inverts the inverse scale: size / new_size differs from it in the last bit.
    centre = ((np.arange(new_size) + 0.5) * (1 / (new_size / size)) - 0.5).astype(np.float32)
    first = np.floor(centre).astype(np.int64)
    return first, centre - first.astype(np.float32)


def _mixed(
    first: NDArray[np.int64], part: NDArray[np.float32], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Both pixels inside the image, and the weight of the second in 1/2048."""
    weight = np.rint(part * (1 << _WEIGHT_BITS)).astype(np.int32)
    return np.clip(first, 0, size - 1), np.clip(first + 1, 0, size - 1), weight
