"""ImageData: image files named in a list."""

from __future__ import annotations

import numpy as np

from kdnet.data.cache import Rows
from kdnet.data.content import content_hash, text_hash
from kdnet.data.datum import Shape
from kdnet.data.image import Pixels, resize
from kdnet.data.image_list import read_image, read_list
from kdnet.data.items import (
    check_tops,
    image_shapes,
    positive,
    stated_shape,
)
from kdnet.data.located import blamed_on, existing, refuse
from kdnet.data.order import Order, below, draw_key, permutation
from kdnet.data.paths import find
from kdnet.data.source import source
from kdnet.data.stored_images import SeveralShapesError, StoredImageSource
from kdnet.net import LayerModel
from kdnet.weights.model import Array

_PARAM = "image_data_param"
_SOURCE = (_PARAM, "source")
_OPENED = 64


@source("ImageData")
class ImageData(StoredImageSource):
    """Image files and labels, over and over, as a list names them.

    The list has one image a line: a path, which may hold spaces, and an integer label. Paths are
    ``root_folder`` and the line's path put together as they are; they resolve against the working
    directory, then against the list's folder.

    Parameters: source, batch_size, root_folder, new_height and new_width (both or neither),
        is_color, shape; shuffle orders each pass anew; rand_skip r starts at a random line
        below r. With crop_size, images may have several sizes: each is cropped from its own.
    Differs from Caffe: without crop_size, images of several shapes are refused even where a batch
        has one; a line without a whole number as its label is refused (Caffe reads 0).
    Faults: missing-data-source, bad-image-list, missing-image, corrupt-image, record-shape,
        resize-one-side, skip-too-large, item-shape, crop-too-large, mean-shape.
    """

    source_field = _SOURCE
    equal_hint = "give crop_size, or new_height and new_width"
    channels_hint = "is_color gives all images the same channels"

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        super().__init__(layer, seed=seed)
        param = layer.message.image_data_param
        batch_size = _check(layer)
        self._path = existing(layer, param.source, *_SOURCE)
        with blamed_on(layer, *_SOURCE):
            self._entries = read_list(self._path)
        count = len(self._entries)
        skip = below(param.rand_skip, seed, draw_key(layer), "rand_skip")
        if skip >= count:
            text = f'rand_skip came to {skip}, but "{self._path}" has {count} images'
            refuse(layer, "skip-too-large", text, _PARAM, "rand_skip")
        self._order = Order(count, skip=skip, shuffle=self._shuffled if param.shuffle else None)
        first = self._image(0)
        self._check_stated(_stated(layer, shape), first.shape, _PARAM, "shape")
        self._store(first, self._name(0), batch_size)

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """The shapes when images are resized or an item's shape is stated."""
        batch_size = _check(layer)
        stated = _stated(layer, shape)
        return None if stated is None else image_shapes(layer, stated, batch_size)

    def _contents(self) -> str:
        """Names, labels and sizes of all files, and the bytes of some from first to last."""
        param, count = self.layer.message.image_data_param, len(self._entries)
        files = [find(param.root_folder + e.path, str(self._path)) for e in self._entries]
        sizes = [path.stat().st_size if path else -1 for path in files]
        lines = [
            f"{entry.path} {entry.label} {size}"
            for entry, size in zip(self._entries, sizes, strict=True)
        ]
        some = sorted({(count - 1) * number // (_OPENED - 1) for number in range(_OPENED)})
        opened = content_hash(path for row in some if (path := files[row]))
        return text_hash(str(param.is_color), str(self._shape), opened, *lines)

    def _shuffled(self, number: int) -> Rows:
        return permutation(len(self._entries), self.seed, draw_key(self.layer), "shuffle", number)

    def _read(self, rows: Rows) -> tuple[Array, ...]:
        images = np.empty((len(rows), *self._shape), np.uint8)
        for place, row in enumerate(rows.tolist()):
            image = self._image(row)
            if image.shape != self._shape:
                raise SeveralShapesError
            images[place] = image
        labels = np.array([self._entries[row].label for row in rows.tolist()], np.int32)
        return images, labels

    def _read_one(self, row: int) -> tuple[Array, int]:
        image = self._image(row)
        self._check_shape(image.shape, self._name(row))
        return image, self._entries[row].label

    def _name(self, row: int) -> str:
        entry = self._entries[row]
        return f'"{entry.path}" (line {entry.line} of "{self._path}")'

    def _image(self, row: int) -> Pixels:
        param = self.layer.message.image_data_param
        channels = 3 if param.is_color else 1
        with blamed_on(self.layer, *_SOURCE):
            image = read_image(self._entries[row], self._path, param.root_folder, channels)
        if param.new_height:
            image = resize(image, param.new_height, param.new_width)
        return image


def _check(layer: LayerModel) -> int:
    check_tops(layer, 1, 2)
    param = layer.message.image_data_param
    if (param.new_height > 0) != (param.new_width > 0):
        given = "new_height" if param.new_height else "new_width"
        text = "new_height and new_width must be given together"
        refuse(layer, "resize-one-side", text, _PARAM, given)
    return positive(layer, param.batch_size, _PARAM, "batch_size")


def _stated(layer: LayerModel, shape: Shape | None) -> Shape | None:
    param = layer.message.image_data_param
    field = param.shape if param.HasField("shape") else None
    if field is None and param.new_height:
        return (3 if param.is_color else 1, param.new_height, param.new_width)
    return stated_shape(layer, field, shape, _PARAM, "shape")
