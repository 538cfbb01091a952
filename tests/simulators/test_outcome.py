"""Hull, gain and intervals against closed forms, brute force, other software and repeated draws."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.stats import t as student

from metaverify.policies.actions import Abstain, Accept
from metaverify.policies.graph import Ask, Node, Read, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Reading, Tier
from metaverify.simulators.log import LogError, LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.outcome import (
    Outcome,
    gain_values,
    join_ledgers,
    ledger_of,
    mean_with_interval,
    measure,
    replay,
    student_quantile,
)
from metaverify.simulators.references import Hull, HullPoint, fixed_tiers, no_information_hull, oracle
from metaverify.simulators.replay import route


def log_of(
    correct: dict[str, Any],
    cost: dict[str, Any],
    conf: dict[str, Any] | None = None,
    *,
    weights: Any = None,
    groups: Any = None,
) -> ReplayLog:
    """A log from plain columns; a cost may be one number."""
    n = len(next(iter(correct.values())))
    ids = np.array([f"q{i}" for i in range(n)], dtype=object)
    tiers = tuple(
        LoggedTier(
            name,
            np.asarray(values, dtype=float),
            np.broadcast_to(np.asarray(cost[name], dtype=float), n).copy(),
            (LoggedReading("conf", np.asarray(conf[name], dtype=float), np.zeros(n)),) if conf and name in conf else (),
        )
        for name, values in correct.items()
    )
    return ReplayLog(
        ids,
        tiers,
        np.ones(n) if weights is None else np.asarray(weights, dtype=float),
        ids if groups is None else np.asarray(groups, dtype=object),
    )


# ------------------------------------------------------------------------------------------------------ the hull


def scattered(rng: np.random.Generator, count: int) -> ReplayLog:
    """A log of one query and many tiers: fixed tiers are points at will."""
    cost = np.sort(rng.random(count))
    if rng.random() < 0.3:
        cost = np.sort(np.round(cost, 1))  # tiers of equal cost
    quality = rng.random(count) if rng.random() < 0.7 else np.round(rng.random(count), 1)
    return log_of(
        {f"t{i}": [q] for i, q in enumerate(quality)},
        {f"t{i}": c for i, c in enumerate(cost)},
    )


@pytest.mark.parametrize("seed", range(60))
def test_the_hull_is_the_best_mixture_of_two_fixed_tiers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    log = scattered(rng, int(rng.integers(1, 9)))
    abstain = [None, 0.2, 0.0][seed % 3]
    points = [(p.cost, p.quality) for p in fixed_tiers(log)] + ([] if abstain is None else [(0.0, abstain)])
    hull = no_information_hull(log, abstain=abstain)
    least = min(cost for cost, _ in points)
    for budget in (least, *rng.uniform(least, 1.2, size=30), *(cost for cost, _ in points)):
        best = max(quality for cost, quality in points if cost <= budget)
        for (low, lesser), (high, greater) in itertools.permutations(points, 2):
            if low <= budget < high:
                share = (budget - low) / (high - low)
                best = max(best, (1 - share) * lesser + share * greater)
        assert hull.quality(float(budget)) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_the_hull_has_the_corners_that_qhull_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost, quality = np.sort(rng.random(12)), rng.random(12)
    log = log_of({f"t{i}": [q] for i, q in enumerate(quality)}, {f"t{i}": c for i, c in enumerate(cost)})
    points = np.column_stack([cost, quality])
    # below and to the right of everything: two corners that shut the upper left side off
    shut = np.vstack([points, [cost[0], -1.0], [cost[-1] + 1.0, -1.0], [cost[-1] + 1.0, quality.max()]])
    corners = {int(at) for at in ConvexHull(shut).vertices if at < len(points)}
    assert {int(p.tier[1:]) for p in no_information_hull(log).points if p.tier} == corners


def test_hull_points_rise_with_falling_slopes() -> None:
    for seed in range(100):
        points = no_information_hull(scattered(np.random.default_rng(seed), 8)).points
        slopes = [(b.quality - a.quality) / (b.cost - a.cost) for a, b in itertools.pairwise(points)]
        assert all(slope > 0 for slope in slopes)
        assert slopes == sorted(slopes, reverse=True)


def test_beyond_its_ends_the_hull_is_flat() -> None:
    hull = Hull((HullPoint("a", 1.0, 0.5), HullPoint("b", 3.0, 0.9)))
    assert [hull.quality(c) for c in (-1.0, 0.0, 1.0, 2.0, 3.0, 99.0)] == [0.5, 0.5, 0.5, pytest.approx(0.7), 0.9, 0.9]


def test_a_dearer_tier_that_is_no_better_is_off_the_hull() -> None:
    log = log_of({"a": [1, 0], "b": [0, 1], "c": [1, 1]}, {"a": 1.0, "b": 2.0, "c": 3.0})
    assert [point.tier for point in no_information_hull(log).points] == ["a", "c"]


def test_the_oracle_takes_the_cheapest_of_the_best_answers_of_each_query() -> None:
    log = log_of({"a": [1, 0, 0, 0.5], "b": [1, 1, 0, 0.25]}, {"a": [1, 1, 1, 1], "b": [2, 3, 0.5, 2]})
    best = oracle(log)
    assert (best.cost, best.quality) == (pytest.approx((1 + 3 + 0.5 + 1) / 4), pytest.approx((1 + 1 + 0 + 0.5) / 4))


# ----------------------------------------------------------------------------------------------------- by hand


SMALL, LARGE = Tier("small", 1.0, (Reading("conf", 0.0, (0.5,), (2, 2, 0)),)), Tier("large", 5.0)
NODES: tuple[Node, ...] = (
    Ask("small", 2),
    Ask("large", 5),
    Read("small", "conf", (0.5,), (3, 4), 3),
    Ask("large", 5),
    Stop(Accept("small")),
    Stop(Accept("large")),
)
VERTICES = (Vertex(0.1, 3.0, 0.8, 0), Vertex(0.0, 5.0, 0.9, 1))


def cascade(share: float = 0.0, low: int = 0, high: int = 1) -> Policy:
    """Vertex 0 asks `large` where `small` is below 0.5, vertex 1 asks it always."""
    return Policy((SMALL, LARGE), NODES, VERTICES, OperatingPoint(low, high, share), "s")


def four_queries(**options: Any) -> ReplayLog:
    return log_of(
        {"small": [1, 0, 1, 0], "large": [1, 1, 0, 1]},
        {"small": 1.0, "large": 5.0},
        {"small": [0.9, 0.2, 0.6, math.nan]},
        **options,
    )


def test_four_queries_by_hand() -> None:
    outcome = replay(cascade(), four_queries())
    assert (outcome.n, outcome.groups) == (4, 4)
    assert outcome.quality.mean == 1.0  # small, large, small, large: all of them right
    assert outcome.cost.mean == (1 + 6 + 1 + 6) / 4
    # the hull runs from (1, 0.5) to (5, 0.75): at 3.5 it is 0.5 + 2.5 / 4 x 0.25
    assert outcome.hull == 0.65625
    assert outcome.gain.mean == pytest.approx(1.0 - 0.65625, abs=1e-15)
    assert outcome.calls == {"small": 1.0, "large": 0.5}
    assert outcome.reads == {"small": {"conf": 1.0}, "large": {}}
    assert outcome.accepts == {"small": 0.5, "large": 0.5}
    assert outcome.abstained == 0.0


def test_weights_count_queries() -> None:
    weights = [1, 2, 3, 4]
    outcome = replay(cascade(), four_queries(weights=weights))
    rows = np.repeat(np.arange(4), weights)
    log = four_queries().take(rows)
    repeated = replay(cascade(), replace(log, query_ids=np.arange(10), group_ids=np.arange(10)))
    for one, other in (
        (outcome.quality, repeated.quality),
        (outcome.cost, repeated.cost),
        (outcome.gain, repeated.gain),
    ):
        assert one.mean == pytest.approx(other.mean, abs=1e-14)
    assert outcome.hull == pytest.approx(repeated.hull, abs=1e-14)
    assert outcome.calls == pytest.approx(repeated.calls)
    assert outcome.accepts == pytest.approx(repeated.accepts)
    assert outcome.n == 4


def test_abstention_earns_its_worth_and_costs_what_was_spent() -> None:
    nodes = (Ask("small", 1), Read("small", "conf", (0.5,), (2, 3), 2), Stop(Abstain()), Stop(Accept("small")))
    policy = Policy((SMALL, LARGE), nodes, (Vertex(0.0, 1.0, 0.5, 0),), OperatingPoint(0, 0, 0.0), abstain=0.25)
    outcome = replay(policy, four_queries())
    assert outcome.quality.mean == (1 + 0.25 + 1 + 0.25) / 4
    assert outcome.cost.mean == 1.0
    assert outcome.abstained == 0.5
    assert outcome.accepts == {"small": 0.5, "large": 0.0}
    # the hull now runs from handing over (0, 0.25) by small (1, 0.5)
    assert outcome.hull == 0.5
    assert outcome.gain.mean == 0.125


def test_always_the_same_tier_gains_nothing_for_certain() -> None:
    outcome = replay(cascade(low=1, high=1), four_queries())
    assert outcome.gain.mean == outcome.gain.low == outcome.gain.high == 0.0


@pytest.mark.parametrize("share", [0.0, 0.25, 0.7, 1.0])
def test_a_mixture_earns_the_share_weighted_outcome_of_its_arms(share: float) -> None:
    log = random_log(np.random.default_rng(1), 200)
    mixed, low, high = (replay(p, log) for p in (cascade(share), cascade(0.0, 0, 0), cascade(0.0, 1, 1)))

    def between(of: Any) -> Any:
        return pytest.approx((1 - share) * of(low) + share * of(high), abs=1e-12)

    assert mixed.quality.mean == between(lambda o: o.quality.mean)
    assert mixed.cost.mean == between(lambda o: o.cost.mean)
    for tier in ("small", "large"):
        assert mixed.calls[tier] == between(lambda o, tier=tier: o.calls[tier])
        assert mixed.accepts[tier] == between(lambda o, tier=tier: o.accepts[tier])
    assert mixed.reads["small"]["conf"] == between(lambda o: o.reads["small"]["conf"])
    assert sum(mixed.accepts.values()) + mixed.abstained == pytest.approx(1.0)


def test_replay_refuses_a_log_of_another_cascade() -> None:
    with pytest.raises(LogError, match="'large'"):
        replay(cascade(), four_queries().with_tiers(["small"]))


def test_ledgers_of_two_halves_join_to_the_ledger_of_the_whole() -> None:
    log = random_log(np.random.default_rng(2), 100)
    whole = ledger_of(cascade().tiers, [(1.0, route(cascade(), log, 0))])
    halves = [
        ledger_of(cascade().tiers, [(1.0, route(cascade(), log.take(rows), 0))])
        for rows in np.split(np.arange(100), [37])
    ]
    joined = join_ledgers(halves)
    np.testing.assert_array_equal(joined.quality, whole.quality)
    np.testing.assert_array_equal(joined.cost, whole.cost)
    assert measure(cascade(), log, joined) == measure(cascade(), log, whole)


def test_an_outcome_is_plain_json() -> None:
    outcome = replay(cascade(), four_queries())
    assert isinstance(outcome, Outcome)
    back = json.loads(json.dumps(outcome.to_json(), allow_nan=False))
    assert back["quality"]["mean"] == outcome.quality.mean
    assert back["calls"] == outcome.calls


# ---------------------------------------------------------------------------------------------------- intervals


def random_log(rng: np.random.Generator, n: int, per_group: int = 1) -> ReplayLog:
    """Queries whose groups share a difficulty."""
    easy = np.repeat(rng.normal(size=-(-n // per_group)), per_group)[:n]
    small = (easy + rng.normal(size=n) > 0).astype(float)
    large = (easy + rng.normal(size=n) > -1.0).astype(float)
    conf = np.clip(0.5 + 0.2 * easy + 0.15 * rng.normal(size=n), 0.0, 1.0)
    groups = None if per_group == 1 else [f"g{i // per_group}" for i in range(n)]
    cost = rng.gamma(4.0, 0.25, size=n)
    return log_of({"small": small, "large": large}, {"small": cost, "large": 5 * cost}, {"small": conf}, groups=groups)


def textbook_error(values: list[float], weights: list[float], groups: list[str]) -> float:
    """Square root of G / (G - 1) x the sum over groups of (the sum of w (x - mean) in the group) squared, over W."""
    total = sum(weights)
    mean = sum(w * x for w, x in zip(weights, values, strict=True)) / total
    names = sorted(set(groups))
    sums = [sum(w * (x - mean) for x, w, g in zip(values, weights, groups, strict=True) if g == name) for name in names]
    return math.sqrt(len(names) / (len(names) - 1) * sum(s * s for s in sums)) / total


def test_the_interval_is_the_textbook_s_by_groups() -> None:
    values = [0.1, 0.9, 0.4, 0.4, 0.7, 0.0, 1.0, 0.3]
    weights = [1.0, 2.0, 1.0, 0.5, 3.0, 1.0, 1.0, 2.0]
    groups = ["a", "b", "a", "c", "b", "d", "e", "f"]
    log = log_of({"t": values}, {"t": 1.0}, weights=weights, groups=groups)
    found = mean_with_interval(np.array(values), log)
    half = student.ppf(0.95, 5) * textbook_error(values, weights, groups)
    assert found.mean == pytest.approx(np.average(values, weights=weights))
    assert found.high - found.mean == pytest.approx(half, rel=1e-3)
    assert found.mean - found.low == pytest.approx(half, rel=1e-3)


def test_without_groups_the_interval_is_student_s() -> None:
    values = np.random.default_rng(0).normal(size=30)
    log = log_of({"t": values}, {"t": 1.0})
    found = mean_with_interval(values, log, level=0.95)
    low, high = student.interval(0.95, 29, loc=values.mean(), scale=values.std(ddof=1) / math.sqrt(30))
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-4), pytest.approx(high, rel=1e-4))


def test_groups_of_one_are_no_groups() -> None:
    values = np.random.default_rng(1).normal(size=20)
    plain = log_of({"t": values}, {"t": 1.0})
    grouped = log_of({"t": values}, {"t": 1.0}, groups=[f"g{i}" for i in reversed(range(20))])
    one, other = mean_with_interval(values, plain), mean_with_interval(values, grouped)
    assert (one.low, one.high) == (pytest.approx(other.low), pytest.approx(other.high))


def test_the_names_and_the_order_of_groups_do_not_matter() -> None:
    log = random_log(np.random.default_rng(5), 50, per_group=5)
    order = np.random.default_rng(6).permutation(50)
    renamed = replace(log, group_ids=np.array([g[::-1] + "x" for g in log.group_ids], dtype=object)).take(order)
    one, other = (mean_with_interval(part.tiers[0].correct, part) for part in (log, renamed))
    assert (one.low, one.high) == (pytest.approx(other.low), pytest.approx(other.high))


@pytest.mark.parametrize("groups", [None, ["g"] * 3])
def test_one_group_says_nothing_about_spread(groups: list[str] | None) -> None:
    n = 1 if groups is None else 3
    log = log_of({"t": [0.5] * n}, {"t": 1.0}, groups=groups)
    found = mean_with_interval(np.full(n, 0.5), log)
    assert (found.mean, found.low, found.high) == (0.5, -math.inf, math.inf)


@pytest.mark.parametrize("groups", [8, 40])
def test_ninety_of_a_hundred_intervals_hold_the_truth(groups: int) -> None:
    rng = np.random.default_rng(20)
    size, repeats, held, held_without = 5, 2000, 0, 0
    names = np.repeat([f"g{i}" for i in range(groups)], size).astype(object)
    log = log_of({"t": np.zeros(groups * size)}, {"t": 1.0}, groups=names)
    plain = replace(log, group_ids=log.query_ids)
    for _ in range(repeats):
        values = np.repeat(rng.normal(size=groups), size) + rng.normal(size=groups * size)
        found, naive = mean_with_interval(values, log), mean_with_interval(values, plain)
        held += found.low <= 0.0 <= found.high
        held_without += naive.low <= 0.0 <= naive.high
    assert abs(held / repeats - 0.9) < 3 * math.sqrt(0.9 * 0.1 / repeats)
    assert held_without / repeats < 0.75  # what forgetting the groups would claim


def test_the_interval_of_the_gain_is_that_of_leaving_one_group_out() -> None:
    for seed, per_group in ((0, 1), (1, 5)):
        log = random_log(np.random.default_rng(seed), 600, per_group)
        ledger = ledger_of(cascade().tiers, [(1.0, route(cascade(), log, 0))])
        found = mean_with_interval(gain_values(no_information_hull(log), ledger.quality, ledger.cost, log), log)
        names = np.unique(log.group_ids)

        def gain(rows: np.ndarray, log: ReplayLog = log, ledger: Any = ledger) -> float:
            part = log.take(rows)
            hull = no_information_hull(part)
            return part.mean(ledger.quality[rows]) - hull.quality(part.mean(ledger.cost[rows]))

        left_out = np.array([gain(np.flatnonzero(log.group_ids != name)) for name in names])
        count = len(names)
        error = math.sqrt((count - 1) / count * float(((left_out - left_out.mean()) ** 2).sum()))
        assert found.mean == pytest.approx(gain(np.arange(600)), abs=1e-12)
        assert found.high - found.mean == pytest.approx(student.ppf(0.95, count - 1) * error, rel=0.03)


def test_the_gain_s_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    big = random_log(rng, 400_000)
    truth = replay(cascade(), big).gain.mean
    repeats, held = 600, 0
    for _ in range(repeats):
        gain = replay(cascade(), random_log(rng, 200, per_group=5)).gain
        held += gain.low <= truth <= gain.high
    assert abs(held / repeats - 0.9) < 4 * math.sqrt(0.9 * 0.1 / repeats)


@pytest.mark.parametrize("probability", [0.6, 0.9, 0.95, 0.975, 0.995])
def test_student_s_quantile_is_within_one_percent_from_five_degrees_on(probability: float) -> None:
    for freedom in (5, 6, 7, 10, 20, 50, 200, 10_000):
        exact = student.ppf(probability, freedom)
        assert student_quantile(probability, freedom) == pytest.approx(exact, rel=0.01)
        assert student_quantile(1 - probability, freedom) == pytest.approx(-exact, rel=0.01)
    assert student_quantile(0.5, 5) == pytest.approx(0.0, abs=1e-12)
