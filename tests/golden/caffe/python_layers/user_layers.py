"""Layers as users of pycaffe write them; real Caffe and kdnet run this same file."""

import caffe
import numpy as np


class SquaredDistance(caffe.Layer):
    """Half the mean squared distance of two bottoms."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise ValueError("it takes two bottoms")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise ValueError("the bottoms differ in size")
        self.distance = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.distance[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.distance**2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):
        for index, sign in enumerate((1, -1)):
            if propagate_down[index]:
                bottom[index].diff[...] = sign * top[0].diff * self.distance / bottom[index].num


class SoftSign(caffe.Layer):
    """x / (1 + |x|), and x² beside it; ``param_str`` scales x."""

    def setup(self, bottom, top):
        self.scale = float(self.param_str)

    def reshape(self, bottom, top):
        # Caffe's list of blobs can be indexed, but not iterated over.
        for index in range(len(top)):
            top[index].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        x = self.scale * bottom[0].data
        top[0].data[...] = x / (1 + np.abs(x))
        top[1].data[...] = x * x

    def backward(self, top, propagate_down, bottom):
        x = self.scale * bottom[0].data
        slope = top[0].diff / (1 + np.abs(x)) ** 2 + top[1].diff * 2 * x
        bottom[0].diff[...] = self.scale * slope


class Waves(caffe.Layer):
    """Data: a sine of another phase for every batch, and its target."""

    def setup(self, bottom, top):
        self.batch = 0

    def reshape(self, bottom, top):
        top[0].reshape(4, 3)
        top[1].reshape(4, 2)

    def forward(self, bottom, top):
        steps = np.arange(20, dtype=np.float32) + self.batch
        top[0].data[...] = np.sin(steps[:12]).reshape(4, 3)
        top[1].data[...] = np.cos(steps[12:]).reshape(4, 2)
        self.batch += 1

    def backward(self, top, propagate_down, bottom):
        pass


class Affine(caffe.Layer):
    """x * a + b with a weight a for each column, and one b; in place where the net says so."""

    def setup(self, bottom, top):
        if len(self.blobs) == 0:
            self.blobs.add_blob(bottom[0].channels)
            self.blobs.add_blob(1)
        self.blobs[0].data[...] = np.linspace(0.5, 1.5, bottom[0].channels)
        self.blobs[1].data[0] = 0.25

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        self.x = bottom[0].data.copy()
        top[0].data[...] = self.x * self.blobs[0].data + self.blobs[1].data

    def backward(self, top, propagate_down, bottom):
        slope = top[0].diff.copy()
        self.blobs[0].diff[...] += (slope * self.x).sum(0)
        self.blobs[1].diff[...] += slope.sum()
        if propagate_down[0]:
            bottom[0].diff[...] = slope * self.blobs[0].data


class Centered(caffe.Layer):
    """x minus its running mean, which it keeps in a weight that no solver trains."""

    def setup(self, bottom, top):
        self.blobs.add_blob(1, bottom[0].channels)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        mean = bottom[0].data.mean(0)
        if self.phase == 0:
            self.blobs[0].data[0] = 0.9 * self.blobs[0].data[0] + 0.1 * mean
        top[0].data[...] = bottom[0].data - self.blobs[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff
