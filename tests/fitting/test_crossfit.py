"""Cross-fitting: every query is routed by a policy that did not see it, and the dial is set by what that spends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from scipy import stats

from metaverify.fitting.crossfit import CrossFit, calibrate, cross_fit, with_evidence
from metaverify.fitting.frontier import mixture_at
from metaverify.fitting.learner import TableLearner
from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Node, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex, VertexEvidence
from metaverify.policies.tiers import Reading, Tier
from metaverify.simulators.log import LoggedTier, ReplayLog
from metaverify.simulators.outcome import Estimate, gain_values, mean_with_interval, replay
from metaverify.simulators.references import no_information_hull
from metaverify.simulators.replay import route
from tests.strategies import random_log

EXACT = 1e-12


@dataclass
class Fixed:
    """A learner that always calls one tier a vertex and expects what it is told, or what its log says."""

    tiers: tuple[str, ...]
    expected: tuple[float, ...] | None = None  # a vertex: its cost
    seen: list[ReplayLog] = field(default_factory=list)

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        self.seen.append(log)
        nodes: list[Node] = []
        vertices = []
        for at, name in enumerate(self.tiers):
            column = log.tier(name)
            cost = log.mean(column.cost) if self.expected is None else self.expected[at]
            vertices.append(Vertex(0.0, cost, log.mean(column.correct), len(nodes)))
            nodes += [Ask(name, len(nodes) + 1), Stop(Accept(name))]
        known = tuple(Tier(tier.name, log.mean(tier.cost)) for tier in log.tiers)
        return Policy(known, tuple(nodes), tuple(vertices), OperatingPoint(0, 0, 0.0))


@pytest.fixture(scope="module")
def log() -> ReplayLog:
    return random_log(200, 0, varying=True, weighted=True, groups=True)


@pytest.fixture(scope="module")
def crossed(log: ReplayLog) -> CrossFit:
    return cross_fit(TableLearner(bins=4), log)


def test_groups_are_never_divided_and_every_query_is_routed_once(log: ReplayLog) -> None:
    learner = Fixed(log.tier_names)
    crossed = cross_fit(learner, log, folds=5)
    assert sorted(np.concatenate([fold.rows for fold in crossed.folds]).tolist()) == list(range(len(log)))
    for fold, seen in zip(crossed.folds, learner.seen, strict=True):
        assert len(seen) + len(fold.log) == len(log)
        assert not set(seen.group_ids) & set(fold.log.group_ids)
        assert not set(seen.query_ids) & set(fold.log.query_ids)
        assert (fold.log.query_ids == log.query_ids[fold.rows]).all()


def test_progress_is_told_once_a_fold(log: ReplayLog) -> None:
    steps: list[None] = []
    assert len(cross_fit(Fixed(("tier0",)), log, folds=4, done=lambda: steps.append(None)).folds) == len(steps) == 4


def test_another_seed_makes_other_folds(log: ReplayLog) -> None:
    first, second = (cross_fit(Fixed(("tier0",)), log, seed=seed) for seed in (0, 1))
    assert [fold.rows.tolist() for fold in first.folds] != [fold.rows.tolist() for fold in second.folds]


def test_fixed_tiers_spend_and_earn_their_plain_means(log: ReplayLog) -> None:
    expected = (1.0, 4.0, 16.0)
    crossed = cross_fit(Fixed(log.tier_names, expected), log)
    for target, tier in zip(expected, log.tiers, strict=True):
        assert crossed.cost(target) == pytest.approx(log.mean(tier.cost), abs=EXACT)
        assert crossed.quality(target) == pytest.approx(log.mean(tier.correct), abs=EXACT)
    halfway = (log.mean(log.tiers[0].cost) + log.mean(log.tiers[1].cost)) / 2
    assert crossed.cost(2.5) == pytest.approx(halfway, abs=EXACT)
    assert crossed.cost(0.1) == crossed.cost(1.0)
    assert crossed.cost(99.0) == crossed.cost(16.0)


def test_the_target_of_a_budget_is_where_unseen_queries_spend_it(crossed: CrossFit) -> None:
    everywhere = min(fold.targets[-1] for fold in crossed.folds)  # up to here every fold's dial turns
    low, high = crossed.cost(0.0), crossed.cost(everywhere)
    for budget in np.linspace(low, high, 13):
        target = crossed.target(float(budget))
        assert crossed.cost(target) == pytest.approx(budget, rel=1e-9)
        assert mean_cost(crossed, target) == pytest.approx(budget, rel=1e-9)
    assert crossed.cost(crossed.target(low / 2)) == pytest.approx(low, rel=1e-9)
    assert crossed.target(1e9) == pytest.approx(max(fold.targets[-1] for fold in crossed.folds))


def test_where_some_folds_end_the_cost_found_is_scaled_up_to_the_target() -> None:
    """Two folds expect their dearest vertex to cost 2 and 3, and both really pay 2 for it."""
    log = tiers_that_cost((1.0, 0.5), (2.0, 0.8))
    expected = iter([(1.0, 2.0), (1.0, 3.0)])

    class Uneven(Fixed):
        def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
            self.expected = next(expected)
            return super().policy(log)

    crossed = cross_fit(Uneven(("t0", "t1")), log, folds=2)
    first, second = (len(fold.rows) / 60 for fold in crossed.folds)
    for target in (2.0, 3.0):
        spent = 2.0 * first + (1.0 + (target - 1.0) / 2.0) * second
        assert mean_cost(crossed, target) == pytest.approx(spent, abs=EXACT)
        if target != 2.5:  # no fold's dial turns there: what is found lies between its neighbours
            found = spent * target / (2.0 * first + target * second)
            assert crossed.cost(target) == pytest.approx(found, abs=EXACT)
    assert crossed.cost(2.5) == pytest.approx((crossed.cost(2.0) + crossed.cost(3.0)) / 2, abs=EXACT)
    assert crossed.cost(2.0) < crossed.cost(2.5) < crossed.cost(3.0) == crossed.cost(4.0)


def test_a_ledger_is_the_join_of_what_each_folds_policy_replays_on_its_own_queries(log: ReplayLog) -> None:
    """Plans are rehearsed without a graph; the graphs that decide as they do are replayed."""
    learner = TableLearner(bins=4, slack=0.0)
    crossed = cross_fit(learner, log)
    policies = [learner.policy(log.take(~np.isin(log.query_ids, fold.log.query_ids))) for fold in crossed.folds]
    for target in (1.5, 4.0, 9.0):
        cost = quality = 0.0
        for fold, policy in zip(crossed.folds, policies, strict=True):
            outcome = replay(policy.at(budget=max(target, fold.targets[0])), fold.log)
            weight = float(fold.log.weights.sum())
            cost += weight * outcome.cost.mean
            quality += weight * outcome.quality.mean
        total = float(crossed.log.weights.sum())
        rows, ledger = crossed.rows(), crossed.ledger(target)
        assert (rows.mean(ledger.cost), rows.mean(ledger.quality)) == pytest.approx(
            (cost / total, quality / total), abs=1e-9
        )
        assert mean_cost(crossed, target) == pytest.approx(crossed.cost(target), abs=1e-9)
        assert rows.mean(ledger.quality) == pytest.approx(crossed.quality(target), abs=1e-9)
        assert sum(ledger.accepts.values()) == pytest.approx(total)


def mean_cost(crossed: CrossFit, target: float) -> float:
    return crossed.rows().mean(crossed.ledger(target).cost)


def test_what_was_learnt_from_noise_earns_nothing_on_unseen_queries() -> None:
    gains = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        log = random_log(300, seed, readings=("free", ""), missing=0.0)
        tiers = [replace(t, correct=(rng.random(300) < 0.5 + 0.2 * k).astype(float)) for k, t in enumerate(log.tiers)]
        (reading,) = log.tiers[0].readings
        tiers[0] = replace(tiers[0], readings=(replace(reading, confidence=rng.random(300)),))
        crossed = cross_fit(TableLearner(bins=8), replace(log, tiers=tuple(tiers)))
        rows, ledger = crossed.rows(), crossed.ledger(crossed.target(2.0))
        values = gain_values(no_information_hull(rows), ledger.quality, ledger.cost, rows)
        gain = mean_with_interval(values, rows)
        assert gain.low < 0.01
        gains.append(gain.mean)
    assert -0.03 < np.mean(gains) < 0.005


# Calibration ----------------------------------------------------------------------------------------------------------


def tiers_that_cost(*pairs: tuple[float, float], rows: int = 60) -> ReplayLog:
    """A log of tiers of constant cost and quality."""
    ids = np.array([f"q{row:03d}" for row in range(rows)], dtype=object)
    columns = (
        LoggedTier(f"t{k}", np.full(rows, quality), np.full(rows, cost)) for k, (cost, quality) in enumerate(pairs)
    )
    return ReplayLog(ids, tuple(columns), np.ones(rows), ids)


def calibrated(log: ReplayLog, expected: tuple[float, ...]) -> tuple[list[tuple[float, float]], tuple[float, ...]]:
    learner = Fixed(tuple(log.tier_names), expected)
    policy, targets = calibrate(learner.policy(log), cross_fit(learner, log))
    return [(round(v.cost, 9), round(v.quality, 9)) for v in policy.vertices], targets


def test_vertices_stand_at_what_cross_fitting_found_for_them() -> None:
    log = tiers_that_cost((2.0, 0.5), (3.0, 0.7), (9.0, 0.8))
    assert calibrated(log, (1.0, 2.0, 4.0)) == ([(2.0, 0.5), (3.0, 0.7), (9.0, 0.8)], (1.0, 2.0, 4.0))


def test_a_vertex_that_costs_more_and_earns_no_more_is_left_out() -> None:
    log = tiers_that_cost((2.0, 0.5), (3.0, 0.5), (4.0, 0.4), (9.0, 0.8))
    assert calibrated(log, (1.0, 2.0, 3.0, 4.0)) == ([(2.0, 0.5), (9.0, 0.8)], (1.0, 4.0))


def test_a_vertex_is_left_out_where_a_later_one_is_better_and_costs_no_more() -> None:
    log = tiers_that_cost((2.0, 0.5), (5.0, 0.6), (5.0, 0.7), (4.0, 0.75), (9.0, 0.8))
    assert calibrated(log, (1.0, 2.0, 3.0, 4.0, 5.0)) == ([(2.0, 0.5), (4.0, 0.75), (9.0, 0.8)], (1.0, 4.0, 5.0))


def test_a_cheaper_vertex_is_kept_though_it_earns_less() -> None:
    log = tiers_that_cost((4.0, 0.6), (2.0, 0.5), (9.0, 0.8))
    vertices, targets = calibrated(log, (1.0, 2.0, 3.0))
    assert vertices[0] == (2.0, 0.5)
    assert vertices[-1] == (9.0, 0.8)
    assert len(targets) == len(vertices)


def test_calibrated_vertices_rise_in_cost_and_quality(crossed: CrossFit, log: ReplayLog) -> None:
    policy, targets = calibrate(TableLearner(bins=4).policy(log), crossed)
    assert (np.diff([v.cost for v in policy.vertices]) > 0).all()
    assert (np.diff([v.quality for v in policy.vertices]) > 0).all()
    assert (np.diff(targets) > 0).all()
    for vertex, target in zip(policy.vertices, targets, strict=True):
        assert vertex.cost == pytest.approx(crossed.cost(target), abs=EXACT)
        assert vertex.quality == pytest.approx(crossed.quality(target), abs=EXACT)


# Evidence of vertices -------------------------------------------------------------------------------------------------


def test_a_vertex_has_the_intervals_and_shares_that_each_folds_policy_shows_on_its_own_queries(log: ReplayLog) -> None:
    """Against a replay of each fold's decision graphs, query by query, and the textbook's interval by groups."""
    learner = TableLearner(bins=4, slack=0.0)
    crossed = cross_fit(learner, log)
    policy, targets = calibrate(learner.policy(log), crossed)
    found = with_evidence(policy, targets, crossed)
    assert [replace(vertex, evidence=None) for vertex in found.vertices] == list(policy.vertices)
    others = [learner.policy(log.take(~np.isin(log.query_ids, fold.log.query_ids))) for fold in crossed.folds]
    total = float(log.weights.sum())
    for vertex, target in zip(found.vertices, targets, strict=True):
        calls, accepts = (dict.fromkeys(log.tier_names, 0.0) for _ in range(2))
        quality, cost, rows = [], [], []
        mean = square = 0.0  # of what single queries cost, drawn to either graph
        for fold, other in zip(crossed.folds, others, strict=True):
            dial = other.at(budget=max(target, fold.targets[0]))
            outcome, weight = replay(dial, fold.log), float(fold.log.weights.sum())
            for name in log.tier_names:
                calls[name] += weight * outcome.calls.get(name, 0.0) / total
                accepts[name] += weight * outcome.accepts.get(name, 0.0) / total
            low, high = (route(dial, fold.log, at) for at in (dial.point.low, dial.point.high))
            share = dial.point.share
            quality.append((1 - share) * low.quality + share * high.quality)
            cost.append((1 - share) * low.cost + share * high.cost)
            rows.append(fold.rows)
            for part, routes in ((1 - share, low), (share, high)):
                mean += part * float(fold.log.weights @ routes.cost) / total
                square += part * float(fold.log.weights @ routes.cost**2) / total
        assert vertex.evidence is not None
        order = log.take(np.concatenate(rows))
        assert vertex.evidence.calls == pytest.approx(tuple(calls.values()), abs=2e-6)
        assert vertex.evidence.accepts == pytest.approx(tuple(accepts.values()), abs=2e-6)
        assert vertex.evidence.quality == pytest.approx(by_groups(order, np.concatenate(quality)), rel=2e-5)
        scale = vertex.cost / order.mean(np.concatenate(cost))  # 1 but where some fold's frontier ends
        low, high = by_groups(order, np.concatenate(cost))
        assert vertex.evidence.cost == pytest.approx((scale * low, scale * high), rel=2e-5)
        assert vertex.evidence.cost_sd == pytest.approx(scale * np.sqrt(square - mean**2), rel=2e-5)


def by_groups(log: ReplayLog, values: np.ndarray) -> tuple[float, float]:
    """A 90 % interval of a weighted mean, its residuals summed within groups, by scipy's Student quantile."""
    mean = log.mean(values)
    sums = [float(log.weights[log.group_ids == g] @ (values - mean)[log.group_ids == g]) for g in set(log.group_ids)]
    error = np.sqrt(len(sums) / (len(sums) - 1) * np.sum(np.square(sums))) / log.weights.sum()
    half = stats.t.ppf(0.95, len(sums) - 1) * error
    return mean - half, mean + half


