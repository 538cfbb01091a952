"""Threshold chains: tiers in order of price, one cut a tier, every chain tried.

A chain calls its tiers from the cheapest on and keeps the first answer whose reading reaches its tier's cut; its last
tier is not read.  What a chain costs and earns is linear in the joint table, and a cut is a cumulative sum along one
axis, so all the chains over one list of tiers are a few arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.coding import CodedLog, code_log
from metaverify.fitting.context import KAPPA, contextual_table
from metaverify.fitting.export import keep_vertices, salt_of, tiers_of, with_beliefs
from metaverify.fitting.frontier import trace_frontier
from metaverify.fitting.ladders import Ladder, Rung, in_hand
from metaverify.fitting.lattice import Lattice, lattice_bytes
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.table import JointTable, back_off
from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Node, Read, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.simulators.log import LoggedTier, ReplayLog

__all__ = [
    "Chain",
    "ChainPlan",
    "Chains",
    "Thresholds",
    "chain_nodes",
    "chain_policy",
    "first_readings",
    "longest_chain",
    "with_row_beliefs",
]

Floats = NDArray[np.float64]

MANY_CHAINS = 20_000
"""Chains, contexts counted once, that are tried at the most: what sets how fine the cuts are."""


def longest_chain(tiers: int) -> int:
    """Tiers that a chain may have, of so many: all of five, and four of more."""
    return tiers if tiers <= 5 else 4


@dataclass(frozen=True, slots=True)
class Chain:
    """Tiers in the order in which they are called; a tier's answer is kept from its cut on, the last one's always."""

    tiers: tuple[int, ...]
    cuts: tuple[float, ...]  # one fewer


@dataclass(frozen=True, slots=True, eq=False)
class ChainPlan:
    """The best chain of each context row at one price."""

    price: float  # quality per unit cost
    quality: float
    cost: float
    chains: tuple[int, ...]  # a row


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The best chains by what they earn on the log's own rows: the baseline that everybody has.

    Args:
        bins: the most cuts of a reading and one; None has as many as ``MANY_CHAINS`` allows.
        context: whether each context has chains of its own.
        kappa: rows of pooled evidence that stand beside each context's own.
        gap: no mixture of chains lies more than this, in quality, above the frontier.
    """

    bins: int | None = None
    context: bool = False
    kappa: float = KAPPA
    gap: float = 1e-3

    @property
    def abstain(self) -> None:
        """A chain always answers."""
        return None

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record."""
        return {"method": "thresholds", "options": asdict(self)}

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The frontier of all chains, fixed tiers among them, and of their mixtures."""
        chains = self.chains(log)
        plans = trace_frontier(chains, gap=self.gap).plans
        policy = chain_policy(log, chains, plans)
        return policy if near is None else with_row_beliefs(policy, log, chains.contexts, kappa=self.kappa)

    def chains(self, log: ReplayLog) -> Chains:
        """Every chain, with what it costs and earns."""
        contexts = tuple(sorted(set(log.contexts))) if self.context and log.contexts is not None else ()
        ladders = first_readings(log, self.bins or _bins_that_fit(len(log.tiers)))
        return Chains(ladders, _Counted(code_log(log, ladders, contexts), self.kappa))


def with_row_beliefs(policy: Policy, log: ReplayLog, contexts: tuple[str, ...] = (), *, kappa: float = KAPPA) -> Policy:
    """A policy on first readings, with what the log's own rows say where the graphs of each vertex and of its
    neighbours divide them."""
    for at in range(len(policy.vertices)):
        policy = _with_vertex_beliefs(policy, log, contexts, kappa, at)
    return policy


def _with_vertex_beliefs(
    policy: Policy, log: ReplayLog, contexts: tuple[str, ...], kappa: float, vertex: int
) -> Policy:
    nodes = keep_vertices(policy, policy.vertices[max(vertex - 1, 0) : vertex + 2]).nodes
    cuts: dict[str, set[float]] = {tier.name: set() for tier in policy.tiers}
    for node in nodes:
        if isinstance(node, Read):
            cuts[node.tier].update(node.cuts)
    ladders = tuple(_with_cuts(ladder, tuple(sorted(cuts[ladder.source]))) for ladder in first_readings(log, 1))
    if lattice_bytes(ladders, contexts=len(contexts))[0] > MANY_CHAINS:
        return policy
    table = contextual_table(Counts(), code_log(log, ladders, contexts), kappa=kappa)
    return with_beliefs(policy, Lattice(back_off(table)), [vertex])


