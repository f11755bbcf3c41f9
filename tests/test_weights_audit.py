"""Audits of large files and of odd numbers: what they say, and what they keep in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from small_nets import CLASSES, PIXELS, ok

from kdnet.weights import LayerBlobs, format_names, write_weights
from weights_tools.audit import Survey

COUNT, SIZE = 16, 1 << 18


@pytest.mark.usefixtures("joined")
def test_values_that_are_not_finite_are_counted_where_they_would_load() -> None:
    weight = np.ones((CLASSES, PIXELS))
    weight[0, :3] = np.nan, np.inf, 1e300
    layer = LayerBlobs("teacher/ip", "", (weight, np.ones(CLASSES, "f4")))
    write_weights("odd.npz", [layer, LayerBlobs("unused", "", (np.full(2, np.nan),))])
    ended = ok("weights", "audit", "odd.npz", "joined.prototxt")
    assert [line for line in ended.out.splitlines() if line.startswith("warning")] == [
        'warning: blob 0 of layer "teacher/ip" in "odd.npz" has values that are not finite: 3'
    ]


@pytest.mark.parametrize("form", format_names(writable=True))
def test_a_few_layers_are_in_memory_at_a_time(form: str, tmp_path: Path) -> None:
    path = str(tmp_path / "large")
    layers = (LayerBlobs(f"l{n}", "", (np.ones(SIZE, "f4"),)) for n in range(COUNT))
    write_weights(path, layers, format=form)
    Survey.of(path)
    tracemalloc.start()
    try:
        found = Survey.of(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [layer.shapes for layer in found.layers] == [((SIZE,),)] * COUNT
    assert peak < COUNT * 4 * SIZE / 2
