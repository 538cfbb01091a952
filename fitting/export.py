"""From a solved frontier to a policy."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from metaverify.fitting.frontier import Frontier
from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import Lattice, Plan
from metaverify.fitting.reduce import reduce_plans
from metaverify.fitting.survey import survey
from metaverify.policies.file import dump_policy
from metaverify.policies.graph import Graph, Node, compact
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Reading, Tier
from metaverify.simulators.log import LoggedReading, LoggedSignal, LoggedTier, ReplayLog

__all__ = [
    "FILE_TARGET",
    "keep_vertices",
    "policy_of",
    "reading_of",
    "salt_of",
    "thin",
    "tiers_of",
    "with_beliefs",
]

FILE_TARGET = 60_000
"""Bytes of a policy file that thinning aims at."""


def policy_of(
    lattice: Lattice, frontier: Frontier[Plan], log: ReplayLog, *, slack: float = 0.0, believe: Collection[int] = ()
) -> Policy:
    """The policy whose vertices are the frontier's plans, at the costs and qualities that the table expects.

    ``slack`` is what a state may lose to a smaller graph (see `reduce_plans`); ``believe`` lists the plans whose
    beliefs are kept.
    """
    contexts = lattice.table.contexts
    reduction = reduce_plans(lattice, frontier.plans, slack=slack)
    surveys = [
        survey(lattice, reduction.nodes, roots, price=plan.price, believe=at in believe)
        for at, (plan, roots) in enumerate(zip(frontier.plans, reduction.roots, strict=True))
    ]
    vertices: list[Vertex] = []
    for plan, roots, found in zip(frontier.plans, reduction.roots, surveys, strict=True):
        while vertices and vertices[-1].cost >= found.cost:  # slack may leave nothing between two plans
            vertices.pop()
        by_context = dict(zip(contexts, roots[1:], strict=True))
        vertices.append(Vertex(plan.price, found.cost, found.quality, roots[0], by_context, found.beliefs))
    salt = salt_of(reduction.nodes, reduction.roots)
    nodes, kept = _compact(reduction.nodes, vertices)
    return Policy(
        tiers_of(log, lattice.table.ladders),
        nodes,
        kept,
        OperatingPoint(0, 0, 0.0),
        salt,
        abstain=lattice.abstain,
    )


def with_beliefs(policy: Policy, lattice: Lattice, believe: Collection[int]) -> Policy:
    """The policy with the beliefs of these vertices, whose graphs must be over the lattice's ladders."""
    vertices = list(policy.vertices)
    for at in believe:
        vertex = vertices[at]
        roots = [vertex.root, *(vertex.context_roots[label] for label in lattice.table.contexts)]
        found = survey(lattice, policy.nodes, roots, price=vertex.price, believe=True)
        vertices[at] = replace(vertex, beliefs=found.beliefs)
    return replace(policy, vertices=tuple(vertices))


def salt_of(nodes: Sequence[Node], roots: Sequence[object]) -> str:
    """What keys the draws of a policy, so that two policies draw independently: a hash of its graphs."""
    return hashlib.sha256(repr((tuple(nodes), tuple(roots))).encode()).hexdigest()[:16]


def tiers_of(log: ReplayLog, ladders: Sequence[Ladder]) -> tuple[Tier, ...]:
    """Tiers and signals as a policy knows them: mean prices, and the histograms of the ladders' readings on the log."""
    return tuple(_tier(log, log.source(ladder.source), ladder) for ladder in ladders)


def _tier(log: ReplayLog, columns: LoggedTier | LoggedSignal, ladder: Ladder) -> Tier:
    rungs = {rung.reading: rung for rung in ladder.rungs}
    readings = tuple(reading_of(log, r, rungs[r.name]) for r in columns.readings if r.name in rungs)
    price = log.mean(columns.cost) if isinstance(columns, LoggedTier) else 0.0
    return Tier(columns.name, price, readings, ladder.answer, ladder.needs)


def reading_of(log: ReplayLog, column: LoggedReading, rung: Rung) -> Reading:
    """A reading as a policy knows it: its mean price, and its histogram over a rung's outcomes."""
    counts = np.bincount(rung.code(column.confidence), weights=log.weights, minlength=rung.size)
    shown = tuple(round(c) for c in counts.tolist())
    return Reading(
        column.name, log.mean(column.price), rung.cuts, shown, column.parts, column.votes, column.correct is not None
    )


def keep_vertices(policy: Policy, vertices: Sequence[Vertex]) -> Policy:
    """The policy with only these vertices and the nodes that they need, its dial at the cheapest."""
    nodes, kept = _compact(policy.nodes, vertices)
    return replace(policy, nodes=nodes, vertices=kept, point=OperatingPoint(0, 0, 0.0))


def _compact(nodes: Graph, vertices: Sequence[Vertex]) -> tuple[Graph, tuple[Vertex, ...]]:
    """The nodes that the vertices need, in order, and the vertices on them."""
    kept, place = compact(nodes, [root for vertex in vertices for root in vertex.roots])
    return kept, tuple(vertex.moved(place) for vertex in vertices)


def thin(policy: Policy, protected: Collection[float], *, target: int = FILE_TARGET) -> Policy:
    """The policy with its vertices thinned until its file has at most ``target`` bytes.

    Each time the vertex goes that the chord between its neighbours replaces at the least loss of quality; the ends
    and the vertices whose cost is ``protected`` stay.
    """
    while len(dump_policy(policy).encode()) > target:
        inner = range(1, len(policy.vertices) - 1)
        losses = {at: _loss(policy.vertices, at) for at in inner if policy.vertices[at].cost not in protected}
        if not losses:
            return policy
        dropped = min(losses, key=lambda at: (losses[at], at))
        policy = keep_vertices(policy, [v for at, v in enumerate(policy.vertices) if at != dropped])
    return policy


def _loss(vertices: Sequence[Vertex], at: int) -> float:
    """How far, in quality, a vertex lies above the chord between its neighbours."""
    before, vertex, after = vertices[at - 1 : at + 2]
    share = (vertex.cost - before.cost) / (after.cost - before.cost)
    return vertex.quality - (1 - share) * before.quality - share * after.quality