def _with_cuts(ladder: Ladder, cuts: tuple[float, ...]) -> Ladder:
    """The ladder with these cuts of its reading."""
    rungs = tuple(rung if rung.reading is None else Rung(rung.reading, cuts) for rung in ladder.rungs)
    return replace(ladder, rungs=rungs)


def first_readings(log: ReplayLog, bins: int) -> tuple[Ladder, ...]:
    """Ladders of a call and the first reading, which is a rung of its own where it has a price."""
    return tuple(_ladder(log, tier, bins) for tier in log.tiers)


def _ladder(log: ReplayLog, tier: LoggedTier, bins: int) -> Ladder:
    if not tier.readings:
        return Ladder(tier.name, (Rung(None),))
    first = tier.readings[0]
    rung = Rung(first.name, first.cuts(log.weights, bins))
    return Ladder(tier.name, (rung,) if first.free else (Rung(None), rung))


def _bins_that_fit(tiers: int) -> int:
    """Cuts a tier, and one, so that about ``MANY_CHAINS`` chains are tried."""
    lists = sum(1 for _ in _tier_lists(tiers)) if tiers > 5 else 1
    return int(min(max((MANY_CHAINS / lists) ** (1 / max(longest_chain(tiers) - 1, 1)), 6), 256))


def _tier_lists(count: int) -> Iterator[tuple[int, ...]]:
    """Lists of tiers in order of price that a chain may have, the last one not read."""
    longest = longest_chain(count)
    stack: list[tuple[int, ...]] = [(tier,) for tier in reversed(range(count))]
    while stack:
        tiers = stack.pop()
        yield tiers
        if len(tiers) < longest:
            stack.extend((*tiers, tier) for tier in reversed(range(tiers[-1] + 1, count)))


# ------------------------------------------------------------------------------------------- marginals of a source


class _Counted:
    """Sums of the log's own rows; a row of the result is a context, pooled first, each with a mass of 1."""

    def __init__(self, coded: CodedLog, kappa: float) -> None:
        self._coded, self._kappa = coded, kappa
        self.contexts = coded.contexts
        rows = len(coded.contexts)
        self._weight = np.bincount(coded.context[coded.context >= 0], coded.weights[coded.context >= 0], rows)
        total = float(coded.weights.sum())
        self.share = np.array([1.0 - self._weight.sum() / total, *(self._weight / total)]) if rows else np.ones(1)
        self._at = _positions(coded.ladders)

    def __call__(self, column: Floats, sources: Sequence[int]) -> Floats:
        """E[column · 1{o}] over the first readings of ``sources``, [rows, *outcomes]."""
        coded = self._coded
        sizes = [coded.ladders[s].rungs[_reading_depth(coded.ladders[s])].size for s in sources]
        cells = np.zeros(len(coded), dtype=np.int64)
        for source, size in zip(sources, sizes, strict=True):
            cells = cells * size + coded.codes[self._at[source]]
        leaves = int(np.prod(sizes, dtype=np.int64))
        values = coded.weights * column
        if not coded.contexts:
            own = np.bincount(cells, values, leaves)
            return np.asarray(own / coded.weights.sum()).reshape(1, *sizes)
        every = np.bincount((coded.context + 1) * leaves + cells, values, leaves * (1 + len(coded.contexts)))
        by_row = every.reshape(-1, leaves)
        pooled = by_row.sum(axis=0) / coded.weights.sum()
        shrunk = (by_row[1:] + self._kappa * pooled) / np.maximum(self._weight + self._kappa, 1e-300)[:, None]
        return np.vstack([pooled, shrunk]).reshape(-1, *sizes)

    def quality(self, source: int, depth: int, sources: Sequence[int]) -> Floats:
        return self(self._coded.answer(source, depth), sources)

    def price(self, source: int, depth: int, sources: Sequence[int]) -> Floats:
        return self(self._coded.price[source][depth], sources)


class _Tabled:
    """Sums of a joint table's leaves."""

    def __init__(self, table: JointTable) -> None:
        self._table = table
        self.contexts = table.contexts
        self.share = np.asarray(table.share)
        self._at = _positions(table.ladders)

    def __call__(self, array: Floats, sources: Sequence[int]) -> Floats:
        kept = {self._at[s] + 1 for s in sources}
        return np.asarray(array.sum(axis=tuple(axis for axis in range(1, array.ndim) if axis not in kept)))

    def quality(self, source: int, depth: int, sources: Sequence[int]) -> Floats:
        answers = self._table.answers
        return self(answers[in_hand(answers, source, depth)], sources)

    def price(self, source: int, depth: int, sources: Sequence[int]) -> Floats:
        price = self._table.price[source][depth]
        return price * self(self._table.mass, sources) if isinstance(price, float) else self(price, sources)


