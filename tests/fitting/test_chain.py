"""Threshold chains against an exhaustive sweep of cuts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.chain import Thresholds
from metaverify.policies.graph import Ask, Read
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.references import fixed_tiers
from metaverify.simulators.replay import route
from tests.fitting.oracles import curve_at, upper_hull
from tests.strategies import random_log


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
def test_with_two_tiers_the_search_finds_what_an_exhaustive_sweep_finds(seed: int, kind: str) -> None:
    log = random_log(80, seed, readings=(kind, ""), varying=seed == 1, weighted=seed == 2, scored=seed == 2)
    assert short_of_the_sweep(log, Thresholds()) < 1e-9


@pytest.mark.parametrize("seed", range(2))
def test_with_three_tiers_the_search_comes_as_close_as_it_has_trials(seed: int) -> None:
    log = random_log(60, seed, readings=("free", "paid", ""))
    assert short_of_the_sweep(log, Thresholds()) < 0.03
    assert short_of_the_sweep(log, Thresholds(trials=4000)) < 1e-9


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


def test_the_same_seed_finds_the_same_chains_and_few_trials_find_worse_ones() -> None:
    log = random_log(120, 5, readings=("free", "paid", ""))
    assert Thresholds(seed=1).policy(log) == Thresholds(seed=1).policy(log)
    few, many = (Thresholds(trials=trials).policy(log).vertices for trials in (4, 400))
    assert len(few) < len(many)


def test_a_sample_of_rows_is_enough_to_search_on() -> None:
    log = random_log(400, 6, readings=("free", ""), groups=True)
    policy = Thresholds(rows=200).policy(log)
    last = policy.vertices[-1]
    assert last.quality == pytest.approx(max(point.quality for point in fixed_tiers(log)), abs=0.1)


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


def test_two_searches_over_different_logs_draw_independently() -> None:
    first, second = (Thresholds(trials=20).policy(random_log(60, seed)) for seed in (0, 1))
    assert first.salt
    assert first.salt != second.salt
