"""A plan is kept: what is explored as it says tells the value as precisely as it says, and nothing cheaper does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, minimize

from metaverify.policies.exploration import Exploration, ExploredBin
from metaverify.simulators.exploration_plan import cheapest_rates, plan_exploration
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.offpolicy import appraise
from metaverify.simulators.outcome import replay
from metaverify.simulators.trace import answering, observed_by, rates
from metaverify.simulators.worlds import shared_difficulty
from tests.simulators.test_offpolicy import NEW, OLD, audited

LOG = shared_difficulty().draw(5000, 1)


def spent(log: ReplayLog, exploration: Exploration) -> float:
    """Cost a query of OLD with this exploration."""
    return sum(float(np.nansum(tier.cost)) for tier in observed_by(OLD, log, exploration).log.tiers) / len(log)


# The allocation -------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0.01, 5.0), st.floats(0.01, 5.0)), min_size=1, max_size=6),
    st.floats(0.01, 0.99),
    st.sampled_from([0.0, 0.02, 0.3]),
)
def test_rates_are_the_best_that_a_convex_solver_finds(
    bins: list[tuple[float, float]], tight: float, least: float
) -> None:
    variance, cost = np.array(bins).T
    room = float(variance.sum()) / tight
    found = cheapest_rates(variance, cost, room, least)
    assert (found >= least - 1e-12).all()
    assert (found <= 1.0).all()
    assert (variance / found).sum() <= room * (1 + 1e-9)
    # In x = 1 / rate the bound is linear and the cost convex.
    best = minimize(
        lambda x: float((cost / x).sum()),
        np.ones(len(bins)),
        jac=lambda x: -cost / x**2,
        bounds=[(1.0, 1.0 / max(least, 1e-6))] * len(bins),
        constraints=[LinearConstraint(variance[None, :], ub=room)],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert cost @ found <= best.fun * (1 + 1e-5)


def test_what_costs_nothing_is_always_explored_and_what_tells_nothing_as_little_as_allowed() -> None:
    found = cheapest_rates(np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]), 3.0, 0.1)
    assert found.tolist() == pytest.approx([1.0, 0.1, 0.5])
    assert cheapest_rates(np.zeros(2), np.ones(2), 1.0, 0.05).tolist() == [0.05, 0.05]


# The plan -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [0.02, 0.03])
def test_estimates_scatter_as_planned(precision: float) -> None:
    plan = plan_exploration(NEW, OLD, LOG, traffic=1500, precision=precision, least=0.0)
    found = []
    for trial in range(80):
        log = shared_difficulty().draw(1500, 100 + trial)
        found.append(appraise(NEW, observed_by(OLD, log, plan.exploration(str(trial)))).estimators["dr"].quality.mean)
    truth = replay(NEW, shared_difficulty().draw(100_000, 2)).quality.mean
    assert np.std(np.array(found, dtype=float)) == pytest.approx(precision, rel=0.3)
    assert np.mean(np.array(found, dtype=float)) == pytest.approx(truth, abs=3.0 * precision / np.sqrt(80))


def test_estimates_scatter_as_planned_where_few_answers_are_labelled() -> None:
    plan = plan_exploration(NEW, OLD, LOG, traffic=4000, precision=0.025, least=0.0, labelled=0.25)
    found = []
    for trial in range(80):
        partial = observed_by(OLD, shared_difficulty().draw(4000, 100 + trial), plan.exploration(str(trial)))
        found.append(appraise(NEW, audited(partial, 0.25, trial)).estimators["dr"].quality.mean)
    assert np.std(np.array(found, dtype=float)) == pytest.approx(0.025, rel=0.3)


def test_fewer_labels_take_more_exploration() -> None:
    of = [plan_exploration(NEW, OLD, LOG, traffic=20_000, precision=0.01, labelled=share) for share in (1.0, 0.5, 0.3)]
    assert of[0].cost < of[1].cost < of[2].cost
    assert of[1].labelled == 0.5
    with pytest.raises(ValueError, match=r"explored and 0.2 of the answers labelled; that takes [\d,]+"):
        plan_exploration(NEW, OLD, LOG, traffic=1000, precision=0.01, labelled=0.2)
    with pytest.raises(ValueError, match="labelled is 0"):
        plan_exploration(NEW, OLD, LOG, traffic=1000, precision=0.1, labelled=0.0)


def test_it_costs_and_explores_what_it_says_and_less_than_one_rate_for_all() -> None:
    plan = plan_exploration(NEW, OLD, LOG, traffic=20_000, precision=0.01, least=0.005)
    fresh = shared_difficulty().draw(20_000, 77)
    usual, exploration = spent(fresh, Exploration(0.0)), plan.exploration()
    without_end = replace(exploration, bins=tuple(replace(of, enough=None) for of in exploration.bins))
    assert spent(fresh, without_end) - usual == pytest.approx(plan.cost, rel=0.15)
    assert plan.cost < 0.7 * plan.alike
    everything = spent(LOG, Exploration(1.0)) - spent(LOG, Exploration(0.0))
    variance_alike = plan_exploration(NEW, OLD, LOG, traffic=20_000, precision=0.01, least=0.0).alike
    assert plan.alike == pytest.approx(variance_alike)
    assert sum(of.cost / of.rate for of in plan.bins) == pytest.approx(everything, rel=1e-9)
    assert sum(of.part for of in plan.bins) == pytest.approx(1.0)
    answered = answering(OLD, LOG, 0)
    for of in plan.bins:
        assert of.tier is not None
        confidence = LOG.tier(of.tier).readings[0].confidence
        inside = (answered == LOG.tier_names.index(of.tier)) & (confidence >= of.low)
        inside &= (confidence < of.high) | (of.high == 1.0)
        assert of.explored == pytest.approx(20_000 * of.rate * inside.mean(), rel=1e-9)


def test_only_where_the_policies_differ_more_than_the_least_is_explored() -> None:
    plan = plan_exploration(NEW, OLD, LOG, traffic=20_000, precision=0.01, least=0.002)
    more = [(of.tier, of.low, of.high) for of in plan.bins if of.rate > 0.002]
    tier1 = [(low, high) for tier, low, high in more if tier == "tier1"]
    assert (tier1[0][0], tier1[-1][1]) == (0.4, 0.8)  # OLD accepts from 0.4 on, NEW from 0.8
    assert {tier for tier, _, _ in more} == {"tier1", "tier2"}
    assert max(high for tier, _, high in more if tier == "tier2") == 0.6


def test_twice_the_precision_takes_more_than_four_times_the_rates() -> None:
    first, second = (
        plan_exploration(NEW, OLD, LOG, traffic=20_000, precision=p, least=0.0).bins for p in (0.012, 0.006)
    )
    assert all(b.rate > 4.0 * a.rate or b.rate == a.rate == 0.0 for a, b in zip(first, second, strict=True))


def test_what_the_old_policy_does_itself_needs_no_exploration() -> None:
    plan = plan_exploration(OLD, OLD, LOG, traffic=1000, precision=0.02, least=0.0)
    assert plan.cost == 0.0
    assert plan.exploration().highest == 0.0


def test_a_precision_that_cannot_be_had_is_refused_with_what_it_takes() -> None:
    with pytest.raises(ValueError, match=r"100 queries cannot tell the quality to 0.001, .* that takes [\d,]+"):
        plan_exploration(NEW, OLD, LOG, traffic=100, precision=0.001)
    with pytest.raises(ValueError, match="precision is 0"):
        plan_exploration(NEW, OLD, LOG, traffic=100, precision=0.0)
    with pytest.raises(ValueError, match="least is 2"):
        plan_exploration(NEW, OLD, LOG, traffic=100, precision=0.1, least=2.0)


# Enough ---------------------------------------------------------------------------------------------------------------


def test_once_there_is_enough_less_is_explored_and_estimates_stay_right_and_become_better() -> None:
    doubtful = ExploredBin("tier1", "conf", 0.3, 0.9, 0.2, enough=80)
    truth = replay(NEW, shared_difficulty().draw(100_000, 2)).quality.mean
    off: dict[int, list[float]] = {1000: [], 8000: []}
    explored: dict[int, list[int]] = {1000: [], 8000: []}
    for trial in range(25):
        for n in off:
            log = shared_difficulty().draw(n, 300 + trial)
            partial = observed_by(OLD, log, Exploration(0.2, str(trial), (doubtful,)))
            found = appraise(NEW, partial)
            assert found.identified
            off[n].append(float(found.estimators["dr"].quality.mean or 0.0) - truth)
            rows = (answering(OLD, log, 0) == 0) & (log.tiers[0].readings[0].confidence < 0.9)
            explored[n].append(int((rows & partial.answers["tier2"].seen).sum()))
    assert np.std(off[8000]) < np.std(off[1000])
    assert abs(np.mean(off[8000])) < 3.0 * np.std(off[8000]) / np.sqrt(25)
    came = 8000 * float(((answering(OLD, LOG, 0) == 0) & (LOG.tiers[0].readings[0].confidence < 0.9)).mean())
    assert np.mean(explored[8000]) == pytest.approx(80 * (1 + np.log(came * 0.2 / 80)), rel=0.05)


def test_the_first_of_several_bins_counts_and_what_is_in_none_has_the_rate_of_the_rest() -> None:
    bins = (ExploredBin("tier1", "conf", 0.2, 0.5, 0.5), ExploredBin("tier1", "conf", 0.0, 1.0, 0.25, enough=1))
    exploration = Exploration(0.125, bins=bins)
    log = LOG.take(np.arange(200))
    found = rates(exploration, log, np.where(np.arange(200) < 150, 0, 1))
    confidence, later = log.tiers[0].readings[0].confidence, 0
    for row in range(200):
        if row >= 150:
            expected = 0.125
        elif 0.2 <= confidence[row] < 0.5:
            expected = 0.5
        else:
            later += 1
            expected = min(0.25, 1 / later)
        assert found[row] == expected
