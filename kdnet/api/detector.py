"""``kdnet.Detector``: what a net says of windows of images, as pycaffe's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from kdnet.api.images import Look, transformer_of
from kdnet.api.models import FilePath, Model
from kdnet.api.net import Net
from kdnet.io import Floats, load_image, resize_image
from kdnet.schema import kdnet_pb2 as pb

Array = NDArray[Any]
Window = Sequence[int] | NDArray[Any]


class Detection(TypedDict):
    """What a net says of one window: ``prediction`` is a row of its first output."""

    window: Window
    prediction: Floats
    filename: str | os.PathLike[str]


class _Span(NamedTuple):
    """A range of an image and the range of a crop that shows it."""

    source: slice
    target: slice


class Detector(Net):
    """A net in TEST phase that is handed windows of images, each warped to its input.

    A window is (top, left, bottom, right) in pixels, the last two excluded, as pycaffe has them:
    ymin, xmin, ymax, xmax.

    Args:
        model_file: the net; its first input takes the windows.
        pretrained_file: its weights.
        mean: what :meth:`kdnet.io.Transformer.set_mean` takes.
        input_scale: what images are multiplied by at the end.
        raw_scale: what images, in [0, 1], are multiplied by at first.
        channel_swap: (2, 1, 0) for a net that was trained on BGR.
        context_pad: of the input's border so many pixels show what surrounds the window; what
            lies outside of the image is the mean. The input is square then.

    Attributes:
        transformer: prepares images.
        crop_dims: the input's shape as an image: (H, W, K).
        context_pad: the border.
        crop_mean: what is shown outside of an image; (H, W, K) or what broadcasts to it.

    Source: R. Girshick et al., Rich feature hierarchies, CVPR 2014, appendix A; behaviour as
    BVLC/caffe python/caffe/detector.py.
    """

    def __init__(  # noqa: PLR0913, PLR0917, RUF100  # pycaffe's signature
        self,
        model_file: Model,
        pretrained_file: FilePath | None = None,
        mean: Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, phase=pb.TEST, weights=pretrained_file)
        look = Look(mean, input_scale, raw_scale, channel_swap)
        self.transformer = transformer_of(self, look)
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set the border of context, and the mean that fills it up.

        Raises:
            ValueError: the border leaves no room for the window, or the input is not square.
        """
        channels, height, width = self.blobs[self.inputs[0]].shape[1:]
        self.crop_dims = (height, width, channels)
        self.context_pad = context_pad or 0
        if not self.context_pad:
            return
        if height != width or not 0 < 2 * self.context_pad < width:
            text = f"context_pad is {self.context_pad}, the input ({height}, {width})"
            raise ValueError(f"{text}: it is square, and more than two borders wide")
        self.crop_mean = self._mean_as_image()

    def _mean_as_image(self) -> Array:
        """The transformer's mean, as an image that is not prepared yet."""
        name, made = self.inputs[0], self.transformer
        mean = made.mean.get(name)
        if mean is None:
            return np.zeros(self.crop_dims, np.float32)
        image = mean.transpose(1, 2, 0)
        if name in made.channel_swap:
            image = image[:, :, np.argsort(made.channel_swap[name])]
        return image / made.raw_scale.get(name, 1)

    def detect_windows(
        self, images_windows: Iterable[tuple[FilePath, Sequence[Window]]]
    ) -> list[Detection]:
        """Run the net on windows of image files, each with its windows.

        Raises:
            DataError: missing-image, corrupt-image.
            ValueError: a window holds no pixel of its image.
        """
        asked: list[tuple[FilePath, Window]] = []
        crops = []
        for file, windows in images_windows:
            image = load_image(file)
            for window in windows:
                asked.append((file, window))
                crops.append(self.crop(image, window))
        if not asked:
            return []
        name = self.inputs[0]
        ready = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        found = self.forward_all(None, **{name: ready})[self.outputs[0]]
        return [
            {"window": window, "prediction": prediction, "filename": file}
            for (file, window), prediction in zip(asked, found, strict=True)
        ]

    def crop(self, im: Array, window: Window) -> Floats:
        """The window of an image (H, W, K), with its surroundings where context_pad says so.

        Raises:
            ValueError: it holds no pixel of the image.
        """
        top, left, bottom, right = (int(place) for place in window)
        inside: Floats = im[top:bottom, left:right]
        if not inside.size:
            text = f"the window ({top}, {left}, {bottom}, {right}) holds no pixel"
            raise ValueError(f"{text} of an image of {im.shape[:2]}")
        if not self.context_pad:
            return inside
        rows = self._widened(top, bottom, im.shape[0])
        columns = self._widened(left, right, im.shape[1])
        found = np.ones(self.crop_dims, np.float32) * self.crop_mean
        seen = im[rows.source, columns.source]
        found[rows.target, columns.target] = resize_image(
            seen, (_extent(rows.target), _extent(columns.target))
        )
        return found.astype(np.float32)

    def _widened(self, first: int, last: int, size: int) -> _Span:
        """Along one axis: what of the image is seen, and where in the crop it is shown."""
        extent = self.crop_dims[0]
        half = (last - first + 1) / 2.0
        reach = half * extent / (extent - 2 * self.context_pad)
        low, high = (round(first + half + side * reach) for side in (-1, 1))
        scale = extent / (high - low + 1)
        before = round(max(0, -low) * scale)
        low, high = max(0, min(low, size)), max(0, min(high, size))
        shown = min(round((high - low + 1) * scale), extent - before)
        return _Span(slice(low, high), slice(before, before + shown))


def _extent(part: slice) -> int:
    return int(part.stop - part.start)
