"""From plans over information states to one decision graph: equal subtrees become one node, equal neighbouring bins
one interval, and subtrees that serve a state as well become the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.ladders import Rung
from metaverify.fitting.lattice import ABSTAIN, Depths, Lattice, Masks, Plan, Stage, deeper
from metaverify.policies.actions import Abstain, Accept, Call
from metaverify.policies.graph import Ask, Graph, Node, Poll, Read, Stop, Tally, renumbered, successors

__all__ = ["Reduction", "reduce_plans"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RARE = 2e-3
"""States of less mass than this share of queries may lose as much as if they had it."""

ASK_ON, NOT_COME_TO = -1, -2  # in place of the node after a tally

SEEN = 1e-9
"""States of less mass were never seen; what they lose is judged by their own mass alone."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """One node table for many plans."""

    nodes: Graph
    roots: tuple[tuple[int, ...], ...]  # a plan: its root for each row of the table, pooled first


def reduce_plans(lattice: Lattice, plans: Sequence[Plan], *, slack: float = 0.0) -> Reduction:
    """A small graph that decides as the plans do.

    Args:
        lattice: what the plans are solutions of.
        plans: best ordered by price, so that neighbours share most.
        slack: the quality, net of price x cost, that a state may lose when another state's subtree takes the place
            of its own.  At 0 only equal subtrees become one, and the graph decides exactly as the plans do.
    """
    pool = _Pool()
    roots = [_Reducer(lattice, plan, pool, slack).roots() for plan in plans]
    return _number(pool.nodes, roots)


class _Pool:
    """Nodes, each distinct one once; successors come before what goes on to them."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.kept: dict[Depths, list[int]] = {}  # a slab: the subtrees in use there, the oldest first
        self.outcomes: dict[int, list[tuple[int, Ints]]] = {}  # a node that climbs: where it goes on
        self._ids: dict[Node, int] = {}

    def add(self, node: Node) -> int:
        if node not in self._ids:
            self._ids[node] = len(self.nodes)
            self.nodes.append(node)
        return self._ids[node]


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """The states of a stage, sorted, with the node that each goes on at and what that is worth."""

    states: Ints
    nodes: Ints
    worth: Floats


