"""Freedom is earned: a way of learning other than the first is taken only where it is clearly better."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from metaverify.fitting.chain import Thresholds
from metaverify.fitting.crossfit import CrossFit, FoldRun, cross_fit_all
from metaverify.fitting.fit import Fit, fit
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.select import Candidate, Tried, budget_grid, candidates, choose
from metaverify.policies.tiers import Tier
from metaverify.simulators.log import LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.replay import Routes
from metaverify.simulators.worlds import hopeless, shared_difficulty
from tests.strategies import random_log

# ----------------------------------------------------------------------------------------------- choosing by ledgers

N = 2000
LARGE_QUALITY = 0.9


def flat_log(**more: Any) -> ReplayLog:
    """A cheap tier that is never right at a price of 1, a dear one right nine times in ten at 10: 0.1 a unit."""
    ids = np.array([f"q{row:04d}" for row in range(N)], dtype=object)
    right = np.arange(N) % 10 < 9
    tiers = (
        LoggedTier("small", np.zeros(N), np.ones(N), ()),
        LoggedTier("large", right.astype(float), np.full(N, 10.0), ()),
    )
    return ReplayLog(ids, tiers, more.get("weights", np.ones(N)), more.get("groups", ids))


def earning(log: ReplayLog, quality: np.ndarray, cost: float = 2.0) -> CrossFit:
    """A cross-fit of two folds whose policies earn ``quality`` [n] on the log's rows at this mean cost, whatever the
    budget."""
    folds = []
    for rows in (np.arange(0, N, 2), np.arange(1, N, 2)):
        unseen = log.take(rows)
        spent = np.full(len(rows), cost)
        routes = Routes(quality[rows], spent, np.zeros(len(rows), np.int8), (0.0, 0.0), ((), ()), (0.0, 0.0))
        sums = (unseen.total(spent),), (unseen.total(quality[rows]),)
        folds.append(FoldRun(rows, unseen, (Tier("small", 1.0), Tier("large", 10.0)), (cost,), (routes,), *sums))
    return CrossFit(log, tuple(folds))


def chosen(log: ReplayLog, *qualities: np.ndarray, costs: tuple[float, ...] = ()) -> tuple[int, list[Tried]]:
    """The choice between candidates at a single budget of 5."""
    costs = costs or (2.0,) * len(qualities)
    crossed = [earning(log, quality, cost) for quality, cost in zip(qualities, costs, strict=True)]
    return choose([Candidate(f"way {at}", Thresholds()) for at in range(len(crossed))], crossed, [5.0])


def noisy(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(N)


def better_by(errors: float, spread: float = 0.2) -> np.ndarray:
    """Differences [n] whose mean is this many of its standard errors."""
    swing = spread * np.where(np.arange(N) // 2 % 2, 1.0, -1.0)
    return swing + errors * np.std(swing, ddof=1) / math.sqrt(N)


@pytest.mark.parametrize(("errors", "taken"), [(-3.0, 0), (0.0, 0), (1.9, 0), (1.99, 0), (2.02, 1), (2.1, 1), (9.0, 1)])
def test_another_way_is_taken_from_two_standard_errors_on(errors: float, taken: int) -> None:
    base, gain = noisy(), better_by(errors)
    at, compared = chosen(flat_log(), base, base + gain)
    assert at == taken
    error = np.std(gain, ddof=1) / math.sqrt(N)
    assert compared[1].gain.mean == pytest.approx(errors * error, abs=1e-12)
    assert compared[1].gain.low == pytest.approx((errors - 2.0) * error, abs=2e-3 * error)
    assert compared[1].gain.high == pytest.approx((errors + 2.0) * error, abs=2e-3 * error)


def test_the_first_is_compared_with_itself_and_names_are_kept() -> None:
    at, compared = chosen(flat_log(), noisy(), noisy(1))
    assert [each.name for each in compared] == ["way 0", "way 1"]
    assert (compared[0].gain.mean, compared[0].gain.low, compared[0].gain.high) == (0.0, 0.0, 0.0)
    assert at in (0, 1)


def test_of_several_that_are_clearly_better_the_best_is_taken() -> None:
    base = noisy()
    ways = [base, base + better_by(4.0), base + better_by(8.0), base + better_by(6.0)]
    assert chosen(flat_log(), *ways)[0] == 2


def test_one_that_seems_best_and_is_not_clear_yields_to_a_clear_one() -> None:
    base = noisy()
    unsure, sure = better_by(1.5, spread=5.0), better_by(5.0, spread=0.1)
    assert unsure.mean() > 3 * sure.mean()
    assert chosen(flat_log(), base, base + unsure, base + sure)[0] == 2
    assert chosen(flat_log(), base, base + unsure)[0] == 0


def test_what_is_surely_better_by_nothing_that_can_be_seen_is_not_taken() -> None:
    base = noisy()
    for gain, taken in ((1e-4, 0), (4e-4, 0), (6e-4, 1)):
        assert chosen(flat_log(), base, base + gain * (1.0 + 0.01 * better_by(0.0)))[0] == taken


def test_equals_leave_the_first() -> None:
    base = noisy()
    at, compared = chosen(flat_log(), base, base.copy(), base.copy())
    assert at == 0
    assert {each.gain.mean for each in compared} == {0.0}
    assert chosen(flat_log(), base, base + 1e-10)[0] == 0  # rounding is no gain


def test_differences_are_taken_query_by_query() -> None:
    """A steady small gain is clear however much queries differ from one another, and not where they are shuffled."""
    base = noisy()
    steady = base + 0.002
    assert chosen(flat_log(), base, steady)[0] == 1
    assert chosen(flat_log(), base, np.random.default_rng(1).permutation(steady))[0] == 0


def test_queries_of_one_group_are_one_piece_of_evidence() -> None:
    gain = better_by(0.0) + np.where(np.arange(N) < 1100, 0.05, -0.05)  # 11 groups of 20 are for it
    groups = np.array([f"g{row // 100}" for row in range(N)], dtype=object)
    assert chosen(flat_log(), noisy(), noisy() + gain)[1][1].gain.mean == pytest.approx(0.005)
    steady = np.where(np.arange(N) < 1100, 0.05, -0.05)
    assert chosen(flat_log(), noisy(), noisy() + steady)[0] == 1
    assert chosen(flat_log(groups=groups), noisy(), noisy() + steady)[0] == 0


def test_weights_say_how_many_queries_a_row_stands_for() -> None:
    gain = np.where(np.arange(N) % 2, 0.1, -0.1)
    weights = np.where(np.arange(N) % 2, 3.0, 1.0)
    at, compared = chosen(flat_log(weights=weights), noisy(), noisy() + gain)
    assert (at, compared[1].gain.mean) == (1, pytest.approx(0.05))
    assert chosen(flat_log(), noisy(), noisy() + gain)[0] == 0


def test_what_is_spent_beyond_the_budget_is_charged_at_the_hull_s_slope_and_saving_is_not_rewarded() -> None:
    base = noisy()
    for cost, charged in [(2.0, 0.0), (5.0, 0.0), (7.0, 2.0 * LARGE_QUALITY / 9.0), (1.0, 0.0)]:
        at, compared = chosen(flat_log(), base, base + 0.15, costs=(2.0, cost))
        assert compared[1].gain.mean == pytest.approx(0.15 - charged, abs=1e-12)
        assert at == (charged < 0.15)


def test_budgets_lie_between_the_cheapest_tier_and_the_dearest() -> None:
    log = random_log(50, 0, readings=("free", "", "free"), varying=True, weighted=True)
    costs = [log.mean(tier.cost) for tier in log.tiers]
    shares = [(budget - min(costs)) / (max(costs) - min(costs)) for budget in budget_grid(log)]
    assert shares == pytest.approx([0.1, 0.2, 0.4, 0.6, 0.8])


def test_the_choice_is_by_the_mean_over_budgets() -> None:
    log = shared_difficulty(2, 5).draw(300, 0)
    learners = [TableLearner(bins=3, read=False), TableLearner(bins=3, policies="chain")]
    crossed = cross_fit_all(learners, log, folds=3)
    budgets = budget_grid(log)
    tried = [Candidate(name, learner) for name, learner in zip(("blind", "chain"), learners, strict=True)]
    at, compared = choose(tried, crossed, budgets)
    gains = [choose(tried, crossed, [budget])[1][1].gain.mean for budget in budgets]
    assert compared[1].gain.mean == pytest.approx(np.mean(gains), abs=1e-12)
    assert at == (compared[1].gain.low > 1e-9)


# -------------------------------------------------------------------------------------------------- what is compared


def with_votes(log: ReplayLog) -> ReplayLog:
    """The first tier has one more reading that comes free."""
    first, *others = log.tiers
    rng = np.random.default_rng(0)
    votes = LoggedReading("votes", np.round(0.5 * first.correct + 0.5 * rng.random(len(log)), 2), np.zeros(len(log)))
    return replace(log, tiers=(replace(first, readings=(*first.readings, votes)), *others))


def tried(log: ReplayLog, **options: Any) -> dict[str, Any]:
    found = candidates(log, **options)
    return {candidate.name: candidate.learner for candidate in found}


def test_a_plain_log_is_tried_with_a_chain_the_lattice_and_thresholds_the_chain_first() -> None:
    found = tried(random_log(199, 0, readings=("free paid", "free", "")))
    assert list(found) == ["chain", "lattice", "thresholds"]
    assert found["chain"].describe() == TableLearner(bins=8, policies="chain", first=True).describe()
    assert found["lattice"].describe() == TableLearner(bins=8, first=True).describe()
    assert found["thresholds"] == Thresholds()


@pytest.mark.parametrize(("rows", "weight"), [(200, 0.2), (1000, 1.0), (4000, 4.0)])
def test_latent_classes_weigh_the_more_the_more_rows_there_are(rows: int, weight: float) -> None:
    found = tried(random_log(rows, 0, readings=("free", "")))
    assert list(found) == ["chain", "lattice", "thresholds", "lattice, latent classes"]
    assert found["lattice, latent classes"].model.weights == (1.0, weight)


def test_contexts_are_tried_to_be_told_apart_and_not() -> None:
    found = tried(random_log(200, 0, readings=("free", ""), contexts=2))
    assert list(found) == ["chain", "lattice", "thresholds by context", "chain, no context"]
    assert found["thresholds by context"] == Thresholds(context=True)
    assert found["chain, no context"] == replace(found["chain"], context=False)


def test_several_free_readings_are_tried_fused_and_as_the_first_alone() -> None:
    found = tried(with_votes(random_log(200, 0, readings=("free", ""), contexts=2)))
    assert list(found) == [
        *("chain", "lattice", "thresholds by context", "chain, first readings", "chain, no context"),
    ]
    assert found["chain"].fuse == found["lattice"].fuse == 0.5
    assert not found["chain"].first
    assert found["chain, first readings"] == replace(found["chain"], fuse=None, first=True)


@pytest.mark.parametrize(("rows", "aim"), [(99, None), (100, 0.333), (600, 0.75), (1800, 0.9)])
def test_the_more_rows_the_more_a_score_aims_at_the_gain_over_the_best_tier(rows: int, aim: float | None) -> None:
    found = tried(with_votes(random_log(rows, 0, readings=("free", ""))))
    assert found["chain"].fuse == aim
    assert found["chain"].first is (aim is None)
    assert ("chain, first readings" in found) is (aim is not None)


def test_who_may_hand_over_is_given_no_chain() -> None:
    log = with_votes(random_log(200, 0, readings=("free", ""), contexts=2))
    found = tried(log, abstain=0.3)
    assert list(found) == ["lattice", "lattice, first readings", "lattice, no context"]
    assert {learner.abstain for learner in found.values()} == {0.3}


def test_of_more_than_five_tiers_five_are_kept_that_can_keep_the_budget() -> None:
    six, five = (random_log(60, 0, readings=("free",) * count) for count in (6, 5))
    found = tried(six, budget=4.0, bins=3)
    assert {
        (learner.tiers, learner.budget, learner.bins) for name, learner in found.items() if name != "thresholds"
    } == {(5, 4.0, 3)}
    assert found["thresholds"] == Thresholds(3)
    assert tried(five, budget=4.0)["chain"].tiers is None


# --------------------------------------------------------------------------------------------------------- in a fit


def gain(fitted: Fit, name: str) -> Tried:
    (found,) = (each for each in fitted.compared if each.name == name)
    return found


def test_where_confidence_is_not_monotone_in_what_a_better_tier_gains_the_lattice_is_taken_and_it_is_said() -> None:
    world = hopeless(3, 6)
    fitted = fit(world.draw(900, 1), budget=5.0, folds=3)
    assert [each.name for each in fitted.compared] == ["chain", "lattice", "thresholds", "lattice, latent classes"]
    best = max(fitted.compared, key=lambda each: each.gain.mean)
    better = best.gain
    assert better.low > 0.01
    assert gain(fitted, "lattice").gain.low > 0.01
    assert fitted.policy.provenance["method"] == "lattice"
    (note,) = (note for note in fitted.notes if "instead of" in note)
    assert note.startswith(f"{best.name} was taken instead of chain: on unseen queries it earned")
    assert f"{100 * better.mean:.2f} points more" in note
    assert f"[{100 * better.low:+.2f}, {100 * better.high:+.2f}]" in note
    assert fitted.to_json()["compared"][1]["name"] == "lattice"


def test_where_difficulty_is_shared_the_chain_is_kept_without_a_word() -> None:
    fitted = fit(shared_difficulty(3, 6).draw(500, 2), budget=5.0, folds=3)
    assert fitted.policy.provenance["method"] == "chain"
    assert gain(fitted, "lattice").gain.low <= 0.0
    assert not [note for note in fitted.notes if "instead of" in note]


def labelled(log: ReplayLog, labels: np.ndarray) -> ReplayLog:
    return replace(log, contexts=np.array([f"c{label}" for label in labels], dtype=object))


def test_contexts_that_say_nothing_are_not_missed_and_telling_them_apart_is_not_clearly_better() -> None:
    gains = []
    for seed in range(4):
        log = shared_difficulty(3, 6).draw(400, 10 + seed)
        fitted = fit(
            labelled(log, np.random.default_rng(seed).integers(8, size=400)), budget=5.0, folds=3, compare=False
        )
        without = gain(fitted, "chain, no context").gain
        gains.append(without.mean)
        assert without.high > 0.0
        used = fitted.policy.provenance["options"]
        assert used["context"] is (without.low <= 1e-9)
        assert bool([note for note in fitted.notes if "chain, no context was taken" in note]) is not used["context"]
    assert np.mean(gains) > 0.0


def test_contexts_that_say_much_are_used_and_going_without_is_clearly_worse() -> None:
    log = shared_difficulty(3, 6).draw(600, 3)
    cheap, _, dear = log.tiers
    fitted = fit(labelled(log, (dear.correct > cheap.correct).astype(int)), budget=5.0, folds=3)
    assert gain(fitted, "chain, no context").gain.high < -0.05
    assert fitted.policy.provenance["options"]["context"] is True


def test_a_score_that_ranks_better_than_the_first_reading_alone_is_used() -> None:
    log = shared_difficulty(2, 6).draw(500, 4)
    first, other = log.tiers
    rng = np.random.default_rng(4)
    noise, told = (np.round(share * first.correct + (1 - share) * rng.random(500), 2) for share in (0.0, 0.45))
    readings = tuple(LoggedReading(name, c, np.zeros(500)) for name, c in (("noise", noise), ("told", told)))
    fitted = fit(replace(log, tiers=(replace(first, readings=readings), other)), budget=2.5, folds=3)
    assert gain(fitted, "chain, first readings").gain.high < 0.0
    assert fitted.policy.provenance["options"]["fuse"] is not None
