"""kdnet trains small nets from big ones, the Caffe way."""

__version__ = "0.1.0"
