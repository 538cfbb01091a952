"""The monitor counts everything once, is quiet where nothing changed, and finds what did."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, chi2_contingency, mannwhitneyu

from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.policies.monitor import (
    Monitor,
    chi_square,
    chi_square_quantile,
    cusum_limit,
    trend,
    unconditional_readings,
)
from metaverify.policies.policy import OperatingPoint, Policy, Vertex, VertexEvidence
from metaverify.policies.router import Failure, Look, Reply, Router
from metaverify.policies.store import Snapshot
from metaverify.policies.tiers import Reading, Tier

from .strategies import examples
from .test_guards import HIGH, LOW, MIDDLE, cascade

counts = st.lists(st.tuples(st.integers(60, 400), st.integers(60, 400)), min_size=2, max_size=7)


@examples(100)
@given(pairs=counts)
def test_the_statistic_is_pearsons(pairs: list[tuple[int, int]]) -> None:
    before, now = zip(*pairs, strict=True)
    statistic, freedom = chi_square(before, now, range(len(pairs)))
    expected = chi2_contingency([before, now], correction=False)
    assert (statistic, freedom) == (pytest.approx(expected.statistic), expected.dof)


def test_bins_are_joined_as_told_and_rare_ones_with_the_first() -> None:
    assert chi_square([10, 20, 30], [30, 20, 10], [0, 0, 1]) == chi_square([30, 30], [50, 10], [0, 1])
    assert chi_square([50, 50, 1], [60, 40, 2], [0, 1, 2]) == chi_square([51, 50], [62, 40], [0, 1])


@examples(60)
@given(pairs=counts)
def test_the_trend_is_the_rank_tests(pairs: list[tuple[int, int]]) -> None:
    before, now = (np.repeat(np.arange(len(pairs)), column) for column in zip(*pairs, strict=True))
    tested = mannwhitneyu(before, now, method="asymptotic", use_continuity=False)
    statistic = trend(*zip(*pairs, strict=True))
    total = len(before) + len(now)  # SciPy's variance is that of drawing without replacement
    assert chi2.sf(statistic * (total - 1) / total, 1) == pytest.approx(tested.pvalue, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("freedom", range(1, 12))
@pytest.mark.parametrize("chance", [0.01, 1e-3, 5e-5])
def test_the_quantile_is_that_of_chi_square(freedom: int, chance: float) -> None:
    exact = chi2.isf(chance, freedom)
    assert exact * 0.995 <= chi_square_quantile(chance, freedom) <= exact * 1.06


@pytest.mark.parametrize(("slack", "run", "limit"), [(0.5, 930, 5.0), (0.5, 336, 4.0), (0.25, 734, 8.01)])
def test_the_limit_of_the_cusum_is_the_textbooks(slack: float, run: float, limit: float) -> None:
    assert cusum_limit(slack, run) == pytest.approx(limit, abs=0.35)


def test_only_what_every_request_reads_is_compared() -> None:
    policy = cascade()
    assert unconditional_readings(policy, LOW) == {("small", "conf")}
    assert unconditional_readings(policy, HIGH) == {("small", "conf")}
    nodes = (Ask("small", 2), Ask("large", 3), Stop(Accept("small")), Stop(Accept("large")))
    vertex = Vertex(0.0, 1.0, 0.5, 0, {"hard": 1})
    routed_by_context = Policy(policy.tiers, nodes, (vertex,), OperatingPoint(0, 0, 0.0))
    assert unconditional_readings(routed_by_context, 0) == frozenset()


def test_everything_is_counted_once() -> None:
    monitor = Monitor()
    down = False

    def call(tier: str, request: Any) -> Reply:
        if down:
            raise Failure("down", 0.0)
        return Reply(tier, {"conf": request} if tier == "small" else {})

    router = Router(cascade(low=MIDDLE, high=MIDDLE), call, lambda *_: Look(0.1), monitor=monitor)
    for confidence in (0.9, 0.1, 0.5, None):
        router.route(confidence)
    down = True
    router.route(0.9)
    report = monitor.report()
    assert json.loads(json.dumps(report)) == report
    assert (report["requests"], report["cost"], report["handed_over"]) == (5, 4 * 1.0 + 2 * 10.5, 1)
    assert report["calls"] == {"large": 3, "small": 5}
    assert report["reads"] == {"small": 2}
    assert report["accepts"] == {"large": 2, "small": 2}
    assert report["reasons"] == {"down": 2, "unanswered": 3}
    assert report["readings"] == {"small.conf": [1, 2, 1]}
    assert report["recalibrate"] == []

    text = monitor.prometheus()
    assert "\nmetaverify_requests_total 5\n" in text
    assert '\nmetaverify_calls_total{tier="large"} 3\n' in text
    assert text.endswith("metaverify_recalibrate 0\n")
    sample = r'[a-z_]+(\{[a-z]+="([^"\\\n]|\\.)*"\})? [0-9.]+'
    assert all(re.fullmatch(rf"# (HELP|TYPE) [a-z_]+ .+|{sample}", line) for line in text.splitlines())


def test_names_are_escaped_for_prometheus() -> None:
    name = 'a"b\\c\nd'
    vertex = Vertex(0.0, 1.0, 0.5, 0)
    policy = Policy((Tier(name, 1.0),), (Ask(name, 1), Stop(Accept(name))), (vertex,), OperatingPoint(0, 0, 0.0))
    monitor = Monitor()
    Router(policy, lambda tier, _: Reply(tier), monitor=monitor).route("?")
    assert 'metaverify_calls_total{tier="a\\"b\\\\c\\nd"} 1\n' in monitor.prometheus()


def test_a_monitor_that_saw_nothing_says_so() -> None:
    assert Monitor().report()["requests"] == 0
    assert Monitor().recalibrate == ()
    assert "metaverify_requests_total 0\n" in Monitor().prometheus()


def test_the_expected_shares_are_those_of_the_mixture() -> None:
    policy = cascade(0.25, LOW, HIGH)
    told = [VertexEvidence((0.0, 1.0), (0.0, 1.0), (1.0, large), (1.0, large)) for large in (0.0, 0.2, 0.4)]
    with_evidence = tuple(
        Vertex(v.price, v.cost, v.quality, v.root, evidence=e) for v, e in zip(policy.vertices, told, strict=True)
    )
    monitor = Monitor()
    known = Policy(policy.tiers, policy.nodes, with_evidence, policy.point)
    Router(known, lambda tier, _: Reply(tier), monitor=monitor).route("?", key=1)
    assert monitor.report()["expected"] == {"small": 1.0, "large": pytest.approx(0.1)}


def test_a_new_policy_begins_anew_and_late_requests_of_the_old_one_disturb_nothing() -> None:
    monitor = Monitor()
    routed = Router(cascade(), lambda tier, _: Reply(tier, {"conf": 0.1})).route("?")

    def of(number: int) -> Any:
        return type(routed)(
            routed.answer, routed.tier, routed.steps, Snapshot(routed.snapshot.policy, f"id{number}", number), HIGH
        )

    for _ in range(2000):
        monitor.record(of(0))
    assert {drift.kind for drift in monitor.recalibrate} == {"reading", "cost"}
    assert "the histogram of conf of small is no longer that of the log" in str(monitor.recalibrate[0])
    monitor.record(of(1))
    assert monitor.recalibrate == ()
    for _ in range(2000):
        monitor.record(of(0))
    assert monitor.recalibrate == ()
    assert monitor.report()["policy"] == "id1"
    assert monitor.report()["requests"] == 4001


# Drift --------------------------------------------------------------------------------------------------------------

Rows = list[tuple[float, float, float]]


def traffic(rng: np.random.Generator, rows: int, *, bias: float = 0.0, blind: bool = False, dear: float = 1.0) -> Rows:
    """Confidence of the small tier, missing in 1 %, and prices of both, which vary by query."""
    difficulty = rng.normal(size=rows)
    right = rng.random(rows) < 1 / (1 + np.exp(1.5 * difficulty - 1))
    logit = np.zeros(rows) if blind else rng.normal(1.6 * right - 0.8 - 0.5 * difficulty, 1.0)
    confidence = np.round(1 / (1 + np.exp(-logit - bias)), 2)
    confidence[rng.random(rows) < 0.01] = np.nan
    prices = rng.gamma(4.0, 0.25, (2, rows)) * dear
    return list(zip(confidence.tolist(), prices[0].tolist(), (15.0 * prices[1]).tolist(), strict=True))


def fitted(rng: np.random.Generator, rows: int = 4000) -> Policy:
    """A mixture of two cuts, with the histogram and the costs of a log of its own."""
    log = traffic(rng, rows)
    known = np.array([row[0] for row in log if row[0] == row[0]])
    cuts = tuple(map(float, np.unique(np.quantile(known, np.arange(1, 12) / 12))))
    bins = [len(cuts) + 1 if row[0] != row[0] else bisect_right(cuts, row[0]) for row in log]
    reading = Reading("conf", 0.0, cuts, tuple(map(int, np.bincount(bins, minlength=len(cuts) + 2))))
    chosen = cuts[3], cuts[5]
    costs = [sum(row[1] + row[2] * (not row[0] >= cut) for row in log) / rows for cut in chosen]
    tiers = Tier("small", sum(row[1] for row in log) / rows, (reading,)), Tier("large", sum(r[2] for r in log) / rows)
    reads = [Read("small", "conf", (cut,), (4, 5), 4) for cut in chosen]
    nodes = (Ask("small", 2), Ask("small", 3), *reads, Ask("large", 6), Stop(Accept("small")), Stop(Accept("large")))
    vertices = tuple(Vertex(0.0, cost, 0.8, root) for root, cost in enumerate(costs))
    return Policy(tiers, nodes, vertices, OperatingPoint(0, 1, 0.5))


def found_after(seed: int, rows: int, **change: Any) -> tuple[float, str]:
    """How many changed requests it took until something was found, after 500 healthy ones; and what was."""
    rng = np.random.default_rng(seed)
    policy, monitor = fitted(rng), Monitor()
    queries = [*(traffic(rng, 500) if change else []), *traffic(rng, rows, **change)]

    def call(tier: str, row: tuple[float, float, float]) -> Reply:
        return Reply(tier, {"conf": row[0]}, row[1]) if tier == "small" else Reply(tier, {}, row[2])

    router = Router(policy, call, monitor=monitor)
    for at, row in enumerate(queries):
        router.route(row, key=at)
        if monitor.recalibrate:
            return at + 1 - (len(queries) - rows), monitor.recalibrate[0].kind
    return float("inf"), ""


CHANGES = {"bias": {"bias": 0.3}, "blind": {"blind": True}, "cost": {"dear": 1.28}}


@pytest.mark.parametrize("change", CHANGES)
def test_a_large_change_is_found(change: str) -> None:
    larger = {"bias": {"bias": 0.8}, "blind": {"blind": True}, "cost": {"dear": 1.8}}[change]
    found = [found_after(seed, 600, **larger) for seed in range(2)]
    assert max(after for after, _ in found) <= 600
    assert {kind for _, kind in found} == {"cost" if change == "cost" else "reading"}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_within_600_requests_in_the_median(change: str) -> None:
    found = [found_after(seed, 3000, **CHANGES[change])[0] for seed in range(101)]
    assert median(found) <= 600


@pytest.mark.slow
def test_healthy_traffic_seldom_alarms() -> None:
    monitors = 150
    alarms = sum(found_after(seed, 10_000)[0] < float("inf") for seed in range(monitors))
    assert alarms <= 0.02 * monitors


def test_the_spread_of_a_few_requests_is_not_trusted() -> None:
    monitor = Monitor()
    router = Router(cascade(low=LOW, high=LOW), lambda tier, _: Reply(tier, {}, 2.0), monitor=monitor)
    for _ in range(49):
        router.route("?")
    assert monitor.recalibrate == ()
    router.route("?")
    assert [(drift.kind, drift.requests) for drift in monitor.recalibrate] == [("cost", 50)]
