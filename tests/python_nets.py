"""A net around a Python layer, and the code of such layers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NET = """
layer {{ name: "x" type: "DummyData" top: "x" dummy_data_param {{
  shape {{ dim: 4 dim: 3 }} data_filler {{ type: "gaussian" }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
{layer}
layer {{ name: "ip2" type: "InnerProduct" bottom: "y" top: "ip2"
  inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "Reduction" bottom: "ip2" top: "loss" loss_weight: 1
  reduction_param {{ operation: SUMSQ }} }}
"""
PYTHON = (
    'layer {{ name: "py" type: "Python" bottom: "ip" top: "y" '
    'python_param {{ module: "{module}" layer: "{layer}" {more} }} }}'
)
CODE = """
import caffe
import numpy as np

class Twice(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = 2 * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        assert propagate_down == [True]
        bottom[0].diff[...] = 2 * top[0].diff

class Grows(Twice):
    calls = 0
    def reshape(self, bottom, top):
        self.calls += 1
        top[0].reshape(4, 1 + self.calls)

class NoBackward(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data

class BadSetup(Twice):
    def setup(self, bottom, top):
        raise ValueError(f"no such table: {self.param_str}")

class BadForward(Twice):
    def forward(self, bottom, top):
        return bottom[7]

class Weighted(Twice):
    def setup(self, bottom, top):
        self.blobs.append(3)

class NoExtent(Twice):
    def setup(self, bottom, top):
        self.blobs.add_blob(2, 0)

class Scaled(Twice):
    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].channels)
        self.blobs[0].data[...] = 2
    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(0)
        bottom[0].diff[...] = self.blobs[0].data * top[0].diff

class Resized(Scaled):
    def reshape(self, bottom, top):
        super().reshape(bottom, top)
        self.blobs[0].reshape(3 if self.blobs[0].data[0] == 2 else 4)

class Empty(Twice):
    def reshape(self, bottom, top):
        top[0].reshape(0, 2)

class BadShape(Twice):
    def reshape(self, bottom, top):
        top[0].reshape(2, -1)
"""


def module_of(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of code beside the working directory's nets, new for each test."""
    name = f"layers_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield name
    sys.modules.pop(name, None)


def python(code: str, layer: str, more: str = "") -> str:
    """A Python layer of NET."""
    return PYTHON.format(module=code, layer=layer, more=more)
