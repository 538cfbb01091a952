"""Calibrated confidences, taken as independent of each other given each tier's own correctness."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from metaverify.fitting.coding import CodedLog
from metaverify.fitting.ladders import Place
from metaverify.fitting.models.base import HiddenStateModel
from metaverify.fitting.models.performance import (
    later_given,
    patterns,
    performances,
    prices_given,
    quality_given,
    rungs_of,
    subject,
    summed,
)
from metaverify.fitting.observation import ObservationModel

__all__ = ["Calibrated"]

Floats = NDArray[np.float64]


@dataclass(eq=False, repr=False)
class Calibrated(HiddenStateModel):
    """Platt scaling or isotonic regression of each reading, and nothing else that readings could tell.

    The hidden state is which tiers are right.  How often each pattern of right and wrong occurs is counted; a reading
    depends on whether its own answer is right, by its calibration curve: P(o | right) is P(o) P(right | o) / P(right).

    Beware: readings of hard queries are low together, whoever is right, and each of them is counted here as evidence
    of its own.  A baseline, not a method.  With few rows it is hard to beat where readings speak of their own answer
    and little else: in twelve known worlds of that kind the mean regret of "platt" is 1.3 / .28 / .29 / .25 points at
    n = 50 / 200 / 1,000 / 5,000, that of `Copula` 1.8 / .42 / .19 / .09.  More rows do not help it: in three worlds
    where queries are hopeless or traps it stays at 7 points, while `Copula` falls to .9 and `LatentClasses` to .1.
    On real logs: docs/quality.md.

    Args:
        curve: "isotonic": P(right | o) never falls from bin to bin; "platt": a logistic function of a bin's normal
            score, fitted to Platt's smoothed targets (Platt 1999).  A missing reading has its own share of right
            answers in either case.
    """

    curve: Literal["isotonic", "platt"] = "isotonic"

    def observe(self, coded: CodedLog) -> ObservationModel:
        """A hidden state for each pattern of right and wrong that has some weight."""
        if self.curve not in CURVES:
            raise ValueError(f"curve of Calibrated is {self.curve!r}; give one of {', '.join(CURVES)}")
        found = performances(coded)
        right, member = patterns(found.value)
        weight = found.weight @ member
        seen = weight > 0.0
        right, member, weight = right[seen], member[:, seen], weight[seen]

        def emission(place: Place, position: int, size: int) -> Floats:
            about = subject(coded, place)
            quality = None if about is None else coded.answers[about]
            count = summed(coded.codes[position], coded.weights, size)
            if about is None or quality is None or size == 1:
                return np.tile(count / count.sum(), (len(weight), 1))
            good = summed(coded.codes[position], coded.weights * quality, size)
            chance = self._calibrate(count, good)
            either = np.stack([count * (1.0 - chance), count * chance])
            given = np.where(either.sum(axis=1, keepdims=True) > 0.0, either, count)
            given /= given.sum(axis=1, keepdims=True)
            return np.asarray(given[right[:, found.answers.index(about)].astype(np.int64)])

        def price(_: int, column: Floats) -> Floats:
            return np.asarray(found.total(column) @ member / weight)

        return ObservationModel(
            coded.ladders,
            weight / weight.sum(),
            tuple(emission(*rung) for rung in rungs_of(coded)),
            quality_given(coded, right),
            prices_given(coded, price),
            later_given(coded, right),
        )

    def _calibrate(self, count: Floats, right: Floats) -> Floats:
        """P(right | outcome) [outcomes] from how many queries had each outcome, "missing" last, and how many of them
        were right."""
        chance = right / np.maximum(count, 1e-300)
        seen = np.flatnonzero(count[:-1] > 0.0)
        if len(seen) > 0:
            chance[seen] = CURVES[self.curve](count[seen], right[seen])
        return np.clip(chance, 0.0, 1.0)


def _isotonic(count: Floats, right: Floats) -> Floats:
    model = IsotonicRegression(y_min=0.0, y_max=1.0)
    return np.asarray(model.fit_transform(np.arange(len(count)), right / count, sample_weight=count))


def _platt(count: Floats, right: Floats) -> Floats:
    rows, good = float(count.sum()), float(right.sum())
    score = ndtri((np.cumsum(count) - count / 2) / rows)[:, None]
    high, low = (good + 1.0) / (good + 2.0), 1.0 / (rows - good + 2.0)
    hit = right * high + (count - right) * low
    if len(count) == 1:
        return hit / count
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=200)
    label = np.repeat([1, 0], len(count))
    model.fit(np.vstack([score, score]), label, sample_weight=np.concatenate([hit, count - hit]))
    return np.asarray(model.predict_proba(score)[:, 1])


CURVES = MappingProxyType({"isotonic": _isotonic, "platt": _platt})
