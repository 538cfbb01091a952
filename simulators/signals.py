"""How well a confidence tells right from wrong."""

from __future__ import annotations

import numpy as np

from metaverify.simulators.log import Floats, Ints

__all__ = ["calibration_error", "concordance"]


def concordance(confidence: Floats, correct: Floats, weights: Floats) -> float:
    """The share of pairs of different correctness that the confidence puts in the right order, ties half.

    For correctness 0 or 1 this is the area under the ROC curve (Mann and Whitney's U); for scores it is the
    concordance index.  A pair weighs the product of its weights; rows without confidence are left out.
    All are [n]; the result is in [0, 1], or NaN where no two rows differ in correctness.  O(n log n) per bit
    of the number of distinct scores.

    >>> concordance(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]), np.ones(4))
    0.875
    """
    read = ~np.isnan(confidence)
    confidence, correct, weights = confidence[read], correct[read], weights[read]
    values, value = np.unique(confidence, return_inverse=True)
    levels, level = np.unique(correct, return_inverse=True)
    ordered = pairs = 0.0
    for bit in range(max(len(levels) - 1, 0).bit_length()):
        # two levels differ first in exactly one bit: count the pairs that agree in all higher ones
        block, high = level >> (bit + 1), (level >> bit) & 1
        cells, cell = np.unique(block * len(values) + value, return_inverse=True)
        lows = _sums(cell, weights * (1 - high))  # [cells], by block and then by confidence
        highs = _sums(cell, weights * high)
        below = _sums_before(lows, cells // len(values))
        ordered += float(np.sum(highs * (below + lows / 2)))
        pairs += float(_sums(block, weights * high) @ _sums(block, weights * (1 - high)))
    return ordered / pairs if pairs else np.nan


def calibration_error(confidence: Floats, correct: Floats, weights: Floats, *, bins: int = 10) -> float:
    """Expected calibration error: the mean distance between confidence and correctness over quantile bins.

    Equal confidences share a bin, so there may be fewer than ``bins``; rows without confidence are left out.
    All are [n]; the result is in [0, 1], or NaN where nothing was read.
    """
    read = ~np.isnan(confidence)
    if not read.any():
        return np.nan
    _values, value = np.unique(confidence[read], return_inverse=True)
    mass = _sums(value, weights[read])  # [values]
    gap = _sums(value, weights[read] * (confidence - correct)[read])
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    bin_of = np.minimum((middle * bins).astype(np.int64), bins - 1)
    return float(np.abs(_sums(bin_of, gap)).sum() / mass.sum())


def _sums(kind: Ints, values: Floats) -> Floats:
    """[kinds]: the sum of the values of each kind."""
    return np.asarray(np.bincount(kind, values), dtype=np.float64)


def _sums_before(values: Floats, block: Ints) -> Floats:
    """For each entry the sum of the entries before it in its block; blocks are contiguous."""
    before = np.cumsum(values) - values
    _, first, member = np.unique(block, return_index=True, return_inverse=True)
    return np.asarray(before - before[first][member])
