"""The default way of learning: what its options do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.coding import ladders_of
from metaverify.fitting.frontier import complete_near, trace_frontier
from metaverify.fitting.lattice import LatticeSizeError, lattice_bytes
from metaverify.fitting.learner import TableLearner, bins_that_fit
from metaverify.fitting.models.counts import Counts
from metaverify.policies.actions import Abstain
from metaverify.policies.graph import Read, Stop
from metaverify.simulators.replay import route
from tests.strategies import random_log

COUNTED = TableLearner(Counts(), bins=3, kappa=0.0, slack=0.0, gap=1e-6)


def test_a_count_tables_policy_earns_on_its_log_what_its_vertices_say() -> None:
    log = random_log(200, 0, contexts=2, varying=True, weighted=True)
    policy = COUNTED.policy(log)
    for at, vertex in enumerate(policy.vertices):
        routes = route(policy, log, at)
        assert vertex.cost == pytest.approx(log.mean(routes.cost), rel=1e-11)
        assert vertex.quality == pytest.approx(log.mean(routes.quality), abs=1e-11)


def test_near_a_cost_the_policy_is_complete_and_says_what_it_believes() -> None:
    log = random_log(200, 1)
    rough = replace(COUNTED, gap=0.05)
    lattice = rough.study(log).lattice
    for near in (2.0, 5.0, 9.0):
        policy = rough.policy(log, near=near)
        exact = complete_near(lattice, trace_frontier(lattice, gap=0.05), near)
        assert policy.at(budget=near).expected_quality == pytest.approx(exact.quality(near), abs=1e-9)
        assert all(vertex.beliefs for vertex in policy.vertices[1:-1])
    assert not any(vertex.beliefs for vertex in rough.policy(log).vertices)


def test_the_gap_bounds_what_a_policy_misses() -> None:
    log = random_log(200, 2, varying=True)
    fine = COUNTED.policy(log)
    for gap in (0.01, 0.1):
        coarse = replace(COUNTED, gap=gap).policy(log)
        assert len(coarse.vertices) < len(fine.vertices)
        for budget in np.linspace(coarse.vertices[0].cost, coarse.vertices[-1].cost, 20):
            missed = fine.at(budget=float(budget)).expected_quality - coarse.at(budget=float(budget)).expected_quality
            assert -1e-9 <= missed <= gap


def test_without_readings_nothing_is_read_and_contexts_still_tell_queries_apart() -> None:
    log = random_log(300, 3, contexts=2)
    policy = TableLearner(read=False).policy(log)
    assert not [node for node in policy.nodes if isinstance(node, Read)]
    assert all(set(vertex.context_roots) == {"c0", "c1"} for vertex in policy.vertices)
    assert all(not tier.readings for tier in policy.tiers)


def test_handing_over_is_only_done_where_it_is_worth_something() -> None:
    log = random_log(200, 4)
    hand_over = Stop(Abstain())
    assert hand_over not in TableLearner().policy(log).nodes
    policy = TableLearner(abstain=0.6).policy(log)
    assert hand_over in policy.nodes
    assert policy.abstain == 0.6
    assert policy.vertices[0].cost == 0.0
    assert policy.vertices[0].quality == pytest.approx(0.6)


def test_what_would_not_fit_is_refused() -> None:
    with pytest.raises(LatticeSizeError, match="--tiers"):
        TableLearner(memory=10_000).policy(random_log(100, 5))


def test_readings_that_fit_keep_their_bins() -> None:
    log = random_log(200, 6, readings=("free paid", "paid", ""))
    assert bins_that_fit(log, 5) == {("tier0", "free"): 5, ("tier0", "paid"): 5, ("tier1", "paid"): 5}
    assert TableLearner(bins=5).study(log).shortcuts() == ()


@pytest.mark.parametrize("states", [4000, 1000, 300, 60])
def test_bins_grow_coarser_and_later_readings_are_left_out_until_it_fits(states: int) -> None:
    log = random_log(300, 7, readings=("free paid", "free paid", "free"), missing=0.0)
    bins = bins_that_fit(log, 8, states=states)
    later = [most for (_, reading), most in bins.items() if reading == "paid"]
    firsts = [most for (_, reading), most in bins.items() if reading == "free"]
    assert len(firsts) == 3
    assert min(firsts) >= 3
    assert all(2 <= most <= 8 for most in later)
    fits = lattice_bytes(ladders_of(log, bins))[0] <= states
    assert fits or (not later and set(firsts) == {3})
    if min(firsts) < 8:
        assert not later


def test_a_later_reading_dearer_than_any_tier_is_left_out_and_said_to_be() -> None:
    log = random_log(100, 8, readings=("free paid", ""))
    first, second = log.tiers[0].readings
    dear = replace(second, price=np.full(100, 5.0))
    log = replace(log, tiers=(replace(log.tiers[0], readings=(first, dear)), log.tiers[1]))
    assert bins_that_fit(log, 4) == {("tier0", "free"): 4}
    assert "left out: paid of tier0" in str(TableLearner(bins=4).study(log).shortcuts())


def test_a_method_describes_itself() -> None:
    described = TableLearner(bins=5, abstain=0.2).describe()
    assert described["method"] == "lattice"
    assert described["options"]["model"] == "copula"
    assert described["options"]["bins"] == 5
    assert described["options"]["abstain"] == 0.2
    assert COUNTED.describe()["options"]["model"] == "counts"
