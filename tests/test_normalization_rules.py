"""The gradient rules of normalisation, on graphs that no layer emits."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import Array, Check, Program, check_all

from kdnet.errors import GraphError

SHAPE = (3, 2, 4)
STATISTICS = ("scale", "bias", "mean", "variance")


def _arrays(shape: tuple[int, ...]) -> dict[str, Array]:
    rng = np.random.default_rng(4)
    arrays = {name: rng.standard_normal(shape[1]) for name in STATISTICS}
    arrays["variance"] = rng.uniform(0.5, 2.0, shape[1])
    return {"x": rng.standard_normal(shape), **arrays}


def _by_statistics(g, given):
    inputs = [given[name] for name in ("x", *STATISTICS)]
    return {"y": g.op("BatchNormalization", *inputs, epsilon=0.5)}


@pytest.mark.parametrize("shape", [SHAPE, (5, 3)])
@pytest.mark.parametrize("wrt", [("x",), ("scale",), ("bias",), ("x", "scale", "bias")])
def test_batch_normalization(shape: tuple[int, ...], wrt: tuple[str, ...]) -> None:
    check_all(Program(_by_statistics, _arrays(shape), wrt))


@pytest.mark.parametrize("name", ["mean", "variance"])
def test_batch_normalization_has_no_gradient_by_its_statistics(name: str) -> None:
    check = Check(Program(_by_statistics, _arrays(SHAPE), (name,)))
    with pytest.raises(GraphError, match=r"by its statistics.*\[unsupported-gradient\]"):
        check.gradient(name)


def _deviation(g, d, axes):
    variance = g.reduce_mean(g.square(d), axes, keepdims=True)
    return g.op("Reciprocal", g.sqrt(g.add(variance, 0.25)))


def _marked(axes):
    def build(g, given):
        x = given["x"]
        d = g.sub(x, g.stop_gradient(g.reduce_mean(x, axes, keepdims=True)))
        inverse = _deviation(g, g.stop_gradient(d), axes)
        return {"y": g.op("Mul", d, inverse, rule="Standardize")}

    return build


def _plain(axes):
    def build(g, given):
        d = g.sub(given["x"], g.reduce_mean(given["x"], axes, keepdims=True))
        return {"y": g.mul(d, _deviation(g, d, axes))}

    return build


@pytest.mark.parametrize("axes", [[0], [0, 2], [1, 2], [2]])
def test_standardize_is_the_gradient_of_the_single_ops(axes: list[int]) -> None:
    arrays = {"x": _arrays(SHAPE)["x"]}
    marked = check_all(Program(_marked(axes), arrays, ("x",)))
    plain = Check(Program(_plain(axes), arrays, ("x",)))
    np.testing.assert_allclose(marked.gradient("x"), plain.gradient("x"), rtol=0, atol=1e-12)
    assert len(marked.model.graph.node) < len(plain.model.graph.node)
