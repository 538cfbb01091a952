"""AutoMix's rules against loops over rows and candidates, and what is said of them against replay."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.automix.objectives import Envelope, LargestIBC
from metaverify.fitting.automix.routing import AutoMix
from metaverify.fitting.automix.rules import (
    DoubleThreshold,
    GreedyPOMDP,
    POMDPSimple,
    Rule,
    SelfConsistency,
    Threshold,
    TripleThreshold,
    pomdp_union,
)
from metaverify.fitting.automix.zoo import LEARNERS
from metaverify.fitting.chain import Thresholds
from metaverify.fitting.fit import fit
from metaverify.policies.actions import Accept, Call
from metaverify.policies.file import dump_policy
from metaverify.policies.policy import Policy
from metaverify.simulators.log import LogError, LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.references import no_information_hull
from metaverify.simulators.replay import route
from tests.fitting.oracles import curve_at, upper_hull
from tests.strategies import random_log

BINS = 5  # in these tests: around 0, 1/4, .. 1
Points = list[tuple[float, float]]
Wanted = Callable[[int], bool]  # of a bin, whether its queries go on


def up_to(end: int) -> Wanted:
    return lambda b: b <= end


def between(low: int, high: int) -> Wanted:
    return lambda b: low <= b <= high


def among(taken: list[int]) -> Wanted:
    return lambda b: b in taken


def either(first: Wanted, second: Wanted) -> Wanted:
    return lambda b: first(b) or second(b)


def by_threshold(bins: list[int], small: np.ndarray, large: np.ndarray, weights: np.ndarray) -> Iterator[Wanted]:
    yield from (up_to(end) for end in range(BINS))


def by_double(bins: list[int], small: np.ndarray, large: np.ndarray, weights: np.ndarray) -> Iterator[Wanted]:
    yield from (between(low, high) for low in range(BINS - 1) for high in range(low + 1, BINS - 1))


def by_triple(bins: list[int], small: np.ndarray, large: np.ndarray, weights: np.ndarray) -> Iterator[Wanted]:
    for first, low, high in itertools.combinations(range(BINS - 1), 3):
        yield either(up_to(first), between(low, high))


def by_half(bins: list[int], small: np.ndarray, large: np.ndarray, weights: np.ndarray) -> Iterator[Wanted]:
    yield lambda b: b / (BINS - 1) <= 0.5


def by_greed(bins: list[int], small: np.ndarray, large: np.ndarray, weights: np.ndarray) -> Iterator[Wanted]:
    means = []
    for b in range(BINS):
        rows = [i for i, own in enumerate(bins) if own == b]
        weight = sum(weights[i] for i in rows)
        means.append(sum(weights[i] * (large[i] - small[i]) for i in rows) / weight if rows else 0.0)
    mirrored = [*means[::-1], *means, *means[::-1]] * 3  # as scipy reflects at the ends
    kernel = [math.exp(-(d**2) / 8) for d in range(-8, 9)]
    smooth = [
        sum(k * mirrored[4 * BINS + b + d] for k, d in zip(kernel, range(-8, 9), strict=True)) for b in range(BINS)
    ]
    order = sorted(range(BINS), key=lambda b: -smooth[b])
    for count in range(1, BINS + 1):
        yield among(order[:count])


def by_kinds(bins: list[int], small: np.ndarray, large: np.ndarray, weights: np.ndarray) -> Iterator[Wanted]:
    low_small, low_large = np.quantile(small, 0.1), np.quantile(large, 0.1)
    share = np.zeros((BINS, 3))
    for i, b in enumerate(bins):
        if not 0 <= b < BINS:
            continue
        if small[i] < large[i]:
            share[b, 0] += weights[i]
        elif small[i] == large[i] != 0.0:
            share[b, 1] += weights[i]
        elif small[i] <= low_small and large[i] <= low_large:
            share[b, 2] += weights[i]
    for b in range(BINS):
        share[b] /= max(sum(w for w, own in zip(weights, bins, strict=True) if own == b), 1e-300)
    for reward in range(5000):
        keep = share @ [-reward, 0, -reward - 1]
        on = share @ [-100, -100, -reward - 100]
        yield among(np.flatnonzero(on > keep + 1e-9).tolist())


RULES: dict[str, tuple[Rule, Callable[..., Iterator[Wanted]]]] = {
    "Threshold": (Threshold(), by_threshold),
    "DoubleThreshold": (DoubleThreshold(), by_double),
    "TripleThreshold": (TripleThreshold(), by_triple),
    "SelfConsistency": (SelfConsistency(), by_half),
    "GreedyPOMDP": (GreedyPOMDP(), by_greed),
    "POMDPSimple": (POMDPSimple(), by_kinds),
}


def candidates(log: ReplayLog, cheap: LoggedTier, dear: LoggedTier, family: Callable[..., Iterator[Wanted]]) -> Points:
    """Cost and quality of every set of bins of a family, missing readings going on and, if there are any, staying."""
    if not cheap.readings:
        return []
    reading, weights = cheap.readings[0], log.weights / log.weights.sum()
    answer = cheap.correct
    if reading.correct is not None:
        answer = np.where(np.isnan(reading.correct), answer, reading.correct)
    bins = [-1 if math.isnan(c) else math.floor(c * (BINS - 1) + 0.5) for c in reading.confidence]
    points, done = [], set()
    for wanted in family(bins, answer, dear.correct, weights):
        chosen = tuple(wanted(b) for b in range(BINS))
        for missing in {True, -1 not in bins} if chosen not in done else ():
            on = np.array([missing if b < 0 else chosen[b] for b in bins])
            cost = weights @ (cheap.cost + reading.price + np.where(on, dear.cost, 0.0))
            points.append((float(cost), float(weights @ np.where(on, dear.correct, answer))))
        done.add(chosen)
    return points


def alone(log: ReplayLog) -> Points:
    return [(log.mean(tier.cost), log.mean(tier.correct)) for tier in log.tiers]


def points_of(policy: Policy) -> Points:
    return [(vertex.cost, vertex.quality) for vertex in policy.vertices]


LOGS: dict[str, Callable[[int], ReplayLog]] = {
    "free": lambda seed: random_log(400, seed, readings=("free", ""), missing=0.0),
    "paid, weighted": lambda seed: random_log(400, seed, readings=("paid", ""), weighted=True),
    "scores, varying prices": lambda seed: random_log(400, seed, readings=("paid", "free"), scored=True, varying=True),
    "a reading that changes the answer": lambda seed: random_log(400, seed, readings=("sample", "")),
    "three tiers": lambda seed: random_log(400, seed, readings=("free", "paid", ""), missing=0.3),
}


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("rule", RULES)
def test_the_envelope_is_that_of_every_candidate_of_every_pair(rule: str, log: str) -> None:
    rows, (own, family) = LOGS[log](1), RULES[rule]
    policy = AutoMix(own, bins=BINS).policy(rows)
    pairs = itertools.combinations(rows.tiers, 2)
    best = upper_hull(alone(rows) + [p for cheap, dear in pairs for p in candidates(rows, cheap, dear, family)])
    for budget in np.linspace(best[0][0], best[-1][0], 50):
        assert curve_at(points_of(policy), budget) == pytest.approx(curve_at(best, budget), abs=1e-9)


@pytest.mark.parametrize("objective", [Envelope(), LargestIBC(), LargestIBC(regions=4)], ids=repr)
@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("rule", RULES)
def test_what_a_vertex_says_is_what_replay_earns(rule: str, log: str, objective: Envelope | LargestIBC) -> None:
    rows = LOGS[log](2)
    policy = AutoMix(RULES[rule][0], objective, bins=BINS).policy(rows)
    for at, vertex in enumerate(policy.vertices):
        routes = route(policy, rows, at)
        assert (rows.mean(routes.cost), rows.mean(routes.quality)) == pytest.approx((vertex.cost, vertex.quality))
    assert all(a.cost < b.cost and a.quality < b.quality for a, b in itertools.pairwise(policy.vertices))


@pytest.mark.parametrize("regions", [1, 2, 5])
@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("rule", RULES)
def test_the_largest_ibc_of_each_region_is_that_of_every_candidate_there(rule: str, log: str, regions: int) -> None:
    rows, (own, family) = LOGS[log](1), RULES[rule]
    pairs = itertools.combinations(rows.tiers, 2)
    every = [p for cheap, dear in pairs for p in candidates(rows, cheap, dear, family)]
    (cost, quality), dearest = alone(rows)[0], alone(rows)[-1][0]
    best = [(cost, quality)]
    for region in range(regions):
        low, high = (cost + (dearest - cost) * edge / regions for edge in (region, region + 1))
        inside = [p for p in every if (low <= p[0] <= high or regions == 1) and p[0] > cost + 1e-9]
        if inside:
            point = max(inside, key=lambda p: (p[1] - quality) / (p[0] - cost))
            best += [point] if point[1] > best[-1][1] else []
    policy = AutoMix(own, LargestIBC(regions=regions), bins=BINS).policy(rows)
    np.testing.assert_allclose(points_of(policy), best, atol=1e-9)


def test_without_more_said_there_is_one_region_for_two_tiers_and_five_for_more() -> None:
    for readings, regions in ((("free", ""), 1), (("free", "free", ""), 5)):
        log = random_log(300, 3, readings=readings)
        same = [AutoMix(objective=LargestIBC(given)).policy(log) for given in (None, regions)]
        assert same[0] == same[1]


def test_thresholds_at_every_value_are_a_chain_of_two() -> None:
    log = random_log(300, 4, readings=("free", ""))  # confidences are tenths; a missing one may stay, unlike in a chain
    tiers = (replace(log.tiers[0], readings=(_without_missing(log.tiers[0].readings[0]),)), log.tiers[1])
    log = replace(log, tiers=tiers)
    chain = Thresholds(bins=256, gap=1e-12).policy(log)
    for cuts, bins in (("grid", 11), ("balanced", 20)):
        own = AutoMix(Threshold(), bins=bins, cuts=cuts).policy(log)
        np.testing.assert_allclose(points_of(own), points_of(chain), atol=1e-9)


def _without_missing(reading: LoggedReading) -> LoggedReading:
    return replace(reading, confidence=np.nan_to_num(reading.confidence, nan=0.3))


def test_a_union_is_no_worse_than_any_of_its_rules() -> None:
    log = random_log(500, 5, readings=("free", "paid", ""))
    whole = points_of(AutoMix(pomdp_union(), bins=BINS).policy(log))
    for rule in pomdp_union().rules:
        for cost, quality in points_of(AutoMix(rule, bins=BINS).policy(log)):
            assert curve_at(whole, cost) >= quality - 1e-9


def test_a_hopeless_query_is_kept_by_two_thresholds_and_not_by_one() -> None:
    """Confidence 0 is hopeless, 1/2 needs the large tier, 1 is right."""
    confidence = np.repeat([0.0, 0.5, 1.0], 100)
    small, large = np.repeat([0.0, 0.0, 1.0], 100), np.repeat([0.0, 1.0, 1.0], 100)
    log = _two(small, large, confidence)
    one, two = (AutoMix(rule, bins=BINS).policy(log) for rule in (Threshold(), DoubleThreshold()))
    np.testing.assert_allclose(points_of(two), [(1.0, 1 / 3), (1.0 + 10 / 3, 2 / 3)])
    np.testing.assert_allclose(points_of(one), [(1.0, 1 / 3), (1.0 + 20 / 3, 2 / 3)])


def _two(small: np.ndarray, large: np.ndarray, confidence: np.ndarray) -> ReplayLog:
    ids, free = np.array([f"q{at:04}" for at in range(len(small))]), np.zeros(len(small))
    cheap = LoggedTier("small", small, np.ones(len(ids)), (LoggedReading("conf", confidence, free),))
    return ReplayLog(ids, (cheap, LoggedTier("large", large, np.full(len(ids), 10.0))), np.ones(len(ids)), ids)


# Answers that always go on --------------------------------------------------------------------------------------------


def with_fixed(seed: int, price: float = 0.0) -> ReplayLog:
    """The log, where a fifth of the first tier's answers are of the kind that is always wrong; some not known."""
    log = random_log(400, seed, readings=("paid", ""))
    rng = np.random.default_rng(seed)
    cheap, fixed = log.tiers[0], rng.random(400) < 0.2
    column = np.where(rng.random(400) < 0.1, np.nan, np.where(fixed, 0.0, 1.0))
    reading = LoggedReading("answerable", column, np.full(400, price))
    cheap = replace(cheap, correct=np.where(fixed, 0.0, cheap.correct), readings=(*cheap.readings, reading))
    return replace(log, tiers=(cheap, *log.tiers[1:]))