def _reading_depth(ladder: Ladder) -> int:
    """The rung that yields a tier's first reading; the call where there is none."""
    return next((depth for depth, rung in enumerate(ladder.rungs) if rung.reading is not None), 0)


def _cuts(ladder: Ladder) -> tuple[float, ...]:
    return ladder.rungs[_reading_depth(ladder)].cuts


def _positions(ladders: Sequence[Ladder]) -> list[int]:
    """Where the rung with each ladder's first reading stands among all rungs."""
    starts = np.cumsum([0, *(len(ladder.rungs) for ladder in ladders)])
    return [int(start) + _reading_depth(ladder) for start, ladder in zip(starts, ladders, strict=False)]


# ---------------------------------------------------------------------------------------------------- every chain


@dataclass(slots=True)
class _Grown:
    """All chains over a list of tiers that are read, by their cuts: what they spent and kept so far."""

    cost: Floats  # [rows, *cuts]
    quality: Floats  # [rows, *cuts]


class Chains:
    """Every chain, with what it costs and earns in each context row; ``solve`` as a lattice does.

    Attributes:
        contexts: the rows' names, after the pooled one.
        share: of traffic, a row.
        cheapest: the least that any chain costs.
    """

    @classmethod
    def of_table(cls, table: JointTable) -> Chains:
        """The chains of a joint table, on the first reading of each tier."""
        return cls(table.ladders, _Tabled(table))

    def __init__(self, ladders: tuple[Ladder, ...], marginal: _Counted | _Tabled) -> None:
        self.ladders, self.contexts, self.share = ladders, marginal.contexts, marginal.share
        self._marginal = marginal
        grown: dict[tuple[int, ...], _Grown] = {(): _Grown(np.zeros(len(self.share)), np.zeros(len(self.share)))}
        self._lists: list[tuple[int, ...]] = []
        self._shapes: list[tuple[int, ...]] = []
        costs, qualities = [], []
        for tiers in _tier_lists(sum(ladder.answer for ladder in ladders)):  # signals come after them
            before = grown.get(tiers[:-1])
            if before is None:
                continue
            if _cuts(ladders[tiers[-1]]):
                grown[tiers] = self._grow(before, tiers)
            last = self._stop(before, tiers)
            self._lists.append(tiers)
            self._shapes.append(last.cost.shape[1:])
            costs.append(last.cost.reshape(len(self.share), -1))
            qualities.append(last.quality.reshape(len(self.share), -1))
        self._starts = np.cumsum([0, *(cost.shape[1] for cost in costs)])
        self._cost, self._quality = np.hstack(costs), np.hstack(qualities)  # each [rows, chains]
        self._least = self._cost.min(axis=1)
        self.cheapest = float(self.share @ self._least)

    @property
    def dearest_price(self) -> float:
        """A price at which the cheapest chain is best."""
        more = self._cost - self._least[:, None]
        dearer = np.where(more > 1e-9 * self._least[:, None], more, np.inf).min(axis=1)
        return float(2.0 / min(dearer.min(), 1.0))

    @property
    def everything(self) -> float:
        """The most that any chain costs."""
        return float(self.share @ self._cost.max(axis=1))

    def solve(self, price: float) -> ChainPlan:
        """The chain of each row with the most quality - ``price`` x cost."""
        best = (self._quality - price * self._cost).argmax(axis=1)
        rows = np.arange(len(best))
        return ChainPlan(
            price,
            float(self.share @ self._quality[rows, best]),
            float(self.share @ self._cost[rows, best]),
            tuple(best.tolist()),
        )

    def best_of_each_list(self, prices: Floats) -> Iterator[tuple[tuple[int, ...], Floats]]:
        """Lists of tiers, each with the most quality - price x cost of its chains, [prices, rows]."""
        for tiers, start, end in zip(self._lists, self._starts, self._starts[1:], strict=False):
            cost, quality = self._cost[:, start:end], self._quality[:, start:end]
            yield tiers, np.stack([(quality - price * cost).max(axis=1) for price in prices])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, at: int) -> Chain:
        which = int(np.searchsorted(self._starts, at, side="right")) - 1
        tiers = self._lists[which]
        place = np.unravel_index(at - self._starts[which], self._shapes[which]) if self._shapes[which] else ()
        cuts = tuple(_cuts(self.ladders[t])[int(c)] for t, c in zip(tiers, place, strict=False))
        return Chain(tiers, cuts)

    def _grow(self, before: _Grown, tiers: tuple[int, ...]) -> _Grown:
        """One more tier called and read, its answer kept from each of its cuts on."""
        *read, tier = tiers
        rungs = _reading_depth(self.ladders[tier]) + 1
        quality = self._marginal.quality(tier, rungs, tiers)
        kept = _going(quality.sum(axis=-1), read)[..., None] - _going(quality, tiers)
        spent = before.cost
        for depth in range(rungs):
            spent = spent + _going(self._marginal.price(tier, depth, read), read)
        spent, earned = np.broadcast_to(spent[..., None], kept.shape), before.quality[..., None] + kept
        return _Grown(spent, earned)

    def _stop(self, before: _Grown, tiers: tuple[int, ...]) -> _Grown:
        """A last tier, called and not read."""
        *read, tier = tiers
        cost = before.cost + _going(self._marginal.price(tier, 0, read), read)
        return _Grown(cost, before.quality + _going(self._marginal.quality(tier, 1, read), read))


