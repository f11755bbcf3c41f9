"""Weights in a program's own arrays: read where they lie, or sent where a device has its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdnet.runtime import Device
from kdnet.runtime.shared import SharedBuffers


class Elsewhere(SharedBuffers):
    """Buffers whose device keeps copies, as CUDA does."""

    def _shared(self, array: Any) -> Any:
        return self._ort.OrtValue.ortvalue_from_numpy(array.copy())


@pytest.fixture(params=[SharedBuffers, Elsewhere])
def buffers(request):
    arrays = {"a": np.zeros(3, np.float32), "b": np.ones((2, 2), np.float32)}
    kind = "cpu" if request.param is SharedBuffers else "cuda"
    made = request.param.__new__(request.param)
    # The device is only asked what kind it is: the values lie on the CPU all the same.
    SharedBuffers.__init__(made, Device(kind), arrays, side=1)
    return made, arrays


def test_what_is_written_into_the_arrays_is_read(buffers):
    made, arrays = buffers
    arrays["a"][1] = 5
    made.push(["a"])
    assert list(made.current("a").numpy()) == [0, 5, 0]
    assert list(made.read("a")) == [0, 5, 0]


def test_what_a_run_wrote_is_copied_into_the_arrays(buffers):
    made, arrays = buffers
    held = arrays["b"]
    made.other("b").update_inplace(np.full((2, 2), 7, np.float32))
    made.flip(["b"])
    assert (held == 7).all()
    assert (made.current("b").numpy() == 7).all()
    made.write("b", np.full((2, 2), 3, np.float32))
    assert (held == 3).all()
    assert (made.current("b").numpy() == 3).all()


def test_nothing_is_swapped_and_sides_tell_bindings_apart(buffers):
    made, _ = buffers
    assert made.sides(["a", "b"]) == (1,)
    assert "a" in made
    assert "c" not in made
