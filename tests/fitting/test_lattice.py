"""The lattice against brute force over every history, and its states against sums over leaves."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from metaverify.fitting.ladders import Ladder, Rung, vote_rung
from metaverify.fitting.lattice import Lattice, LatticeSizeError, check_size, lattice_bytes
from metaverify.fitting.reduce import reduce_plans
from metaverify.fitting.table import JointTable, at_once
from metaverify.policies.actions import Call
from tests.fitting.oracles import (
    answered,
    best_forward_value,
    best_value,
    follow,
    leaves_of,
    legal,
    reachable,
    spent_and_earned,
    walk_leaf,
)
from tests.strategies import prices, random_table, repeatable, tables, worths_of_abstaining

EXACT = 1e-12
FREE, PAID = Rung("free", (0.5,)), Rung("paid", (0.3, 0.7))
CASCADES: dict[str, tuple[Ladder, ...]] = {
    "two tiers, readings with the call": (Ladder("a", (Rung("free", (0.3, 0.7)),)), Ladder("b", (FREE,))),
    "two tiers, a reading to buy": (Ladder("a", (Rung(None), PAID)), Ladder("b", (Rung(None),))),
    "two tiers, two readings": (Ladder("a", (FREE, PAID)), Ladder("b", (Rung(None), Rung("paid", (0.5,))))),
    "three tiers": (Ladder("a", (FREE,)), Ladder("b", (Rung(None), PAID)), Ladder("c", (FREE,))),
    "a judge of one answer": (
        Ladder("a", (FREE,)),
        Ladder("judge", (Rung("verdict", (0.5,)),), answer=False, needs=("a",)),
        Ladder("b", (Rung(None),)),
    ),
    "a judge of two answers": (
        Ladder("judge", (Rung("verdict", (0.5,)), Rung("second", (0.5,))), answer=False, needs=("a", "b")),
        Ladder("a", (FREE,)),
        Ladder("b", (Rung(None),)),
    ),
    "a signal before any call": (
        Ladder("signal", (Rung("length", (0.3, 0.7)),), answer=False),
        Ladder("a", (FREE,)),
        Ladder("b", (FREE,)),
    ),
    "three tiers, a judge and a signal": (
        Ladder("a", (FREE,)),
        Ladder("b", (Rung(None),)),
        Ladder("c", (Rung(None),)),
        Ladder("judge", (Rung("verdict", (0.5,)),), answer=False, needs=("a",)),
        Ladder("signal", (Rung("length", (0.5,)),), answer=False),
    ),
    "three votes on one answer": (Ladder("a", (Rung(None), vote_rung("votes", 3))), Ladder("b", (FREE,))),
    "votes after another reading": (Ladder("a", (FREE, vote_rung("votes", 2))), Ladder("b", (Rung(None),))),
    "votes on two answers": (
        Ladder("a", (Rung(None), vote_rung("votes", 2))),
        Ladder("b", (Rung(None), vote_rung("votes", 2))),
    ),
    "a jury of one answer": (
        Ladder("jury", (vote_rung("votes", 3),), answer=False, needs=("a",)),
        Ladder("a", (FREE,)),
        Ladder("b", (Rung(None),)),
    ),
    "votes before any call": (
        Ladder("a", (Rung(None),)),
        Ladder("crowd", (vote_rung("votes", 2),), answer=False),
        Ladder("b", (FREE,)),
    ),
}


FORWARD = {
    **{name: ladders for name, ladders in CASCADES.items() if all(ladder.answer for ladder in ladders)},
    "four tiers": (Ladder("a", (FREE,)), Ladder("b", (Rung(None), FREE)), Ladder("c", (FREE,)), Ladder("d", (FREE,))),
}


def decisions(table: JointTable, lattice: Lattice, price: float) -> tuple[float, float]:
    """Cost and quality of the plan at ``price``, leaf by leaf."""
    plan = lattice.solve(price)
    rows = len(table.share)
    done = {at: follow(table.ladders, rows, plan, o.row, o.outcome) for at, o in enumerate(leaves_of(table))}
    cost, quality = spent_and_earned(table, done)
    handed_over = sum(leaf.mass for at, leaf in enumerate(leaves_of(table)) if type(done[at][-1]).__name__ == "Abstain")
    return cost, quality + (lattice.abstain or 0.0) * handed_over


@pytest.mark.parametrize("varying", [False, True], ids=["constant prices", "varying prices"])
@pytest.mark.parametrize("abstain", [None, 0.5], ids=["no abstaining", "abstaining"])
@pytest.mark.parametrize("cascade", CASCADES)
def test_the_optimum_is_that_of_brute_force_over_all_histories(
    cascade: str, abstain: float | None, varying: bool
) -> None:
    for seed, contexts in [(0, 0), (1, 2)]:
        table = random_table(CASCADES[cascade], seed, contexts=contexts, varying=varying)
        lattice = Lattice(table, abstain=abstain)
        for price in (0.0, 0.05, 0.3, 2.0):
            plan = lattice.solve(price)
            assert plan.quality - price * plan.cost == pytest.approx(best_value(table, price, abstain), abs=EXACT)


@repeatable(250)
@given(table=tables(most_leaves=108, most_rungs=6, samples=True), price=prices, abstain=worths_of_abstaining)
def test_the_optimum_of_any_table_is_that_of_brute_force(
    table: JointTable, price: float, abstain: float | None
) -> None:
    plan = Lattice(table, abstain=abstain).solve(price)
    assert plan.quality - price * plan.cost == pytest.approx(best_value(table, price, abstain), abs=EXACT)


@repeatable(150)
@given(table=tables(most_leaves=60, most_rungs=4, votes=True, samples=True), price=prices, abstain=worths_of_abstaining)
def test_the_optimum_of_any_table_with_votes_is_that_of_brute_force_over_their_orders(
    table: JointTable, price: float, abstain: float | None
) -> None:
    plan = Lattice(table, abstain=abstain).solve(price)
    assert plan.quality - price * plan.cost == pytest.approx(best_value(table, price, abstain), abs=EXACT)


@pytest.mark.parametrize("abstain", [None, 0.5], ids=["no abstaining", "abstaining"])
@pytest.mark.parametrize("cascade", [name for name in FORWARD if "vote" not in name])
def test_the_optimum_of_a_forward_lattice_is_that_of_brute_force_over_tiers_in_their_order(
    cascade: str, abstain: float | None
) -> None:
    for seed, contexts in [(0, 0), (1, 2), (2, 1)]:
        table = random_table(FORWARD[cascade], seed, contexts=contexts, varying=seed > 0, samples=0.5)
        lattice = Lattice(table, abstain=abstain, forward=True)
        for price in (0.0, 0.05, 0.3, 2.0):
            plan = lattice.solve(price)
            worth = plan.quality - price * plan.cost
            assert worth == pytest.approx(best_forward_value(table, price, abstain), abs=EXACT)
            assert (plan.cost, plan.quality) == pytest.approx(decisions(table, lattice, price), abs=EXACT)
            assert worth <= best_value(table, price, abstain) + EXACT


@pytest.mark.parametrize("cascade", [name for name in FORWARD if "vote" in name])
def test_votes_in_a_forward_lattice_are_worth_no_less_one_by_one_than_all_at_once(cascade: str) -> None:
    for seed in range(3):
        table = random_table(FORWARD[cascade], seed)
        for price in (0.0, 0.05, 0.3, 2.0):
            one_by_one, whole = (Lattice(t, forward=True).solve(price) for t in (table, at_once(table)))
            worth = one_by_one.quality - price * one_by_one.cost
            assert whole.quality - price * whole.cost == pytest.approx(
                best_forward_value(at_once(table), price), abs=EXACT
            )
            assert whole.quality - price * whole.cost - EXACT <= worth <= best_value(table, price) + EXACT
            assert (one_by_one.cost, one_by_one.quality) == pytest.approx(
                decisions(table, Lattice(table, forward=True), price), abs=EXACT
            )


def test_a_forward_lattice_refuses_a_source_without_an_answer() -> None:
    with pytest.raises(ValueError, match="leave out judge, which has no answer"):
        Lattice(random_table(CASCADES["a judge of one answer"], 0), forward=True)


@repeatable(100)
@given(table=tables(votes=True, samples=True), price=prices, abstain=worths_of_abstaining)
def test_following_a_plan_leaf_by_leaf_spends_and_earns_what_it_says(
    table: JointTable, price: float, abstain: float | None
) -> None:
    lattice = Lattice(table, abstain=abstain)
    plan = lattice.solve(price)
    assert (plan.cost, plan.quality) == pytest.approx(decisions(table, lattice, price), abs=EXACT)


@repeatable(60)
@given(table=tables(most_leaves=36, most_rungs=4, samples=True), abstain=worths_of_abstaining, price=prices)
def test_every_information_state_is_a_sum_over_the_leaves_that_agree_with_it(
    table: JointTable, abstain: float | None, price: float
) -> None:
    lattice = Lattice(table, abstain=abstain)
    lattice.solve(price)
    leaves, rows = leaves_of(table), len(table.share)
    for depths in itertools.product(*(range(len(ladder.rungs) + 1) for ladder in table.ladders)):
        if not reachable(table.ladders, depths):
            continue
        places = [(s, j) for s, depth in enumerate(depths) for j in range(depth)]
        shape = (rows, *(table.ladders[s].rungs[j].size for s, j in places))
        states = np.arange(math.prod(shape))
        cells = [np.ravel_multi_index((leaf.row, *(leaf.outcome[p] for p in places)), shape) for leaf in leaves]
        share = lattice.share[lattice.row(depths, states)]

        def assert_sums(found: np.ndarray, values: list[float], cells: list = cells, share: np.ndarray = share) -> None:
            expected = np.bincount(cells, weights=values, minlength=len(share))
            np.testing.assert_allclose(found * share, expected, atol=EXACT)

        assert sorted(lattice.climbable(depths)) == legal(table.ladders, depths)
        mass = lattice.mass(depths, states)
        assert_sums(mass, [leaf.mass for leaf in leaves])
        for s, quality in enumerate(table.quality):
            if quality is not None:
                assert_sums(
                    lattice.quality(s, depths, states), [answered(leaf, s, range(max(depths[s], 1))) for leaf in leaves]
                )
        for s in lattice.climbable(depths):
            charge = lattice.charge(depths, s, states)
            assert_sums(charge, [leaf.price[s, depths[s]] for leaf in leaves])
            after = (*depths[:s], depths[s] + 1, *depths[s + 1 :])
            children = lattice.children(depths, s, states)
            np.testing.assert_allclose(lattice.mass(after, children).sum(axis=1), mass, atol=EXACT)
            going_on = lattice.value(after, children).sum(axis=1) - price * charge
            assert (lattice.value(depths, states) >= going_on - EXACT).all()


def test_a_free_call_to_a_perfect_tier_is_the_whole_policy() -> None:
    ladders = (Ladder("free", (FREE,)), Ladder("dear", (FREE,)))
    table = random_table(ladders, 3)
    table = JointTable(ladders, table.mass, (table.mass, table.quality[1]), ((0.0,), (1.0,)))
    for price in (0.0, 1.0):
        plan = Lattice(table).solve(price)
        assert (plan.cost, plan.quality) == pytest.approx((0.0, 1.0), abs=EXACT)
        assert len(plan.stages) == 2


def test_stopping_wins_ties() -> None:
    ladders = (Ladder("a", (Rung(None),)), Ladder("b", (Rung(None),)))
    one = np.ones((1, 1, 1))
    plan = Lattice(JointTable(ladders, one, (0.5 * one, 0.75 * one), ((1.0,), (1.0,)))).solve(0.0)
    assert plan.quality == 0.75
    tied = Lattice(JointTable(ladders, one, (0.5 * one, 0.75 * one), ((1.0,), (0.25,)))).solve(1.0)
    assert tied.quality - tied.cost == 0.5
    plan = Lattice(JointTable(ladders, one, (0.5 * one, 0.5 * one), ((0.0,), (0.0,)))).solve(0.0)
    assert [stage.depths for stage in plan.stages] == [(0, 0), (1, 0)]  # the earlier tier, and no second call


def test_at_a_price_of_nothing_the_plan_earns_what_all_information_is_worth() -> None:
    table = random_table(CASCADES["three tiers"], 5)
    everything = np.max([q for q in table.quality if q is not None], axis=0).sum()
    assert Lattice(table).solve(0.0).quality == pytest.approx(everything, abs=EXACT)


def test_states_are_counted_and_their_memory_bounds_what_is_taken() -> None:
    ladders = CASCADES["three tiers"]
    expected = 3 * (1 + 3) * (1 + 1 + 4) * (1 + 3)  # rows, then each tier: untouched, and the outcomes of each rung
    assert lattice_bytes(ladders, contexts=2)[0] == expected
    assert Lattice(random_table(ladders, 0, contexts=2)).states == expected
    assert lattice_bytes(ladders, contexts=2)[1] > 8 * expected


def test_a_lattice_that_does_not_fit_is_refused_with_its_size_and_the_ways_out() -> None:
    ladders = tuple(Ladder(name, (Rung("free", tuple(np.linspace(0.01, 0.99, 60))),)) for name in "abcde")
    with pytest.raises(LatticeSizeError, match=r"5 tiers with 5 rungs make .* states.*--tiers.*--bins"):
        check_size(ladders)
    with pytest.raises(LatticeSizeError):
        Lattice(random_table(CASCADES["three tiers"], 0), memory=1000)
    check_size(CASCADES["three tiers"])


# What was never tried -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("price", [0.0, 1e-3, 0.3, 40.0])
@pytest.mark.parametrize("seed", range(4))
def test_what_was_never_tried_in_a_state_is_not_done_there(seed: int, price: float) -> None:
    """As by brute force where the second tier costs a million in queries of which the first one's reading is low."""
    ladders = CASCADES["two tiers, readings with the call"]
    table = random_table(ladders, seed, contexts=1)
    low = np.zeros(table.mass.shape, dtype=bool)
    low[:, 0] = True
    never = {((0, 0), 1): np.ones(2), ((1, 0), 1): np.tile([1.0, 0.0, 0.0, 0.0], 2)}
    lattice = Lattice(table, never=never)
    plan = lattice.solve(price)
    paid = table.price[1][0]
    dear = replace(table, price=(table.price[0], (paid * table.mass + 1e6 * table.mass * low,)))
    if price > 0.0:
        assert plan.quality - price * plan.cost == pytest.approx(best_value(dear, price), abs=EXACT)
    for stage in plan.stages:
        if (stage.depths, 1) in never:
            assert (never[stage.depths, 1][stage.states[stage.climb == 1]] == 0.0).all()
    graph = reduce_plans(lattice, [plan], slack=0.05)
    for row, root in enumerate(graph.roots[0]):
        for missing in (0, 1, 2):
            walked = walk_leaf(ladders, graph.nodes, root, {(0, 0): 0, (1, 0): missing})
            assert Call("b") not in walked, row
    assert lattice.cheapest == pytest.approx(table.price[0][0], rel=1e-9)


