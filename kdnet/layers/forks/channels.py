"""Axpy and ShuffleChannel: channels that are scaled and added, and that change places."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer


@layer("Axpy", bottoms=3)
class Axpy(Layer):
    """Scale each channel of each item, and add.

        f[n, c, ...] = a[n, c] · x[n, c, ...] + y[n, c, ...]

    Shapes:
        a  (N, C)       bottom 0; (N, C, 1, 1) too
        x  (N, C, ...)  bottom 1
        y  (N, C, ...)  bottom 2, as x
        f  as x         top 0
    Parameters: none
    Gradient: from the op rules, to all bottoms.
    Differs from Caffe: nothing; the layer is of SENet's authors and of NVIDIA's fork.
    Faults: a bottom without channels; factors that are not one a channel; x and y of different
        shapes.
    Source: hujie-frank/SENet axpy_layer; Hu et al. 2018 (SENet).
    """

    def check(self, a: Tensor, x: Tensor, y: Tensor) -> None:
        """A factor for each channel of each item, and summands of one shape."""
        say = f"a bottom of shape {x.shape} has no channels on axis 1"
        self.require_shape(x.rank > 1, bottom=1, say=say)
        names = self.model.bottoms
        fits = a.shape[:2] == x.shape[:2] and a.size == x.shape[0] * x.shape[1]
        self.require_shape(
            fits,
            bottom=0,
            say=f'factors "{names[0]}" of shape {a.shape} for "{names[1]}" of shape {x.shape}',
            help=f"one a channel of each item: {x.shape[:2]}",
        )
        say = f'bottom "{names[2]}" has shape {y.shape}, but "{names[1]}" has {x.shape}'
        self.require_shape(x.shape == y.shape, bottom=2, say=say)

    def emit(self, g: Emitter, a: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """A product and a sum."""
        factor = g.reshape(a, (*x.shape[:2], *[1] * (x.rank - 2)))
        return g.add(g.mul(factor, x), y)


@layer("ShuffleChannel", params="shuffle_channel_param")
class ShuffleChannel(Layer):
    """Deal the channels of each group out in turn, so that the next groups see all of them.

        y[n, i·G + g, ...] = x[n, g·C/G + i, ...]

    Shapes:
        x  (N, C, ...)  bottom 0
        y  as x         top 0
    Parameters: group G ≥ 1 (1), a divisor of C
    Gradient: from the op rules: the channels are put back.
    Differs from Caffe: nothing; the layer is of ShuffleNet's implementations for Caffe.
    Faults: a bottom without channels; a group that does not divide them.
    Source: farmingyard/ShuffleNet shuffle_channel_layer; Zhang et al. 2018 (ShuffleNet).
    """

    def check(self, x: Tensor) -> None:
        """The groups are of one size."""
        say = f"a bottom of shape {x.shape} has no channels on axis 1"
        self.require_shape(x.rank > 1, bottom=0, say=say)
        group = self.params.group
        self.require(
            group > 0 and x.shape[1] % group == 0,
            at="group",
            say=f"{group} does not divide the bottom's channels, {x.shape[1]}",
        )

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """A transpose between group and channel within it; nothing where it changes nothing."""
        (n, c), group = x.shape[:2], self.params.group
        if group in (1, c):
            return x
        grouped = g.reshape(x, (n, group, c // group, *x.shape[2:]))
        return g.reshape(g.transpose(grouped, [0, 2, 1, *range(3, x.rank + 1)]), x.shape)
