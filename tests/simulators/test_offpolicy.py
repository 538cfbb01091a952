"""The value of a policy on a partial log, against a second implementation, the truth of worlds, and a full replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from metaverify.policies.actions import Accept, Call
from metaverify.policies.exploration import Exploration
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Reading, Tier
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.offpolicy import ESTIMATORS, appraise, untried
from metaverify.simulators.outcome import replay
from metaverify.simulators.partial import PartialLog, Sighting, whole
from metaverify.simulators.trace import observed_by
from metaverify.simulators.walks import Step
from metaverify.simulators.worlds import WORLDS, shared_difficulty, token_prices

PRICES = (1.0, 4.0, 16.0)


def chain(*cuts: float, skip: bool = False) -> Policy:
    """tier1, tier2 below the first cut, tier3 below the second; with ``skip`` from tier1 to tier3 at once."""
    tiers = tuple(Tier(f"tier{k + 1}", p, (Reading("conf", 0.0, (0.5,), (1, 1, 0)),)) for k, p in enumerate(PRICES))
    first, second = (*cuts, 0.0)[:2]
    nodes = (
        Ask("tier1", 1),
        Read("tier1", "conf", (first,), (2, 6), 2),
        Ask("tier3", 7) if skip else Ask("tier2", 3),
        Read("tier2", "conf", (second,), (4, 5), 4),
        Ask("tier3", 7),
        Stop(Accept("tier2")),
        Stop(Accept("tier1")),
        Stop(Accept("tier3")),
    )
    if skip:
        nodes = (nodes[0], Read("tier1", "conf", (first,), (2, 3), 2), Ask("tier3", 4), nodes[6], nodes[7])
    return Policy(tiers, nodes, (Vertex(0.0, 5.0, 0.5, 0),), OperatingPoint(0, 0, 0.0))


OLD = chain(0.4, 0.5)
NEW = chain(0.8, 0.6)


def forget(partial: PartialLog) -> PartialLog:
    """The same, where the chances of what was not seen are not in the log."""

    def known(sighting: Sighting) -> Sighting:
        return Sighting(sighting.seen, np.where(sighting.seen, sighting.chance, np.nan))

    return replace(partial, answers={name: known(sighting) for name, sighting in partial.answers.items()})


# A second implementation: one query after another, by `decide` ------------------------------------------------------


def by_hand(policy: Policy, partial: PartialLog, row: int) -> tuple[list[tuple[Any, float]], str | None]:
    """The states that a query comes to, with the chance that all up to there was seen; and how it ends, None where it
    is not seen on.  A state is what was decided so far, which tells at least as much apart as a node does."""
    readings: dict[str, Any] = {}
    passed: list[tuple[Any, float]] = []
    chance, path = 1.0, ()
    while True:
        action = policy.decide(readings)
        if isinstance(action, Accept):
            sighting = partial.labels[action.tier]
            chance *= sighting.chance[row]
            passed.append(((*path, action), chance))
            return passed, action.tier if sighting.seen[row] else None
        assert isinstance(action, Call)
        sighting = partial.answers[action.tier]
        path = (*path, action)
        chance = min(chance, sighting.chance[row])
        passed.append((path, chance))
        if not sighting.seen[row]:
            return passed, None
        tier = partial.log.tier(action.tier)
        readings[action.tier] = {r.name: float(r.confidence[row]) for r in tier.readings}


def slow(policy: Policy, partial: PartialLog) -> Mapping[str, float]:
    """Quality by IPS, SNIPS and the direct method, in loops over queries; by paths, so for trees only."""
    log = partial.log
    walked = [by_hand(policy, partial, row) for row in range(len(log))]
    weights = [
        0.0 if end is None else float(w) / passed[-1][1] for (passed, end), w in zip(walked, log.weights, strict=True)
    ]
    values = [0.0 if end is None else float(log.tier(end).correct[row]) for row, (_, end) in enumerate(walked)]
    earned = sum(w * v for w, v in zip(weights, values, strict=True))

    def worth(state: Any) -> float:
        """What a state is worth: its weighted mean over what comes next."""
        total = spent = 0.0
        for row, (passed, end) in enumerate(walked):
            states = [of for of, _ in passed]
            if state not in states:
                continue
            at = states.index(state)
            gone_on = at + 1 < len(passed) or end is not None
            if not gone_on:
                continue
            weight = float(log.weights[row]) / passed[at][1]
            total += weight
            spent += weight * (values[row] if at + 1 == len(passed) else known[states[at + 1]])
        return spent / total

    known: dict[Any, float] = {}
    for state in sorted({of for passed, _ in walked for of, _ in passed}, key=len, reverse=True):
        known[state] = worth(state)
    total = float(log.weights.sum())
    root = sum(float(w) * known[passed[0][0]] for (passed, _), w in zip(walked, log.weights, strict=True)) / total
    return {"ips": earned / total, "snips": earned / sum(weights), "direct": root}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("policy", [NEW, chain(0.5, skip=True)], ids=["chain", "skip"])
def test_a_loop_over_queries_says_the_same(policy: Policy, seed: int) -> None:
    log = shared_difficulty().draw(400, seed)
    log = replace(log, weights=np.random.default_rng(seed).integers(1, 4, 400).astype(float))
    partial = observed_by(OLD, log, Exploration(0.3, str(seed)))
    labelled = np.random.default_rng(seed).random(400) < 0.7
    first = partial.log.tiers[0]
    partial = replace(
        partial,
        log=replace(
            partial.log,
            tiers=(replace(first, correct=np.where(labelled, first.correct, np.nan)), *partial.log.tiers[1:]),
        ),
        labels=partial.labels | {"tier1": Sighting(labelled, np.full(400, 0.7))},
    )
    found = appraise(policy, partial).estimators
    for name, value in slow(policy, partial).items():
        assert found[name].quality.mean == pytest.approx(value, rel=1e-12)


def test_on_a_full_log_every_estimator_is_the_replay() -> None:
    log = token_prices(missing=0.1).draw(300, 3, per_group=2)
    outcome = replay(NEW, log)
    found = appraise(NEW, whole(log))
    assert list(found.estimators) == ["dr", "direct", "snips", "ips"]  # no weight to be left to the model
    for name in found.estimators:
        for kind in ("quality", "cost"):
            told, was = getattr(found.estimators[name], kind), getattr(outcome, kind)
            assert told.mean == pytest.approx(was.mean, rel=1e-12)
            if name in ("ips", "snips"):  # the same values, query by query
                assert (told.low, told.high) == pytest.approx((was.low, was.high), rel=1e-12)
    assert found.identified
    assert found.effective == pytest.approx(300.0)


# Truth ---------------------------------------------------------------------------------------------------------------


def errors(world: str, trials: int, rate: float, n: int, first: int = 1000) -> NDArray[np.float64]:
    """What each estimator of NEW's quality errs by against the replay on the full log, [trials, estimators + naive]."""
    found = []
    for trial in range(trials):
        log = WORLDS[world]().draw(n, first + trial)
        partial = observed_by(OLD, log, Exploration(rate, str(trial)))
        appraisal = appraise(NEW, partial)
        truth = replay(NEW, log).quality.mean
        robust = appraisal.estimators["dr"]
        means = [appraisal.estimators.get(name, robust).quality.mean for name in ESTIMATORS]
        assert None not in means
        found.append([*(float(mean or 0.0) - truth for mean in means), naive(log, partial) - truth])
    return np.array(found)


