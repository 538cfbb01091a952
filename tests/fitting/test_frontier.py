"""The frontier against every decision tree there is, and against a dense sweep over prices."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from metaverify.fitting.frontier import (
    Frontier,
    InfeasibleBudgetError,
    complete_near,
    mixture_at,
    trace_frontier,
)
from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import Lattice, Plan
from metaverify.fitting.table import JointTable
from tests.fitting.oracles import best_curve, curve_at, follow, leaves_of, spent_and_earned
from tests.strategies import random_table, repeatable, tables, worths_of_abstaining

EXACT = 1e-12
CLOSE = 1e-9
NO_GAP = 1e-13  # what rounding leaves of none
CASCADE = (
    Ladder("a", (Rung("free", (0.5,)), Rung("paid", (0.5,)))),
    Ladder("b", (Rung(None), Rung("paid", (0.3, 0.7)))),
    Ladder("c", (Rung(None),)),
)


def budgets_of(curve: list[tuple[float, float]]) -> np.ndarray:
    """The vertices' costs and places between them, and beyond the dearest."""
    costs = np.array([cost for cost, _ in curve])
    return np.concatenate([costs * (1 + 1e-12), (costs[1:] + costs[:-1]) / 2, [costs[-1] + 1.0]])


@pytest.mark.parametrize("abstain", [None, 0.4])
@pytest.mark.parametrize("seed", range(4))
def test_without_a_gap_the_frontier_is_that_of_all_decision_trees(seed: int, abstain: float | None) -> None:
    table = random_table(CASCADE, seed, contexts=seed % 2, varying=seed > 1)
    curve = best_curve(table, abstain)
    frontier = trace_frontier(Lattice(table, abstain=abstain), gap=NO_GAP)
    assert frontier.costs == pytest.approx([cost for cost, _ in curve], abs=CLOSE)
    assert frontier.qualities == pytest.approx([quality for _, quality in curve], abs=CLOSE)


@repeatable(60)
@given(table=tables(), abstain=worths_of_abstaining)
def test_no_decision_tree_lies_more_than_the_gap_above_the_frontier(table: JointTable, abstain: float | None) -> None:
    curve = best_curve(table, abstain)
    for gap in (1e-3, 0.02, 0.2):
        frontier = trace_frontier(Lattice(table, abstain=abstain), gap=gap)
        for budget in budgets_of(curve):
            short = curve_at(curve, budget) - frontier.quality(budget)
            assert -CLOSE <= short <= gap + CLOSE


@repeatable(60)
@given(table=tables(), abstain=worths_of_abstaining)
def test_the_frontier_rises_and_is_concave_from_the_cheapest_policy_on(
    table: JointTable, abstain: float | None
) -> None:
    frontier = trace_frontier(Lattice(table, abstain=abstain), gap=1e-6)
    run, rise = np.diff(frontier.costs), np.diff(frontier.qualities)
    assert (run > 0).all()
    assert (rise > 0).all()
    assert (np.diff(rise / run) <= CLOSE * (rise / run)[:-1]).all()
    cheapest = best_curve(table, abstain)[0]
    assert frontier.costs[0] == pytest.approx(cheapest[0], abs=CLOSE)
    assert frontier.qualities[0] == pytest.approx(cheapest[1], abs=CLOSE)


@repeatable(60)
@given(table=tables(), abstain=worths_of_abstaining)
def test_the_dearest_vertex_costs_no_more_than_any_policy_as_good(table: JointTable, abstain: float | None) -> None:
    cost, quality = best_curve(table, abstain)[-1]
    frontier = trace_frontier(Lattice(table, abstain=abstain), gap=1e-6)
    assert frontier.qualities[-1] == pytest.approx(quality, abs=CLOSE)
    assert frontier.costs[-1] <= cost + CLOSE


class Counted:
    """A lattice that is asked a finite number of times."""

    def __init__(self, lattice: Lattice, most: int) -> None:
        self._lattice, self.left = lattice, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lattice, name)

    def solve(self, price: float) -> Plan:
        self.left -= 1
        assert self.left >= 0, "the search for vertices does not end"
        return self._lattice.solve(price)


@pytest.mark.parametrize("abstain", [None, 0.4])
@pytest.mark.parametrize("seed", range(4))
def test_the_search_ends_with_a_gap_of_exactly_nothing(seed: int, abstain: float | None) -> None:
    table = random_table(CASCADE, seed, contexts=seed % 2, varying=seed > 1)
    frontier = trace_frontier(Counted(Lattice(table, abstain=abstain), 500), gap=0.0)
    assert frontier.qualities[-1] == pytest.approx(best_curve(table, abstain)[-1][1], abs=CLOSE)


