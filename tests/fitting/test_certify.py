"""Certificates: what is promised holds, and nothing is promised that was not tested."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta, binom

from metaverify.fitting.bounds import betting
from metaverify.fitting.certify import CertificateError, Terms, _prices, _range, _walks, certify, certify_quality
from metaverify.fitting.chain import Thresholds
from metaverify.fitting.export import keep_vertices
from metaverify.fitting.fit import fit
from metaverify.fitting.job import FloorError
from metaverify.fitting.learner import TableLearner
from metaverify.policies.actions import Accept
from metaverify.policies.certificate import Certificate, certificate_text
from metaverify.policies.graph import Ask, Poll, Read, Stop
from metaverify.policies.guards import dearest_path, dearest_prices
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Reading, Tier
from metaverify.simulators.log import LogError, LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.replay import route
from metaverify.simulators.traffic import varying
from metaverify.simulators.worlds import WORLDS, World, polled

CUTS = (0.2, 0.4, 0.6, 0.8)
FIXED: list[list[object]] = []
VARYING = [["small", None, 2.0], ["large", None, 8.0]]


def two_tiers(dearest: list[list[object]] = FIXED) -> Policy:
    """Small (price 1), and large (4) where small's reading is below 0, 0.2, .. 0.8: a vertex each, at the cost that
    uniform readings give, and last both always."""
    stop, ask = 2 * len(CUTS) + 2, 2 * len(CUTS) + 1
    table = (
        Ask("small", stop),
        *(Ask("small", 1 + len(CUTS) + at) for at in range(len(CUTS))),
        *(Read("small", "conf", (cut,), (ask, stop), stop) for cut in CUTS),
        Ask("large", stop + 1),
        Stop(Accept("small")),
        Stop(Accept("large")),
    )
    vertices = [Vertex(1.0 - cut, 1.0 + 4.0 * cut, 0.5 + 0.3 * cut, at) for at, cut in enumerate((0.0, *CUTS))]
    reading = Reading("conf", 0.0, CUTS, (1,) * 6)
    return Policy(
        (Tier("small", 1.0, (reading,)), Tier("large", 4.0)),
        table,
        tuple(vertices),
        OperatingPoint(0, 0, 0.0),
        salt="s",
        provenance={"dearest": dearest},
    )


def uniform_log(n: int, seed: int, *, repeats: int = 1, labels: bool = False, price: float = 0.0) -> ReplayLog:
    """Uniform readings, the same ``repeats`` times over as a group; prices vary by a factor of 1 +- ``price``."""
    rng = np.random.default_rng(seed)
    conf = np.repeat(rng.random(n // repeats), repeats)
    ids = np.array([f"{seed}-{at}" for at in range(n)], dtype=object)
    groups = ids if repeats == 1 else np.repeat(ids[::repeats], repeats)
    factor = [rng.choice([1.0 - price, 1.0 + price], n) for _ in range(2)]
    correct = [(rng.random(n) < q).astype(float) if labels else np.full(n, np.nan) for q in (0.5, 0.8)]
    small = LoggedTier("small", correct[0], factor[0], (LoggedReading("conf", conf, np.zeros(n)),))
    return ReplayLog(ids, (small, LoggedTier("large", correct[1], 4.0 * factor[1])), np.ones(n), groups)


def issued(policy: Policy) -> Certificate:
    assert policy.certificate is not None
    return policy.certificate


# What is certified ---------------------------------------------------------------------------------------------------


def test_two_tiers_at_fixed_prices_are_certified_by_the_exact_interval() -> None:
    """At a vertex the bound is 1 + 4 times the upper end of Clopper and Pearson's interval of the share escalated."""
    log = uniform_log(800, 1)
    policy = keep_vertices(two_tiers(), two_tiers().vertices[:3])
    found = certify(policy, log, budget=4.0)
    assert (issued(found).method, issued(found).level, issued(found).dearest) == (
        "clopper-pearson",
        "finite-sample",
        5.0,
    )
    assert found.point.low == 2
    ones = int((log.tiers[0].readings[0].confidence < 0.4).sum())
    upper = float(beta.ppf(0.9, ones + 1, len(log) - ones))
    assert issued(found).bound == pytest.approx(1.0 + 4.0 * upper, rel=1e-5)


