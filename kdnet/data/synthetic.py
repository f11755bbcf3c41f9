"""Made-up data in place of data that are not there: a layer's ``stand_in``."""

from __future__ import annotations

from math import prod

import numpy as np

from kdnet.data.cache import RowCache, Rows
from kdnet.data.content import text_hash
from kdnet.data.datum import Shape
from kdnet.data.following import FollowingSource
from kdnet.data.items import ImageSource, check_size, image_shapes
from kdnet.data.order import Order
from kdnet.data.source import Floats, Source
from kdnet.net import LayerModel
from kdnet.net.model import StandIn
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import philox
from kdnet.weights.model import Array
from kdnet.weights.random import raw_words

RECORDS = 1024
"""How many records a stand-in has, over and over."""


def named_source(layer: LayerModel) -> str:
    """What a data layer calls its data; layers that name the same have the same stand-ins."""
    for _, params in layer.message.ListFields():
        found = getattr(params, "source", None)
        if isinstance(found, str) and found:
            return found
    return layer.name


def _stand_in(layer: LayerModel) -> StandIn:
    if layer.stand_in is None:
        raise ValueError(f'nothing stands in for the data of layer "{layer.name}"')
    return layer.stand_in


class SyntheticImages(ImageSource):
    """Random bytes as images, which transform_param then treats as stored ones, and labels.

    Record i of 1024 belongs to (seed, the name of the data, i).

    Faults: those of transform_param; blob-too-large.
    """

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        del shape
        super().__init__(layer, seed=seed)
        stand_in = _stand_in(layer)
        (self._shape,), self._classes = stand_in.shapes, stand_in.classes
        self._key = named_source(layer)
        self._order = Order(RECORDS)
        self._prepare(self._shape, stand_in.batch_size)
        fields = ((self._shape, np.uint8), ((), np.int32))
        self._cache = RowCache(RECORDS, fields, self._read)

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """Those of the stand-in after the crop."""
        del shape
        stand_in = _stand_in(layer)
        return image_shapes(layer, stand_in.shapes[0], stand_in.batch_size)

    def take(self, rows: Rows) -> tuple[Array, ...]:
        """Images and labels of ``rows``."""
        return self._cache.take(rows)

    def _contents(self) -> str:
        return text_hash(self._key, str(self.seed), str(self._shape), str(self._classes))

    def _read(self, rows: Rows) -> tuple[Array, ...]:
        images = np.empty((len(rows), *self._shape), np.uint8)
        labels = np.zeros(len(rows), np.int32)
        size = prod(self._shape)
        for place, row in enumerate(rows.tolist()):
            drawn = philox(self.seed, "synthetic", self._key, row)
            words = raw_words(drawn, -(-size // 8)).astype("<u8")
            images[place] = words.view(np.uint8)[:size].reshape(self._shape)
            labels[place] = int(drawn.random() * self._classes[-1])
        return images, labels


class SyntheticAnswers(FollowingSource):
    """Random answers to the records of another data layer: scores in [0, 1), or probabilities.

    The answer to record i belongs to (seed, the name of the data, i).

    Faults: no-followed-layer, item-shape, blob-too-large.
    """

    params_field = "soft_labels_param"

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        del shape
        super().__init__(layer, seed=seed)
        self._classes = _stand_in(layer).shapes[0][-1]
        self._key = named_source(layer)
        form = self.params.top_form if self.params.HasField("top_form") else self.params.form
        self._sums_to_one = form == pb.SoftLabelsParameter.PROBABILITIES

    def accept(self, name: str, count: int, batch_size: int) -> None:
        """Every record has an answer."""
        del name, count
        check_size(self.layer, (batch_size, self._classes))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """(N, classes)."""
        return ((len(self.records(0)), self._classes),)

    def identity(self) -> dict[str, str]:
        """The name of the data and what is made up."""
        made = text_hash(self._key, str(self.seed), str(self._classes), str(self._sums_to_one))
        return {"type": self.layer.type, "contents": made}

    def batch(self, index: int) -> tuple[Floats, ...]:
        """The answers to the records of batch ``index``."""
        rows = self.records(index)
        scores = np.empty((len(rows), self._classes), np.float32)
        for place, row in enumerate(rows.tolist()):
            drawn = philox(self.seed, "synthetic", self._key, row)
            scores[place] = drawn.random(self._classes, np.float32)
        if self._sums_to_one:
            scores /= scores.sum(axis=1, keepdims=True)
        return (scores,)


class SyntheticArrays(Source):
    """Random numbers in [0, 1), or whole numbers below a limit, for each top.

    Row i of 1024 of a top belongs to (seed, the name of the data, the top's number, i).

    Faults: blob-too-large.
    """

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        del shape
        super().__init__(layer, seed=seed)
        self._stand_in = _stand_in(layer)
        self._key = named_source(layer)
        self._size = max((shape[0] for shape in self.shapes if shape), default=1)
        self._order = Order(RECORDS)
        for found in self.shapes:
            check_size(layer, found)

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """Those of the stand-in."""
        del shape
        return _stand_in(layer).shapes

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Those of the stand-in."""
        return self._stand_in.shapes

    def batch(self, index: int) -> tuple[Floats, ...]:
        """The rows of batch ``index``, a top."""
        return tuple(self._top(top, index) for top in range(len(self.shapes)))

    @property
    def record_count(self) -> int | None:
        """Every row is a record."""
        return RECORDS

    @property
    def varies(self) -> str:
        """A row stays what it is."""
        return ""

    def records(self, index: int) -> Rows:
        """The rows of batch ``index``."""
        return self._order.rows(index, self._size)

    def identity(self) -> dict[str, str]:
        """The name of the data and what is made up."""
        made = text_hash(self._key, str(self.seed), str(self._stand_in))
        return {"type": self.layer.type, "contents": made}

    def _top(self, top: int, index: int) -> Floats:
        shape, classes = self.shapes[top], self._stand_in.classes[top]
        rows = self.records(index)[: shape[0]].tolist() if shape else [index % RECORDS]
        values = np.empty(shape, np.float32)
        items = values.reshape(len(rows), -1)
        for place, row in enumerate(rows):
            drawn = philox(self.seed, "synthetic", self._key, top, row)
            items[place] = drawn.random(items.shape[1], np.float32)
        # In single precision the product may round up to the limit itself.
        whole = np.minimum(np.floor(values * np.float32(classes)), np.float32(classes - 1))
        return whole if classes else values
