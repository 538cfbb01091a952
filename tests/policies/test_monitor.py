"""The monitor counts everything once, is quiet where nothing changed, and finds what did."""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from statistics import median, pstdev
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2, chi2_contingency, mannwhitneyu, norm

from metaverify.policies.actions import Abstain, Accept, Call, Verify
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.policies.monitor import (
    COST_ALARMS,
    HEALTHY,
    Drift,
    Monitor,
    _CostSum,
    _expected_calls,
    _filed_spread,
    _groups,
    _Histogram,
    _steady_prices,
    _Watch,
    chi_square,
    chi_square_quantile,
    cusum_limit,
    trend,
    unconditional_readings,
)
from metaverify.policies.policy import OperatingPoint, Policy, Vertex, VertexEvidence
from metaverify.policies.routed import Routed, Step
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


def test_so_many_reasons_are_counted_apart_and_the_others_together() -> None:
    monitor = Monitor()
    for number in range(60):
        reason = f"request {number % 55} failed"
        monitor.record(routed_of(cascade(), [bought(Call("small"), reason), bought(Call("large"), "cap")], 1.0, None))
    reasons = monitor.report()["reasons"]
    assert len(reasons) == 50 + 2
    assert (reasons["other"], reasons["cap"]) == (5, 60)  # what a router says itself is always told
    assert [reasons[f"request {number} failed"] for number in (0, 4, 5, 49)] == [2, 2, 1, 1]
    assert sum(reasons.values()) == 120


@pytest.mark.parametrize("filed", [True, False])
def test_an_absurd_cost_raises_the_alarm_and_nothing_else(filed: bool) -> None:
    policy = cascade(low=LOW, high=LOW)
    spread = replace(policy, vertices=tuple(replace(v, evidence=evidence(1.0, 0.1)) for v in policy.vertices))
    costs = iter([*[1.0] * 60, 1e100])
    monitor = Monitor()
    router = Router(spread if filed else policy, lambda tier, _: Reply(tier, {}, next(costs, 1.0)), monitor=monitor)
    for _ in range(100):
        assert router.route("?").answer == "small"
    assert [drift.requests for drift in monitor.recalibrate] == [61]
    assert (monitor.report()["requests"], monitor.report()["unrecorded"]) == (100, 0)
    assert monitor.report()["cost"] == pytest.approx(1e100)


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
    spreads = [pstdev(row[1] + row[2] * (not row[0] >= cut) for row in log) for cut in chosen]
    vertices = tuple(
        Vertex(0.0, cost, 0.8, root, evidence=replace(evidence(1.0, 0.5), cost_sd=spread))
        for root, (cost, spread) in enumerate(zip(costs, spreads, strict=True))
    )
    return Policy(tiers, nodes, vertices, OperatingPoint(0, 1, 0.5))


def unspread(policy: Policy) -> Policy:
    """The policy of a file that does not say how far costs lie apart."""
    return replace(policy, vertices=tuple(replace(vertex, evidence=None) for vertex in policy.vertices))


def found_after(seed: int, rows: int, *, filed: bool = True, **change: Any) -> tuple[float, str]:
    """How many changed requests it took until something was found, after 500 healthy ones; and what was."""
    rng = np.random.default_rng(seed)
    policy, monitor = fitted(rng), Monitor()
    policy = policy if filed else unspread(policy)
    queries = [*(traffic(rng, 500) if change else []), *traffic(rng, rows, **change)]

    def call(tier: str, row: tuple[float, float, float]) -> Reply:
        return Reply(tier, {"conf": row[0]}, row[1]) if tier == "small" else Reply(tier, {}, row[2])

    router = Router(policy, call, monitor=monitor)
    for at, row in enumerate(queries):
        router.route(row, key=at)
        if monitor.recalibrate:
            return at + 1 - (len(queries) - rows), monitor.recalibrate[0].kind
    return float("inf"), ""


CHANGES: dict[str, dict[str, Any]] = {
    "bias": {"bias": 0.3},
    "blind": {"blind": True},
    "cost": {"dear": 1.28},
    "cost, a little": {"dear": 1.2},
    "cost, spread unknown": {"dear": 1.28, "filed": False},
}
LARGER: dict[str, dict[str, Any]] = {
    "bias": {"bias": 0.8},
    "blind": {"blind": True},
    "cost": {"dear": 1.8},
    "cost, spread unknown": {"dear": 1.8, "filed": False},
}


@pytest.mark.parametrize("change", LARGER)
def test_a_large_change_is_found(change: str) -> None:
    found = [found_after(seed, 600, **LARGER[change]) for seed in range(2)]
    assert max(after for after, _ in found) <= 600
    assert {kind for _, kind in found} == {"cost" if "cost" in change else "reading"}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_in_time_in_the_median(change: str) -> None:
    found = [found_after(seed, 3000, **CHANGES[change])[0] for seed in range(101)]
    assert median(found) <= (700 if CHANGES[change].get("dear") == 1.2 else 600)


