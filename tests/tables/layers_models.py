"""Rows of ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tables.cases import LayerCase, uniform

MODEL = Path(__file__).parents[1] / "golden" / "onnx" / "affine.onnx"


def _affine(x, weight, bias):
    return np.log1p(np.exp(x @ weight + bias))


def _inner_too(x, weight, bias):
    return _affine(x, weight, bias), x @ weight


def _row(name, text="", **more):
    prototxt = f'type: "ONNX" onnx_param {{ model: "{MODEL.as_posix()}" {text} }}'
    given = {"oracle": _affine, "weights": uniform(-0.5, 0.5), **more}
    return LayerCase(id=f"ONNX/{name}", prototxt=prototxt, bottoms=[(5, 4)], **given)


CASES = (
    _row("frozen"),
    _row("inner_tensor", 'output: "y" output: "product"', oracle=_inner_too, tops=2),
    _row("test", phase="TEST"),
    _row("trainable", "trainable: true"),
)
