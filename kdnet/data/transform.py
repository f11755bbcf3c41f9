"""Caffe's data transformer for whole batches: mean, scale, crop, mirror."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kdnet.data.content import text_hash
from kdnet.data.datum import Shape
from kdnet.data.located import blamed_on, existing, refuse
from kdnet.data.mean import Floats, read_mean
from kdnet.data.order import draw_key
from kdnet.net import LayerModel
from kdnet.schema import kdnet_pb2 as pb
from kdnet.schema import write_text
from kdnet.weights import philox
from kdnet.weights.model import Array

_PARAM = "transform_param"

Integers = NDArray[np.int64]
Draws = NDArray[np.float64]


def transformed_shape(layer: LayerModel, shape: Shape, what: str = "the images") -> Shape:
    """The shape of an item after the layer's crop; a fault calls the item ``what``.

    Raises:
        DataError: crop-too-large.
    """
    crop = layer.message.transform_param.crop_size
    channels, height, width = shape
    if not crop:
        return shape
    if crop > height or crop > width:
        text = f"crop_size {crop} is larger than {what}, {height} x {width}"
        refuse(layer, "crop-too-large", text, _PARAM, "crop_size")
    return (channels, crop, crop)


def forced_channels(layer: LayerModel) -> int | None:
    """The channels that encoded images are decoded to: 3, 1, or None for what each has.

    Raises:
        DataError: force-color-and-gray.
    """
    param = layer.message.transform_param
    if param.force_color and param.force_gray:
        text = "force_color and force_gray exclude each other"
        refuse(layer, "force-color-and-gray", text, _PARAM, "force_gray")
    if param.force_color or layer.message.data_param.force_encoded_color:
        return 3
    return 1 if param.force_gray else None


class Transformer:
    """What a layer's transform_param does to its images.

        y = (x - mean) * scale, cropped, then mirrored left to right

    A mean image is subtracted at the place of the crop. In TRAIN each image is cropped at a random
    place, in TEST in the middle. ``mirror`` flips each image with probability 1/2 in BOTH phases,
    as in Caffe. The random choices belong to (seed, layer, batch index); ``draws_of`` names
    the layer of another view, which then is cropped and flipped at the same places. An image has
    the same three numbers whatever its size: those of its place are shares of its own room.

    Args:
        layer: The layer; its own phase counts.
        shape: (C, H, W) of an item before the crop.
        seed: The run's seed.
        several: Whether items of other extents may come, each to be cropped from its own.

    Raises:
        DataError: crop-too-large, mean-file-and-value, missing-data-source, bad-mean-file,
            mean-shape, mean-value-count.

    Source: behaviour as BVLC/caffe 9b89154 data_transformer.
    """

    def __init__(
        self, layer: LayerModel, shape: Shape, seed: int, *, several: bool = False
    ) -> None:
        self.shape = transformed_shape(layer, shape)
        param = layer.message.transform_param
        self._param = param
        self._name = draw_key(layer)
        self._seed = seed
        self._room = self._room_of(shape)
        self._crops = self.shape != shape
        may_crop = self._crops or (several and param.crop_size > 0)
        self._crops_at_random = may_crop and layer.phase == pb.TRAIN
        self._mirrors = param.mirror
        self._scale = np.float32(param.scale)
        self._mean = _mean_of(layer, shape)

    @property
    def varies(self) -> str:
        """Why one image comes out differently from batch to batch; empty where it does not."""
        if self._mirrors:
            return "mirror flips images at random"
        return "crop_size in TRAIN crops images at random" if self._crops_at_random else ""

    def identity(self) -> str:
        """A hash of what is done to an image."""
        param = pb.TransformationParameter()
        param.CopyFrom(self._param)
        param.ClearField("mean_file")
        mean = b"" if self._mean is None else np.ascontiguousarray(self._mean).tobytes()
        return text_hash(write_text(param), hashlib.sha256(mean).hexdigest())

    def apply(self, items: Array, index: int) -> Floats:
        """The batch's images for the net.

        Shapes:
            items  (N, C, H, W), bytes or float32
            ->     (N, C, h, w), float32, contiguous
        """
        draws = self._draws(len(items), index)
        top, left = (self._offsets(draws[axis], self._room[axis]) for axis in (0, 1))
        data = np.array(self._window(items, top, left), dtype=np.float32, order="C")
        if self._mean is not None:
            data -= self._mean_window(self._mean, top, left)
        return self._finished(data, draws)

    def apply_each(self, images: Iterable[Array], count: int, index: int) -> Floats:
        """The batch's images for the net, from ``count`` images of several extents.

        Only one of them is held at a time: as many whole photographs may be larger than memory.

        Shapes:
            images  (C, H, W) each, bytes or float32
            ->      (N, C, h, w), float32, contiguous
        """
        draws = self._draws(count, index)
        data = np.empty((count, *self.shape), np.float32)
        for place, image in enumerate(images):
            offsets = self._offsets(draws[:2, place], np.array(self._room_of(image.shape)))
            window = (slice(None), *self._square(*offsets.tolist()))
            data[place] = image[window]
            if self._mean is not None:
                small = self._mean.shape[1:] == (1, 1)
                data[place] -= self._mean if small else self._mean[window]
        return self._finished(data, draws)

    def _finished(self, data: Floats, draws: Draws) -> Floats:
        """Cropped images without their mean, scaled and mirrored in place."""
        if self._scale != 1:
            data *= self._scale
        if self._mirrors:
            flip = draws[2] < 0.5
            data[flip] = data[flip, :, :, ::-1]
        return data

    def _room_of(self, shape: Shape) -> tuple[int, int]:
        """How many places the crop's first row and first column have in an image."""
        return (shape[1] - self.shape[1] + 1, shape[2] - self.shape[2] + 1)

    def _draws(self, count: int, index: int) -> Draws:
        """Three numbers an image: for its crop's row, for its column, and for flipping it."""
        if not (self._crops_at_random or self._mirrors):
            return np.zeros((3, count))
        return philox(self._seed, self._name, "transform", index).random((3, count))

    def _offsets(self, draws: Draws, room: int | Integers) -> Integers:
        if self._crops_at_random:
            return (draws * room).astype(np.int64)
        return np.full(draws.shape, (room - 1) // 2)

    def _window(self, items: Array, top: Integers, left: Integers) -> Array:
        if not self._crops:
            return items
        if not self._crops_at_random:
            return items[(..., *self._square(int(top[0]), int(left[0])))]
        windows = sliding_window_view(items, self.shape[1:], axis=(2, 3))
        return windows[np.arange(len(items)), :, top, left]

    def _mean_window(self, mean: Floats, top: Integers, left: Integers) -> Floats:
        if not self._crops or mean.shape[1:] == (1, 1):
            return mean
        if not self._crops_at_random:
            return mean[(..., *self._square(int(top[0]), int(left[0])))]
        windows = sliding_window_view(mean, self.shape[1:], axis=(1, 2))
        return windows[:, top, left].swapaxes(0, 1)

    def _square(self, y: int, x: int) -> tuple[slice, slice]:
        return slice(y, y + self.shape[1]), slice(x, x + self.shape[2])


def _mean_of(layer: LayerModel, shape: Shape) -> Floats | None:
    """The mean as (C, H, W), or (C, 1, 1) for one number a channel; None where there is none."""
    if not layer.message.transform_param.HasField("mean_file"):
        return mean_values(layer, shape[0])
    path, mean = mean_image(layer)
    if mean.shape != shape:
        text = f'the mean image "{path}" has shape {mean.shape}; the images have {shape}'
        refuse(layer, "mean-shape", text, _PARAM, "mean_file")
    return mean


def mean_values(layer: LayerModel, channels: int) -> Floats | None:
    """mean_value as (C, 1, 1), or None where it is not given.

    Raises:
        DataError: mean-value-count.
    """
    values = np.array(layer.message.transform_param.mean_value, np.float32)
    if not len(values):
        return None
    if len(values) not in (1, channels):
        text = f"mean_value is given {len(values)} times for images of {channels} channels"
        hint = ("give it once, or once for each channel",)
        refuse(layer, "mean-value-count", text, _PARAM, "mean_value", 0, help=hint)
    return np.broadcast_to(values[:, None, None], (channels, 1, 1))


def mean_image(layer: LayerModel) -> tuple[Path, Floats]:
    """The file that mean_file names, and the image in it.

    Raises:
        DataError: mean-file-and-value, missing-data-source, bad-mean-file.
    """
    param = layer.message.transform_param
    if param.mean_value:
        text = "mean_file and mean_value exclude each other"
        refuse(layer, "mean-file-and-value", text, _PARAM, "mean_value", 0)
    path = existing(layer, param.mean_file, _PARAM, "mean_file")
    with blamed_on(layer, _PARAM, "mean_file"):
        return path, read_mean(path)
