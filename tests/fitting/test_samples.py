"""Samples, readings that change the answer: worlds with known truth, closed forms, and what must not change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.chain import Thresholds
from metaverify.fitting.coding import code_log, ladders_of
from metaverify.fitting.export import policy_of
from metaverify.fitting.fit import fit
from metaverify.fitting.frontier import Frontier
from metaverify.fitting.fusion import cross_fused
from metaverify.fitting.ladders import Ladder, Rung, in_hand
from metaverify.fitting.lattice import Lattice, lattice_bytes
from metaverify.fitting.learner import TableLearner, bins_that_fit
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.models.copula import Copula
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.models.kernel import RankKernel
from metaverify.fitting.models.patterns import Patterns
from metaverify.fitting.models.performance import MOST_ANSWERS, patterns
from metaverify.fitting.observation import observation_model
from metaverify.fitting.pomdp import cascade_pomdp
from metaverify.fitting.rehearse import run_plan
from metaverify.policies.actions import Accept
from metaverify.policies.file import dump_policy, parse_policy
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.simulators.log import LogError, LoggedReading, LoggedSignal, LoggedTier, ReplayLog, fingerprint
from metaverify.simulators.measures import measure_tier
from metaverify.simulators.replay import route
from tests.strategies import random_log

EXACT = 1e-12
ROWS = 20  # of each confidence


def half_mended(*, answered: bool = True) -> ReplayLog:
    """A small tier at 1, right in 18 of 20 queries where it is sure and 6 of 20 where it is not; a second sample at
    0.5 that says nothing and mends half of its errors; and a large tier at 3 that is right in 19 of 20."""
    place = np.tile(np.arange(ROWS), 2)
    sure = np.repeat([True, False], ROWS)
    right = np.where(sure, place < 18, place < 6).astype(float)
    mended = np.where(sure, place < 19, place < 13).astype(float)
    ids = np.array([f"q{row:02d}" for row in range(2 * ROWS)], dtype=object)
    first = LoggedReading("conf", np.where(sure, 0.9, 0.3), np.zeros(2 * ROWS))
    second = LoggedReading(
        "conf2", np.full(2 * ROWS, 0.5), np.full(2 * ROWS, 0.5), correct=mended if answered else None
    )
    small = LoggedTier("small", right, np.ones(2 * ROWS), (first, second))
    large = LoggedTier("large", (place < 19).astype(float), np.full(2 * ROWS, 3.0))
    return ReplayLog(ids, (small, large), np.ones(2 * ROWS), ids)


def solved(log: ReplayLog) -> Lattice:
    return Lattice(Counts().table(code_log(log, ladders_of(log, 8))))


# A sample is worth (1 - q) / 2 - price / 2 where the answer is right with q, and the large tier .95 - q - 3 price.
@pytest.mark.parametrize(
    ("price", "where_sure", "where_not"),
    [
        (0.02, "sample", "large"),
        (0.08, "sample", "large"),
        (0.11, "accept", "large"),
        (0.13, "accept", "sample"),
        (0.69, "accept", "sample"),
        (0.71, "accept", "accept"),
    ],
)
def test_the_ladder_is_climbed_where_mending_half_of_the_errors_pays(
    price: float, where_sure: str, where_not: str
) -> None:
    log = half_mended()
    lattice = solved(log)
    plan = lattice.solve(price)
    earned = {"accept": (0.9, 0.3), "sample": (0.95, 0.65), "large": (0.95, 0.95)}
    spent = {"accept": 1.0, "sample": 1.5, "large": 4.0}
    assert plan.quality == pytest.approx((earned[where_sure][0] + earned[where_not][1]) / 2, abs=EXACT)
    assert plan.cost == pytest.approx((spent[where_sure] + spent[where_not]) / 2, abs=EXACT)
    policy = policy_of(lattice, Frontier((plan,)), log)
    routes = route(policy, log, 0)
    np.testing.assert_array_equal(routes.cost, np.repeat([spent[where_sure], spent[where_not]], ROWS))
    assert log.mean(routes.quality) == pytest.approx(plan.quality, abs=EXACT)
    bought = ROWS * ((where_sure == "sample") + (where_not == "sample"))
    assert routes.reads[0][1] == bought
    assert routes.accepts == (2.0 * ROWS - routes.calls[1], routes.calls[1])


def test_a_reading_that_says_nothing_and_changes_nothing_is_not_bought() -> None:
    log = half_mended(answered=False)
    for price in (1e-6, 0.08, 0.3):
        plan = solved(log).solve(price)
        assert run_plan(solved(log), plan, code_log(log, ladders_of(log, 8))).reads[0][1] == 0.0


def test_an_answer_made_worse_is_never_asked_for() -> None:
    log = half_mended()
    small = log.tiers[0]
    worse = replace(small.readings[1], correct=0.5 * small.correct, price=np.zeros(len(log)))
    lattice = solved(replace(log, tiers=(replace(small, readings=(small.readings[0], worse)), log.tiers[1])))
    for price in (0.01, 0.3, 2.0):
        assert (2, 0) not in {stage.depths for stage in lattice.solve(price).stages}


def test_samples_of_equal_leaves_in_a_graph_are_told_apart_by_the_way_that_leads_there() -> None:
    """One stop serves the answer before and after the sample; each query earns what it has bought."""
    log = half_mended()
    lattice = solved(log)
    policy = policy_of(lattice, Frontier((lattice.solve(0.3),)), log)
    assert sum(isinstance(node, Stop) for node in policy.nodes) == 1
    sure = np.repeat([True, False], ROWS)
    small = log.tiers[0]
    mended = small.readings[1].correct
    np.testing.assert_array_equal(route(policy, log, 0).quality, np.where(sure, small.correct, mended))
    assert parse_policy(dump_policy(policy).encode()).nodes == policy.nodes  # the file has nothing to tell of samples


def test_a_failed_sample_leaves_the_answer_that_the_one_before_it_has_made() -> None:
    """Three samples, the second of which fails on some queries: its answer is there the first one's."""
    rows = 4
    told, nothing = np.full(rows, 0.5), np.array([0.5, np.nan, 0.5, np.nan])
    ids = np.array(list("abcd"), dtype=object)
    readings = (
        LoggedReading("first", told, np.ones(rows), correct=np.full(rows, 0.25)),
        LoggedReading("second", nothing, np.ones(rows), correct=np.array([0.5, np.nan, 0.5, np.nan])),
        LoggedReading("third", nothing[::-1], np.ones(rows), correct=np.array([np.nan, 0.75, np.nan, 0.75])),
    )
    log = ReplayLog(ids, (LoggedTier("a", np.zeros(rows), np.ones(rows), readings),), np.ones(rows), ids)
    coded = code_log(log, ladders_of(log, 2))
    expected = [[0.0] * 4, [0.25] * 4, [0.5, 0.25, 0.5, 0.25], [0.5, 0.75, 0.5, 0.75]]
    for depth, quality in enumerate(expected, start=1):
        np.testing.assert_array_equal(coded.answer(0, depth), quality)
    lattice = Lattice(Counts().table(coded))
    plan = lattice.solve(0.01)
    routes = route(policy_of(lattice, Frontier((plan,)), log), log, 0)
    np.testing.assert_array_equal(routes.quality, expected[-1])
    np.testing.assert_array_equal(run_plan(lattice, plan, coded).quality, expected[-1])
    assert plan.quality == 0.625


