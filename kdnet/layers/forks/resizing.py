"""Interp and Upsample: maps of another size."""

from __future__ import annotations

import numpy as np

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer
from kdnet.layers.distill.blocks import enlarged

Size = tuple[int, int]


@layer("Interp", params="interp_param", bottoms=(1, 2))
class Interp(Layer):
    """Resize maps by bilinear interpolation; corners stay corners.

        y[n, c, i] = (1 − f) · x[n, c, ⌊p⌋] + f · x[n, c, ⌊p⌋ + 1],  f = p − ⌊p⌋

    along the height with p = i·(H − 1)/(H' − 1), and likewise along the width.

    Shapes:
        x  (N, C, H, W)    bottom 0; of it −pad_beg rows and columns at the beginning and
                           −pad_end at the end are cut off first
        r  (., ., H', W')  bottom 1, optional, of which only the extents are read
        y  (N, C, H', W')  top 0
    Parameters: one of: shrink_factor, Y = ⌊(X − 1)/shrink⌋ + 1; zoom_factor,
        Y = (X − 1)·zoom + 1; height and width; both factors, first shrink_factor, which height and
        width overrule; or a second bottom. pad_beg (0), pad_end (0), not above 0
    Gradient: from the op rules; r gets none.
    Differs from Caffe: nothing; the layer is of DeepLab's and PSPNet's forks. The second bottom is
        of later ones.
    Faults: no size, or half of one; a factor or extent below 1; a pad above 0 or that leaves
        nothing; a size beside a second bottom; a bottom without four axes.
    Source: hszhao/PSPNet interp_layer, interp; Chen et al. 2018 (DeepLab).
    """

    def check(self, x: Tensor, reference: Tensor | None = None) -> None:
        """The cut leaves something, and there is one size."""
        for index, each in enumerate((x,) if reference is None else (x, reference)):
            say = f"a bottom of 4 axes wanted, not {each.shape}"
            self.require_shape(each.rank == 4, bottom=index, say=say)
        for name in ("pad_beg", "pad_end"):
            value = getattr(self.params, name)
            say = f"must not be above 0, and is {value}"
            self.require(value <= 0, at=name, say=say, help="the layer cuts, it does not pad")
        cut = -self.params.pad_beg - self.params.pad_end
        say = f"{cut} rows and columns cut leave nothing of {x.shape}"
        at = "pad_beg" if self.params.pad_beg else "pad_end"
        self.require(min(x.shape[2:]) > cut, at=at, say=say)
        if reference is None:
            self._check_size()
        else:
            self._check_only_reference()

    def _check_only_reference(self) -> None:
        for name in ("height", "width", "zoom_factor", "shrink_factor"):
            say = "the size is that of the second bottom; only one of them can hold"
            self.require(not self.params.HasField(name), at=name, say=say)

    def _check_size(self) -> None:
        given = [
            name
            for name in ("height", "width", "zoom_factor", "shrink_factor")
            if self.params.HasField(name)
        ]
        help_text = "give height and width, zoom_factor, or shrink_factor"
        say = "the size of the top is not given"
        self.require(bool(given), at="height", say=say, help=help_text)
        for name in given:
            value = getattr(self.params, name)
            self.require(value > 0, at=name, say=f"must be at least 1, not {value}")
        if given in (["height"], ["width"]):
            other = "width" if given == ["height"] else "height"
            self.require(ok=False, at=given[0], say=f"{other} must be given too")

    def size(self, x: Tensor, reference: Tensor | None) -> Size:
        """Height and width of the top; the order of the cases is the fork's."""
        if reference is not None:
            return reference.shape[2], reference.shape[3]
        zooms, shrinks = (self.params.HasField(f"{n}_factor") for n in ("zoom", "shrink"))
        stated = self.params.HasField("height") and self.params.HasField("width")
        if stated and zooms == shrinks:
            return self.params.height, self.params.width
        zoom, shrink = self.params.zoom_factor, self.params.shrink_factor
        cut = self.params.pad_beg + self.params.pad_end
        height, width = ((extent + cut - 1) // shrink * zoom + 1 for extent in x.shape[2:])
        return height, width

    def emit(self, g: Emitter, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """One node, and one for the cut."""
        wanted = self.size(x, reference)
        begin, end = -self.params.pad_beg, -self.params.pad_end
        if begin or end:
            ends = [extent - end for extent in x.shape[2:]]
            x = g.slice(x, [2, 3], [begin, begin], ends)
        if x.shape[2:] == wanted:
            return x
        size = g.ints(*x.shape[:2], *wanted)
        corners = "align_corners"
        return g.op(
            "Resize", x, None, None, size, mode="linear", coordinate_transformation_mode=corners
        )


@layer("Upsample", params="upsample_param", bottoms=(1, 2))
class Upsample(Layer):
    """Put what was pooled back where it came from, or repeat it.

        y[n, c, m[n, c, i, j]] = x[n, c, i, j], 0 elsewhere        with a mask
        y[n, c, i, j] = x[n, c, ⌊i/scale⌋, ⌊j/scale⌋]              without

    Shapes:
        x  (N, C, H, W)    bottom 0
        m  (N, C, H, W)    bottom 1, optional: places in a plane of H'·W', as a Pooling layer's
                           second top gives them; where several are the same, one of them counts
        y  (N, C, H', W')  top 0
    Parameters: with a mask: upsample_h H' and upsample_w W', or scale (2), or scale_h and scale_w:
        H' = scale·H, less 1 with pad_out_h and a scale of 2, and likewise W'; all at least 2.
        Without: scale (1)
    Gradient: from the op rules; the mask gets none.
    Differs from Caffe: nothing; the layer with a mask is of SegNet's fork, the one without of
        YOLO's. A place outside the top ends the run on a CPU; on CUDA the plane's last counts.
    Faults: a size given in two ways, or half of one; a size below 2; pad_out with another scale;
        a mask of another shape; parameters of the other form; a bottom without four axes.
    Source: alexgkendall/caffe-segnet upsample_layer; eric612/MobileNet-YOLO upsample_layer;
        Badrinarayanan et al. 2017 (SegNet).
    """

    def check(self, x: Tensor, mask: Tensor | None = None) -> None:
        """The size is given once and the mask has a place for each element."""
        say = f"a bottom of 4 axes wanted, not {x.shape}"
        self.require_shape(x.rank == 4, bottom=0, say=say)
        if mask is None:
            self._check_repeated()
            return
        names = self.model.bottoms
        say = f'mask "{names[1]}" of shape {mask.shape} for "{names[0]}" of shape {x.shape}'
        self.require_shape(mask.shape == x.shape, bottom=1, say=say)
        self._check_size()

    def _check_repeated(self) -> None:
        for field in self.params.DESCRIPTOR.fields:
            if field.name != "scale":
                hint = "give the pooling layer's second top as second bottom"
                unused = not self.params.HasField(field.name)
                self.require(unused, at=field.name, say="is of use only with a mask", help=hint)
        self.require(self.params.scale > 0, at="scale", say="must be at least 1")

    def _check_size(self) -> None:
        given = {f.name for f in self.params.DESCRIPTOR.fields if self.params.HasField(f.name)}
        for pair in (("upsample_h", "upsample_w"), ("scale_h", "scale_w")):
            for name, other in (pair, pair[::-1]):
                whole = name not in given or other in given
                self.require(whole, at=name, say=f"{other} must be given too")
        stated = {"upsample_h", "upsample_w"} <= given
        twice = "scale" in given and "scale_h" in given and not stated
        self.require(
            not twice, at="scale_h", say="one of two ways to say the same; scale is given"
        )
        for name in self._factors() if not stated else ("upsample_h", "upsample_w"):
            value = getattr(self.params, name)
            self.require(value > 1, at=name, say=f"must be at least 2, not {value}")
        for name, factor in zip(("pad_out_h", "pad_out_w"), self._factors(), strict=True):
            usable = stated or not getattr(self.params, name) or getattr(self.params, factor) == 2
            self.require(usable, at=name, say="is of use only with a scale of 2")

    def _factors(self) -> tuple[str, str]:
        """The fields that hold the factor of each axis."""
        both = self.params.HasField("scale_h")
        return ("scale_h", "scale_w") if both else ("scale", "scale")

    def size(self, x: Tensor) -> Size:
        """Height and width of the top, with a mask."""
        if self.params.HasField("upsample_h"):
            return self.params.upsample_h, self.params.upsample_w
        height, width = (getattr(self.params, name) for name in self._factors())
        return (
            x.shape[2] * height - self.params.pad_out_h,
            x.shape[3] * width - self.params.pad_out_w,
        )

    def emit(self, g: Emitter, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """A scatter into a plane of zeros, or two products."""
        if mask is None:
            scale = self.params.scale if self.params.HasField("scale") else 1
            return enlarged(g, x, (x.shape[2] * scale, x.shape[3] * scale))
        (n, c), (height, width) = x.shape[:2], self.size(x)
        rows = (n * c, x.shape[2] * x.shape[3])
        places = g.reshape(g.cast(mask, np.int64), rows)
        if g.provider == "cuda":
            # Nothing looks at the places there, and one outside would be another's memory.
            places = g.minimum(g.maximum(places, 0), height * width - 1)
        plane = g.expand(g.like(0.0, x), (n * c, height * width))
        y = g.op("ScatterElements", plane, places, g.reshape(x, rows), axis=1)
        return g.reshape(y, (n, c, height, width))