def test_the_point_is_the_dearest_that_passes_and_every_cheaper_one_does_too() -> None:
    policy, log, budget = two_tiers(), uniform_log(500, 2), 2.5
    found = certify(policy, log, budget=budget, terms=Terms(method="clopper-pearson"))
    assert issued(found).bound <= budget
    assert 2.0 < found.expected_cost == issued(found).cost < budget
    draws = log.group_draws("graph", 0)
    conf = log.tiers[0].readings[0].confidence

    def passes(cost: float) -> bool:
        """Restated: the exact test of the share that is escalated, thresholds drawn."""
        share = (cost - 1.0) / 0.8 % 1.0
        low = math.floor((cost - 1.0) / 0.8) * 0.2
        escalated = conf < np.where(draws < share, low + 0.2, low)
        return bool(binom.cdf(escalated.sum(), len(log), (budget - 1.0) / 4.0) <= 0.1)

    steps = np.linspace(1.01, found.expected_cost - 1e-6, 60)
    assert all(passes(float(cost)) for cost in steps)
    assert not passes(found.expected_cost + 0.02)


def test_a_mixture_is_seen_before_its_draw_and_a_single_graph_by_the_exact_test() -> None:
    """Between cuts at 0.2 and 0.4, half and half, the coins of the draw would add to what there is to be unsure of."""
    drawn, mixed = [], []
    for seed in range(20):
        log = uniform_log(2000, 100 + seed)
        found = certify(two_tiers(), log, budget=2.2)
        assert issued(found).method == ("betting" if found.point.share > 0.0 else "clopper-pearson")
        mixed.append(found.expected_cost)
        drawn.append(certify(two_tiers(), log, budget=2.2, terms=Terms(method="clopper-pearson")).expected_cost)
    assert np.mean(mixed) > np.mean(drawn)


def test_a_point_of_known_cost_needs_no_rows() -> None:
    """Small alone costs 1 for certain, whatever ten rows say; nothing else is certified by them."""
    found = certify(two_tiers(), uniform_log(3, 1), budget=1.2)
    assert found.point.low == 0
    assert issued(found).bound == pytest.approx(1.0 + 0.2 * (found.expected_cost - 1.0) / 0.2, abs=0.2)


@pytest.mark.parametrize("terms", [Terms(), Terms(method="hoeffding-bentkus"), Terms(looks=True), Terms(next=5000)])
def test_more_rows_never_take_much_away(terms: Terms) -> None:
    costs = [certify(two_tiers(VARYING), uniform_log(n, 5, price=0.5), budget=3.0, terms=terms).expected_cost
             for n in (200, 2000, 20000)]  # fmt: skip
    assert costs[0] < costs[1] < costs[2] < 3.0
    assert costs[2] > 2.7


def test_lower_deltas_promise_less() -> None:
    log = uniform_log(1000, 6, price=0.5)
    costs = [certify(two_tiers(VARYING), log, budget=3.0, terms=Terms(delta=d)).expected_cost for d in (0.01, 0.1, 0.4)]
    assert costs == sorted(costs)


def test_a_unit_of_cost_of_another_name_changes_nothing() -> None:
    policy, log = two_tiers(VARYING), uniform_log(600, 7, price=0.5)
    cents = replace(
        policy,
        tiers=tuple(replace(t, price=100 * t.price) for t in policy.tiers),
        vertices=tuple(replace(v, cost=100 * v.cost, price=v.price / 100) for v in policy.vertices),
        provenance={"dearest": [[tier, name, 100 * price] for tier, name, price in VARYING]},  # type: ignore[operator]
    )
    logged = replace(log, tiers=tuple(replace(t, cost=100 * t.cost) for t in log.tiers))
    one, other = certify(policy, log, budget=3.0), certify(cents, logged, budget=300.0)
    assert (one.point.low, one.point.high) == (other.point.low, other.point.high)
    assert other.point.share == pytest.approx(one.point.share, abs=1e-6)


def test_rows_in_another_order_give_the_same_certificate() -> None:
    log = uniform_log(600, 8, price=0.5)
    again = log.take(np.random.default_rng(0).permutation(len(log)))
    assert certify(two_tiers(VARYING), again, budget=3.0) == certify(two_tiers(VARYING), log, budget=3.0)


def test_what_was_correct_is_not_looked_at() -> None:
    log = uniform_log(600, 8)
    known = replace(log, tiers=tuple(replace(t, correct=np.ones(len(log))) for t in log.tiers))
    assert certify(two_tiers(), known, budget=3.0) == certify(two_tiers(), log, budget=3.0)


def test_two_logs_are_one_larger_one() -> None:
    log = uniform_log(900, 9, price=0.5)
    parts = log.take(np.arange(400)), log.take(np.arange(400, 900))
    whole, halves = (certify(two_tiers(VARYING), *logs, budget=3.0) for logs in ((log,), parts))
    assert issued(halves).rows == 900
    assert halves == whole


