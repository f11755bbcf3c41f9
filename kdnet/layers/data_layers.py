"""Layers whose tops come from outside: Input, and the layers that read data."""

from __future__ import annotations

from collections.abc import Sequence

from kdnet.data import static_shapes
from kdnet.layers.base import ANY, DataLayer, layer

Shape = tuple[int, ...]


@layer("Input", params="input_param", bottoms=0, tops=(1, ANY))
class Input(DataLayer):
    """Declare blobs that the caller fills.

        y = what is fed

    Shapes:
        y  as ``shape`` says, batch axis included; one shape for all tops or one for each.
           ``--input-shape`` replaces it.
    Parameters: shape (required unless given on the command line)
    Gradient: none; nothing lies before it.
    Differs from Caffe: a shape is needed before the net is compiled.
    Faults: no shape, another number of shapes than tops, an extent below 1.
    Source: BVLC/caffe input_layer.
    """

    def top_shapes(self) -> Sequence[Shape]:
        """The stated shapes, each replaced by the command line's."""
        stated = [tuple(shape.dim) for shape in self.params.shape]
        tops = self.model.tops
        known = self.trace.input_shapes
        if not all(top in known for top in tops):
            self._check(stated)
        spread = stated * len(tops) if len(stated) == 1 else stated
        return [known[top] if top in known else spread[index] for index, top in enumerate(tops)]

    def _check(self, stated: Sequence[Shape]) -> None:
        tops = self.model.tops
        self.require(
            bool(stated),
            at="shape",
            say="must be given",
            help=f"put it here, or say --input-shape {tops[0]}=...",
        )
        self.require(
            len(stated) in (1, len(tops)),
            at="shape",
            say=f"{len(stated)} shapes for {len(tops)} tops",
            help="give one for all tops, or one for each",
        )
        for index, shape in enumerate(stated):
            self.require(
                min(shape, default=1) > 0,
                at=f"shape.{index}",
                say=f"{shape} has an extent below 1",
            )


class SourceLayer(DataLayer):
    """A data layer whose shapes its data source tells."""

    def top_shapes(self) -> Sequence[Shape]:
        """What the source says, without opening the data where the shape is stated."""
        stated = self.trace.input_shapes.get(self.model.tops[0])
        shapes = static_shapes(self.model, shape=stated)
        self.trace.batch_sizes[self.model.name] = shapes[0][0] if shapes[0] else 1
        return shapes


@layer("Data", params="data_param", bottoms=0, tops=(1, 2))
class Data(SourceLayer):
    """Read images and labels from a database.

        y[n], t[n] = record n after transform_param

    Shapes:
        y  (N, C, H, W)  top 0; H and W are crop_size where that is given
        t  (N)           top 1, optional: the labels
    Parameters: source, batch_size N (required); shape; backend; transform_param
    Gradient: none; nothing lies before it.
    Differs from Caffe: the item's shape may be stated (``shape``, or ``--input-shape``), and then
        the net compiles without its data.
    Faults: those of the data source.
    Source: BVLC/caffe data_layer.
    """


@layer("ImageData", params="image_data_param", bottoms=0, tops=(1, 2))
class ImageData(SourceLayer):
    """Read the image files and labels of a list.

        y[n], t[n] = image and label of line n after transform_param

    Shapes:
        y  (N, C, H, W)  top 0; H and W are crop_size where that is given
        t  (N)           top 1: the labels
    Parameters: source (required); batch_size N (1); shape; new_height, new_width; is_color (true)
    Gradient: none; nothing lies before it.
    Differs from Caffe: the item's shape may be stated, as in Data.
    Faults: those of the data source.
    Source: BVLC/caffe image_data_layer.
    """


@layer("WindowData", params="window_data_param", bottoms=0, tops=2)
class WindowData(SourceLayer):
    """Cut windows out of images and stretch them, as R-CNN is trained.

        y[n], t[n] = a drawn window after transform_param, and its class; 0 is background

    Shapes:
        y  (N, 3, S, S)  top 0; S is transform_param's crop_size
        t  (N)           top 1: the classes
    Parameters: source, batch_size N, transform_param.crop_size S (required); fg_threshold (0.5);
        bg_threshold (0.5); fg_fraction (0.25); context_pad (0); crop_mode ("warp");
        root_folder (""); cache_images (false)
    Gradient: none; nothing lies before it.
    Differs from Caffe: the windows of a batch belong to the seed and its number, so a resumed run
        sees those of a straight one; transform_param.scale is applied, not forgotten.
    Faults: those of the data source.
    Source: Girshick et al. 2014, section 2.3 and appendix A; BVLC/caffe window_data_layer.
    """


@layer("HDF5Data", params="hdf5_data_param", bottoms=0, tops=(1, ANY))
class HDF5Data(SourceLayer):
    """Read arrays of HDF5 files.

        y[n] = row n of the dataset that is named as the top

    Shapes:
        y  (N, ...)  each top; the rest is the dataset's
    Parameters: source, batch_size N (required); shuffle (false); shape, one for each top
    Gradient: none; nothing lies before it.
    Differs from Caffe: the items' shapes may be stated, as in Data.
    Faults: those of the data source.
    Source: BVLC/caffe hdf5_data_layer.
    """


@layer("MemoryData", params="memory_data_param", bottoms=0, tops=2)
class MemoryData(SourceLayer):
    """Read images and labels that are in memory.

        y[n], t[n] = data[n], label[n]

    Shapes:
        y  (N, C, H, W)  top 0
        t  (N)           top 1: the labels
    Parameters: batch_size N, channels C, height H, width W (required); source
    Gradient: none; nothing lies before it.
    Differs from Caffe: the arrays may come from an .npz file (``source``).
    Faults: those of the data source.
    Source: BVLC/caffe memory_data_layer.
    """


@layer("DummyData", params="dummy_data_param", bottoms=0, tops=(1, ANY))
class DummyData(SourceLayer):
    """Make tops up with fillers.

        y = filler

    Shapes:
        y  as ``shape`` says, batch axis included; one shape for all tops or one for each
    Parameters: shape, or num, channels, height and width; data_filler (zeros)
    Gradient: none; nothing lies before it.
    Differs from Caffe: random values are drawn from kdnet's keyed generator.
    Faults: those of the data source.
    Source: BVLC/caffe dummy_data_layer.
    """
