"""A shadow's report: against replay, against routers, on a week with a drifted day, and under many null weeks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from metaverify.policies.actions import Accept
from metaverify.policies.decision_log import DecisionLog
from metaverify.policies.exploration import Exploration
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.router import Failure, Reply, Router
from metaverify.policies.tiers import Reading, Tier
from metaverify.report import shadow_table
from metaverify.simulators.decisions import read_labels
from metaverify.simulators.log import LogError, LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.shadowing import (
    UNKNOWN,
    Margins,
    ShadowReport,
    Side,
    compare_decisions,
    compare_routes,
    holm,
    is_decision_log,
    report_of,
)
from tests.strategies import random_log

DAYS = [f"2026-11-{day:02}" for day in range(2, 9)]
DRIFTED = "2026-11-06"


def cut(at: float, prices: tuple[float, float] = (1.0, 8.0)) -> Policy:
    """Keep the small tier's answer from a confidence on."""
    tiers = (Tier("small", prices[0], (Reading("conf", 0.0, (0.5,), (0, 0, 0)),)), Tier("large", prices[1]))
    nodes = (Ask("small", 1), Read("small", "conf", (at,), (2, 3), 2), Ask("large", 4))
    nodes += (Stop(Accept("small")), Stop(Accept("large")))
    return Policy(tiers, nodes, (Vertex(0.0, 5.0, 0.8, 0),), OperatingPoint(0, 0, 0.0))


def week(rows: int, seed: int, *, drifted: bool) -> tuple[ReplayLog, dict[str, Any]]:
    """A week of queries; on one day the confidences in code say nothing, and lie between the cuts of two policies."""
    rng = np.random.default_rng(seed)
    day = np.array(DAYS, dtype=object)[np.arange(rows) % 7]
    context = np.where(rng.random(rows) < 0.4, "code", "chat").astype(object)
    small = (rng.random(rows) < 0.7).astype(float)
    large = (rng.random(rows) < 0.9).astype(float)
    confidence = np.clip(rng.normal(0.3 + 0.6 * small, 0.08), 0.0, 1.0)
    if drifted:
        confidence = np.where((day == DRIFTED) & (context == "code"), 0.75, confidence)
    ids = np.array([f"q{row}" for row in range(rows)], dtype=object)
    reading = LoggedReading("conf", confidence, np.zeros(rows))
    tiers = LoggedTier("small", small, np.ones(rows), (reading,)), LoggedTier("large", large, np.full(rows, 8.0))
    return ReplayLog(ids, tiers, np.ones(rows), ids, context, ("task",)), {"day": day}


LIVE, CANDIDATE = cut(0.8), cut(0.7)


@pytest.mark.parametrize("seed", range(3))
def test_the_drifted_day_and_its_slice_are_named(seed: int) -> None:
    log, slices = week(4200, seed, drifted=True)
    found = report_of(compare_routes(CANDIDATE, LIVE, log, slices))
    assert found.verdict == "not safe"
    worst = found.slices[0]
    assert worst.where == f"day {DRIFTED}, context code"
    assert "quality" in worst.worse
    assert {each.where for each in found.slices if each.worse} <= {
        f"day {DRIFTED}",
        f"day {DRIFTED}, context code",
        "context code",
    }
    assert any(f"day {DRIFTED}, context code" in reason for reason in found.reasons)
    assert f"day {DRIFTED}, context code" in shadow_table(found)


@pytest.mark.parametrize("seed", range(3))
def test_without_drift_nothing_is_named_and_the_candidate_is_safe(seed: int) -> None:
    log, slices = week(4200, seed, drifted=False)
    found = report_of(compare_routes(CANDIDATE, LIVE, log, slices))
    assert [each.where for each in found.slices if each.worse] == []
    assert (found.verdict, found.reasons) == ("safe", ())
    assert found.tested == 7 * 3 + 2 * 3 + 14 * 3


