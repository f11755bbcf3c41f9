"""What a weight file holds, whichever format it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


@dataclass(frozen=True, eq=False)
class LayerBlobs:
    """The blobs of one layer, in Caffe's order (weight, bias, ...).

    ``type`` is the Caffe type ("Convolution"), empty where the file does not say it. Arrays are
    float32 or float64 with the shape as stored: a legacy blob keeps its four axes; a writer takes
    float16 too. ``stored`` names each blob's type in the file, such as "float16"; it is empty for
    blobs made in code. ``message`` has the other fields of the layer's LayerParameter in wire
    form (bottoms, tops, convolution_param, ...), where the file has them. ``diffs`` are float32
    arrays of the blobs' shapes that Caffe's own formats store beside them; none is read.
    """

    name: str
    type: str
    blobs: tuple[Array, ...]
    stored: tuple[str, ...] = ()
    message: bytes = b""
    diffs: tuple[Array, ...] = ()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each blob."""
        return tuple(blob.shape for blob in self.blobs)


@dataclass(frozen=True, eq=False)
class WeightFile:
    """One weight file: where it was read, in which format, and its layers in file order.

    A layer name may occur twice, as in the file; the first is the one that loads. ``doubts``
    says what a user should know of how the layers were understood.
    """

    path: str
    format: str
    net_name: str
    layers: tuple[LayerBlobs, ...]
    doubts: tuple[str, ...] = ()
