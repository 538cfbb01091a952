"""Scores of curves of (cost, quality) points: gain over the hull, area, IBC, AIQ, APGR, in a sample and its resamples.

Every array begins with an axis of samples [S]: the sample itself, then each resample (see `resample`), so that a score
and its interval are one computation, and what a score is measured against (the hull, a slope between two tiers) varies
with the queries as the score does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Tiers", "aiq", "apgr", "area", "envelope", "gain", "ibc", "mean_over"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Tiers:
    """What each fixed tier costs and earns; ``cheapest`` and ``best`` are positions."""

    cost: Floats  # [S, tiers]
    quality: Floats  # [S, tiers]

    @property
    def cheapest(self) -> int:
        """The tier that costs least in the sample, the better one of equals."""
        return min(range(self.cost.shape[1]), key=lambda at: (self.cost[0, at], -self.quality[0, at]))

    @property
    def best(self) -> int:
        """The tier that earns most in the sample, the cheaper one of equals."""
        return max(range(self.cost.shape[1]), key=lambda at: (self.quality[0, at], -self.cost[0, at]))

    def hull(self, cost: Floats) -> Floats:
        """Quality of the no-information hull at each cost [S, Q], [S, Q]."""
        return envelope(self.cost, self.quality, cost)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What a method cost and earned at each budget."""

    cost: Floats  # [S, budgets]
    quality: Floats  # [S, budgets]

    def from_cheapest(self, tiers: Tiers) -> Curve:
        """The points by cost, after the cheapest tier alone, which is to be had without any method."""
        at = tiers.cheapest
        cost = np.concatenate([tiers.cost[:, [at]], self.cost], axis=1)
        quality = np.concatenate([tiers.quality[:, [at]], self.quality], axis=1)
        order = np.argsort(cost, axis=1, kind="stable")
        return Curve(np.take_along_axis(cost, order, axis=1), np.take_along_axis(quality, order, axis=1))


def envelope(cost: Floats, quality: Floats, at: Floats) -> Floats:
    """The most quality that mixing points at random earns for at most a cost, [S, Q].

    The non-decreasing upper concave hull; left of all points the quality of the cheapest.

    Args:
        cost: of the points, [S, P].
        quality: of the points, [S, P].
        at: where it is wanted, [S, Q].
    """
    at = np.maximum(at, cost.min(axis=1, keepdims=True))
    best = np.full(at.shape, -np.inf)
    for point in range(cost.shape[1]):
        reached = cost[:, [point]] <= at
        np.maximum(best, np.where(reached, quality[:, [point]], -np.inf), out=best)
    for one, other in combinations(range(cost.shape[1]), 2):
        low, run = np.minimum(cost[:, [one]], cost[:, [other]]), np.abs(cost[:, [other]] - cost[:, [one]])
        rise = (quality[:, [other]] - quality[:, [one]]) * np.where(cost[:, [other]] > cost[:, [one]], 1.0, -1.0)
        start = np.where(cost[:, [other]] > cost[:, [one]], quality[:, [one]], quality[:, [other]])
        between = (at > low) & (at < low + run)
        mixed = start + rise * np.where(between, at - low, 0.0) / np.where(run > 0.0, run, 1.0)
        np.maximum(best, np.where(between, mixed, -np.inf), out=best)
    return best


def mean_over(x: Floats, y: Floats, low: float, high: float) -> Floats:
    """The mean over [low, high] of what is linear between points (x [S, P] rising, y [S, P]) and flat beyond, [S]."""
    edge_x = np.concatenate([np.minimum(x[:, :1], low), x, np.maximum(x[:, -1:], high)], axis=1)
    edge_y = np.concatenate([y[:, :1], y, y[:, -1:]], axis=1)
    run, rise = np.diff(edge_x, axis=1), np.diff(edge_y, axis=1)
    start, end = (np.clip(edge_x[:, part], low, high) for part in (slice(None, -1), slice(1, None)))
    middle = (start + end) / 2 - edge_x[:, :-1]
    value = edge_y[:, :-1] + rise * np.where(run > 0.0, middle, 0.0) / np.where(run > 0.0, run, 1.0)
    return np.asarray(((end - start) * value).sum(axis=1) / (high - low))


