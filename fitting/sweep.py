"""The exact sweep: every chain with windows on the log's own rows, every distinct reading a place for a cut.

What a chain spends and keeps after some tiers is a sum over readings within windows, so all the windows of one tier
are differences of a cumulative sum along one axis, and all the chains over one list of tiers a few arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.chain import longest_chain
from metaverify.fitting.frontier import concave_hull
from metaverify.fitting.windows import ChainLog, TierRows, Valued, Window, WindowChain

__all__ = ["coarse_sweep", "sweep", "sweep_size", "tier_lists"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GRIDS = (512, 256, 128, 64, 32, 16, 8, 4)  # places for a cut


def sweep_size(log: ChainLog, cuts: int, *, longest: int | None = None, levels: int | None = None) -> int:
    """How many sums a sweep takes: chains, outcomes, and rows gone through, over all lists of tiers."""
    places = {name: min(len(tier.values), levels or len(log.share)) for name, tier in log.tiers.items()}
    windows = {name: count if cuts == 1 else count * (count + 1) // 2 for name, count in places.items()}
    return sum(
        len(log.share) + math.prod(windows[name] for name in read) + math.prod(places[name] + 1 for name in read)
        for *read, _ in tier_lists(log, longest)
    )


def tier_lists(log: ChainLog, longest: int | None = None) -> Iterator[tuple[str, ...]]:
    """Every list of tiers, in every order, of which all but the last can be read; of four at the most where there are
    more than five, or as many as are asked for."""
    longest = longest or longest_chain(len(log.tiers))
    readable = [name for name, tier in log.tiers.items() if tier.readable]
    for length in range(min(longest, len(log.tiers))):
        for read in permutations(readable, length):
            yield from ((*read, last) for last in log.tiers if last not in read)


def sweep(log: ChainLog, cuts: int, *, longest: int | None = None, levels: int | None = None) -> tuple[Valued, ...]:
    """The concave hull of every chain.

    Args:
        log: what they are tried on.
        cuts: of a tier that is read: 1, to go on below it; or 2, to go on between them.
        longest: tiers of a chain.
        levels: places for a cut, at quantiles of a tier's readings; None is every distinct one.
    """
    axes = {name: _Axis(tier, cuts, levels) for name, tier in log.tiers.items() if tier.readable}
    found: list[Valued] = []
    for tiers in tier_lists(log, longest):
        cost, quality = _every(log, axes, tiers)
        for at in _best(cost.ravel(), quality.ravel()):
            place = np.unravel_index(at, cost.shape)
            windows = tuple(axes[name].window(int(p)) for name, p in zip(tiers, place, strict=False))
            found.append(Valued(WindowChain(tiers, windows), float(cost.flat[at]), float(quality.flat[at])))
        if len(found) > 10_000:
            found = list(concave_hull(found))
    return concave_hull(found)


def coarse_sweep(log: ChainLog, cuts: int, most: int) -> tuple[Valued, ...]:
    """The concave hull of the chains on a grid of quantiles: of as many tiers, then as fine, as ``most`` sums allow."""
    for longest in range(longest_chain(len(log.tiers)), 1, -1):
        for levels in GRIDS:
            if sweep_size(log, cuts, longest=longest, levels=levels) <= most:
                return sweep(log, cuts, longest=longest, levels=levels)
    return sweep(log, cuts, longest=1)


class _Axis:
    """The windows of one tier: pairs of places among the edges between its readings."""

    def __init__(self, tier: TierRows, cuts: int, levels: int | None) -> None:
        self._tier = tier
        edges = np.arange(len(tier.values) + 1)
        if levels is not None and levels < len(edges):
            seen = np.sort(tier.confidence[~np.isnan(tier.confidence)])
            quantiles = seen[np.arange(1, levels) * len(seen) // levels]
            edges = np.unique([0, *np.searchsorted(tier.values, quantiles), len(tier.values)])
        self._edges = edges
        self.size = len(edges)  # outcomes: between edges, and missing
        below = np.searchsorted(edges, np.searchsorted(tier.values, tier.confidence), side="right") - 1
        self.code = np.where(np.isnan(tier.confidence), self.size - 1, below)  # [n]
        last = self.size - 1
        if cuts == 1:
            self.low, self.high = np.zeros(last, dtype=np.int64), np.arange(last)
        else:
            low, high = np.triu_indices(self.size, 1)
            apart = (low > 0) | (high < last)  # where everything goes on, it was read for nothing
            self.low, self.high = np.append(low[apart], 0), np.append(high[apart], 0)

    def window(self, at: int) -> Window:
        """A window on the raw scale."""
        return self._tier.edge(int(self._edges[self.low[at]])), self._tier.edge(int(self._edges[self.high[at]]))

    def going(self, sums: Floats, axis: int) -> Floats:
        """Sums over the outcomes that go on, for every window, from sums by outcome along an axis."""
        below = np.cumsum(sums, axis=axis) - sums  # up to each outcome; at "missing", all readings
        missing = np.take(sums, [-1], axis=axis)
        return np.take(below, self.high, axis=axis) - np.take(below, self.low, axis=axis) + missing


def _every(log: ChainLog, axes: dict[str, _Axis], tiers: tuple[str, ...]) -> tuple[Floats, Floats]:
    """Cost and quality of all the chains over a list of tiers, [*windows] each."""
    *read, last = tiers
    cost = quality = np.zeros(())
    for depth, name in enumerate(read):
        tier, before, axis = log.tiers[name], [axes[other] for other in read[:depth]], axes[name]
        answers = _by_outcome(log, [*before, axis], tier.read_answer)
        kept = _going(before, answers.sum(axis=-1))[..., None] - _going([*before, axis], answers)
        cost = np.broadcast_to(
            (cost + _going(before, _by_outcome(log, before, tier.read_price)))[..., None], kept.shape
        )
        quality = quality[..., None] + kept
    through, end = [axes[name] for name in read], log.tiers[last]
    cost = cost + _going(through, _by_outcome(log, through, end.call))
    return cost, quality + _going(through, _by_outcome(log, through, end.answer))


def _by_outcome(log: ChainLog, axes: Sequence[_Axis], column: Floats) -> Floats:
    """E[column · 1{o}] over the readings of some tiers, [*outcomes]."""
    sizes = tuple(axis.size for axis in axes)
    if not axes:
        return np.asarray(np.einsum("i,i->", log.share, column))
    cells = np.ravel_multi_index(tuple(axis.code for axis in axes), sizes)
    return np.asarray(np.bincount(cells, log.share * column, math.prod(sizes)).reshape(sizes), dtype=np.float64)


def _going(axes: Sequence[_Axis], sums: Floats) -> Floats:
    for at, axis in enumerate(axes):
        sums = axis.going(sums, at)
    return sums


def _best(cost: Floats, quality: Floats) -> Ints:
    """Positions on the upper hull of many points."""
    order = np.lexsort((-quality, cost))
    sorted_quality = quality[order]
    before = np.maximum.accumulate(np.concatenate([[-np.inf], sorted_quality[:-1]]))
    rising = order[sorted_quality > before + 1e-12]
    hull: list[int] = []
    for at in rising.tolist():
        while len(hull) > 1 and _turns_up(cost, quality, hull[-2], hull[-1], at):
            hull.pop()
        hull.append(at)
    return np.asarray(hull)


def _turns_up(cost: Floats, quality: Floats, left: int, middle: int, right: int) -> bool:
    rise = (quality[middle] - quality[left]) * (cost[right] - cost[middle])
    return bool(rise <= (quality[right] - quality[middle]) * (cost[middle] - cost[left]))