def test_betting_on_groups_of_one_size_is_betting_on_their_means() -> None:
    policy, log, budget = two_tiers(VARYING), uniform_log(1500, 10, repeats=5, price=0.5), 3.0
    found = issued(certify(policy, log, budget=budget))
    assert (found.groups, found.largest_group, found.method) == (300, 5.0, "betting")
    at = certify(policy, log, budget=budget)
    lone = at.point.low
    assert at.vertices[lone].cost < budget
    conf, cost = log.tiers[0].readings[0].confidence, log.tiers[0].cost
    escalated = [conf < cut for cut in ((0.0, *CUTS)[lone], (0.0, *CUTS)[at.point.high])]
    low, high = (cost + log.tiers[1].cost * each for each in escalated)
    mean = ((1 - at.point.share) * low + at.point.share * high).reshape(-1, 5).mean(axis=1)
    order = np.argsort(log.group_draws("certify", 0)[::5])
    most = 2 * 2.0 + 2 * 8.0
    assert betting(mean[order] / most, budget / most, 0.1)


def test_rows_that_belong_together_promise_less_than_as_many_that_do_not() -> None:
    together = uniform_log(2000, 11, repeats=10, price=0.5)
    apart = replace(together, group_ids=together.query_ids)
    told, untold = (certify(two_tiers(VARYING), log, budget=3.0) for log in (together, apart))
    assert told.expected_cost < untold.expected_cost
    assert "no group above 10 rows" in str(issued(told))


def test_a_row_of_weight_two_is_no_two_rows() -> None:
    log = uniform_log(600, 12, price=0.5)
    heavy = replace(log, weights=np.full(len(log), 2.0))
    one, other = (certify(two_tiers(VARYING), each, budget=3.0) for each in (log, heavy))
    assert other.point == one.point
    fixed = uniform_log(600, 12)
    assert issued(certify(two_tiers(), replace(fixed, weights=np.full(600, 2.0)), budget=3.0)).method == "betting"


def test_the_next_queries_are_promised_less_than_the_expectation_and_more_the_more_they_are() -> None:
    log = uniform_log(4000, 13)
    costs = [certify(two_tiers(), log, budget=3.0, terms=Terms(next=m)).expected_cost for m in (100, 1000, 100_000)]
    expected = certify(two_tiers(), log, budget=3.0).expected_cost
    assert costs[0] < costs[1] < costs[2] < expected
    found = issued(certify(two_tiers(), log, budget=3.0, terms=Terms(next=1000)))
    assert (found.promise, found.next) == ("realised cost", 1000)


# How often the promise is broken -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "price"),
    [(Terms(), 0.0), (Terms(), 0.5), (Terms(method="hoeffding-bentkus"), 0.0), (Terms(looks=True), 0.5)],
)
def test_the_budget_is_overrun_in_no_more_than_delta_of_all_logs(terms: Terms, price: float) -> None:
    """Uniform readings: the file's costs are the true ones, so a point above the budget is a broken promise."""
    policy, delta = two_tiers(VARYING if price else FIXED), 0.2
    terms = replace(terms, delta=delta)
    found = [certify(policy, uniform_log(150, 1000 + seed, price=price), budget=3.0, terms=terms) for seed in range(40)]
    broken = sum(each.expected_cost > 3.0 for each in found)
    assert binom.sf(broken - 1, len(found), delta) > 0.01


def test_the_next_queries_overrun_in_no_more_than_delta() -> None:
    policy, broken = two_tiers(), 0
    for seed in range(25):
        found = certify(policy, uniform_log(300, 3000 + seed), budget=3.0, terms=Terms(delta=0.2, next=200))
        broken += replay(found, uniform_log(200, 9000 + seed, labels=True)).cost.mean > 3.0
    assert binom.sf(broken - 1, 25, 0.2) > 0.01


# What is refused -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_certified_is_refused_with_the_lowest_budget_that_can_be() -> None:
    policy, log = two_tiers(VARYING), uniform_log(40, 14, price=0.5)
    with pytest.raises(
        CertificateError, match=r"E_CERTIFICATE: budget 1\.1 is not certified on these 40 rows"
    ) as refused:
        certify(policy, log, budget=1.1)
    limit = refused.value.limit
    assert 1.1 < limit < 2.1
    assert certify(policy, log, budget=limit * 1.0001).point.low == 0
    with pytest.raises(CertificateError):
        certify(policy, log, budget=limit * 0.999)
    assert 40 < refused.value.rows < 4000


def counted(policy: Policy, *counts: int) -> Policy:
    """The policy, its reading seen so often in each bin, and last missing."""
    small, *others = policy.tiers
    return replace(policy, tiers=(replace(small, readings=(replace(small.readings[0], counts=counts),)), *others))