def test_the_answer_in_hand_is_the_last_that_was_climbed_to() -> None:
    answers = {(0, 0): "first", (0, 2): "third", (0, 3): "fourth", (1, 0): "other"}
    found = [answers[in_hand(answers, 0, depth)] for depth in range(6)]
    assert found == ["first", "first", "first", "third", "fourth", "fourth"]
    assert answers[in_hand(answers, 1, 3)] == "other"


# What must not change -----------------------------------------------------------------------------------------------


def unchanged(log: ReplayLog) -> ReplayLog:
    """The log where every later reading brings the answer that is there already."""
    return replace(
        log,
        tiers=tuple(
            replace(t, readings=(*t.readings[:1], *(replace(r, correct=t.correct) for r in t.readings[1:])))
            for t in log.tiers
        ),
    )


@pytest.mark.parametrize("contexts", [0, 2])
@pytest.mark.parametrize("model", [Counts(), Copula(), RankKernel()], ids=lambda model: type(model).__name__)
def test_a_sample_that_brings_the_same_answer_changes_nothing(model: TableModel, contexts: int) -> None:
    log = random_log(200, 3, readings=("free paid", "free paid", ""), contexts=contexts, varying=True)
    learner = TableLearner(model=model, bins=3, gap=5e-3)
    policy, again = learner.policy(log), learner.policy(unchanged(log))
    assert any(reading.sample for tier in again.tiers for reading in tier.readings)
    told = tuple(replace(t, readings=tuple(replace(r, sample=False) for r in t.readings)) for t in again.tiers)
    assert dump_policy(policy) == dump_policy(replace(again, tiers=told))
    for vertex in range(0, len(policy.vertices), 4):
        one, other = route(policy, log, vertex), route(policy, unchanged(log), vertex)
        np.testing.assert_array_equal(one.quality, other.quality)
        np.testing.assert_array_equal(one.cost, other.cost)


