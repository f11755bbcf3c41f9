""".npz archives: arrays of images and labels, or JPEG files one after another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kdnet.data.datum import Item
from kdnet.data.image import decode
from kdnet.data.importers.images import Image, Images, Options, bad_collection
from kdnet.data.npz import array_names, read_arrays
from kdnet.weights.model import Array

_IMAGES = ("x", "images", "data")
_LABELS = ("y", "labels", "label")
_CHANNELS = (1, 3, 4)


def read_npz(path: Path, options: Options) -> Images:
    """The images of an archive, in one of two layouts.

    Either ``jpeg`` (bytes, all files one after another), ``offsets`` (N + 1) and ``labels`` (N).
    Or images named x, images or data, (N, H, W), (N, C, H, W) or (N, H, W, C), and labels named
    y, labels or label; with ``options.part``, names such as x_train come first. Bytes are stored
    as bytes, other numbers as float_data.

    Raises:
        DataError: bad-npz, missing-array, bad-collection, option-not-applicable.
    """
    known = array_names(path)
    if "jpeg" in known:
        options.accept("an archive of JPEG files", "gray", "encoded")
        names = {"jpeg": "jpeg", "offsets": "offsets", "labels": "labels"}
        return _jpegs(path, read_arrays(path, names), options)
    part = options.part or ""
    names = {
        "images": _choose(_IMAGES, part, known),
        "labels": _choose(_LABELS, part, known),
    }
    options.accept("an archive of arrays", *(["part"] if names["images"].endswith(part) else []))
    arrays = read_arrays(path, names)
    images = _planes(path, arrays["images"])
    labels = _labels(path, arrays["labels"], len(images))
    pairs = zip(images, labels, strict=True)
    return Images(len(images), (Image(Item(pixels, label)) for pixels, label in pairs))


def _choose(names: tuple[str, ...], part: str, known: tuple[str, ...]) -> str:
    candidates = [f"{name}_{part}" for name in names if part] + list(names)
    return next((name for name in candidates if name in known), names[0])


def _jpegs(path: Path, arrays: dict[str, Array], options: Options) -> Images:
    jpeg, offsets = arrays["jpeg"], arrays["offsets"]
    count = len(offsets) - 1 if offsets.ndim == 1 else 0
    if jpeg.dtype != np.uint8 or offsets.dtype.kind not in "ui" or count < 1:
        bad_collection(path, "jpeg must be bytes and offsets whole numbers")
    bounds = [int(bound) for bound in offsets]
    if bounds[0] < 0 or bounds[-1] > jpeg.size or bounds != sorted(bounds):
        bad_collection(path, "offsets must rise from 0 to the size of jpeg")
    labels = _labels(path, arrays["labels"], count)
    files = jpeg.reshape(-1)

    def stream() -> Iterator[Image]:
        for number, label in enumerate(labels):
            data = files[bounds[number] : bounds[number + 1]].tobytes()
            try:
                pixels = decode(data, 1 if options.gray else None)
            except ValueError as error:
                bad_collection(path, f"image {number} {error}")
            yield Image(Item(pixels, label), encoded=data if options.encoded else None)

    return Images(count, stream())


def _planes(path: Path, images: Array) -> Array:
    """The images as (N, C, H, W), bytes or float32."""
    if images.dtype.kind not in "uif" or images.ndim not in (3, 4) or 0 in images.shape:
        bad_collection(path, f"images are {images.dtype} {images.shape}")
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[1] not in _CHANNELS and images.shape[3] in _CHANNELS:
        images = images.transpose(0, 3, 1, 2)
    return images if images.dtype == np.uint8 else images.astype(np.float32)


def _labels(path: Path, labels: Array, count: int) -> list[int]:
    if labels.dtype.kind not in "ui" or labels.size != count:
        text = f"labels are {labels.dtype} {labels.shape}; they must be {count} whole numbers"
        bad_collection(path, text)
    found = [int(label) for label in labels.reshape(-1)]
    if max(found) >= 2**31 or min(found) < -(2**31):
        bad_collection(path, "labels do not fit 32 bits")
    return found
