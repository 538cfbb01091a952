"""Reference points that read nothing: the no-information hull of the fixed tiers, and the oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.simulators.log import ReplayLog

__all__ = ["Hull", "HullPoint", "fixed_tiers", "no_information_hull", "oracle"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HullPoint:
    """A fixed tier, or abstention (no tier): its mean cost and mean quality on a log."""

    tier: str | None
    cost: float
    quality: float


@dataclass(frozen=True, slots=True)
class Hull:
    """The best that can be done by mixing fixed tiers at random, reading nothing: points by cost, slopes falling."""

    points: tuple[HullPoint, ...]

    def between(self, cost: float) -> tuple[HullPoint, HullPoint, float]:
        """The two points around ``cost`` and the share of the dearer one; an end twice where ``cost`` is outside."""
        costs = [point.cost for point in self.points]
        high = int(np.searchsorted(costs, cost, side="right"))
        if high in (0, len(costs)):
            end = self.points[min(high, len(costs) - 1)]
            return end, end, 0.0
        low, up = self.points[high - 1], self.points[high]
        return low, up, (cost - low.cost) / (up.cost - low.cost)

    def quality(self, cost: float) -> float:
        """Quality of the mixture that costs ``cost``."""
        low, high, share = self.between(cost)
        return (1 - share) * low.quality + share * high.quality


def fixed_tiers(log: ReplayLog) -> tuple[HullPoint, ...]:
    """Each tier, always called and never read, in the log's order."""
    return tuple(HullPoint(tier.name, log.mean(tier.cost), log.mean(tier.correct)) for tier in log.tiers)


def no_information_hull(log: ReplayLog, *, abstain: float | None = None) -> Hull:
    """The upper concave hull of the fixed tiers, and of handing over (at no cost) where that is worth ``abstain``."""
    points = list(fixed_tiers(log))
    if abstain is not None:
        points.append(HullPoint(None, 0.0, abstain))
    hull: list[HullPoint] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if hull and point.quality <= hull[-1].quality:
            continue
        while len(hull) > 1 and _turns_up(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return Hull(tuple(hull))


def _turns_up(first: HullPoint, middle: HullPoint, last: HullPoint) -> bool:
    rise = (middle.quality - first.quality) * (last.cost - middle.cost)
    return rise <= (last.quality - middle.quality) * (middle.cost - first.cost)


def oracle(log: ReplayLog) -> HullPoint:
    """The cheapest tier with the best answer of each query: what perfect knowledge would cost and earn."""
    correct = np.stack([tier.correct for tier in log.tiers])  # [tiers, n]
    cost = np.stack([tier.cost for tier in log.tiers])
    best = correct.max(axis=0)
    cheapest = np.where(correct == best, cost, np.inf).min(axis=0)
    return HullPoint(None, log.mean(cheapest), log.mean(best))
