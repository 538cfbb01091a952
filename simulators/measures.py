"""What each tier, reading and context of a log is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaverify.simulators.log import Floats, LoggedReading, LoggedSignal, LoggedTier, ReplayLog
from metaverify.simulators.signals import calibration_error, concordance

__all__ = [
    "ContextReport",
    "ReadingReport",
    "SignalReport",
    "TierReport",
    "measure_contexts",
    "measure_error_correlation",
    "measure_signal",
    "measure_tier",
    "weighted_mean",
]


@dataclass(frozen=True, slots=True)
class ReadingReport:
    """One reading of one tier: ``price`` is its mean; ``missing`` a share; ``values`` how many different ones.

    ``auroc`` is the concordance with the tier's own correctness, ``calibration_error`` over 10 quantile bins and
    ``bias`` mean confidence minus mean correctness; None where undefined.
    """

    name: str
    price: float
    missing: float
    values: int
    auroc: float | None
    calibration_error: float | None
    bias: float | None


@dataclass(frozen=True, slots=True)
class TierReport:
    """One tier: mean price of an answer, its 95th percentile where it varies, and mean correctness."""

    name: str
    price: float
    price_p95: float | None
    quality: float
    readings: tuple[ReadingReport, ...]


@dataclass(frozen=True, slots=True)
class SignalReport:
    """One source without an answer: what its readings say of the answer of the tier ``about``."""

    name: str
    needs: tuple[str, ...]
    about: str
    readings: tuple[ReadingReport, ...]


@dataclass(frozen=True, slots=True)
class ContextReport:
    """One context: its rows, and each tier's mean correctness on them, in the order of the tiers."""

    name: str
    rows: int
    qualities: tuple[float, ...]


def measure_tier(tier: LoggedTier, weights: Floats) -> TierReport:
    """The worth of one tier and of its readings; ``weights`` is [queries]."""
    flat = bool((tier.cost == tier.cost[0]).all())
    return TierReport(
        name=tier.name,
        price=weighted_mean(tier.cost, weights),
        price_p95=None if flat else _quantile(tier.cost, weights, 0.95),
        quality=weighted_mean(tier.correct, weights),
        readings=tuple(_reading(reading, tier.correct, weights) for reading in tier.readings),
    )


def measure_signal(signal: LoggedSignal, log: ReplayLog) -> SignalReport:
    """The worth of one signal's readings for the cheapest of the tiers that it needs, or of all where it needs none."""
    about = next(tier for tier in log.tiers if not signal.needs or tier.name in signal.needs)
    readings = tuple(_reading(reading, about.correct, log.weights) for reading in signal.readings)
    return SignalReport(signal.name, signal.needs, about.name, readings)


def _reading(reading: LoggedReading, correct: Floats, weights: Floats) -> ReadingReport:
    if reading.correct is not None:
        correct = np.where(np.isnan(reading.correct), correct, reading.correct)  # it speaks of its own answer
    read = ~np.isnan(reading.confidence)
    bias = weighted_mean((reading.confidence - correct)[read], weights[read]) if read.any() else np.nan
    return ReadingReport(
        name=reading.name,
        price=weighted_mean(reading.price, weights),
        missing=weighted_mean((~read).astype(np.float64), weights),
        values=len(np.unique(reading.confidence[read])),
        auroc=_defined(concordance(reading.confidence, correct, weights)),
        calibration_error=_defined(calibration_error(reading.confidence, correct, weights)),
        bias=_defined(bias),
    )


def weighted_mean(values: Floats, weights: Floats) -> float:
    """The mean of ``values`` [n], each counted ``weights`` [n] times, by exact sums."""
    return math.fsum(values * weights) / math.fsum(weights)


def _quantile(values: Floats, weights: Floats, share: float) -> float:
    """The least value at or below which at least this share of the weight lies."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, share * reached[-1])])


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def measure_contexts(log: ReplayLog, labels: NDArray[Any]) -> tuple[ContextReport, ...]:
    """Each context's rows and qualities, the largest first; ``labels`` is [queries]."""
    names, label = np.unique(labels, return_inverse=True)
    counts = None if log.counted is None else log.counted.queries
    rows, mass = np.bincount(label, counts), np.bincount(label, log.weights)
    right = [np.bincount(label, log.weights * tier.correct) / mass for tier in log.tiers]  # [tiers][contexts]
    order = np.argsort(-rows, kind="stable")
    return tuple(ContextReport(str(names[c]), int(rows[c]), tuple(float(q[c]) for q in right)) for c in order)


def measure_error_correlation(log: ReplayLog) -> tuple[tuple[float | None, ...], ...]:
    """Pearson's correlation of the tiers' correctness, [tiers, tiers], None where a tier's never varies."""
    correct = np.stack([tier.correct for tier in log.tiers])  # [tiers, queries]
    varies = correct.min(axis=1) < correct.max(axis=1)
    centred = (correct - np.average(correct, axis=1, weights=log.weights, keepdims=True)) * np.sqrt(log.weights)
    norms = np.where(varies, np.sqrt((centred**2).sum(axis=1)), np.nan)
    matrix = centred @ centred.T / np.outer(norms, norms)
    np.fill_diagonal(matrix, np.where(varies, 1.0, np.nan))
    return tuple(tuple(_defined(cell) for cell in row) for row in matrix)