def naive(log: ReplayLog, partial: PartialLog) -> float:
    """NEW's quality over the rows on which everything that it wants was seen, as if they were a fair sample."""
    first, second = (tier.readings[0].confidence for tier in log.tiers[:2])
    seen = {name: sighting.seen for name, sighting in partial.answers.items()}
    done = (first >= 0.8) | seen["tier2"] & ((second >= 0.6) | seen["tier3"])
    return replay(NEW, log.take(done)).quality.mean


@pytest.mark.slow
@pytest.mark.parametrize("world", ["shared_difficulty", "hopeless", "token_prices"])
def test_estimates_are_unbiased_where_naive_ones_are_points_off(world: str) -> None:
    found = errors(world, 600, 0.05, 1000)
    bias, error = found.mean(axis=0), found.std(axis=0) / np.sqrt(len(found))
    robust = [ESTIMATORS.index(name) for name in ("dr", "switch-dr", "direct", "snips")]
    assert (np.abs(bias[robust]) <= 0.003 + 2.0 * error[robust]).all()
    assert abs(bias[-1]) > 0.02


def test_estimates_are_nearer_than_naive_ones() -> None:
    found = errors("shared_difficulty", 40, 0.2, 2000)
    assert (np.abs(found[:, :4].mean(axis=0)) < 0.006).all()
    assert abs(found[:, -1].mean()) > 0.015


