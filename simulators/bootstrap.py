"""The cluster bootstrap: how much a figure of a log would differ on other queries like these.

Whole groups are drawn with replacement, so that rows that belong together stay together; every figure of a comparison
is computed from the same draws, so that differences are paired.  A figure that is a function of sums over rows needs
those sums only, and sums over a resample are group sums times how often each group was drawn: one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from metaverify.simulators.log import ReplayLog
from metaverify.simulators.outcome import LEVEL, Estimate, student_quantile

__all__ = ["RESAMPLES", "estimate", "group_members", "holm", "p_value", "resample"]

Floats = NDArray[np.float64]

DUST = 1e-12
"""A difference in quality that is none: sums taken in another order."""
Ints = NDArray[np.int64]

RESAMPLES = 1000

CELLS = 4_000_000  # of the array of how often each group was drawn, at once


def group_members(log: ReplayLog) -> Ints:
    """The group (0, 1, .. in the order of their ids) of each query, [n]."""
    if log.ungrouped:
        return np.argsort(np.argsort(log.query_ids, kind="stable"), kind="stable")
    return log.groups[1]


def resample(sums: Floats, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Totals over the sample and over each of its resamples, [1 + resamples, columns].

    Args:
        sums: of each group, [groups, columns].
        resamples: how often as many groups are drawn as there are, each as likely as any other.
        seed: of the draws.
    """
    groups = len(sums)
    rng = np.random.default_rng(seed)
    totals = [sums.sum(axis=0, keepdims=True)]
    step = max(CELLS // groups, 1)
    for start in range(0, resamples, step):
        times = np.empty((min(step, resamples - start), groups))
        for row in times:
            row[:] = np.bincount(rng.integers(groups, size=groups), minlength=groups)
        totals.append(times @ sums)
    return np.concatenate(totals)


def estimate(values: Floats, groups: int, *, level: float = LEVEL) -> Estimate:
    """The figure and its interval, from its value on the sample and on each resample, [1 + resamples].

    A gain over a maximum (the hull, where tiers are equally good) is biased in a sample and once more in its resamples,
    which pushes their percentiles to one side of the truth: they cover 65 to 80 % there.  So the interval is symmetric
    about the figure, its half width the mean of two: that within which nine in ten resamples lie (Hall 1988), and the
    longer arm of the percentiles.  Over known worlds, some with equal tiers, the first covers 85 to 92 %, the second 88
    to 95 %, and their mean 87 to 93 %.

    Tails are cut where Student's quantile lies, not the normal one (the expanded percentiles of Hesterberg 2015, The
    American Statistician 69, section 4.4), without which intervals of few groups are too narrow.
    """
    if groups < 2:
        return Estimate(float(values[0]), -math.inf, math.inf)
    wide = math.sqrt(groups / (groups - 1)) * student_quantile(0.5 + level / 2, groups - 1)
    tail = NormalDist().cdf(-wide)
    mean, apart = float(values[0]), values[1:] - values[0]
    low, high = np.quantile(apart, [tail, 1.0 - tail])
    half = float(max(high, -low, 0.0) + np.quantile(np.abs(apart), 1.0 - 2.0 * tail)) / 2
    return Estimate(mean, mean - half, mean + half)


def p_value(values: Floats, groups: int) -> float:
    """The two-sided p of "the figure is 0", from its value on the sample and on each resample, [1 + resamples].

    Student's t with the standard error that the resamples show.  Counting resamples beyond 0 could not tell a p below
    1 / resamples, which a correction for many comparisons asks for.  The tail is Wallace's approximation (1959,
    Annals of Mathematical Statistics 30): from 6 groups on within 2 % where p is not below 0.03, and 0.002 anywhere.
    Values below `DUST` are what rounding leaves of sums that are the same, and count as 0.
    """
    values = np.where(np.abs(values) < DUST, 0.0, values)
    spread = float(values[1:].std(ddof=1))
    if spread == 0.0 or groups < 2:
        return 1.0 if values[0] == 0.0 or groups < 2 else 0.0
    t, freedom = float(values[0]) / spread, groups - 1
    z = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return math.erfc(z / math.sqrt(2.0))


def holm(p: Sequence[float]) -> tuple[float, ...]:
    """The p values corrected for their number (Holm 1979): those at most alpha keep the chance of any false one there.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    corrected, least = [0.0] * len(p), 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=lambda at: p[at])):
        least = max(least, min((len(p) - rank) * p[at], 1.0))
        corrected[at] = least
    return tuple(corrected)
