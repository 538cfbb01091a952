"""Replay: what a policy would have done with every query of a log, at the speed of numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Poll, Read, Stop
from metaverify.policies.policy import Policy
from metaverify.simulators.log import LogError, LoggedReading, ReplayLog, fuse

__all__ = ["ABSTAINED", "Divided", "Routes", "arms", "check_match", "divide", "readings_of", "route", "spend", "start"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ABSTAINED = -1


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """What one deterministic policy did with n queries, in expectation over the order in which their votes came."""

    quality: Floats  # [n], of the answer returned; the policy's worth of abstaining where there is none
    cost: Floats  # [n], of all calls and readings bought
    accepted: NDArray[np.int8]  # [n], position of the tier in the policy, ABSTAINED where the query was handed over;
    # where the order of votes decides, the likeliest
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
                "E_POLICY",
                f"the policy routes to {tier.name!r}, which the log does not have "
                f"(it has {', '.join(log.tier_names)}); replay it on a log of its own cascade",
            )
    made_of = {(tier.name, r.name): [part.reading for part in r.parts] for tier in policy.tiers for r in tier.readings}
    for node in policy.nodes:
        if isinstance(node, Read | Poll):
            names = [r.name for source in log.sources if source.name == node.tier for r in source.readings]
            for wanted in made_of[node.tier, node.reading] or [node.reading]:
                if wanted not in names and node.reading not in names:
                    has = ", ".join(names) or "no reading"
                    raise LogError(
                        "E_POLICY", f"the policy reads {wanted!r} of {node.tier!r}, of which the log has {has}"
                    )
    for tier in policy.tiers:
        for reading in tier.readings:
            columns = (r for source in log.sources if source.name == tier.name for r in source.readings)
            for column in (column for column in columns if column.name == reading.name):
                if reading.sample and column.correct is None:
                    fault = f"the policy takes {reading.name!r} of {tier.name!r} for a sample with an answer of its own"
                    raise LogError(
                        "E_POLICY", f"{fault}, which the log lacks; read the log with --samples {reading.name}"
                    )
                if column.votes != reading.votes:
                    fault = f"the policy takes {reading.name!r} of {tier.name!r} for {reading.votes or 'no'} votes"
                    way_out = f"--votes {reading.name}={reading.votes}" if reading.votes else "no --votes for it"
                    raise LogError(
                        "E_POLICY", f"{fault}, the log for {column.votes or 'none'}; read the log with {way_out}"
                    )
    if policy.context and log.contexts is None:
        raise LogError(
            "E_POLICY", f"the policy decides by context: read the log with --context {','.join(policy.context)}"
        )
    for known, cuts in policy.context_cuts.items():
        if known in log.context_names and log.context_cuts.get(known) != cuts:
            fault = f"the policy cuts {known!r} at {', '.join(f'{cut:g}' for cut in cuts)}, the log elsewhere"
            raise LogError(
                "E_POLICY", f"{fault}; read it with context=policy.context, context_cuts=policy.context_cuts"
            )


def route(policy: Policy, log: ReplayLog, vertex: int) -> Routes:
    """What the policy's graph at one vertex of its frontier does with every query, as `decide` would.

    Rows travel down the node table in groups; O(rows x depth), whatever the size of the graph.  Of votes a log has the
    share only: where they are asked one by one a query takes each way in the part of their orders that lead there, so
    that what it earns and spends is the mean over all orders.  Rows that bought different samples stay apart, since an
    answer is worth what the last sample of its tier has made of it.
    """
    n = len(log)
    position = {tier.name: at for at, tier in enumerate(policy.tiers)}
    tiers = {tier.name: tier for tier in log.tiers}
    readings = readings_of(policy, log)
    listed = {(tier.name, r.name): at for tier in policy.tiers for at, r in enumerate(tier.readings)}
    quality, cost = np.full(n, policy.abstain or 0.0), np.zeros(n)
    divided = Divided(n, len(policy.tiers)) if any(isinstance(node, Poll) for node in policy.nodes) else None
    accepted = np.full(n, ABSTAINED, dtype=np.int8)
    calls = [0.0] * len(policy.tiers)
    accepts = [0.0] * len(policy.tiers)
    reads = [[0.0] * len(tier.readings) for tier in policy.tiers]
    waiting = {(node, NOTHING): groups for node, groups in start(policy, log, vertex).items()}
    while waiting:
        at, had = min(waiting)
        rows, part = _join(waiting.pop((at, had)))
        if len(rows) == 0:
            continue
        weight = log.weights.take(rows) if part is None else log.weights.take(rows) * part
        match policy.nodes[at]:
            case Stop(Accept(tier)):
                accepts[position[tier]] += float(weight.sum())
                correct = tiers[tier].correct.take(rows)
                for sample in (readings[of, name].correct for of, name in had if of == tier):
                    assert sample is not None, "only a sample changes the answer"
                    correct = np.where(np.isnan(sample[rows]), correct, sample[rows])
                if divided is None:
                    quality[rows] = correct
                    accepted[rows] = position[tier]
                else:
                    divided.stop(rows, part, position[tier], correct)
            case Stop(_):
                if divided is not None:
                    divided.stop(rows, part, ABSTAINED, quality.take(rows))
            case Ask(tier, then):
                spend(cost, rows, part, tiers[tier].cost.take(rows))
                calls[position[tier]] += float(weight.sum())
                waiting.setdefault((then, had), []).append((rows, part))
            case Read(tier, reading, cuts, then, missing):
                column = readings[tier, reading]
                if column.price.any():
                    spend(cost, rows, part, column.paid[rows])
                reads[position[tier]][listed[tier, reading]] += float(weight.sum())
                then_had = had if column.correct is None else (*had, (tier, reading))
                for child, group in divide(column, rows, cuts, then, missing):
                    some = rows.take(group), None if part is None else part.take(group)
                    waiting.setdefault((child, then_had), []).append(some)
            case Poll(tier, reading, _, _) as poll:
                column = readings[tier, reading]
                reads[position[tier]][listed[tier, reading]] += float(weight.sum())
                asked, ends = _polled(poll, column.votes)
                code = _code(column, rows)
                spend(cost, rows, part, column.price[rows] / column.votes * asked[code])
                for child, share in ends.items():
                    go = np.flatnonzero(share[code] > 0.0)
                    taken = share[code[go]] if part is None else share[code[go]] * part[go]
                    waiting.setdefault((child, had), []).append((rows.take(go), taken))
    if divided is not None:
        quality, accepted = divided.quality, divided.accepted()
    return Routes(quality, cost, accepted, tuple(calls), tuple(map(tuple, reads)), tuple(accepts))


class Divided:
    """Where queries end that take several ways."""

    def __init__(self, n: int, tiers: int) -> None:
        self.quality = np.zeros(n)
        self._parts = np.zeros((tiers + 1, n))  # a tier, and abstention last: the part of each query that ends there

    def stop(self, rows: Ints, part: Floats | None, tier: int, quality: Floats) -> None:
        """A part of ``rows`` [m] ends with a tier's answer, of ``quality`` [m]; None is all of each."""
        share = np.ones(len(rows)) if part is None else part
        np.add.at(self._parts[tier], rows, share)
        np.add.at(self.quality, rows, share * quality)

    def accepted(self) -> NDArray[np.int8]:
        """The tier whose answer is likeliest, [n], or ABSTAINED."""
        likeliest = np.concatenate([self._parts[-1:], self._parts[:-1]]).argmax(axis=0) + ABSTAINED
        return np.asarray(likeliest, dtype=np.int8)


