"""What is best while some tiers are down: the learner solved again without them, at the price of each vertex."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Literal

from metaverify.fitting.crossfit import Learner
from metaverify.fitting.learner import Study, TableLearner
from metaverify.policies.graph import Graph, Node, compact, renumbered
from metaverify.policies.names import did_you_mean
from metaverify.policies.policy import Outage, Policy
from metaverify.policies.tiers import Tier
from metaverify.simulators.log import LogError, ReplayLog

__all__ = ["Outages", "outages_of", "with_outages"]

Outages = Sequence[Collection[str]] | Literal["each"]
"""Sets of tiers that are down at once, or each tier in turn."""


def outages_of(wanted: Outages, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The outages that are wanted of these tiers: each sorted, no one twice.

    Raises:
        LogError: one names what is no tier, or leaves none.
    """
    if wanted == "each":
        return tuple((name,) for name in names) if len(names) > 1 else ()
    found = [tuple(sorted({*outage})) for outage in wanted]
    for outage in found:
        for name in outage:
            if name not in names:
                hint = did_you_mean(name, names)
                raise LogError("E_OPTION", f"an outage of {name!r}, of the tiers {', '.join(names)}{hint}")
        if not 0 < len(outage) < len(names):
            raise LogError("E_OPTION", f"an outage of {'+'.join(outage) or 'nothing'}: name tiers, and leave one")
    return tuple(dict.fromkeys(found))


def with_outages(
    policy: Policy,
    learner: Learner,
    log: ReplayLog,
    outages: Sequence[tuple[str, ...]],
    *,
    study: Study | None = None,
    done: Callable[[str], None] = lambda name: None,
) -> Policy:
    """The policy with what its learner does without some tiers; what it does with all of them stays as it is.

    A unit of cost is worth to the outage of a vertex what it is worth to the vertex.  Budgets cannot be kept so: where
    a cheap tier is down, answers cost more.

    Args:
        policy: learnt from the log.
        learner: what it was learnt by.
        log: what it was learnt from.
        outages: of its tiers, as `outages_of` gives them.
        study: the log's, where the learner made one.
        done: told of each outage that is solved.
    """
    prices = [vertex.price for vertex in policy.vertices]
    for outage in outages:
        left = [tier.name for tier in policy.tiers if tier.answer and tier.name not in outage]
        if isinstance(learner, TableLearner) and study is not None:
            found = learner.policy_at(study.with_tiers(left), prices)
        else:
            found = learner.policy(log.with_tiers(left))
        policy = _grafted(policy, outage, found)
        done(f"without {'+'.join(outage)}")
    return policy


def _grafted(policy: Policy, outage: tuple[str, ...], found: Policy) -> Policy:
    """The policy whose vertices do in an outage what is found to be best then at their prices."""
    best = [found.vertices[found.at(price=vertex.price).point.low] for vertex in policy.vertices]
    nodes, place = _joined(policy.nodes, found.nodes)
    shift = len(nodes) - len(policy.nodes)
    moved = {at: at + shift for at in range(len(policy.nodes))}
    vertices = []
    for vertex, then in zip(policy.vertices, best, strict=True):
        start = Outage(outage, then.root, then.context_roots).moved(place)
        vertices.append(replace(vertex.moved(moved), outages=(*vertex.moved(moved).outages, start)))
    nodes, place = compact(nodes, [root for vertex in vertices for root in vertex.roots])
    vertices = [vertex.moved(place) for vertex in vertices]
    return replace(policy, tiers=_known(policy.tiers, found.tiers), nodes=nodes, vertices=tuple(vertices))


def _joined(nodes: Graph, more: Graph) -> tuple[Graph, dict[int, int]]:
    """One table with both graphs, the first one's nodes last and in their order, and where the second one's are."""
    table: list[Node] = []  # from the end, where a node's place does not change as others come before it
    known: dict[Node, int] = {}
    place: dict[int, int] = {}
    for graph in (nodes, more):
        place = {}
        for at in range(len(graph) - 1, -1, -1):
            node = renumbered(graph[at], place)
            if graph is nodes or node not in known:
                known[node] = len(table)
                table.append(node)
            place[at] = known[node]
    turned = {at: len(table) - 1 - at for at in range(len(table))}
    return tuple(renumbered(node, turned) for node in reversed(table)), {at: turned[to] for at, to in place.items()}


def _known(tiers: Sequence[Tier], found: Sequence[Tier]) -> tuple[Tier, ...]:
    """The tiers, with readings that are bought in an outage only."""
    others = {tier.name: tier.readings for tier in found}

    def more(tier: Tier) -> Tier:
        names = [reading.name for reading in tier.readings]
        fresh = tuple(reading for reading in others.get(tier.name, ()) if reading.name not in names)
        return replace(tier, readings=(*tier.readings, *fresh)) if fresh else tier

    return tuple(map(more, tiers))
