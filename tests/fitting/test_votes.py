"""Votes that are asked one by one: what is known after some of them, and what stopping early saves."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.fitting.coding import code_log, ladders_of
from metaverify.fitting.frontier import Frontier, trace_frontier
from metaverify.fitting.ladders import Ladder, Rung, vote_rung
from metaverify.fitting.lattice import Lattice, lattice_bytes
from metaverify.fitting.learner import TableLearner, bins_that_fit
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.rehearse import run_plan
from metaverify.fitting.table import JointTable, at_once, back_off
from metaverify.fitting.votes import one_less, one_more
from metaverify.policies.actions import Verify
from metaverify.policies.graph import Poll, Read
from metaverify.simulators.log import LoggedReading, LoggedSignal, LoggedTier, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.replay import route
from metaverify.simulators.worlds import Emission, World, joint, polled
from tests.fitting.oracles import table_of_world
from tests.strategies import random_table, repeatable

EXACT = 1e-12


# What is known ------------------------------------------------------------------------------------------------------


def drawn(yes: int, votes: int, asked: int) -> list[float]:
    """P(0, 1, .. yes among ``asked`` of ``votes``, of which ``yes`` are yes): draws without replacement."""
    ways = math.comb(votes, asked)
    return [math.comb(yes, y) * math.comb(votes - yes, asked - y) / ways for y in range(asked + 1)]


@pytest.mark.parametrize("votes", [2, 5, 8])
def test_fewer_votes_are_draws_without_replacement_from_all_of_them(votes: int) -> None:
    mass = np.random.default_rng(votes).random((3, votes + 2, 2))
    after = mass
    for asked in range(votes - 1, 0, -1):
        after = one_less(after)
        expected = sum(
            mass[:, whole, None, :] * np.array(drawn(whole, votes, asked))[:, None] for whole in range(votes + 1)
        )
        np.testing.assert_allclose(after[:, :-1], expected, atol=EXACT)
        np.testing.assert_array_equal(after[:, -1], mass[:, -1])


@repeatable(100)
@given(asks=st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=5, max_size=5))
def test_the_share_that_is_come_to_is_that_of_the_orders_in_which_nothing_stops_before(asks: list[list[bool]]) -> None:
    reach = np.ones((1, 3))
    for asked in range(1, 6):
        for yes in range(asked + 1):
            orders = [order for order in itertools.product((0, 1), repeat=asked) if sum(order) == yes]
            come = [all(asks[j - 1][sum(order[:j])] for j in range(1, asked)) for order in orders]
            assert reach[0, yes] == pytest.approx(sum(come) / len(come))
        going = reach * [*(float(asks[asked - 1][yes]) for yes in range(asked + 1)), 1.0]
        reach = one_more(going)
        assert reach[0, -1] == 0.0  # where the first vote failed nobody is asked again


def test_what_is_known_after_some_votes_is_drawn_from_the_leaves() -> None:
    ladders = (Ladder("a", (Rung("free", (0.5,)), vote_rung("votes", 4))), Ladder("b", (Rung("free", (0.5,)),)))
    table = random_table(ladders, 3, contexts=1, varying=True)
    lattice = Lattice(table)
    for asked, depth in ((1, 2), (3, 4), (4, 5)):
        states = np.arange(2 * 3 * (asked + 2) * 3)
        leaf = np.asarray(table.mass)  # [rows, free, votes, free of b]
        expected = sum(leaf[:, :, whole, None] * np.array(drawn(whole, 4, asked))[:, None] for whole in range(5))
        expected = np.concatenate([expected, leaf[:, :, 5:]], axis=2)
        np.testing.assert_allclose(lattice.mass((depth, 1), states), expected.reshape(-1), atol=EXACT)


def test_votes_stand_on_the_last_rung_and_do_not_come_with_the_answer() -> None:
    with pytest.raises(ValueError, match="last rung"):
        Ladder("a", (Rung(None), vote_rung("votes", 3), Rung("paid")))
    with pytest.raises(ValueError, match="with the answer"):
        Ladder("a", (vote_rung("votes", 3),))
    Ladder("jury", (vote_rung("votes", 3),), answer=False)


def test_every_vote_is_a_step_with_an_outcome_more_than_votes_and_missing() -> None:
    ladder = Ladder("a", (Rung("free", (0.5,)), vote_rung("votes", 3)))
    assert ladder.steps == 4
    assert [ladder.states(depth) for depth in range(5)] == [1, 3, 3 * 3, 3 * 4, 3 * 5]
    assert [ladder.action(depth) for depth in (1, 2, 3)] == [Verify("a", "votes")] * 3
    shares = np.array([0.0, 1 / 3, 2 / 3, 1.0, math.nan])
    assert ladder.rungs[1].code(shares).tolist() == [0, 1, 2, 3, 4]


# What stopping early saves ------------------------------------------------------------------------------------------


def frontier(table: JointTable) -> Frontier:
    return trace_frontier(Lattice(back_off(table)), gap=1e-5)


def verified(votes: int, vote: float, dear: float) -> World:
    """A small model at price 1 whose answers a good verifier votes on, and a better one at ``dear``."""
    yes = np.array([[0.1, 0.95], [0.2, 0.85]])
    success = np.array([[0.9, 0.97], [0.35, 0.8]])
    price = np.broadcast_to(np.array([1.0, dear]), (2, 2))
    return World(
        ("small", "large"), np.array([0.6, 0.4]), success, price, ((polled("votes", yes, votes, votes * vote),), ())
    )


@pytest.mark.parametrize("dear", [10.0, 20.0])
def test_where_a_vote_costs_half_a_call_stopping_early_saves_a_tenth_and_more(dear: float) -> None:
    table = table_of_world(verified(8, 0.5, dear))
    one_by_one, whole = frontier(table), frontier(at_once(table))
    low, high = whole.qualities[0], whole.qualities[-1]
    for quality in np.linspace(low, high, 9)[2:-2]:
        cost, before = (np.interp(quality, f.qualities, f.costs) for f in (one_by_one, whole))
        assert cost <= 0.9 * before


def test_one_by_one_is_never_worse_than_all_at_once_and_free_votes_are_worth_the_same_either_way() -> None:
    for vote in (0.0, 0.05, 0.5):
        table = replace(table_of_world(verified(4, 0.5, 10.0)), price=((1.0, 4 * vote), (10.0,)))
        for price in (0.0, 0.01, 0.05, 0.2):
            plans = [Lattice(t).solve(price) for t in (table, at_once(table))]
            values = [plan.quality - price * plan.cost for plan in plans]
            assert values[0] >= values[1] - EXACT
            if vote == 0.0:
                assert values[0] == pytest.approx(values[1], abs=EXACT)


def five_verifiers() -> World:
    """A small model, five verifiers of its answer that err together on hard queries, a large model at price 10."""
    trust = ((0.85, 0.6), (0.82, 0.6), (0.8, 0.55), (0.78, 0.6), (0.75, 0.55))  # of each, on easy and hard queries

    def verifier(at: int) -> Emission:
        right = np.array(trust[at])[:, None]
        chance = np.stack([np.hstack([right, 1 - right]), np.hstack([1 - right, right])], axis=1)
        return Emission(f"verifier{at + 1}", np.array([0.0, 1.0]), chance, 0.3)

    success = np.array([[0.85, 0.95], [0.4, 0.8]])
    price = np.broadcast_to(np.array([1.0, 10.0]), (2, 2))
    readings = (tuple(verifier(at) for at in range(5)), ())
    return World(("small", "large"), np.array([0.65, 0.35]), success, price, readings)


def share_of_all(world: World) -> JointTable:
    """The table where the five are read together, for the price of five, and only their share of yes is looked at."""
    exact = joint(world)

    def summed(array: np.ndarray) -> np.ndarray:
        yes = np.indices(array.shape).sum(axis=0).reshape(-1)
        return np.append(np.bincount(yes, weights=array.reshape(-1), minlength=6), 0.0).reshape(1, 1, 7, 1)

    ladders = (Ladder("small", (Rung(None), replace(vote_rung("share", 5), votes=0))), Ladder("large", (Rung(None),)))
    quality = tuple(summed(q) for q in exact.quality)
    return JointTable(ladders, summed(exact.mass), quality, ((1.0, 1.5), (10.0,)))


def test_a_ladder_of_five_correlated_verifiers_beats_the_best_one_and_the_share_of_all() -> None:
    world = five_verifiers()
    ladder = frontier(table_of_world(world))
    single = frontier(table_of_world(replace(world, readings=(world.readings[0][:1], ()))))
    share = frontier(share_of_all(world))
    budgets = np.linspace(2.0, 8.0, 13)
    over_single, over_share = (
        np.array([ladder.quality(b) - other.quality(b) for b in budgets]) for other in (single, share)
    )
    assert (over_single >= -1e-4).all()
    assert (over_share >= -1e-4).all()
    assert over_single.mean() > 0.005
    assert over_share.mean() > 0.005


# From a log to a policy ---------------------------------------------------------------------------------------------


def test_votes_of_a_log_are_asked_one_by_one_where_they_cost_something() -> None:
    log = verified(4, 0.5, 10.0).draw(200, 0)
    small = ladders_of(log, 3)[0]
    assert (small.rungs[0].reading, small.votes, small.rungs[1].reading) == (None, 4, "votes")
    coded = code_log(log, ladders_of(log, 3))
    assert (coded.codes[1] == np.rint(4 * log.tiers[0].readings[0].confidence)).all()
    free = ladders_of(verified(4, 0.0, 10.0).draw(200, 0), 8)[0]
    assert (free.votes, [rung.reading for rung in free.rungs]) == (0, ["votes"])
    coarse = ladders_of(log, {("small", "votes"): 4})[0]
    assert (coarse.votes, coarse.rungs[1].size <= 5) == (0, True)


def test_of_several_readings_the_votes_that_cost_most_are_asked_one_by_one_and_stand_last() -> None:
    log = verified(4, 0.5, 10.0).draw(100, 1)
    small = log.tiers[0]
    (votes,) = small.readings
    cheap = replace(votes, name="cheap", price=votes.price / 2)
    other = LoggedReading("other", votes.confidence, votes.price)
    log = replace(log, tiers=(replace(small, readings=(votes, cheap, other)), log.tiers[1]))
    ladder = ladders_of(log, 3)[0]
    assert [(rung.reading, rung.votes) for rung in ladder.rungs] == [
        (None, 0),
        ("cheap", 0),
        ("other", 0),
        ("votes", 4),
    ]


def test_votes_are_asked_all_at_once_where_one_by_one_would_be_too_large_the_dearest_tier_s_first() -> None:
    log = verified(8, 0.5, 10.0).draw(100, 1)
    small, large = log.tiers
    log = replace(log, tiers=(small, replace(large, readings=small.readings)))
    every = {("small", "votes"): 9, ("large", "votes"): 9}
    assert bins_that_fit(log, 12) == dict.fromkeys(every, 12)
    assert bins_that_fit(log, 8) == every
    states, _ = lattice_bytes(ladders_of(log, every))
    assert bins_that_fit(log, 8, states=states) == every
    assert bins_that_fit(log, 8, states=states - 1) == {**every, ("large", "votes"): 8}
    assert max(bins_that_fit(log, 8, states=150).values()) <= 8


def exact_log(missing: bool) -> ReplayLog:
    """Every share of four votes with both outcomes, so that raw counts are the truth."""
    rng = np.random.default_rng(3)
    n = 400
    correct = (rng.random(n) < 0.6).astype(float)
    share = rng.binomial(4, np.where(correct == 1.0, 0.85, 0.25)) / 4
    share = np.where(rng.random(n) < 0.1, math.nan, share) if missing else share
    dear = (rng.random(n) < 0.9).astype(float)
    ids = np.array([f"q{at}" for at in range(n)], dtype=object)
    votes = LoggedReading("votes", share, np.full(n, 0.8), votes=4)
    jury = LoggedReading("free", np.round(0.5 * correct + 0.5 * rng.random(n), 1), np.zeros(n))
    tiers = (LoggedTier("small", correct, np.ones(n), (jury, votes)), LoggedTier("large", dear, np.full(n, 6.0)))
    return ReplayLog(ids, tiers, np.ones(n), ids)


@pytest.mark.parametrize("missing", [False, True])
def test_what_raw_counts_expect_of_votes_is_what_replay_finds_over_their_orders(missing: bool) -> None:
    log = exact_log(missing)
    policy = TableLearner(Counts(), bins=3, gap=1e-4, slack=0.0).policy(log)
    assert any(isinstance(node, Poll) for node in policy.nodes)
    for at, vertex in enumerate(policy.vertices):
        found = replay(replace(policy, point=replace(policy.point, low=at, high=at)), log)
        assert found.cost.mean == pytest.approx(vertex.cost, rel=1e-9)
        assert found.quality.mean == pytest.approx(vertex.quality, abs=1e-9)


@pytest.mark.parametrize("missing", [False, True])
def test_a_plan_rehearsed_on_a_log_does_what_its_policy_does(missing: bool) -> None:
    log = exact_log(missing)
    signal = LoggedSignal("early", (LoggedReading("free", np.round(log.tiers[1].correct, 1), np.zeros(400)),))
    log = replace(log, signals=(signal,))
    learner = TableLearner(Counts(), bins=3, slack=0.0)
    study = learner.study(log)
    plans = trace_frontier(study.lattice, gap=1e-3).plans
    policy = learner.policy(log)
    unseen = log.take(np.arange(0, 400, 3))
    assert any(stage.asks for plan in plans for stage in plan.stages)
    assert len(plans) == len(policy.vertices)
    for at, plan in enumerate(plans):
        one, other = run_plan(study.lattice, plan, study.code(unseen)), route(policy, unseen, at)
        np.testing.assert_allclose(one.quality, other.quality, atol=EXACT)
        np.testing.assert_allclose(one.cost, other.cost, atol=EXACT)
        assert one.calls == pytest.approx(other.calls)
        assert one.accepts == pytest.approx(other.accepts)


def test_chains_of_a_table_with_votes_and_signals_ask_for_all_votes_and_read_no_signal() -> None:
    log = exact_log(missing=False)
    votes = replace(log.tiers[0], readings=log.tiers[0].readings[1:])
    signal = LoggedSignal("judge", (LoggedReading("conf", log.tiers[0].correct, np.zeros(400)),), ("small",))
    log = replace(log, tiers=(votes, log.tiers[1]), signals=(signal,))
    policy = TableLearner(Counts(), policies="chain").policy(log, near=4.0)
    assert {node.tier for node in policy.nodes if isinstance(node, Read)} == {"small"}
    believed = 0
    for at, vertex in enumerate(policy.vertices):
        routes = route(policy, log, at)
        assert (log.mean(routes.cost), log.mean(routes.quality)) == pytest.approx((vertex.cost, vertex.quality))
        for node, rows in vertex.beliefs.items():
            read = policy.nodes[node]
            assert isinstance(read, Read)
            share = log.tiers[0].readings[0].confidence
            below, above = (log.mean(part) for part in ((share < read.cuts[0]).astype(float), share >= read.cuts[0]))
            assert [belief.share for belief in rows] == pytest.approx([below, above, 0.0], abs=1e-3)
            believed += 1
    assert believed


def test_a_poll_s_beliefs_hold_where_asking_stops_and_where_it_goes_on() -> None:
    log = exact_log(missing=True)
    policy = TableLearner(Counts(), bins=3, slack=0.0).policy(log, near=2.5)
    polls = [(v, at) for v in policy.vertices for at in v.beliefs if isinstance(policy.nodes[at], Poll)]
    assert polls
    for vertex, at in polls:
        rows, poll = vertex.beliefs[at], policy.nodes[at]
        assert isinstance(poll, Poll)
        assert len(rows) == 1 + sum(len(tally.then) for tally in poll.tallies)
        assert all(0.0 <= belief.quality[0] <= 1.0 for belief in rows)  # type: ignore[operator]
        targets = [child for tally in poll.tallies for child in tally.then]
        for belief, child in zip(rows, targets, strict=False):
            if child is None:  # going on is then worth more than accepting what is in hand
                assert belief.worth[0] is not None
                assert belief.quality[0] is not None
                assert belief.worth[0] >= belief.quality[0] - 2e-3
        assert rows[-1].worth[0] is None  # where they failed there is nothing more to ask


def test_thresholds_look_at_the_share_of_all_votes() -> None:
    from metaverify.fitting.chain import Thresholds

    log = exact_log(missing=False)
    small = replace(log.tiers[0], readings=log.tiers[0].readings[1:])
    log = replace(log, tiers=(small, log.tiers[1]))
    policy = Thresholds().policy(log)
    read = [node for node in policy.nodes if isinstance(node, Read)]
    assert {node.reading for node in read} == {"votes"}
    for at, vertex in enumerate(policy.vertices):
        found = replay(replace(policy, point=replace(policy.point, low=at, high=at)), log)
        assert (found.cost.mean, found.quality.mean) == pytest.approx((vertex.cost, vertex.quality))