def test_patterns_of_an_answer_and_its_equal_sample_give_nearly_the_same_table() -> None:
    """But for the few rows of prior in which the two are independent."""
    log = random_log(2000, 3, readings=("free paid", "free"))
    one, other = (Patterns().table(code_log(each, ladders_of(each, 3))) for each in (log, unchanged(log)))
    np.testing.assert_allclose(one.mass, other.mass, atol=2e-3)
    np.testing.assert_allclose(other.later[0, 1], other.quality[0], atol=2e-3)


def test_chains_keep_the_first_answer_even_where_samples_could_be_bought() -> None:
    log = random_log(150, 5, readings=("free sample", "free sample", ""))
    plain = log.with_readings(["free"])
    for chains in (Thresholds(), TableLearner(model=Counts(), policies="chain", bins=3)):
        policy, again = chains.policy(log), chains.policy(plain)
        assert policy.nodes == again.nodes
        found, expected = ([x for v in each.vertices for x in (v.cost, v.quality)] for each in (policy, again))
        assert found == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("kind", ["sample", "gift"])
def test_chains_whose_first_reading_is_a_sample_earn_what_they_promise(kind: str) -> None:
    log = random_log(150, 6, readings=(kind, kind, ""), missing=0.0, varying=True)
    for chains in (Thresholds(), TableLearner(model=Counts(), policies="chain", bins=3)):
        policy = chains.policy(log)
        assert any(isinstance(node, Read) for node in policy.nodes)
        for vertex, promised in enumerate(policy.vertices):
            routes = route(policy, log, vertex)
            assert log.mean(routes.quality) == pytest.approx(promised.quality, abs=1e-9)
            assert log.mean(routes.cost) == pytest.approx(promised.cost, abs=1e-9)


# Where else samples are met -----------------------------------------------------------------------------------------


def test_a_free_sample_is_a_step_of_its_own_and_is_kept_and_never_fused() -> None:
    log = random_log(100, 1, readings=("free gift", "gift"))
    both, alone = ladders_of(log, 2)
    assert [rung.reading for rung in both.rungs] == ["free", "gift"]
    assert [rung.reading for rung in alone.rungs] == [None, "gift"]
    assert [[r.name for r in tier.readings] for tier in log.with_usual_readings().tiers] == [["free", "gift"], ["gift"]]
    assert cross_fused(log)[1] == {}


def test_a_sample_is_judged_by_its_own_answer() -> None:
    log = half_mended()
    small = log.tiers[0]
    mended = small.readings[1].correct
    assert mended is not None
    told = replace(small, readings=(small.readings[0], replace(small.readings[1], confidence=0.1 + 0.8 * mended)))
    assert measure_tier(told, log.weights).readings[1].auroc == 1.0


def test_rows_and_the_fingerprint_have_the_samples_answers() -> None:
    log = half_mended()
    rows = np.array([3, 39, 18])
    np.testing.assert_array_equal(log.take(rows).tiers[0].readings[1].correct, log.tiers[0].readings[1].correct[rows])
    assert len({fingerprint(each) for each in (log, half_mended(answered=False), unchanged(log))}) == 3