def test_vertices_are_found_with_two_solutions_each() -> None:
    lattice = Counted(Lattice(random_table(CASCADE, 7, contexts=2, varying=True)), 1000)
    frontier = trace_frontier(lattice, gap=1e-6)
    assert 1000 - lattice.left <= 2 * len(frontier.plans) + 5


def test_the_frontier_is_the_upper_envelope_of_a_dense_sweep_over_prices() -> None:
    lattice = Lattice(random_table(CASCADE, 7, contexts=2, varying=True))
    frontier = trace_frontier(lattice, gap=NO_GAP)
    for price in np.geomspace(1e-4, 50.0, 400):
        plan = lattice.solve(float(price))
        best = max(q - price * c for c, q in zip(frontier.costs, frontier.qualities, strict=True))
        assert best == pytest.approx(plan.quality - price * plan.cost, abs=EXACT * (1 + price))
        assert plan.quality <= frontier.quality(plan.cost) + EXACT


def test_what_a_vertex_says_is_what_following_it_costs_and_earns() -> None:
    table = random_table(CASCADE, 8, contexts=1, varying=True)
    for plan in trace_frontier(Lattice(table), gap=NO_GAP).plans:
        done = {at: follow(table.ladders, 2, plan, leaf.row, leaf.outcome) for at, leaf in enumerate(leaves_of(table))}
        assert (plan.cost, plan.quality) == pytest.approx(spent_and_earned(table, done), abs=EXACT)


def test_every_vertex_is_the_best_plan_at_its_own_price() -> None:
    frontier = trace_frontier(Lattice(random_table(CASCADE, 9)), gap=NO_GAP)
    for plan in frontier.plans:
        worth = [q - plan.price * c for c, q in zip(frontier.costs, frontier.qualities, strict=True)]
        assert max(worth) == pytest.approx(plan.quality - plan.price * plan.cost, abs=EXACT * (1 + plan.price))


@repeatable(60)
@given(table=tables(), abstain=worths_of_abstaining)
def test_completed_near_a_cost_the_mixture_there_is_the_optimum(table: JointTable, abstain: float | None) -> None:
    lattice = Lattice(table, abstain=abstain)
    curve, rough = best_curve(table, abstain), trace_frontier(lattice, gap=0.1)
    for budget in budgets_of(curve):
        assert complete_near(lattice, rough, budget).quality(budget) == pytest.approx(
            curve_at(curve, budget), abs=CLOSE
        )


def tied(last: float) -> JointTable:
    """Three tiers of which the two dearer ones are always right; the middle one costs ``last``."""
    ladders = tuple(Ladder(name, (Rung(None),)) for name in "abc")
    one = np.ones((1, 1, 1, 1))
    return JointTable(ladders, one, (0.5 * one, one, one), ((0.5,), (last,), (1.0,)))


@pytest.mark.parametrize("middle", [1.25, 1.01])
def test_of_two_tiers_that_are_equally_good_the_dearest_vertex_calls_the_cheaper(middle: float) -> None:
    frontier = trace_frontier(Lattice(tied(middle)), gap=0.6)
    assert frontier.costs == pytest.approx((0.5, 1.0), abs=CLOSE)
    assert frontier.qualities == pytest.approx((0.5, 1.0), abs=CLOSE)


def test_completing_puts_a_better_vertex_in_the_place_of_a_worse_one() -> None:
    lattice = Lattice(tied(1.25))
    wasteful = Frontier((plan(0.5, 0.5), plan(1.25, 1.0)))
    assert complete_near(lattice, wasteful, 0.75).quality(0.75) == pytest.approx(0.75, abs=CLOSE)
    assert complete_near(lattice, wasteful, 1.0).quality(1.0) == pytest.approx(1.0, abs=CLOSE)


@pytest.mark.parametrize("dearer", [1.1, 1.001, 1.00001, 1.000001, 1.0000001])
@pytest.mark.parametrize("reading", [1.0, 0.1, 0.001, 0.00001])
def test_the_first_vertex_is_the_cheapest_tier_however_close_the_next(dearer: float, reading: float) -> None:
    ladders = (Ladder("a", (Rung("free", (0.5,)), Rung("paid", (0.5,)))), Ladder("b", (Rung("free", (0.5,)),)))
    for seed in range(10):
        drawn = random_table(ladders, seed)
        table = JointTable(ladders, drawn.mass, drawn.quality, ((1.0, reading), (dearer,)))
        frontier = trace_frontier(Lattice(table))
        assert np.isfinite(frontier.qualities).all()
        assert frontier.costs[0] == pytest.approx(1.0, rel=1e-8)
        assert frontier.qualities[0] >= table.quality[0].sum() - CLOSE


