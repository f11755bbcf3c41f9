"""SPP: spatial pyramid pooling."""

from __future__ import annotations

from math import prod

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer
from kdnet.layers.pools import Side, average_pool, max_pool, mean_by_value, pick_by_value, side
from kdnet.schema import kdnet_pb2 as pb

Method = pb.SPPParameter
# More levels than this have windows for no image that fits into a machine.
MOST_LEVELS = 32


@layer("SPP", params="spp_param")
class SPP(Layer):
    """Pool with ever finer windows, and join what they give: as many numbers for any image size.

        y = (level 0, level 1, ..., each flattened);  level i has 2^i windows along each axis

    A level's window is ⌈extent / 2^i⌉ high (and wide), its step as large, its border half of what
    is missing to 2^i whole windows, rounded up. A method as in Pooling.

    Shapes:
        x  (N, C, H, W)    bottom 0
        y  (N, C·(1 + 4 + 16 + ...))  top 0: level by level, in each channel by channel; with
           one level (N, C, 1, 1)
        u  (N, C, 1 + 4 + 16 + ...)   noise of STOCHASTIC in TRAIN
    Parameters: pyramid_height ≥ 1 (required), the number of levels; pool (MAX), AVE, STOCHASTIC;
        engine changes nothing
    Gradient: from the op rules, as Pooling's.
    Differs from Caffe: STOCHASTIC as in Pooling.
    Faults: pyramid_height missing; a level whose border is as large as its window; STOCHASTIC
        where a border is needed; a bottom without four axes.
    Source: BVLC/caffe spp_layer; He et al. 2014.
    """

    def check(self, x: Tensor) -> None:
        """Every level's windows meet the input."""
        levels = self.params.pyramid_height
        self.require(levels > 0, at="pyramid_height", say="must be positive")
        self.require_shape(x.rank == 4, bottom=0, say=f"a bottom of 4 axes wanted, not {x.shape}")
        plane = f"a plane of {x.shape[2:]}"
        for level in range(min(levels, MOST_LEVELS)):
            sides = self._sides(x, level)
            windows = 2**level
            fits = all(one.pad < one.kernel and one.meets for one in sides)
            say = f"level {level} has {windows} windows along an axis, too many for {plane}"
            help_ = f"at most {level} levels fit"
            self.require(fits, at="pyramid_height", say=say, help=help_)
            drawn = self.params.pool == Method.STOCHASTIC and any(one.pad for one in sides)
            say = f"STOCHASTIC takes no border, but {windows} windows do not divide {plane}"
            self.require(not drawn, at="pool", say=say)

    def _sides(self, x: Tensor, level: int) -> tuple[Side, ...]:
        found = []
        for size in x.shape[2:]:
            kernel = -(-size // 2**level)
            pad = (kernel * 2**level - size + 1) // 2
            found.append((size, kernel, pad))
        clips = any(pad for _size, _kernel, pad in found)
        return tuple(
            side(size, kernel, kernel, pad, ceil=True, clips=clips) for size, kernel, pad in found
        )

    def emit(self, g: Emitter, x: Tensor) -> Tensor:
        """One pooling a level, joined."""
        levels = [self._sides(x, level) for level in range(self.params.pyramid_height)]
        counts = [prod(one.count for one in sides) for sides in levels]
        found = [
            self._pooled(g, x, sides, noise)
            for sides, noise in zip(levels, self._noises(g, x, counts), strict=True)
        ]
        if len(levels) == 1:
            return found[0]
        rows = [g.reshape(y, (x.shape[0], y.size // x.shape[0])) for y in found]
        return g.concat(rows, 1)

    def _noises(self, g: Emitter, x: Tensor, counts: list[int]) -> list[Tensor | None]:
        """What each level draws with, where it does."""
        if self.params.pool != Method.STOCHASTIC or not self.train:
            return [None] * len(counts)
        noise = self.noise(g, (*x.shape[:2], sum(counts)))
        ends = [sum(counts[: index + 1]) for index in range(len(counts))]
        return [
            g.slice(noise, [2], [end - count], [end])
            for end, count in zip(ends, counts, strict=True)
        ]

    def _pooled(
        self, g: Emitter, x: Tensor, sides: tuple[Side, ...], noise: Tensor | None
    ) -> Tensor:
        if noise is not None:
            shape = (*x.shape[:2], *(one.count for one in sides))
            return pick_by_value(g, x, sides, g.reshape(noise, shape))
        if self.params.pool == Method.STOCHASTIC:
            return mean_by_value(g, x, sides)
        if self.params.pool == Method.AVE:
            return average_pool(g, x, sides)
        return max_pool(g, x, sides)
