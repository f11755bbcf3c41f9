"""Images, arrays and Caffe's messages for programs: what pycaffe's ``caffe.io`` offers.

Images are (H, W, K) float32 arrays in [0, 1] with red first, as :func:`load_image` reads them;
:class:`Transformer` makes of them what a net's input wants.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import ArrayLike, NDArray

from kdnet.data.datum import read_datum
from kdnet.data.image import decode
from kdnet.errors import DataError, WeightsError, did_you_mean, fail
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import WireError, decode_blob

Array = NDArray[Any]
Floats = NDArray[np.float32]
Order = Sequence[int]

__all__ = [
    "Transformer",
    "array_to_blobproto",
    "array_to_datum",
    "arraylist_to_blobprotovector_str",
    "blobproto_to_array",
    "blobprotovector_str_to_arraylist",
    "datum_to_array",
    "load_image",
    "oversample",
    "resize_image",
]

# Weights of red, green and blue in scikit-image's rgb2gray, which pycaffe calls.
_LUMA = np.array([0.2125, 0.7154, 0.0721])


def blobproto_to_array(blob: pb.BlobProto, return_diff: bool = False) -> NDArray[np.float64]:  # noqa: FBT001, FBT002  # pycaffe's signature
    """The values of a blob message, or its gradients, as float64 in the blob's shape.

    A message with the legacy fields num, channels, height and width gives four axes.

    Raises:
        WeightsError: bad-blob, when the number of values does not fit the shape.
    """
    raw = _only_diff(blob) if return_diff else blob
    data = raw.SerializeToString()
    try:
        array, _ = decode_blob(data, 0, len(data))
    except WireError as error:
        fail(WeightsError, "bad-blob", f"the BlobProto cannot be read: {error}")
    return array.astype(np.float64)


def _only_diff(blob: pb.BlobProto) -> pb.BlobProto:
    """A message of the same shape whose data are the gradients."""
    found = pb.BlobProto(data=blob.diff, double_data=blob.double_diff)
    if blob.HasField("shape"):
        found.shape.CopyFrom(blob.shape)
    for name in ("num", "channels", "height", "width"):
        if blob.HasField(name):
            setattr(found, name, getattr(blob, name))
    return found


def array_to_blobproto(arr: ArrayLike, diff: ArrayLike | None = None) -> pb.BlobProto:
    """A blob message of an array of any rank, with gradients of the same shape if given."""
    values = np.asarray(arr)
    blob = pb.BlobProto()
    blob.shape.dim.extend(values.shape)
    blob.data.extend(values.astype(float).ravel().tolist())
    if diff is not None:
        slopes = np.asarray(diff)
        if slopes.shape != values.shape:
            raise ValueError(f"the diff has shape {slopes.shape}, the array {values.shape}")
        blob.diff.extend(slopes.astype(float).ravel().tolist())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[ArrayLike]) -> bytes:
    """Arrays as a serialised BlobProtoVector."""
    blobs = [array_to_blobproto(array) for array in arraylist]
    return pb.BlobProtoVector(blobs=blobs).SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[NDArray[np.float64]]:
    """The arrays of a serialised BlobProtoVector.

    Raises:
        WeightsError: bad-blob.
    """
    try:
        vector = pb.BlobProtoVector.FromString(str)
    except DecodeError:
        fail(WeightsError, "bad-blob", "the bytes are no BlobProtoVector")
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr: Array, label: int | None = None) -> pb.Datum:
    """A record of a (C, H, W) array: bytes where it is uint8, else floats."""
    if arr.ndim != 3:
        raise ValueError(f"a Datum holds an array (C, H, W), not one of shape {arr.shape}")
    channels, height, width = arr.shape
    datum = pb.Datum(channels=channels, height=height, width=width)
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(float).ravel().tolist())
    if label is not None:
        datum.label = int(label)
    return datum


def datum_to_array(datum: pb.Datum) -> Array:
    """The (C, H, W) array of a record: uint8 for bytes, float64 for floats.

    An encoded image is decoded, blue first, as Caffe's data layers see it; its label stays in
    ``datum.label``.

    Raises:
        DataError: bad-datum, when it is no image or does not have the size that it states.
    """
    try:
        pixels = read_datum(datum.SerializeToString()).pixels
    except ValueError as error:
        fail(DataError, "bad-datum", f"the Datum {error}")
    return pixels.copy() if pixels.dtype == np.uint8 else pixels.astype(np.float64)


def load_image(filename: str | os.PathLike[str], color: bool = True) -> Floats:  # noqa: FBT001, FBT002  # pycaffe's signature
    """Read a JPEG, PNG, BMP, PPM, TIFF or WebP image.

    Args:
        filename: the file.
        color: for (H, W, 3), red first; else (H, W, 1), by 0.2125 R + 0.7154 G + 0.0721 B.

    Returns:
        float32 in [0, 1]. An alpha channel is dropped, a grey image repeated for ``color``.

    Raises:
        DataError: missing-image, corrupt-image.
    """
    try:
        pixels = decode(Path(filename).read_bytes())
    except OSError as error:
        fail(DataError, "missing-image", f'cannot read "{filename}": {error.strerror}')
    except ValueError as error:
        fail(DataError, "corrupt-image", f'the image "{filename}" {error}')
    image = pixels[:3][::-1].transpose(1, 2, 0) / 255.0
    if image.shape[2] == 3 and not color:
        image = (image @ _LUMA)[:, :, None]
    return np.repeat(image, 3 if color and image.shape[2] == 1 else 1, 2).astype(np.float32)


def resize_image(im: Array, new_dims: Sequence[int], interp_order: int = 1) -> Floats:
    """Resize an image as pycaffe does.

    One or three channels go scikit-image's way: pixel centres are aligned and what lies outside
    counts as the image's smallest value, so a border is mixed with it where an image grows.
    Other numbers of channels go scipy's way: the corners are aligned.

    Args:
        im: the image (H, W, K).
        new_dims: the new height and width.
        interp_order: 1 for linear, 0 for the nearest pixel.

    Differs from pycaffe: scikit-image from 0.15 on smooths an image before it shrinks it, which
    changed pycaffe's results under the same code; here nothing is smoothed, as in the releases
    that pycaffe was written for. Orders above 1 are refused.
    """
    if interp_order not in (0, 1):
        raise ValueError(f"interp_order must be 0 or 1, not {interp_order}")
    image, (height, width) = np.asarray(im), new_dims[:2]
    if image.ndim != 3 or image.size == 0 or min(height, width) < 1:
        raise ValueError(f"cannot resize {image.shape} to {(height, width)}; (H, W, K) is wanted")
    if image.shape[2] not in (1, 3):
        rows = _corners(image.shape[0], height)
        columns = _corners(image.shape[1], width)
        return _sampled(image, rows, columns, interp_order).astype(np.float32)
    low, high = image.min(), image.max()
    if not high > low:
        return np.full((height, width, image.shape[2]), low, np.float32)
    rows, columns = _centres(image.shape[0], height), _centres(image.shape[1], width)
    resized = _sampled((image - low) / (high - low), rows, columns, interp_order)
    found: Floats = (resized * (high - low) + low).astype(np.float32)
    return found


def _centres(size: int, new_size: int) -> Array:
    """Where the new pixels lie among the old ones, with both grids' borders on each other."""
    return (np.arange(new_size) + 0.5) * (size / new_size) - 0.5