@pytest.mark.parametrize("price", [0.0, 0.125])
def test_fixed_answers_go_on_unverified_and_the_others_as_if_they_were_the_log(price: float) -> None:
    log = with_fixed(6, price)
    policy = AutoMix(Threshold(), LargestIBC(), bins=BINS, fixed="answerable").policy(log)
    rest = log.take(~(log.tiers[0].readings[1].confidence < 0.5))
    own = candidates(rest, rest.tiers[0], rest.tiers[1], by_threshold)
    others = len(log) - len(rest)
    gone = log.take(log.tiers[0].readings[1].confidence < 0.5)
    cost, quality = (gone.total(gone.tiers[1].cost + gone.tiers[0].cost), gone.total(gone.tiers[1].correct))
    every = [((c * len(rest) + cost) / len(log) + price, (q * len(rest) + quality) / len(log)) for c, q in own]
    origin = alone(log)[0]
    best = max(every, key=lambda p: (p[1] - origin[1]) / (p[0] - origin[0]))
    assert points_of(policy)[1] == pytest.approx(best)
    routes = route(policy, log, 1)
    assert (log.mean(routes.cost), log.mean(routes.quality)) == pytest.approx(best)
    (conf_reads, answerable_reads), _ = routes.reads
    assert (conf_reads, answerable_reads) == (len(log) - others, len(log))
    dial = policy.at(budget=policy.vertices[1].cost)
    assert dial.decide({"tier0": {"answerable": 0.0}}) == Call("tier1")


