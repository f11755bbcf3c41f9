"""HDF5Output: two blobs to a file."""

from __future__ import annotations

from kdnet.graph import Emitter, Tensor
from kdnet.layers.base import Layer, layer
from kdnet.layers.trace import Sink

_MOST_AXES = 4


@layer("HDF5Output", params="hdf5_output_param", bottoms=2, tops=0)
class HDF5Output(Layer):
    """Write two blobs to an HDF5 file, as its datasets ``data`` and ``label``.

        data[m], label[m] = x[n], t[n], one batch after another

    In TEST phase the file holds the rows of all batches of a test, once it is over; in TRAIN phase
    those of the last batch, once training ends. It is written whole or not at all.

    Shapes:
        x  (N, ...)  bottom 0; stored as (M, C, H, W), 1 for axes that it has not
        t  (N, ...)  bottom 1; likewise
    Parameters: file_name (required)
    Gradient: none; nothing goes back from a file.
    Differs from Caffe: it stops at a second batch, whose datasets are there already; one batch is
        stored as by it.
    Faults: no file_name, another number of rows in the two bottoms, more than four axes.
    Source: BVLC/caffe hdf5_output_layer.
    """

    def check(self, x: Tensor, t: Tensor) -> None:
        """Two blobs of as many rows, and a name to write them to."""
        self.require(bool(self.params.file_name), at="file_name", say="must be given")
        for index, bottom in enumerate((x, t)):
            say = f"a blob of {bottom.rank} axes, {bottom.shape}; at most four are stored"
            self.require_shape(bottom.rank <= _MOST_AXES, bottom=index, say=say)
        rows = [bottom.shape[0] if bottom.rank else 1 for bottom in (x, t)]
        say = f"{rows[1]} rows beside {rows[0]}: the bottoms have the shapes {x.shape}, {t.shape}"
        self.require_shape(rows[0] == rows[1], bottom=1, say=say)

    def emit(self, _g: Emitter, x: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        """No node: the blobs are handed out."""
        span = self.span("file_name")
        self.trace.sinks.append(Sink(self.model.name, self.params.file_name, (x, t), span))
        return ()
