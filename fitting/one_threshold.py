"""The chains that some gateways know: models in one order, one reading of each, and one threshold for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.policies.policy import Policy, Vertex
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.outcome import Estimate, ledger_of, mean_with_interval
from metaverify.simulators.replay import check_match, route

__all__ = ["OneThreshold", "Simplified", "as_one_threshold", "chain_ledger", "misfits", "simplify"]

Floats = NDArray[np.float64]

FOLDS = 5
GRID = 64  # thresholds that are tried of a reading, at most


@dataclass(frozen=True, slots=True)
class OneThreshold:
    """Call the tiers in order, and return the first answer whose reading is at least the threshold, or the last one.

    The last answer is read too, as gateways do, and returned whatever it says.  A missing reading goes on.
    """

    tiers: tuple[str, ...]
    reading: str
    threshold: float  # in (0, 1]; of a single tier it is never looked at


@dataclass(frozen=True, slots=True)
class Simplified:
    """A chain in the place of a policy, and what that does on a log, both in the mean and with 90 % intervals by group.

    ``cost`` and ``quality`` are the policy's, ``chain_cost`` and ``chain_quality`` those of chains that were chosen
    without the queries that they were tried on; ``loss`` is what the policy's quality is above theirs, and ``saving``
    what its cost is, query by query.  ``why`` says in which ways the policy is more than the chain.
    """

    chain: OneThreshold
    why: tuple[str, ...]
    n: int
    cost: Estimate
    quality: Estimate
    chain_cost: Estimate
    chain_quality: Estimate
    loss: Estimate
    saving: Estimate

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def as_one_threshold(policy: Policy) -> OneThreshold | None:
    """The chain that decides as the policy does, whatever it is told; None where there is none."""
    if misfits(policy):
        return None
    node = policy.nodes[policy.vertices[_vertices(policy)[0]].root]
    tiers, reading, cut = [], "", 1.0
    while isinstance(node, Ask):
        tiers.append(node.tier)
        node = policy.nodes[node.then]
        if isinstance(node, Read):
            reading, cut = node.reading, node.cuts[0]
            node = policy.nodes[node.missing]
    return OneThreshold(tuple(tiers), reading, cut)


def misfits(policy: Policy) -> tuple[str, ...]:
    """In which ways the policy is more than one chain with one threshold; nothing where it is one."""
    found, cuts, readings = [], {}, set()
    used = _vertices(policy)
    if len(used) > 1:
        found.append("it mixes two graphs to meet its budget")
    if any(root != vertex.root for vertex in map(policy.vertices.__getitem__, used) for root in _contexts(vertex)):
        found.append("it decides by context")
    for at in used:
        node = policy.nodes[policy.vertices[at].root]
        while isinstance(node, Ask):
            tier, node = node.tier, policy.nodes[node.then]
            if isinstance(node, Read) and node.tier == tier and _is_plain(policy, node):
                cuts[tier] = node.cuts[0]
                readings.add(node.reading)
                node = policy.nodes[node.missing]
            elif node != Stop(Accept(tier)):
                break
        if not (isinstance(node, Stop) and isinstance(node.action, Accept)):
            found.append("its graph is no chain of single cuts")
            break
    if len({*cuts.values()}) > 1:
        found.append(f"its cuts differ ({', '.join(f'{cut:g} of {tier}' for tier, cut in cuts.items())})")
    if len(readings) > 1:
        found.append(f"it reads {' and '.join(sorted(readings))}")
    if any(cut == 0.0 for cut in cuts.values()):
        found.append("it has a cut at 0, which gateways take for none")
    return tuple(found)


def _contexts(vertex: Vertex) -> tuple[int, ...]:
    return tuple(vertex.context_roots.values())


def _vertices(policy: Policy) -> tuple[int, ...]:
    """The vertices in use."""
    point = policy.point
    used = {point.low: 1.0 - point.share, point.high: point.share} if point.low != point.high else {point.low: 1.0}
    return tuple(at for at, share in used.items() if share > 0.0)


def _is_plain(policy: Policy, node: Read) -> bool:
    """Whether a node accepts its tier from one cut on, and else goes on; and its reading is a single number."""
    tier = next(tier for tier in policy.tiers if tier.name == node.tier)
    reading = next(reading for reading in tier.readings if reading.name == node.reading)
    if reading.parts or reading.votes or reading.sample or len(node.then) != 2 or node.then[0] != node.missing:
        return False
    return isinstance(policy.nodes[node.missing], Ask) and policy.nodes[node.then[1]] == Stop(Accept(node.tier))


def chain_ledger(chain: OneThreshold, log: ReplayLog) -> tuple[Floats, Floats]:
    """The quality and the cost of each query of the log by this chain, [n] each."""
    quality, cost = np.zeros(len(log)), np.zeros(len(log))
    on = np.ones(len(log), dtype=bool)
    for name in chain.tiers:
        tier = log.tier(name)
        quality[on] = tier.correct[on]
        cost[on] += tier.cost[on]
        for reading in tier.readings:
            if reading.name == chain.reading:
                cost[on] += reading.paid[on]
                on = on & ~(reading.confidence >= chain.threshold)
    return quality, cost


def simplify(policy: Policy, log: ReplayLog, *, reading: str | None = None) -> Simplified:
    """The chain that earns most on the log and costs no more than the policy does there, and what that loses.

    What is lost is found on queries that the chain was not chosen on, so that it is honest of the chain; it is of the
    policy where the log is not the one that it was fitted on.

    Raises:
        LogError: there is nothing that a chain could go on by, too few queries, or a log of another cascade.
    """
    check_match(policy, log)
    chains = list(_chains(policy, log, reading))
    point = policy.point
    routes = [(1.0 - point.share, route(policy, log, point.low)), (point.share, route(policy, log, point.high))]
    own = ledger_of(policy.tiers, routes)
    folds = log.folds(min(FOLDS, log.group_count))

    def by_fold(values: Floats) -> Floats:
        return np.asarray(np.bincount(folds, weights=log.weights * values))

    totals = np.array([[by_fold(each) for each in chain_ledger(chain, log)] for chain in chains])  # [chains, 2, folds]
    spent, weight = by_fold(own.cost), by_fold(np.ones(len(log)))

    def best(used: NDArray[np.bool_]) -> OneThreshold:
        """The chain that earns most on these folds, of those that cost no more than the policy, or the cheapest."""
        quality, cost = totals[:, :, used].sum(axis=2).T / weight[used].sum()
        allowed = cost <= max(float(spent[used].sum() / weight[used].sum()) * (1 + 1e-9), float(cost.min()))
        return chains[int(np.flatnonzero(allowed)[np.argmax(quality[allowed])])]

    quality, cost = np.zeros(len(log)), np.zeros(len(log))
    for fold in range(len(weight)):
        tried = folds == fold
        found = chain_ledger(best(np.arange(len(weight)) != fold), log)
        quality[tried], cost[tried] = (each[tried] for each in found)
    values = (own.cost, own.quality, cost, quality, own.quality - quality, own.cost - cost)
    chosen = best(np.ones(len(weight), dtype=bool))
    return Simplified(chosen, misfits(policy), log.queries, *(mean_with_interval(each, log) for each in values))


def _chains(policy: Policy, log: ReplayLog, reading: str | None) -> Iterator[OneThreshold]:
    """Every chain of the policy's tiers in their order, with thresholds that divide the readings of its tiers."""
    names = [tier.name for tier in policy.tiers if tier.answer]
    by_tier = {name: {each.name: each for each in log.tier(name).readings if not each.votes} for name in names}
    known = sorted({each for readings in by_tier.values() for each in readings})
    if reading is not None and reading not in known:
        raise LogError("E_OPTION", f"no tier has a reading {reading!r}; the log has {', '.join(known) or 'none'}")
    yield from (OneThreshold((name,), reading or "", 1.0) for name in names)
    several = False
    for wanted in known if reading is None else [reading]:
        for size in range(2, len(names) + 1):
            for tiers in combinations(names, size):
                if all(wanted in by_tier[name] for name in tiers[:-1]):
                    several = True
                    seen = np.concatenate([by_tier[name][wanted].confidence for name in tiers[:-1]])
                    yield from (OneThreshold(tiers, wanted, cut) for cut in _thresholds(seen))
    if not several:
        raise LogError("E_OPTION", "the log has no reading, other than votes, by which a chain could go on")


def _thresholds(confidence: Floats) -> list[float]:
    """Confidences at quantiles that are equally far apart, above 0."""
    seen = np.sort(confidence[(confidence > 0.0) & (confidence <= 1.0)])
    if not len(seen):
        return [1.0]
    places = np.unique(np.linspace(0, len(seen) - 1, GRID).round().astype(int))
    return sorted({float(value) for value in seen[places]})
