"""The trace that a router would leave of the queries of a full log, without running one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.exploration import Exploration
from metaverify.policies.graph import Ask
from metaverify.policies.policy import Policy
from metaverify.simulators.log import LogError, LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.partial import PartialLog, Sighting, whole
from metaverify.simulators.replay import arms, check_match
from metaverify.simulators.walks import walks

__all__ = ["asked_tiers", "chances", "hide_tier", "observed_by"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NOTHING = Exploration(0.0)


def observed_by(policy: Policy, log: ReplayLog, exploration: Exploration = NOTHING) -> PartialLog:
    """What is left of a full log where a router with this policy decides what is seen of it, all answers labelled.

    The arm of each query, and whether it is explored, come from its id, as with `Router`.

    Raises:
        LogError: the log lacks what the policy uses, or has readings with a price, or samples.
    """
    check_match(policy, log)
    if any(not reading.free for source in log.sources for reading in source.readings):
        raise LogError("E_OPTION", "the log has readings with a price or samples; leave them out (with_readings)")
    point, drawn = policy.point, arms(policy, log)
    wanted = {name: np.zeros(len(log)) for name in log.tier_names}  # the share of the graphs that call it
    called = {name: np.zeros(len(log), dtype=bool) for name in log.tier_names}
    for vertex, share in ((point.low, 1.0 - point.share), (point.high, point.share)):
        if share > 0.0:
            for name, rows in asked_tiers(policy, log, vertex).items():
                wanted[name] += share * rows
                called[name] |= rows & (drawn == vertex)
    explored = np.fromiter((exploration.explores(str(key)) for key in log.query_ids), np.bool_, count=len(log))
    answers = {
        name: Sighting(called[name] | explored, chances(called[name], wanted[name], exploration.rate))
        for name in log.tier_names
    }
    labels = {name: Sighting(answers[name].seen, np.ones(len(log))) for name in log.tier_names}
    tiers = tuple(hide_tier(tier, answers[tier.name].seen) for tier in log.tiers)
    return PartialLog(replace(log, tiers=tiers), answers, labels)


def chances(called: Bools, wanted: Floats, rate: float) -> Floats:
    """The chance of a tier's answer, [n], by whether the query's own graph calls it, and the share of graphs that do.

    Where queries are explored it is that given the graph: the graph is drawn whatever the query, so each one's queries
    are a fair sample, on which every policy can be valued.  Otherwise it is that before the draw, and where another
    graph only would have called it, not the whole story: what is seen by one graph may never be seen with what is seen
    by the other.
    """
    if rate > 0.0:
        return np.where(called, 1.0, rate)
    return np.where(called, np.minimum(wanted, 1.0), np.where(wanted > 0.0, np.nan, 0.0))


def hide_tier(tier: LoggedTier, seen: Bools) -> LoggedTier:
    """The tier's columns where they were seen, NaN elsewhere."""

    def shown(values: Floats) -> Floats:
        return np.where(seen, values, np.nan)

    def read(reading: LoggedReading) -> LoggedReading:
        return replace(reading, confidence=shown(reading.confidence))

    return replace(tier, correct=shown(tier.correct), cost=shown(tier.cost), readings=tuple(map(read, tier.readings)))


def asked_tiers(policy: Policy, log: ReplayLog, vertex: int) -> Mapping[str, Bools]:
    """Which queries have each tier called by the graph at one vertex."""
    asked = {name: np.zeros(len(log), dtype=bool) for name in log.tier_names}
    for step in walks(policy, whole(log), vertex):
        node = policy.nodes[step.node]
        if isinstance(node, Ask):
            asked[node.tier][step.rows] = True
    return asked
