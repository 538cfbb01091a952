"""Chains with windows: tiers in any order, each with the readings between which a query goes on to the next.

A chain of one cut a tier goes on below it; one of two cuts goes on between them only, and keeps an answer that is
hopeless as well as one that is good enough.  Nothing is estimated: what a chain costs and earns is a sum over the
log's own rows, so the figures are better than new queries will show, and the better the more chains were tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.chain import chain_nodes, first_readings, with_row_beliefs
from metaverify.fitting.coding import code_log
from metaverify.fitting.export import salt_of, tiers_of
from metaverify.fitting.frontier import complete_near, concave_hull, trace_frontier
from metaverify.policies.graph import Node
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.simulators.bins import cut_between
from metaverify.simulators.log import ReplayLog

__all__ = ["ChainLog", "TierRows", "Valued", "Window", "WindowChain", "policy_of_chains"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Window = tuple[float, float]
"""Readings low <= confidence < high go on, and so does a missing one; low 0 is one cut, high infinite has no upper."""

SHOWN = 16  # bins of the histograms in a policy


@dataclass(frozen=True, slots=True)
class WindowChain:
    """Tiers in the order in which they are called; all but the last are read, and answer outside their window."""

    tiers: tuple[str, ...]
    windows: tuple[Window, ...] = ()  # one fewer


@dataclass(frozen=True, slots=True)
class Valued:
    """A chain, and what it costs and earns a query; ``price``, in quality per unit cost, is one at which it is best."""

    chain: WindowChain
    cost: float
    quality: float
    price: float = 0.0


@dataclass(frozen=True, eq=False)
class TierRows:
    """One tier of a log as a chain sees it: called last, or called and read; each [n]."""

    name: str
    call: Floats  # price
    answer: Floats  # quality
    read_price: Floats  # of the call and the reading
    read_answer: Floats  # quality once it was read
    confidence: Floats  # NaN where missing
    edges: tuple[float, ...] | None  # the only places for a cut; None for anywhere

    @cached_property
    def values(self) -> Floats:
        """The distinct readings, rising."""
        return np.unique(self.confidence[~np.isnan(self.confidence)])

    @property
    def readable(self) -> bool:
        """Whether its readings tell queries apart."""
        return len(self.values) > 1

    def edge(self, place: int) -> float:
        """A short number between the readings before ``place`` and those from there on."""
        if place == 0:
            return 0.0
        return math.inf if place == len(self.values) else self._between(place)

    def _between(self, place: int) -> float:
        low, high = self.values[place - 1 : place + 1].tolist()
        return cut_between(low, high, self.edges)

    def place(self, edge: float) -> int:
        """How many of the distinct readings lie below an edge."""
        return int(np.searchsorted(self.values, edge))


class ChainLog:
    """A log as chains see it: the first reading of every tier, contexts pooled.

    Attributes:
        tiers: by name, in order of price.
        share: [n], of the queries that a row stands for.
    """

    def __init__(self, log: ReplayLog) -> None:
        self.share = log.weights / log.weights.sum()
        coded = code_log(log, first_readings(log, 1))
        self.tiers: dict[str, TierRows] = {}
        for at, tier in enumerate(log.tiers):
            rungs = len(coded.ladders[at].rungs)
            first = tier.readings[0] if tier.readings else None
            price = coded.price[at]
            self.tiers[tier.name] = TierRows(
                tier.name,
                price[0],
                coded.answer(at, 1),
                sum(price[1:], price[0]),
                coded.answer(at, rungs),
                np.full(len(log), np.nan) if first is None else first.confidence,
                None if first is None else first.edges,
            )

    def value(self, chain: WindowChain) -> Valued:
        """What a chain costs and earns on the log's rows: one pass a tier, over the rows that come to it."""
        going, share = np.arange(len(self.share)), self.share
        cost = quality = 0.0
        for name, (low, high) in zip(chain.tiers, chain.windows, strict=False):
            tier = self.tiers[name]
            confidence = tier.confidence[going]
            on = np.isnan(confidence) | ((confidence >= low) & (confidence < high))
            cost += _sum(share, tier.read_price[going])
            quality += _sum(share[~on], tier.read_answer[going[~on]])
            going, share = going[on], share[on]
        last = self.tiers[chain.tiers[-1]]
        cost += _sum(share, last.call[going])
        return Valued(chain, cost, quality + _sum(share, last.answer[going]))


def _sum(share: Floats, values: Floats) -> float:
    return float(np.einsum("i,i->", share, values))  # on one core, and the same everywhere


# --------------------------------------------------------------------------------------------------------- export


class _Choice:
    """Chains to choose from by price, as a lattice is solved."""

    def __init__(self, chains: Sequence[Valued]) -> None:
        self._hull = concave_hull(chains)
        self._cost = np.array([chain.cost for chain in self._hull])
        self._quality = np.array([chain.quality for chain in self._hull])
        self.cheapest, self.everything = float(self._cost[0]), float(self._cost[-1])

    @property
    def dearest_price(self) -> float:
        slopes = np.diff(self._quality) / np.diff(self._cost)
        return 2.0 * float(slopes.max(initial=0.5))

    def solve(self, price: float) -> Valued:
        return replace(self._hull[int((self._quality - price * self._cost).argmax())], price=price)


def policy_of_chains(
    log: ReplayLog, chains: Sequence[Valued], *, gap: float = 1e-3, near: float | None = None
) -> Policy:
    """The policy whose vertices are the best of these chains; no mixture of any lies more than ``gap`` above them.

    Around the cost ``near`` it is complete, and has the beliefs that the log's own rows give.
    """
    choice = _Choice(chains)
    frontier = trace_frontier(choice, gap=gap)
    if near is not None:
        frontier = complete_near(choice, frontier, near)
    readings = {tier.name: tier.readings[0].name for tier in log.tiers if tier.readings}
    nodes: list[Node] = []
    vertices = []
    for plan in frontier.plans:
        vertices.append(Vertex(plan.price, plan.cost, plan.quality, len(nodes)))
        *read, last = plan.chain.tiers
        steps = [(tier, readings[tier], window) for tier, window in zip(read, plan.chain.windows, strict=True)]
        nodes += chain_nodes(steps, last, len(nodes))
    policy = Policy(
        tiers_of(log, first_readings(log, SHOWN)),
        tuple(nodes),
        tuple(vertices),
        OperatingPoint(0, 0, 0.0),
        salt_of(nodes, [vertex.root for vertex in vertices]),
    )
    return policy if near is None else with_row_beliefs(policy, log)