def test_a_signal_that_tells_which_tier_is_cheap_today_makes_the_cheapest_policy_cheaper() -> None:
    """Reading it costs 0.1; half the time it says that b, which is never right, costs 0.78 and not 1.5."""
    ladders = (
        Ladder("signal", (Rung("load", (0.5,)),), answer=False),
        Ladder("a", (Rung(None),)),
        Ladder("b", (Rung(None),)),
    )
    mass = np.array([0.5, 0.5, 0.0]).reshape(1, 3, 1, 1)
    b_price = mass * np.array([0.78, 1.5, 0.0]).reshape(1, 3, 1, 1)
    lattice = Lattice(JointTable(ladders, mass, (None, mass, 0 * mass), ((0.1,), (1.0,), (b_price,))))
    frontier = trace_frontier(lattice)
    assert lattice.cheapest == pytest.approx(0.99, abs=CLOSE)
    assert frontier.costs == pytest.approx((0.99, 1.0), abs=CLOSE)
    assert frontier.qualities == pytest.approx((0.5, 1.0), abs=CLOSE)


def plan(cost: float, quality: float) -> Plan:
    return Plan(0.0, quality, cost, ())


def test_mixtures_stand_between_neighbours_and_at_the_ends() -> None:
    costs = (1.0, 2.0, 4.0)
    assert [mixture_at(costs, budget).share for budget in (1.5, 3.0, 3.5)] == [0.5, 0.5, 0.75]
    for budget, low, high, share in [
        (0.0, 0, 0, 0.0),
        (1.0, 0, 1, 0.0),
        (2.0, 1, 2, 0.0),
        (4.0, 2, 2, 0.0),
        (99.0, 2, 2, 0.0),
    ]:
        mix = mixture_at(costs, budget)
        assert (mix.low, mix.high, mix.share) == (low, high, share)
    alone = mixture_at((1.0,), 5.0)
    assert (alone.low, alone.high, alone.share) == (0, 0, 0.0)


def test_a_mixture_spends_its_budget_to_the_last_cent() -> None:
    frontier = Frontier((plan(1.0, 0.5), plan(2.0, 0.8), plan(4.0, 0.9)))
    for budget in np.linspace(1.0, 4.0, 31):
        mix = frontier.at(float(budget))
        spent = (1 - mix.share) * frontier.costs[mix.low] + mix.share * frontier.costs[mix.high]
        assert spent == pytest.approx(budget, abs=EXACT)
    assert [frontier.quality(b) for b in (1.0, 1.5, 2.0, 3.0, 4.0, 9.0)] == pytest.approx(
        [0.5, 0.65, 0.8, 0.85, 0.9, 0.9]
    )


def test_a_budget_that_nothing_can_keep_is_refused_with_what_the_cheapest_costs() -> None:
    frontier = Frontier((plan(1.25, 0.5), plan(2.0, 0.8)))
    with pytest.raises(InfeasibleBudgetError, match=r"budget 1 is below 1\.25, the cost of the cheapest policy"):
        frontier.at(1.0)
    with pytest.raises(InfeasibleBudgetError, match=r"1\.25"):
        frontier.quality(-1.0)
    assert frontier.at(1.25 * (1 - 1e-12)).low == 0  # rounding is not refused


def test_a_budget_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(InfeasibleBudgetError):
        Frontier((plan(1.25, 0.5), plan(2.0, 0.8))).at(float("nan"))


def test_where_the_cheapest_policy_is_the_best_the_frontier_is_one_vertex() -> None:
    ladders = (Ladder("a", (Rung(None),)), Ladder("b", (Rung(None),)))
    one = np.ones((1, 1, 1))
    frontier = trace_frontier(Lattice(JointTable(ladders, one, (0.9 * one, 0.5 * one), ((1.0,), (2.0,)))))
    assert len(frontier.plans) == 1
    assert (frontier.costs, frontier.qualities) == ((1.0,), pytest.approx((0.9,)))
    assert frontier.quality(50.0) == pytest.approx(0.9)


@repeatable(40)
@given(table=tables(), abstain=worths_of_abstaining)
def test_more_budget_is_never_worse_and_each_unit_buys_no_more_than_the_one_before(
    table: JointTable, abstain: float | None
) -> None:
    frontier = trace_frontier(Lattice(table, abstain=abstain))
    budgets = np.linspace(frontier.costs[0], frontier.costs[-1] + 0.1, 40)
    qualities = [frontier.quality(float(budget)) for budget in budgets]
    gains = np.diff(qualities)
    assert (gains >= -EXACT).all()
    assert all(later <= earlier + CLOSE for earlier, later in itertools.pairwise(gains))