def test_intervals_cover_the_truth() -> None:
    truth = replay(NEW, shared_difficulty().draw(200_000, 1))
    held = np.zeros((60, 2))
    for trial in range(60):
        partial = observed_by(OLD, shared_difficulty().draw(1000, trial + 5), Exploration(0.2, str(trial)))
        found = appraise(NEW, partial).estimators["dr"]
        held[trial] = [
            found.quality.low <= truth.quality.mean <= found.quality.high,
            found.cost.low <= truth.cost.mean <= found.cost.high,
        ]
    assert (held.mean(axis=0) >= 0.9 - 2.5 * np.sqrt(0.09 / 60)).all()


@pytest.mark.parametrize("n", [400, 1000])
def test_intervals_cover_the_truth_where_few_were_explored(n: int) -> None:
    """Of what decides, a twentieth was seen, and nearly all of that was right: its own scatter says next to nothing."""
    truth, held, told = replay(NEW, easy(100_000, 1)).quality.mean, 0, 0
    trials = 120
    for trial in range(trials):
        partial = observed_by(OLD, easy(n, trial + 5), Exploration(0.05, str(trial)))
        found = appraise(NEW, partial)
        quality = found.estimators["dr"].quality
        held += quality.low <= truth <= quality.high
        told += not found.identified or any(note.startswith("the quality rests on") for note in found.notes)
        for value in found.estimators.values():
            assert 0.0 <= value.quality.low <= value.quality.high <= 1.0
            assert value.cost.low >= 0.0
    assert held >= 0.85 * trials
    assert told > 0.5 * trials


def audited(partial: PartialLog, share: float, seed: int) -> PartialLog:
    """The same, a share of the answers being labelled."""
    rng, n = np.random.default_rng(seed), len(partial)
    labels = {
        name: Sighting(s.seen & (rng.random(n) < share), np.full(n, share)) for name, s in partial.answers.items()
    }
    tiers = tuple(replace(t, correct=np.where(labels[t.name].seen, t.correct, np.nan)) for t in partial.log.tiers)
    return replace(partial, log=replace(partial.log, tiers=tiers), labels=labels)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_intervals_cover_the_truth_where_explored_answers_are_audited(rate: float) -> None:
    """Of what decides a few answers are labelled, beside many of what does not."""
    trials = 200
    truth, held, told = replay(NEW, shared_difficulty().draw(400_000, 1)).quality.mean, np.zeros(2), 0
    for trial in range(trials):
        log = shared_difficulty().draw(4000, trial + 5)
        found = appraise(NEW, audited(observed_by(OLD, log, Exploration(rate, str(trial))), 0.2, trial))
        for at, name in enumerate(("dr", "switch-dr")):
            quality = found.estimators.get(name, found.estimators["dr"]).quality
            held[at] += quality.low <= truth <= quality.high
        told += not found.identified or any(note.startswith("the quality rests on") for note in found.notes)
    assert (held >= 0.86 * trials).all()
    assert held[0] <= 0.97 * trials
    assert (told > 0.9 * trials) == (rate == 0.02)