def _corners(size: int, new_size: int) -> Array:
    """The same with the first pixels on each other, and the last."""
    steps = max(1, new_size - 1)
    return np.arange(new_size) * ((size - 1) / steps if new_size > 1 else 1.0)


def _sampled(image: Array, rows: Array, columns: Array, order: int) -> NDArray[np.float64]:
    wide = image.astype(np.float64)
    return _along(_along(wide, 0, rows, order), 1, columns, order)


def _along(image: NDArray[np.float64], axis: int, at: Array, order: int) -> NDArray[np.float64]:
    """Values at fractional places along an axis; outside of it there are zeros."""
    shape = [-1 if index == axis else 1 for index in range(image.ndim)]
    size = image.shape[axis]
    first = np.floor(at if order else at + 0.5).astype(np.int64)
    share = at - first if order else np.zeros(len(at))
    found = np.zeros([len(at) if i == axis else n for i, n in enumerate(image.shape)])
    for place, weight in ((first, 1 - share), (first + 1, share)):
        inside = (place >= 0) & (place < size)
        taken = np.take(image, np.clip(place, 0, size - 1), axis)
        found += taken * np.where(inside, weight, 0.0).reshape(shape)
    return found


def oversample(images: Sequence[Array] | Array, crop_dims: Sequence[int]) -> Floats:
    """Ten crops of each image: the corners, the centre, and the mirror images of these.

    Args:
        images: N images (H, W, K) of one size.
        crop_dims: height and width of the crops.

    Returns:
        (10 N, height, width, K).
    """
    height, width = (int(size) for size in crop_dims)
    rows, columns, channels = images[0].shape
    if height > rows or width > columns:
        raise ValueError(f"a crop of {(height, width)} does not fit images of {(rows, columns)}")
    corners = [(y, x) for y in (0, rows - height) for x in (0, columns - width)]
    middle = (int(rows / 2.0 - height / 2.0), int(columns / 2.0 - width / 2.0))
    crops = np.empty((len(images), 10, height, width, channels), np.float32)
    for image, out in zip(images, crops, strict=True):
        for index, (y, x) in enumerate([*corners, middle]):
            out[index] = image[y : y + height, x : x + width]
        out[5:] = out[:5, :, ::-1]
    return crops.reshape(-1, height, width, channels)


