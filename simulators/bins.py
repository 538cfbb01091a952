"""Bins of a number: quantiles of the log that never divide a tie, cut on the raw scale."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["balanced_cuts", "balanced_cuts_of", "cut_between", "nearest_edges"]

Floats = NDArray[np.float64]

CANDIDATES = 256  # places considered for a cut; finer than any sensible number of bins


def balanced_cuts(
    numbers: Floats, weights: Floats, bins: int, edges: tuple[float, ...] | None = None
) -> tuple[float, ...]:
    """At most ``bins - 1`` rising cuts that make the sum of squared bin shares least.

    Without ties these are the quantiles; a value that holds more than its share of the log gets a bin of its own,
    and what it does not need goes to the others.  Each cut is a short decimal number well between the two
    values around it.  Missing numbers (NaN) are left out.

    Args:
        numbers: [n], finite or NaN: a confidence, or what is known of a query before any call.
        weights: [n], how many queries each row stands for.
        bins: the most bins that are wanted, >= 1.
        edges: the only places for a cut, rising, where the numbers stand for what lies between them (a counted log).
    """
    seen = ~np.isnan(numbers)
    values, member = np.unique(numbers[seen], return_inverse=True)
    return balanced_cuts_of(values, values, np.bincount(member, weights[seen]).astype(np.float64), bins, edges)


def balanced_cuts_of(
    low: Floats, high: Floats, weights: Floats, bins: int, edges: tuple[float, ...] | None = None
) -> tuple[float, ...]:
    """The cuts of numbers in [m] rising intervals from ``low`` to ``high``, none of which is divided."""
    if len(low) < 2 or bins < 2:
        return ()
    edge: Floats = np.cumsum(weights, dtype=np.float64)  # weight up to and with each interval
    ends = _candidates(edge)
    chosen = _least_squares(edge[ends] / edge[-1], min(bins, len(ends)))
    return tuple(cut_between(float(high[ends[c]]), float(low[ends[c] + 1]), edges) for c in chosen)


def _candidates(edge: Floats) -> NDArray[np.int64]:
    """Positions of the values that may end a bin, the last one among them; all of them, or some evenly spread.

    Both sides of every heavy value are kept.
    """
    if len(edge) <= CANDIDATES:
        return np.arange(len(edge))
    even = np.searchsorted(edge, np.linspace(0, edge[-1], CANDIDATES + 1)[1:-1])
    return np.unique(np.clip(np.concatenate([even - 1, even, [len(edge) - 1]]), 0, None))


def _least_squares(share: Floats, bins: int) -> list[int]:
    """The ``bins - 1`` inner ends, of those with cumulative shares ``share`` [m], that make the sum of squared bin
    shares least: dynamic programming over the last bin, O(bins x m^2)."""
    start = np.concatenate([[0.0], share[:-1]])
    last = (share[None, :] - start[:, None]) ** 2  # [first value, last value] of a bin
    last[np.tril_indices(len(share), -1)] = np.inf
    best = last[0]
    choices = []
    places = np.arange(len(share))
    for _ in range(bins - 1):
        before = np.concatenate([[np.inf], best[:-1]])[:, None] + last
        choices.append(before.argmin(axis=0))
        best = before[choices[-1], places]
    ends, at = [], len(share) - 1
    for choice in reversed(choices):
        at = int(choice[at]) - 1
        ends.append(at)
    return ends[::-1]


def cut_between(low: float, high: float, edges: tuple[float, ...] | None = None) -> float:
    """A cut between two neighbouring values: a short decimal number or, where there are ``edges``, one of those that
    lie above ``low`` and not above ``high``, the middle one.

    Example:
        >>> cut_between(0.2, 0.6), cut_between(0.2, 0.6, (0.1, 0.31, 0.7))
        (0.4, 0.31)
    """
    if edges is None:
        return shortest_between(low, high)
    first, last = bisect_right(edges, low), bisect_right(edges, high)
    return edges[(first + last - 1) // 2]


def nearest_edges(cuts: Iterable[float], edges: tuple[float, ...]) -> tuple[float, ...]:
    """The edges that lie nearest to some cuts, each once.

    Example:
        >>> nearest_edges((0.2, 0.3, 0.8), (0.1, 0.25, 0.7))
        (0.25, 0.7)
    """
    return tuple(sorted({min(edges, key=lambda edge: abs(edge - cut)) for cut in cuts})) if edges else ()


def shortest_between(low: float, high: float) -> float:
    """The decimal number with the fewest digits in the middle half of the gap between two values.

    Away from both, so that a confidence that went through single precision stays on its side.

    Example:
        >>> shortest_between(0.7312, 0.7694)
        0.75
        >>> shortest_between(0.99991, 1.0)
        0.99995
        >>> shortest_between(431.0, 1213.0)
        1000.0
    """
    middle, reach = low / 2 + high / 2, max(high / 4 - low / 4, sys.float_info.min)
    coarsest = min(math.ceil(math.log10(reach)) + 1, 300)  # a power of ten; rounding to 10^308 overflows
    for digits in range(-coarsest, 17):
        rounded = round(middle, digits)
        if abs(rounded - middle) <= reach and low < rounded <= high:
            return rounded + 0.0  # no negative zero
    return high