def spend(cost: Floats, rows: Ints, part: Floats | None, price: Floats) -> None:
    """Add to ``cost`` [n] the price of what is bought for ``rows`` [m], a part of each; None is all of each, once."""
    if part is None:
        cost[rows] += price
    else:
        np.add.at(cost, rows, part * price)  # a query may come by several ways


def _code(column: LoggedReading, rows: Ints) -> Ints:
    """How many of its votes were yes, or one more than there are where they are missing, [rows]."""
    yes = np.rint(column.confidence.take(rows) * column.votes)
    return np.where(np.isnan(yes), column.votes + 1, yes).astype(np.int64)


def _polled(poll: Poll, votes: int) -> tuple[Floats, dict[int, Floats]]:
    """For 0, 1, .. of all votes yes, and for missing ones, [votes + 2]: how many are asked for on average over their
    orders, and for each node that can follow the part of the orders that lead to it."""
    asked, ends = np.zeros(votes + 2), {poll.missing: np.zeros(votes + 2)}
    asked[-1] = ends[poll.missing][-1] = 1.0
    for whole in range(votes + 1):
        here = [1.0]  # the part of the orders that come to 0, 1, .. yes, and go on asking
        for count, tally in enumerate(poll.tallies, start=1):
            asked[whole] += sum(here)
            left = votes - count + 1  # votes before this one is drawn, of which whole - yes are yes
            came = [0.0] * (count + 1)
            for yes, part in enumerate(here):
                came[yes + 1] += part * (whole - yes) / left
                came[yes] += part * (left - whole + yes) / left
            here = []
            for yes, part in enumerate(came):
                after = tally.after(yes)
                if after is not None and part > 0.0:
                    ends.setdefault(after, np.zeros(votes + 2))[whole] += part
                here.append(part if after is None else 0.0)
    return asked, ends


