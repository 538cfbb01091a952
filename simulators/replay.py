"""Replay: what a policy would have done with every query of a log, at the speed of numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.policies.policy import Policy
from metaverify.simulators.log import LogError, LoggedReading, ReplayLog

__all__ = ["ABSTAINED", "Routes", "arms", "check_match", "route"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ABSTAINED = -1


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """What one deterministic policy did with n queries."""

    quality: Floats  # [n], of the answer returned; the policy's worth of abstaining where there is none
    cost: Floats  # [n], of all calls and readings bought
    accepted: NDArray[np.int8]  # [n], position of the tier in the policy, ABSTAINED where the query was handed over
    calls: tuple[float, ...]  # a tier: the weight of the queries that called it
    reads: tuple[tuple[float, ...], ...]  # a tier, a reading: the weight of the queries that read it
    accepts: tuple[float, ...]  # a tier: the weight of the queries that it answered


def check_match(policy: Policy, log: ReplayLog) -> None:
    """Make sure that the log has every tier and reading that the policy may use.

    Raises:
        LogError: naming what is missing.
    """
    for tier in policy.tiers:
        if tier.answer and tier.name not in log.tier_names:
            raise LogError(
                f"the policy routes to {tier.name!r}, which the log does not have "
                f"(it has {', '.join(log.tier_names)}); replay it on a log of its own cascade"
            )
    for node in policy.nodes:
        if isinstance(node, Read):
            names = [r.name for source in log.sources if source.name == node.tier for r in source.readings]
            if node.reading not in names:
                has = ", ".join(names) or "no reading"
                raise LogError(f"the policy reads {node.reading!r} of {node.tier!r}, of which the log has {has}")
    if policy.context and log.contexts is None:
        raise LogError(f"the policy decides by context: read the log with --context {','.join(policy.context)}")


def route(policy: Policy, log: ReplayLog, vertex: int) -> Routes:
    """What the policy's graph at one vertex of its frontier does with every query, as `decide` would.

    Rows travel down the node table in groups; O(rows x depth), whatever the size of the graph.
    """
    n = len(log)
    position = {tier.name: at for at, tier in enumerate(policy.tiers)}
    tiers = {tier.name: tier for tier in log.tiers}
    readings = {(source.name, r.name): r for source in log.sources for r in source.readings}
    listed = {(tier.name, r.name): at for tier in policy.tiers for at, r in enumerate(tier.readings)}
    quality, cost = np.full(n, policy.abstain or 0.0), np.zeros(n)
    accepted = np.full(n, ABSTAINED, dtype=np.int8)
    calls = [0.0] * len(policy.tiers)
    accepts = [0.0] * len(policy.tiers)
    reads = [[0.0] * len(tier.readings) for tier in policy.tiers]
    waiting = _start(policy, log, vertex)
    while waiting:
        at = min(waiting)
        rows = _join(waiting.pop(at))
        if len(rows) == 0:
            continue
        match policy.nodes[at]:
            case Stop(Accept(tier)):
                quality[rows] = tiers[tier].correct.take(rows)
                accepted[rows] = position[tier]
                accepts[position[tier]] += float(log.weights.take(rows).sum())
            case Ask(tier, then):
                cost[rows] += tiers[tier].cost.take(rows)
                calls[position[tier]] += float(log.weights.take(rows).sum())
                waiting.setdefault(then, []).append(rows)
            case Read(tier, reading, cuts, then, missing):
                column = readings[tier, reading]
                if column.price.any():
                    cost[rows] += column.price[rows]
                reads[position[tier]][listed[tier, reading]] += float(log.weights.take(rows).sum())
                for child, group in _divide(column, rows, cuts, then, missing):
                    waiting.setdefault(child, []).append(group)
    return Routes(quality, cost, accepted, tuple(calls), tuple(map(tuple, reads)), tuple(accepts))


def arms(policy: Policy, log: ReplayLog) -> Ints:
    """The vertex that each query follows, [n], drawn from its id as `decide` draws it from the request's key."""
    return np.fromiter((policy.arm(str(key)) for key in log.query_ids), dtype=np.int64, count=len(log))


def _start(policy: Policy, log: ReplayLog, vertex: int) -> dict[int, list[Ints]]:
    roots = policy.vertices[vertex]
    if log.contexts is None or not roots.context_roots:
        return {roots.root: [np.arange(len(log))]}
    root = np.fromiter(
        (roots.context_roots.get(label, roots.root) for label in log.contexts), dtype=np.int64, count=len(log)
    )
    return {int(node): [np.flatnonzero(root == node)] for node in np.unique(root)}


def _join(groups: list[Ints]) -> Ints:
    return groups[0] if len(groups) == 1 else np.concatenate(groups)


def _divide(
    column: LoggedReading, rows: Ints, cuts: tuple[float, ...], then: tuple[int, ...], missing: int
) -> list[tuple[int, Ints]]:
    """The rows by the node that their reading leads to."""
    confidence = column.confidence.take(rows)
    place = np.zeros(len(rows), dtype=np.uint8 if len(cuts) < 255 else np.int64)
    for cut in cuts:
        np.add(place, confidence >= cut, out=place)
    absent = ~((confidence >= 0.0) & (confidence <= 1.0))
    groups = []
    if absent.any():
        groups.append((missing, rows.take(np.flatnonzero(absent))))
        place[absent] = len(then)
    return groups + [(child, rows.take(np.flatnonzero(place == branch))) for branch, child in enumerate(then)]
