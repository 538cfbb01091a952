"""The cluster bootstrap against row-by-row resampling, closed tests, SciPy, and repeated draws from known worlds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom
from scipy.stats import t as student

from metaverify.simulators import bootstrap
from metaverify.simulators.bootstrap import estimate, group_members, holm, p_value, resample
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.scores import Curve, Tiers, area, gain
from metaverify.simulators.worlds import World, independent, joint, shared_difficulty, useless_verifier

Floats = NDArray[np.float64]


def test_totals_of_a_resample_are_the_sums_over_the_groups_that_were_drawn() -> None:
    sums = np.random.default_rng(1).random((7, 3))
    rng = np.random.default_rng(5)
    drawn = rng.integers(7, size=(40, 7))
    totals = resample(sums, resamples=40, seed=5)
    assert totals[0] == pytest.approx(sums.sum(axis=0))
    assert totals[1:] == pytest.approx(np.array([sums[groups].sum(axis=0) for groups in drawn]))


def test_resamples_do_not_depend_on_how_many_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(1).random((50, 2))
    whole = resample(sums, resamples=30, seed=2)
    monkeypatch.setattr(bootstrap, "CELLS", 200)
    assert resample(sums, resamples=30, seed=2) == pytest.approx(whole, rel=1e-12)


def test_rows_of_a_group_have_one_number_and_every_query_its_own_where_there_are_none() -> None:
    log = shared_difficulty(2).draw(12, 0, per_group=3)
    assert group_members(log).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    order = np.random.default_rng(0).permutation(12)
    assert group_members(shared_difficulty(2).draw(12, 0).take(order)).tolist() == order.tolist()


def test_rows_of_a_group_share_what_is_hidden_of_them() -> None:
    """A world of one sure and one hopeless class: every tier is right on all rows of a group, or on none."""
    plain = shared_difficulty(2)
    emissions = tuple(tuple(replace(e, chance=e.chance[:2]) for e in of_tier) for of_tier in plain.readings)
    world = World(plain.tiers, np.array([0.5, 0.5]), np.array([[1.0, 1.0], [0.0, 0.0]]), plain.price[:2], emissions)
    right = world.draw(60, 1, per_group=5).tiers[0].correct.reshape(12, 5)
    assert set(right.mean(axis=1)) == {0.0, 1.0}


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, 15)
    totals = resample(np.column_stack([np.ones(15), values]), resamples=40_000)
    found = estimate(totals[:, 1] / totals[:, 0], 15)
    half = student.ppf(0.95, 14) * values.std(ddof=1) / math.sqrt(15)
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.mean == pytest.approx(half, rel=0.06) == found.mean - found.low


def test_a_single_group_bounds_nothing() -> None:
    found = estimate(np.ones(5), 1)
    assert (found.mean, found.low, found.high) == (1.0, -math.inf, math.inf)
    assert p_value(np.ones(5), 1) == 1.0


@pytest.mark.parametrize("groups", [6, 12, 60, 1000])
@pytest.mark.parametrize("t", [0.0, 0.5, 1.7, 3.0, 5.0])
def test_p_is_students(groups: int, t: float) -> None:
    spread = np.array([-1.0, 1.0]) / math.sqrt(2.0)  # a standard deviation of 1
    exact = 2 * student.sf(t, groups - 1)
    found = p_value(np.array([t, *spread]), groups)
    assert found == pytest.approx(exact, abs=0.002)
    assert found == pytest.approx(exact, rel=0.02) or exact < 0.03


def test_what_never_differs_is_sure() -> None:
    assert p_value(np.zeros(10), 50) == 1.0
    assert p_value(np.full(10, 0.2), 50) == 0.0


def test_what_differs_by_rounding_only_does_not_differ() -> None:
    dust = np.array([0.1 + 0.2 - 0.3, *(np.arange(9) % 2 * 2e-16)])
    assert dust[0] > 0.0
    assert p_value(dust, 50) == 1.0
    assert p_value(1e-6 * (1.0 + dust), 50) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_holms_p_is_that_of_the_closed_test_with_bonferronis(seed: int) -> None:
    p = np.random.default_rng(seed).beta(0.4, 2.0, 5).round(2).tolist()
    for at, corrected in enumerate(holm(p)):
        others = [other for other in range(5) if other != at]
        sets = [(at, *more) for size in range(5) for more in combinations(others, size)]
        assert corrected == pytest.approx(max(min(len(s) * min(p[i] for i in s), 1.0) for s in sets))


# ----------------------------------------------------------------------------------------------------- repetitions

CUTS = (0.3, 0.5, 0.7)
BUDGETS = np.array([2.0, 3.0, 4.0])


def same(tiers: int = 2) -> World:
    """Dearer tiers are no better, but another look: the hull has a single point, and is a maximum over equals."""
    world = shared_difficulty(tiers)
    return replace(world, success=np.repeat(world.success[:, :1], tiers, axis=1))


def two_readings() -> World:
    """Tier 1 has two readings of the same worth."""
    world = shared_difficulty(2)
    (one,), other = world.readings
    return replace(world, readings=((one, replace(one, name="conf2")), other))


def true_columns(world: World) -> Floats:
    """Expectations per query of weight, each tier's cost and quality, and cost and quality of "keep tier 1 above a
    cut, else pay for tier 2" for each cut, [columns]."""
    exact, levels = joint(world), world.readings[0][0].levels
    axes = tuple(range(1, exact.quality.ndim))
    quality, cost = exact.quality.sum(axis=axes), exact.price.sum(axis=axes)
    by_level = exact.quality[:2].sum(axis=axes[1:]), exact.price[:2].sum(axis=axes[1:])  # [2, levels]
    going = [levels < cut for cut in CUTS]
    costs = [cost[0] + by_level[1][1][go].sum() for go in going]
    qualities = [by_level[0][0][~go].sum() + by_level[0][1][go].sum() for go in going]
    return np.array([1.0, *cost, *quality, *costs, *qualities])