def unread(log: ReplayLog, share: float) -> ReplayLog:
    """The log, small's reading missing in the first of its rows."""
    small, large = log.tiers
    (conf,) = small.readings
    gone = np.where(np.arange(len(log)) < share * len(log), np.nan, conf.confidence)
    return replace(log, tiers=(replace(small, readings=(replace(conf, confidence=gone),)), large))


def test_a_trace_in_which_tiers_were_not_read_says_nothing_of_what_they_would_have_led_to() -> None:
    policy, log = counted(two_tiers(), 190, 190, 190, 190, 190, 50), uniform_log(1000, 3)
    assert issued(certify(policy, unread(log, 0.05), budget=4.5)).rows == 1000
    assert issued(certify(policy, log, budget=4.5)).rows == 1000
    with pytest.raises(
        LogError, match=r"E_MISSING: 'conf' of 'small' is missing in 30\.0% of these rows, and was in 5\.0%"
    ):
        certify(policy, unread(log, 0.3), budget=4.5)
    with pytest.raises(LogError, match="E_MISSING"):
        certify_quality(policy, unread(uniform_log(1000, 3, labels=True), 0.3), floor=0.5, delta=0.1, binary=True)


def test_a_query_is_not_counted_twice_where_two_files_have_it() -> None:
    policy, log, other = two_tiers(), uniform_log(300, 4), uniform_log(300, 5)
    both = replace(other, query_ids=log.query_ids, group_ids=log.query_ids)  # row numbers, say, of other queries
    assert issued(certify(policy, log, both, budget=4.0)).rows == 600
    with pytest.raises(LogError, match="E_DUPID: query '4-0' and others are in the log and in the traffic"):
        certify(policy, log, log.take(np.arange(40)), budget=4.0)


def test_rows_that_were_fitted_on_are_known_by_what_was_read_where_their_ids_are_new() -> None:
    log = uniform_log(600, 6, labels=True)
    policy = fit(log, budget=2.0, learner=Thresholds(), compare=False).policy
    ids = np.array([f"new {at}" for at in range(len(log))], dtype=object)
    renamed = replace(log, query_ids=ids, group_ids=ids)
    with pytest.raises(LogError, match="E_INSAMPLE"):
        certify(policy, renamed, budget=3.0)
    few = [np.round(each.tiers[0].readings[0].confidence, 1) for each in (log, uniform_log(600, 7, labels=True))]
    coarse = [
        replace(
            each,
            tiers=(
                replace(each.tiers[0], readings=(replace(each.tiers[0].readings[0], confidence=conf),)),
                each.tiers[1],
            ),
        )
        for each, conf in zip((log, uniform_log(600, 7, labels=True)), few, strict=True)
    ]
    policy = fit(coarse[0], budget=2.0, learner=Thresholds(), compare=False).policy
    assert issued(certify(policy, coarse[1], budget=4.9)).rows == 600  # eleven values: others read the same