def test_many_labels_of_little_weight_do_not_hide_that_few_were_explored() -> None:
    log = shared_difficulty().draw(6000, 4)
    explored = observed_by(OLD, log, Exploration(0.02))
    full, part = (appraise(NEW, of) for of in (explored, audited(explored, 0.2, 4)))
    assert any(note.startswith("the quality rests on") for note in part.notes)
    wide, narrow = (found.estimators["dr"].quality for found in (part, full))
    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)  # a fifth of the labels


def test_the_switched_estimate_is_no_surer_than_the_doubly_robust_one() -> None:
    partial = audited(observed_by(OLD, shared_difficulty().draw(4000, 6), Exploration(0.05)), 0.3, 6)
    found = appraise(NEW, partial)
    assert found.largest > found.cap
    robust, switched = (found.estimators[name].quality for name in ("dr", "switch-dr"))
    assert switched.mean != robust.mean
    assert switched.low <= robust.low
    assert robust.high <= switched.high
    assert "switch-dr" not in appraise(NEW, partial, cap=found.largest).estimators


def easy(n: int, seed: int) -> ReplayLog:
    """Queries of which tier1 answers half, tier2 and tier3 nineteen of twenty, whatever tier1's confidence."""
    rng = np.random.default_rng(seed)
    log = shared_difficulty().draw(n, seed)
    right = [(rng.random(n) < share).astype(float) for share in (0.5, 0.95, 0.95)]
    return replace(log, tiers=tuple(replace(t, correct=y) for t, y in zip(log.tiers, right, strict=True)))


def test_estimators_that_disagree_are_told_of() -> None:
    log = shared_difficulty().draw(4000, 3)
    partial = observed_by(OLD, log, Exploration(0.2))
    assert appraise(NEW, partial).notes == ()
    answers = {k: Sighting(s.seen, np.where(s.chance < 1.0, 0.05, 1.0)) for k, s in partial.answers.items()}
    quality, cost = appraise(NEW, replace(partial, answers=answers)).notes
    assert quality.startswith("by ips the quality is +")
    assert cost.startswith("by ips the cost is +")


# What was never tried -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["chances told", "chances not told"])
@pytest.mark.parametrize("seed", range(5))
def test_what_was_never_tried_has_an_interval_that_holds_the_truth_and_no_number(known: bool, seed: int) -> None:
    log = shared_difficulty().draw(2000, seed)
    partial = observed_by(OLD, log)
    found = appraise(NEW, partial if known else forget(partial))
    truth = replay(NEW, log)
    assert not found.identified
    assert list(found.estimators) == ["dr", "direct"]  # weights say nothing of what has none
    for value in found.estimators.values():
        assert value.quality.mean is None
        assert value.cost.mean is None
        assert value.quality.low <= truth.quality.mean <= value.quality.high
        assert value.cost.low <= truth.cost.mean <= value.cost.high
    flagged = {row.wanted: row.untried for row in found.support}
    confident = log.tiers[0].readings[0].confidence
    never = float(((confident >= 0.4) & (confident < 0.8)).mean())
    assert flagged["tier2"] == pytest.approx(never, abs=1e-12)
    assert [row.where for row in found.support] == [
        "every query",
        "conf of tier1 in [0, 0.8)",
        "conf of tier2 in [0, 0.6)",
    ]


def test_the_old_policy_itself_is_identified_without_exploration() -> None:
    log = shared_difficulty().draw(1000, 3)
    found = appraise(OLD, forget(observed_by(OLD, log)))
    assert found.identified
    assert found.estimators["dr"].quality.mean == pytest.approx(replay(OLD, log).quality.mean, rel=1e-12)