def test_the_interval_of_a_mixture_is_at_most_as_wide_as_those_of_its_vertices_mixed(crossed: CrossFit) -> None:
    first, second = 2.0, 6.0
    rows = crossed.rows()
    ledgers = [crossed.ledger(target) for target in (first, second)]
    widths = [width(mean_with_interval(ledger.quality, rows)) for ledger in ledgers]
    for share in (0.1, 0.5, 0.8):
        mixed = (1 - share) * ledgers[0].quality + share * ledgers[1].quality
        assert width(mean_with_interval(mixed, rows)) <= (1 - share) * widths[0] + share * widths[1] + EXACT


def width(estimate: Estimate) -> float:
    return estimate.high - estimate.low


def test_a_tier_that_one_fold_left_out_counts_for_the_others_and_a_signal_has_no_shares() -> None:
    log = tiers_that_cost((2.0, 0.5), (3.0, 0.7))
    learner = Fixed(("t1",))
    policy, targets = calibrate(learner.policy(log), cross_fit(learner, log))
    signal = Tier("hint", 0.0, (Reading("length", 0.0, (), (60, 0)),), answer=False)
    wider = replace(policy, tiers=(*policy.tiers, Tier("unused", 9.0), signal))
    (vertex,) = with_evidence(wider, targets, cross_fit(learner, log)).vertices
    assert vertex.evidence == VertexEvidence((3.0, 3.0), (0.7, 0.7), (0.0, 1.0, 0.0, None), (0.0, 1.0, 0.0, None), 0.0)


