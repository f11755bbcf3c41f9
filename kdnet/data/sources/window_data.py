"""WindowData: windows of images, drawn at random, for R-CNN."""

from __future__ import annotations

import numpy as np

from kdnet.data.datum import Shape
from kdnet.data.image import Pixels
from kdnet.data.image_list import Entry, decoded, image_bytes
from kdnet.data.items import check_size, check_tops, positive
from kdnet.data.located import blamed_on, existing, refuse, remark
from kdnet.data.order import draw_key
from kdnet.data.source import Floats, Source, source
from kdnet.data.transform import mean_image, mean_values
from kdnet.data.window_list import Integers, read_windows
from kdnet.data.windows import Warp
from kdnet.errors import DataError, Diagnostic, Span, fail
from kdnet.net import LayerModel
from kdnet.weights import philox

_PARAM = "window_data_param"
_SOURCE = (_PARAM, "source")
_MODES = ("warp", "square")


@source("WindowData")
class WindowData(Source):
    """Windows of images, each stretched to crop_size: background first, then foreground.

        foreground: int(batch_size · fg_fraction) windows a batch, drawn with replacement

    Parameters: source, batch_size, transform_param.crop_size; fg_threshold, bg_threshold,
        fg_fraction, context_pad, crop_mode ("warp" or "square"), root_folder; cache_images keeps
        the files in memory; transform_param.mirror (in both phases), mean_file or mean_value.
    Differs from Caffe: which windows a batch has belongs to (seed, layer, batch index); a fault
        of a window is an error, not a batch half filled; transform_param.scale is applied where
        window_data_param.scale is not given.
    Faults: missing-data-source, bad-window-file, no-windows, missing-image, corrupt-image,
        bad-window, bad-window-parameter, mean-file-and-value, mean-value-count, mean-shape.
    """

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        del shape
        super().__init__(layer, seed=seed)
        param = layer.message.window_data_param
        self._batch_size, self._warp = _check(layer)
        self._path = existing(layer, param.source, *_SOURCE)
        with blamed_on(layer, *_SOURCE):
            self._file = read_windows(self._path, param.fg_threshold, param.bg_threshold)
        objects = int(np.float32(self._batch_size) * np.float32(param.fg_fraction))
        self._counts = (self._batch_size - objects, objects)
        self._check_windows()
        self._scale, self.notes = _scale_of(layer)
        self._mean = _mean_of(layer, self._warp.size)
        self._kept: dict[int, bytes] = {}

    def _check_windows(self) -> None:
        kinds = ("background", "foreground")
        windows = (self._file.background, self._file.foreground)
        for kind, found, wanted in zip(kinds, windows, self._counts, strict=True):
            if wanted and not len(found):
                text = f'"{self._path}" has no {kind} window, and a batch needs {wanted}'
                refuse(self.layer, "no-windows", text, *_SOURCE)

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """The shapes that crop_size and batch_size state."""
        del shape
        batch_size, warp = _check(layer)
        return _shapes(layer, batch_size, warp.size)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """(N, 3, crop_size, crop_size), and (N) of the classes."""
        return _shapes(self.layer, self._batch_size, self._warp.size)

    def batch(self, index: int) -> tuple[Floats, ...]:
        """Drawn windows and their classes; 0 is background."""
        draws = philox(self.seed, draw_key(self.layer), "windows", index)
        chosen, mirrored = draws.random((2, self._batch_size))
        mirrors = self.layer.message.transform_param.mirror
        images = np.zeros(self.shapes[0], np.float32)
        labels = np.zeros(self._batch_size, np.float32)
        for item, share in enumerate(chosen.tolist()):
            is_object = item >= self._counts[0]
            windows = self._file.foreground if is_object else self._file.background
            window = windows[int(share * len(windows))]
            labels[item] = window[1]
            self._fill(images[item], window, flip=bool(mirrors and mirrored[item] < 0.5))
        return images, labels

    def _fill(self, place: Floats, window: Integers, *, flip: bool) -> None:
        number, _, x1, y1, x2, y2 = window.tolist()
        entry = self._file.images[number]
        try:
            pixels, (top, left) = self._warp.cut(
                self._image(number, entry), (x1, y1, x2, y2), flip=flip
            )
        except ValueError as error:
            span = Span(str(self._path), entry.line, 1)
            text = f'window ({x1}, {y1}) to ({x2}, {y2}) of "{entry.path}" {error}'
            with blamed_on(self.layer, *_SOURCE):
                fail(DataError, "bad-window", text, span=span)
        here = (
            slice(None),
            slice(top, top + pixels.shape[1]),
            slice(left, left + pixels.shape[2]),
        )
        values = pixels.astype(np.float32)
        if self._mean is not None:
            values -= self._mean[here]
        place[here] = values * self._scale

    def _image(self, number: int, entry: Entry) -> Pixels:
        param = self.layer.message.window_data_param
        with blamed_on(self.layer, *_SOURCE):
            data = self._kept.get(number)
            if data is None:
                data = image_bytes(entry, self._path, param.root_folder)
            if param.cache_images:
                self._kept[number] = data
            return decoded(data, entry, self._path, 3)


def _check(layer: LayerModel) -> tuple[int, Warp]:
    check_tops(layer, 2, 2)
    param = layer.message.window_data_param
    batch_size = positive(layer, param.batch_size, _PARAM, "batch_size")
    size = positive(layer, layer.message.transform_param.crop_size, "transform_param", "crop_size")
    if param.crop_mode not in _MODES:
        text = f'crop_mode is "{param.crop_mode}"; it may be "warp" or "square"'
        refuse(layer, "bad-window-parameter", text, _PARAM, "crop_mode")
    if 2 * param.context_pad >= size:
        text = f"context_pad {param.context_pad} leaves nothing of crop_size {size}"
        refuse(layer, "bad-window-parameter", text, _PARAM, "context_pad")
    if not 0 <= param.fg_fraction <= 1:
        text = f"fg_fraction is {param.fg_fraction:g}; it must be from 0 to 1"
        refuse(layer, "bad-window-parameter", text, _PARAM, "fg_fraction")
    return batch_size, Warp(size, param.context_pad, param.crop_mode == "square")


def _shapes(layer: LayerModel, batch_size: int, size: int) -> tuple[Shape, ...]:
    images = (batch_size, 3, size, size)
    check_size(layer, images)
    return images, (batch_size,)


def _scale_of(layer: LayerModel) -> tuple[np.float32, tuple[Diagnostic, ...]]:
    """What pixels are multiplied by, and a warning where Caffe would not do it."""
    own, moved = layer.message.window_data_param, layer.message.transform_param.scale
    if own.HasField("scale") or moved == 1:
        return np.float32(own.scale), ()
    text = "transform_param.scale is applied; Caffe itself forgets it in WindowData"
    found = remark(layer, "window-scale", text, "transform_param", "scale")
    return np.float32(moved), (found,)


def _mean_of(layer: LayerModel, size: int) -> Floats | None:
    """The mean at the place of a window: the middle of the mean image, or mean_value."""
    if not layer.message.transform_param.HasField("mean_file"):
        values = mean_values(layer, 3)
        return None if values is None else np.broadcast_to(values, (3, size, size))
    path, mean = mean_image(layer)
    # As in Caffe, the width alone says where the middle is.
    start = (mean.shape[2] - size) // 2
    if len(mean) != 3 or start < 0 or start + size > mean.shape[1]:
        text = f'the mean image "{path}" has shape {mean.shape}; windows of {size} do not fit in'
        refuse(layer, "mean-shape", text, "transform_param", "mean_file")
    return mean[:, start : start + size, start : start + size]
