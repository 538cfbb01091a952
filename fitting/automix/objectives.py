"""Which candidates of a family become the vertices of a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from metaverify.fitting.frontier import P, concave_hull

__all__ = ["Envelope", "LargestIBC", "Objective", "price_of"]


ROUNDING = 1e-9
"""Costs nearer than this share of them are one."""


class Objective(Protocol):
    """A choice among ways of routing by what they cost and earn on the log."""

    def choose(self, fixed: Sequence[P], routed: Sequence[P]) -> tuple[P, ...]:
        """Vertices, costs and qualities rising, from the ``fixed`` tiers, cheapest first, and what is ``routed``."""
        ...


@dataclass(frozen=True, slots=True)
class Envelope:
    """The most quality under any budget: the concave hull of all candidates and the fixed tiers, mixtures allowed."""

    def choose(self, fixed: Sequence[P], routed: Sequence[P]) -> tuple[P, ...]:
        """The vertices of the hull."""
        return concave_hull([*fixed, *routed])


@dataclass(frozen=True, slots=True)
class LargestIBC:
    """AutoMix's own objective: the largest incremental benefit per cost in each of some regions of cost.

    IBC = (quality - that of the cheapest tier) / (cost - that of the cheapest tier).  The lift that the paper reports
    is (IBC - IBC of the dearest tier) / IBC of the dearest tier, which orders candidates likewise where that is
    positive; where it is not, it orders them the other way round, and the slope itself is what is meant.  A candidate
    that spends nothing more has none.

    Money beyond the last vertex stays unspent.

    Args:
        regions: of equal cost; None has one for two tiers, as the package, and 5 for more, as the paper.
        within: the cheapest and the dearest mean cost that is allowed; None allows any where there is one region, and
            otherwise those from the cheapest tier's to the dearest one's.
    """

    regions: int | None = None
    within: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.regions is not None and self.regions < 1:
            raise ValueError(f"regions is {self.regions}; give at least 1")
        if self.within is not None and not self.within[0] <= self.within[1]:
            raise ValueError(f"within is {self.within}; give the lesser cost first")

    def choose(self, fixed: Sequence[P], routed: Sequence[P]) -> tuple[P, ...]:
        """The cheapest tier, and the best candidate of each region where it earns more than all before it.

        Raises:
            ValueError: no candidate's cost is within the limits that were given.
        """
        cheapest = min(fixed, key=lambda tier: tier.cost)
        chosen = [cheapest]
        spending = [each for each in routed if each.cost > cheapest.cost * (1 + ROUNDING)]
        if self.within is not None and not any(self.within[0] <= each.cost <= self.within[1] for each in spending):
            costs = [each.cost for each in spending]
            there = f"they cost from {min(costs):.6g} to {max(costs):.6g}" if costs else "there are none"
            raise ValueError(f"no rule costs from {self.within[0]:g} to {self.within[1]:g} a query; {there}")
        for low, high in pairwise(self._edges(fixed)):
            inside = [each for each in spending if low <= each.cost <= high]
            best = max(inside, key=lambda each: _slope(cheapest, each), default=cheapest)
            if best.quality > chosen[-1].quality and best.cost > chosen[-1].cost:
                chosen.append(best)
        return tuple(chosen)

    def _edges(self, fixed: Sequence[P]) -> list[float]:
        regions = self.regions or (1 if len(fixed) <= 2 else 5)
        costs = [tier.cost for tier in fixed]
        low, high = self.within or ((-np.inf, np.inf) if regions == 1 else (min(costs), max(costs)))
        return [low, high] if regions == 1 else np.linspace(low, high, regions + 1).tolist()


def _slope(low: P, high: P) -> float:
    return (high.quality - low.quality) / (high.cost - low.cost)


def price_of(taken: Sequence[P], at: int) -> float:
    """The price at which a vertex is as good as the one before it; the first one, as the one after it."""
    if len(taken) == 1:
        return 0.0
    return _slope(taken[max(at - 1, 0)], taken[max(at, 1)])
