"""Bins against a search of all cut sets, and cuts as short numbers that stand well between."""

from __future__ import annotations

import itertools
import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metaverify.fitting.ladders import Rung
from metaverify.simulators.bins import CANDIDATES, balanced_cuts, shortest_between
from tests.strategies import confidences, repeatable


def squares(confidence: np.ndarray, weights: np.ndarray, cuts: tuple[float, ...]) -> float:
    """The sum of squared bin shares."""
    seen = ~np.isnan(confidence)
    bins = (confidence[seen, None] >= np.asarray(cuts)).sum(axis=1) if cuts else np.zeros(int(seen.sum()), dtype=int)
    share = np.bincount(bins, weights=weights[seen]) / weights[seen].sum()
    return float((share**2).sum())


def least_squares(confidence: np.ndarray, weights: np.ndarray, bins: int) -> float:
    """The least sum of squared shares over every set of at most ``bins - 1`` cuts at values."""
    values = np.unique(confidence[~np.isnan(confidence)])[1:].tolist()
    return min(
        squares(confidence, weights, cuts)
        for count in range(bins)
        for cuts in itertools.combinations(values, min(count, len(values)))
    )


@repeatable(150)
@given(
    values=st.lists(st.one_of(confidences, st.just(math.nan)), min_size=1, max_size=12),
    bins=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_no_set_of_cuts_has_a_smaller_sum_of_squared_shares(values: list[float], bins: int, seed: int) -> None:
    confidence = np.array(values)
    assume(not np.isnan(confidence).all())
    weights = np.random.default_rng(seed).integers(1, 5, len(values)).astype(float)
    cuts = balanced_cuts(confidence, weights, bins)
    assert len(cuts) <= bins - 1
    assert all(low < high for low, high in itertools.pairwise(cuts))
    assert squares(confidence, weights, cuts) == pytest.approx(least_squares(confidence, weights, bins), abs=1e-12)


def test_without_ties_the_bins_are_equal_quantiles() -> None:
    confidence = np.random.default_rng(0).permutation(np.linspace(0.001, 0.999, 240))
    cuts = balanced_cuts(confidence, np.ones(240), 8)
    assert np.bincount(Rung("r", cuts).code(confidence), minlength=9).tolist() == [30] * 8 + [0]


def test_many_distinct_values_are_divided_nearly_evenly() -> None:
    confidence = np.random.default_rng(1).beta(5, 1, 20 * CANDIDATES)
    cuts = balanced_cuts(confidence, np.ones(len(confidence)), 8)
    share = np.bincount(Rung("r", cuts).code(confidence), minlength=9)[:8] / len(confidence)
    assert share == pytest.approx(np.full(8, 1 / 8), abs=2 / CANDIDATES)


@pytest.mark.parametrize("others", [50, 5000])
def test_a_heavy_value_gets_a_bin_of_its_own_and_the_rest_share_the_others(others: int) -> None:
    """Confidences pile up at 1.0."""
    rng = np.random.default_rng(2)
    confidence = np.concatenate([np.ones(others), rng.uniform(0.2, 0.98, others)])
    cuts = balanced_cuts(confidence, np.ones(len(confidence)), 6)
    share = np.bincount(Rung("r", cuts).code(confidence), minlength=7) / len(confidence)
    assert share[5] == 0.5
    assert share[:5] == pytest.approx(np.full(5, 0.1), abs=2 / min(CANDIDATES, others))


def test_a_heavy_value_in_the_middle_of_many_has_both_its_sides_cut() -> None:
    rng = np.random.default_rng(3)
    confidence = np.concatenate([np.full(4000, 0.5), rng.uniform(0.0, 1.0, 4000)])
    cuts = balanced_cuts(confidence, np.ones(8000), 8)
    code = Rung("r", cuts).code(confidence)
    alone = code == code[0]
    assert (confidence[alone] == 0.5).mean() > 0.97


def test_a_tie_is_never_divided_and_nothing_seen_stands_on_the_wrong_side() -> None:
    confidence = np.repeat([0.1, 0.2, 0.2000001, 0.9], [5, 1, 7, 2])
    for bins in (2, 3, 4, 9):
        code = Rung("r", balanced_cuts(confidence, np.ones(15), bins)).code(confidence)
        assert all(len(set(code[confidence == value])) == 1 for value in np.unique(confidence))
        assert (np.diff(code) >= 0).all()
        assert len(set(code)) == min(bins, 4)


def test_missing_readings_are_left_out() -> None:
    rng = np.random.default_rng(4)
    seen, weights = rng.random(50), rng.random(50) + 0.1
    holes = np.insert(seen, [0, 10, 50], np.nan)
    heavy = np.insert(weights, [0, 10, 50], 99.0)
    assert balanced_cuts(holes, heavy, 5) == balanced_cuts(seen, weights, 5)


def test_a_weight_counts_as_so_many_rows() -> None:
    confidence = np.random.default_rng(5).random(40)
    weights = np.random.default_rng(6).integers(1, 4, 40)
    repeated = np.repeat(confidence, weights)
    assert balanced_cuts(confidence, weights.astype(float), 6) == balanced_cuts(repeated, np.ones(len(repeated)), 6)


@pytest.mark.parametrize(
    "confidence",
    [[], [math.nan], [0.5], [0.5, 0.5, math.nan], [1.0, 1.0]],
    ids=["none", "missing", "one", "same", "top"],
)
def test_where_there_is_nothing_to_divide_there_are_no_cuts(confidence: list[float]) -> None:
    assert balanced_cuts(np.array(confidence), np.ones(len(confidence)), 8) == ()


def test_one_bin_has_no_cuts() -> None:
    assert balanced_cuts(np.linspace(0, 1, 9), np.ones(9), 1) == ()


# The shortest number ------------------------------------------------------------------------------------------------


def decimals_between(low: Decimal, high: Decimal, digits: int) -> bool:
    """Whether a number with so many digits after the point lies in [low, high]."""
    step = Decimal(1).scaleb(-digits)
    return (low / step).to_integral_value(ROUND_CEILING) <= (high / step).to_integral_value(ROUND_FLOOR)


def digits_of(number: float) -> int:
    """Digits after the point, as it is written; at least one."""
    return max(-int(Decimal(repr(number)).normalize().as_tuple().exponent), 1)


@repeatable(600)
@given(first=confidences, second=confidences)
def test_a_cut_stands_well_between_and_no_number_with_fewer_digits_does(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assume(high - low > 1e-12)
    cut = shortest_between(low, high)
    assert low < cut <= high
    reach = Decimal(high - low) / 4
    margin = reach / 10**3  # of rounding: what lies on the very edge of the middle half may be taken or left
    inner = (Decimal(low) + reach, Decimal(high) - reach)
    assert inner[0] - margin <= Decimal(cut) <= inner[1] + margin
    for digits in range(1, digits_of(cut)):
        assert not decimals_between(inner[0] + margin, inner[1] - margin, digits)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.7312, 0.7694, 0.75),
        (0.0, 1.0, 0.5),
        (0.1, 0.9, 0.5),
        (0.2, 0.3, 0.25),
        (0.1, 0.2, 0.15),
        (0.99991, 1.0, 0.99995),
        (119.0, 1241.0, 700.0),
        (431.0, 432.0, 431.5),
        (998.0, 1003.0, 1000.0),
        (-3.0, 2.0, 0.0),
        (-40.0, 60.0, 0.0),
        (5e5, 3e6, 2e6),
        (1.6e308, 1.7e308, 1.65e308),
    ],
)
def test_a_cut_is_written_with_few_digits(low: float, high: float, expected: float) -> None:
    assert repr(shortest_between(low, high)) == repr(expected)