class Transformer:
    """Makes net inputs of images, and images of net inputs.

        y = (swap(transpose(resize(x))) · raw_scale − mean) · input_scale

    Args:
        inputs: shape (N, K, H, W) by blob name: ``{"data": net.blobs["data"].data.shape}``.

    Attributes:
        inputs: the shapes.
        transpose, channel_swap, raw_scale, mean, input_scale: what was set, by blob name.

    Differs from pycaffe: ``preprocess`` never writes into the image that it is given.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, Order] = {}
        self.channel_swap: dict[str, Order] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            known = ", ".join(f'"{name}"' for name in self.inputs)
            hint = "; ".join(did_you_mean(in_, self.inputs)) or f"it has {known or 'none'}"
            raise ValueError(f'"{in_}" is no input of this Transformer: {hint}')
        return self.inputs[in_]

    def preprocess(self, in_: str, data: Array) -> Floats:
        """The net's input (K, H, W) for an image (H', W', K).

        In this order: float32, resize, transpose, swap channels, scale, subtract the mean, scale.
        """
        height_width = self._shape(in_)[2:]
        found = np.array(data, np.float32)
        if found.shape[:2] != height_width:
            found = resize_image(found, height_width)
        if in_ in self.transpose:
            found = found.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            found = found[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            found *= self.raw_scale[in_]
        if in_ in self.mean:
            found -= self.mean[in_]
        if in_ in self.input_scale:
            found *= self.input_scale[in_]
        return found

    def deprocess(self, in_: str, data: Array) -> Array:
        """The image (H, W, K) of a net's input (K, H, W); :meth:`preprocess` but the resizing."""
        self._shape(in_)
        found = data.copy().squeeze()
        if in_ in self.input_scale:
            found /= self.input_scale[in_]
        if in_ in self.mean:
            found += self.mean[in_]
        if in_ in self.raw_scale:
            found /= self.raw_scale[in_]
        if in_ in self.channel_swap:
            found = found[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            found = found.transpose(np.argsort(self.transpose[in_]))
        return found

    def set_transpose(self, in_: str, order: Order) -> None:
        """Set the order of the axes: (2, 0, 1) makes (C, H, W) of an image (H, W, C)."""
        axes = len(self._shape(in_)) - 1
        if sorted(order) != list(range(axes)):
            raise ValueError(f"{tuple(order)} is no order of {axes} axes")
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Order) -> None:
        """Set the order of the channels, the first axis after transposing: (2, 1, 0) for BGR."""
        channels = self._shape(in_)[1]
        if sorted(order) != list(range(channels)):
            raise ValueError(f"{tuple(order)} is no order of {channels} channels")
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set what images are multiplied by before the mean: 255 where a net knows [0, 255]."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: Array) -> None:
        """Set the mean: one number a channel, or an array (K, H, W), resized if need be."""
        shape = self._shape(in_)
        if mean.ndim == 1:
            if len(mean) != shape[1]:
                raise ValueError(f"a mean of {len(mean)} channels for an input {shape}")
            mean = mean[:, None, None]
        else:
            mean = mean[None] if mean.ndim == 2 else mean
            if mean.ndim != 3:
                raise ValueError(f"a mean has 1, 2 or 3 axes, not the shape {mean.shape}")
            if mean.shape != shape[1:]:
                mean = _resized_mean(mean, shape[2:])
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Set what images are multiplied by at the very end."""
        self._shape(in_)
        self.input_scale[in_] = scale


def _resized_mean(mean: Array, dims: Sequence[int]) -> Array:
    low, high = mean.min(), mean.max()
    span = (high - low) or 1
    unit = ((mean - low) / span).transpose(1, 2, 0)
    resized: Array = resize_image(unit, dims).transpose(2, 0, 1) * span + low
    return resized
