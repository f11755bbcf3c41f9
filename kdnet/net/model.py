"""Frozen values that describe one net in one phase."""

from __future__ import annotations

from dataclasses import dataclass

from kdnet.errors import Span
from kdnet.schema import SourceMap
from kdnet.schema import kdnet_pb2 as pb


@dataclass(frozen=True)
class ParamModel:
    """How one weight blob is trained and with whom it is shared.

    ``lr_mult`` and ``decay_mult`` multiply the solver's base_lr and weight_decay; ``given`` tells
    whether the prototxt states them, since a shared weight may state them only once.
    """

    name: str = ""
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    permissive: bool = False
    given: frozenset[str] = frozenset()


@dataclass(frozen=True)
class StandIn:
    """Made-up data in place of those that a data layer names.

    Attributes:
        shapes: Of images, the one shape (C, H, W) before the crop; of answers to the records of
            another layer, that of one; else that of each top.
        classes: For each top the number K of its values, whole numbers 0 to K - 1; 0 for bytes of
            images and for numbers in [0, 1).
        batch_size: Images of a batch; 0 where the shapes are those of whole tops.
    """

    shapes: tuple[tuple[int, ...], ...]
    classes: tuple[int, ...]
    batch_size: int = 0


@dataclass(frozen=True)
class LayerModel:
    """One layer: its wiring as text, its message, and where it stands.

    ``stand_in`` replaces the data of a data layer, or says that a loss does without its file.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    phase: int
    message: pb.LayerParameter
    source: SourceMap
    stand_in: StandIn | None = None

    @property
    def position(self) -> Span | None:
        """Where the layer begins."""
        return self.source.span(())

    def param(self, index: int) -> ParamModel:
        """The training parameters of weight ``index``; Caffe's defaults where not given."""
        if index >= len(self.message.param):
            return ParamModel()
        spec = self.message.param[index]
        return ParamModel(
            spec.name,
            spec.lr_mult,
            spec.decay_mult,
            spec.share_mode == pb.ParamSpec.PERMISSIVE,
            frozenset(name for name in ("lr_mult", "decay_mult") if spec.HasField(name)),
        )


@dataclass(frozen=True)
class NetModel:
    """The layers of one phase in order, with the blobs that nobody reads.

    ``outputs`` are in alphabetical order, as Caffe numbers them in its log.
    """

    name: str
    phase: int
    layers: tuple[LayerModel, ...]
    outputs: tuple[str, ...]
    message: pb.NetParameter
    source: SourceMap

    @property
    def phase_name(self) -> str:
        """``TRAIN`` or ``TEST``."""
        return pb.Phase.Name(self.phase)