def found_in_costs(seed: int, rows: int) -> float:
    """The request at which healthy costs alarm by a CUSUM in numpy, the readings left out."""
    rng = np.random.default_rng(seed)
    policy, queries = fitted(rng), np.array(traffic(rng, rows))
    arm = np.array([policy.arm(at) for at in range(rows)])
    cuts = np.array([policy.nodes[at].cuts[0] for at in (2, 3)])  # type: ignore[union-attr]
    costs = np.array([vertex.cost for vertex in policy.vertices])
    spent = queries[:, 1] + queries[:, 2] * ~(queries[:, 0] >= cuts[arm])
    mean = policy.expected_cost
    spread = math.sqrt(sum(vertex.evidence.cost_sd**2 for vertex in policy.vertices) / 2) / mean  # type: ignore[union-attr,operator]
    sums = np.cumsum((spent - costs[arm]) / mean - 0.125)
    above = sums - np.minimum(np.minimum.accumulate(sums), 0.0) > spread * siegmund(0.125 / spread, 1e7)
    return float(np.argmax(above) + 1) if above.any() else float("inf")


@pytest.mark.slow
def test_healthy_traffic_seldom_alarms() -> None:
    """In at most 2 % of monitors: 1 % by costs, of which a faster reckoning sees more of them, and 1 % by readings."""
    monitors, many = 150, 1500
    by_costs = {seed: found_in_costs(seed, 10_000) for seed in range(many)}
    assert sum(at < float("inf") for at in by_costs.values()) <= 0.01 * many
    readings = 0
    for seed in range(monitors):
        at, kind = found_after(seed, 10_000)
        readings += kind == "reading"
        assert at <= by_costs[seed]
        assert kind != "cost" or at == by_costs[seed]
    assert readings <= 0.01 * monitors


def dearer(policy: Policy, factor: float, requests: int, vary: float = 0.0) -> Monitor:
    """A monitor of a router of which every purchase costs so many times as much as listed, and varies about that."""
    rng, monitor = np.random.default_rng(5), Monitor()

    def paid(price: float) -> float:
        return price * factor * (1.0 + vary * float(rng.uniform(-1.0, 1.0)))

    def call(tier: str, confidence: float) -> Reply:
        small = tier == "small"
        return Reply(tier, {"conf": confidence} if small else {}, paid(1.0 if small else 10.0))

    router = Router(policy, call, lambda *_: Look(0.1, paid(0.5)), monitor=monitor)
    for request in range(requests):
        router.route(request % 2)
    return monitor


@pytest.mark.parametrize(("factor", "vary"), [(1.28, 0.0), (1.28, 0.5), (1.0, 0.0), (1.0, 0.5), (0.5, 0.0)])
def test_a_fixed_price_that_rose_is_found_at_once_however_much_requests_differ(factor: float, vary: float) -> None:
    policy = replace(cascade(low=MIDDLE, high=MIDDLE), provenance={"dearest": []})
    policy = replace(policy, vertices=tuple(replace(v, cost=6.25) for v in policy.vertices))
    found = [drift for drift in dearer(policy, factor, 200, vary).recalibrate if "fixed prices" in drift.name]
    assert [drift.kind for drift in found] == ["cost"] * (factor > 1.0)
    assert all(drift.requests <= 110 for drift in found)
    assert all(str(drift).startswith("the mean of what is bought at fixed prices is no longer ") for drift in found)


def test_only_prices_that_are_known_to_be_fixed_are_held_to_the_file() -> None:
    policy = cascade(low=MIDDLE, high=MIDDLE)
    everything = {"small": 1.0, ("small", "conf"): 0.0, ("small", "judge"): 0.5, "large": 10.0}
    for provenance, steady in (
        ({"dearest": []}, everything),
        ({"dearest": [["large", None, 12.0], ["small", "judge", 0.7]]}, {"small": 1.0, ("small", "conf"): 0.0}),
        ({}, {}),
        ({"dearest": None}, {}),
        ({"dearest": [["large"]]}, {}),
        ({"dearest": [[["large"], None, 1.0]]}, {}),
    ):
        assert _steady_prices(replace(policy, provenance=provenance)) == steady


def test_only_what_was_paid_as_planned_is_held_to_its_fixed_price() -> None:
    policy = replace(cascade(low=LOW, high=LOW), provenance={"dearest": []})
    for reason in ("fallback", "explored", "down", "invalid cost", "interrupted", "cap"):
        monitor = Monitor()
        for _ in range(200):
            step = Step(Call("small"), {}, 50.0, 50.0, None, reason)
            monitor.record(routed_of(policy, [step], 1.0, "small", LOW))
        assert monitor.recalibrate == ()
    for reason in ("", "invalid"):
        monitor = Monitor()
        for _ in range(50):
            monitor.record(routed_of(policy, [Step(Call("small"), {}, 2.0, 2.0, None, reason)], 1.0, "small", LOW))
        assert [drift.name for drift in monitor.recalibrate] == ["what is bought at fixed prices"]