def test_on_a_full_log_the_means_are_those_of_replay() -> None:
    log, slices = week(500, 5, drifted=True)
    found = report_of(compare_routes(CANDIDATE, LIVE, log, slices))
    now, then = (replay(policy, log) for policy in (LIVE, CANDIDATE))
    assert found.live_cost.mean == pytest.approx(now.cost.mean)
    assert (found.live_cost.low, found.live_cost.high) == pytest.approx((now.cost.low, now.cost.high))
    assert found.cost.mean == pytest.approx(then.cost.mean - now.cost.mean)
    assert found.quality.mean == pytest.approx(then.quality.mean - now.quality.mean)
    for name in ("small", "large"):
        assert found.tiers[name] == pytest.approx((now.accepts[name], then.accepts[name]))
    assert (found.unidentified, found.labelled) == (0.0, 1.0)


def test_weights_groups_and_the_draw_by_id_count() -> None:
    log = random_log(300, 4, readings=("free", ""), weighted=True, groups=True)
    tiers = (Tier("tier0", 1.0, (Reading("free", 0.0, (), (0, 0)),)), Tier("tier1", 4.0))
    nodes = (Ask("tier0", 1), Read("tier0", "free", (0.6,), (2, 3), 2), Ask("tier1", 4))
    nodes += (Stop(Accept("tier0")), Stop(Accept("tier1")))
    only = (Ask("tier0", 5), Ask("tier0", 2), Read("tier0", "free", (0.6,), (3, 5), 3), Ask("tier1", 4))
    only += (Stop(Accept("tier1")), Stop(Accept("tier0")))
    vertices = (Vertex(0.1, 1.0, 0.5, 0), Vertex(0.0, 3.0, 0.7, 1))
    mixed = Policy(tiers, only, vertices, OperatingPoint(0, 1, 0.5))
    dear = Policy(tiers, nodes, (Vertex(0.0, 3.0, 0.7, 0),), OperatingPoint(0, 0, 0.0))
    side = compare_routes(mixed, dear, log, {})
    cheap = np.array([mixed.arm(str(query)) == 0 for query in log.query_ids])
    assert (side.candidate[cheap] == "tier0").all()
    assert (side.candidate[~cheap] == side.live[~cheap]).all()
    found = report_of(side)
    alone = compare_routes(dear, dear, log, {})
    assert not alone.differs.any()
    assert found.differs == pytest.approx(float(log.weights[side.differs].sum() / log.weights.sum()))
    ungrouped = report_of(replace(side, groups=np.arange(len(log))))
    assert ungrouped.cost.mean == found.cost.mean
    assert ungrouped.cost.high != found.cost.high


# A router's log -------------------------------------------------------------------------------------------------------


def routed(
    log: ReplayLog,
    days: Any,
    path: Path,
    policy: Policy,
    *,
    explore: float = 0.0,
    failing: frozenset[int] = frozenset(),
) -> None:
    """What a router with the policy leaves of these queries."""
    clock = iter(np.array([np.datetime64(day, "s").astype(int) + 3600 for day in days], dtype=float).tolist())
    small, _ = log.tiers

    def call(tier: str, row: int) -> Reply:
        if row in failing:
            raise Failure("rate limit", cost=0.0)
        given = {"conf": float(small.readings[0].confidence[row])} if tier == "small" else {}
        return Reply(tier, given, cost=1.0 if tier == "small" else 8.0)

    with DecisionLog(path, clock=lambda: next(clock)) as decisions:
        exploration = Exploration(explore) if explore else None
        router = Router(policy, call, log=decisions, exploration=exploration)
        assert log.contexts is not None
        for row in range(len(log)):
            router.route(row, key=str(log.query_ids[row]), context=str(log.contexts[row]))
    assert decisions.dropped == 0


def labelled(log: ReplayLog, path: Path, share: float = 1.0) -> pl.DataFrame:
    rows = [
        {"query_id": str(query), "tier": tier.name, "correct": float(tier.correct[row])}
        for row, query in enumerate(log.query_ids[: round(share * len(log))])
        for tier in log.tiers
    ]
    pl.DataFrame(rows).write_csv(path)
    return read_labels(path)


