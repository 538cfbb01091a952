"""A plan is kept: what is explored as it says tells the value as precisely as it says."""

from __future__ import annotations

import numpy as np
import pytest

from metaverify.policies.exploration import Exploration
from metaverify.simulators.exploration_plan import plan_exploration
from metaverify.simulators.offpolicy import appraise
from metaverify.simulators.trace import observed_by
from metaverify.simulators.worlds import shared_difficulty
from tests.simulators.test_offpolicy import NEW, OLD

LOG = shared_difficulty().draw(5000, 1)


@pytest.mark.parametrize("precision", [0.02, 0.03])
def test_estimates_scatter_as_planned(precision: float) -> None:
    plan = plan_exploration(NEW, OLD, LOG, traffic=1500, precision=precision)
    found = []
    for trial in range(80):
        partial = observed_by(OLD, shared_difficulty().draw(1500, 100 + trial), Exploration(plan.rate, str(trial)))
        found.append(appraise(NEW, partial).estimators["snips"].quality.mean)
    assert np.std(np.array(found, dtype=float)) == pytest.approx(precision, rel=0.3)


def test_it_costs_what_exploring_costs() -> None:
    plan = plan_exploration(NEW, OLD, LOG, traffic=2000, precision=0.02)
    routed, explored = (
        sum(np.nansum(tier.cost) for tier in observed_by(OLD, LOG, Exploration(rate)).log.tiers) / len(LOG)
        for rate in (0.0, 1.0)
    )
    assert plan.cost == pytest.approx(plan.rate * (explored - routed), rel=1e-12)
    assert {each.where for each in plan.bins} >= {"tier2, conf of tier1 in [0, 0.8)"}
    assert sum(each.part for each in plan.bins) == pytest.approx(1.0)


def test_twice_the_precision_takes_more_than_four_times_the_rate() -> None:
    rates = [plan_exploration(NEW, OLD, LOG, traffic=20_000, precision=p).rate for p in (0.01, 0.005)]
    assert rates[1] > 4.0 * rates[0]


def test_what_the_old_policy_does_itself_needs_no_exploration() -> None:
    plan = plan_exploration(OLD, OLD, LOG, traffic=1000, precision=0.02)
    assert (plan.rate, plan.cost, plan.bins) == (0.0, 0.0, ())


def test_a_precision_that_cannot_be_had_is_refused_with_what_it_takes() -> None:
    with pytest.raises(ValueError, match=r"100 queries cannot tell the quality to 0.001, .* that takes [\d,]+"):
        plan_exploration(NEW, OLD, LOG, traffic=100, precision=0.001)