def test_the_spread_of_a_few_requests_is_not_trusted() -> None:
    monitor = Monitor()
    router = Router(cascade(low=LOW, high=LOW), lambda tier, _: Reply(tier, {}, 2.0), monitor=monitor)
    for _ in range(49):
        router.route("?")
    assert monitor.recalibrate == ()
    router.route("?")
    assert [(drift.kind, drift.requests) for drift in monitor.recalibrate] == [("cost", 50)]


def routed_of(policy: Policy, steps: Sequence[Step], cost: float, tier: str | None, vertex: int = HIGH) -> Routed:
    last = Step(Abstain() if tier is None else Accept(tier), {}, 0.0, cost, None)
    return Routed(None, tier, (*steps, last), Snapshot(policy, "id"), vertex)


def bought(action: Call | Verify, reason: str = "", **readings: Any) -> Step:
    return Step(action, readings, 1.0, 1.0, None, reason)


def test_what_was_never_tried_is_counted_by_its_reason_alone() -> None:
    monitor = Monitor()
    steps = [
        bought(Call("small"), "cap"),
        bought(Verify("small", "judge"), "unanswered"),
        bought(Call("large"), "down"),
    ]
    monitor.record(routed_of(cascade(), steps, 2.5, None))
    report = monitor.report()
    assert (report["calls"], report["reads"], report["accepts"]) == ({"large": 1}, {}, {})
    assert report["reasons"] == {"cap": 1, "down": 1, "unanswered": 1}
    assert (report["requests"], report["handed_over"], report["cost"]) == (1, 1, 2.5)
    assert report["readings"] == {}


def test_a_reading_that_failed_is_missing_and_one_that_was_not_told_is_none_at_all() -> None:
    policy = cascade()
    for steps, counted in (
        ([bought(Call("small"), conf=0.5)], {"small.conf": [0, 1, 0]}),
        ([bought(Call("small"), conf=0.49)], {"small.conf": [1, 0, 0]}),
        ([bought(Call("small"), conf=None)], {"small.conf": [0, 0, 1]}),
        ([bought(Call("small"), conf=1.5)], {"small.conf": [0, 0, 1]}),
        ([bought(Call("small")), bought(Verify("small", "conf"), "down")], {"small.conf": [0, 0, 1]}),
        ([bought(Call("small")), bought(Verify("small", "conf"), conf=0.9)], {"small.conf": [0, 1, 0]}),
        ([bought(Call("small"))], {}),
    ):
        monitor = Monitor()
        monitor.record(routed_of(policy, steps, 1.0, "small"))
        assert monitor.report()["readings"] == counted


def test_votes_are_counted_as_their_share_once_all_were_asked() -> None:
    tier = Tier("small", 1.0, (Reading("votes", 0.0, (0.5,), (5, 5, 0), votes=4),))
    nodes = (Ask("small", 1), Read("small", "votes", (0.5,), (2, 2), 2), Stop(Accept("small")))
    policy = Policy((tier,), nodes, (Vertex(0.0, 1.0, 0.5, 0),), OperatingPoint(0, 0, 0.0))
    monitor = Monitor()
    for told in ((1, 4), (2, 4), [3, 4], (3, 3), (0, 0), None, (2, 8)):
        monitor.record(routed_of(policy, [bought(Call("small"), votes=told)], 1.0, "small", 0))
    assert monitor.report()["readings"] == {"small.votes": [2, 2, 1]}


def test_what_every_request_reads_goes_on_past_a_reading_that_decides_nothing_and_no_further() -> None:
    conf, paid = Reading("conf", 0.0, (0.5,), (5, 5, 0)), Reading("paid", 0.5, (0.5,), (5, 5, 0))
    sample = Reading("again", 0.0, (0.5,), (5, 5, 0), sample=True)
    tiers = (Tier("small", 1.0, (conf, paid, sample)), Tier("large", 2.0, (conf,)))
    nodes = (
        Ask("small", 1),
        Read("small", "paid", (0.5,), (2, 2), 2),
        Ask("large", 3),
        Read("small", "again", (0.5,), (4, 4), 5),
        Stop(Accept("small")),
        Stop(Accept("large")),
    )
    policy = Policy(tiers, nodes, (Vertex(0.0, 1.0, 0.5, 0),), OperatingPoint(0, 0, 0.0))
    everywhere = {("small", "conf"), ("small", "paid"), ("large", "conf"), ("small", "again")}
    assert unconditional_readings(policy, 0) == everywhere