def columns(log: ReplayLog, reading: int = 0) -> Floats:
    """The same of each row of a log, [n, columns]."""
    small, large = log.tiers[:2]
    going = [small.readings[reading].confidence < cut for cut in CUTS]
    costs = [small.cost + go * large.cost for go in going]
    qualities = [np.where(go, large.correct, small.correct) for go in going]
    tiers = [*(tier.cost for tier in log.tiers), *(tier.correct for tier in log.tiers)]
    return np.stack([np.ones(len(log)), *tiers, *costs, *qualities], axis=1)


def headline(totals: Floats) -> Floats:
    """Mean gain and area of the rules, [samples, 2]."""
    means = totals[:, 1:] / totals[:, :1]
    tiers = (means.shape[1] - 2 * len(CUTS)) // 2
    fixed = Tiers(means[:, :tiers], means[:, tiers : 2 * tiers])
    curve = Curve(means[:, 2 * tiers : -len(CUTS)], means[:, -len(CUTS) :])
    return np.stack([gain(curve, fixed, BUDGETS).mean(axis=1), area(curve, fixed, 1.0, 4.0)], axis=1)


def sums_of(world: World, groups: int, per_group: int, seed: int, reading: int = 0) -> Floats:
    log = world.draw(groups * per_group, seed, per_group=per_group)
    return columns(log, reading).reshape(groups, per_group, -1).sum(axis=1)


def covered(world: World, groups: int, per_group: int, repetitions: int) -> Floats:
    """How often the intervals of gain and area held the truth."""
    truth = headline(true_columns(world)[None])[0]
    hits = np.zeros(2)
    for seed in range(repetitions):
        values = headline(resample(sums_of(world, groups, per_group, seed), resamples=400, seed=seed))
        found = [estimate(column, groups) for column in values.T]
        hits += [each.low <= true <= each.high for each, true in zip(found, truth, strict=True)]
    return hits


GROUPS = [(300, 1), (60, 5), (20, 5)]
KNOWN: dict[str, Callable[[], World]] = {
    "shared difficulty": lambda: shared_difficulty(2),
    "independent": lambda: independent(2),
    "useless verifier": lambda: useless_verifier(2),
    "three tiers": lambda: shared_difficulty(3),
    "larger no better": same,
    "three equals": lambda: same(3),
}


@pytest.mark.parametrize(("groups", "per_group"), GROUPS)
@pytest.mark.parametrize("name", ["shared difficulty", "larger no better"])
def test_intervals_hold_the_truth(name: str, groups: int, per_group: int) -> None:
    """What is possible in 100 repetitions where an interval covers 86 to 94 %."""
    hits = covered(KNOWN[name](), groups, per_group, 100)
    assert (hits >= binom.ppf(0.01, 100, 0.86)).all()
    assert (hits <= binom.ppf(0.99, 100, 0.94)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "per_group"), GROUPS)
@pytest.mark.parametrize("name", KNOWN)
def test_intervals_cover_86_to_94_percent(name: str, groups: int, per_group: int) -> None:
    share = covered(KNOWN[name](), groups, per_group, 500) / 500
    print(f"{name}, {groups} groups of {per_group}: gain {share[0]:.1%}, area {share[1]:.1%}")
    assert (share >= 0.86).all()
    assert (share <= 0.94).all()


def rejected(groups: int, per_group: int, repetitions: int) -> int:
    """How often two rules of the same worth are told apart at .10: cuts on either of two equal readings."""
    count = 0
    for seed in range(repetitions):
        log = two_readings().draw(groups * per_group, seed, per_group=per_group)
        each = [columns(log, reading).reshape(groups, per_group, -1).sum(axis=1) for reading in (0, 1)]
        totals = resample(np.hstack(each), resamples=400, seed=seed)
        one, other = (headline(part)[:, 0] for part in np.split(totals, 2, axis=1))
        count += p_value(one - other, groups) <= 0.10
    return count


@pytest.mark.parametrize(("groups", "per_group"), GROUPS)
def test_equals_are_seldom_told_apart(groups: int, per_group: int) -> None:
    """What is possible in 150 repetitions of a test whose size is at most .12."""
    assert rejected(groups, per_group, 150) <= binom.ppf(0.99, 150, 0.12)


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "per_group"), GROUPS)
def test_the_size_of_the_paired_test_is_at_most_12_percent_at_10(groups: int, per_group: int) -> None:
    share = rejected(groups, per_group, 1000) / 1000
    print(f"{groups} groups of {per_group}: size {share:.1%}")
    assert share <= 0.12
