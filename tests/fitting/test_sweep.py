"""Chains with windows and their exact sweep, against every chain tried query by query."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from metaverify.fitting.chain import Thresholds
from metaverify.fitting.sweep import coarse_sweep, sweep, sweep_size, tier_lists
from metaverify.fitting.windows import ChainLog, Valued, Window, WindowChain, policy_of_chains
from metaverify.policies.file import dump_policy, parse_policy
from metaverify.policies.graph import Read
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.replay import route
from tests.fitting.oracles import curve_at, upper_hull
from tests.strategies import random_log

TWO = ("free", "")
THREE = ("free", "paid", "")
ODD = {"weighted": True, "varying": True, "scored": True}


def walked(log: ReplayLog, chain: WindowChain) -> tuple[float, float]:
    """Cost and quality of a chain, query by query."""
    cost = quality = 0.0
    for row in range(len(log)):
        for at, name in enumerate(chain.tiers):
            tier = log.tier(name)
            cost += log.weights[row] * tier.cost[row]
            answer = tier.correct[row]
            if at < len(chain.windows):
                reading, (low, high) = tier.readings[0], chain.windows[at]
                cost += log.weights[row] * reading.price[row]
                seen = reading.confidence[row]
                if reading.correct is not None and not math.isnan(reading.correct[row]):
                    answer = reading.correct[row]
                if math.isnan(seen) or low <= seen < high:
                    continue
            quality += log.weights[row] * answer
            break
    return cost / log.weights.sum(), quality / log.weights.sum()


def windows_of(log: ReplayLog, name: str, cuts: int) -> list[Window]:
    """Every window between distinct readings."""
    seen = log.tier(name).readings[0].confidence
    values = np.unique(seen[~np.isnan(seen)]).tolist()
    if cuts == 1:
        return [(0.0, value) for value in values]
    return list(itertools.combinations_with_replacement([*values, math.inf], 2))


def every_chain(log: ReplayLog, cuts: int) -> list[tuple[float, float]]:
    """Cost and quality of every chain over tiers in every order."""
    read = [tier.name for tier in log.tiers if tier.readings]
    points = []
    for count in range(1, len(log.tiers) + 1):
        for tiers in itertools.permutations(log.tier_names, count):
            if set(tiers[:-1]) <= set(read):
                windows = itertools.product(*(windows_of(log, name, cuts) for name in tiers[:-1]))
                points += [walked(log, WindowChain(tiers, chosen)) for chosen in windows]
    return points


def hull_of(chains: tuple[Valued, ...]) -> list[tuple[float, float]]:
    return upper_hull([(chain.cost, chain.quality) for chain in chains])


@pytest.mark.parametrize(
    ("readings", "cuts", "rows", "odd"),
    [
        (TWO, 1, 60, {}),
        (TWO, 2, 40, ODD),
        (("sample", "free"), 2, 25, {}),
        (THREE, 1, 20, ODD),
        (("gift", ""), 1, 40, {}),
    ],
)
def test_the_sweep_is_the_hull_of_every_chain_walked_query_by_query(readings, cuts: int, rows: int, odd: dict) -> None:
    log = random_log(rows, 3, readings=readings, **odd)
    best = upper_hull(every_chain(log, cuts))
    found = hull_of(sweep(ChainLog(log), cuts))
    assert [found[0], found[-1]] == [pytest.approx(end, abs=1e-9) for end in (best[0], best[-1])]
    for cost, _ in [*best, *found]:  # a vertex on a straight line may be in one and not in the other
        assert curve_at(found, cost) == pytest.approx(curve_at(best, cost), abs=1e-9)


@pytest.mark.parametrize("cuts", [1, 2])
def test_a_chain_of_the_sweep_costs_and_earns_what_it_says(cuts: int) -> None:
    log = random_log(150, 4, readings=THREE, **ODD)
    rows = ChainLog(log)
    for chain in sweep(rows, cuts):
        assert (chain.cost, chain.quality) == pytest.approx(walked(log, chain.chain), abs=1e-9)
        again = rows.value(chain.chain)
        assert (again.cost, again.quality) == pytest.approx((chain.cost, chain.quality), abs=1e-9)


def test_two_cuts_earn_no_less_than_one_and_all_orders_no_less_than_the_order_of_price() -> None:
    log = random_log(300, 5, readings=("free", "free", ""))
    one, two = (hull_of(sweep(ChainLog(log), cuts)) for cuts in (1, 2))
    chain = Thresholds(bins=256, gap=0.0).policy(log)
    for vertex in chain.vertices:
        assert curve_at(one, vertex.cost) > vertex.quality - 1e-9
    for cost, quality in one:
        assert curve_at(two, cost) > quality - 1e-9
    assert max(curve_at(two, cost) - quality for cost, quality in one) > 1e-3


@pytest.mark.parametrize("cuts", [1, 2])
def test_a_coarse_sweep_is_below_the_exact_one_and_not_below_fixed_tiers(cuts: int) -> None:
    log = random_log(400, 6, readings=("free", "free", ""), missing=0.0)
    rows = ChainLog(log)
    exact = hull_of(sweep(rows, cuts))
    for most in (0, 5_000, 50_000):
        for chain in coarse_sweep(rows, cuts, most):
            assert curve_at(exact, chain.cost) > chain.quality - 1e-9
        coarse = hull_of(coarse_sweep(rows, cuts, most))
        for tier in log.tiers:
            assert curve_at(coarse, log.mean(tier.cost)) > log.mean(tier.correct) - 1e-9
    assert hull_of(coarse_sweep(rows, cuts, 10**7)) == exact


def test_the_size_of_a_sweep_counts_its_chains_and_outcomes_and_the_rows_of_each_list() -> None:
    log = random_log(40, 7, readings=TWO)
    values = len(np.unique(log.tiers[0].readings[0].confidence[~np.isnan(log.tiers[0].readings[0].confidence)]))
    # two fixed tiers with one chain and one sum each, and one list with a cut
    assert sweep_size(ChainLog(log), 1) == 3 * 40 + 2 * 2 + values + values + 1
    assert sweep_size(ChainLog(log), 2) == 3 * 40 + 2 * 2 + values * (values + 1) // 2 + values + 1


def test_of_more_than_five_tiers_lists_have_four_at_the_most() -> None:
    log = ChainLog(random_log(30, 8, readings=("free",) * 6))
    lists = list(tier_lists(log))
    assert len(lists) == len(set(lists)) == 6 + 30 + 120 + 360
    assert len(list(tier_lists(log, longest=2))) == 36


@pytest.mark.parametrize("readings", [TWO, THREE, ("sample", "free", "")])
def test_a_policy_of_chains_earns_on_its_log_what_its_vertices_say(readings) -> None:
    log = random_log(200, 9, readings=readings, contexts=2, **ODD)
    chains = sweep(ChainLog(log), 2, levels=6)
    policy = policy_of_chains(log, chains, gap=0.0)
    assert [(v.cost, v.quality) for v in policy.vertices] == [(c.cost, c.quality) for c in chains]
    for at, vertex in enumerate(policy.vertices):
        routes = route(policy, log, at)
        assert (vertex.cost, vertex.quality) == pytest.approx(
            (log.mean(routes.cost), log.mean(routes.quality)), abs=1e-9
        )
        assert policy.at(price=vertex.price).point.low == at
    assert dump_policy(parse_policy(dump_policy(policy).encode())) == dump_policy(policy)


def test_near_a_cost_the_policy_has_the_beliefs_of_the_logs_rows() -> None:
    log = random_log(300, 10, readings=("free", ""), missing=0.0)
    policy = policy_of_chains(log, sweep(ChainLog(log), 2), near=2.0)
    middle = policy.at(budget=2.0).point.high
    vertex = policy.vertices[middle]
    at, node = next((at, node) for at, node in enumerate(policy.nodes) if at >= vertex.root and isinstance(node, Read))
    confidence, correct = log.tiers[0].readings[0].confidence, log.tiers[0].correct
    cuts = [0.0, *node.cuts, math.inf]
    for belief, (low, high) in zip(vertex.beliefs[at], itertools.pairwise(cuts), strict=False):
        inside = (confidence >= low) & (confidence < high)
        assert belief.share == pytest.approx(inside.mean(), abs=5.1e-4)  # three digits are kept
        assert belief.quality[0] == pytest.approx(correct[inside].mean(), abs=5.1e-4)


def test_a_window_that_nothing_leaves_and_one_that_nothing_goes_through_are_policies_too() -> None:
    log = random_log(80, 11, readings=("free", ""))
    rows = ChainLog(log)
    for window in ((0.0, 0.0), (0.3, 0.3), (0.4, math.inf), (0.2, 0.6)):
        chain = rows.value(WindowChain(log.tier_names, (window,)))
        policy = policy_of_chains(log, [chain])
        routes = route(policy, log, 0)
        assert (chain.cost, chain.quality) == pytest.approx(
            (log.mean(routes.cost), log.mean(routes.quality)), abs=1e-12
        )