def test_fixed_answers_of_a_tier_that_lacks_the_reading_are_none() -> None:
    log = random_log(300, 7, readings=("free", "free", ""))
    first = log.tiers[0]
    all_good = LoggedReading("answerable", np.ones(300), np.zeros(300))
    told = replace(log, tiers=(replace(first, readings=(*first.readings, all_good)), *log.tiers[1:]))
    same = (AutoMix(fixed="answerable").policy(told), AutoMix().policy(log))
    np.testing.assert_allclose(*map(points_of, same))


def test_the_reading_of_fixed_answers_is_not_the_verifier_wherever_it_stands() -> None:
    log = with_fixed(9)
    first = log.tiers[0]
    turned = replace(log, tiers=(replace(first, readings=first.readings[::-1]), log.tiers[1]))
    same = [AutoMix(fixed="answerable").policy(each) for each in (log, turned)]
    assert points_of(same[0]) == points_of(same[1])


# Bad input, and every learner ---------------------------------------------------------------------------------------


def test_bad_input_is_refused_with_the_way_out() -> None:
    log = random_log(100, 1, readings=("free", ""))
    with pytest.raises(LogError, match="no tier of the log has a reading 'votes'; they have free"):
        AutoMix(reading="votes").policy(log)
    with pytest.raises(LogError, match="no tier of the log has a reading 'answerable'; they have free"):
        AutoMix(fixed="answerable").policy(log)
    with pytest.raises(ValueError, match=r"no rule costs from 0 to 0\.5 a query; there are none"):
        AutoMix(objective=LargestIBC(within=(0.0, 0.5))).policy(log.with_readings(()))
    with pytest.raises(ValueError, match="bins is 1; give at least 2"):
        AutoMix(bins=1)
    with pytest.raises(ValueError, match="cuts is 'even'; give one of grid, balanced"):
        AutoMix(cuts="even")
    with pytest.raises(ValueError, match="reading and fixed are both 'conf'"):
        AutoMix(reading="conf", fixed="conf")
    with pytest.raises(ValueError, match="regions is 0; give at least 1"):
        LargestIBC(regions=0)
    with pytest.raises(ValueError, match=r"within is \(2, 1\); give the lesser cost first"):
        LargestIBC(within=(2, 1))