@pytest.mark.parametrize("reason", ["cap", "budget", "cancelled"])
def test_what_a_bound_cut_short_is_no_cost_that_was_expected(reason: str) -> None:
    monitor = Monitor()
    for _ in range(300):
        monitor.record(routed_of(cascade(), [bought(Call("small"), reason)], 100.0, None))
    assert monitor.recalibrate == ()
    for _ in range(300):
        monitor.record(routed_of(cascade(), [bought(Call("small"), "down")], 100.0, None))
    assert [drift.kind for drift in monitor.recalibrate] == ["cost"]


def test_nothing_is_known_of_a_trend_of_nothing() -> None:
    assert trend([0, 0], [5, 3]) == trend([5, 3], [0, 0]) == 0.0
    assert trend([7], [3]) == 0.0
    assert trend([1, 0], [0, 1]) == pytest.approx(2.0)


def test_an_alarm_says_what_to_do() -> None:
    reading = Drift("reading", "conf of small", 31.26, 20.0, 650, "id")
    assert str(reading) == (
        "the histogram of conf of small is no longer that of the log (31.3 > 20.0 after 650 requests): fit again on "
        "newer queries"
    )
    cost = Drift("cost", "the cost of a request", 3.0, 2.0, 90, "id")
    assert str(cost).startswith("the mean of the cost of a request is no longer that of the log (3.0 > 2.0 after 90 ")


def test_the_counters_are_told_as_prometheus_wants_them() -> None:
    monitor = Monitor()
    steps = [
        bought(Call("small"), conf=0.1),
        bought(Verify("small", "judge"), judge=0.2),
        bought(Call("large"), "down"),
    ]
    monitor.record(routed_of(cascade(), steps, 2.5, "small"))
    monitor.record(routed_of(cascade(), [], 0.0, None))
    assert (
        monitor.prometheus()
        == """\
# HELP metaverify_requests_total Requests that came to their end.
# TYPE metaverify_requests_total counter
metaverify_requests_total 2
# HELP metaverify_cost_total What they cost.
# TYPE metaverify_cost_total counter
metaverify_cost_total 2.5
# HELP metaverify_handed_over_total Requests without an answer.
# TYPE metaverify_handed_over_total counter
metaverify_handed_over_total 1
# HELP metaverify_calls_total Calls of a tier.
# TYPE metaverify_calls_total counter
metaverify_calls_total{tier="large"} 1
metaverify_calls_total{tier="small"} 1
# HELP metaverify_reads_total Readings of a tier that were bought.
# TYPE metaverify_reads_total counter
metaverify_reads_total{tier="small"} 1
# HELP metaverify_accepts_total Answers of a tier that were returned.
# TYPE metaverify_accepts_total counter
metaverify_accepts_total{tier="small"} 1
# HELP metaverify_unplanned_steps_total Steps that went otherwise than planned.
# TYPE metaverify_unplanned_steps_total counter
metaverify_unplanned_steps_total{reason="down"} 1
# HELP metaverify_outages_total Requests that were decided as is best without tiers that were down.
# TYPE metaverify_outages_total counter
# HELP metaverify_unrecorded_total Requests that could not be counted.
# TYPE metaverify_unrecorded_total counter
metaverify_unrecorded_total 0
# HELP metaverify_unwatched_total Requests of another policy than the one that is watched for drift.
# TYPE metaverify_unwatched_total counter
metaverify_unwatched_total 0
# HELP metaverify_recalibrate Readings and costs that are no longer those of the log.
# TYPE metaverify_recalibrate gauge
metaverify_recalibrate 0
"""
    )


def cusum(costs: Sequence[tuple[float, float]], expected: float) -> list[float]:
    """The height after each request over its limit, in exact fractions but for the root; 0 where none is told."""
    unit, heights = Fraction(expected or 1.0) / 1024, []
    height = total = squares = Fraction(0)
    for count, (cost, wanted) in enumerate(costs, start=1):
        excess = Fraction(round((cost - wanted) / float(unit)))
        total, squares = total + excess, squares + excess**2
        height = max(height + excess - 128, Fraction(0))
        spread = math.sqrt(max(squares / count - (total / count) ** 2, 64**2))
        limit = spread * cusum_limit(128 / spread, 10_000 / 0.001)
        heights.append(float(height) / limit if count >= 50 and height else 0.0)
    return heights


