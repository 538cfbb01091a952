"""Survey of a decision graph over a lattice: what it costs and earns, and what is known at each of its branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.lattice import Depths, Lattice, deeper
from metaverify.fitting.reduce import asking, outcome_nodes, tally_nodes
from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Graph, Poll, Read, Stop, all_votes
from metaverify.policies.policy import Belief

__all__ = ["Survey", "survey"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FAINT = 1e-9
"""The share in beliefs of a row of no share (the pooled one beside contexts) and of a tally that nobody comes to."""


@dataclass(slots=True)
class Survey:
    """Expected cost and quality per query, and the beliefs after each outcome of the read nodes and polls, missing
    last."""

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
    sources = {ladder.source: at for at, ladder in enumerate(lattice.table.ladders)}
    start: Depths = (0,) * len(sources)
    walk = _Walk(lattice, price)
    for row, root in enumerate(roots):
        walk.go(root, start, np.array([row]), np.ones(1))
    sums: dict[int, Floats] = {}
    while walk.waiting:
        at = min(walk.waiting)
        for depths, states, reach in walk.waiting.pop(at):
            share = reach * lattice.share[lattice.row(depths, states)]
            match nodes[at]:
                case Stop(Accept(tier)):
                    walk.found.quality += float(share @ lattice.quality(sources[tier], depths, states))
                case Stop(_):
                    walk.found.quality += (lattice.abstain or 0.0) * float(share @ lattice.mass(depths, states))
                case Ask(tier, then) if _looks(nodes[then], tier, lattice, sources[tier], depths):
                    walk.go(then, depths, states, reach)  # the read node climbs the rung
                case Ask(tier, then):
                    rung = lattice.table.ladders[sources[tier]].rung(depths[sources[tier]])
                    walk.climb(sources[tier], depths, states, reach, [then] * rung.size)
                case Read(tier, _, _, then, _) as read if votes := _votes_asked(lattice, sources[tier], depths):
                    counted = _cells_of_all(read, votes) if believe else []
                    total = walk.poll(all_votes(read, votes), sources[tier], depths, states, reach, counted)
                    sums[at] = sums.get(at, 0.0) + total[: len(then) + 1]
                case Read(tier, _, _, _, _) as read:
                    source = sources[tier]
                    rung = lattice.table.ladders[source].rung(depths[source])
                    children = walk.climb(source, depths, states, reach, outcome_nodes(read, rung))
                    if believe:
                        cells = np.searchsorted(read.cuts, [-1.0, *rung.cuts], side="right")
                        cells = np.append(cells, len(read.then))
                        part = np.broadcast_to(reach[:, None], children.shape)
                        total = walk.pooled(deeper(depths, source), children, part, cells, len(read.then) + 1)
                        sums[at] = sums.get(at, 0.0) + total
                case Poll(tier, _, _, _) as poll:
                    total = walk.poll(poll, sources[tier], depths, states, reach, _cells(poll) if believe else [])
                    sums[at] = sums.get(at, 0.0) + total
    if believe:
        walk.found.beliefs = {node: _beliefs(total) for node, total in sorted(sums.items())}
    return walk.found


class _Walk:
    """Where the states of a lattice are on their way down a graph, and what they have gained and spent."""

    def __init__(self, lattice: Lattice, price: float) -> None:
        self.lattice, self.price = lattice, price
        self.found = Survey()
        self.waiting: dict[int, list[tuple[Depths, Ints, Floats]]] = {}  # a node: states, and the share that is there

    def go(self, node: int, depths: Depths, states: Ints, reach: Floats) -> None:
        """Send states on to a node."""
        self.waiting.setdefault(node, []).append((depths, states, reach))

    def climb(self, source: int, depths: Depths, states: Ints, reach: Floats, branches: Sequence[int]) -> Ints:
        """Climb a rung, and send each outcome on to its node; returns the states [m, outcomes] that were come to."""
        share = reach * self.lattice.share[self.lattice.row(depths, states)]
        self.found.cost += float(share @ self.lattice.charge(depths, source, states))
        children = self.lattice.children(depths, source, states)
        for node in sorted(set(branches)):
            group = children[:, np.flatnonzero(np.asarray(branches) == node)]
            self.go(node, deeper(depths, source), group.reshape(-1), np.repeat(reach, group.shape[1]))
        return children

    def poll(
        self, poll: Poll, source: int, depths: Depths, states: Ints, reach: Floats, cells: Sequence[Ints]
    ) -> Floats:
        """Ask for votes, and send each tally that ends them on to its node; returns the sums of its beliefs.

        ``cells`` says among which belief each tally is counted: after 1, 2, .. votes [votes + 2], missing last; nothing
        is counted where it is empty.
        """
        share = reach * self.lattice.share[self.lattice.row(depths, states)]
        charge, tallies = self.lattice.poll(depths, source, states, asking(poll))
        self.found.cost += float(share @ charge)
        going_on = self.lattice.worth_of_votes(depths, source, states, self.price) if cells else []
        count = 1 + max((int(own.max()) for own in cells), default=0)
        total = np.zeros((count, 2 + 2 * len(self.lattice.table.ladders)))
        for asked, tally in enumerate(tallies, start=1):
            stops, after = tally.stops[0], tally_nodes(poll, asked)  # the same in every state
            for node in sorted({after[cell] for cell in np.flatnonzero(stops > 0.0)}):
                ends = np.flatnonzero((np.asarray(after) == node) & (stops > 0.0))
                part = reach[:, None] * stops[ends]
                self.go(node, tally.depths, tally.states[:, ends].reshape(-1), part.reshape(-1))
            if cells:
                worth = going_on[asked - 1] if asked <= len(going_on) else None
                part = reach[:, None] * tally.reach
                total = total + self.pooled(tally.depths, tally.states, part, cells[asked - 1], count, (source, worth))
        return total

    def pooled(
        self,
        depths: Depths,
        children: Ints,
        reach: Floats,
        cells: Ints,
        count: int,
        votes: tuple[int, Floats | None] = (-1, None),
    ) -> Floats:
        """Sums [count, share, weight, quality of each source, worth of each source] over children [m, outcomes].

        ``reach`` [m, outcomes] is the share of each that is come to, ``cells`` [outcomes] where it is counted;
        ``votes`` has a source and what asking for its next vote is worth in each of them.
        """
        lattice = self.lattice
        states, cell = children.reshape(-1), np.broadcast_to(cells, children.shape).reshape(-1)
        share = lattice.share[lattice.row(depths, states)]
        mass = lattice.mass(depths, states)
        nothing = np.full(len(states), np.nan)
        climbable = lattice.climbable(depths)
        columns = [mass]
        for source, quality in enumerate(lattice.table.quality):
            columns.append(nothing if quality is None else lattice.quality(source, depths, states))
        for source in range(len(lattice.table.ladders)):
            if source == votes[0] and votes[1] is not None:
                columns.append(votes[1].reshape(-1))
            elif source in climbable:
                columns.append(self.worth_of_climb(source, depths, states))
            else:
                columns.append(nothing)
        come = reach.reshape(-1)
        weighted = np.column_stack(columns) * (np.maximum(share, FAINT) * np.maximum(come, FAINT))[:, None]
        total = np.zeros((count, len(columns) + 1))
        np.add.at(total, cell, np.column_stack([share * mass * come, weighted]))
        return total

    def worth_of_climb(self, source: int, depths: Depths, states: Ints) -> Floats:
        """What going on with a source is worth in ``states`` [m] of a slab; NaN where that was never tried."""
        lattice = self.lattice
        charge = self.price * lattice.charge(depths, source, states)
        if lattice.table.ladders[source].rung(depths[source]).votes > 1:
            return np.asarray(lattice.worth_of_polling(depths, source, states, self.price) - charge)
        after = lattice.value(deeper(depths, source), lattice.children(depths, source, states)).sum(axis=1)
        return np.where(lattice.barred(depths, source, states), np.nan, after - charge)


def _votes_asked(lattice: Lattice, source: int, depths: Depths) -> int:
    """How many votes the next rung has, where there are several to be asked one by one."""
    votes = lattice.table.ladders[source].rung(depths[source]).votes
    return votes if votes > 1 else 0


def _cells(poll: Poll) -> list[Ints]:
    """Among which belief of a poll each tally is counted: those of its intervals in order, missing last."""
    last = sum(len(tally.then) for tally in poll.tallies)
    first, cells = 0, []
    for asked, tally in enumerate(poll.tallies, start=1):
        own = first + np.searchsorted(tally.cuts, np.arange(asked + 1), side="right")
        cells.append(np.append(own, last))
        first += len(tally.then)
    return cells


def _cells_of_all(read: Read, votes: int) -> list[Ints]:
    """The same for a node that reads the share of all votes; what comes before the last one is counted apart."""
    last, apart = len(read.then), len(read.then) + 1
    before = [np.append(np.full(asked + 1, apart), last) for asked in range(1, votes)]
    share = np.searchsorted(read.cuts, np.arange(votes + 1) / votes, side="right")
    return [*before, np.append(share, last)]


def _looks(node: object, tier: str, lattice: Lattice, source: int, depths: Depths) -> bool:
    """Whether a node reads what comes with the answer that has just been called for."""
    rung = lattice.table.ladders[source].rung(depths[source])
    return isinstance(node, Read) and node.tier == tier and node.reading == rung.reading


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


def _short(value: float) -> float:
    return round(float(value), 3) + 0.0