def test_weights_below_one_make_no_more_of_the_next_queries_than_there_are() -> None:
    policy, log, terms = two_tiers(), uniform_log(400, 8), Terms(next=50)
    light = replace(log, weights=np.full(400, 0.01))
    assert (
        certify(policy, light, budget=3.0, terms=terms).expected_cost
        <= 1.01 * certify(policy, log, budget=3.0, terms=terms).expected_cost
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_limit_that_was_said_can_be_typed_back(seed: int) -> None:
    policy, log = two_tiers(VARYING), uniform_log(40, 20 + seed, price=0.5)
    with pytest.raises(CertificateError) as refused:
        certify(policy, log, budget=1.05)
    said = re.search(r"the bound is ([0-9.]+), the lowest", str(refused.value))
    assert said is not None
    assert issued(certify(policy, log, budget=float(said[1]))).limit == float(said[1])
    log = uniform_log(40, 20 + seed, labels=True)
    with pytest.raises(CertificateError) as refused:
        certify_quality(two_tiers(), log, floor=0.9, delta=0.1, binary=True)
    said = re.search(r"the bound is ([0-9.]+), the highest", str(refused.value))
    assert said is not None
    assert issued(certify_quality(two_tiers(), log, floor=float(said[1]), delta=0.1, binary=True)).limit == float(
        said[1]
    )


def test_how_many_rows_it_takes_is_said_as_closely_as_these_can_tell() -> None:
    """The range holds the number and begins above what was not enough; few rows may not say where it ends, or whether
    the budget can be kept at all."""
    policy = two_tiers(VARYING)
    for n, seed, budget, told in (
        (30, 45, 1.1, " to "),
        (30, 46, 1.08, "or far more, which so few cannot tell"),
        (300, 46, 1.05, "or far more"),
        (30, 41, 1.03, "should that be chance, it would still take more than"),
        (50, 41, 0.4, "more rows like these would not help: the cheapest point of the dial does not cost less"),
    ):
        with pytest.raises(CertificateError, match=told) as refused:
            certify(policy, uniform_log(n, seed, price=0.5), budget=budget)
        low, high = refused.value.between
        assert n < low <= refused.value.rows <= high
        assert (high < math.inf) == (told == " to ")


def test_a_budget_below_the_cheapest_cost_is_never_had() -> None:
    with pytest.raises(CertificateError, match="more rows like these would not help") as refused:
        certify(two_tiers(), uniform_log(50, 1), budget=0.9)
    assert refused.value.rows == math.inf


@pytest.mark.parametrize(("kind", "ratio"), [("same", 2), ("same", 50), ("two", 5), ("gamma", 20), ("two", 200)])
def test_the_rows_said_to_be_needed_are_within_a_factor_of_two(kind: str, ratio: int) -> None:
    budget = 1.5
    vertex = Vertex(0.0, 1.0, 0.5, 0)
    only = Policy(
        (Tier("only", 1.0),), (Ask("only", 1), Stop(Accept("only"))), (vertex,), OperatingPoint(0, 0, 0.0),
        provenance={"dearest": [["only", None, 1.0]]},
    )  # fmt: skip

    def told(n: int, seed: int) -> float:
        rng = np.random.default_rng(seed)
        gamma = np.minimum(rng.gamma(4.0, 0.25, n), 3.0)
        cost = {"same": np.ones(n), "two": np.where(rng.random(n) < 0.2, 3.0, 0.5), "gamma": gamma}[kind]
        ids = np.array([f"{seed}-{at}" for at in range(n)], dtype=object)
        log = ReplayLog(ids, (LoggedTier("only", np.full(n, np.nan), cost),), np.ones(n), ids)
        try:
            certify(only, log, budget=budget, terms=Terms(dearest=ratio * budget))
        except CertificateError as error:
            return error.rows
        return 0.0

    def enough(n: int) -> bool:
        return sum(told(n, seed) == 0.0 for seed in range(15)) > 7

    needed = 2
    while not enough(needed):
        needed = math.ceil(needed * 1.2)
    said = np.median([told(max(needed // 3, 2), 100 + seed) for seed in range(15)])
    assert needed / 2 <= said <= 2 * needed


def test_a_row_dearer_than_any_can_be_is_an_error_that_names_it() -> None:
    log = uniform_log(50, 15)
    cost = np.where(np.arange(50) == 7, 30.0, 1.0)
    dear = replace(log, tiers=(replace(log.tiers[0], cost=cost), log.tiers[1]))
    with pytest.raises(LogError, match=r"E_DEAREST: query '15-7' costs .* give --dearest"):
        certify(two_tiers(VARYING), dear, budget=3.0)
    with pytest.raises(LogError, match="E_DEAREST"):
        certify(two_tiers(), uniform_log(50, 15, price=0.5), budget=3.0)  # prices are fixed, says the file
    with pytest.raises(LogError, match="a higher --dearest"):
        certify(two_tiers(VARYING), uniform_log(50, 15, price=0.5), budget=3.0, terms=Terms(dearest=1.2))


def test_a_cap_takes_the_place_of_prices() -> None:
    found = issued(certify(two_tiers(VARYING), uniform_log(900, 16, price=0.5), budget=3.0, terms=Terms(dearest=7.5)))
    assert (found.dearest, found.dearest_from) == (7.5, "cap")
    assert (
        issued(certify(two_tiers(VARYING), uniform_log(900, 16, price=0.5), budget=3.0)).dearest_from == "fitting rows"
    )


def test_the_rows_that_a_policy_was_fitted_on_are_refused_in_any_part() -> None:
    log = WORLDS["token_prices"](2).draw(300, 3)
    fitted = fit(log, budget=2.0, learner=Thresholds(), compare=False).policy
    for rows in (log, log.take(np.arange(150)), log.take(np.arange(0, 300, 7))):
        with pytest.raises(LogError, match="E_INSAMPLE"):
            certify(fitted, rows, budget=2.0)
    certify(fitted, WORLDS["token_prices"](2).draw(300, 4), budget=2.0)  # the same ids, other queries


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_an_approximate_certificate_goes_by_the_prices_of_the_rows_whatever_the_file_says(factor: float) -> None:
    log = uniform_log(900, 17, price=0.9)
    dear = replace(log, tiers=tuple(replace(tier, cost=factor * tier.cost) for tier in log.tiers))
    terms = Terms(level="approximate")
    sure = certify(two_tiers(FIXED), dear, budget=3.0, terms=terms)
    assert sure.point == certify(two_tiers(VARYING), dear, budget=3.0, terms=terms).point
    assert replay(sure, dear).cost.mean < issued(sure).bound <= 3.0


def rarely_dear(n: int, seed: int) -> ReplayLog:
    """Of 250 queries one has a low reading; the small tier costs 1 and the large one 100."""
    log = uniform_log(n, seed)
    conf = np.where(np.random.default_rng(seed).random(n) < 0.004, 0.1, 0.9)
    small, large = log.tiers
    small = replace(small, readings=(replace(small.readings[0], confidence=conf),))
    return replace(log, tiers=(small, replace(large, cost=np.full(n, 100.0))))


@pytest.mark.parametrize("n", [300, 1000, 3000])
def test_what_is_rare_and_dear_is_not_promised_away_by_rows_that_have_none_of_it(n: int) -> None:
    plain = two_tiers()
    vertices = (plain.vertices[0], *(replace(v, cost=1.4 + 0.01 * at) for at, v in enumerate(plain.vertices[1:])))
    policy = replace(plain, tiers=(plain.tiers[0], replace(plain.tiers[1], price=100.0)), vertices=vertices)
    broken = 0
    for seed in range(200):
        terms = Terms(delta=0.05, level="approximate")
        with suppress(CertificateError):
            point = certify(policy, rarely_dear(n, seed), budget=1.2, terms=terms).point
            broken += 1.0 + 0.4 * (point.share if point.low == 0 else 1.0) > 1.2
    assert binom.sf(broken - 1, 200, 0.05) > 0.001
    with pytest.raises(CertificateError) as caught:
        certify(policy, rarely_dear(300, 1), budget=0.9, terms=Terms(level="approximate"))
    assert caught.value.limit >= 1.0


def test_approximate_certificates_of_few_groups_are_refused() -> None:
    terms = Terms(level="approximate")
    with pytest.raises(LogError, match="E_FEW: the log has 299 groups"):
        certify(two_tiers(), uniform_log(299, 1), budget=3.0, terms=terms)
    with pytest.raises(LogError, match="E_FEW: the log has 100 groups"):
        certify(two_tiers(), uniform_log(1000, 1, repeats=10), budget=3.0, terms=terms)
    found = issued(certify(two_tiers(), uniform_log(300, 1), budget=3.0, terms=terms))
    assert (found.level, found.method, found.dearest) == ("approximate", "student", None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"delta": 0.0}, "delta is 0"),
        ({"delta": 0.5}, "delta is 0.5"),
        ({"level": "none"}, "level is 'none'"),
        ({"method": "student"}, "method is 'student'"),
        ({"dearest": 0.0}, "dearest is 0.0"),
        ({"next": -1}, "next is -1"),
        ({"method": "betting", "looks": True}, "does not go with an e-process"),
        ({"method": "betting", "level": "approximate"}, "does not go with Student's test"),
        ({"looks": True, "level": "approximate"}, "leave the level out"),
    ],
)
def test_terms_that_are_none_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Terms(**given)  # type: ignore[arg-type]


def test_the_exact_test_is_refused_where_it_does_not_hold() -> None:
    terms = Terms(method="clopper-pearson")
    assert issued(certify(two_tiers(), uniform_log(100, 1), budget=3.0, terms=terms)).method == "clopper-pearson"
    for policy, log in ((two_tiers(VARYING), uniform_log(100, 1)), (two_tiers(), uniform_log(100, 1, repeats=2))):
        with pytest.raises(ValueError, match="one of two"):
            certify(policy, log, budget=3.0, terms=terms)


@pytest.mark.parametrize("budget", [0.0, -1.0, math.nan, math.inf])
def test_a_budget_that_is_none_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="give a finite mean cost"):
        certify(two_tiers(), uniform_log(20, 1), budget=budget)


# Looks ---------------------------------------------------------------------------------------------------------------


def test_a_growing_log_is_looked_at_again_and_the_looks_are_counted() -> None:
    log, terms = uniform_log(3000, 17, price=0.5), Terms(looks=True)
    policy, costs = two_tiers(VARYING), []
    for look, n in enumerate((300, 1000, 3000), start=1):
        policy = certify(policy, log.take(np.arange(n)), budget=3.0, terms=terms)
        assert issued(policy).looks == look
        assert f"look {look}" in str(issued(policy))
        costs.append(policy.expected_cost)
    assert costs == sorted(costs)


def test_a_look_at_what_was_made_for_one_is_refused() -> None:
    once = certify(two_tiers(), uniform_log(300, 18), budget=3.0)
    with pytest.raises(ValueError, match="made for a single look"):
        certify(once, uniform_log(400, 18), budget=3.0, terms=Terms(looks=True))
    first = certify(two_tiers(), uniform_log(300, 18), budget=3.0, terms=Terms(looks=True))
    with pytest.raises(ValueError, match="fewer than the 300 of the look before"):
        certify(first, uniform_log(200, 18), budget=3.0, terms=Terms(looks=True))
    with pytest.raises(ValueError, match="a group has 2 rows"):
        certify(first, uniform_log(400, 18, repeats=2), budget=3.0, terms=Terms(looks=True))


# The dial ------------------------------------------------------------------------------------------------------------


def test_a_certificate_goes_along_to_cheaper_points_and_to_no_dearer_one() -> None:
    found = certify(two_tiers(), uniform_log(500, 19), budget=3.0)
    assert found.at(budget=found.expected_cost - 0.1).certificate == found.certificate
    assert found.at(budget=found.expected_cost + 0.01).certificate is None
    assert found.at(price=1e9).certificate == found.certificate
    assert certificate_text(None) == "certificate: none"


# Quality -------------------------------------------------------------------------------------------------------------


def graded(n: int, seed: int, scores: Sequence[float] = (0.0, 1.0)) -> ReplayLog:
    """Small is right in half, large in 90 % of the cases; other scores take the place of wrong and right."""
    rng, log = np.random.default_rng(seed + 77), uniform_log(n, seed)
    correct = [np.where(rng.random(n) < q, scores[1], scores[0]) for q in (0.5, 0.9)]
    return replace(log, tiers=tuple(replace(t, correct=c) for t, c in zip(log.tiers, correct, strict=True)))


def test_the_quality_of_a_single_graph_is_certified_by_the_exact_interval() -> None:
    """Large is called where the reading is below 0.8, of all that it is right or wrong."""
    policy, log = keep_vertices(two_tiers(), two_tiers().vertices[-1:]), graded(1000, 1)
    found = certify_quality(policy, log, floor=0.7, delta=0.1, binary=True)
    right = float(route(policy, log, 0).quality.sum())
    assert issued(found).method == "clopper-pearson"
    assert issued(found).bound == pytest.approx(float(beta.ppf(0.1, right, len(log) - right + 1)), rel=1e-5)


def test_a_floor_is_certified_at_the_cheapest_point_that_keeps_it() -> None:
    """Large is called where the reading is below the cut: quality 0.5 + 0.4 x cut, 0.82 at the dearest point."""
    policy = two_tiers()
    found = certify_quality(policy, graded(4000, 1), floor=0.7, delta=0.1, binary=True)
    assert issued(found).method == "betting"  # at a mixture of two graphs
    assert issued(found).promise == "expected quality"
    assert 0.7 <= issued(found).bound < 0.71
    true = 0.5 + 0.4 * (found.expected_cost - 1.0) / 4.0
    assert 0.7 <= true < 0.74
    assert found.at(budget=found.expected_cost + 0.2).certificate == found.certificate
    assert found.at(budget=found.expected_cost - 0.2).certificate is None


def test_scores_between_right_and_wrong_are_certified_by_betting() -> None:
    found = certify_quality(two_tiers(), graded(4000, 2, (0.1, 0.9)), floor=0.6, delta=0.1, binary=False)
    assert issued(found).method == "betting"
    assert 0.6 <= issued(found).bound < 0.62


def test_a_floor_that_is_out_of_reach_is_refused_with_the_highest_that_is_not() -> None:
    log = graded(500, 3)
    with pytest.raises(CertificateError, match="the highest floor that can be had here") as refused:
        certify_quality(two_tiers(), log, floor=0.9, delta=0.1, binary=True)
    highest = refused.value.limit
    assert 0.7 < highest < 0.82
    certify_quality(two_tiers(), log, floor=highest - 1e-4, delta=0.1, binary=True)


def test_floors_are_missed_in_no_more_than_delta_of_all_logs() -> None:
    missed = 0
    for seed in range(60):
        found = certify_quality(two_tiers(), graded(300, 100 + seed), floor=0.65, delta=0.2, binary=True)
        missed += 0.5 + 0.4 * (found.expected_cost - 1.0) / 4.0 < 0.65 - 1e-9
    assert binom.sf(missed - 1, 60, 0.2) > 0.01


# fit -----------------------------------------------------------------------------------------------------------------


def test_fit_holds_three_quarters_out_to_certify_a_budget() -> None:
    log = WORLDS["token_prices"](3).draw(900, 1)
    fitted = fit(log, budget=5.0, certify=Terms(delta=0.2), learner=Thresholds(), compare=False)
    found = issued(fitted.policy)
    known, held_out = log.split(1 / 4)
    assert found.rows == len(held_out)
    assert fitted.outcome.n == len(known)
    assert fitted.outcome.cost.mean == pytest.approx(fitted.policy.expected_cost, rel=1e-6)
    plain = fit(known, budget=5.0, learner=Thresholds(), compare=False)
    again = certify(plain.policy, held_out, budget=5.0, terms=Terms(delta=0.2))
    assert again.point.share == pytest.approx(fitted.policy.point.share, abs=1e-6)
    assert fitted.policy.evidence.keys() == plain.policy.evidence.keys() - {"certificate"}


def test_fit_certifies_approximately_on_what_cross_fitting_saw() -> None:
    log = WORLDS["token_prices"](3).draw(900, 1)
    plain = fit(log, budget=5.0, learner=Thresholds(), compare=False)
    fitted = fit(log, budget=5.0, certify=Terms(level="approximate"), learner=Thresholds(), compare=False)
    found = issued(fitted.policy)
    assert (found.level, found.rows) == ("approximate", 900)
    assert fitted.policy.vertices == plain.policy.vertices
    cost = fitted.outcome.cost
    error = (cost.high - cost.low) / 2 / 1.6465  # of a 90 % interval
    assert found.bound == pytest.approx(cost.mean + 1.2824 * error, rel=0.01)
    assert found.bound <= 5.0


def test_fit_finds_the_cheapest_policy_of_a_quality() -> None:
    log = WORLDS["shared_difficulty"](3).draw(800, 2)
    fitted = fit(log, quality_floor=0.7, learner=Thresholds(), compare=False)
    assert fitted.policy.expected_quality == pytest.approx(0.7, abs=0.01)
    assert fitted.policy.certificate is None
    sure = fit(log, quality_floor=0.65, certify=Terms(delta=0.1), learner=Thresholds(), compare=False)
    assert issued(sure.policy).limit == 0.65
    assert issued(sure.policy).bound >= 0.65
    new = WORLDS["shared_difficulty"](3).draw(20_000, 3)
    assert replay(sure.policy, new).quality.low > 0.65
    with pytest.raises(FloorError, match=r"E_FLOOR: no policy learnt from this log reaches a quality of 0.999"):
        fit(log, quality_floor=0.999, learner=Thresholds(), compare=False)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"budget": 2.0, "quality_floor": 0.5}, TypeError, "give a budget, a price or a quality floor"),
        ({"price": 0.1, "certify": Terms()}, TypeError, "a price promises nothing"),
        ({"quality_floor": 1.5}, ValueError, "outside"),
        ({"quality_floor": 0.5, "certify": Terms(next=5)}, ValueError, "give delta only"),
    ],
)
def test_fit_refuses_goals_that_do_not_go_together(given: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        fit(WORLDS["independent"](2).draw(50, 1), **given)  # type: ignore[arg-type]


# What a query can cost -----------------------------------------------------------------------------------------------


def voting() -> World:
    """Two tiers at fixed prices, the small one's answers judged by five votes."""
    plain = WORLDS["shared_difficulty"](2)
    yes = np.tile([0.3, 0.8], (len(plain.prior), 1))
    return replace(plain, readings=((polled("votes", yes, 5, 0.5),), ()))


@pytest.mark.parametrize(
    "world",
    [
        WORLDS["shared_difficulty"](3, reading_prices=(0.2,)),
        WORLDS["hopeless"](2, reading_prices=(0.0, 0.3), missing=0.2),
        WORLDS["token_prices"](3, reading_prices=(0.1,)),
        voting(),
    ],
    ids=["paid readings", "missing", "by token", "votes"],
)
def test_no_walk_costs_more_than_the_range_says_and_fixed_prices_give_the_dearest_walk(world: World) -> None:
    log = world.draw(400, 1)
    policy = fit(log, budget=3.0, learner=TableLearner(first=False), compare=False).policy
    walks = _walks(policy, _prices(policy, None), None)
    assert any(isinstance(node, Read | Poll) for node in policy.nodes)
    for at, vertex in enumerate(policy.vertices):
        ends, cost = _range(walks, vertex), route(policy, log, at).cost
        assert ends.low * (1 - 1e-6) <= cost.min()
        assert cost.max() <= ends.high * (1 + 1e-6)
        if not varying(policy):
            assert ends.high == pytest.approx(dearest_path(policy, dearest_prices(policy))[vertex.root])
        if ends.values is not None:
            assert len(ends.values) <= 2
            assert min(ends.values) == pytest.approx(ends.low)
            assert max(ends.values) == pytest.approx(ends.high)
            assert all(any(abs(value - each) < 1e-6 for each in ends.values) for value in np.unique(cost))
