"""Fit, end to end, on logs from worlds whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.chain import Thresholds
from metaverify.fitting.fit import Fit, fit
from metaverify.fitting.frontier import trace_frontier
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.learner import TableLearner
from metaverify.policies.context import context_label
from metaverify.policies.file import dump_policy, parse_policy
from metaverify.policies.graph import Read, successors
from metaverify.policies.policy import BudgetError, Policy
from metaverify.simulators.log import LogError, LoggedTier, ReplayLog, fingerprint, fingerprint_queries
from metaverify.simulators.outcome import replay
from metaverify.simulators.references import no_information_hull, oracle
from metaverify.simulators.worlds import WorldMaker, shared_difficulty, token_prices, useless_verifier
from tests.fitting.oracles import table_of_world
from tests.strategies import random_log

SMALL = TableLearner(bins=4)
CHAIN = TableLearner(policies="chain", bins=3)


def reference(fitted: Fit, name: str):
    (found,) = (r for r in fitted.references if r.name == name)
    return found


@pytest.fixture(scope="module")
def log() -> ReplayLog:
    return shared_difficulty(3, 5).draw(500, 1)


@pytest.fixture(scope="module")
def fitted(log: ReplayLog) -> Fit:
    return fit(log, budget=5.0, learner=SMALL)


def test_references_have_intervals_of_what_they_cost(log: ReplayLog, fitted: Fit) -> None:
    told = {reference["name"]: reference["cost"] for reference in fitted.to_json()["references"]}
    rule = token_prices(2, 4).draw(300, 0)
    for tier in rule.tiers:
        own = {r["name"]: r["cost"] for r in fit(rule, price=0.1, learner=CHAIN, folds=2).to_json()["references"]}
        half = 1.65 * tier.cost.std(ddof=1) / math.sqrt(len(rule))
        cost = own[f"always {tier.name}"]
        assert (cost["low"], cost["high"]) == pytest.approx((cost["mean"] - half, cost["mean"] + half), rel=1e-3)
    assert told["thresholds"]["low"] < told["thresholds"]["mean"] < told["thresholds"]["high"]


# Budgets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "budget"), [(shared_difficulty, 2.5), (token_prices, 3.0)])
def test_new_queries_cost_the_budget_and_earn_what_was_promised_on_average_over_fits(
    make: WorldMaker, budget: float
) -> None:
    """Two tiers at prices 1 and 4, times what hard queries cost more where token prices swing."""
    world = make(2, 5)
    fresh = world.draw(4000, 999)
    spent, promised, earned = [], [], []
    for seed in range(20):
        found = fit(world.draw(300, seed), budget=budget, learner=SMALL, compare=False)
        outcome = replay(found.policy, fresh)
        spent.append(outcome.cost.mean)
        earned.append(outcome.quality.mean)
        promised.append(found.outcome.quality.mean)
    assert np.mean(spent) == pytest.approx(budget, rel=0.03)
    assert np.mean(promised) == pytest.approx(np.mean(earned), abs=0.015)


def test_with_many_rows_a_fit_earns_what_the_exact_solution_of_the_world_earns() -> None:
    world = shared_difficulty(2, 5)
    best = trace_frontier(Lattice(table_of_world(world)), gap=1e-6)
    found = fit(world.draw(6000, 0), budget=2.5, learner=TableLearner(bins=5), compare=False)
    outcome = replay(found.policy, world.draw(20_000, 1))
    assert outcome.quality.mean == pytest.approx(best.quality(outcome.cost.mean), abs=0.012)


def test_unseen_queries_of_the_log_itself_spend_the_budget(fitted: Fit) -> None:
    assert fitted.outcome.cost.mean == pytest.approx(5.0, rel=1e-6)
    assert fitted.policy.point.budget == 5.0
    assert fitted.policy.expected_cost == pytest.approx(5.0, rel=1e-6)


def test_a_budget_below_the_cheapest_tier_is_refused_with_what_to_give(log: ReplayLog) -> None:
    with pytest.raises(BudgetError, match=r"budget 0\.5 is below 1, the mean cost of tier1, .*at least --budget 1$"):
        fit(log, budget=0.5)
    dear = replace(log, tiers=tuple(replace(t, cost=1.23456 * t.cost) for t in log.tiers))
    with pytest.raises(BudgetError, match=r"below 1\.23456, .*--budget 1\.24$"):
        fit(dear, budget=1.0)
    with pytest.raises(BudgetError):
        fit(log, budget=float("nan"))
    with pytest.raises(BudgetError):
        fit(log, budget=-1.0, learner=TableLearner(abstain=0.1))


def test_the_cheapest_budget_can_be_kept(log: ReplayLog) -> None:
    found = fit(log, budget=1.0, learner=SMALL, compare=False)
    assert found.outcome.cost.mean == pytest.approx(1.0, rel=1e-9)
    assert found.outcome.quality.mean == pytest.approx(log.mean(log.tiers[0].correct), abs=1e-9)


def test_a_budget_beyond_all_need_buys_the_best_and_says_that_it_is_not_spent(log: ReplayLog) -> None:
    found = fit(log, budget=500.0, learner=SMALL)
    assert found.outcome.cost.mean < 22.0
    assert any("of the 500 allowed" in note for note in found.notes)


def test_where_one_may_abstain_no_budget_is_too_small(log: ReplayLog) -> None:
    found = fit(log, budget=0.4, learner=TableLearner(bins=3, abstain=0.3), compare=False)
    assert found.outcome.cost.mean == pytest.approx(0.4, rel=1e-6)
    assert found.outcome.abstained > 0.5


def test_a_budget_or_a_price_and_not_both(log: ReplayLog) -> None:
    for given in ({}, {"budget": 5.0, "price": 0.1}):
        with pytest.raises(TypeError, match="give a budget, a price or a quality floor"):
            fit(log, **given)


def test_a_higher_price_spends_less(log: ReplayLog) -> None:
    spent = [fit(log, price=price, learner=SMALL, compare=False).outcome.cost.mean for price in (1.0, 0.03, 0.001)]
    assert spent == sorted(spent)
    assert spent[0] < 1.5 < 5.0 < spent[-1]


# What is reported -----------------------------------------------------------------------------------------------------


def test_fixed_tiers_are_reported_at_their_plain_means(log: ReplayLog, fitted: Fit) -> None:
    for tier in log.tiers:
        always = reference(fitted, f"always {tier.name}")
        assert always.cost.mean == pytest.approx(np.mean(tier.cost), rel=1e-12)
        assert always.quality.mean == pytest.approx(np.mean(tier.correct), rel=1e-12)
        assert always.quality.low < always.quality.mean < always.quality.high


def test_weights_count_in_what_is_reported() -> None:
    log = random_log(150, 2, weighted=True, varying=True)
    found = fit(log, budget=4.0, learner=SMALL, compare=False)
    for tier in log.tiers:
        always = reference(found, f"always {tier.name}")
        assert always.cost.mean == pytest.approx(np.average(tier.cost, weights=log.weights), rel=1e-12)
        assert always.quality.mean == pytest.approx(np.average(tier.correct, weights=log.weights), rel=1e-12)


def test_the_hull_and_the_oracle_stand_beside_the_policy(log: ReplayLog, fitted: Fit) -> None:
    hull = no_information_hull(log)
    assert fitted.outcome.hull == pytest.approx(hull.quality(fitted.outcome.cost.mean), abs=1e-12)
    assert fitted.outcome.gain.mean == pytest.approx(fitted.outcome.quality.mean - fitted.outcome.hull, abs=1e-12)
    assert reference(fitted, "oracle").quality.mean == oracle(log).quality
    assert reference(fitted, "oracle").quality.mean >= fitted.outcome.quality.mean
    assert {r.name for r in fitted.references} >= {"thresholds", "no readings", "oracle"}


def test_the_evidence_in_the_file_is_the_outcome(log: ReplayLog, fitted: Fit) -> None:
    evidence = fitted.policy.evidence
    assert (evidence["rows"], evidence["groups"], evidence["folds"]) == (500, 500, 5)
    assert evidence["quality"]["mean"] == pytest.approx(fitted.outcome.quality.mean, rel=1e-8)
    assert evidence["cost"]["high"] == pytest.approx(fitted.outcome.cost.high, rel=1e-8)
    assert evidence["hull"] == pytest.approx(fitted.outcome.hull, rel=1e-8)
    assert fitted.policy.provenance["log"] == fingerprint(log)


def test_what_varies_in_price_is_in_the_file_as_a_histogram_over_all_queries(log: ReplayLog, fitted: Fit) -> None:
    assert fitted.policy.provenance["prices"] == []
    tokens = token_prices(2, 4).draw(400, 2)
    prices = fit(tokens, budget=2.0).policy.provenance["prices"]
    told = {(tier, name): (cuts, counts) for tier, name, cuts, counts in prices}
    assert told.keys() == {(tier.name, None) for tier in tokens.tiers}
    for tier in tokens.tiers:
        cuts, counts = told[tier.name, None]
        assert counts == np.histogram(tier.cost, [-np.inf, *cuts, np.inf])[0].tolist() == [50] * 8


def test_readings_that_pay_are_read(fitted: Fit) -> None:
    assert any(isinstance(node, Read) for node in fitted.policy.nodes)
    assert fitted.outcome.gain.low > 0.0


@pytest.mark.parametrize("seed", range(4))
def test_no_answer_is_read_more_often_than_it_is_had(seed: int) -> None:
    outcome = fit(shared_difficulty(3, 5).draw(80, seed), budget=5.0, learner=SMALL, compare=False).outcome
    assert any(share > 0.0 for reads in outcome.reads.values() for share in reads.values())
    for tier, reads in outcome.reads.items():
        assert all(share <= outcome.calls[tier] + 1e-12 for share in reads.values()), tier


@pytest.mark.parametrize("seed", range(6))
def test_that_readings_say_nothing_is_said_and_no_loss_is_reported(seed: int) -> None:
    found = fit(useless_verifier(3, 5).draw(400, seed), budget=6.0, learner=SMALL)
    (told,) = (note for note in found.notes if note.startswith("reading confidences"))
    reads = any(isinstance(node, Read) for node in found.policy.nodes)
    assert "hardly pays" in told or ("does not pay" in told and not reads)
    assert found.outcome.gain.mean > -0.005


def test_contexts_are_used_by_name() -> None:
    log = replace(random_log(300, 3, contexts=2), context_names=("task",))
    found = fit(log, budget=4.0, learner=SMALL)
    assert found.policy.context == ("task",)
    assert all(set(v.context_roots) == {"c0", "c1"} for v in found.policy.vertices)
    assert reference(found, "context only").cost.mean == pytest.approx(4.0, rel=1e-6)


def test_progress_rises_to_the_whole(log: ReplayLog) -> None:
    told: list[float] = []
    fit(log, budget=5.0, learner=SMALL, progress=lambda what, share: told.append(share))
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


# The same again -------------------------------------------------------------------------------------------------------


def test_a_second_fit_is_the_same_to_the_last_byte(log: ReplayLog, fitted: Fit) -> None:
    again = fit(log, budget=5.0, learner=SMALL)
    assert dump_policy(again.policy) == dump_policy(fitted.policy)
    assert again.to_json() == fitted.to_json()


def test_the_policy_survives_its_file(log: ReplayLog, fitted: Fit) -> None:
    again = parse_policy(dump_policy(fitted.policy).encode())
    assert replay(again, log) == replay(fitted.policy, log)
    assert dump_policy(again) == dump_policy(fitted.policy)


def test_the_fingerprint_is_of_the_content_and_not_of_the_order(log: ReplayLog) -> None:
    assert fingerprint(log.take(np.random.default_rng(0).permutation(500))) == fingerprint(log)
    first = log.tiers[0]
    changed = [
        log.take(np.arange(499)),
        replace(log, tiers=(replace(first, name="other"), *log.tiers[1:])),
        replace(log, tiers=(replace(first, correct=1.0 - first.correct), *log.tiers[1:])),
        replace(log, tiers=(replace(first, cost=first.cost + 1e-9), *log.tiers[1:])),
        replace(log, tiers=(replace(first, readings=(replace(first.readings[0], name="new"),)), *log.tiers[1:])),
        replace(log, weights=2 * log.weights),
        replace(log, contexts=log.query_ids),
        replace(log, group_ids=np.array(["one", "two"] * 250, dtype=object)),
    ]
    assert len({fingerprint(at) for at in (log, *changed)}) == 1 + len(changed)
    assert [fingerprint_queries(at) == fingerprint_queries(log) for at in changed] == [False] * 4 + [True] * 4


# Small and odd logs ---------------------------------------------------------------------------------------------------


def test_a_single_group_is_refused() -> None:
    log = random_log(30, 4)
    with pytest.raises(LogError, match="single group"):
        fit(replace(log, group_ids=np.array(["one"] * 30, dtype=object)), budget=4.0)


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_few_groups_are_enough_however_they_are_named(groups: int) -> None:
    log = random_log(60, 5)
    for naming in range(8):
        names = np.array([f"{naming} {row % groups}" for row in range(60)], dtype=object)
        found = fit(replace(log, group_ids=names), budget=4.0, learner=TableLearner(bins=2), compare=False)
        assert found.outcome.n == 60
        assert np.isfinite(found.outcome.quality.mean)


def test_fewer_folds_than_were_asked_for_are_said_to_be_so() -> None:
    log = random_log(60, 5)
    log = replace(log, group_ids=np.array([f"g{row % 4}" for row in range(60)], dtype=object))
    notes = [fit(log, budget=4.0, learner=CHAIN, compare=False, folds=folds).notes for folds in (4, 1000)]
    assert not any("folds" in note for note in notes[0])
    assert notes[1] == ("4 folds instead of 1000: there are no more groups that could be left out in turn", *notes[0])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (range(60), "it is a number, so cut it (--context tokens:4)"),
        ([f"user {v}" for v in range(60)], "give a coarser column, or none"),
        (["qa", "code"] * 30, None),
    ],
)
@pytest.mark.parametrize("columns", [("tokens",), ("task", "tokens")])
def test_a_context_of_many_rare_values_is_named(values, words: str | None, columns: tuple[str, ...]) -> None:
    labels = [context_label([*["a/b\\c"] * (len(columns) - 1), str(value)]) for value in values]
    log = replace(random_log(60, 5), contexts=np.array(labels, dtype=object), context_names=columns)
    notes = [n for n in fit(log, budget=4.0, learner=CHAIN, compare=False, folds=2).notes if n.startswith("context ")]
    if words is None:
        assert notes == []
    else:
        rare = "60 values, 60 of them in fewer than 20 queries"
        assert notes == [f"context 'tokens' has {rare}, too few to learn from: {words}"]


def six_tiers(*, cheapest: float, dearest: float) -> ReplayLog:
    """Four tiers worth keeping, between two that are always wrong."""
    log = random_log(200, 3, readings=("free", "free", "free", ""))
    wrong = np.zeros(len(log))
    low, high = (LoggedTier(n, wrong, wrong + c) for n, c in (("lowest", cheapest), ("highest", dearest)))
    return replace(log, tiers=(low, *log.tiers, high))


def test_where_the_tiers_kept_narrow_the_dial_it_is_said_how_far_it_goes() -> None:
    log = six_tiers(cheapest=0.5, dearest=500.0)
    found = fit(log, budget=4.0, learner=replace(CHAIN, tiers=3, budget=4.0), compare=False, folds=2)
    costs = [vertex.cost for vertex in found.policy.vertices]
    (said,) = [note for note in found.notes if note.startswith("the dial covers")]
    assert f"budgets from {costs[0]:.4g} to {costs[-1]:.4g}: lowest (0.5) and highest (500) were not kept" in said
    (kept,) = [
        note for note in fit(log, budget=4.0, learner=replace(CHAIN, tiers=3), compare=False).notes if "dial" in note
    ]
    assert "from 0.5 to" in kept  # where no budget is named to a learner, its dial begins at the cheapest tier
    assert "lowest" not in kept
    every = fit(log, budget=4.0, learner=CHAIN, compare=False, folds=2)
    assert not any("the dial covers" in note for note in every.notes)


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_a_handful_of_rows_makes_a_policy(rows: int) -> None:
    found = fit(random_log(rows, 6), budget=4.0)
    assert 0.0 <= found.outcome.quality.mean <= 1.0


def test_a_reading_seen_in_one_row_only_does_no_harm() -> None:
    log = random_log(80, 7, readings=("free", "free", ""))
    (reading,) = log.tiers[0].readings
    once = replace(reading, confidence=np.where(np.arange(80) == 3, 0.5, np.nan))
    log = replace(log, tiers=(replace(log.tiers[0], readings=(once,)), *log.tiers[1:]))
    assert fit(log, budget=4.0, learner=SMALL).outcome.cost.mean == pytest.approx(4.0, rel=0.2)


def test_one_tier_alone_is_always_called() -> None:
    log = random_log(60, 8, readings=("free",))
    found = fit(log, budget=2.0)
    assert found.outcome.cost.mean == pytest.approx(1.0)
    assert found.outcome.quality.mean == pytest.approx(log.mean(log.tiers[0].correct))


def test_thresholds_can_be_fitted_in_their_own_right(log: ReplayLog) -> None:
    found = fit(log, budget=5.0, learner=Thresholds())
    assert found.outcome.cost.mean == pytest.approx(5.0, rel=1e-6)
    assert found.policy.provenance["method"] == "thresholds"
    assert {r.name for r in found.references} >= {"lattice", "no readings"}


def test_only_the_readings_that_are_named_are_used() -> None:
    log = random_log(200, 9, readings=("free paid", "paid", ""))
    found = fit(log, budget=6.0, learner=SMALL, readings=("paid",), compare=False)
    assert {node.reading for node in found.policy.nodes if isinstance(node, Read)} <= {"paid"}
    with pytest.raises(LogError, match=r"no reading 'other'; it has free, paid"):
        fit(log, budget=6.0, readings=("other",))


# What the file tells of every vertex ----------------------------------------------------------------------------------


def test_every_vertex_of_a_file_has_evidence_and_beliefs_where_they_fit(fitted: Fit) -> None:
    policy = fitted.policy
    assert all(vertex.evidence is not None for vertex in policy.vertices)
    reading = [v for v in policy.vertices if any(isinstance(policy.nodes[at], Read) for at in reached(policy, v.root))]
    assert len(reading) > 2
    assert all(vertex.beliefs for vertex in reading)
    for vertex in policy.vertices:
        assert vertex.evidence is not None
        assert vertex.evidence.cost[0] <= vertex.cost <= vertex.evidence.cost[1]
        assert vertex.evidence.quality[0] <= vertex.quality <= vertex.evidence.quality[1]
        assert sum(share or 0.0 for share in vertex.evidence.accepts) == pytest.approx(1.0, abs=1e-5)


def reached(policy: Policy, root: int) -> set[int]:
    found, stack = set(), [root]
    while stack:
        at = stack.pop()
        found.add(at)
        stack += successors(policy.nodes[at])
    return found


def test_a_file_that_would_be_too_large_keeps_the_beliefs_in_use(
    log: ReplayLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(log, budget=5.0, learner=SMALL).policy
    size = len(dump_policy(whole).encode())
    monkeypatch.setattr("metaverify.fitting.finish.FILE_TARGET", size - 1)
    found = fit(log, budget=5.0, learner=SMALL).policy
    assert [replace(v, beliefs={}) for v in found.vertices] == [replace(v, beliefs={}) for v in whole.vertices]
    for at, (vertex, full) in enumerate(zip(found.vertices, whole.vertices, strict=True)):
        assert vertex.beliefs == (full.beliefs if at in (found.point.low, found.point.high) else {})