def arms(policy: Policy, log: ReplayLog) -> Ints:
    """The vertex that each query follows, [n], drawn from its id as `decide` draws it from the request's key."""
    return np.fromiter((policy.arm(str(key)) for key in log.query_ids), dtype=np.int64, count=len(log))


def readings_of(policy: Policy, log: ReplayLog) -> dict[tuple[str, str], LoggedReading]:
    """The log's readings by source and name, and the scores that the policy makes of them and reads."""
    known = {(source.name, reading.name): reading for source in log.sources for reading in source.readings}
    read = {(node.tier, node.reading) for node in policy.nodes if isinstance(node, Read)}
    for tier in policy.tiers:
        for reading in tier.readings:
            if reading.parts and (tier.name, reading.name) in read - known.keys():
                score = fuse(reading.parts, log.tier(tier.name))
                known[tier.name, reading.name] = LoggedReading(reading.name, score, np.zeros(len(score)))
    return known


Group = tuple[Ints, Floats | None]
"""Queries, and the part of each that is there; None is all of each."""

NOTHING: tuple[tuple[str, str], ...] = ()
"""The samples that were bought, (tier, reading) in order: none as yet."""


def start(policy: Policy, log: ReplayLog, vertex: int) -> dict[int, list[Group]]:
    """The nodes where walks begin, and the queries that begin there."""
    roots = policy.vertices[vertex]
    if log.contexts is None or not roots.context_roots:
        return {roots.root: [(np.arange(len(log)), None)]}
    root = np.fromiter(
        (roots.context_roots.get(label, roots.root) for label in log.contexts), dtype=np.int64, count=len(log)
    )
    return {int(node): [(np.flatnonzero(root == node), None)] for node in np.unique(root)}


def _join(groups: list[Group]) -> Group:
    if len(groups) == 1:
        return groups[0]
    rows = np.concatenate([rows for rows, _ in groups])
    if all(part is None for _, part in groups):
        return rows, None
    return rows, np.concatenate([np.ones(len(rows)) if part is None else part for rows, part in groups])


def divide(
    column: LoggedReading, rows: Ints, cuts: tuple[float, ...], then: tuple[int, ...], missing: int
) -> list[tuple[int, Ints]]:
    """Positions among the rows by the node that their reading leads to."""
    confidence = column.confidence.take(rows)
    place = np.zeros(len(rows), dtype=np.uint8 if len(cuts) < 255 else np.int64)
    for cut in cuts:
        np.add(place, confidence >= cut, out=place)
    absent = ~((confidence >= 0.0) & (confidence <= 1.0))
    groups = []
    if absent.any():
        groups.append((missing, np.flatnonzero(absent)))
        place[absent] = len(then)
    return groups + [(child, np.flatnonzero(place == branch)) for branch, child in enumerate(then)]
