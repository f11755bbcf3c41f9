"""Every filler's distribution, bounds and exact numbers, and its faults."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from google.protobuf import text_format
from tables.fillers import BILINEAR_4, CASES, FillerCase

from kdnet.errors import Span, WeightsError
from kdnet.schema import kdnet_pb2 as pb
from kdnet.weights import check_filler, fill, filler_names, is_random_filler, philox
from kdnet.weights.random import CHUNK, unit_normal

CASE_IDS = [case.id for case in CASES]


def parse(text: str) -> pb.FillerParameter:
    return text_format.Parse(text, pb.FillerParameter())


def made(case: FillerCase, seed: int = 1) -> np.ndarray:
    return fill(parse(case.text), case.shape, seed=seed, key="case")


def test_every_filler_has_a_row() -> None:
    assert {parse(case.text).type for case in CASES} == set(filler_names())


def test_rows_are_sorted_and_unique() -> None:
    assert sorted(set(CASE_IDS)) == CASE_IDS


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_bounds(case: FillerCase) -> None:
    values = made(case)
    assert values.shape == case.shape
    assert values.dtype == np.float32
    slack = 1e-6 * max(abs(case.low), abs(case.high))
    assert values.min() >= case.low - slack
    assert values.max() <= case.high + slack


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_moments(case: FillerCase) -> None:
    values = made(case).astype(np.float64)
    # Five standard errors: of the mean, and (for kurtosis up to 12) of the standard deviation.
    assert abs(values.mean() - case.mean) <= 5 * case.std / math.sqrt(values.size) + 1e-9
    assert abs(values.std() - case.std) <= 5 * 1.7 * case.std / math.sqrt(values.size) + 1e-9


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_numbers_never_change(case: FillerCase) -> None:
    content = made(case).astype("<f4").tobytes()
    assert hashlib.blake2b(content, digest_size=8).hexdigest() == case.digest


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_seed_and_key_matter_only_to_random_fillers(case: FillerCase) -> None:
    filler = parse(case.text)
    same = np.array_equal(made(case), made(case, seed=2))
    other = fill(filler, case.shape, seed=1, key="another")
    assert same == np.array_equal(made(case), other) == (not is_random_filler(filler.type))


@pytest.mark.parametrize("name", ["uniform", "xavier"])
def test_uniform_values_spread_evenly(name: str) -> None:
    values = fill(parse(f'type: "{name}"'), (100, 1000), seed=3, key="k").ravel()
    counts, _ = np.histogram(values, bins=50)
    chi_squared = ((counts - 2000.0) ** 2 / 2000.0).sum()
    # 49 degrees of freedom: mean 49, standard deviation 9.9.
    assert chi_squared < 49 + 5 * 9.9


def test_normal_values_follow_the_normal_distribution() -> None:
    generator = philox(4, "k")
    values = np.sort(np.concatenate([unit_normal(generator, CHUNK) for _ in range(8)]))
    expected = np.array([(1 + math.erf(v / math.sqrt(2))) / 2 for v in values])
    found = (np.arange(values.size) + 0.5) / values.size
    # Kolmogorov-Smirnov: P(D > 1.95 / sqrt(n)) = 0.001.
    assert np.abs(found - expected).max() < 1.95 / math.sqrt(values.size)


def test_normal_values_equal_box_muller_by_the_c_library() -> None:
    pairs = CHUNK // 2
    values = unit_normal(philox(5, "k"), CHUNK)
    raw = philox(5, "k").bit_generator
    u = ((raw.random_raw(pairs) >> np.uint64(11)) + 1) * 2.0**-53
    words = raw.random_raw(pairs)
    angle = ((words >> np.uint64(11)) * 2.0**-53 - 0.5) * np.pi
    radius = np.sqrt(-2 * np.log(u))
    np.testing.assert_allclose(values[:pairs], radius * np.sin(angle), rtol=1e-11, atol=1e-13)
    cosines = radius * np.cos(angle) * np.where(words & np.uint64(1), -1, 1)
    np.testing.assert_allclose(values[pairs:], cosines, rtol=1e-11, atol=1e-13)


def test_odd_counts_keep_the_length() -> None:
    assert unit_normal(philox(1), 7).shape == (7,)
    shape = (CHUNK + 3,)
    assert np.isfinite(fill(parse('type: "gaussian"'), shape, seed=1, key="k")).all()


def test_sparse_keeps_about_that_many_inputs_an_output() -> None:
    values = fill(parse('type: "gaussian" sparse: 15'), (300, 300), seed=1, key="k")
    kept = (values != 0).sum(axis=1)
    assert abs(kept.mean() - 15) < 5 * math.sqrt(15 / 300)
    assert kept.std() > 1


def test_sparse_zero_leaves_nothing() -> None:
    assert not fill(parse('type: "gaussian" sparse: 0'), (9, 9), seed=1, key="k").any()


def test_items_of_a_positive_unitball_sum_to_one() -> None:
    values = fill(parse('type: "positive_unitball"'), (30, 7, 11), seed=1, key="k")
    np.testing.assert_allclose(values.reshape(30, -1).sum(axis=1, dtype=np.float64), 1, rtol=1e-6)
    assert (values >= 0).all()


def test_bilinear_is_the_same_ramp_in_every_channel() -> None:
    values = fill(parse('type: "bilinear"'), (2, 3, 4, 4), seed=1, key="k")
    expected = np.broadcast_to(np.outer(BILINEAR_4, BILINEAR_4), (2, 3, 4, 4))
    np.testing.assert_array_equal(values, expected.astype(np.float32))


def test_bilinear_of_odd_size_peaks_at_the_centre() -> None:
    values = fill(parse('type: "bilinear"'), (1, 1, 3, 3), seed=1, key="k")[0, 0]
    np.testing.assert_allclose(values, np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]))


def test_keys_are_told_apart() -> None:
    keys = [("ab", "c"), ("a", "bc"), ("abc",), (1,), ("1",), (11,), (1, 1), ()]
    words = {int(philox(0, *key).bit_generator.random_raw()) for key in keys}
    assert len(words) == len(keys)
    assert philox(-1, "k").random() != philox(1, "k").random()


def test_philox_stream_never_changes() -> None:
    assert philox(7, "layer", 3).bit_generator.random_raw(2).tolist() == PHILOX_WORDS


PHILOX_WORDS = [15223670582923681360, 17818947775834186745]

BAD = {
    "bilinear-axes": ('type: "bilinear"', (4, 4), "does not have 4 axes"),
    "bilinear-square": ('type: "bilinear"', (1, 1, 4, 3), "not square"),
    "empty-blob": ('type: "xavier"', (4, 0), "nothing to fill"),
    "gaussian-std": ('type: "gaussian" std: 0', (4,), "std 0 is not positive"),
    "sparse-above": ('type: "gaussian" sparse: 5', (4, 4), "above the 4 outputs"),
    "sparse-elsewhere": ('type: "xavier" sparse: 5', (4, 4), "gaussian only"),
    "sparse-negative": ('type: "gaussian" sparse: -2', (4, 4), "sparse -2 is negative"),
    "sparse-scalar": ('type: "gaussian" sparse: 0', (), "a blob with axes"),
    "uniform-order": ('type: "uniform" min: 1 max: 0', (4,), "min 1 is above max 0"),
    "uniform-nan": ('type: "uniform" min: nan', (4,), "above"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_parameters_are_located(name: str) -> None:
    text, shape, message = BAD[name]
    span = Span("net.prototxt", 3, 5)
    with pytest.raises(WeightsError) as caught:
        fill(parse(text), shape, seed=1, key="k", span=span)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "bad-filler"
    assert message in diagnostic.message
    assert diagnostic.span == span


def test_unknown_filler_names_the_nearest() -> None:
    with pytest.raises(WeightsError) as caught:
        check_filler(parse('type: "gausian"'), (4,), span=Span("net.prototxt", 3, 5))
    assert str(caught.value) == (
        'net.prototxt:3:5: error: there is no filler "gausian" [unknown-filler]\n'
        'help: did you mean "gaussian"?\n'
        "help: the fillers are bilinear, constant, gaussian, msra, positive_unitball, uniform, "
        "xavier"
    )
