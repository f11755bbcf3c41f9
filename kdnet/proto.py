"""Caffe's messages under pycaffe's name: ``from kdnet.proto import caffe_pb2``."""

from __future__ import annotations

from kdnet.schema import kdnet_pb2 as caffe_pb2

__all__ = ["caffe_pb2"]