class _Reducer:
    """One plan, from its deepest stage up."""

    def __init__(self, lattice: Lattice, plan: Plan, pool: _Pool, slack: float) -> None:
        self._lattice, self._plan, self._pool, self._slack = lattice, plan, pool, slack
        self._sources = {ladder.source: at for at, ladder in enumerate(lattice.table.ladders)}
        self._placed: dict[Depths, _Placed] = {}

    def roots(self) -> Ints:
        for stage in reversed(self._plan.stages):
            self._placed[stage.depths] = self._place(stage)
        return self._placed[self._plan.stages[0].depths].nodes

    def _place(self, stage: Stage) -> _Placed:
        order = np.argsort(stage.states)
        states, climb, answer = stage.states[order], stage.climb[order], stage.answer[order]
        nodes, worth = np.empty(len(states), dtype=np.int64), np.empty(len(states))
        for source in np.unique(answer[climb < 0]):
            here = (climb < 0) & (answer == source)
            nodes[here] = self._pool.add(Stop(self._stop(source)))
            worth[here] = self._worth_of_stop(source, stage.depths, states[here])
        for source in np.unique(climb[climb >= 0]):
            here = climb == source
            if source in stage.asks:
                sort = np.argsort(stage.states[stage.climb == source])
                asks = tuple(asked[sort] for asked in stage.asks[source])
                nodes[here], worth[here] = self._poll(int(source), stage.depths, states[here], asks)
            else:
                nodes[here], worth[here] = self._climb(int(source), stage.depths, states[here])
        placed = _Placed(states, nodes, worth)
        return self._merge(stage.depths, placed) if self._slack > 0 else placed

    def _stop(self, answer: int) -> Accept | Abstain:
        return Abstain() if answer == ABSTAIN else Accept(self._lattice.table.ladders[answer].source)

    def _climb(self, source: int, depths: Depths, states: Ints) -> tuple[Ints, Floats]:
        """The nodes that climb ``source``'s next rung from each of ``states`` and go on as its outcomes do."""
        ladder, depth = self._lattice.table.ladders[source], depths[source]
        after = self._placed[deeper(depths, source)]
        where = np.searchsorted(after.states, self._lattice.children(depths, source, states))  # [m, outcomes]
        worth = after.worth[where].sum(axis=1) - self._lattice.outlay(depths, source, states, self._plan.price)
        rows, member = np.unique(after.nodes[where], axis=0, return_inverse=True)
        called = isinstance(ladder.action(depth), Call)
        nodes = [self._branch(ladder.source, ladder.rung(depth), row.tolist(), called) for row in rows]
        return np.array(nodes, dtype=np.int64)[member.reshape(-1)], worth

    def _poll(self, source: int, depths: Depths, states: Ints, asks: tuple[Masks, ...]) -> tuple[Ints, Floats]:
        """The nodes that ask for ``source``'s votes from each of ``states``, and go on as their tallies do."""
        ladder = self._lattice.table.ladders[source]
        charge, tallies = self._lattice.poll(depths, source, states, asks)
        worth = -self._plan.price * charge
        columns = []
        for tally in tallies:
            ends = tally.stops > 0.0
            after = np.where(tally.asks, ASK_ON, NOT_COME_TO)
            if ends.any():
                placed = self._placed[tally.depths]
                where = np.searchsorted(placed.states, tally.states[ends])
                after[ends] = placed.nodes[where]
                gained = np.zeros(ends.shape)
                gained[ends] = tally.stops[ends] * placed.worth[where]
                worth = worth + gained.sum(axis=1)
            columns.append(after)
        rows, member = np.unique(np.concatenate(columns, axis=1), axis=0, return_inverse=True)
        nodes = [self._pool.add(_poll_node(ladder.source, ladder.rung(depths[source]), row.tolist())) for row in rows]
        return np.array(nodes, dtype=np.int64)[member.reshape(-1)], worth

    def _branch(self, source: str, rung: Rung, branches: list[int], called: bool) -> int:
        """The node that buys a rung and goes on to ``branches`` [outcomes]."""
        *bins, missing = branches
        node = missing
        if not called or len(set(branches)) > 1:  # an answer can be had without looking at what comes with it
            assert rung.reading is not None, "only a reading has several outcomes"
            breaks = [b for b in range(1, len(bins)) if bins[b] != bins[b - 1]]
            cuts = tuple(rung.cuts[b - 1] for b in breaks)
            then = (bins[0], *(bins[b] for b in breaks))
            node = self._pool.add(Read(source, rung.reading, cuts, then, missing))
        return self._pool.add(Ask(source, node)) if called else node

    def _merge(self, depths: Depths, placed: _Placed) -> _Placed:
        """Let few subtrees serve all states: those in use by earlier plans first, then the ones of most mass."""
        mass = self._lattice.mass(depths, placed.states)
        allowed = self._slack * np.where(mass > SEEN, np.maximum(mass, RARE), mass)
        nodes, worth = placed.nodes.copy(), placed.worth.copy()
        own, member = np.unique(placed.nodes, return_inverse=True)
        by_mass = own[np.argsort(-np.bincount(member, weights=mass), kind="stable")].tolist()
        kept = self._pool.kept.setdefault(depths, [])
        open_states = np.ones(len(nodes), dtype=bool)
        for node in [*kept, *(n for n in by_mass if n not in kept)]:
            todo = np.flatnonzero(open_states)
            if len(todo) == 0:
                break
            offered = self._worth(node, depths, placed.states[todo])
            taken = (placed.worth[todo] - offered <= allowed[todo]) | (placed.nodes[todo] == node)
            nodes[todo[taken]], worth[todo[taken]] = node, offered[taken]
            open_states[todo[taken]] = False
            if taken.any() and node not in kept:
                kept.append(node)
        return _Placed(placed.states, nodes, worth)

    def _worth(self, node: int, depths: Depths, states: Ints) -> Floats:
        """What ``states`` [m] of a slab are worth if they go on at ``node``."""
        match self._pool.nodes[node]:
            case Stop(Accept(tier)):
                return self._worth_of_stop(self._sources[tier], depths, states)
            case Stop(_):
                return self._worth_of_stop(ABSTAIN, depths, states)
            case Ask(tier, _) | Read(tier, _, _, _, _):
                return self._worth_of_climb(node, self._sources[tier], depths, states)
            case Poll() as poll:
                return self._worth_of_poll(poll, self._sources[poll.tier], depths, states)

    def _worth_of_poll(self, poll: Poll, source: int, depths: Depths, states: Ints) -> Floats:
        charge, tallies = self._lattice.poll(depths, source, states, asking(poll))
        total = -self._plan.price * charge
        for place, tally in enumerate(tallies):
            ends, after = tally.stops[0], tally_nodes(poll, place + 1)  # the same in every state
            for child in sorted({after[cell] for cell in np.flatnonzero(ends > 0.0)}):
                cells = np.flatnonzero((np.asarray(after) == child) & (ends > 0.0))
                worth = self._worth(child, tally.depths, tally.states[:, cells].reshape(-1))
                total = total + worth.reshape(len(states), len(cells)) @ ends[cells]
        return np.asarray(total)

    def _worth_of_climb(self, node: int, source: int, depths: Depths, states: Ints) -> Floats:
        children = self._lattice.children(depths, source, states)
        total = -self._lattice.outlay(depths, source, states, self._plan.price)
        for child, outcomes in self._outcomes(node, source, depths):
            after = self._worth(child, deeper(depths, source), children[:, outcomes].reshape(-1))
            total += after.reshape(len(states), len(outcomes)).sum(axis=1)
        return np.asarray(total)

    def _outcomes(self, node: int, source: int, depths: Depths) -> list[tuple[int, Ints]]:
        """Where a node goes on after each outcome of the rung that it climbs: a node, and the outcomes."""
        if node not in self._pool.outcomes:
            rung = self._lattice.table.ladders[source].rung(depths[source])
            after = self._after(self._pool.nodes[node], rung)
            self._pool.outcomes[node] = [(n, np.flatnonzero(np.asarray(after) == n)) for n in sorted(set(after))]
        return self._pool.outcomes[node]

    def _after(self, node: Node, rung: Rung) -> list[int]:
        match node:
            case Read() as read:
                return outcome_nodes(read, rung)
            case Ask(tier, then):
                read_next = self._pool.nodes[then]
                if isinstance(read_next, Read) and (read_next.tier, read_next.reading) == (tier, rung.reading):
                    return outcome_nodes(read_next, rung)
                return [then] * rung.size
            case Stop(_) | Poll():
                raise AssertionError("a stop climbs nothing, and a poll more than one step")

    def _worth_of_stop(self, answer: int, depths: Depths, states: Ints) -> Floats:
        if answer == ABSTAIN:
            return (self._lattice.abstain or 0.0) * self._lattice.mass(depths, states)
        return self._lattice.quality(answer, depths, states)


