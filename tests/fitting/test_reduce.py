"""Reduced graphs decide as the plans that they come from, or lose no more than they were allowed to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from metaverify.fitting.frontier import trace_frontier
from metaverify.fitting.ladders import Ladder, Rung, vote_rung
from metaverify.fitting.lattice import Lattice, Plan
from metaverify.fitting.reduce import RARE, SEEN, reduce_plans
from metaverify.fitting.survey import survey
from metaverify.fitting.table import JointTable, back_off
from metaverify.policies.actions import Call, Verify
from metaverify.policies.graph import Graph, Poll, Read, check_graph, compile_graph, successors, walk
from metaverify.policies.tiers import Reading, Tier
from tests.fitting.oracles import Leaf, follow, leaves_of, typical, walk_leaf
from tests.strategies import random_table, repeatable, tables, worths_of_abstaining

EXACT = 1e-12
CASCADE = (
    Ladder("a", (Rung("free", (0.25, 0.5, 0.75)), Rung("paid", (0.3, 0.7)))),
    Ladder("b", (Rung(None), Rung("paid", (0.3, 0.7)))),
    Ladder("c", (Rung("free", (0.5,)),)),
)


def plans_of(lattice: Lattice) -> tuple[Plan, ...]:
    return trace_frontier(lattice, gap=1e-4).plans


def assert_same_decisions(table: JointTable, lattice: Lattice) -> None:
    plans = plans_of(lattice)
    reduction = reduce_plans(lattice, plans)
    rows = len(table.share)
    for plan, roots in zip(plans, reduction.roots, strict=True):
        for leaf in leaves_of(table):
            expected = follow(table.ladders, rows, plan, leaf.row, leaf.outcome)
            assert walk_leaf(table.ladders, reduction.nodes, roots[leaf.row], leaf.outcome) == expected


@repeatable(60)
@given(table=tables(votes=True, samples=True), abstain=worths_of_abstaining)
def test_without_slack_the_graph_decides_as_the_plan_at_every_leaf(table: JointTable, abstain: float | None) -> None:
    assert_same_decisions(table, Lattice(table, abstain=abstain))


VOTES = (
    Ladder("a", (Rung("free", (0.5,)), vote_rung("votes", 4))),
    Ladder("jury", (vote_rung("votes", 2),), answer=False, needs=("a",)),
    Ladder("b", (Rung(None),)),
)


@pytest.mark.parametrize("varying", [False, True])
def test_without_slack_votes_are_asked_for_as_the_plan_does_whatever_their_order(varying: bool) -> None:
    table = random_table(VOTES, 1, varying=varying)
    if not varying:  # at prices at which they are worth asking for, but not all of them
        table = replace(table, price=((1.0, 0.25), (0.1,), (4.0,)))
    lattice = Lattice(table)
    assert_same_decisions(table, lattice)
    plans = plans_of(lattice)
    reduction = reduce_plans(lattice, plans)
    polls = [node for node in reduction.nodes if isinstance(node, Poll)]
    assert any(len(poll.tallies) > 2 and any(node is not None for node in poll.tallies[1].then) for poll in polls)
    for plan, roots in zip(plans, reduction.roots, strict=True):
        found = survey(lattice, reduction.nodes, roots)
        assert (found.cost, found.quality) == pytest.approx((plan.cost, plan.quality), abs=EXACT)


def test_without_slack_a_large_graph_decides_as_the_plan_at_every_leaf() -> None:
    table = random_table(CASCADE, 0, contexts=1, varying=True, empty=0.2)
    assert_same_decisions(table, Lattice(table))


def test_the_decision_loop_walks_the_graph_as_the_plan_goes() -> None:
    table = random_table(CASCADE, 1)
    lattice = Lattice(table)
    plans = plans_of(lattice)
    reduction = reduce_plans(lattice, plans)
    names = [[rung.reading for rung in ladder.rungs if rung.reading] for ladder in CASCADE]
    tiers = [
        Tier(name, 1.0, tuple(Reading(r, 0.0, (), (0, 0)) for r in of)) for name, of in zip("abc", names, strict=True)
    ]
    linked = compile_graph(reduction.nodes, tiers)
    for plan, (root,) in zip(plans, reduction.roots, strict=True):
        for leaf in leaves_of(table):
            expected = follow(table.ladders, 1, plan, 0, leaf.outcome)
            readings: dict[str, dict[str, float | None]] = {}
            for action in expected:
                assert walk(linked[root], readings) == action
                match action:
                    case Call(tier):
                        readings[tier] = shown(table, tier, table.ladders["abc".index(tier)].rungs[0].reading, leaf)
                    case Verify(tier, reading):
                        readings[tier] |= shown(table, tier, reading, leaf)


def shown(table: JointTable, tier: str, reading: str | None, leaf: Leaf) -> dict[str, float | None]:
    """What a reading shows at a leaf, by name; nothing where nothing comes with the call."""
    s = "abc".index(tier)
    (j,) = (j for j, rung in enumerate(table.ladders[s].rungs) if rung.reading == reading)
    return {} if reading is None else {reading: typical(table.ladders[s].rungs[j].cuts, leaf.outcome[s, j])}


@repeatable(40)
@given(table=tables(votes=True), abstain=worths_of_abstaining)
def test_every_node_is_reached_comes_before_its_successors_and_stands_once(
    table: JointTable, abstain: float | None
) -> None:
    lattice = Lattice(table, abstain=abstain)
    for slack in (0.0, 0.01):
        reduction = reduce_plans(lattice, plans_of(lattice), slack=slack)
        nodes, reached = reduction.nodes, {root for roots in reduction.roots for root in roots}
        for at, node in enumerate(nodes):
            assert at in reached
            assert all(at < child < len(nodes) for child in successors(node))
            reached.update(successors(node))
        assert len(set(nodes)) == len(nodes)
        readings = {la.source: [rung.reading for rung in la.rungs if rung.reading] for la in table.ladders}
        needs = {la.source: la.needs for la in table.ladders if not la.answer}
        votes = {(la.source, la.rungs[-1].reading or ""): la.votes for la in table.ladders}
        check_graph(nodes, [root for roots in reduction.roots for root in roots], readings, needs, votes)


def test_neighbouring_bins_with_equal_decisions_are_one_interval() -> None:
    table = random_table(CASCADE, 2)
    lattice = Lattice(table)
    for node in reduce_plans(lattice, plans_of(lattice)).nodes:
        if isinstance(node, Read):
            assert all(left != right for left, right in zip(node.then, node.then[1:], strict=False))
            assert set(node.cuts) <= {cut for ladder in table.ladders for rung in ladder.rungs for cut in rung.cuts}


def allowance(lattice: Lattice, plan: Plan, slack: float) -> float:
    """What slack promises: each state that the plan reaches may lose ``slack`` times its mass, a rare one as if its
    mass were RARE.  Masses of the states of one depth sum to at most 1, so with D decisions on the longest walk and
    R rare states this is at most slack x (D + R x RARE).
    """
    total = 0.0
    for stage in plan.stages:
        mass = lattice.mass(stage.depths, stage.states)
        share = lattice.share[lattice.row(stage.depths, stage.states)]
        total += float(share @ np.where(mass > SEEN, np.maximum(mass, RARE), mass))
    return slack * total


def worth(lattice: Lattice, nodes: Graph, roots: tuple[int, ...], plan: Plan) -> float:
    found = survey(lattice, nodes, roots)
    return found.quality - plan.price * found.cost


@pytest.mark.parametrize("slack", [1e-3, 1e-2, 0.05])
@pytest.mark.parametrize("seed", range(4))
def test_slack_loses_no_more_at_the_plans_price_than_it_promises(seed: int, slack: float) -> None:
    table = random_table(CASCADE, seed, contexts=seed % 2, varying=seed > 1)
    lattice = Lattice(back_off(table))
    plans = plans_of(lattice)
    exact, reduction = reduce_plans(lattice, plans), reduce_plans(lattice, plans, slack=slack)
    longest = 1 + sum(len(ladder.rungs) for ladder in table.ladders)
    for plan, roots in zip(plans, reduction.roots, strict=True):
        value = plan.quality - plan.price * plan.cost
        lost = value - worth(lattice, reduction.nodes, roots, plan)
        states = sum(len(stage.states) for stage in plan.stages)
        assert -EXACT * (1 + plan.price) <= lost <= allowance(lattice, plan, slack) + EXACT * (1 + plan.price)
        assert allowance(lattice, plan, slack) <= slack * (longest + RARE * states)
    assert len(reduction.nodes) <= len(exact.nodes)


@repeatable(60)
@given(table=tables(votes=True), abstain=worths_of_abstaining)
def test_slack_never_breaks_its_promise(table: JointTable, abstain: float | None) -> None:
    lattice = Lattice(table, abstain=abstain)
    plans = plans_of(lattice)
    for slack in (1e-3, 0.05):
        reduction = reduce_plans(lattice, plans, slack=slack)
        for plan, roots in zip(plans, reduction.roots, strict=True):
            lost = plan.quality - plan.price * plan.cost - worth(lattice, reduction.nodes, roots, plan)
            assert lost <= allowance(lattice, plan, slack) + EXACT * (1 + plan.price)


@repeatable(60)
@given(table=tables(votes=True), abstain=worths_of_abstaining)
def test_slack_makes_no_graph_larger_by_more_than_a_node_or_two(table: JointTable, abstain: float | None) -> None:
    """Of equals the first subtree is taken, which now and then divides states that had one subtree between them."""
    lattice = Lattice(table, abstain=abstain)
    plans = plans_of(lattice)
    exact = reduce_plans(lattice, plans)
    for slack in (1e-3, 0.05):
        assert len(reduce_plans(lattice, plans, slack=slack).nodes) <= len(exact.nodes) + 2


def test_slack_makes_the_graph_of_a_finely_binned_table_much_smaller() -> None:
    ladders = (Ladder("a", (Rung("free", tuple(np.linspace(0.1, 0.9, 9))),)), Ladder("b", (Rung("free", (0.5,)),)))
    table = random_table((*ladders, Ladder("c", (Rung("free", (0.5,)),))), 3)
    lattice = Lattice(back_off(table))
    plans = plans_of(lattice)
    assert len(reduce_plans(lattice, plans, slack=0.02).nodes) < 0.5 * len(reduce_plans(lattice, plans).nodes)


def test_the_graph_follows_from_the_decisions_alone() -> None:
    table = random_table(CASCADE, 4)
    first, second = (reduce_plans(Lattice(table), plans_of(Lattice(table)), slack=s) for s in (0.0, 0.0))
    assert first == second