@repeatable(200)
@given(first=confidences, second=confidences)
def test_a_cut_still_divides_confidences_that_went_through_single_precision(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assume(high - low > 1e-6)
    assert float(np.float32(low)) < shortest_between(low, high) <= float(np.float32(high))


@repeatable(200)
@given(low=st.floats(0.0, 1.0, exclude_max=True), ulps=st.integers(1, 50))
def test_however_close_its_neighbours_a_cut_divides_them(low: float, ulps: int) -> None:
    high = low
    for _ in range(ulps):
        high = math.nextafter(high, 2.0)
    assert low < shortest_between(low, high) <= high


@repeatable(300)
@given(first=st.floats(-1e6, 1e6), second=st.floats(-1e6, 1e6))
def test_of_whole_numbers_too_the_roundest_is_taken(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assume(high - low > 1e-3)
    cut, reach = Decimal(shortest_between(low, high)), (Decimal(high) - Decimal(low)) / 4
    inner = (Decimal(low) + reach * Decimal("1.001"), Decimal(high) - reach * Decimal("1.001"))
    assert Decimal(low) < cut <= Decimal(high)
    coarsest = next((digits for digits in range(-7, 17) if decimals_between(*inner, digits)), 17)
    assert cut == round(cut, coarsest) or abs(cut - round(cut, coarsest)) < Decimal("1e-9")


@pytest.mark.parametrize("low", [0.0, 0.1, 0.5, 1.0 - 2**-53, 5e-324, 1e-300, 0.9999999999, -1e-300, 431.0, -1e300])
def test_even_neighbouring_floats_are_divided(low: float) -> None:
    high = math.nextafter(low, 2.0)
    assert shortest_between(low, high) == high
