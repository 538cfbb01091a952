"""One-sided tests of a mean: how unlikely what was seen would be if the mean were as high as it may not be.

All take independent units z in [0, 1] and test "the mean of z is at least ``mean``".  Most return a p-value, which is
at most delta with a chance of at most delta where that is so; `betting` aims at a level and says whether it got there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import bdtr, logsumexp, ndtri, stdtr, stdtrit

__all__ = [
    "TESTS",
    "Test",
    "betting",
    "clopper_pearson",
    "e_process",
    "hoeffding_bentkus",
    "least",
    "mean_kept_by_the_next",
    "student",
    "units_needed",
]

Floats = NDArray[np.float64]

Test = Callable[[Floats, float, float], bool]
"""From units [n], the mean in (0, 1) that is tested and delta to whether the mean is refused at that level."""

BOLD = 0.9
"""The most that is staked, as a share of what would lose everything on a single unit."""

ROUND = 20
"""One part in so many of the units that are left is bet on before stakes are set anew."""

DUST = 1e-12
"""A spread or a difference that is none: what rounding leaves where all units are the same."""

MANY = 10_000_000
"""Units, beyond which it does not matter how many more."""

HALVES = 12
"""Constant bets of the e-process: the boldest and its halves, down to one for some 10**7 units."""


def clopper_pearson(z: Floats, mean: float) -> float:
    """The exact test where every unit is 0 or 1 (Clopper & Pearson 1934): the chance of so few ones.

    Example:
        >>> clopper_pearson(np.array([0.0, 0.0, 1.0]), 0.5)
        0.5
    """
    return float(bdtr(round(float(z.sum())), len(z), mean))


def hoeffding_bentkus(z: Floats, mean: float) -> float:
    """The smaller one of two bounds by the binomial (Bates et al. 2021, Distribution-free, risk-controlling prediction
    sets, JACM 68, proposition 4): Hoeffding's with its relative entropy, and Bentkus' with its tail."""
    n, total = len(z), float(z.sum())
    hoeffding = math.exp(-n * _entropy(min(total / n, mean), mean))
    bentkus = math.e * float(bdtr(math.ceil(total - 1e-9), n, mean))
    return min(hoeffding, bentkus, 1.0)


def betting(z: Floats, mean: float, delta: float) -> bool:
    """Betting against the mean (Waudby-Smith & Ramdas 2023, JRSS B 86, section 4): whether the wealth ever comes to
    1 / delta.

    Each unit multiplies the wealth by 1 + stake x (mean - z), which is no more than 1 in the mean where the mean is as
    high as tested, so that this happens with a chance of at most delta, whatever the stakes (Ville).  They are set by
    what is still missing, by the units that are left and by how far those before were from the mean (Voracek & Orabona
    2025, STaR-Bets, NeurIPS): the units' order matters, and must have been drawn without looking at them.
    """
    n, missing = len(z), -math.log(delta)
    squares = mean * (1.0 - mean) + np.concatenate([[0.0], np.cumsum((z[:-1] - mean) ** 2)])
    likely = np.sqrt(np.arange(1, n + 1) / squares)  # one over how far a unit is from the mean, by those before it
    at, wealth = 0, 0.0
    while at < n:
        bets = slice(at, at + max((n - at) // ROUND, 1))
        stake = np.minimum(math.sqrt(2.0 * (missing - wealth) / (n - at)) * likely[bets], BOLD / (1.0 - mean))
        course = wealth + np.cumsum(np.log1p(stake * (mean - z[bets])))
        if course.max() >= missing:
            return True
        at, wealth = bets.stop, float(course[-1])
    return False


def e_process(z: Floats, mean: float) -> float:
    """Betting with constant stakes, each with an equal part of the wealth: one over what that has come to.

    What it has come to does not depend on the units' order, and with a chance of at most p it ever comes to 1 / p,
    however often one looks while units are added (Ville).  For one look `betting` is sharper.
    """
    bold = BOLD / (1.0 - mean)
    wealth = [float(np.log1p(bold / 2.0**k * (mean - z)).sum()) for k in range(HALVES)]
    return math.exp(-max(float(logsumexp(wealth)) - math.log(HALVES), 0.0))


def student(z: Floats, mean: float) -> float:
    """Student's test, corrected for skewness (Hall 1992, JRSS B 54, formula 3.3): right in large samples only.

    Without the correction costs that are rarely high and mostly low overrun half as often again.
    """
    n, around = len(z), z - z.mean()
    spread, apart = math.sqrt(float((around**2).mean())), float(z.mean()) - mean
    if spread < DUST:
        return 0.0 if apart < -DUST else 1.0
    t, bend = apart / spread * math.sqrt(n - 1), float((around**3).mean()) / spread**3 / math.sqrt(n)
    return float(stdtr(n - 1, t + bend * t**2 / 3.0 + bend**2 * t**3 / 27.0 + bend / 6.0))


def _by_p_value(p_value: Callable[[Floats, float], float]) -> Test:
    return lambda z, mean, delta: p_value(z, mean) <= delta


TESTS: Mapping[str, Test] = MappingProxyType(
    {
        "clopper-pearson": _by_p_value(clopper_pearson),
        "hoeffding-bentkus": _by_p_value(hoeffding_bentkus),
        "betting": betting,
        "e-process": _by_p_value(e_process),
        "student": _by_p_value(student),
    }
)
"""Every test by name."""


def least(accepts: Callable[[float], bool], low: float, high: float) -> float:
    """The lowest figure in (low, high] that is accepted, where all above it are; ``high`` where none below is."""
    while high - low > 1e-7 * abs(high):
        middle = (low + high) / 2
        low, high = (low, middle) if accepts(middle) else (middle, high)
    return high


def mean_kept_by_the_next(limit: float, count: float, delta: float) -> float:
    """The highest mean of units in [0, 1] whose next ``count`` exceed ``limit`` in their own mean with a chance of at
    most ``delta`` (Hoeffding 1963, theorem 1); 0 where there is none."""
    if limit >= 1.0:
        return 1.0
    wanted = -math.log(delta) / count

    def beyond(mean: float) -> float:
        return _entropy(limit, mean) - wanted

    return 0.0 if limit <= 0.0 or beyond(1e-300) < 0.0 else float(brentq(beyond, 1e-300, limit, xtol=1e-15))


def units_needed(name: str, z: Floats, mean: float, delta: float) -> float:
    """About how many units like ``z`` [n] the test of this name needs to refuse the mean at ``delta`` in half of all
    tries; infinite where their own mean is not below it.

    A constant bet's wealth grows by its rate per unit, and the best one's rate is taken.  Stakes that are set anew need
    fewer, but no fewer than the normal distribution or the boldest stake would: the middle of these is taken.  The
    other tests are asked what they say of more units with the same mean.
    """
    found = float(z.mean())
    if not mean - found > DUST:
        return math.inf
    if name in ("betting", "e-process"):
        bold = BOLD / (1.0 - mean)
        best = minimize_scalar(lambda stake: -np.log1p(stake * (mean - z)).mean(), bounds=(0.0, bold), method="bounded")
        steady = -math.log(delta) / max(-float(best.fun), float(np.log1p(bold * (mean - z)).mean()))
        normal = (float(ndtri(delta)) * float(z.std()) / (mean - found)) ** 2
        boldest = -math.log(delta) / math.log1p(bold * (mean - found))
        return steady if name == "e-process" else math.sqrt(steady * max(normal, boldest))
    if name == "student":
        return max((float(stdtrit(len(z) - 1, delta)) * float(z.std()) / (mean - found)) ** 2, 2.0)

    def refused(count: int) -> bool:
        return TESTS[name](np.full(count, found), mean, delta)

    low, high = 0, 1
    while not refused(high):
        low, high = high, 2 * high
        if high > MANY:
            return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if refused(middle) else (middle, high)
    return float(high)


def _entropy(found: float, mean: float) -> float:
    """Relative entropy of a coin that comes up ``found`` to one that comes up ``mean``, both below 1."""
    ones = found * math.log(found / mean) if found > 0.0 else 0.0
    return ones + (1.0 - found) * math.log((1.0 - found) / (1.0 - mean)) if found < 1.0 else ones