@examples(20)
@given(seed=st.integers(0, 10**6), expected=st.sampled_from([0.0, 1.0, 7.5]))
def test_the_cost_alarm_sounds_at_the_request_at_which_a_cusum_by_hand_does(seed: int, expected: float) -> None:
    rng = np.random.default_rng(seed)
    policy = Policy(
        (Tier("small", 1.0),), (Ask("small", 1), Stop(Accept("small"))),
        (Vertex(0.0, expected, 0.5, 0),), OperatingPoint(0, 0, 0.0),
    )  # fmt: skip
    costs = [float(cost) for cost in rng.gamma(2.0, 0.5 * (expected or 1.0) * (1 + 0.6 * (seed % 2)), 400)]
    if not expected:
        costs = [0.2 * cost for cost in costs]
    monitor = Monitor()
    alarm = None
    for at, cost in enumerate(costs):
        monitor.record(routed_of(policy, [], cost, "small", 0))
        if monitor.recalibrate and alarm is None:
            alarm = at
    heights = cusum([(cost, expected) for cost in costs], expected)
    assert alarm == next((at for at, height in enumerate(heights) if height > 1.0), None)


def test_neighbouring_bins_are_joined_into_four_groups_of_equal_shares() -> None:
    assert _groups((10, 10, 10, 10, 3)) == (0, 1, 2, 3, 4)
    assert _groups((5,) * 8 + (0,)) == (0, 0, 1, 1, 2, 2, 3, 3, 4)
    assert _groups((97, 1, 1, 1, 7)) == (1, 3, 3, 3, 4)
    assert _groups((0, 0, 0)) == (0, 0, 4)
    assert _groups((1, 97, 2, 0)) == (0, 1, 3, 4)


def test_the_last_six_hundred_readings_are_compared_after_each_fifty() -> None:
    histogram = _Histogram((0.5,), (400, 600, 10))
    values = [0.25] * 100 + [0.75] * 900
    told = []
    for at, value in enumerate(values):
        found = histogram.add(value)
        if found:
            recent = values[max(0, at + 1 - 600) : at + 1]
            now = [recent.count(0.25), recent.count(0.75), 0]
            assert found == (chi_square((400, 600, 10), now, (0, 2, 4)), (trend((400, 600), now[:2]), 1))
            told.append(at + 1)
    assert told == list(range(50, 1001, 50))
    assert histogram.counts == [100, 900, 0]
    silent = _Histogram((0.5,), (0, 0, 0))
    assert [silent.add(0.25) for _ in range(100)] == [()] * 100


def test_a_report_says_which_policy_is_meant_and_what_drifted() -> None:
    monitor = Monitor()
    for _ in range(2000):
        monitor.record(routed_of(cascade(), [bought(Call("small"), conf=0.1)], 20.0, "small"))
    report = monitor.report()
    assert report["policy"] == "id"
    assert report["expected"] == {}
    drifts = {drift["name"]: drift for drift in report["recalibrate"]}
    assert drifts.keys() == {"conf of small", "the cost of a request"}
    for drift, known in zip(report["recalibrate"], monitor.recalibrate, strict=True):
        assert drift == {
            "kind": known.kind, "name": known.name, "statistic": known.statistic, "limit": known.limit,
            "requests": known.requests, "policy": "id", "message": str(known),
        }  # fmt: skip
    assert drifts["conf of small"]["requests"] == 50
    assert drifts["the cost of a request"]["requests"] == 50
    assert monitor.prometheus().endswith("metaverify_recalibrate 2\n")


def evidence(*calls: float | None) -> VertexEvidence:
    return VertexEvidence((0.0, 1.0), (0.0, 1.0), calls, calls)


def test_shares_are_expected_where_both_vertices_were_cross_fitted_and_of_tiers_that_answer() -> None:
    tiers = (Tier("small", 1.0), Tier("judge", 0.0, (Reading("v", 1.0, (), (0, 0)),), False), Tier("large", 9.0))
    nodes = (Ask("small", 2), Ask("large", 3), Stop(Accept("small")), Stop(Accept("large")))

    def expected(low: VertexEvidence | None, high: VertexEvidence | None) -> dict[str, float]:
        vertices = (Vertex(0.0, 1.0, 0.5, 0, evidence=low), Vertex(0.0, 9.0, 0.6, 1, evidence=high))
        return _expected_calls(Policy(tiers, nodes, vertices, OperatingPoint(0, 1, 0.25)))

    assert expected(evidence(1.0, None, 0.0), evidence(0.5, None, 1.0)) == {"small": 0.875, "large": 0.25}
    assert expected(evidence(1.0, None, 0.0), None) == expected(None, evidence(1.0, None, 0.0)) == {}
    with pytest.raises(ValueError, match="zip"):
        expected(evidence(1.0, None, 0.0), evidence(1.0, None))


@pytest.mark.parametrize(
    ("value", "counts"),
    [(-5e-324, [0, 0, 1]), (0.0, [1, 0, 0]), (0.5, [0, 1, 0]), (1.0, [0, 1, 0]), (1.0 + 2**-52, [0, 0, 1])],
)
def test_a_reading_falls_in_the_bin_that_the_file_says(value: float, counts: list[int]) -> None:
    monitor, policy = Monitor(), cascade()
    conf, *others = policy.tiers[0].readings
    tier = replace(policy.tiers[0], readings=(replace(conf, cuts=(0.5,), counts=(5, 5, 0)), *others))
    policy = replace(policy, tiers=(tier, *policy.tiers[1:]))
    monitor.record(routed_of(policy, [bought(Call("small"), conf=value)], 1.0, "small"))
    assert monitor.report()["readings"] == {"small.conf": counts}


