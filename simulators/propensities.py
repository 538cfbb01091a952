"""Propensities of what was seen: guessed where they are not logged, and checked where they are.

A guess is the share that was seen among queries that were treated alike.  Which these are a classification tree finds
(Breiman et al. 1984): it divides queries where the share differs most on both sides of a cut on one reading, as long as
the likelihood gains enough.  The cuts of a policy that decides by cuts come out exactly, so that no share is ever mixed
of what was always called and what never was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from metaverify.simulators.bins import balanced_cuts
from metaverify.simulators.partial import Sighting

__all__ = ["alike", "misfit", "shares"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

EVERYWHERE: Mapping[str, Bools] = MappingProxyType({})

GAIN = 12.0  # twice what the log-likelihood gains by a cut; one in some hundred pure chances looks so
BINS = 8  # of each reading, in which calls are compared with their propensities
FEWEST = 30  # queries in such a bin
OFF = 4.0  # standard errors by which they differ


def shares(seen: Bools, among: Bools, columns: Mapping[str, Floats], there: Mapping[str, Bools] = EVERYWHERE) -> Floats:
    """The share that was seen of the queries that were treated alike, [n]; NaN of those not ``among`` which it was
    drawn.  ``there`` is as in `alike`."""
    rows = np.flatnonzero(among)
    found = np.full(len(seen), np.nan)
    own = {name: column[rows] for name, column in columns.items()}
    member = alike(seen[rows], own, {name: mask[rows] for name, mask in there.items()})
    total = np.bincount(member, minlength=1)
    found[rows] = (np.bincount(member, weights=seen[rows], minlength=1) / np.maximum(total, 1))[member]
    return found


def alike(seen: Bools, columns: Mapping[str, Floats], there: Mapping[str, Bools] = EVERYWHERE) -> Ints:
    """The leaf of the tree that each query is in, [m]; a reading that is missing lies above all others.

    ``there`` tells of some columns for which queries they were drawn, [m].  Such a column divides only queries that all
    have it, which are a fair sample whatever it says.
    """
    leaf, leaves = np.zeros(len(seen), dtype=np.int64), 0
    waiting = [np.arange(len(seen))]
    while waiting:
        rows = waiting.pop()
        usable = (c for name, c in columns.items() if name not in there or there[name][rows].all())
        gain, left = max(
            (_best_cut(seen[rows], column[rows]) for column in usable),
            key=lambda found: found[0],
            default=(0.0, None),
        )
        if gain <= GAIN or left is None:
            leaf[rows], leaves = leaves, leaves + 1
        else:
            waiting += [rows[left], rows[~left]]
    return leaf


def _best_cut(seen: Bools, column: Floats) -> tuple[float, Bools | None]:
    """What the best cut of a column gains, and which queries lie below it, [m]; None where there is no cut."""
    if not 0 < int(seen.sum()) < len(seen):
        return 0.0, None
    order = np.argsort(column, kind="stable")  # missing ones last
    sorted_column = column[order]
    ahead = sorted_column[1:]
    ends = np.flatnonzero((sorted_column[:-1] != ahead) & ~(np.isnan(sorted_column[:-1]) & np.isnan(ahead))) + 1
    if not len(ends):
        return 0.0, None
    below, total = np.cumsum(seen[order], dtype=np.int64)[ends - 1], int(seen.sum())
    gain = 2.0 * (
        _likelihood(below, ends)
        + _likelihood(total - below, len(seen) - ends)
        - _likelihood(np.array([total]), np.array([len(seen)], dtype=np.int64))
    )
    best = int(gain.argmax())
    left = np.zeros(len(seen), dtype=bool)
    left[order[: ends[best]]] = True
    return float(gain[best]), left


def _likelihood(seen: Ints, of: Ints) -> Floats:
    """The log-likelihood of the share that was seen."""
    share = seen / of
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(seen > 0, seen * np.log(share), 0.0), np.where(seen < of, (of - seen) * np.log1p(-share), 0.0)
    return np.asarray(parts[0] + parts[1])


def misfit(sighting: Sighting, among: Bools, columns: Mapping[str, Floats]) -> str:
    """Where what was seen differs most from what the propensities say, in words; nothing where chance explains it.

    ``sighting`` has the chances given that a query is ``among`` those for which it was drawn.  In each bin of every
    column the number that was seen is compared with its expectation (Pearson's statistic).  Where the chance of what
    was not seen is unknown, those that were seen can only be too many for theirs: the inverse chances sum to the
    queries that had one.
    """
    certain = among & ~sighting.seen & (sighting.chance == 1.0)
    if certain.any():
        return f"{certain.sum():,} that were certain by their propensity are not there"
    rows = np.flatnonzero(among)
    worst, told = OFF, ""
    for place, bins in _binned(rows, columns):
        found = [_against(sighting, of) for _, of in bins]
        score = _normal(sum(z * z for z, _ in found), len(found))
        if score > worst:
            at = max(range(len(bins)), key=lambda k: abs(found[k][0]))
            worst, told = score, found[at][1] + (f" where {place} is {bins[at][0]}" if place else "")
    return told


def _binned(rows: Ints, columns: Mapping[str, Floats]) -> Iterator[tuple[str, list[tuple[str, Ints]]]]:
    """All queries, and those in each bin of each column."""
    if len(rows):
        yield "", [("", rows)]
    for name, column in columns.items():
        known = rows[~np.isnan(column[rows])]
        count = min(BINS, len(known) // FEWEST)
        if count > 1:
            cuts = balanced_cuts(column[known], np.ones(len(known)), count)
            place, edges = np.searchsorted(cuts, column[known], side="right"), (0.0, *cuts, 1.0)
            each = ((f"in [{edges[at]:.3g}, {edges[at + 1]:.3g})", known[place == at]) for at in range(len(cuts) + 1))
            yield name, [(told, of) for told, of in each if len(of)]


def _against(sighting: Sighting, rows: Ints) -> tuple[float, str]:
    """By how many standard errors more were seen than the propensities say, and both in words."""
    seen, chance = sighting.seen[rows], sighting.chance[rows]
    if np.isnan(chance).any():
        inverse = 1.0 / chance[seen]
        error = math.sqrt(max(float((inverse**2 - inverse).sum()), 1.0))
        more = float(inverse.sum()) - len(rows)
        told = f"{seen.sum():,} stand for {inverse.sum():,.0f} ± {error:,.0f} by their propensities, of {len(rows):,}"
        return max(more, 0.0) / error, told
    expected = float(chance.sum())
    error = math.sqrt(float((chance * (1.0 - chance)).sum()))
    told = f"{seen.sum():,} of {len(rows):,}, and the propensities say {expected:,.0f} ± {error:,.0f},"
    return (float(seen.sum()) - expected) / max(error, 1.0), told


def _normal(statistic: float, freedom: int) -> float:
    """The normal score that a chi-squared statistic is as unlikely as (Wilson & Hilferty 1931)."""
    spread = 2.0 / (9.0 * freedom)
    return (math.cbrt(statistic / freedom) - (1.0 - spread)) / math.sqrt(spread)
