"""Replay does with every query, to the last digit, what the decision loop does."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from metaverify.fitting.learner import TableLearner
from metaverify.policies.actions import Abstain, Accept, Call, Verify
from metaverify.policies.graph import Ask, Graph, Node, Poll, Read, Stop, Tally, renumbered, successors
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Reading, Tier
from metaverify.simulators.log import LogError, LoggedReading, LoggedSignal, LoggedTier, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.references import no_information_hull
from metaverify.simulators.replay import ABSTAINED, Routes, arms, check_match, route
from metaverify.simulators.worlds import WORLDS

CONTEXTS = ("code", "prose", "unseen by the policy")
DECISIONS = 1_000_000


# ------------------------------------------------------------------------------------------- policies and logs


@dataclass
class Grower:
    """Random graphs over the tiers of a log, children first; a node may be met again wherever it is legal."""

    rng: np.random.Generator
    log: ReplayLog
    abstain: bool
    most_cuts: int = 3
    nodes: list[Node] = field(default_factory=list)
    needs: list[frozenset[str]] = field(default_factory=list)
    buys: list[frozenset[tuple[str, str]]] = field(default_factory=list)

    def grow(self, have: frozenset[tuple[str, str]] = frozenset()) -> int:
        """The root of a graph that may follow once ``have`` was bought."""
        answered = frozenset(tier for tier, reading in have if not reading)
        moves = [(tier.name, "") for tier in self.log.tiers if tier.name not in answered]
        moves += [(s.name, r.name) for s in self.log.sources if self._open(s.name) <= answered for r in s.readings]
        moves = [move for move in moves if move not in have]
        shared = [at for at in range(len(self.nodes)) if self.needs[at] <= answered and not self.buys[at] & have]
        if shared and self.rng.random() < 0.3:
            return int(self.rng.choice(shared))
        stops: list[Accept | Abstain] = [Accept(tier) for tier in sorted(answered)]
        stops += [Abstain()] if self.abstain else []
        if stops and (not moves or self.rng.random() < 0.2 + len(self.nodes) / 60):
            return self._add(Stop(stops[self.rng.integers(len(stops))]), have)
        tier, reading = moves[self.rng.integers(len(moves))]
        bought = have | {(tier, reading)}
        if not reading:
            return self._add(Ask(tier, self.grow(bought)), have)
        if votes := next(r.votes for r in self.log.source(tier).readings if r.name == reading):
            return self._add(self._poll(tier, reading, int(self.rng.integers(1, votes + 1)), bought), have)
        cuts = self._cuts(tier, reading)
        then = tuple(self.grow(bought) for _ in range(len(cuts) + 1))
        return self._add(Read(tier, reading, cuts, then, self.grow(bought)), have)

    def _poll(self, tier: str, reading: str, most: int, bought: frozenset[tuple[str, str]]) -> Node:
        if self.rng.random() < 0.2:  # all of them, as a share
            return Read(tier, reading, (0.4,), (self.grow(bought), self.grow(bought)), self.grow(bought))
        tallies = []
        for asked in range(1, most + 1):
            cuts = tuple(sorted({int(cut) for cut in self.rng.integers(1, asked + 1, size=2)}))
            on = [asked < most and self.rng.random() < 0.6 for _ in range(len(cuts) + 1)]
            tallies.append(Tally(cuts, tuple(None if more else self.grow(bought) for more in on)))
        return Poll(tier, reading, tuple(tallies), self.grow(bought))

    def _open(self, source: str) -> frozenset[str]:
        """The answers that must be in hand before a source is read."""
        return frozenset(next((signal.needs for signal in self.log.signals if signal.name == source), [source]))

    def _cuts(self, tier: str, reading: str) -> tuple[float, ...]:
        confidence = next(r.confidence for r in self.log.source(tier).readings if r.name == reading)
        seen = np.unique(confidence[~np.isnan(confidence)])
        near = np.concatenate([seen, (seen[1:] + seen[:-1]) / 2, [0.0, 1.0]])
        count = self.rng.integers(self.most_cuts + 1)
        return tuple(sorted({float(cut) for cut in self.rng.choice(near, size=count)}))

    def _add(self, node: Node, have: frozenset[tuple[str, str]]) -> int:
        below = successors(node)
        needs = frozenset[str]().union(*(self.needs[child] for child in below))
        buys = frozenset[tuple[str, str]]().union(*(self.buys[child] for child in below))
        match node:
            case Stop(Accept(tier)):
                needs |= {tier}
            case Ask(tier, _):
                needs, buys = needs - {tier}, buys | {(tier, "")}
            case Read(tier, reading, _, _, _) | Poll(tier, reading, _, _):
                needs, buys = needs | self._open(tier), buys | {(tier, reading)}
        self.nodes.append(node)
        self.needs.append(needs)
        self.buys.append(buys)
        return len(self.nodes) - 1

    def table(self) -> tuple[Graph, dict[int, int]]:
        """The nodes with successors further down, and where each one went."""
        place = {at: len(self.nodes) - 1 - at for at in range(len(self.nodes))}
        return tuple(renumbered(node, place) for node in reversed(self.nodes)), place


def random_policy(log: ReplayLog, seed: int, *, contexts: tuple[str, ...] = (), abstain: float | None = None) -> Policy:
    grower = Grower(np.random.default_rng(seed), log, abstain is not None)
    roots = [[grower.grow() for _ in ("", *contexts)] for _ in range(3)]
    nodes, place = grower.table()
    vertices = tuple(
        Vertex(0.1, float(at), 0.5, place[root], {c: place[r] for c, r in zip(contexts, others, strict=True)})
        for at, (root, *others) in enumerate(roots)
    )
    tiers = tuple(
        Tier(
            t.name,
            log.mean(t.cost),
            tuple(Reading(r.name, log.mean(r.price), (), (0, 0), votes=r.votes) for r in t.readings),
        )
        for t in log.tiers
    )
    signals = tuple(
        Tier(
            s.name,
            0.0,
            tuple(Reading(r.name, log.mean(r.price), (), (0, 0), votes=r.votes) for r in s.readings),
            False,
            s.needs,
        )
        for s in log.signals
    )
    tiers += signals
    context = ("task",) if contexts else ()
    return Policy(tiers, nodes, vertices, OperatingPoint(0, 1, 0.4), f"salt {seed}", context, abstain)


def drawn_log(
    world: str,
    n: int,
    seed: int,
    *,
    contexts: bool = False,
    signals: bool = False,
    samples: bool = False,
    **options: Any,
) -> ReplayLog:
    """A log of a world, with weights that add up without rounding."""
    log = WORLDS[world](3, 5, **options).draw(n, seed)
    rng = np.random.default_rng(seed)
    if samples:
        log = replace(log, tiers=tuple(sampled(tier, rng) for tier in log.tiers))
    labels = rng.choice(np.array(CONTEXTS, dtype=object), size=n) if contexts else None
    return replace(
        log,
        weights=rng.choice([0.5, 1.0, 2.0], size=n),
        contexts=labels,
        signals=signals_of(log, rng) if signals else (),
    )


def sampled(tier: LoggedTier, rng: np.random.Generator) -> LoggedTier:
    """The tier with readings that change its answer, all but the first: to any other quality, or not everywhere."""
    first, *others = tier.readings

    def sample(reading: LoggedReading) -> LoggedReading:
        quality = np.round(rng.random(len(tier.cost)), 2)
        failed = np.isnan(reading.confidence) & (rng.random(len(quality)) < 0.6)
        return replace(reading, correct=np.where(failed, np.nan, quality))

    return replace(tier, readings=(first, *(sample(reading) for reading in others)))


def signals_of(log: ReplayLog, rng: np.random.Generator) -> tuple[LoggedSignal, ...]:
    """A judge of the cheapest answer that is billed, whether two answers agree, and a signal before any call."""
    one, two = log.tiers[0], log.tiers[1]
    noisy = np.round(0.6 * one.correct + 0.4 * rng.random(len(log)), 1)
    verdict = LoggedReading("conf", np.where(rng.random(len(log)) < 0.1, np.nan, noisy), np.full(len(log), 0.25))
    agree = LoggedReading("agree", (one.correct == two.correct).astype(float), np.zeros(len(log)))
    length = LoggedReading("conf", np.round(rng.random(len(log)), 1), np.zeros(len(log)))
    return (
        LoggedSignal("judge", (verdict,), (one.name,)),
        LoggedSignal(f"agree_{one.name}_{two.name}", (agree,), (one.name, two.name)),
        LoggedSignal("length", (length,)),
    )


# ---------------------------------------------------------------------------------------------------- the loop


def loop(policy: Policy, log: ReplayLog) -> Routes:
    """Row by row through `decide`, with an accounting dictionary."""
    n, names = len(log), [tier.name for tier in policy.tiers]
    quality, cost, accepted = np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int8)
    calls: Counter[str] = Counter()
    reads: Counter[tuple[str, str]] = Counter()
    accepts: Counter[str] = Counter()
    for row in range(n):
        readings: dict[str, dict[str, float | None]] = {}
        answers: dict[str, float] = {}
        context = None if log.contexts is None else log.contexts[row]
        weight = log.weights[row]
        while True:
            match policy.decide(readings, context=context, key=log.query_ids[row]):
                case Call(tier):
                    readings[tier] = {}
                    answers[tier] = log.tier(tier).correct[row]
                    calls[tier] += weight
                    cost[row] += log.tier(tier).cost[row]
                case Verify(tier, reading):
                    column = next(r for r in log.source(tier).readings if r.name == reading)
                    confidence = float(column.confidence[row])
                    readings.setdefault(tier, {})[reading] = None if math.isnan(confidence) else confidence
                    answers |= changed(tier, column, row)
                    reads[tier, reading] += weight
                    cost[row] += column.price[row]
                case Accept(tier):
                    quality[row] = answers[tier]
                    accepted[row] = names.index(tier)
                    accepts[tier] += weight
                    break
                case Abstain():
                    quality[row] = policy.abstain
                    accepted[row] = ABSTAINED
                    break
    return Routes(
        quality,
        cost,
        accepted,
        tuple(calls[name] for name in names),
        tuple(tuple(reads[tier.name, r.name] for r in tier.readings) for tier in policy.tiers),
        tuple(accepts[name] for name in names),
    )


def changed(tier: str, reading: LoggedReading, row: int) -> dict[str, float]:
    """The quality of the answer that a reading brings, if it does."""
    if reading.correct is None or math.isnan(reading.correct[row]):
        return {}
    return {tier: float(reading.correct[row])}


def same(one: Routes, other: Routes) -> None:
    np.testing.assert_array_equal(one.quality, other.quality)
    np.testing.assert_array_equal(one.cost, other.cost)
    np.testing.assert_array_equal(one.accepted, other.accepted)
    assert one.calls == other.calls
    assert one.reads == other.reads
    assert one.accepts == other.accepts


def agrees_at_every_vertex(policy: Policy, log: ReplayLog) -> None:
    check_match(policy, log)
    for vertex in range(len(policy.vertices)):
        same(route(policy, log, vertex), loop(replace(policy, point=OperatingPoint(vertex, vertex, 0.0)), log))


VARIANTS: dict[str, dict[str, Any]] = {
    "one free reading": {},
    "missing readings": {"missing": 0.3},
    "a paid reading": {"reading_prices": (0.0, 0.25)},
    "two paid readings and many missing": {"reading_prices": (0.1, 0.3), "missing": 0.6},
    "no reading": {"reading_prices": ()},
    "signals": {"signals": True, "missing": 0.2},
    "samples": {"samples": True, "reading_prices": (0.0, 0.25, 0.0), "missing": 0.2},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("contexts", [False, True])
def test_random_graphs_are_replayed_as_they_decide(variant: str, contexts: bool) -> None:
    for seed, (world, abstain) in enumerate(itertools.product(WORLDS, (None, 0.3, 0.0))):
        log = drawn_log(world, 60, seed, contexts=contexts, **VARIANTS[variant])
        agrees_at_every_vertex(
            random_policy(log, seed, contexts=CONTEXTS[:2] if contexts else (), abstain=abstain), log
        )


@pytest.mark.parametrize("abstain", [None, 0.6])
@pytest.mark.parametrize(
    ("world", "variant"),
    [
        ("shared_difficulty", "a paid reading"),
        ("hopeless", "missing readings"),
        ("token_prices", "one free reading"),
        ("shared_difficulty", "signals"),
        ("shared_difficulty", "samples"),
    ],
)
def test_solved_policies_are_replayed_as_they_decide(world: str, variant: str, abstain: float | None) -> None:
    log = drawn_log(world, 300, 7, contexts=True, **VARIANTS[variant])
    known = log.take(np.flatnonzero(log.contexts != CONTEXTS[2]))
    policy = TableLearner(bins=4, abstain=abstain, gap=5e-3).policy(known)
    assert set(policy.vertices[0].context_roots) == set(CONTEXTS[:2])
    agrees_at_every_vertex(replace(policy, context=("task",)), log.take(np.arange(120)))


def with_votes(log: ReplayLog, seed: int) -> ReplayLog:
    """The same log with votes on the cheapest answer, sometimes missing, and a jury of two votes on the dearest."""
    rng = np.random.default_rng(seed)
    first, last = log.tiers[0], log.tiers[-1]

    def votes(name: str, correct: np.ndarray, count: int) -> LoggedReading:
        share = rng.binomial(count, 0.25 + 0.5 * correct) / count
        share = np.where(rng.random(len(log)) < 0.15, np.nan, share)
        return LoggedReading(name, share, rng.choice([0.25, 0.5], size=len(log)) * count, votes=count)

    readings = (*first.readings, votes("votes", first.correct, 4))
    jury = LoggedSignal("jury", (votes("ballot", last.correct, 2),), (last.name,))
    return replace(log, tiers=(replace(first, readings=readings), *log.tiers[1:]), signals=(*log.signals, jury))


def orders_of(reading: LoggedReading, row: int) -> list[tuple[int | None, ...]]:
    """Every order in which the votes of a query can have come, each as likely as the others."""
    share = reading.confidence[row]
    if math.isnan(share):
        return [(None,)]
    yes = round(share * reading.votes)
    chosen = itertools.combinations(range(reading.votes), yes)
    return [tuple(int(at in places) for at in range(reading.votes)) for places in chosen]


def mean_over_orders(policy: Policy, log: ReplayLog, row: int) -> tuple[float, float, Counter[Any]]:
    """What `decide` earns and spends on one query, and how often it does what, in the mean over orders of votes."""
    polled = {(s.name, r.name): r for s in log.sources for r in s.readings if r.votes}
    cases = list(itertools.product(*(orders_of(reading, row) for reading in polled.values())))
    quality = cost = 0.0
    done: Counter[Any] = Counter()
    for case in cases:
        orders = dict(zip(polled, case, strict=True))
        readings: dict[str, dict[str, Any]] = {}
        answers: dict[str, float] = {}
        while True:
            action = policy.decide(readings)
            match action:
                case Call(tier):
                    readings[tier] = {}
                    answers[tier] = log.tier(tier).correct[row]
                    cost += log.tier(tier).cost[row] / len(cases)
                case Verify(tier, name) if (tier, name) in polled:
                    yes, asked = readings.setdefault(tier, {}).get(name, (0, 0))
                    vote = orders[tier, name][asked]
                    readings[tier][name] = None if vote is None else (yes + vote, asked + 1)
                    cost += polled[tier, name].price[row] / polled[tier, name].votes / len(cases)
                    if asked:
                        continue  # read once, however many votes
                case Verify(tier, name):
                    column = next(r for r in log.source(tier).readings if r.name == name)
                    readings.setdefault(tier, {})[name] = float(column.confidence[row])
                    answers |= changed(tier, column, row)
                    cost += column.price[row] / len(cases)
                case Accept(tier):
                    quality += answers[tier] / len(cases)
                case Abstain():
                    quality += (policy.abstain or 0.0) / len(cases)
            done[action] += 1 / len(cases)
            if isinstance(action, (Accept, Abstain)):
                break
    return quality, cost, done


@pytest.mark.parametrize("abstain", [None, 0.3])
def test_votes_are_replayed_as_the_mean_of_what_is_decided_over_all_their_orders(abstain: float | None) -> None:
    for seed in range(6):
        options: dict[str, Any] = {"samples": True, "reading_prices": (0.0, 0.25)} if seed > 3 else {}
        log = drawn_log("shared_difficulty", 40, seed, signals=seed % 2 == 1, missing=0.1, **options)
        log = with_votes(log, seed)
        policy = random_policy(log, seed, abstain=abstain)
        check_match(policy, log)
        names = [tier.name for tier in policy.tiers]
        for vertex in range(len(policy.vertices)):
            routes = route(policy, log, vertex)
            fixed = replace(policy, point=OperatingPoint(vertex, vertex, 0.0))
            rows = [mean_over_orders(fixed, log, row) for row in range(len(log))]
            np.testing.assert_allclose(routes.quality, [quality for quality, _, _ in rows], atol=1e-12)
            np.testing.assert_allclose(routes.cost, [cost for _, cost, _ in rows], atol=1e-12)
            done: Counter[Any] = Counter()
            for weight, (_, _, of_row) in zip(log.weights, rows, strict=True):
                for action, part in of_row.items():
                    done[action] += weight * part
            assert routes.calls == pytest.approx([done[Call(name)] for name in names])
            assert routes.accepts == pytest.approx([done[Accept(name)] for name in names])
            for tier, reads in zip(policy.tiers, routes.reads, strict=True):
                assert reads == pytest.approx([done[Verify(tier.name, r.name)] for r in tier.readings])
            for row, (_, _, of_row) in enumerate(rows):
                parts = {names.index(a.tier): p for a, p in of_row.items() if isinstance(a, Accept)}
                parts[ABSTAINED] = of_row[Abstain()]
                assert parts[int(routes.accepted[row])] == pytest.approx(max(parts.values()))


def test_a_solved_policy_with_votes_is_replayed_as_it_decides() -> None:
    log = with_votes(drawn_log("shared_difficulty", 300, 4, signals=True), 4)
    log = replace(log, signals=log.signals[:1])
    policy = TableLearner(bins=3, gap=1e-2).policy(log)
    assert any(isinstance(node, Poll) for node in policy.nodes)
    some = log.take(np.arange(60))
    for vertex in range(0, len(policy.vertices), 3):
        routes = route(policy, some, vertex)
        fixed = replace(policy, point=OperatingPoint(vertex, vertex, 0.0))
        for row in range(len(some)):
            quality, cost, _ = mean_over_orders(fixed, some, row)
            assert (routes.quality[row], routes.cost[row]) == pytest.approx((quality, cost))


def test_a_log_that_takes_votes_for_something_else_is_refused() -> None:
    log = with_votes(drawn_log("shared_difficulty", 60, 0), 0)
    policy = random_policy(log, 0)
    first = log.tiers[0]
    for votes, told in ((0, "none; read the log with --votes votes=4"), (2, "2; read the log with --votes votes=4")):
        readings = tuple(replace(r, votes=votes if r.votes else 0) for r in first.readings)
        other = replace(log, tiers=(replace(first, readings=readings), *log.tiers[1:]))
        with pytest.raises(LogError, match=f"'votes' of '{first.name}' for 4 votes, the log for {told}"):
            check_match(policy, other)


def test_signals_are_no_tiers_in_what_is_reported() -> None:
    log = drawn_log("shared_difficulty", 400, 2, signals=True)
    policy = TableLearner(bins=4).policy(log)
    assert [tier.name for tier in policy.tiers if not tier.answer] == [signal.name for signal in log.signals]
    outcome = replay(policy.at(budget=3.0), log)
    assert set(outcome.calls) == set(outcome.accepts) == set(log.tier_names)
    assert set(outcome.reads) == {source.name for source in log.sources}
    assert outcome.reads["judge"]["conf"] > 0.0
    assert sum(outcome.accepts.values()) == pytest.approx(1.0)
    points = no_information_hull(log).points
    assert {point.tier for point in points} <= set(log.tier_names)


def test_a_log_without_a_signal_that_is_read_is_refused_and_one_that_nobody_reads_may_be_left_out() -> None:
    log = drawn_log("shared_difficulty", 400, 2, signals=True)
    policy = TableLearner(bins=4).policy(log)
    with pytest.raises(LogError, match="reads 'conf' of 'judge', of which the log has no reading"):
        check_match(policy, replace(log, signals=log.signals[1:]))
    blind = TableLearner(bins=4).policy(replace(log, signals=()))
    check_match(replace(blind, tiers=policy.tiers, vertices=tuple(replace(v, beliefs={}) for v in blind.vertices)), log)


def test_readings_that_come_with_the_answer_change_neither_answer_nor_cost() -> None:
    log = drawn_log("shared_difficulty", 80, 3, missing=0.2)
    policy = replace(random_policy(log, 3), point=OperatingPoint(2, 2, 0.0))
    routes = route(policy, log, 2)
    for row in range(len(log)):
        readings: dict[str, Any] = {}
        cost = 0.0
        while isinstance(action := policy.decide(readings), Call):
            readings[action.tier] = float(log.tier(action.tier).readings[0].confidence[row])
            cost += log.tier(action.tier).cost[row]
        assert isinstance(action, Accept)
        assert log.tier_names[routes.accepted[row]] == action.tier
        assert routes.cost[row] == cost


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_arms_are_the_draws_of_the_keys_and_select_among_routes(share: float) -> None:
    log = drawn_log("shared_difficulty", 200, 5, contexts=True, reading_prices=(0.0, 0.5), missing=0.2)
    policy = random_policy(log, 5, contexts=CONTEXTS[:2])
    policy = replace(policy, point=OperatingPoint(1, 2, share))
    followed = arms(policy, log)
    assert followed.tolist() == [policy.arm(key) for key in log.query_ids]
    mixed = loop(policy, log)
    low, high = route(policy, log, 1), route(policy, log, 2)
    np.testing.assert_array_equal(mixed.accepted, np.where(followed == 2, high.accepted, low.accepted))
    np.testing.assert_array_equal(mixed.cost, np.where(followed == 2, high.cost, low.cost))
    np.testing.assert_array_equal(mixed.quality, np.where(followed == 2, high.quality, low.quality))


def test_arms_of_numbered_queries_are_those_of_their_texts() -> None:
    log = drawn_log("independent", 100, 1)
    policy = random_policy(log, 1)
    numbered = replace(log, query_ids=np.arange(100))
    assert arms(policy, numbered).tolist() == [policy.arm(key) for key in range(100)]


def test_the_order_of_rows_does_not_matter() -> None:
    log = drawn_log("shared_difficulty", 150, 9, contexts=True, missing=0.2)
    policy = random_policy(log, 9, contexts=CONTEXTS[:2])
    order = np.random.default_rng(0).permutation(len(log))
    routes, shuffled = route(policy, log, 0), route(policy, log.take(order), 0)
    np.testing.assert_array_equal(routes.accepted[order], shuffled.accepted)
    np.testing.assert_array_equal(routes.cost[order], shuffled.cost)
    assert (routes.calls, routes.reads, routes.accepts) == (shuffled.calls, shuffled.reads, shuffled.accepts)


def test_the_policy_s_order_of_tiers_may_differ_from_the_log_s() -> None:
    log = drawn_log("shared_difficulty", 80, 2, reading_prices=(0.0, 0.25))
    policy = random_policy(log, 2)
    agrees_at_every_vertex(replace(policy, tiers=(policy.tiers[2], policy.tiers[0], policy.tiers[1])), log)


def test_a_log_may_hold_tiers_and_readings_that_the_policy_does_not_use() -> None:
    log = drawn_log("shared_difficulty", 80, 2, reading_prices=(0.0, 0.25))
    small = log.with_tiers(["tier1", "tier3"]).with_readings(["conf2"])
    agrees_at_every_vertex(random_policy(small, 2), log)


def test_an_empty_log_is_replayed_to_nothing() -> None:
    log = drawn_log("shared_difficulty", 5, 2)
    routes = route(random_policy(log, 2), log.take(np.arange(0)), 0)
    assert len(routes.cost) == 0
    assert sum(routes.calls) == sum(routes.accepts) == 0.0


# --------------------------------------------------------------------------------------------- a million decisions


def full_tree(cuts: dict[str, tuple[float, ...]], rng: np.random.Generator) -> tuple[Node, ...]:
    """Call every tier, then read one after the other; each combination of bins accepts some tier at random."""
    names = list(cuts)
    nodes: list[Node] = [Stop(Accept(name)) for name in names]

    def read(depth: int) -> int:
        if depth == len(names):
            return int(rng.integers(len(names)))
        *then, missing = (read(depth + 1) for _ in range(len(cuts[names[depth]]) + 2))
        nodes.append(Read(names[depth], "conf", cuts[names[depth]], tuple(then), missing))
        return len(nodes) - 1

    read(0)
    for name in names:
        nodes.append(Ask(name, len(nodes) - 1))
    last = len(nodes) - 1
    return tuple(renumbered(node, {at: last - at for at in range(last + 1)}) for node in reversed(nodes))


def test_a_million_decisions_at_every_edge_are_the_same() -> None:
    rng = np.random.default_rng(11)
    names = ("small", "medium", "large")
    cuts = {
        "small": (0.1, 0.25, 0.5, 0.7, 0.75, 0.9, 0.99),
        "medium": (5e-324, 1e-9, 1 / 3, 0.5, 2 / 3, math.nextafter(1.0, 0.0), 1.0),
        "large": (0.0, *np.sort(rng.random(6)).tolist()),
    }
    cheap, dear = full_tree(cuts, rng), full_tree(cuts, rng)
    assert cheap != dear
    lower = tuple(renumbered(node, {at: at + len(cheap) for at in range(len(dear))}) for node in dear)
    tiers = tuple(Tier(name, 1.0, (Reading("conf", 0.0, cuts[name], (0,) * 9),)) for name in names)
    vertices = (Vertex(0.1, 1.0, 0.5, 0), Vertex(0.0, 2.0, 0.6, len(cheap)))
    policy = Policy(tiers, cheap + lower, vertices, OperatingPoint(0, 1, 0.4), "edges")

    def column(name: str) -> LoggedTier:
        edges = [near for cut in cuts[name] for near in (math.nextafter(cut, -1.0), cut, math.nextafter(cut, 2.0))]
        inside = [edge for edge in edges if 0.0 <= edge <= 1.0]
        pool = np.array([*inside, *inside, 0.0, 1.0, *[math.nan] * len(inside)])
        conf = np.where(rng.random(DECISIONS) < 0.9, rng.choice(pool, DECISIONS), rng.random(DECISIONS))
        free = np.zeros(DECISIONS)
        return LoggedTier(name, free, free, (LoggedReading("conf", conf, free),))

    ids = np.arange(DECISIONS)
    log = ReplayLog(ids, tuple(column(name) for name in names), np.ones(DECISIONS), ids)
    accepted = np.where(arms(policy, log) == 1, route(policy, log, 1).accepted, route(policy, log, 0).accepted)

    position = {Accept(name): at for at, name in enumerate(names)}
    small, medium, large = (tier.readings[0].confidence.tolist() for tier in log.tiers)
    decided = np.fromiter(
        (
            position[policy.decide({"small": s, "medium": {"conf": m}, "large": g}, key=key)]  # type: ignore[index]
            for key, (s, m, g) in enumerate(zip(small, medium, large, strict=True))
        ),
        dtype=np.int8,
        count=DECISIONS,
    )
    np.testing.assert_array_equal(decided, accepted)
    assert all(np.bincount(decided) > DECISIONS / 10)


@pytest.mark.parametrize("outside", [math.inf, -math.inf, 2.0, -1.0, math.nextafter(1.0, 2.0), -5e-324])
def test_a_confidence_outside_the_unit_interval_is_missing_to_replay_too(outside: float) -> None:
    log = drawn_log("shared_difficulty", 30, 4)
    conf = LoggedReading("conf", np.full(30, outside), np.zeros(30))
    log = replace(log, tiers=(replace(log.tiers[0], readings=(conf,)), *log.tiers[1:]))
    for cut in (0.0, 0.5, 1.0):
        nodes: tuple[Node, ...] = (Ask("tier1", 1), Read("tier1", "conf", (cut,), (2, 2), 3), Stop(Accept("tier1")))
        nodes += (Ask("tier2", 4), Stop(Accept("tier2")))
        policy = Policy(random_policy(log, 0).tiers, nodes, (Vertex(0.0, 1.0, 0.5, 0),), OperatingPoint(0, 0, 0.0))
        agrees_at_every_vertex(policy, log)


# --------------------------------------------------------------------------------------------------- refusing


def test_a_log_that_lacks_what_the_policy_uses_is_refused_by_name() -> None:
    log = drawn_log("shared_difficulty", 30, 4, contexts=True, reading_prices=(0.0, 0.25))
    policy = TableLearner(bins=3, gap=0.02).policy(log)
    check_match(policy, log)
    with pytest.raises(LogError, match=r"'tier2'.*tier1, tier3"):
        check_match(policy, log.with_tiers(["tier1", "tier3"]))
    with pytest.raises(LogError, match=r"'conf' of 'tier1'.*conf2"):
        check_match(policy, log.with_readings(["conf2"]))
    with pytest.raises(LogError, match="no reading"):
        check_match(policy, log.with_readings([]))
    with pytest.raises(LogError, match="--context task,tenant"):
        check_match(replace(policy, context=("task", "tenant")), replace(log, contexts=None))