@pytest.mark.parametrize("objective", [Envelope(), LargestIBC()], ids=repr)
@pytest.mark.parametrize("rule", RULES)
def test_a_log_without_readings_leaves_the_fixed_tiers(rule: str, objective: Envelope | LargestIBC) -> None:
    log = random_log(200, 2, readings=("", "", ""))
    hull = [(p.cost, p.quality) for p in no_information_hull(log).points]
    wanted = hull if isinstance(objective, Envelope) else alone(log)[:1]
    policy = AutoMix(RULES[rule][0], objective).policy(log)
    np.testing.assert_allclose(points_of(policy), wanted)
    assert policy.decide({}) == Call("tier0")
    assert policy.decide({"tier0": {}}) == Accept("tier0")


def test_every_method_has_its_twin() -> None:
    names = ["threshold", "double", "triple", "self-consistency", "greedy", "pomdp-simple", "union", "fixed-answer"]
    own = [f"automix-{name}" for name in (*names, "pomdp", "pomdp-counts")]
    assert set(LEARNERS) == {*own, *(f"{name}-ibc" for name in own)}


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_is_fitted_like_any_other(name: str) -> None:
    log = with_fixed(8)
    log = replace(
        log, contexts=np.array([f"c{at % 2}" for at in range(len(log))], dtype=object), context_names=("task",)
    )
    learner = LEARNERS[name]()
    described = learner.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["options"]["objective"].startswith("LargestIBC" if name.endswith("-ibc") else "Envelope")
    fitted = fit(log, budget=2.5, learner=learner, readings=("paid", "answerable"), folds=3, compare=False)
    assert fitted.outcome.cost.mean <= 2.6
    assert dump_policy(fitted.policy)
    assert LEARNERS[name]().policy(log) == learner.policy(log)
