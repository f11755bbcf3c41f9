"""What the sources of labelled images have in common."""

from __future__ import annotations

from abc import abstractmethod
from math import prod

import numpy as np

from kdnet.data.cache import Rows
from kdnet.data.datum import Shape
from kdnet.data.located import refuse
from kdnet.data.order import Order
from kdnet.data.source import Floats, Source
from kdnet.data.transform import Transformer, transformed_shape
from kdnet.net import LayerModel
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights.model import Array

MAX_VALUES = 2**31 - 1
"""Caffe's limit on the values of one blob."""


class ImageSource(Source):
    """Images (C, H, W) with labels, transformed; sub-classes say what is stored.

    Tops: the images, and where there is a second top, the labels (N).
    """

    _order: Order

    def _prepare(self, item_shape: Shape, batch_size: int, *, several: bool = False) -> None:
        self.batch_size = batch_size
        self._transformer = Transformer(self.layer, item_shape, self.seed, several=several)
        self._shapes = image_shapes(self.layer, item_shape, batch_size)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """(N, C, H, W), and (N,) of the labels."""
        return self._shapes

    @property
    def record_count(self) -> int:
        """Every stored image is a record."""
        return self._order.count

    @property
    def varies(self) -> str:
        """Random crops and mirroring."""
        return self._transformer.varies

    def records(self, index: int) -> Rows:
        """The stored images of batch ``index``."""
        return self._order.rows(index, self.batch_size)

    def identity(self) -> dict[str, str]:
        """The stored images, what reading does to them, the transform and the phase."""
        return {
            "type": self.layer.type,
            "phase": pb.Phase.Name(self.layer.phase),
            "transform": self._transformer.identity(),
            "contents": self._contents(),
        }

    @abstractmethod
    def _contents(self) -> str:
        """A hash of the stored images, and of how they are decoded."""

    @abstractmethod
    def take(self, rows: Rows) -> tuple[Array, ...]:
        """Images and labels of ``rows``, as stored."""

    def batch(self, index: int) -> tuple[Floats, ...]:
        """Images and labels of batch ``index``."""
        items, labels = self.take(self.records(index))
        images = self._transformer.apply(items, index)
        return (images, labels.astype(np.float32))[: len(self.tops)]


def image_shapes(layer: LayerModel, item_shape: Shape, batch_size: int) -> tuple[Shape, ...]:
    """The shapes of the tops for items of ``item_shape`` (C, H, W) before the crop.

    Raises:
        DataError: crop-too-large, blob-too-large.
    """
    images = (batch_size, *transformed_shape(layer, item_shape))
    check_size(layer, images)
    return (images, (batch_size,))[: len(layer.tops)]


def check_size(layer: LayerModel, shape: Shape) -> None:
    """Refuse a top that is larger than any blob may be, before memory is taken for it."""
    if prod(shape) > MAX_VALUES:
        text = f"a top of shape {shape} has more than {MAX_VALUES} values"
        refuse(layer, "blob-too-large", text)


def check_tops(layer: LayerModel, least: int, most: int) -> None:
    """Refuse a number of tops that the type does not have."""
    if not least <= len(layer.tops) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        text = f"{layer.type} has {wanted} tops, not {len(layer.tops)}"
        refuse(layer, "top-count", text, "top")


def positive(layer: LayerModel, value: int, *at: str) -> int:
    """The value of the field ``at``, which must be positive."""
    if value < 1:
        text = f"{'.'.join(at)} must be positive"
        refuse(layer, "not-positive", text, *at)
    return value


def stated_shape(
    layer: LayerModel, field: pb.BlobShape | None, shape: Shape | None, *at: str
) -> Shape | None:
    """The item shape (C, H, W) that the layer's field ``at`` states, or else the command line.

    Raises:
        DataError: bad-item-shape.
    """
    found = tuple(field.dim) if field is not None else shape
    if found is not None and (len(found) != 3 or min(found) < 1):
        text = f"the shape {tuple(found)} is not (channels, height, width) of an image"
        refuse(layer, "bad-item-shape", text, *at)
    return found


def check_stated(layer: LayerModel, stated: Shape | None, found: Shape, *at: str) -> None:
    """Refuse data whose items do not have the shape that was stated."""
    if stated not in (None, found):
        text = f"items have the shape {found}, but {stated} is stated"
        refuse(layer, "item-shape", text, *at)