def priced(*prices: list[Any]) -> Policy:
    """A cascade that always calls small, and large where small is doubted; of their prices the file says this."""
    return replace(cascade(), provenance={"prices": [*prices]})


def histogram(tier: str, logged: NDArray[np.float64]) -> list[Any]:
    cuts = [float(cut) for cut in np.quantile(logged, np.arange(1, 8) / 8)]
    return [tier, None, cuts, [int(n) for n in np.bincount(np.searchsorted(cuts, logged, "right"), minlength=8)]]


def paying(policy: Policy, prices: Mapping[str, NDArray[np.float64]], reason: str = "") -> Monitor:
    """A monitor of requests that all buy the same, at these prices; what they cost in all is as expected."""
    monitor, expected = Monitor(), policy.vertices[HIGH].cost
    for paid in zip(*prices.values(), strict=True):
        steps = [Step(Call(tier), {}, cost, cost, None, reason) for tier, cost in zip(prices, paid, strict=True)]
        monitor.record(routed_of(policy, steps, expected, "small"))
    return monitor


def test_a_rise_of_a_price_that_varies_is_found_long_before_it_is_seen_in_costs() -> None:
    """Log-normal prices, as tokens make them: the rank test sees a quarter more in some hundred requests."""
    rng = np.random.default_rng(6)
    policy = priced(histogram("small", rng.lognormal(0.0, 0.8, 2000)))
    for seed in range(5):
        healthy = np.random.default_rng(seed).lognormal(0.0, 0.8, 2000)
        assert paying(policy, {"small": healthy}).recalibrate == ()
        (drift,) = paying(policy, {"small": 1.28 * healthy}).recalibrate
        assert (drift.kind, drift.name) == ("price", "the price of small")
        assert drift.requests <= 600
        assert "the histogram of the price of small is no longer that of the log" in str(drift)


def test_only_prices_of_what_every_request_buys_are_compared_and_only_where_they_were_paid() -> None:
    rng = np.random.default_rng(7)
    logged = rng.lognormal(0.0, 0.8, 2000)
    dearer = {"small": logged, "large": 10.0 * logged}
    assert paying(priced(histogram("large", logged)), dearer).recalibrate == ()  # only the doubted queries buy it
    both = priced(histogram("small", logged), histogram("large", logged))
    assert paying(both, dearer).recalibrate == ()
    ten = {"small": 10.0 * logged}
    assert [drift.requests for drift in paying(both, ten).recalibrate] == [50]
    assert paying(both, ten, reason="timeout").recalibrate == ()  # of which nothing came


def test_a_price_that_nobody_told_is_none_that_is_compared() -> None:
    """Such a step is charged with the file's mean, which is no draw from its histogram."""
    rng = np.random.default_rng(8)
    policy = priced(histogram("small", rng.lognormal(0.0, 0.8, 2000)))
    for cost, names in ((None, ()), (1.0, ("the price of small",))):
        monitor = Monitor()
        router = Router(policy, lambda tier, _, cost=cost: Reply(tier, {"conf": 0.99}, cost), monitor=monitor)  # type: ignore[misc]
        for key in range(60):
            router.route("?", key=key)
        assert tuple(drift.name for drift in monitor.recalibrate if drift.kind == "price") == names
        (step, *_) = router.route("?", key=1).steps
        assert (step.cost, step.told) == (1.0, cost is not None)


@pytest.mark.parametrize(
    "prices",
    [
        3, [3], [["small"]], [["small", None, [1.0], [4]]], [["small", None, [2.0, 1.0], [4, 4, 4]]],
        [["small", None, [1.0], [-4, 4]]], [["small", None, [1.0], [4, True]]], [["small", None, ["x"], [4, 4]]],
        [[["small"], None, [1.0], [4, 4]]], [["small", None, [1.0], 4]], [["small", None, None, [4, 4]]],
    ],
)  # fmt: skip
def test_what_makes_no_sense_as_prices_of_a_log_is_passed_over(prices: Any) -> None:
    policy = replace(cascade(), provenance={"prices": prices})
    monitor = paying(policy, {"small": np.full(100, 50.0)})
    assert monitor.recalibrate == ()
    assert monitor.report()["unrecorded"] == 0


def siegmund(slack: float, run: float) -> float:
    """The limit by halving: where (exp(2kb) - 2kb - 1) / 2k² is the run."""
    low, high = 0.0, 200.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if math.expm1(middle) - middle < 2 * slack**2 * run else (low, middle)
    return max(low / (2 * slack) - 1.166, 0.0)


