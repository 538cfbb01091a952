"""Rules of others: each against its own words, told query by query or leaf by leaf."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given

from metaverify.fitting.crossfit import calibrate, cross_fit, rehearse
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.rehearse import rehearse_policy
from metaverify.fitting.rivals import LEARNERS, CascadeRouting, FrugalGPT, IsotonicPairs, RandomTiers
from metaverify.fitting.routing import OpenLoop
from metaverify.fitting.sweep import sweep
from metaverify.fitting.table import JointTable, at_once
from metaverify.fitting.windows import ChainLog
from metaverify.policies.file import dump_policy, parse_policy
from metaverify.policies.graph import Ask, Read
from metaverify.policies.policy import Policy
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.references import no_information_hull
from metaverify.simulators.replay import route
from tests.fitting.oracles import Leaf, by_row, curve_at, divided, legal, stops, upper_hull
from tests.strategies import prices, random_log, repeatable, tables

LOG = random_log(240, 0, readings=("free", "paid", "free"), weighted=True, varying=True)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_rule_ends_in_a_policy_that_can_be_filed_calibrated_and_replayed(name: str) -> None:
    learner = LEARNERS[name]()
    policy = learner.policy(LOG, near=3.0)
    costs = [vertex.cost for vertex in policy.vertices]
    assert costs == sorted(set(costs))
    assert dump_policy(parse_policy(dump_policy(policy).encode())) == dump_policy(policy)
    calibrated, _ = calibrate(policy, cross_fit(learner, LOG, folds=2))
    outcome = replay(calibrated.at(budget=5.0), LOG)
    assert 0.0 < outcome.cost.mean < 8.0
    assert learner.describe()["method"] == name


# --------------------------------------------------------------------------------------------------- on the log's rows


def test_random_escalation_is_the_hull_of_fixed_tiers() -> None:
    policy = RandomTiers().policy(LOG)
    hull = no_information_hull(LOG)
    assert [(v.cost, v.quality) for v in policy.vertices] == [
        pytest.approx((point.cost, point.quality), abs=1e-9) for point in hull.points
    ]
    assert not any(isinstance(node, Read) for node in policy.nodes)


def pooled_adjacent_violators(confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray) -> dict[float, float]:
    """The calibrated chance of each distinct reading, by the algorithm of Ayer et al. (1955)."""
    blocks: list[list] = []  # [readings, weight, sum]
    for value in np.unique(confidence):
        at = confidence == value
        blocks.append([[float(value)], weights[at].sum(), (weights * correct)[at].sum()])
        while len(blocks) > 1 and blocks[-2][2] * blocks[-1][1] >= blocks[-1][2] * blocks[-2][1]:
            values, weight, total = blocks.pop()
            blocks[-1] = [blocks[-1][0] + values, blocks[-1][1] + weight, blocks[-1][2] + total]
    return {value: total / weight for values, weight, total in blocks for value in values}


def calibrated_pairs(log: ReplayLog) -> list[tuple[float, float]]:
    """Cost and quality of every rule: call one tier, escalate where its calibrated chance is below some level."""
    points = [(log.mean(tier.cost), log.mean(tier.correct)) for tier in log.tiers]
    for cheap, dear in itertools.combinations(log.tiers, 2):
        reading = cheap.readings[0]
        seen = ~np.isnan(reading.confidence)
        chance = pooled_adjacent_violators(reading.confidence[seen], cheap.correct[seen], log.weights[seen])
        found = np.array([chance.get(float(c), -1.0) for c in reading.confidence])
        for level in {*chance.values()}:
            kept = found >= level
            cost = cheap.cost + reading.price + np.where(kept, 0.0, dear.cost)
            points.append((log.mean(cost), log.mean(np.where(kept, cheap.correct, dear.correct))))
    return points


@pytest.mark.parametrize("seed", range(3))
def test_isotonic_pairs_are_the_envelope_of_every_pair_and_every_level(seed: int) -> None:
    log = random_log(200, seed, readings=("free", "paid", "free"), weighted=seed == 1, varying=seed == 2)
    best = upper_hull(calibrated_pairs(log))
    found = [(vertex.cost, vertex.quality) for vertex in IsotonicPairs(gap=0.0).policy(log).vertices]
    for cost, _ in [*best, *found]:
        assert curve_at(found, cost) == pytest.approx(curve_at(best, cost), abs=1e-9)


def lists_called(policy: Policy) -> list[tuple[str, ...]]:
    """The tiers that each vertex calls, in order; a chain's nodes stand one after another."""
    roots = [*(vertex.root for vertex in policy.vertices), len(policy.nodes)]
    return [
        tuple(node.tier for node in policy.nodes[start:end] if isinstance(node, Ask))
        for start, end in itertools.pairwise(roots)
    ]


def test_frugalgpt_has_lists_of_three_at_the_most_and_is_the_best_of_them_on_its_grid() -> None:
    log = random_log(300, 1, readings=("free", "free", "free", ""))
    policy = FrugalGPT(levels=30, gap=0.0).policy(log)
    assert max(map(len, lists_called(policy))) == 3
    best = upper_hull([(c.cost, c.quality) for c in sweep(ChainLog(log), 1, longest=3)])  # 11 distinct readings
    for cost, quality in best:
        assert curve_at([(v.cost, v.quality) for v in policy.vertices], cost) == pytest.approx(quality, abs=1e-9)
    coarse = FrugalGPT(levels=3, gap=0.0).policy(log)
    assert all(v.quality < curve_at(best, v.cost) + 1e-9 for v in coarse.vertices)
    assert any(v.quality < curve_at(best, v.cost) - 1e-3 for v in coarse.vertices)


