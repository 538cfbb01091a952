"""A plan run on coded queries does what its exact decision graph does on the log."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.fitting.coding import code_log, ladders_of
from metaverify.fitting.crossfit import rehearse
from metaverify.fitting.export import policy_of, tiers_of
from metaverify.fitting.frontier import Frontier, trace_frontier
from metaverify.fitting.lattice import Lattice, Plan
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.rehearse import Rehearsal, rehearse_plans, rehearse_policy, run_plan
from metaverify.fitting.table import back_off
from metaverify.policies.actions import Accept, Call
from metaverify.simulators.log import LoggedReading, ReplayLog
from metaverify.simulators.replay import ABSTAINED, Routes, route
from tests.fitting.oracles import follow
from tests.strategies import logs, prices, random_log, random_table, repeatable, worths_of_abstaining

KNOWN = ("c0", "c1")


def solved(log: ReplayLog, seed: int, price: float, abstain: float | None) -> tuple[Lattice, Plan]:
    """The best plan of a table drawn at random over the log's ladders; a context c2 is unknown to it."""
    contexts = () if log.contexts is None else KNOWN
    ladders = ladders_of(log, 3)
    table = random_table(ladders, seed, contexts=len(contexts), empty=0.2 * (seed % 2), samples=1.0)
    samples = code_log(log, ladders).later
    table = replace(table, later={place: q for place, q in table.later.items() if place in samples})
    lattice = Lattice(back_off(replace(table, contexts=contexts)), abstain=abstain)
    return lattice, lattice.solve(price)


def same(one: Routes, other: Routes) -> None:
    """All but what was read: a graph does not read what comes free and changes nothing."""
    np.testing.assert_array_equal(one.accepted, other.accepted)
    np.testing.assert_array_equal(one.quality, other.quality)
    np.testing.assert_allclose(one.cost, other.cost, rtol=1e-12)
    assert one.calls == pytest.approx(other.calls, rel=1e-12)
    assert one.accepts == pytest.approx(other.accepts, rel=1e-12)


@repeatable(60)
@given(log=logs(60, samples=True), seed=st.integers(0, 2**31), price=prices, abstain=worths_of_abstaining)
def test_a_plan_is_run_as_its_exact_graph_is_replayed(
    log: ReplayLog, seed: int, price: float, abstain: float | None
) -> None:
    lattice, plan = solved(log, seed, 0.1 * price, abstain)
    policy = policy_of(lattice, Frontier((plan,)), log, slack=0.0)
    run = run_plan(lattice, plan, code_log(log, lattice.table.ladders, lattice.table.contexts))
    same(run, route(policy, log, 0))
    for ladder, calls, reads in zip(lattice.table.ladders, run.calls, run.reads, strict=True):
        assert len(reads) == sum(rung.reading is not None for rung in ladder.rungs)
        if ladder.answer and ladder.rungs[0].reading is not None:
            assert reads[0] == calls  # what comes with the answer is read


@pytest.mark.parametrize("seed", range(4))
def test_each_query_takes_the_decisions_that_the_plan_stores(seed: int) -> None:
    log = random_log(40, seed, readings=("free paid", "paid", ""), contexts=3, varying=True)
    lattice, plan = solved(log, seed, 0.05, 0.4 if seed % 2 else None)
    ladders = lattice.table.ladders
    coded = code_log(log, ladders, KNOWN)
    run = run_plan(lattice, plan, coded)
    places = [(s, j) for s, ladder in enumerate(ladders) for j in range(len(ladder.rungs))]
    names = [ladder.source for ladder in ladders]
    for row in range(40):
        outcome = {place: int(code[row]) for place, code in zip(places, coded.codes, strict=True)}
        context = KNOWN.index(log.contexts[row]) + 1 if log.contexts[row] in KNOWN else 0
        *bought, last = follow(ladders, 1 + len(KNOWN), plan, context, outcome)
        spent = 0.0
        for action in bought:
            source = names.index(action.tier)
            readings = [rung.reading for rung in ladders[source].rungs]
            spent += coded.price[source][0 if isinstance(action, Call) else readings.index(action.reading)][row]
        assert run.cost[row] == pytest.approx(spent, rel=1e-12)
        if isinstance(last, Accept):
            assert run.accepted[row] == names.index(last.tier)
            assert run.quality[row] == log.tier(last.tier).correct[row]
        else:
            assert (run.accepted[row], run.quality[row]) == (ABSTAINED, 0.4)


def test_a_context_that_the_table_does_not_know_takes_the_pooled_row() -> None:
    log = random_log(90, 1, readings=("free", "free", ""), contexts=3)
    lattice, plan = solved(log, 3, 0.02, None)
    run = run_plan(lattice, plan, code_log(log, lattice.table.ladders, KNOWN))
    told_nothing = run_plan(lattice, plan, code_log(log.without_contexts(), lattice.table.ladders, KNOWN))
    strange = np.array([label not in KNOWN for label in log.contexts])
    np.testing.assert_array_equal(run.accepted[strange], told_nothing.accepted[strange])
    np.testing.assert_array_equal(run.cost[strange], told_nothing.cost[strange])
    assert (run.accepted[~strange] != told_nothing.accepted[~strange]).any()