def thrice(price: float) -> ReplayLog:
    """`half_mended` with a third sample, the second at this price."""
    log = half_mended()
    small, large = log.tiers
    conf, second = small.readings
    third = replace(second, name="conf3", correct=np.ones(len(log)))
    second = replace(second, price=np.full(len(log), price))
    return replace(log, tiers=(replace(small, readings=(conf, second, third)), large))


def test_a_sample_without_the_one_before_it_is_refused() -> None:
    log = thrice(0.5)
    with pytest.raises(LogError, match=r"'conf3' of 'small' was drawn after 'conf2', .*; keep 'conf2' too"):
        log.with_readings(["conf", "conf3"])
    with pytest.raises(LogError, match="was drawn after 'conf2'"):
        fit(log, budget=2.0, readings=["conf", "conf3"])
    for names in ((), ("conf",), ("conf2",), ("conf2", "conf3"), ("conf", "conf2", "conf3")):
        assert [r.name for r in log.with_readings(names).tiers[0].readings] == list(names)


@pytest.mark.parametrize(("price", "bought"), [(0.5, ["conf", "conf2", "conf3"]), (3.0, ["conf"])])
def test_samples_after_one_that_nobody_would_pay_for_are_left_out_with_it(price: float, bought: list[str]) -> None:
    assert [reading for _, reading in bins_that_fit(thrice(price), 8)] == bought


def test_a_lattice_with_samples_is_known_to_be_larger() -> None:
    ladders = (Ladder("a", (Rung(None), Rung("conf2", (0.5,)))),)
    assert lattice_bytes(ladders, arrays=1)[1] > lattice_bytes(ladders)[1]


def test_a_pomdp_is_refused_and_its_model_gives_the_table_back() -> None:
    table = Counts().table(code_log(half_mended(), ladders_of(half_mended(), 2)))
    model = observation_model(table)
    np.testing.assert_allclose(model.table().later[0, 1], table.later[0, 1], atol=EXACT)
    with pytest.raises(ValueError, match=r"reading 'conf2' of 'small' is a sample, which changes the answer"):
        cascade_pomdp(model, 0.1)


def test_votes_a_signal_and_an_unknown_quality_cannot_be_samples() -> None:
    half = np.full(2, 0.5)
    with pytest.raises(LogError, match="'votes' is votes, and changes the answer as well"):
        LoggedReading("votes", half, half, votes=2, correct=half)
    with pytest.raises(LogError, match="sample 'conf2' is there where the quality of its answer is not"):
        LoggedReading("conf2", half, half, correct=np.array([1.0, np.nan]))
    with pytest.raises(LogError, match="reading 'conf' of 'judge' is a sample, but a signal has no answer"):
        LoggedSignal("judge", (LoggedReading("conf", half, half, correct=half),))


def test_too_many_answers_for_patterns_are_refused() -> None:
    with pytest.raises(ValueError, match=r"15 answers make 32,768 patterns .* fewer samples \(--samples\)"):
        patterns(np.zeros((1, MOST_ANSWERS + 1)))


def test_a_router_that_keeps_the_latest_answer_returns_what_replay_counts() -> None:
    log = half_mended()
    lattice = solved(log)
    policy = policy_of(lattice, Frontier((lattice.solve(0.05),)), log)
    assert isinstance(policy.nodes[0], Ask)
    routes = route(policy, log, 0)
    small, large = log.tiers
    for row in range(len(log)):
        readings: dict[str, dict[str, float]] = {}
        answers: dict[str, float] = {}
        while not isinstance(action := policy.decide(readings, key=str(row)), Accept):
            tier, name = getattr(action, "tier", ""), getattr(action, "reading", None)
            if name is None:
                answers[tier] = log.tier(tier).correct[row]
                readings[tier] = {"conf": small.readings[0].confidence[row]} if tier == "small" else {}
            else:
                answers[tier] = small.readings[1].correct[row]  # the latest
                readings[tier][name] = small.readings[1].confidence[row]
        assert answers[action.tier] == routes.quality[row]
    assert large.correct.mean() == 0.95