# -------------------------------------------------------------------------------------------------- cascade routing


def expected(table: JointTable, leaves: Sequence[Leaf], depths: tuple[int, ...], target: tuple[int, ...]) -> float:
    """The quality of the best answer in hand once the rungs up to ``target`` are climbed, whatever comes out."""
    parts = [list(leaves)]
    for s, (now, then) in enumerate(zip(depths, target, strict=True)):
        for rung in range(now, then):
            parts = [piece for part in parts for piece in divided(part, (s, rung))]
    return sum(max(stops(table.ladders, part, target, None), default=-np.inf) for part in parts)


def sets(table: JointTable, leaves: Sequence[Leaf], depths: tuple[int, ...], price: float) -> list[tuple[float, int]]:
    """What every set of further rungs is worth, and whose rung is the first; -1 where nothing more is bought."""
    found = [(max(stops(table.ladders, leaves, depths, None), default=-np.inf), -1)]
    ladders = table.ladders
    for target in itertools.product(*(range(d, len(la.rungs) + 1) for d, la in zip(depths, ladders, strict=True))):
        called = {la.source for la, depth in zip(ladders, target, strict=True) if la.answer and depth}
        allowed = all(not depth or set(la.needs) <= called for la, depth in zip(ladders, target, strict=True))
        if target != depths and allowed:
            spent = sum(
                leaf.price[s, rung]
                for leaf in leaves
                for s, (now, then) in enumerate(zip(depths, target, strict=True))
                for rung in range(now, then)
            )
            first = next(s for s in legal(ladders, depths) if target[s] > depths[s])
            found.append((expected(table, leaves, depths, target) - price * spent, first))
    return found


def routed(table: JointTable, leaves: Sequence[Leaf], depths: tuple[int, ...], price: float) -> float:
    """What the rule earns, net of price x cost: the best set's first rung is bought, then it chooses anew."""
    options = sets(table, leaves, depths, price)
    best = max(worth for worth, _ in options)
    mass = sum(leaf.mass for leaf in leaves)
    first = next(s for worth, s in options if worth >= best - 1e-11 * mass)
    if first < 0:
        return best
    after = (*depths[:first], depths[first] + 1, *depths[first + 1 :])
    spent = sum(leaf.price[first, depths[first]] for leaf in leaves)
    return sum(routed(table, part, after, price) for part in divided(leaves, (first, depths[first]))) - price * spent


@given(tables(most_leaves=36, most_rungs=4), prices)
@repeatable(40)
def test_open_loop_routing_lies_between_its_best_set_and_the_exact_solution(table: JointTable, price: float) -> None:
    lattice = Lattice(table)
    plan = OpenLoop(lattice).solve(price)
    found = plan.quality - price * plan.cost
    exact = lattice.solve(price)
    roots = [leaves for leaves in by_row(table) if leaves]
    root = (0,) * len(table.ladders)
    assert found < exact.quality - price * exact.cost + 1e-9
    assert found > sum(max(sets(table, leaves, root, price))[0] for leaves in roots) - 1e-9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("price", [0.01, 0.05, 0.2])
def test_open_loop_routing_decides_as_told_leaf_by_leaf(seed: int, price: float) -> None:
    log = random_log(150, seed, readings=("free", "paid", "free"), varying=seed % 2 == 1, signals=seed > 1)
    table = at_once(TableLearner(Counts(), bins=2, kappa=0.0).study(log).table)
    plan = OpenLoop(Lattice(table)).solve(price)
    told = sum(routed(table, leaves, (0,) * len(table.ladders), price) for leaves in by_row(table))
    assert plan.quality - price * plan.cost == pytest.approx(told, abs=1e-9)


def test_cascade_routing_on_a_count_table_earns_on_its_log_what_its_vertices_say() -> None:
    log = random_log(300, 2, varying=True, weighted=True)
    policy = CascadeRouting(Counts(), bins=4, slack=0.0).policy(log)
    exact = TableLearner(Counts(), bins=4, first=True, slack=0.0, gap=1e-9).policy(log)
    assert len(policy.vertices) >= 3
    for at, vertex in enumerate(policy.vertices):
        routes = route(policy, log, at)
        assert vertex.cost == pytest.approx(log.mean(routes.cost), rel=1e-9)
        assert vertex.quality == pytest.approx(log.mean(routes.quality), abs=1e-9)
        assert vertex.quality < exact.at(budget=vertex.cost).expected_quality + 1e-9


def test_cascade_routing_rehearses_as_its_policy_is_replayed() -> None:
    log = random_log(300, 3, readings=("free", "paid", ""), contexts=2)
    known, unseen = log.split(0.5)
    learner = CascadeRouting(bins=4, slack=0.0, prices=8)
    tried, told = rehearse(learner, known, unseen), rehearse_policy(learner.policy(known), unseen)
    assert tried.targets == pytest.approx(told.targets, abs=1e-9)
    for one, other in zip(tried.routes, told.routes, strict=True):
        np.testing.assert_allclose(one.cost, other.cost, atol=1e-12)
        np.testing.assert_allclose(one.quality, other.quality, atol=1e-12)