def test_a_decision_log_that_saw_enough_says_what_the_full_log_says(tmp_path: Path) -> None:
    log, slices = week(1400, 3, drifted=True)
    routed(log, slices["day"], tmp_path / "d.jsonl", LIVE)
    assert is_decision_log(tmp_path / "d.jsonl")
    side = compare_decisions(CANDIDATE, tmp_path / "d.jsonl", labelled(log, tmp_path / "labels.csv"))
    full = compare_routes(CANDIDATE, LIVE, log, slices)
    for name in ("live", "candidate", "live_cost"):
        assert np.array_equal(getattr(side, name), getattr(full, name))
    for name in ("cost", "gain"):
        for at in (0, 1):
            assert np.array_equal(getattr(side, name)[at], getattr(full, name)[at])
    assert np.array_equal(side.slices["day"], slices["day"])
    assert report_of(side).slices[0].where == report_of(full).slices[0].where == f"day {DRIFTED}, context code"


def test_what_nobody_bought_is_not_identified_and_the_truth_lies_within(tmp_path: Path) -> None:
    log, slices = week(700, 3, drifted=False)
    routed(log, slices["day"], tmp_path / "d.jsonl", CANDIDATE)  # the other way round: the candidate is dearer
    side = compare_decisions(LIVE, tmp_path / "d.jsonl", labelled(log, tmp_path / "labels.csv"))
    full = compare_routes(LIVE, CANDIDATE, log, slices)
    unknown = side.candidate == UNKNOWN
    assert np.array_equal(unknown, full.differs)
    for name in ("cost", "gain"):
        low, high = getattr(side, name)
        assert (low <= getattr(full, name)[0] + 1e-12).all()
        assert (getattr(full, name)[0] <= high + 1e-12).all()
        assert np.array_equal(low[~unknown], high[~unknown])
    assert np.array_equal(side.cost[0], full.cost[0])  # what it wants, at its price, is all that it wants
    found = report_of(side)
    assert found.unidentified == pytest.approx(unknown.mean())
    assert found.quality.mean is None
    assert found.cost.mean is not None
    assert "not identified" in shadow_table(found)
    routed(log, slices["day"], tmp_path / "e.jsonl", CANDIDATE, explore=1.0)
    explored = compare_decisions(LIVE, tmp_path / "e.jsonl", labelled(log, tmp_path / "labels.csv"))
    assert not (explored.candidate == UNKNOWN).any()
    assert np.array_equal(explored.gain[0], full.gain[0])
    assert np.array_equal(explored.live_cost, full.live_cost)


def test_without_labels_quality_is_known_where_answers_are_the_same(tmp_path: Path) -> None:
    log, slices = week(700, 3, drifted=False)
    routed(log, slices["day"], tmp_path / "d.jsonl", LIVE)
    side = compare_decisions(CANDIDATE, tmp_path / "d.jsonl")
    found = report_of(side)
    assert found.labelled == pytest.approx(1.0 - found.differs)
    assert (side.gain[0][side.differs] == -1.0).all()
    assert (side.gain[1][side.differs] == 1.0).all()
    assert found.verdict == "not known"
    assert "quality may fall by up to" in found.reasons[0]
    half = compare_decisions(CANDIDATE, tmp_path / "d.jsonl", labelled(log, tmp_path / "labels.csv", 0.5))
    assert found.labelled < report_of(half).labelled < 1.0


def test_what_failed_or_was_cut_off_is_left_out(tmp_path: Path) -> None:
    log, slices = week(100, 3, drifted=False)
    path = tmp_path / "d.jsonl"
    routed(log, slices["day"], path, LIVE, failing=(4, 5))
    side = compare_decisions(CANDIDATE, path)
    assert (len(side.live), side.left_out) == (98, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:-1]) + lines[-1][:10])
    assert len(compare_decisions(CANDIDATE, path).live) == 96
    path.write_bytes(lines[1])
    with pytest.raises(LogError, match=r"E_EMPTY: d.jsonl has no request"):
        compare_decisions(CANDIDATE, path)


