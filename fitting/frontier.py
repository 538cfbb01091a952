"""The frontier: the concave curve of policies that nobody beats, from the cheapest to the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import numpy as np

__all__ = [
    "Frontier",
    "InfeasibleBudgetError",
    "Mixture",
    "Solved",
    "Solver",
    "complete_near",
    "concave_hull",
    "mixture_at",
    "sample_frontier",
    "trace_frontier",
]


SAME = 1e-10
"""Qualities nearer than this are one."""


class Solved(Protocol):
    """What is best at one price."""

    @property
    def quality(self) -> float:
        """Expected quality."""
        ...

    @property
    def cost(self) -> float:
        """Expected cost."""
        ...


P = TypeVar("P", bound=Solved)
P_co = TypeVar("P_co", bound=Solved, covariant=True)


class Solver(Protocol[P_co]):
    """A class of policies in which the best one can be found at any price."""

    @property
    def cheapest(self) -> float:
        """The least that any of them costs."""
        ...

    @property
    def everything(self) -> float:
        """No less than any of them costs."""
        ...

    @property
    def dearest_price(self) -> float:
        """A price at which a cheapest one is best, or nearly."""
        ...

    def solve(self, price: float) -> P_co:
        """The one with the most quality - ``price`` x cost."""
        ...


class InfeasibleBudgetError(ValueError):
    """The budget is below what the cheapest policy costs."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """Two vertices of a frontier and the share of queries that takes the dearer one."""

    low: int
    high: int
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Frontier(Generic[P]):
    """Vertices in order of cost; both cost and quality rise, and the slope falls."""

    plans: tuple[P, ...]

    @property
    def costs(self) -> tuple[float, ...]:
        """Expected cost of each vertex."""
        return tuple(plan.cost for plan in self.plans)

    @property
    def qualities(self) -> tuple[float, ...]:
        """Expected quality of each vertex."""
        return tuple(plan.quality for plan in self.plans)

    def at(self, budget: float) -> Mixture:
        """The mixture of two adjacent vertices that spends ``budget``, or the best vertex where that costs less.

        A mixture of two deterministic policies is optimal under one expected-cost constraint (Altman 1999, ch. 4).

        Raises:
            InfeasibleBudgetError: with the cost of the cheapest policy.
        """
        costs = self.costs
        if not budget >= costs[0] * (1 - 1e-9):
            raise InfeasibleBudgetError(f"budget {budget:g} is below {costs[0]:.6g}, the cost of the cheapest policy")
        return mixture_at(costs, budget)

    def quality(self, budget: float) -> float:
        """Expected quality of the mixture at ``budget``."""
        mix = self.at(budget)
        return (1 - mix.share) * self.plans[mix.low].quality + mix.share * self.plans[mix.high].quality


def mixture_at(costs: tuple[float, ...], budget: float) -> Mixture:
    """The adjacent pair of ascending ``costs`` around ``budget``, clipped to the ends."""
    high = int(np.searchsorted(costs, budget, side="right"))
    if high == 0 or high == len(costs):
        end = min(high, len(costs) - 1)
        return Mixture(end, end, 0.0)
    low = high - 1
    return Mixture(low, high, (budget - costs[low]) / (costs[high] - costs[low]))


def trace_frontier(solver: Solver[P], *, gap: float = 1e-3) -> Frontier[P]:
    """The frontier, complete but for ``gap``: no policy lies more than that, in quality, above it.

    Solves at the slope of the chord between two known vertices; whatever comes out above the chord is a new vertex
    between them (Eisner & Severance 1976).  Grows with the number of vertices found, twice that many solutions.
    """
    first, last = _cheapest(solver), _best(solver)
    return Frontier(concave_hull([first, *_between(solver, first, last, gap), last]))


def sample_frontier(solve: Callable[[float], P], first: float, last: float, count: int) -> Frontier[P]:
    """The hull of what is found at ``count`` prices or fewer: the two ends, then ever the slope of the span that rises
    most.  For what is not the best there is at its price, where `trace_frontier` might never end."""
    plans, tried = [solve(first)], {first}
    while len(plans) < count:
        hull = concave_hull(plans)
        spans = [(b.quality - a.quality, (b.quality - a.quality) / (b.cost - a.cost)) for a, b in pairwise(hull)]
        spans = [(rise, slope) for rise, slope in spans if slope not in tried]
        if len(plans) > 1 and not spans:
            break
        price = max(spans)[1] if len(plans) > 1 else last
        tried.add(price)
        plans.append(solve(price))
    return Frontier(concave_hull(plans))


def _cheapest(solver: Solver[P]) -> P:
    """The best of the policies that cost least: the solution at a price that only they can pay."""
    price = solver.dearest_price
    plan = solver.solve(price)
    while plan.cost > solver.cheapest * (1 + 1e-9) + 1e-300 and price < 1e30:
        price *= 16.0
        plan = solver.solve(price)
    return plan


def _best(solver: Solver[P]) -> P:
    """The cheapest of the best policies: the solution at the highest price at which nothing good is given up."""
    quality = solver.solve(0.0).quality
    price = 1e-2 / max(solver.everything, 1e-300)
    plan = solver.solve(price)
    while plan.quality < quality - SAME and price * solver.everything > SAME:
        price /= 10.0
        plan = solver.solve(price)
    return plan


def complete_near(solver: Solver[P], frontier: Frontier[P], cost: float) -> Frontier[P]:
    """The frontier with every vertex there is on both sides of ``cost``, so that its mixture there is the optimum."""
    plans = frontier.plans
    while True:
        mix = mixture_at(tuple(plan.cost for plan in plans), min(cost, plans[-1].cost * (1 - 1e-9)))
        if mix.low == mix.high:
            return Frontier(plans)
        left, right = plans[mix.low], plans[mix.high]
        middle = solver.solve((right.quality - left.quality) / (right.cost - left.cost))
        grown = concave_hull([*plans, middle])
        if _above(left, middle, right) <= 1e-12 or grown == plans:
            return Frontier(plans)
        plans = grown


def _between(solver: Solver[P], low: P, high: P, gap: float) -> list[P]:
    """Vertices strictly between two, in order; a stack stands in for recursion."""
    found: list[P] = []
    spans = [(low, high)]
    while spans:
        left, right = spans.pop()
        rise, run = right.quality - left.quality, right.cost - left.cost
        if rise <= gap or run <= 0:
            continue
        middle = solver.solve(rise / run)
        if left.cost < middle.cost < right.cost and _above(left, middle, right) > gap:
            found.append(middle)
            spans += [(left, middle), (middle, right)]
    return sorted(found, key=lambda plan: plan.cost)


def _above(left: Solved, middle: Solved, right: Solved) -> float:
    """How far, in quality, a plan lies above the chord between two others."""
    return middle.quality - left.quality - _slope(left, right) * (middle.cost - left.cost)


def concave_hull(plans: Sequence[P]) -> tuple[P, ...]:
    """The plans on the upper concave hull, costs and qualities both rising."""
    hull: list[P] = []
    for plan in sorted(plans, key=lambda p: (p.cost, -p.quality)):
        if hull and plan.quality <= hull[-1].quality + 1e-12:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], plan):
            hull.pop()
        hull.append(plan)
    return tuple(hull)


def _slope(left: Solved, right: Solved) -> float:
    run = right.cost - left.cost
    return (right.quality - left.quality) / run if run > 0 else np.inf
