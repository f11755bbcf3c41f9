"""Data sources: one class a Caffe data layer type, found by the layer's type.

A source hands out batches by their number since the start of the run, and a batch depends on
nothing but the files, the seed and that number. So a resumed run sees what a straight one sees.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cache
from types import TracebackType
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from kdnet.data.cache import Rows
from kdnet.data.datum import Shape
from kdnet.data.located import refuse
from kdnet.errors import Diagnostic, did_you_mean
from kdnet.net import LayerModel
from kdnet.net.model import StandIn

Floats = NDArray[np.float32]


class Source(ABC):
    """The batches of one data layer.

    Args:
        layer: The layer, in its phase.
        seed: The run's seed.
        shape: What the command line says the shape of an item is; the layer's own field wins.

    Attributes:
        layer: The layer.
        tops: The layer's tops, in order.
        seed: The run's seed.
        notes: Warnings to show once.
        follows: Whether its items are of the records of another data layer.
    """

    follows: ClassVar[bool] = False

    def __init__(self, layer: LayerModel, *, seed: int, shape: Shape | None = None) -> None:
        del shape  # for the sub-classes whose items it describes
        self.layer = layer
        self.tops = layer.tops
        self.seed = seed
        self.notes: tuple[Diagnostic, ...] = ()

    @property
    @abstractmethod
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of each top, batch axis included, as the net sees it."""

    @abstractmethod
    def batch(self, index: int) -> tuple[Floats, ...]:
        """One contiguous float32 array a top, for batch ``index`` since the start of the run."""

    @property
    def record_count(self) -> int | None:
        """How many records there are; None where the layer has none."""
        return None

    @property
    def varies(self) -> str:
        """Why the values of one record are not the same at every pass; empty where they are."""
        return f"a {self.layer.type} layer has no records"

    def records(self, index: int) -> Rows:
        """Which record each item of batch ``index`` is, from 0 to ``record_count`` - 1.

        Raises:
            ValueError: There are no records.
        """
        raise ValueError(f"{self.varies}: nothing to number in batch {index}")

    def identity(self) -> dict[str, str]:
        """What decides the values of a record, by its kind: contents of files, transform, phase.

        Neither paths nor the size and order of batches are among it.

        Raises:
            DataError: unreadable-data.
        """
        return {}

    def attach(self, siblings: Mapping[str, Source]) -> None:  # noqa: B027  # most stand alone
        """Get to know the sources of the net's other data layers, by layer name.

        Called once, before the first batch.

        Raises:
            DataError: They are not what the layer needs.
        """

    @classmethod
    def declared_shapes(cls, layer: LayerModel, shape: Shape | None) -> tuple[Shape, ...] | None:
        """What :attr:`shapes` will be, without opening the data; None when only the data knows."""
        del layer, shape
        return None

    def close(self) -> None:  # noqa: B027  # most sources hold no file open
        """Release files; nothing of the source can be used any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_CLASSES: dict[str, type[Source]] = {}


def source(type_name: str) -> Callable[[type[Source]], type[Source]]:
    """Register the decorated class as the source of layers of Caffe type ``type_name``."""

    def register(cls: type[Source]) -> type[Source]:
        if type_name in _CLASSES:
            other = _CLASSES[type_name].__module__
            raise ValueError(f"two sources of type {type_name}: {other} and {cls.__module__}")
        _CLASSES[type_name] = cls
        return cls

    return register


@cache
def _classes() -> Mapping[str, type[Source]]:
    package = importlib.import_module("kdnet.data.sources")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return _CLASSES


def source_types() -> tuple[str, ...]:
    """Every layer type that has a source, sorted."""
    return tuple(sorted(_classes()))


def source_class(type_name: str) -> type[Source] | None:
    """The class of a layer type's source, if it has one."""
    return _classes().get(type_name)


def _class_of(layer: LayerModel) -> type[Source]:
    if layer.stand_in is not None:
        return _stand_in_class(layer, layer.stand_in)
    found = source_class(layer.type)
    if found is None:
        text = f'there is no data source of type "{layer.type}"'
        refuse(layer, "unknown-source", text, "type", help=did_you_mean(layer.type, _classes()))
    return found


def _stand_in_class(layer: LayerModel, stand_in: StandIn) -> type[Source]:
    from kdnet.data.synthetic import SyntheticAnswers, SyntheticArrays, SyntheticImages

    cls = source_class(layer.type)
    if cls is not None and cls.follows:
        return SyntheticAnswers
    return SyntheticImages if stand_in.batch_size else SyntheticArrays


def open_source(layer: LayerModel, *, seed: int, shape: Shape | None = None) -> Source:
    """Open the data of a data layer.

    Args:
        layer: The layer, in its phase.
        seed: The run's seed: shuffling, cropping, mirroring and random fillers belong to it.
        shape: Shape of one item before its crop; the layer's own ``shape`` field wins.

    Raises:
        DataError: unknown-source, and what the source's class says.
    """
    return _class_of(layer)(layer, seed=seed, shape=shape)


def static_shapes(layer: LayerModel, *, shape: Shape | None = None) -> tuple[Shape, ...]:
    """The shapes of a data layer's tops, batch axis included.

    The data is opened only where neither the layer nor ``shape`` says what an item's shape is.

    Raises:
        DataError: as :func:`open_source`.
    """
    declared = _class_of(layer).declared_shapes(layer, shape)
    if declared is not None:
        return declared
    with open_source(layer, seed=0, shape=shape) as opened:
        return opened.shapes