def test_who_is_handed_over_costs_what_was_spent_and_earns_what_that_is_worth() -> None:
    log = random_log(60, 2, readings=("free", ""))
    lattice, plan = solved(log, 0, 0.0, 1.0)
    run = run_plan(lattice, plan, code_log(log, lattice.table.ladders))
    assert set(run.accepted.tolist()) == {ABSTAINED}
    assert (run.quality == 1.0).all()
    assert run.accepts == (0.0, 0.0)
    coded = code_log(log, ladders_of(log, 3))
    lattice = Lattice(back_off(Counts().table(coded)), abstain=0.3)
    nothing = run_plan(lattice, lattice.solve(1e6), coded)
    assert not nothing.cost.any()
    assert (nothing.quality == 0.3).all()
    assert nothing.calls == (0.0, 0.0)


def test_no_queries_are_run_to_nothing() -> None:
    log = random_log(60, 3, readings=("free", ""))
    lattice, plan = solved(log, 1, 0.1, None)
    run = run_plan(lattice, plan, code_log(log.take(np.arange(0)), lattice.table.ladders))
    assert (len(run.cost), run.calls) == (0, (0.0, 0.0))


def test_every_plan_and_every_vertex_is_run_at_its_expected_cost() -> None:
    log = random_log(120, 4, readings=("free", "paid", ""), weighted=True)
    lattice, _ = solved(log, 5, 0.1, None)
    frontier = trace_frontier(lattice, gap=1e-4)
    tiers = tiers_of(log, lattice.table.ladders)
    plans = rehearse_plans(lattice, frontier.plans, tiers, code_log(log, lattice.table.ladders))
    policy = policy_of(lattice, frontier, log)
    vertices = rehearse_policy(policy, log)
    assert plans.targets == frontier.costs
    assert vertices.targets == tuple(vertex.cost for vertex in policy.vertices)
    assert plans.tiers == vertices.tiers == policy.tiers
    assert plans.targets == pytest.approx(vertices.targets, rel=1e-9)
    for one, other in zip(plans.routes, vertices.routes, strict=True):
        same(one, other)


# ------------------------------------------------------------------------------------------------------- learners


def halves(seed: int) -> tuple[ReplayLog, ReplayLog]:
    """Rows to learn from and rows to run on, which have a context more: two free readings and a paid one."""
    log = random_log(400, seed, readings=("free paid", "free", ""), contexts=2)
    first, *others = log.tiers
    rng = np.random.default_rng(seed)
    votes = LoggedReading("votes", np.round(0.6 * first.correct + 0.4 * rng.random(400), 2), np.zeros(400))
    log = replace(log, tiers=(replace(first, readings=(*first.readings, votes)), *others))
    known, unseen = log.take(np.arange(300)), log.take(np.arange(300, 400))
    labels = np.where(np.arange(100) % 5 == 0, "c9", unseen.contexts).astype(object)
    return known, replace(unseen, contexts=labels)


OPTIONS = {
    "lattice": TableLearner(bins=4, slack=0.0),
    "chain": TableLearner(bins=4, policies="chain"),
    "fused": TableLearner(bins=4, slack=0.0, fuse=0.3),
    "fused chain": TableLearner(bins=4, policies="chain", fuse=0.3),
    "two tiers": TableLearner(bins=4, slack=0.0, tiers=2),
    "first readings": TableLearner(bins=4, slack=0.0, first=True),
    "no contexts": TableLearner(bins=4, slack=0.0, context=False),
    "no readings": TableLearner(slack=0.0, read=False),
    "abstention": TableLearner(bins=4, slack=0.0, abstain=0.6, fuse=0.0),
    "counts": TableLearner(Counts(), bins=3, slack=0.0, kappa=10.0),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_rehearsal_is_the_policy_replayed_on_the_raw_log(name: str) -> None:
    known, unseen = halves(0)
    learner = OPTIONS[name]
    tried, policy = learner.rehearse(known, unseen, {}), learner.policy(known)
    costs = [vertex.cost for vertex in policy.vertices]
    assert len(costs) > 2
    for target, routes in zip(tried.targets, tried.routes, strict=True):
        at = int(np.abs(np.array(costs) - target).argmin())
        assert costs[at] == pytest.approx(target, rel=1e-9)
        same(routes, route(policy, unseen, at))


def test_learners_that_differ_in_their_policies_share_a_study_and_others_do_not() -> None:
    known, unseen = halves(1)
    memo: dict[object, object] = {}
    chain = replace(OPTIONS["fused"], policies="chain")
    shared = [rehearse(learner, known, unseen, memo) for learner in (OPTIONS["fused"], chain)]
    assert len(memo) == 1
    for learner, tried in zip((OPTIONS["fused"], chain), shared, strict=True):
        equal(tried, rehearse(learner, known, unseen))
    for count, other in enumerate(({"fuse": None}, {"first": True}, {"bins": 3}, {"context": False}), start=2):
        learner = replace(OPTIONS["fused"], **other)
        equal(rehearse(learner, known, unseen, memo), rehearse(learner, known, unseen))
        assert len(memo) == count


def equal(one: Rehearsal, other: Rehearsal) -> None:
    assert (one.tiers, one.targets) == (other.tiers, other.targets)
    for a, b in zip(one.routes, other.routes, strict=True):
        same(a, b)