def asking(poll: Poll) -> tuple[Masks, ...]:
    """After 1, 2, .. votes, for each number of yes and for missing: whether the poll asks for more, [votes + 2]."""
    return tuple(
        np.array([*(tally.after(yes) is None for yes in range(asked + 1)), False])
        for asked, tally in enumerate(poll.tallies, start=1)
    )


def tally_nodes(poll: Poll, asked: int) -> list[int]:
    """The node after each number of yes among so many votes, `ASK_ON` where it asks for more; for missing last."""
    after = [poll.tallies[asked - 1].after(yes) for yes in range(asked + 1)]
    return [*(ASK_ON if node is None else node for node in after), poll.missing]


def _poll_node(source: str, rung: Rung, after: list[int]) -> Poll:
    """The poll that goes on as ``after`` says, for 0, 1 of one vote, missing; 0, 1, 2 of two votes, missing; ..

    A tally that asking never comes to goes on as the one did that it follows from by the vote of its majority.
    """
    assert rung.reading is not None, "votes are a reading"
    tallies: list[Tally] = []
    before: list[int] = []
    start = 0
    for asked in range(1, rung.votes + 1):
        row = after[start : start + asked + 1]
        start += asked + 2
        for yes, node in enumerate(row):
            if node == NOT_COME_TO:
                row[yes] = before[yes - 1] if 2 * yes > asked else before[yes]
        cuts = tuple(yes for yes in range(1, asked + 1) if row[yes] != row[yes - 1])
        tallies.append(Tally(cuts, tuple(None if row[at] == ASK_ON else row[at] for at in (0, *cuts))))
        before = row
        if ASK_ON not in row:
            break
    return Poll(source, rung.reading, tuple(tallies), after[2])


def outcome_nodes(read: Read, rung: Rung) -> list[int]:
    """The node that each outcome of a rung goes on to at a read node, whose cuts are some of the rung's."""
    bins = np.searchsorted(read.cuts, [-1.0, *rung.cuts], side="right")
    return [*(read.then[b] for b in bins), read.missing]


def _number(nodes: list[Node], roots: Sequence[Ints]) -> Reduction:
    """The same graph with nodes before their successors, in an order that follows from its shape alone."""
    order: list[int] = []
    seen: set[int] = set()
    for root in (int(r) for of_plan in reversed(roots) for r in reversed(of_plan)):
        stack = [(root, False)]
        while stack:
            node, finished = stack.pop()
            if finished:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((child, False) for child in successors(nodes[node]))
    position = {node: at for at, node in enumerate(reversed(order))}
    return Reduction(
        tuple(renumbered(nodes[node], position) for node in reversed(order)),
        tuple(tuple(position[int(r)] for r in of_plan) for of_plan in roots),
    )
