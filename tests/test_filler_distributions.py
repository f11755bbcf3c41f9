"""Fillers against their distributions, and against what real Caffe fills blobs with."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tables.fillers import CASES, FillerCase

from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import fill, is_random_filler

GOLDEN = np.load(Path(__file__).parent / "golden" / "caffe" / "fillers.npz")
SEEDS = 12
RANDOM = {
    case.id: case
    for case in CASES
    if is_random_filler(text_format.Parse(case.text, pb.FillerParameter()).type)
}
CAFFES = sorted(name.removesuffix("/count") for name in GOLDEN.files if name.endswith("/count"))


def values(case: FillerCase) -> np.ndarray:
    """What several seeds give, sorted."""
    filler = text_format.Parse(case.text, pb.FillerParameter())
    found = [fill(filler, case.shape, seed=seed, key=case.id) for seed in range(SEEDS)]
    return np.sort(np.concatenate([array.ravel() for array in found]).astype(np.float64))


def normal_share(case: FillerCase) -> Callable[[np.ndarray], np.ndarray]:
    erf = np.vectorize(math.erf)
    return lambda at: (1 + erf((at - case.mean) / (case.std * math.sqrt(2)))) / 2


def even_share(case: FillerCase) -> Callable[[np.ndarray], np.ndarray]:
    half = case.std * math.sqrt(3)
    return lambda at: np.clip((at - case.mean + half) / (2 * half), 0, 1)


def distance(found: np.ndarray, share: Callable[[np.ndarray], np.ndarray]) -> float:
    """The Kolmogorov-Smirnov statistic of sorted values and a distribution."""
    wanted, count = share(found), len(found)
    above = np.arange(1, count + 1) / count - wanted
    return float(max(above.max(), (above - 1 / count).max(), -(above - 1 / count).min()))


def limit(count: float) -> float:
    """What the statistic exceeds in one of a thousand samples."""
    return 1.95 / math.sqrt(count)


@pytest.mark.parametrize("name", [name for name in RANDOM if "sparse" not in name])
def test_values_follow_the_distribution(name: str) -> None:
    case = RANDOM[name]
    even = name.partition("/")[0] in ("uniform", "xavier", "positive_unitball")
    share = even_share(case) if even else normal_share(case)
    found = values(case)
    # The sum of an item, by which a positive_unitball divides, is itself random.
    slack = 0.01 if name == "positive_unitball" else 0.0
    assert distance(found, share) < limit(len(found)) + slack


@pytest.mark.parametrize("name", ["msra", "xavier", "gaussian", "uniform/range"])
def test_another_variance_would_be_found(name: str) -> None:
    case = RANDOM[name]
    even = name.partition("/")[0] in ("uniform", "xavier")
    wider = FillerCase(**{**vars(case), "std": case.std * 1.05})
    found = values(case)
    share = even_share(wider) if even else normal_share(wider)
    assert distance(found, share) > limit(len(found))


def test_sparse_values_that_are_kept_are_normal_and_a_quarter() -> None:
    case = RANDOM["gaussian/sparse"]
    found = values(case)
    kept = found[found != 0]
    deviation = math.sqrt(0.25 * 0.75 / len(found))
    assert abs(len(kept) / len(found) - 0.25) < 5 * deviation
    whole = FillerCase(**{**vars(case), "std": 1.0})
    assert distance(kept, normal_share(whole)) < limit(len(kept))


@pytest.mark.parametrize("name", CAFFES)
def test_caffe_fills_alike(name: str) -> None:
    found, theirs = values(RANDOM[name]), GOLDEN[name].astype(np.float64)
    shares = np.linspace(0, 1, len(theirs))
    # Between quantiles the two can differ by no more than a step; ends are extremes, not shares.
    mine = np.searchsorted(found, theirs[1:-1], "right") / len(found)
    below = np.searchsorted(found, theirs[1:-1], "left") / len(found)
    count = int(GOLDEN[f"{name}/count"])
    both = limit(len(found) * count / (len(found) + count))
    assert (mine > shares[1:-1] - both).all()
    assert (below < shares[1:-1] + both).all()
    low, high = RANDOM[name].low, RANDOM[name].high
    assert low - 1e-6 <= theirs[0] <= theirs[-1] <= high * (1 + 1e-6)


def test_every_random_filler_is_compared_with_caffes() -> None:
    assert {name.partition("/")[0] for name in CAFFES} == {
        name.partition("/")[0] for name in RANDOM
    }
