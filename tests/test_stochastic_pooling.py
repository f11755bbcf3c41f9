"""What STOCHASTIC pooling draws: each value as often as it is large, and no zero ever."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import Array, onnxruntime_run
from layer_programs import emitted, layer_model

from kdnet.graph import Emitter, to_model

COUNT = 1000
NOISE = (np.arange(COUNT) + 0.5) / COUNT


def drawn(window: list[float], noise: Array) -> Array:
    """What is drawn of one window for each number of the noise."""
    text = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 }'
    g = Emitter()
    x = np.tile(np.reshape(window, (1, 1, 2, 2)), (len(noise), 1, 1, 1))
    bottom = g.input("bottom0", x.shape)
    found = emitted(g, layer_model(text, "TRAIN", 1, 1), {"bottom0": bottom})
    (asked,) = found.layer.trace.noise
    assert (asked.layer, asked.tensor.shape) == ("layer", (len(noise), 1, 1, 1))
    model = to_model(g.ops, [bottom, asked.tensor], {"top": found.tops[0]}, name="n")
    feeds = {"bottom0": x, asked.tensor.name: noise.reshape(-1, 1, 1, 1)}
    return onnxruntime_run(model, feeds)["top"].reshape(-1)


@pytest.mark.parametrize("window", [[1, 2, 3, 4], [4, 3, 2, 1], [0, 5, 0, 5], [0, 0, 1, 0]])
def test_a_value_is_drawn_as_often_as_it_is_large(window: list[float]) -> None:
    values = drawn(window, NOISE)
    whole = sum(window)
    for value in set(window):
        share = value * window.count(value) / whole
        assert abs(np.mean(values == value) - share) <= 2 / COUNT, value


def test_the_ends_of_the_noise_draw_values_that_are_there() -> None:
    ends = np.array([0.0, np.nextafter(np.float32(1), np.float32(0))])
    np.testing.assert_array_equal(drawn([0, 2, 3, 0], ends), [3, 2])


def test_a_window_of_zeros_gives_zero() -> None:
    assert not drawn([0, 0, 0, 0], NOISE).any()


def test_where_no_partial_sum_reaches_its_bound_the_first_place_is_taken() -> None:
    np.testing.assert_array_equal(drawn([-4, 1, -3, 1], np.array([0.9])), [-4])