@pytest.mark.parametrize(("slack", "run"), [(0.5, 930), (0.125, 5e6), (2.0, 5e6), (0.05, 1e4), (0.5, 1.0), (1.0, 0.1)])
def test_the_limit_of_the_cusum_solves_its_equation(slack: float, run: float) -> None:
    assert cusum_limit(slack, run) == pytest.approx(siegmund(slack, run), rel=1e-9)


def average_run(slack: float, limit: float) -> float:
    """How many steps of unit normal noise a CUSUM takes in the mean to come above its limit, by solving the integral
    equation of its height with Gauss and Legendre's nodes; at 0 there is an atom."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    heights = np.concatenate([[0.0], limit * (nodes + 1.0) / 2.0])
    steps = np.empty((401, 401))
    steps[:, 0] = norm.cdf(slack - heights)
    steps[:, 1:] = limit / 2.0 * weights * norm.pdf(heights[1:] + slack - heights[:, None])
    return float(np.linalg.solve(np.eye(401) - steps, np.ones(401))[0])


@pytest.mark.parametrize("spread", [0.25, 0.5, 1.0, 2.5])
def test_without_drift_the_file_s_limit_is_come_to_once_in_ten_million_requests(spread: float) -> None:
    """Costs of mean 2 and this many times that for a standard deviation; the slack is an eighth of the mean."""
    height, limit = _CostSum(2.0, 2.0 * spread).add(3.0, 2.0)
    assert height == 0.375
    run = average_run(0.125 / spread, limit / spread)
    assert run == pytest.approx(HEALTHY / COST_ALARMS, rel=0.02)


@pytest.mark.parametrize("slack", [0.1, 0.25, 0.5])
def test_the_average_run_without_drift_is_as_stated_in_simulations_too(slack: float) -> None:
    rng, runs = np.random.default_rng(7), 400
    limit, steps = cusum_limit(slack, 300.0), np.zeros(runs)
    heights, alive = np.zeros(runs), np.ones(runs, dtype=bool)
    while alive.any():
        heights = np.maximum(heights + rng.normal(size=runs) - slack, 0.0)
        steps += alive
        alive &= heights <= limit
    assert abs(steps.mean() - 300.0) < 4.0 * steps.std() / math.sqrt(runs)


def test_the_spread_of_a_mixture_is_that_of_costs_about_each_graph_s_own_and_none_where_one_does_not_say() -> None:
    policy = fitted(np.random.default_rng(1), 400)
    low, high = (replace(evidence(1.0, 0.5), cost_sd=spread) for spread in (3.0, 4.0))

    def spread(share: float, low: VertexEvidence | None, high: VertexEvidence | None) -> float | None:
        vertices = tuple(replace(v, evidence=e) for v, e in zip(policy.vertices, (low, high), strict=True))
        return _filed_spread(replace(policy, vertices=vertices, point=OperatingPoint(0, 1, share)))

    assert spread(0.25, low, high) == pytest.approx(math.sqrt(0.75 * 9.0 + 0.25 * 16.0))
    assert (spread(0.0, low, high), spread(1.0, low, high)) == (3.0, 4.0)
    for unknown in (None, evidence(1.0, 0.5)):
        assert spread(0.5, low, unknown) is spread(0.5, unknown, high) is None
        assert (spread(0.0, low, unknown), spread(1.0, unknown, high)) == (3.0, 4.0)
        assert spread(0.0, unknown, high) is spread(1.0, low, unknown) is None


def test_the_file_s_spread_sets_the_limit_from_the_first_request_to_the_last() -> None:
    rng = np.random.default_rng(4)
    for spread in (3.0, 0.1, 0.0):  # what is less than a sixteenth of the mean counts as that
        found, height = _CostSum(2.0, spread), 0
        least = max(spread / 2.0, 1 / 16)
        for cost in rng.gamma(2.0, 1.1, 200).tolist():
            height = max(height + round((cost - 2.0) * 512) - 128, 0)
            told = found.add(cost, 2.0)
            assert told == pytest.approx((height / 1024, least * siegmund(0.125 / least, 1e7)))


def test_a_monitor_alarms_at_once_where_the_file_says_how_far_costs_lie_apart() -> None:
    policy = fitted(np.random.default_rng(1), 400)
    for filed, after in ((policy, 1), (unspread(policy), 50)):
        monitor = Monitor()
        for _ in range(after):
            assert monitor.recalibrate == ()
            monitor.record(routed_of(filed, [], 100.0 * filed.expected_cost, "small", 0))
        assert [(drift.kind, drift.requests) for drift in monitor.recalibrate] == [("cost", after)]


@pytest.mark.parametrize("steady", [False, True])
def test_the_sum_of_costs_is_the_one_reckoned_by_hand(steady: bool) -> None:
    rng = np.random.default_rng(3)
    costs = [2.5] * 80 if steady else [float(cost) for cost in rng.gamma(2.0, 1.1, 300)]
    found = _CostSum(2.0)
    height = total = squares = 0
    for count, cost in enumerate(costs, start=1):
        excess = round((cost - 2.0) * 512)
        height, total, squares = max(height + excess - 128, 0), total + excess, squares + excess**2
        spread = math.sqrt(max(squares / count - (total / count) ** 2, 64**2))
        limit = spread * siegmund(128 / spread, 1e7) / 1024
        told = found.add(cost, 2.0)
        assert told == (pytest.approx((height / 1024, limit)) if count >= 50 and height else (0.0, math.inf))


def test_groups_and_statistics_of_few_readings_are_those_reckoned_by_hand() -> None:
    assert _groups((1, 0)) == (2, 4)
    assert _groups((4, 4, 0)) == (1, 3, 4)
    assert _groups((4, 0, 0)) == (2, 3, 4)
    assert chi_square([5, 45], [5, 45], [0, 1]) == (0.0, 1)  # five are expected: enough
    assert chi_square([4, 46], [5, 45], [0, 1]) == (0.0, 0)
    assert chi_square([1, 0, 1], [1, 0, 1], [0, 1, 2]) == (0.0, 2)  # with all of them rare nothing is joined
    assert chi_square([1, 1], [1, 0], [0, 1]) == (pytest.approx(0.75), 1)
    for wrong in (([1, 2], [1], [0, 1]), ([1, 2], [1, 2], [0])):
        with pytest.raises(ValueError, match="zip"):
            chi_square(*wrong)
    with pytest.raises(ValueError, match="zip"):
        trend([1, 2], [1])


def test_a_histogram_with_one_group_never_alarms_and_nonsense_is_counted() -> None:
    readings = (Reading("flat", 0.0, (), (100, 0)), Reading("vote", 0.0, (0.5,), (50, 50, 0), votes=1))
    nodes = (Ask("small", 1), Stop(Accept("small")))
    policy = Policy((Tier("small", 1.0, readings),), nodes, (Vertex(0.0, 1.0, 0.5, 0),), OperatingPoint(0, 0, 0.0))
    monitor = Monitor()
    for _ in range(60):
        monitor.record(routed_of(policy, [bought(Call("small"), flat=0.5, vote=(1, 1))], 1.0, "small", 0))
    assert monitor.report()["readings"] == {"small.flat": [60, 0], "small.vote": [0, 60, 0]}
    assert {drift.name for drift in monitor.recalibrate} == {"vote of small"}
    monitor.record(routed_of(policy, [bought(Call("small"), flat="high", vote=None)], 1.0, "small", 0))
    assert (monitor.report()["requests"], monitor.report()["unrecorded"]) == (61, 1)


def test_the_chance_of_an_alarm_is_shared_by_all_that_is_looked_at() -> None:
    assert _Watch(Snapshot(cascade(), "id")).chance == pytest.approx(0.01 / 1 / 100 / 2)


def test_the_policy_of_a_store_that_took_another_s_place_is_watched_and_a_straggler_s_is_not() -> None:
    old, new = (Snapshot(cascade(), name) for name in ("old", "new"))  # both the first of their store
    monitor = Monitor()

    def route(snapshot: Snapshot, cost: float) -> None:
        monitor.record(Routed(None, "small", (Step(Accept("small"), {}, 0.0, cost, None),), snapshot, HIGH))

    route(old, 1.0)
    for _ in range(50):
        route(new, 1e6)
    route(old, 1.0)  # nobody took its place
    assert (monitor.report()["policy"], monitor.report()["unwatched"]) == ("old", 50)
    for _ in range(120):
        route(new, 1e6)
    report = monitor.report()
    assert (report["policy"], report["unwatched"]) == ("new", 100)
    assert [(drift.kind, drift.policy) for drift in monitor.recalibrate] == [("cost", "new")]
    route(old, 1.0)
    assert (monitor.report()["policy"], monitor.report()["unwatched"]) == ("new", 101)
    route(Snapshot(cascade(), "later", 1), 1.0)
    assert (monitor.report()["policy"], monitor.recalibrate) == ("later", ())


def test_readings_and_prices_are_told_with_their_histograms() -> None:
    watch = _Watch(Snapshot(priced(histogram("small", np.linspace(1.0, 2.0, 80))), "id"))
    watch.record(routed_of(cascade(), [bought(Call("small"), conf=0.9)], 1.0, "small"))
    told = {(kind, name): found.counts for kind, name, found in watch.histograms()}
    assert told.keys() == {("reading", "conf of small"), ("price", "the price of small")}
    assert [sum(counts) for counts in told.values()] == [1, 1]
