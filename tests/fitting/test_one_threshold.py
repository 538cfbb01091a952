"""Chains with one threshold: against replay, and against a sweep over everything that such a chain can be."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.one_threshold import OneThreshold, as_one_threshold, chain_ledger, misfits, simplify
from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Node, Read, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Reading, Tier
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.replay import route
from metaverify.simulators.worlds import shared_difficulty
from tests.golden.make import golden_policy, spread_policy, votes_policy
from tests.strategies import random_log


def chain_policy(chain: OneThreshold, log: ReplayLog) -> Policy:
    """The chain as a policy on the log's tiers; it does not read its last tier."""
    *before, last = chain.tiers
    nodes: list[Node] = []
    for tier in before:
        at = len(nodes)
        nodes += [Ask(tier, at + 1), Read(tier, chain.reading, (chain.threshold,), (at + 3, at + 2), at + 3)]
        nodes.append(Stop(Accept(tier)))
    nodes += [Ask(last, len(nodes) + 1), Stop(Accept(last))]
    listed = {
        each.name: tuple(Reading(r.name, log.mean(r.paid), (), (0, 0)) for r in each.readings) for each in log.tiers
    }
    tiers = tuple(Tier(each.name, log.mean(each.cost), listed[each.name]) for each in log.tiers)
    return Policy(tiers, tuple(nodes), (Vertex(0.0, log.mean(log.tiers[-1].cost), 0.5, 0),), OperatingPoint(0, 0, 0.0))


def chains(log: ReplayLog, cuts: list[float]) -> list[OneThreshold]:
    return [
        OneThreshold(tiers, log.tiers[0].readings[0].name, cut)
        for size in range(1, len(log.tiers) + 1)
        for tiers in itertools.combinations(log.tier_names, size)
        for cut in cuts
    ]


def test_a_chain_does_what_replay_says_of_it_as_a_policy() -> None:
    log = shared_difficulty(tiers=3).draw(300, seed=1)
    for chain in chains(log, [0.2, 0.5, 0.9]):
        routes = route(chain_policy(chain, log), log, 0)
        quality, cost = chain_ledger(chain, log)
        assert np.array_equal(quality, routes.quality)
        assert np.allclose(cost, routes.cost, rtol=1e-12)


def test_a_chain_is_known_for_what_it_is_whatever_its_order_and_length() -> None:
    log = shared_difficulty(tiers=4).draw(50, seed=1)
    for chain in chains(log, [0.25]):
        found = as_one_threshold(chain_policy(chain, log))
        assert found == (chain if len(chain.tiers) > 1 else OneThreshold(chain.tiers, "", 1.0))


def test_what_is_more_than_one_threshold_is_said() -> None:
    log = shared_difficulty(tiers=3).draw(50, seed=1)
    plain = chain_policy(OneThreshold(log.tier_names, log.tiers[0].readings[0].name, 0.5), log)
    assert misfits(plain) == ()
    first, read, *others = plain.nodes
    assert isinstance(read, Read)
    other_cut = replace(plain, nodes=(first, replace(read, cuts=(0.25,)), *others))
    assert misfits(other_cut) == (f"its cuts differ (0.25 of {log.tier_names[0]}, 0.5 of {log.tier_names[1]})",)
    zero = replace(plain, nodes=(first, replace(read, cuts=(0.0,)), *others))
    assert misfits(zero)[-1] == "it has a cut at 0, which gateways take for none"
    accepts_missing = replace(read, missing=read.then[1])
    assert misfits(replace(plain, nodes=(first, accepts_missing, *others))) == ("its graph is no chain of single cuts",)
    assert misfits(golden_policy())[:2] == ("it mixes two graphs to meet its budget", "it decides by context")
    assert misfits(votes_policy()) == ("its graph is no chain of single cuts",)
    spread = spread_policy()
    assert misfits(replace(spread, point=OperatingPoint(1, 1, 0.0))) == ()
    assert as_one_threshold(spread) is None


def test_a_chain_that_is_the_best_at_its_cost_loses_nothing_to_itself() -> None:
    log = shared_difficulty(tiers=3).draw(2000, seed=3)
    some = chain_policy(OneThreshold(log.tier_names, "conf", 0.5), log)
    best = simplify(some, log).chain
    found = simplify(chain_policy(best, log), log)
    assert found.chain == best
    assert found.why == ()
    assert abs(found.loss.mean) < 0.01
    assert abs(found.saving.mean) < 0.05 * found.cost.mean


def test_the_chain_chosen_is_the_best_of_a_sweep_that_costs_no_more() -> None:
    log = random_log(200, 5, readings=("free", "free", ""), weighted=True)
    policy = chain_policy(OneThreshold(log.tier_names, log.tiers[0].readings[0].name, 0.6), log)
    nodes = policy.nodes
    assert isinstance(nodes[1], Read)
    policy = replace(policy, nodes=(nodes[0], replace(nodes[1], cuts=(0.3,)), *nodes[2:]))
    found = simplify(policy, log)
    own = route(policy, log, 0)
    cuts = sorted({c for name in log.tier_names[:2] for c in log.tier(name).readings[0].confidence if c > 0})
    best = max(
        log.mean(quality)
        for quality, cost in (chain_ledger(chain, log) for chain in chains(log, cuts))
        if log.mean(cost) <= log.mean(own.cost) * (1 + 1e-9)
    )
    quality, cost = chain_ledger(found.chain, log)
    assert log.mean(cost) <= log.mean(own.cost) * (1 + 1e-9)
    assert best - 0.03 <= log.mean(quality) <= best + 1e-12
    assert found.quality.mean == pytest.approx(log.mean(own.quality))
    assert found.loss.mean == pytest.approx(found.quality.mean - found.chain_quality.mean)
    assert found.saving.mean == pytest.approx(found.cost.mean - found.chain_cost.mean)


def test_a_reading_that_no_tier_has_is_refused() -> None:
    log = random_log(60, 1, readings=("free", ""))
    policy = chain_policy(OneThreshold(log.tier_names, log.tiers[0].readings[0].name, 0.5), log)
    with pytest.raises(LogError, match="no tier has a reading 'judge'; the log has free"):
        simplify(policy, log, reading="judge")
    silent = log.with_readings([])
    with pytest.raises(LogError, match="by which a chain could go on"):
        simplify(chain_policy(OneThreshold((log.tier_names[1],), "", 1.0), silent), silent)
