"""What nets that are handed images have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from kdnet.api.net import Net
from kdnet.io import Transformer

Array = NDArray[Any]


class Look(NamedTuple):
    """How a net wants its images, in the Transformer's terms; None changes nothing."""

    mean: Array | None = None
    input_scale: float | None = None
    raw_scale: float | None = None
    channel_swap: Sequence[int] | None = None


def transformer_of(net: Net, look: Look) -> Transformer:
    """What prepares images for a net's first input.

    Raises:
        ValueError: the input takes no images.
    """
    if not net.inputs or len(net.blobs[net.inputs[0]].shape) != 4:
        raise ValueError("the net begins with no input of shape (N, C, H, W), as images need")
    name = net.inputs[0]
    made = Transformer({name: net.blobs[name].shape})
    made.set_transpose(name, (2, 0, 1))
    if look.mean is not None:
        made.set_mean(name, look.mean)
    if look.input_scale is not None:
        made.set_input_scale(name, look.input_scale)
    if look.raw_scale is not None:
        made.set_raw_scale(name, look.raw_scale)
    if look.channel_swap is not None:
        made.set_channel_swap(name, look.channel_swap)
    return made
