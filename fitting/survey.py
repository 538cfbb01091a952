"""Survey of a decision graph over a lattice: what it costs and earns, and what is known at each of its branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.lattice import Depths, Lattice, deeper
from metaverify.fitting.reduce import outcome_nodes
from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Graph, Read, Stop
from metaverify.policies.policy import Belief

__all__ = ["Survey", "survey"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FAINT = 1e-9  # the share that a row of no share, the pooled one beside contexts, has in beliefs


@dataclass(slots=True)
class Survey:
    """Expected cost and quality per query, and the beliefs after each outcome of the read nodes, missing last."""

    cost: float = 0.0
    quality: float = 0.0
    beliefs: dict[int, tuple[Belief, ...]] = field(default_factory=dict)


def survey(
    lattice: Lattice, nodes: Graph, roots: Sequence[int], *, price: float = 0.0, believe: bool = False
) -> Survey:
    """Send the states of a lattice down a graph, exactly.

    Args:
        lattice: what is known.
        nodes: the graph.
        roots: where each context row starts, pooled first.
        price: at which going on is valued in the beliefs.
        believe: whether beliefs are wanted.
    """
    if believe:
        lattice.solve(price)
    found = Survey()
    sources = {ladder.source: at for at, ladder in enumerate(lattice.table.ladders)}
    start: Depths = (0,) * len(sources)
    waiting: dict[int, list[tuple[Depths, Ints]]] = {}
    for row, root in enumerate(roots):
        waiting.setdefault(root, []).append((start, np.array([row])))
    sums: dict[int, Floats] = {}
    while waiting:
        at = min(waiting)
        for depths, states in waiting.pop(at):
            share = lattice.share[lattice.row(depths, states)]
            match nodes[at]:
                case Stop(Accept(tier)):
                    found.quality += float(share @ lattice.quality(sources[tier], depths, states))
                case Stop(_):
                    found.quality += (lattice.abstain or 0.0) * float(share @ lattice.mass(depths, states))
                case Ask(tier, then) if _looks(nodes[then], tier, lattice, sources[tier], depths):
                    waiting.setdefault(then, []).append((depths, states))  # the read node climbs the rung
                case Ask(tier, then):
                    rung = lattice.table.ladders[sources[tier]].rungs[depths[sources[tier]]]
                    _climb(lattice, waiting, found, sources[tier], depths, states, [then] * rung.size)
                case Read(tier, _, _, _, _) as read:
                    source = sources[tier]
                    branches = outcome_nodes(read, lattice.table.ladders[source].rungs[depths[source]])
                    children = _climb(lattice, waiting, found, source, depths, states, branches)
                    if believe:
                        cells = np.searchsorted(read.cuts, [-1.0, *_cuts(lattice, source, depths)], side="right")
                        cells = np.append(cells, len(read.then))
                        total = _pooled(lattice, deeper(depths, source), children, cells, price)
                        sums[at] = sums.get(at, 0.0) + total
    found.beliefs = {node: _beliefs(total) for node, total in sorted(sums.items())}
    return found


def _looks(node: object, tier: str, lattice: Lattice, source: int, depths: Depths) -> bool:
    """Whether a node reads what comes with the answer that has just been called for."""
    rung = lattice.table.ladders[source].rungs[depths[source]]
    return isinstance(node, Read) and node.tier == tier and node.reading == rung.reading


def _climb(
    lattice: Lattice,
    waiting: dict[int, list[tuple[Depths, Ints]]],
    found: Survey,
    source: int,
    depths: Depths,
    states: Ints,
    branches: Sequence[int],
) -> Ints:
    share = lattice.share[lattice.row(depths, states)]
    found.cost += float(share @ lattice.charge(depths, source, states))
    children = lattice.children(depths, source, states)
    for node in sorted(set(branches)):
        group = children[:, np.flatnonzero(np.asarray(branches) == node)].reshape(-1)
        waiting.setdefault(node, []).append((deeper(depths, source), group))
    return children


def _pooled(lattice: Lattice, depths: Depths, children: Ints, cells: Ints, price: float) -> Floats:
    """Sums [intervals, share, weight, quality of each source, worth of each source] over children [m, outcomes]."""
    states, cell = children.reshape(-1), np.broadcast_to(cells, children.shape).reshape(-1)
    share = lattice.share[lattice.row(depths, states)]
    mass = lattice.mass(depths, states)
    nothing = np.full(len(states), np.nan)
    climbable = lattice.climbable(depths)
    columns = [mass]
    for source, quality in enumerate(lattice.table.quality):
        columns.append(nothing if quality is None else lattice.quality(source, depths, states))
    for source in range(len(lattice.table.ladders)):
        if source in climbable:
            after = lattice.value(deeper(depths, source), lattice.children(depths, source, states)).sum(axis=1)
            columns.append(after - price * lattice.charge(depths, source, states))
        else:
            columns.append(nothing)
    weighted = np.column_stack(columns) * np.maximum(share, FAINT)[:, None]
    total = np.zeros((cells[-1] + 1, len(columns) + 1))
    np.add.at(total, cell, np.column_stack([share * mass, weighted]))
    return total


def _beliefs(total: Floats) -> tuple[Belief, ...]:
    sources = (total.shape[1] - 2) // 2
    mean = total[:, 2:] / np.maximum(total[:, 1:2], 1e-300)
    return tuple(
        Belief(
            _short(min(max(share, 0.0), 1.0)),
            tuple(None if np.isnan(quality) else _short(min(max(quality, 0.0), 1.0)) for quality in row[:sources]),
            tuple(None if np.isnan(worth) else _short(worth) for worth in row[sources:]),
        )
        for share, row in zip(total[:, 0], mean, strict=True)
    )


def _cuts(lattice: Lattice, source: int, depths: Depths) -> tuple[float, ...]:
    return lattice.table.ladders[source].rungs[depths[source]].cuts


def _short(value: float) -> float:
    return round(float(value), 3) + 0.0
