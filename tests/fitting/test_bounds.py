"""The tests of a mean against enumeration, other packages and slow restatements."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value
from scipy.stats import beta, binom, ttest_1samp
from statsmodels.stats.proportion import proportion_confint

from metaverify.fitting.bounds import (
    BOLD,
    HALVES,
    TESTS,
    betting,
    clopper_pearson,
    e_process,
    hoeffding_bentkus,
    least,
    mean_kept_by_the_next,
    student,
    units_needed,
)
from tests.strategies import repeatable

FINITE = ("clopper-pearson", "hoeffding-bentkus", "betting", "e-process")

units = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=40).map(np.array)
means = st.floats(0.02, 0.98)


def slow_betting(z: list[float], mean: float, delta: float) -> bool:
    """A bettor, unit by unit, who looks at the wealth and at the units that are left every now and then."""
    wealth, squares, until, goal = 1.0, mean * (1.0 - mean), 0, 0.0
    for t, value in enumerate(z):
        if t == until:
            left = len(z) - t
            until, goal = t + max(left // 20, 1), math.sqrt(2.0 * math.log(1.0 / delta / wealth) / left)
        stake = min(goal / math.sqrt(squares / (t + 1)), BOLD / (1.0 - mean))
        wealth *= 1.0 + stake * (mean - value)
        if wealth >= 1.0 / delta:
            return True
        squares += (value - mean) ** 2
    return False


def slow_e_process(z: list[float], mean: float) -> float:
    """A purse for each constant stake."""
    purses = [1.0 / HALVES] * HALVES
    for value in z:
        purses = [p * (1.0 + BOLD / (1.0 - mean) / 2**k * (mean - value)) for k, p in enumerate(purses)]
    return min(1.0 / sum(purses), 1.0)


@repeatable(200)
@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=120).map(np.array), means, st.floats(0.01, 0.4))
def test_betting_is_a_bettor(z: np.ndarray, mean: float, delta: float) -> None:
    sides = {slow_betting(z.tolist(), mean, delta * (1 + error)) for error in (-1e-9, 1e-9)}
    assert betting(z, mean, delta) in sides
    assert betting(z * mean / 2, mean, delta) == slow_betting((z * mean / 2).tolist(), mean, delta)


def test_betting_nearly_finds_what_student_finds() -> None:
    """Where costs are not rare the power of the test that knows that they are normal is within reach."""
    rng = np.random.default_rng(4)
    refused = np.zeros(2)
    for _ in range(200):
        z = rng.choice([0.05, 0.25, 1.0], 1000, p=[0.6, 0.3, 0.1])
        limit = 0.205 + 2.4 * float(z.std()) / math.sqrt(1000)
        refused += (betting(z, limit, 0.1), student(z, limit) <= 0.1)
    assert refused[0] > 0.9 * refused[1]


@repeatable(80)
@given(units, means)
def test_the_e_process_is_purses(z: np.ndarray, mean: float) -> None:
    assert e_process(z, mean) == pytest.approx(slow_e_process(z.tolist(), mean), rel=1e-9)


@pytest.mark.parametrize("name", FINITE)
@pytest.mark.parametrize("mean", [0.1, 0.37, 0.5, 0.8])
def test_no_finite_sample_test_is_wrong_more_often_than_it_says(name: str, mean: float) -> None:
    """Every sequence of ten coins, with its chance where the mean is just as high as tested."""
    found = [
        (np.array(coins), mean ** sum(coins) * (1 - mean) ** (10 - sum(coins)))
        for coins in product((0.0, 1.0), repeat=10)
    ]
    for delta in (0.01, 0.05, 0.1, 0.3, 0.7):
        assert sum(chance for z, chance in found if TESTS[name](z, mean, delta)) <= delta * (1 + 1e-9)


@pytest.mark.parametrize("name", ["hoeffding-bentkus", "betting", "e-process"])
def test_nor_on_three_values(name: str) -> None:
    """Every sequence of seven draws of 0, 0.2 and 1 with a mean of just what is tested."""
    chances = {0.0: 0.6, 0.2: 0.25, 1.0: 0.15}
    mean = sum(value * chance for value, chance in chances.items())
    found = [(np.array(drawn), math.prod(chances[v] for v in drawn)) for drawn in product(chances, repeat=7)]
    for delta in (0.05, 0.1, 0.3, 0.7):
        assert sum(chance for z, chance in found if TESTS[name](z, mean, delta)) <= delta * (1 + 1e-9)


def test_the_e_process_may_be_looked_at_after_every_unit() -> None:
    mean, delta, broken = 0.4, 0.3, 0.0
    for coins in product((0.0, 1.0), repeat=8):
        looks = [e_process(np.array(coins[:n]), mean) for n in (2, 4, 6, 8)]
        broken += (min(looks) <= delta) * mean ** sum(coins) * (1 - mean) ** (8 - sum(coins))
    assert 0.0 < broken <= delta


@repeatable(40)
@given(units, means, st.randoms(use_true_random=False))
def test_the_e_process_does_not_see_the_order(z: np.ndarray, mean: float, random: object) -> None:
    again = z.copy()
    random.shuffle(again)  # type: ignore[attr-defined]
    assert e_process(again, mean) == pytest.approx(e_process(z, mean), rel=1e-9)


@repeatable(60)
@given(st.integers(1, 500), st.floats(0.0, 1.0), means, st.floats(0.01, 0.4))
def test_clopper_pearson_refuses_where_the_interval_ends_below(n: int, share: float, mean: float, delta: float) -> None:
    ones = round(share * n)
    z = np.array([1.0] * ones + [0.0] * (n - ones))
    upper = proportion_confint(ones, n, alpha=2 * delta, method="beta")[1]
    assert upper == pytest.approx(1.0 if ones == n else beta.ppf(1 - delta, ones + 1, n - ones))
    if abs(upper - mean) > 1e-9:
        assert (clopper_pearson(z, mean) <= delta) == (upper < mean)


@repeatable(80)
@given(units, means)
def test_hoeffding_bentkus_is_mapie_s(z: np.ndarray, mean: float) -> None:
    if 0.0 < z.mean() < mean:  # where theirs is defined, and not above a half for want of a direction
        theirs = compute_hoeffding_bentkus_p_value(np.array([z.mean()]), len(z), np.array([mean]))
        if abs(z.sum() - round(z.sum())) > 1e-6:  # there rounding decides which whole number is next
            assert hoeffding_bentkus(z, mean) == pytest.approx(min(float(theirs[0, 0]), 1.0), rel=1e-6)


@repeatable(40)
@given(units, means)
def test_student_is_scipy_s_where_nothing_is_skewed(z: np.ndarray, mean: float) -> None:
    z = np.concatenate([z, 1.0 - z])
    if z.std() > 1e-6:
        theirs = ttest_1samp(z, mean, alternative="less").pvalue
        assert student(z, mean) == pytest.approx(float(theirs), rel=1e-6, abs=1e-12)


def test_student_is_warier_where_a_few_units_are_high() -> None:
    z = np.array([0.1] * 95 + [0.9] * 5)
    assert student(z, 0.17) > ttest_1samp(z, 0.17, alternative="less").pvalue
    assert student(1.0 - z, 0.89) < ttest_1samp(1.0 - z, 0.89, alternative="less").pvalue


def test_student_knows_units_that_are_all_the_same() -> None:
    assert student(np.full(5, 0.25), 0.5) == 0.0
    assert student(np.full(5, 0.5), 0.5) == 1.0


@pytest.mark.parametrize("name", TESTS)
def test_lower_units_are_never_weaker_evidence(name: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        z = (rng.random(60) < 0.4).astype(float)
        lower = np.where(rng.random(60) < 0.3, 0.0, z)
        bound, lower_bound = (least(lambda mean, z=z: TESTS[name](z, mean, 0.1), 0.0, 1.0 - 1e-9) for z in (z, lower))
        assert lower_bound <= bound + 1e-6


def test_least_finds_where_acceptance_begins() -> None:
    assert least(lambda x: x >= 0.3, 0.0, 1.0) == pytest.approx(0.3, rel=1e-6)
    assert least(lambda x: False, 0.0, 1.0) == 1.0


@pytest.mark.parametrize(("limit", "count", "delta"), [(0.4, 50, 0.05), (0.1, 200, 0.1), (0.9, 20, 0.01)])
def test_the_next_units_keep_the_limit(limit: float, count: int, delta: float) -> None:
    """Coins are the worst units there are: their exact tail is within the bound, and a higher mean's bound is not."""
    mean = mean_kept_by_the_next(limit, count, delta)
    assert 0.0 < mean < limit
    assert binom.sf(math.ceil(limit * count - 1e-9) - 1, count, mean) <= delta
    tail = count * (limit * math.log(limit / mean) + (1 - limit) * math.log((1 - limit) / (1 - mean)))
    assert math.exp(-tail) == pytest.approx(delta, rel=1e-6)


def test_the_next_units_cannot_break_a_limit_that_none_is_above() -> None:
    assert mean_kept_by_the_next(1.0, 5, 0.1) == 1.0
    assert mean_kept_by_the_next(0.0, 5, 0.1) == 0.0


@pytest.mark.parametrize("name", [*FINITE, "student"])
def test_as_many_units_as_are_said_to_be_needed_suffice_in_about_half_of_all_tries(name: str) -> None:
    rng = np.random.default_rng(0)
    mean, delta = 0.4, 0.1
    n = round(units_needed(name, (rng.random(4000) < 0.3).astype(float), mean, delta))
    shares = [
        np.mean([TESTS[name]((rng.random(max(int(n * times), 2)) < 0.3).astype(float), mean, delta) for _ in range(60)])
        for times in (0.5, 2.0)
    ]
    assert shares[0] < 0.55
    assert shares[1] > 0.5


def test_no_number_of_units_refuses_a_mean_that_is_true() -> None:
    assert units_needed("betting", np.full(10, 0.5), 0.5, 0.1) == math.inf
    assert units_needed("hoeffding-bentkus", np.full(10, 0.5), 0.500001, 0.1) == math.inf
