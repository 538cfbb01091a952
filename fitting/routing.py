"""Open-loop routing: whatever is worth its price, were all of it paid for whatever comes out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.lattice import ABSTAIN, TIE, Depths, Lattice, Plan, deeper, legal_climbs, reachable_depths
from metaverify.fitting.planner import follow

__all__ = ["OpenLoop"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Option:
    """More rungs, all climbed whatever comes out."""

    first: int  # the source of the first of them
    quality: Floats  # [states], E[best answer then in hand · 1{x}]
    cost: Floats  # [states], E[price of all of them · 1{x}]


class OpenLoop:
    """Open-loop feedback control of a lattice: in every state the set of further answers and readings is found with
    the most quality of the best answer then in hand, less price x cost, as though nothing could be decided on the way;
    the first of the set is bought, in the order of the ladders, and then the choice is made anew.

    Args:
        lattice: what is known; its votes are had all at once.
    """

    def __init__(self, lattice: Lattice) -> None:
        self._lattice = lattice
        self._ladders = lattice.table.ladders
        self._slabs = reachable_depths(self._ladders)
        self._options: dict[Depths, list[_Option]] = {}

    def solve(self, price: float) -> Plan:
        """What it does at a price, in quality per unit cost; what that costs and earns is exact."""
        return follow(self._lattice, partial(self._decide, price), price)

    def _decide(self, price: float, depths: Depths, states: Ints) -> tuple[Ints, Ints]:
        best, answer = self._lattice.stop(depths, states)
        margin = TIE * self._lattice.mass(depths, states)
        climb = np.full(len(states), -1)
        for option in self._from(depths):
            worth = option.quality[states] - price * option.cost[states]
            better = worth > best + margin
            best, climb = np.where(better, worth, best), np.where(better, option.first, climb)
        return climb, np.where(climb < 0, answer, ABSTAIN)

    def _from(self, depths: Depths) -> list[_Option]:
        if depths not in self._options:
            further = [
                to for to in self._slabs if to != depths and all(a >= b for a, b in zip(to, depths, strict=True))
            ]
            self._options[depths] = [self._option(depths, to) for to in further]
        return self._options[depths]

    def _option(self, depths: Depths, to: Depths) -> _Option:
        first = next(source for source in legal_climbs(self._ladders, depths) if to[source] > depths[source])
        stop, _ = self._lattice.stop(to, np.arange(self._lattice.size(to)))
        cost, at = np.zeros(self._lattice.size(depths)), depths
        while at != to:
            source = next(s for s in legal_climbs(self._ladders, at) if to[s] > at[s])
            charge = self._lattice.charge(at, source, np.arange(self._lattice.size(at)))
            cost, at = cost + self._summed(charge, at, depths), deeper(at, source)
        return _Option(first, self._summed(stop, to, depths), cost)

    def _summed(self, values: Floats, above: Depths, below: Depths) -> Floats:
        """Values in the states of a slab, summed to those of one in which fewer rungs are climbed."""
        shape = [len(self._lattice.share)]
        for ladder, high, low in zip(self._ladders, above, below, strict=True):
            shape += [ladder.states(low), ladder.states(high) // ladder.states(low)]
        return np.asarray(values.reshape(shape).sum(axis=tuple(range(2, len(shape), 2))).reshape(-1))