def value_at(x: Floats, y: Floats, at: Floats) -> Floats:
    """What is linear between points (x [S, P] rising, y [S, P]) and flat beyond, at places [S, Q], [S, Q]."""
    after = np.minimum((x[:, None, :] <= at[:, :, None]).sum(axis=2), x.shape[1] - 1)
    before = np.maximum(after - 1, 0)
    (x0, y0), (x1, y1) = ((np.take_along_axis(x, i, axis=1), np.take_along_axis(y, i, axis=1)) for i in (before, after))
    run = np.where(x1 > x0, x1 - x0, 1.0)
    share = np.clip(np.where(x1 > x0, (at - x0) / run, 1.0), 0.0, 1.0)
    return np.asarray((1.0 - share) * y0 + share * y1)


def gain(curve: Curve, tiers: Tiers, cost: Floats) -> Floats:
    """Quality above the no-information hull at exactly each cost [Q], [S, Q].

    Each point's gain is what it earns above the hull at the cost that it really had.  The gain curve is linear between
    the points, in order of those costs, and begins at the cheapest tier alone, with none.  Beyond the dearest point a
    method stands still while the hull goes on: money that is left idle earns nothing.  So spending beyond a budget, or
    less, moves a method along its own curve and is neither a gain nor a loss in itself.
    """
    return _gain(curve.from_cheapest(tiers), tiers, np.broadcast_to(cost, (len(curve.cost), len(cost))))


def _gain(own: Curve, tiers: Tiers, at: Floats) -> Floats:
    """The gain at places [S, Q] of a curve that begins at the cheapest tier."""
    above = value_at(own.cost, own.quality - tiers.hull(own.cost), at)
    return np.where(at <= own.cost[:, -1:], above, own.quality[:, -1:] - tiers.hull(at))


def area(curve: Curve, tiers: Tiers, low: float, high: float) -> Floats:
    """The mean of the gain over costs in [low, high], [S]."""
    own = curve.from_cheapest(tiers)
    beyond = np.maximum(np.sort(tiers.cost, axis=1), own.cost[:, -1:])
    knots = np.concatenate([own.cost, beyond], axis=1)
    return mean_over(knots, _gain(own, tiers, knots), low, high)


def ibc(curve: Curve, tiers: Tiers, cost: float) -> tuple[Floats, Floats]:
    """Incremental benefit per cost: the slope from the cheapest tier to the curve at a cost, and to the hull, each [S].

    AutoMix (Madaan et al. 2024, section 4.1): IBC = (P - P_SLM) / (C - C_SLM), and the lift of a method is its IBC over
    that of the base, less 1.  With two tiers, the larger one better, the hull's slope is the paper's base
    (P_LLM - P_SLM) / (C_LLM - C_SLM); with more it is the best that any pair has to offer, the paper's recipe.
    """
    at = tiers.cheapest
    run = cost - tiers.cost[:, at]
    base = tiers.hull(np.full((len(run), 1), cost))[:, 0] - tiers.quality[:, at]
    return (base + gain(curve, tiers, np.array([cost]))[:, 0]) / run, base / run


def aiq(curve: Curve, tiers: Tiers, low: float, high: float) -> Floats:
    """Average improvement in quality: the mean over costs in [low, high] of the points' non-decreasing hull, [S].

    RouterBench (Hu et al. 2024, arXiv 2403.12031, section 3.3).  The cheapest tier is one of the points, so that the
    hull begins where the range does.
    """
    own = curve.from_cheapest(tiers)
    return mean_over(own.cost, envelope(own.cost, own.quality, own.cost), low, high)


def apgr(curve: Curve, tiers: Tiers) -> tuple[Floats, Floats]:
    """Average performance gap recovered, as (what is recovered, the gap), both [S]; the score is their ratio.

    RouteLLM (Ong et al. 2024, arXiv 2406.18665, section 3): PGR = (r - r_weak) / (r_strong - r_weak), in the mean over
    costs between the two models'.  Weak is the cheapest tier, strong the one with the best quality; cost stands for the
    paper's share of calls to the strong model, which is the same where prices are constant.
    """
    weak, strong = tiers.cheapest, tiers.best
    gap = tiers.quality[:, strong] - tiers.quality[:, weak]
    low, high = float(tiers.cost[0, weak]), float(tiers.cost[0, strong])
    if not high > low:
        return np.zeros(len(gap)), gap
    knots = np.sort(tiers.cost, axis=1)
    base = mean_over(knots, tiers.hull(knots), low, high)
    return base + area(curve, tiers, low, high) - tiers.quality[:, weak], gap