def test_a_candidate_that_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    log, slices = week(20, 3, drifted=False)
    routed(log, slices["day"], tmp_path / "d.jsonl", LIVE)
    first, *others = CANDIDATE.tiers
    sampling = replace(first, readings=(replace(first.readings[0], sample=True),))
    with pytest.raises(LogError, match="buys samples"):
        compare_decisions(replace(CANDIDATE, tiers=(sampling, *others)), tmp_path / "d.jsonl")
    votes = replace(first, readings=(replace(first.readings[0], votes=3),))
    with pytest.raises(LogError, match=r"d.jsonl: request 'q0': .* not \(yes, asked\)"):
        compare_decisions(replace(CANDIDATE, tiers=(votes, *others)), tmp_path / "d.jsonl")
    assert not is_decision_log(tmp_path / "log.parquet")


# The statistics -------------------------------------------------------------------------------------------------------


def null_week(rng: np.random.Generator, rows: int) -> Side:
    """A candidate that is worse by just the margin, everywhere."""
    gain = rng.choice([-1.0, 0.0, 1.0], rows, p=[0.06, 0.89, 0.05])
    cost = rng.exponential(1.0, rows)
    labels = np.array(["a", "b"], dtype=object)
    then = labels[(gain != 0).astype(int)]
    slices = {"day": np.arange(rows) % 7, "context": rng.integers(0, 4, rows)}
    texts = {name: values.astype(str).astype(object) for name, values in slices.items()}
    ends = np.full(rows, "a", dtype=object)
    return Side(ends, then, cost, (cost * 1.05,) * 2, (gain, gain), np.arange(rows), np.ones(rows), texts)


def test_where_nothing_is_worse_than_the_margin_hardly_ever_is_a_slice_named() -> None:
    rng = np.random.default_rng(0)
    wrong = sum(any(each.worse for each in report_of(null_week(rng, 2000)).slices) for _ in range(60))
    assert wrong <= 8  # of 60, at 5 %; more have a chance of 0.2 %


def test_holm_is_the_largest_set_that_its_steps_reject() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        chances = (rng.random(rng.integers(1, 9)) ** 3).tolist()
        order = sorted(chances)
        for alpha in (0.01, 0.05, 0.3):
            rejected = 0
            while rejected < len(order) and order[rejected] * (len(order) - rejected) <= alpha:
                rejected += 1
            assert sum(p <= alpha for p in holm(chances)) == rejected


def plain(live_cost: Any, cost: Any, gain: Any) -> ShadowReport:
    rows = len(gain)
    ends = np.full(rows, "a", dtype=object)
    side = Side(ends, ends, live_cost, (cost, cost), (gain, gain), np.arange(rows), np.ones(rows), {})
    return report_of(side, Margins(0.01, 0.1))


def test_the_verdict_follows_from_the_margins() -> None:
    rng = np.random.default_rng(2)
    spent, nothing = rng.uniform(1.0, 2.0, 4000), np.zeros(4000)
    worse = rng.choice([0.0, -1.0], 4000, p=[0.9, 0.1])
    slight = np.repeat([1.0, 0.0, -1.0], [400, 3176, 424])
    assert plain(spent, spent, nothing).verdict == "safe"
    assert plain(spent, 1.09 * spent, nothing).verdict == "safe"
    dearer = plain(spent, 1.2 * spent, nothing)
    assert (dearer.verdict, dearer.reasons) == ("not safe", ("cost rises by more than 10%",))
    fallen = plain(spent, spent, worse)
    assert (fallen.verdict, fallen.reasons) == ("not safe", ("quality falls by more than 1 point",))
    open_ = plain(spent, spent, slight)
    assert open_.verdict == "not known"
    assert open_.reasons[0].startswith("quality may fall by up to 1.")
    noisy = plain(spent, spent * rng.choice([0.0, 2.2], 4000), nothing)
    assert (noisy.verdict, noisy.reasons) == ("not known", ("cost may rise by more than 10%",))
