"""A loss as pycaffe's users write one: half the squared distance of two blobs, an item."""

import caffe
import numpy as np


class SquaredDistance(caffe.Layer):
    """The sum of squares of bottom[0] - bottom[1] over twice the number of items."""

    def setup(self, bottom, top):  # noqa: ARG002  # pycaffe calls it so
        """Two blobs are compared."""
        if len(bottom) != 2:
            raise ValueError("two bottoms are needed")

    def reshape(self, bottom, top):
        """The loss is one number."""
        if bottom[0].count != bottom[1].count:
            raise ValueError("the bottoms differ in size")
        self.difference = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        """Keep the difference for the backward pass."""
        self.difference[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.difference**2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):  # noqa: ARG002  # pycaffe calls it so
        """The gradient is the difference, negative for the second bottom."""
        for index, sign in ((0, 1), (1, -1)):
            if propagate_down[index]:
                bottom[index].diff[...] = sign * self.difference / bottom[index].num
