"""Scores against linear programmes, quadrature, hand-worked curves, and what must be true of mixing at random."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linprog

from metaverify.simulators.references import no_information_hull
from metaverify.simulators.scores import Curve, Tiers, aiq, apgr, area, envelope, gain, ibc, mean_over, value_at
from metaverify.simulators.worlds import WORLDS

Floats = NDArray[np.float64]


def points(rng: np.random.Generator, samples: int, count: int) -> tuple[Floats, Floats]:
    """Costs and qualities [samples, count], some of them ties."""
    cost, quality = rng.random((samples, count)), rng.random((samples, count))
    tied = rng.random(samples) < 0.4
    return np.where(tied[:, None], np.round(cost, 1), cost), np.where(tied[:, None], np.round(quality, 1), quality)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_envelope_is_the_best_mixture_that_a_linear_programme_finds(count: int) -> None:
    rng = np.random.default_rng(count)
    cost, quality = points(rng, 12, count)
    at = np.sort(rng.uniform(-0.1, 1.2, (12, 5)), axis=1)
    found = envelope(cost, quality, at)
    for s, q in np.ndindex(found.shape):
        budget = max(at[s, q], cost[s].min())
        best = linprog(-quality[s], cost[s][None], [budget + 1e-12], np.ones((1, count)), [1.0])
        assert found[s, q] == pytest.approx(-best.fun, abs=1e-9)


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_the_envelope_of_fixed_tiers_is_the_hull_of_a_log(name: str) -> None:
    log = WORLDS[name](5).draw(60, 3)
    hull = no_information_hull(log)
    cost = np.array([[log.mean(tier.cost) for tier in log.tiers]])
    quality = np.array([[log.mean(tier.correct) for tier in log.tiers]])
    at = np.concatenate([np.linspace(0.0, 1.1 * cost.max(), 40), cost[0]])[None]
    assert Tiers(cost, quality).hull(at)[0] == pytest.approx([hull.quality(c) for c in at[0]], abs=1e-12)


def test_means_and_values_of_a_polyline_are_those_of_a_fine_grid() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = np.sort(rng.random((1, 6)), axis=1)
        y = rng.random((1, 6))
        low, high = np.sort(rng.uniform(-0.3, 1.3, 2))
        grid = np.union1d(np.linspace(low, high, 11), np.clip(x[0], low, high))
        exact = np.trapezoid(np.interp(grid, x[0], y[0]), grid) / (high - low)
        assert mean_over(x, y, low, high)[0] == pytest.approx(exact, abs=1e-12)
        places = np.concatenate([grid, x[0]])
        assert value_at(x, y, places[None])[0] == pytest.approx(np.interp(places, x[0], y[0]), abs=1e-12)


def test_a_polyline_with_a_jump_has_the_mean_of_its_parts() -> None:
    x, y = np.array([[0.0, 0.5, 0.5, 1.0]]), np.array([[0.0, 0.0, 1.0, 1.0]])
    assert mean_over(x, y, 0.0, 1.0)[0] == pytest.approx(0.5, abs=1e-15)


TIERS = Tiers(np.array([[1.0, 3.0, 5.0]]), np.array([[0.5, 0.6, 0.9]]))  # the middle one lies below the hull
BUDGETS = np.array([2.0, 3.0, 4.0, 5.0])


def at_random(share: float = 1.0) -> Curve:
    """The hull itself, a part of each budget being spent."""
    spent = 1.0 + share * (BUDGETS - 1.0)
    return Curve(spent[None], TIERS.hull(spent[None]))


def test_mixing_fixed_tiers_at_random_has_no_gain_no_area_no_lift_and_half_of_the_gap() -> None:
    curve = at_random()
    assert gain(curve, TIERS, BUDGETS)[0] == pytest.approx(np.zeros(4), abs=1e-15)
    assert area(curve, TIERS, 1.0, 5.0)[0] == pytest.approx(0.0, abs=1e-15)
    own, base = ibc(curve, TIERS, 2.6)
    assert own[0] == pytest.approx(0.1) == base[0]
    recovered, gap = apgr(curve, TIERS)
    assert recovered[0] / gap[0] == pytest.approx(0.5)
    assert aiq(curve, TIERS, 1.0, 5.0)[0] == pytest.approx(0.7)


def test_money_that_is_left_idle_earns_nothing_where_nothing_dearer_is_to_be_had() -> None:
    idle, lavish = at_random(0.5), at_random(1.25)  # half of what a budget adds, and a quarter too much
    assert gain(idle, TIERS, BUDGETS)[0] == pytest.approx([0.0, 0.0, -0.1, -0.2])
    assert gain(lavish, TIERS, BUDGETS)[0] == pytest.approx(np.zeros(4), abs=1e-15)
    assert area(idle, TIERS, 1.0, 5.0)[0] == pytest.approx(-0.05)  # it ends at 3, half way: a triangle of .2 x 2 / 2


def test_a_curve_above_the_hull_has_the_scores_worked_out_by_hand() -> None:
    """Points (2, .8) and (4, .7), from the cheapest tier at (1, .5) on; the hull rises by .1 a unit of cost."""
    curve, budgets = Curve(np.array([[2.0, 4.0]]), np.array([[0.8, 0.7]])), np.array([2.0, 4.0])
    assert gain(curve, TIERS, budgets)[0] == pytest.approx([0.2, -0.1])
    assert gain(curve, TIERS, np.array([1.5, 3.0, 5.0]))[0] == pytest.approx([0.1, 0.05, 0.7 - 0.9])
    own = (0.65 * 1 + 0.75 * 2 + 0.7 * 1) / 4
    assert area(curve, TIERS, 1.0, 5.0)[0] == pytest.approx(own - 0.7)
    assert aiq(curve, TIERS, 1.0, 5.0)[0] == pytest.approx((0.65 * 1 + 0.8 * 3) / 4)
    slope, base = ibc(curve, TIERS, 3.0)
    assert (slope[0], base[0]) == (pytest.approx(0.25 / 2), pytest.approx(0.1))
    recovered, gap = apgr(curve, TIERS)
    assert (recovered[0], gap[0]) == (pytest.approx(own - 0.5), pytest.approx(0.4))


BENT = Tiers(np.array([[1.0, 2.0, 9.0]]), np.array([[0.2, 0.7, 0.9]]))  # a hull that is steep first


def test_few_budgets_cut_no_corner_of_the_hull() -> None:
    """Mixing at random at two budgets only, beyond the corner of the hull: nothing is gained, and nothing lost."""
    spent = np.array([[5.0, 9.0]])
    curve = Curve(spent, BENT.hull(spent))
    assert area(curve, BENT, 1.0, 9.0)[0] == pytest.approx(0.0, abs=1e-15)
    recovered, gap = apgr(curve, BENT)
    assert recovered[0] == pytest.approx((0.25 * 1 + 0.6 * 7) / 8)
    assert gap[0] == pytest.approx(0.7)
    for cost in (1.5, 2.0, 4.0):
        own, base = ibc(curve, BENT, cost)
        assert own == pytest.approx(base)


def test_of_two_cheapest_tiers_the_better_one_is_to_be_had_without_any_method() -> None:
    tiers = Tiers(np.array([[1.0, 1.0, 5.0]]), np.array([[0.3, 0.5, 0.9]]))
    spent = np.array([[2.0, 5.0]])
    curve = Curve(spent, tiers.hull(spent))
    assert area(curve, tiers, 1.0, 5.0)[0] == pytest.approx(0.0, abs=1e-15)
    assert apgr(curve, tiers)[1][0] == pytest.approx(0.4)


@pytest.mark.parametrize("low", [1.0, 2.5])
def test_the_area_is_the_mean_of_the_gain(low: float) -> None:
    rng = np.random.default_rng(8)
    cost, quality = points(rng, 30, 4)
    cost[:, 0] = 0.0  # the cheapest is the same in all
    tiers = Tiers(1.0 + 4.0 * cost, quality)
    curve = Curve(1.0 + 3.0 * rng.random((30, 3)), rng.random((30, 3)))
    fine = np.linspace(low, 4.5, 20_001)
    mean = np.trapezoid(gain(curve, tiers, fine), fine, axis=1) / (4.5 - low)
    assert area(curve, tiers, low, 4.5) == pytest.approx(mean, abs=1e-4)


def test_the_base_of_the_lift_is_the_papers_slope_between_two_tiers() -> None:
    tiers = Tiers(np.array([[1.0, 60.0]]), np.array([[0.4, 0.7]]))
    _, base = ibc(Curve(np.array([[7.0]]), np.array([[0.5]])), tiers, 30.0)
    assert base[0] == pytest.approx((0.7 - 0.4) / (60.0 - 1.0))


def test_a_dearer_tier_that_is_no_better_leaves_nothing_to_lift() -> None:
    tiers = Tiers(np.array([[1.0, 5.0]]), np.array([[0.6, 0.5]]))
    own, base = ibc(Curve(np.array([[2.0]]), np.array([[0.7]])), tiers, 3.0)
    assert (own[0], base[0]) == (pytest.approx(0.05), 0.0)
    assert tiers.best == tiers.cheapest == 0


def test_scores_of_many_samples_are_those_of_each_alone() -> None:
    rng = np.random.default_rng(4)
    cost, quality = points(rng, 20, 3)
    curve_cost, curve_quality = points(rng, 20, 4)
    cost[1:], budgets = cost[:1] + 0.05 * cost[1:], np.sort(rng.random(4)) + 0.5
    tiers, curve = Tiers(cost, quality), Curve(curve_cost, curve_quality)

    def alone(s: int) -> tuple[Tiers, Curve]:
        # the sample decides which tier is the cheapest, the others follow it
        kept = [0, s]
        return Tiers(cost[kept], quality[kept]), Curve(curve_cost[kept], curve_quality[kept])

    for s in range(20):
        one, own = alone(s)
        assert gain(curve, tiers, budgets)[s] == pytest.approx(gain(own, one, budgets)[1])
        assert area(curve, tiers, 0.2, 1.4)[s] == pytest.approx(area(own, one, 0.2, 1.4)[1])
        assert aiq(curve, tiers, 0.2, 1.4)[s] == pytest.approx(aiq(own, one, 0.2, 1.4)[1])
