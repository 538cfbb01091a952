"""AutoMix's POMDP against the expectimax of the paper, over beliefs about the training queries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.automix.objectives import Envelope, LargestIBC
from metaverify.fitting.automix.pomdp import AutoMixPOMDP
from metaverify.fitting.ladders import Rung
from metaverify.fitting.models.automix import AutoMixCounts
from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Node, Read, Stop
from metaverify.policies.policy import Policy
from metaverify.simulators.bins import balanced_cuts
from metaverify.simulators.log import LogError, LoggedReading, ReplayLog
from metaverify.simulators.replay import route
from tests.strategies import random_log

BINS = 4
EXACT = AutoMixPOMDP(AutoMixCounts(), bins=BINS, gap=1e-12, slack=0.0)
LOGS = {
    "two tiers": random_log(200, 1, readings=("paid", "")),
    "three tiers": random_log(300, 2, readings=("free", "paid", "free")),
    "scores": random_log(120, 3, readings=("paid", "paid", ""), scored=True),
    "weighted, two readings": random_log(200, 4, readings=("free paid", "free", ""), weighted=True),
    "four tiers": random_log(150, 5, readings=("free", "free", "paid", "")),
}


def expectimax(log: ReplayLog, price: float) -> float:
    """The best quality - price x cost: states are performance vectors, and what a verifier shows depends on them alone.

    A belief is the weight of each state.
    """
    performance = np.stack([tier.correct for tier in log.tiers], axis=1)
    states, member = np.unique(performance, axis=0, return_inverse=True)
    prior = np.bincount(member, log.weights) / log.weights.sum()
    shows = []  # a tier but the last: [states, outcomes], P(o | s)
    for tier in log.tiers[:-1]:
        reading = tier.readings[0]
        outcome = Rung("", balanced_cuts(reading.confidence, log.weights, BINS)).code(reading.confidence)
        counts = np.zeros((len(states), outcome.max() + 1))
        np.add.at(counts, (member, outcome), log.weights)
        shows.append(counts / counts.sum(axis=1, keepdims=True))
    prices = [log.mean(tier.cost) + (log.mean(tier.readings[0].price) if tier.readings else 0.0) for tier in log.tiers]
    prices[-1] = log.mean(log.tiers[-1].cost)

    def value(belief: np.ndarray, model: int) -> float:
        options = [float(belief @ states[:, model])] if model >= 0 else []
        for later in range(model + 1, len(log.tiers)):
            spent = price * prices[later] * belief.sum()
            if later == len(log.tiers) - 1:
                options.append(float(belief @ states[:, later]) - spent)
            else:
                options.append(sum(value(belief * shown, later) for shown in shows[later].T) - spent)
        return max(options)

    alone = [log.mean(tier.correct) - price * log.mean(tier.cost) for tier in log.tiers]
    return max(value(prior, -1), *alone)


@pytest.mark.parametrize("log", LOGS)
def test_the_envelope_is_the_expectimax_at_every_price(log: str) -> None:
    rows = LOGS[log]
    policy = EXACT.policy(rows)
    for price in (0.0, 1e-3, 5e-3, 0.02, 0.05, 0.1, 0.3):
        best = max(vertex.quality - price * vertex.cost for vertex in policy.vertices)
        assert best == pytest.approx(expectimax(rows, price), abs=1e-7)


def walks(policy: Policy, root: int) -> Iterator[list[Node]]:
    """Every path from a root to a stop."""
    node = policy.nodes[root]
    match node:
        case Stop():
            yield [node]
        case Ask(_, then):
            yield from ([node, *rest] for rest in walks(policy, then))
        case Read(_, _, _, then, missing):
            yield from ([node, *rest] for child in sorted({*then, missing}) for rest in walks(policy, child))


@pytest.mark.parametrize("objective", [Envelope(), LargestIBC()], ids=repr)
@pytest.mark.parametrize("log", LOGS)
def test_walks_go_forward_and_what_costs_is_verified_at_once(log: str, objective: Envelope | LargestIBC) -> None:
    rows = LOGS[log]
    policy = replace(EXACT, objective=objective).policy(rows)
    names = rows.tier_names
    for vertex in policy.vertices:
        for walk in walks(policy, vertex.root):
            called = [node.tier for node in walk if isinstance(node, Ask)]
            assert called == sorted(called, key=names.index)
            assert walk[-1] == Stop(Accept(called[-1]))
            if len(walk) == 2:  # a tier alone
                continue
            for node, after in itertools.pairwise(walk):
                if isinstance(node, Ask) and node.tier != names[-1]:
                    first = rows.tier(node.tier).readings[0]
                    read = isinstance(after, Read) and (after.tier, after.reading) == (node.tier, first.name)
                    assert read or first.free
            assert not any(isinstance(node, Read) and node.tier == names[-1] for node in walk)


@pytest.mark.parametrize("log", [name for name in LOGS if name != "scores"])  # there a tier alone is the steepest
def test_its_own_objective_is_the_steepest(log: str) -> None:
    rows = LOGS[log]
    every, own = EXACT.policy(rows).vertices, replace(EXACT, objective=LargestIBC(regions=1)).policy(rows).vertices
    origin = (rows.mean(rows.tiers[0].cost), rows.mean(rows.tiers[0].correct))
    assert (own[0].cost, own[0].quality) == pytest.approx(origin)
    slopes = [(v.quality - origin[1]) / (v.cost - origin[0]) for v in every if v.cost > origin[0] * 1.001]
    found = [(v.quality - origin[1]) / (v.cost - origin[0]) for v in own[1:]]
    assert found == pytest.approx([max(slopes)])


def test_votes_are_asked_all_at_once() -> None:
    log = random_log(300, 6, readings=("paid", ""), missing=0.0)
    first = log.tiers[0]
    votes = replace(first.readings[0], confidence=np.round(first.readings[0].confidence * 4) / 4, votes=4)
    log = replace(log, tiers=(replace(first, readings=(votes,)), log.tiers[1]))
    policy = EXACT.policy(log)
    assert {type(node) for node in policy.nodes} == {Ask, Read, Stop}
    reads = [route(policy, log, at) for at, v in enumerate(policy.vertices) if v.cost > 1.0]
    assert any(r.reads[0] and r.reads[0][0] == pytest.approx(300.0) for r in reads)
    assert policy.tiers[0].readings[0].votes == 4


def test_of_many_tiers_the_best_are_kept_and_the_last_of_them_is_not_verified() -> None:
    log = random_log(200, 7, readings=("free",) * 7)
    policy = replace(EXACT, tiers=3, gap=1e-3).policy(log)
    assert len(policy.tiers) <= 3
    assert [bool(tier.readings) for tier in policy.tiers] == [*[True] * (len(policy.tiers) - 1), False]


def test_the_verifier_can_be_named() -> None:
    log = random_log(200, 8, readings=("free paid", ""))
    policy = replace(EXACT, reading="paid").policy(log)
    assert [reading.name for reading in policy.tiers[0].readings] == ["paid"]
    with pytest.raises(LogError, match="no tier of the log has a reading 'judge'; they have free, paid"):
        replace(EXACT, reading="judge").policy(log)


def test_around_a_budget_beliefs_are_kept() -> None:
    log = LOGS["three tiers"]
    policy = EXACT.policy(log, near=3.0)
    around = policy.at(budget=3.0).point
    assert any(policy.vertices[at].beliefs for at in (around.low, around.high))


def test_a_verifier_that_is_useless_is_left_to_those_who_need_it() -> None:
    log = random_log(300, 9, readings=("paid", ""), missing=0.0)
    blind = LoggedReading("paid", np.full(300, 0.5), np.full(300, 5.0))
    log = replace(log, tiers=(replace(log.tiers[0], readings=(blind,)), log.tiers[1]))
    policy = EXACT.policy(log)
    expected = [(log.mean(tier.cost), log.mean(tier.correct)) for tier in log.tiers]
    np.testing.assert_allclose([(v.cost, v.quality) for v in policy.vertices], expected)