def test_what_a_query_costs_varies_with_the_query_and_with_the_draw_between_two_graphs() -> None:
    """Between two tiers of fixed prices a and b a draw with the chance s of b has the variance s (1 - s) (b - a)²."""
    log = tiers_that_cost((2.0, 0.5), (10.0, 0.7))
    crossed = cross_fit(Fixed(("t0", "t1")), log)
    for share in (0.0, 0.125, 0.5, 1.0):
        assert crossed.cost_sd(2.0 + 8.0 * share) == pytest.approx(8.0 * np.sqrt(share * (1 - share)), abs=EXACT)
    varying = random_log(300, 3, varying=True, weighted=True)
    (tier, *_), weights = varying.tiers, varying.weights
    mean = np.average(tier.cost, weights=weights)
    spread = np.sqrt(np.average((tier.cost - mean) ** 2, weights=weights))
    assert cross_fit(Fixed((tier.name,)), varying).cost_sd(1.0) == pytest.approx(spread, rel=1e-12)


def test_the_spread_in_the_file_is_what_requests_drawn_by_key_show(log: ReplayLog, crossed: CrossFit) -> None:
    """Every query drawn to one of its fold's two graphs a hundred times, by lot."""
    rng, target = np.random.default_rng(2), 3.0
    costs, weights = [], []
    for fold in crossed.folds:
        mix = mixture_at(fold.targets, target)
        for _ in range(100):
            high = rng.random(len(fold.log)) < mix.share
            costs.append(np.where(high, fold.routes[mix.high].cost, fold.routes[mix.low].cost))
            weights.append(fold.log.weights)
    drawn, weight = np.concatenate(costs), np.concatenate(weights)
    spread = np.sqrt(np.average((drawn - np.average(drawn, weights=weight)) ** 2, weights=weight))
    assert crossed.cost_sd(target) == pytest.approx(spread, rel=0.02)
    assert crossed.cost_sd(target) > 1.05 * float(np.std(crossed.ledger(target).cost))  # the draw is a part of it
