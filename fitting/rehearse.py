"""Rehearsal: plans run on coded queries, without being made into a policy first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.coding import CodedLog
from metaverify.fitting.lattice import Depths, Lattice, Masks, Plan, Stage, deeper
from metaverify.policies.policy import Policy
from metaverify.policies.tiers import Tier
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.replay import ABSTAINED, Divided, Routes, route, spend

__all__ = ["Rehearsal", "rehearse_plans", "rehearse_policy", "run_plan"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Rehearsal:
    """What was learnt, run on queries that it did not see: a vertex each, by expected cost."""

    tiers: tuple[Tier, ...]
    targets: tuple[float, ...]  # expected cost
    routes: tuple[Routes, ...]


def run_plan(lattice: Lattice, plan: Plan, coded: CodedLog) -> Routes:
    """What a plan does with every query, as its exact decision graph would.

    Rows travel through the stages in groups; O(rows x depth), whatever the number of states.  A reading that comes
    with an answer counts as read.  Where votes are asked one by one a query takes each way in the part of their orders
    that lead there.
    """
    ladders = lattice.table.ladders
    first = np.cumsum([0, *(len(ladder.rungs) for ladder in ladders)])
    n = len(coded)
    quality, cost = np.full(n, lattice.abstain or 0.0), np.zeros(n)
    accepted = np.full(n, ABSTAINED, dtype=np.int8)
    divided = Divided(n, len(ladders)) if any(stage.asks for stage in plan.stages) else None
    climbs = [[0.0] * len(ladder.rungs) for ladder in ladders]
    accepts = [0.0] * len(ladders)
    waiting: dict[Depths, list[_Group]] = {(0,) * len(ladders): [(np.arange(n), coded.context + 1, None)]}
    for stage in plan.stages:
        groups = waiting.pop(stage.depths, [])
        if not groups:
            continue
        rows, states, part = _join(groups)
        weight = coded.weights[rows] if part is None else coded.weights[rows] * part
        where = _places(stage, states)
        climb, answer = stage.climb[where], stage.answer[where]
        for source in np.unique(answer[climb < 0]):
            ends = (climb < 0) & (answer == source)
            here, share = rows[ends], None if part is None else part[ends]
            column = quality if source < 0 else coded.answer(int(source), stage.depths[source])
            if divided is not None:
                divided.stop(here, share, ABSTAINED if source < 0 else int(source), column[here])
            else:
                quality[here], accepted[here] = column[here], source if source >= 0 else ABSTAINED
            if source >= 0:
                accepts[source] += float(weight[ends].sum())
        for source in np.unique(climb[climb >= 0]).tolist():
            chosen = climb == source
            here, depth, share = rows[chosen], stage.depths[source], None if part is None else part[chosen]
            price, code = coded.price[source][depth][here], coded.codes[first[source] + depth][here]
            climbs[source][depth] += float(weight[chosen].sum())
            if source in stage.asks:
                rank = np.cumsum(stage.climb == source)[where[chosen]] - 1
                asks = tuple(asked[rank] for asked in stage.asks[source])
                asked, tallies = _votes(lattice, stage.depths, source, states[chosen], code, asks)
                spend(cost, here, share, price / ladders[source].votes * asked)
                for depths, at, tally, reach in tallies:
                    come = reach if share is None else reach * share[at]
                    waiting.setdefault(depths, []).append((here[at], tally, come))
            else:
                spend(cost, here, share, price)
                after = lattice.child(stage.depths, source, states[chosen], code)
                waiting.setdefault(deeper(stage.depths, source), []).append((here, after, share))
    reads = tuple(
        tuple(count for count, rung in zip(counts, ladder.rungs, strict=True) if rung.reading is not None)
        for counts, ladder in zip(climbs, ladders, strict=True)
    )
    calls = tuple(counts[0] if ladder.answer else 0.0 for counts, ladder in zip(climbs, ladders, strict=True))
    if divided is not None:
        quality, accepted = divided.quality, divided.accepted()
    return Routes(quality, cost, accepted, calls, reads, tuple(accepts))


_Group = tuple[Ints, Ints, Floats | None]
"""Rows, their states, and the part of each that is there; None is all of each."""


def _join(groups: list[_Group]) -> _Group:
    rows, states = (np.concatenate([group[at] for group in groups]) for at in (0, 1))
    if all(part is None for *_, part in groups):
        return rows, states, None
    return rows, states, np.concatenate([np.ones(len(rows)) if part is None else part for rows, _, part in groups])


def _votes(
    lattice: Lattice, depths: Depths, source: int, states: Ints, codes: Ints, asks: tuple[Masks, ...]
) -> tuple[Floats, list[tuple[Depths, Ints, Ints, Floats]]]:
    """How many votes are asked for, [m], in the mean over the orders in which they can have come, and where asking
    ends: a slab, which of the m, their states there, and the part of each."""
    votes = lattice.table.ladders[source].votes
    failed = codes > votes
    _, tallies = lattice.poll(depths, source, states, asks)
    going, asked = np.where(failed, 0.0, 1.0)[:, None], np.ones(len(states))  # the part that has 0, 1, .. yes
    ends = []
    for count, tally in enumerate(tallies, start=1):
        left = votes - count + 1  # votes from which this one is drawn, of which some are yes
        yes = np.clip(codes[:, None] - np.arange(count), 0, left) / left
        part = np.zeros(tally.states.shape)
        part[:, 1:-1] = going * yes
        part[:, :count] += going * (1.0 - yes)
        part[:, -1] = failed if count == 1 else 0.0
        going = np.where(tally.asks, part, 0.0)[:, :-1]
        part = np.where(tally.asks, 0.0, part)
        asked += going.sum(axis=1)
        at, yes_votes = np.nonzero(part > 0.0)
        ends.append((tally.depths, at, tally.states[at, yes_votes], part[at, yes_votes]))
    return asked, ends


def _places(stage: Stage, states: Ints) -> Ints:
    """Where ``states`` [m] stand in the stage, which has them all."""
    order = np.argsort(stage.states)
    return np.asarray(order[np.searchsorted(stage.states, states, sorter=order)])


def rehearse_plans(lattice: Lattice, plans: Sequence[Plan], tiers: tuple[Tier, ...], coded: CodedLog) -> Rehearsal:
    """Every plan on the same queries."""
    return Rehearsal(tiers, tuple(plan.cost for plan in plans), tuple(run_plan(lattice, plan, coded) for plan in plans))


def rehearse_policy(policy: Policy, log: ReplayLog) -> Rehearsal:
    """Every vertex of a policy on the same queries."""
    routes = tuple(route(policy, log, vertex) for vertex in range(len(policy.vertices)))
    return Rehearsal(policy.tiers, tuple(vertex.cost for vertex in policy.vertices), routes)
