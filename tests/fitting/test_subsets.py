"""The best few of many tiers, against every subset tried in turn."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.chain import Chains, Thresholds, _bins_that_fit
from metaverify.fitting.frontier import trace_frontier
from metaverify.fitting.learner import TableLearner, best_tiers
from metaverify.fitting.subsets import MANY_TIERS, Subset, _prices, best_subsets
from metaverify.simulators.log import LogError, ReplayLog
from tests.strategies import random_log


def priced(log: ReplayLog, seed: int) -> ReplayLog:
    """The log with prices that do not rise by the same factor from tier to tier."""
    prices = np.sort(np.random.default_rng(seed).uniform(1.0, 20.0, len(log.tiers)))
    tiers = (replace(t, cost=np.full(len(log), p)) for t, p in zip(log.tiers, prices, strict=True))
    return replace(log, tiers=tuple(tiers))


def log_of(seed: int, kinds: tuple[str, ...], *, contexts: int = 0) -> ReplayLog:
    return priced(random_log(150, seed, readings=kinds, contexts=contexts, missing=0.1, weighted=seed == 1), seed)


def best_values(log: ReplayLog) -> dict[tuple[str, ...], float]:
    """Every subset of tiers: the quality net of cost that its chains can have, in the mean over the log's prices.

    At each price and in each context row, the best chain of a log that has no other tiers.
    """
    bins = _bins_that_fit(len(log.tiers))
    prices = _prices(log, Thresholds(context=True).chains(log))
    found = {}
    for size in range(1, len(log.tiers) + 1):
        for names in itertools.combinations(log.tier_names, size):
            chains = Thresholds(bins, context=True).chains(log.with_tiers(names))
            plans = [chains.solve(float(price)) for price in prices]
            found[names] = float(np.mean([p.quality - p.price * p.cost for p in plans]))
    return found


CASES = [
    (0, ("free", "paid", "free", ""), 0),
    (1, ("free", "free", "", "free"), 2),
    (2, ("", "free", "paid", "free paid"), 0),
    (3, ("free", "free", "free"), 3),
]


@pytest.mark.parametrize(("seed", "kinds", "contexts"), CASES)
def test_the_best_subset_of_each_size_is_that_of_a_search_through_all(
    seed: int, kinds: tuple[str, ...], contexts: int
) -> None:
    log = log_of(seed, kinds, contexts=contexts)
    values = best_values(log)
    found = best_subsets(log, len(kinds), budget=math.inf)
    assert [len(subset.tiers) for subset in found] == list(range(1, len(kinds) + 1))
    for size, subset in enumerate(found, start=1):
        best = max(value for names, value in values.items() if len(names) == size)
        assert values[subset.tiers] == pytest.approx(best, abs=1e-12)
        assert subset.short == pytest.approx(values[log.tier_names] - best, abs=1e-12)
        assert (*sorted((*subset.tiers, *subset.left_out)),) == tuple(sorted(log.tier_names))
        assert subset.tiers == tuple(name for name in log.tier_names if name in subset.tiers)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_with_a_budget_the_best_subset_that_can_keep_it_is_taken(share: float) -> None:
    log = log_of(4, ("free", "paid", "free", ""))
    costs = [log.mean(tier.cost) for tier in log.tiers]
    budget = min(costs) + share * (max(costs) - min(costs))
    cheap = {name for name, cost in zip(log.tier_names, costs, strict=True) if cost <= budget}
    values = {names: value for names, value in best_values(log).items() if cheap & set(names)}
    for size, subset in enumerate(best_subsets(log, 4, budget=budget), start=1):
        assert cheap & set(subset.tiers)
        best = max(value for names, value in values.items() if len(names) == size)
        assert values[subset.tiers] == pytest.approx(best, abs=1e-12)


def test_a_budget_forces_a_cheap_tier_that_would_not_be_taken() -> None:
    """The cheapest tier is hopeless and hardly cheaper than the next; only it can keep a budget below the others."""
    first, second, third = random_log(150, 5, readings=("free", "free", "")).tiers
    log = random_log(150, 5, readings=("free", "free", ""))
    hopeless = replace(first, correct=np.zeros(150), cost=np.ones(150))
    log = replace(log, tiers=(hopeless, replace(second, cost=np.full(150, 1.1)), third))
    cheapest, cost = first.name, 1.0
    free = best_subsets(log, 2, budget=math.inf)
    assert all(cheapest not in subset.tiers for subset in free)
    for budget in (cost, 0.5 * cost, None):  # where none can keep it, or none is given, the cheapest comes nearest
        kept = best_subsets(log, 2, budget=budget)
        assert [cheapest in subset.tiers for subset in kept] == [True, True]
        assert kept[0].short > free[0].short


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("budget", [None, 3.0])
def test_what_is_short_is_never_negative_and_falls_to_nothing_as_tiers_are_added(
    seed: int, budget: float | None
) -> None:
    log = priced(random_log(120, 10 + seed, readings=("free", "paid", "free", "", "free"), contexts=seed), seed)
    short = [subset.short for subset in best_subsets(log, 9, budget=budget)]
    assert len(short) == 5
    assert all(before >= after >= 0.0 for before, after in itertools.pairwise(short))
    assert short[-1] == 0.0
    assert short[0] > 0.0


def test_of_six_tiers_four_are_enough_for_every_list_of_a_chain() -> None:
    log = priced(random_log(100, 20, readings=("free",) * 6), 20)
    assert max(len(tiers) for tiers, _ in Thresholds().chains(log).best_of_each_list(np.zeros(1))) == 4
    values = {}
    bins, chains = _bins_that_fit(6), Thresholds(context=True).chains(log)
    prices = _prices(log, chains)
    for names in itertools.combinations(log.tier_names, 4):
        plans = [Thresholds(bins).chains(log.with_tiers(names)).solve(float(price)) for price in prices]
        values[names] = float(np.mean([p.quality - p.price * p.cost for p in plans]))
    every = float(np.mean([p.quality - p.price * p.cost for p in map(chains.solve, prices.tolist())]))
    *_, four, five, six = best_subsets(log, 6, budget=math.inf)
    assert values[four.tiers] == pytest.approx(max(values.values()), abs=1e-12)
    assert four.short == pytest.approx(every - max(values.values()), abs=1e-12)
    assert four.short >= five.short >= six.short == 0.0


def test_prices_are_slopes_of_the_chains_frontier() -> None:
    log = log_of(6, ("free", "free", ""))
    chains: Chains = Thresholds(context=True).chains(log)
    plans = trace_frontier(chains).plans
    points = [(plan.cost, plan.quality) for plan in plans]
    slopes = {(q1 - q0) / (c1 - c0) for (c0, q0), (c1, q1) in itertools.pairwise(points)}
    prices = _prices(log, chains).tolist()
    assert prices == sorted(prices, reverse=True)
    assert all(min(abs(price - slope) for slope in slopes) < 1e-12 for price in prices)


def test_too_many_tiers_are_refused_with_a_way_out() -> None:
    log = random_log(20, 7, readings=("",) * (MANY_TIERS + 1))
    with pytest.raises(LogError, match=r"19 tiers; name at most 18 of them with --tiers"):
        best_subsets(log, 3)
    assert len(best_subsets(log.with_tiers(log.tier_names[1:]), 2)) == 2


# ------------------------------------------------------------------------------------------------ what a learner keeps


def test_few_tiers_are_all_kept_and_nothing_is_said_to_be_short() -> None:
    log = log_of(8, ("free", ""))
    assert best_tiers(log, None) == best_tiers(log, 2) == Subset(log.tier_names, 0.0)


def test_the_smallest_subset_that_is_nearly_as_good_is_kept_and_the_others_are_named() -> None:
    """Three useful tiers, and three that are dearer copies of the first one."""
    log = random_log(300, 9, readings=("free", "free", ""))
    first = log.tiers[0]
    copies = tuple(replace(first, name=f"copy{k}", cost=first.cost + 0.1 * k) for k in (1, 2, 3))
    log = replace(log, tiers=(first, *copies, *log.tiers[1:]))
    kept = best_tiers(log, 5)
    assert kept.tiers == ("tier0", "tier1", "tier2")
    assert set(kept.left_out) == {"copy1", "copy2", "copy3"}
    study = TableLearner(bins=3, tiers=5).study(log)
    assert (study.log.tier_names, study.kept) == (kept.tiers, kept)
    assert [ladder.source for ladder in study.ladders] == list(kept.tiers)
    (said,) = study.shortcuts()
    assert "kept the tiers tier0, tier1, tier2" in said
    assert "copy1, copy2, copy3" in said
    policy = TableLearner(bins=3, tiers=5).policy(log)
    assert [tier.name for tier in policy.tiers] == list(kept.tiers)
