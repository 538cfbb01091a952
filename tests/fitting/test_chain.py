"""Threshold chains against an exhaustive sweep of cuts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.chain import Chain, Chains, Thresholds
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.counts import Counts
from metaverify.policies.graph import Ask, Read
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.references import fixed_tiers
from metaverify.simulators.replay import route
from tests.fitting.oracles import curve_at, upper_hull
from tests.strategies import random_log

EXACT = Thresholds(bins=256, gap=1e-12)


def every_chain(log: ReplayLog) -> list[tuple[float, float]]:
    """Cost and quality of every chain of tiers in order with a cut at every value of each first reading."""
    share = log.weights / log.weights.sum()
    points = []
    for count in range(1, len(log.tiers) + 1):
        for chosen in itertools.combinations(log.tiers, count):
            *before, last = chosen
            if not all(tier.readings for tier in before):
                continue
            levels = [np.unique(tier.readings[0].confidence) for tier in before]
            for cuts in itertools.product(*([x for x in level if not np.isnan(x)] for level in levels)):
                going, cost, quality = share.copy(), 0.0, 0.0
                for tier, cut in zip(before, cuts, strict=True):
                    cost += going @ (tier.cost + tier.readings[0].price)
                    kept = tier.readings[0].confidence >= cut
                    quality += going[kept] @ tier.correct[kept]
                    going[kept] = 0.0
                points.append((cost + going @ last.cost, quality + going @ last.correct))
    return points


def short_of_the_sweep(log: ReplayLog, learner: Thresholds) -> float:
    """How far the frontier found lies below that of every chain, at the worst budget."""
    best = upper_hull(every_chain(log))
    policy = learner.policy(log)
    found = [(vertex.cost, vertex.quality) for vertex in policy.vertices]
    budgets = np.linspace(best[0][0], best[-1][0], 101)
    gaps = [curve_at(best, budget) - curve_at(found, budget) for budget in budgets]
    assert min(gaps) > -1e-9  # nothing is better than the best
    return max(gaps)


@pytest.mark.parametrize("kind", ["free", "paid"])
@pytest.mark.parametrize("seed", range(3))
def test_with_two_tiers_the_frontier_is_that_of_an_exhaustive_sweep(seed: int, kind: str) -> None:
    log = random_log(80, seed, readings=(kind, ""), varying=seed == 1, weighted=seed == 2, scored=seed == 2)
    assert short_of_the_sweep(log, EXACT) < 1e-9


@pytest.mark.parametrize("seed", range(2))
def test_with_three_tiers_the_frontier_is_that_of_an_exhaustive_sweep(seed: int) -> None:
    log = random_log(60, seed, readings=("free", "paid", ""))
    assert short_of_the_sweep(log, EXACT) < 1e-9
    assert short_of_the_sweep(log, Thresholds(bins=4, gap=1e-12)) > 1e-3


def test_the_frontier_has_a_vertex_for_every_gap() -> None:
    log = random_log(300, 1, readings=("free", "free", ""))
    assert short_of_the_sweep(log, Thresholds(gap=0.01)) < 0.01 + 1e-9


def test_what_a_vertex_says_is_what_replay_earns() -> None:
    log = random_log(120, 3, readings=("free", "paid", ""), weighted=True, varying=True)
    policy = Thresholds().policy(log)
    for at, vertex in enumerate(policy.vertices):
        routes = route(policy, log, at)
        assert (vertex.cost, vertex.quality) == pytest.approx(
            (log.mean(routes.cost), log.mean(routes.quality)), abs=1e-12
        )


def test_the_frontier_rises_is_concave_and_never_below_a_fixed_tier() -> None:
    log = random_log(150, 4, readings=("free", "free", ""))
    vertices = Thresholds().policy(log).vertices
    costs, qualities = np.array([v.cost for v in vertices]), np.array([v.quality for v in vertices])
    assert (np.diff(costs) > 0).all()
    slopes = np.diff(qualities) / np.diff(costs)
    assert (slopes > 0).all()
    assert (np.diff(slopes) < 0).all()
    for point in fixed_tiers(log):
        assert np.interp(point.cost, costs, qualities) >= point.quality - 1e-12


def test_six_tiers_have_every_chain_of_up_to_four() -> None:
    log = random_log(60, 5, readings=("free", "free", "", "free", "", ""))
    chains = Thresholds(bins=3).chains(log)
    lists = {chains[at].tiers for at in range(len(chains))}
    readable = {0, 1, 3}
    wanted = {
        tiers
        for count in range(1, 5)
        for tiers in itertools.combinations(range(6), count)
        if readable.issuperset(tiers[:-1])
    }
    assert lists == wanted
    assert len({chains[at] for at in range(len(chains))}) == len(chains)


def test_each_context_has_chains_of_its_own_as_if_it_were_a_log_of_its_own() -> None:
    log = random_log(240, 6, readings=("free", "paid", ""), contexts=3)
    assert log.contexts is not None
    learner = Thresholds(bins=4, context=True, kappa=0.0, gap=1e-12)
    chains = learner.chains(log)
    for price in (0.0, 0.01, 0.1):
        plan = chains.solve(price)
        for row, label in enumerate(chains.contexts, start=1):
            own = log.take(np.flatnonzero(log.contexts == label))
            cost, quality = run(own, chains[plan.chains[row]])
            best = max(q - price * c for c, q in every_cut(own, chains))
            assert quality - price * cost == pytest.approx(best, abs=1e-12)


def test_contexts_are_shrunk_towards_the_pooled_chains() -> None:
    log = random_log(240, 7, readings=("free", ""), contexts=2)
    pooled = Thresholds(bins=5).chains(log)
    shrunk = Thresholds(bins=5, context=True, kappa=1e12).chains(log)
    for price in (0.01, 0.05):
        assert set(shrunk.solve(price).chains) == {pooled.solve(price).chains[0]}


def test_chains_on_a_table_of_counts_are_the_chains_on_the_rows() -> None:
    log = random_log(200, 8, readings=("free", "paid", ""), contexts=2, weighted=True, varying=True)
    rows = Thresholds(4, context=True, gap=1e-6).policy(log)
    table = TableLearner(Counts(), "chain", bins=4, gap=1e-6).policy(log)
    assert [(v.cost, v.quality) for v in rows.vertices] == [
        pytest.approx((v.cost, v.quality), abs=1e-9) for v in table.vertices
    ]


def test_where_nothing_can_be_read_the_chains_are_the_fixed_tiers() -> None:
    log = random_log(100, 7, readings=("", ""))
    assert [(v.cost, v.quality) for v in Thresholds().policy(log).vertices] == [
        pytest.approx((point.cost, point.quality)) for point in fixed_tiers(log)
    ]


def test_a_tier_whose_readings_are_all_missing_is_not_read() -> None:
    log = random_log(100, 8, readings=("free", "free", ""))
    (reading,) = log.tiers[0].readings
    silent = replace(log.tiers[0], readings=(replace(reading, confidence=np.full(100, np.nan)),))
    policy = Thresholds().policy(replace(log, tiers=(silent, *log.tiers[1:])))
    assert not [node for node in policy.nodes if isinstance(node, Read) and node.tier == "tier0"]
    assert [node for node in policy.nodes if isinstance(node, Ask) and node.tier == "tier0"]


def test_policies_of_different_logs_draw_independently() -> None:
    first, second = (Thresholds(bins=4).policy(random_log(60, seed)) for seed in (0, 1))
    assert first.salt
    assert first.salt != second.salt


def run(log: ReplayLog, chain: Chain) -> tuple[float, float]:
    """Mean cost and quality of one chain, row by row."""
    total_cost = total_quality = 0.0
    for row in range(len(log)):
        for at, tier in enumerate(chain.tiers):
            column = log.tiers[tier]
            total_cost += log.weights[row] * column.cost[row]
            if at < len(chain.cuts):
                total_cost += log.weights[row] * column.readings[0].price[row]
                if not column.readings[0].confidence[row] >= chain.cuts[at]:
                    continue
            total_quality += log.weights[row] * column.correct[row]
            break
    return total_cost / float(log.weights.sum()), total_quality / float(log.weights.sum())


def every_cut(log: ReplayLog, chains: Chains) -> list[tuple[float, float]]:
    return [run(log, chains[at]) for at in range(len(chains))]