def test_what_is_certain_after_what_was_drawn_leaves_no_room_for_chance() -> None:
    """Chances that are no round numbers, of which a number times its inverse may be less than one."""
    chance = np.linspace(0.011, 0.983, 300)
    seen = np.arange(300) >= 3
    step = Step(0, np.arange(300), seen, chance, np.where(seen, chance, np.nan), chance, None, np.full(300, np.nan))
    assert untried(step).tolist() == (~seen).astype(float).tolist()


def test_a_wider_untried_region_widens_the_interval() -> None:
    log = shared_difficulty().draw(3000, 7)
    widths = []
    for cut in (0.5, 0.3, 0.1):
        found = appraise(NEW, observed_by(chain(cut, 0.9), log)).estimators["dr"].quality
        widths.append(found.high - found.low)
    assert widths[0] < widths[1] < widths[2]


def test_two_graphs_are_the_mixture_of_each() -> None:
    log = shared_difficulty().draw(2000, 2)
    partial = observed_by(OLD, log, Exploration(0.3))
    roots = (Vertex(0.0, 1.0, 0.5, 0), Vertex(0.0, 2.0, 0.6, 1))
    nodes = (Ask("tier1", 2), Ask("tier2", 3), Stop(Accept("tier1")), Stop(Accept("tier2")))
    ends = [Policy(NEW.tiers, nodes, roots, OperatingPoint(at, at, 0.0)) for at in (0, 1)]
    mixed = Policy(NEW.tiers, nodes, roots, OperatingPoint(0, 1, 0.25))
    for name in ("dr", "direct", "snips", "ips"):
        low, high, mix = (appraise(of, partial).estimators[name].quality.mean for of in (*ends, mixed))
        assert low is not None
        assert high is not None
        assert mix == pytest.approx(0.75 * low + 0.25 * high, rel=1e-12)


def test_groups_widen_intervals() -> None:
    log = shared_difficulty().draw(2000, 4, per_group=10)
    partial = observed_by(OLD, log, Exploration(0.2))
    apart = replace(partial, log=replace(partial.log, group_ids=partial.log.query_ids))
    grouped, single = (appraise(NEW, of).estimators["dr"].quality for of in (partial, apart))
    assert grouped.high - grouped.low > 1.1 * (single.high - single.low)


def test_row_order_does_not_matter() -> None:
    partial = observed_by(OLD, shared_difficulty().draw(500, 4), Exploration(0.2))
    order = np.random.default_rng(0).permutation(500)
    first, second = (appraise(NEW, of).estimators["dr"].quality.mean for of in (partial, partial.take(order)))
    assert first == pytest.approx(second, rel=1e-10)


def test_a_chance_of_nothing_for_what_was_seen_is_refused() -> None:
    with pytest.raises(LogError, match="query 2 shows what had no chance"):
        Sighting(np.array([True, True]), np.array([0.5, np.nan]))
    with pytest.raises(LogError, match="outside"):
        Sighting(np.array([True]), np.array([1.5]))


def test_two_graphs_that_go_different_ways_are_told_apart() -> None:
    """One graph goes on from tier1 to tier2, the other to tier3: both are only seen where a query was explored."""
    log = shared_difficulty().draw(60_000, 11)
    nodes = (
        Ask("tier1", 1),
        Read("tier1", "conf", (0.6,), (2, 6), 2),
        Ask("tier2", 5),
        Ask("tier1", 4),
        Read("tier1", "conf", (0.6,), (7, 6), 7),
        Stop(Accept("tier2")),
        Stop(Accept("tier1")),
        Ask("tier3", 8),
        Stop(Accept("tier3")),
    )
    vertices = (Vertex(0.0, 3.0, 0.5, 0), Vertex(0.0, 9.0, 0.6, 3))
    split = Policy(NEW.tiers, nodes, vertices, OperatingPoint(0, 1, 0.5))
    for policy in (NEW, chain(0.7, skip=True)):
        found = appraise(policy, observed_by(split, log, Exploration(0.1))).estimators["dr"].quality
        assert found.mean == pytest.approx(replay(policy, log).quality.mean, abs=0.012)
    assert not appraise(NEW, observed_by(split, log)).identified
