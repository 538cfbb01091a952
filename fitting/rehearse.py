"""Rehearsal: plans run on coded queries, without being made into a policy first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.coding import CodedLog
from metaverify.fitting.lattice import Depths, Lattice, Plan, Stage, deeper
from metaverify.policies.policy import Policy
from metaverify.policies.tiers import Tier
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.replay import ABSTAINED, Routes, route

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
    with an answer counts as read.
    """
    ladders = lattice.table.ladders
    first = np.cumsum([0, *(len(ladder.rungs) for ladder in ladders)])
    n = len(coded)
    quality, cost = np.full(n, lattice.abstain or 0.0), np.zeros(n)
    accepted = np.full(n, ABSTAINED, dtype=np.int8)
    climbs = [[0.0] * len(ladder.rungs) for ladder in ladders]
    accepts = [0.0] * len(ladders)
    waiting: dict[Depths, list[tuple[Ints, Ints]]] = {(0,) * len(ladders): [(np.arange(n), coded.context + 1)]}
    for stage in plan.stages:
        groups = waiting.pop(stage.depths, [])
        if not groups:
            continue
        rows, states = (np.concatenate(column) for column in zip(*groups, strict=True))
        climb, answer = _decisions(stage, states)
        for source in np.unique(answer[climb < 0]):
            if source >= 0:
                here = rows[(climb < 0) & (answer == source)]
                column = coded.quality[source]
                assert column is not None, "only an answer is accepted"
                quality[here], accepted[here] = column[here], source
                accepts[source] += float(coded.weights[here].sum())
        for source in np.unique(climb[climb >= 0]):
            chosen = climb == source
            here, depth = rows[chosen], stage.depths[source]
            cost[here] += coded.price[source][depth][here]
            climbs[source][depth] += float(coded.weights[here].sum())
            after = lattice.child(stage.depths, int(source), states[chosen], coded.codes[first[source] + depth][here])
            waiting.setdefault(deeper(stage.depths, int(source)), []).append((here, after))
    reads = tuple(
        tuple(count for count, rung in zip(counts, ladder.rungs, strict=True) if rung.reading is not None)
        for counts, ladder in zip(climbs, ladders, strict=True)
    )
    return Routes(quality, cost, accepted, tuple(counts[0] for counts in climbs), reads, tuple(accepts))


def _decisions(stage: Stage, states: Ints) -> tuple[Ints, Ints]:
    """What the stage does in each of ``states`` [m], all of which it has."""
    order = np.argsort(stage.states)
    where = order[np.searchsorted(stage.states, states, sorter=order)]
    return stage.climb[where], stage.answer[where]


def rehearse_plans(lattice: Lattice, plans: Sequence[Plan], tiers: tuple[Tier, ...], coded: CodedLog) -> Rehearsal:
    """Every plan on the same queries."""
    return Rehearsal(tiers, tuple(plan.cost for plan in plans), tuple(run_plan(lattice, plan, coded) for plan in plans))


def rehearse_policy(policy: Policy, log: ReplayLog) -> Rehearsal:
    """Every vertex of a policy on the same queries."""
    routes = tuple(route(policy, log, vertex) for vertex in range(len(policy.vertices)))
    return Rehearsal(policy.tiers, tuple(vertex.cost for vertex in policy.vertices), routes)