def _going(array: Floats, read: Sequence[int]) -> Floats:
    """Sums over the readings with which a chain goes on, [rows, *cuts] from [rows, *outcomes, ...]: those below each
    cut, and the missing one."""
    for axis in range(1, 1 + len(read)):
        below = np.cumsum(array, axis=axis)
        bins, missing = array.shape[axis] - 1, np.take(array, [-1], axis=axis)
        array = np.take(below, range(bins - 1), axis=axis) + missing
    return array


# --------------------------------------------------------------------------------------------------------- export


def chain_policy(log: ReplayLog, chains: Chains, plans: Sequence[ChainPlan]) -> Policy:
    """The policy whose vertices are these plans, at the costs and qualities that they expect."""
    nodes: list[Node] = []
    start: dict[int, int] = {}
    vertices = []
    for plan in plans:
        for at in plan.chains:
            if at not in start:
                start[at] = len(nodes)
                nodes += _chain_nodes(chains.ladders, chains[at], len(nodes))
        roots = [start[at] for at in plan.chains]
        by_context = dict(zip(chains.contexts, roots[1:], strict=True))
        vertices.append(Vertex(plan.price, plan.cost, plan.quality, roots[0], by_context))
    salt = salt_of(nodes, [(v.root, *v.context_roots.items()) for v in vertices])
    return Policy(tiers_of(log, chains.ladders), tuple(nodes), tuple(vertices), OperatingPoint(0, 0, 0.0), salt)


def _chain_nodes(ladders: Sequence[Ladder], chain: Chain, start: int) -> list[Node]:
    steps = []
    for tier, cut in zip(chain.tiers[:-1], chain.cuts, strict=True):
        reading = ladders[tier].rungs[_reading_depth(ladders[tier])].reading
        assert reading is not None, "a tier that is not the last is read"
        steps.append((ladders[tier].source, reading, (0.0, cut)))
    return chain_nodes(steps, ladders[chain.tiers[-1]].source, start)


def chain_nodes(steps: Sequence[tuple[str, str, tuple[float, float]]], last: str, start: int) -> list[Node]:
    """The graph of a chain from node ``start`` on: three nodes a tier (call, read, accept), two for the last.

    Args:
        steps: the tiers that are read, in order: name, reading, and the window [low, high) of readings in which a
            query goes on; it does so too where the reading is missing.
        last: the tier that is not read.
        start: the place of the first node in its table.
    """
    nodes: list[Node] = []
    for name, reading, (low, high) in steps:
        at = start + len(nodes)
        accept, on = at + 2, at + 3
        parts = [(0.0, accept)] * (low > 0.0) + [(low, on)] * (low < high) + [(high, accept)] * (high < math.inf)
        cuts, then = tuple(cut for cut, _ in parts[1:]), tuple(node for _, node in parts)
        nodes += [Ask(name, at + 1), Read(name, reading, cuts, then, on), Stop(Accept(name))]
    return [*nodes, Ask(last, start + len(nodes) + 1), Stop(Accept(last))]
