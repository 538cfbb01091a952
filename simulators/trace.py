"""The trace that a router would leave of the queries of a full log, without running one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.actions import Accept
from metaverify.policies.exploration import Exploration
from metaverify.policies.graph import Ask, Stop
from metaverify.policies.policy import Policy
from metaverify.simulators.log import LogError, LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.partial import PartialLog, Sighting, whole
from metaverify.simulators.replay import arms, check_match
from metaverify.simulators.walks import walks

__all__ = ["answering", "asked_tiers", "chances", "hide_tier", "observed_by", "rates"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NOTHING = Exploration(0.0)


def observed_by(policy: Policy, log: ReplayLog, exploration: Exploration = NOTHING) -> PartialLog:
    """What is left of a full log where a router with this policy decides what is seen of it, all answers labelled.

    The arm of each query, and whether it is explored, come from its id, as with `Router`; queries come in the order of
    the log.

    Raises:
        LogError: the log lacks what the policy uses, or has readings with a price, or samples.
    """
    check_match(policy, log)
    if any(not reading.free for source in log.sources for reading in source.readings):
        raise LogError("E_OPTION", "the log has readings with a price or samples; leave them out (with_readings)")
    point, drawn = policy.point, arms(policy, log)
    wanted = {name: np.zeros(len(log)) for name in log.tier_names}  # the share of the graphs that call it
    called = {name: np.zeros(len(log), dtype=bool) for name in log.tier_names}
    answered = np.full(len(log), -1)
    for vertex, share in ((point.low, 1.0 - point.share), (point.high, point.share)):
        if share > 0.0:
            for name, rows in asked_tiers(policy, log, vertex).items():
                wanted[name] += share * rows
                called[name] |= rows & (drawn == vertex)
            answered = np.where(drawn == vertex, answering(policy, log, vertex), answered)
    rate = rates(exploration, log, answered) if exploration.highest > 0.0 else None
    own = np.zeros(len(log)) if rate is None else rate
    each = zip(log.query_ids, own.tolist(), strict=True)
    explored = np.fromiter((exploration.explores(str(key), of) for key, of in each), np.bool_, count=len(log))
    answers = {
        name: Sighting(called[name] | explored, chances(called[name], wanted[name], rate)) for name in log.tier_names
    }
    labels = {name: Sighting(answers[name].seen, np.ones(len(log))) for name in log.tier_names}
    tiers = tuple(hide_tier(tier, answers[tier.name].seen) for tier in log.tiers)
    return PartialLog(replace(log, tiers=tiers), answers, labels)


def rates(exploration: Exploration, log: ReplayLog, answered: Ints) -> Floats:
    """The chance of each query of a full log to be explored, [n], by the position of the tier that answers it."""
    rate = np.full(len(log), exploration.rate)
    free = np.ones(len(log), dtype=bool)  # of the bins before
    for of in exploration.bins:
        confidence = _reading(log, of.tier, of.reading)
        inside = (of.low <= confidence) & ((confidence < of.high) | ((confidence == 1.0) & (of.high == 1.0)))
        rows = np.flatnonzero(free & inside & (answered == _position(log, of.tier)))
        rate[rows] = of.rate if of.enough is None else np.minimum(of.rate, of.enough / np.arange(1, len(rows) + 1))
        free[rows] = False
    return rate


def _position(log: ReplayLog, tier: str) -> int:
    return log.tier_names.index(tier) if tier in log.tier_names else -2


def _reading(log: ReplayLog, tier: str, name: str) -> Floats:
    """A tier's reading, [n]; NaN where the log has none of this name."""
    found = [r.confidence for of in log.tiers if of.name == tier for r in of.readings if r.name == name]
    return found[0] if found else np.full(len(log), np.nan)


def chances(called: Bools, wanted: Floats, rate: Floats | float | None) -> Floats:
    """The chance of a tier's answer, [n], by whether the query's own graph calls it, the share of graphs that do, and
    the chance that it is explored, None where no query is.

    Where queries are explored it is that given the graph: the graph is drawn whatever the query, so each one's queries
    are a fair sample, on which every policy can be valued.  Otherwise it is that before the draw, and where another
    graph only would have called it, not the whole story: what is seen by one graph may never be seen with what is seen
    by the other.
    """
    if rate is not None:
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


def answering(policy: Policy, log: ReplayLog, vertex: int) -> Ints:
    """The position in the log of the tier that answers each query by the graph at one vertex, [n]; -1 where none."""
    found = np.full(len(log), -1)
    for step in walks(policy, whole(log), vertex):
        node = policy.nodes[step.node]
        if isinstance(node, Stop) and isinstance(node.action, Accept):
            found[step.rows] = log.tier_names.index(node.action.tier)
    return found