def test_a_state_that_a_table_thinks_nothing_of_does_not_share_a_subtree_with_what_was_never_tried_in_it() -> None:
    """The third tier is worth its price where the second one is low, but was not called there if the first one was."""
    ladders = (Ladder("a", (FREE,)), Ladder("b", (FREE,)), Ladder("c", (Rung(None),)))
    mass = np.array([[1e-15, 0.25, 1e-15], [0.25, 0.25, 1e-15], [1e-15] * 3])
    worth = [mass * np.array([[0.2], [0.45], [0.5]]), mass * np.array([0.2, 0.9, 0.5]), mass * 0.9]
    mass, *quality = (part[None, :, :, None] / mass.sum() for part in (mass, *worth))
    table = JointTable(ladders, mass, tuple(quality), ((0.01,), (0.2,), (0.1,)))
    never = {((a, b, 0), 2): np.ones(3**a * 3**b) for a in (0, 1) for b in (0, 1)}
    never |= {((0, 0, 0), 1): np.ones(1), ((1, 1, 0), 2): np.array([1.0, *[0.0] * 8])}
    lattice = Lattice(table, never=never)
    graph = reduce_plans(lattice, [lattice.solve(0.5)], slack=0.05)
    calls = [walk_leaf(ladders, graph.nodes, graph.roots[0][0], {(0, 0): at, (1, 0): 0, (2, 0): 0}) for at in (0, 1)]
    assert [Call("c") in actions for actions in calls] == [False, True]


def test_where_nothing_was_tried_something_is_done() -> None:
    table = random_table(CASCADES["two tiers, readings with the call"], 1)
    lattice = Lattice(table, never={((0, 0), source): np.ones(1) for source in (0, 1)})
    free = Lattice(table)
    for price in (0.0, 0.1, 10.0):
        assert lattice.solve(price).cost == pytest.approx(free.solve(price).cost, rel=1e-9)
