"""Fusion: the free readings of one answer made into one score, a scorecard that adds up points.

A score is worth an axis of the table; readings that come with the same answer are not, for all that they say can be
said in one number.  Each reading is cut into fine bins, the bins' points are a smooth function fitted by ridge-logistic
regression, and the score is their sum: no logarithm and no exponential at run time, so every machine adds up the same.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from sklearn.linear_model import LogisticRegression

from metaverify.fitting.bins import balanced_cuts
from metaverify.fitting.export import reading_of
from metaverify.fitting.ladders import Rung
from metaverify.policies.policy import Policy
from metaverify.policies.tiers import Points, Tier
from metaverify.simulators.log import LoggedReading, ReplayLog, fuse

__all__ = ["Cards", "cards_of", "cross_fused", "fuse_log", "with_inputs"]

Floats = NDArray[np.float64]
Cards = dict[str, tuple[Points, ...]]

FINE = 16  # bins of a reading in a scorecard
FOLDS = 5  # in which the scores of the log itself are made
LINEAR, CURVED = 1.0, 4.0  # ridge penalties, in units of one row's log-likelihood


def cross_fused(log: ReplayLog, *, aim: float = 0.0) -> tuple[ReplayLog, Cards]:
    """The log with fused scores in place of the readings that they are made of, and the scorecards.

    A row's score comes from a card that was fitted without the row's fold, so that what is learnt from it holds for
    rows that the card has not seen.
    """
    cards = cards_of(log, aim=aim)
    if not cards:
        return log, cards
    whole = log.fused(cards)
    fold = log.folds(min(FOLDS, len(np.unique(log.group_ids))), seed=0)
    columns = {tier.name: tier.readings[-1].confidence.copy() for tier in whole.tiers if tier.name in cards}
    for at in range(int(fold.max()) + 1):
        others = cards_of(log.take(np.flatnonzero(fold != at)), aim=aim)
        here = np.flatnonzero(fold == at)
        part = log.take(here)
        for name, column in columns.items():
            if name in others:
                column[here] = fuse(others[name], part.tier(name))
    tiers = tuple(
        replace(t, readings=(*t.readings[:-1], replace(t.readings[-1], confidence=columns[t.name])))
        if t.name in cards
        else t
        for t in whole.tiers
    )
    return _scores_only(replace(whole, tiers=tiers)), cards


def fuse_log(log: ReplayLog, cards: Cards) -> ReplayLog:
    """Another log with fused scores in place of the readings that they are made of."""
    return _scores_only(log.fused(cards)) if cards else log


def with_inputs(policy: Policy, log: ReplayLog, cards: Cards) -> Policy:
    """The policy with the readings that its fused scores are made of listed before them, as they were on the log."""
    if not cards:
        return policy
    return replace(policy, tiers=tuple(_with_inputs(tier, log, cards) for tier in policy.tiers))


def _with_inputs(tier: Tier, log: ReplayLog, cards: Cards) -> Tier:
    parts = {part.reading: part for part in cards.get(tier.name, ())}
    columns = [column for column in log.tier(tier.name).readings if column.name in parts]
    inputs = (reading_of(log, column, Rung(column.name, parts[column.name].cuts)) for column in columns)
    return replace(tier, readings=(*inputs, *tier.readings))


def _scores_only(log: ReplayLog) -> ReplayLog:
    """The log without the readings that went into a fused one, which comes first."""
    tiers = []
    for tier in log.tiers:
        parts = {part.reading for reading in tier.readings for part in reading.parts}
        kept = [r for r in tier.readings if r.name not in parts]
        tiers.append(replace(tier, readings=tuple(sorted(kept, key=lambda r: not r.parts))))
    return replace(log, tiers=tuple(tiers))


def cards_of(log: ReplayLog, *, aim: float = 0.0) -> Cards:
    """The scorecard of each tier with several free readings: the higher the score, the better its answer is.

    Args:
        log: what they are fitted on.
        aim: 0 asks how good an answer is, 1 how much better it is than the best tier's, which is what a router needs
            to know and takes more rows to learn.
    """
    best = max(log.tiers, key=lambda tier: log.mean(tier.correct))
    cards: Cards = {}
    for tier in log.tiers:
        free = [r for r in tier.readings if not r.price.any() and not np.isnan(r.confidence).all()]
        if len(free) >= 2:
            against = 0.0 if tier.name == best.name else aim
            cards[tier.name] = _card(log, free, (against + tier.correct - against * best.correct) / (1.0 + against))
    return cards


def _card(log: ReplayLog, free: list[LoggedReading], target: Floats) -> tuple[Points, ...]:
    scales = [_Scale(reading, log.weights) for reading in free]
    design = np.hstack([scale.design() for scale in scales] + [_contexts(log)])
    penalty = np.concatenate([scale.penalty() for scale in scales] + [np.full(_contexts(log).shape[1], LINEAR)])
    coefficients = _logistic(design / np.sqrt(penalty), target, log.weights) / np.sqrt(penalty)
    points, start = [], 0
    for scale in scales:
        width = scale.basis.shape[1]
        points.append(scale.basis @ coefficients[start : start + width])
        start += width
    low, high = sum(p.min() for p in points), sum(p.max() for p in points)
    span = max(high - low, 1e-9)
    share = [(p - p.min()) / span for p in points]
    return tuple(
        Points(r.name, s.cuts, tuple(round(float(x), 4) for x in p[:-1]), round(float(p[-1]), 4))
        for r, s, p in zip(free, scales, share, strict=True)
    )


class _Scale:
    """A reading in fine bins, the missing one last, and a smooth basis over them."""

    def __init__(self, reading: LoggedReading, weights: Floats) -> None:
        self.cuts = balanced_cuts(reading.confidence, weights, FINE)
        bins = len(self.cuts) + 1
        confidence = reading.confidence
        seen = (confidence >= 0.0) & (confidence <= 1.0)
        self._codes = np.where(seen, np.searchsorted(np.asarray(self.cuts), confidence, side="right"), bins)
        share = np.bincount(self._codes, weights=weights, minlength=bins + 1)[:-1] + 0.5 / bins
        middle = (np.cumsum(share) - 0.5 * share) / share.sum()
        score = np.append(ndtri(middle), 0.0)
        missing = np.append(np.zeros(bins), 1.0)
        columns = [score, np.append(score[:-1] ** 2 - 1.0, 0.0)]
        self.basis = np.column_stack([*columns, missing] if (~seen).any() else columns)  # [bins + 1, terms]

    def design(self) -> Floats:
        return np.asarray(self.basis[self._codes])

    def penalty(self) -> Floats:
        return np.array([LINEAR, CURVED, LINEAR])[: self.basis.shape[1]]


def _contexts(log: ReplayLog) -> Floats:
    """An indicator a context, [n, contexts]: what they explain is not the score's to explain."""
    if log.contexts is None:
        return np.empty((len(log), 0))
    labels = np.unique(log.contexts)
    return np.asarray((log.contexts[:, None] == labels[None, :]).astype(np.float64))


def _logistic(design: Floats, target: Floats, weights: Floats) -> Floats:
    """Coefficients of a ridge-logistic regression on targets in [0, 1]."""
    if design.shape[1] == 0 or np.ptp(target) == 0.0:
        return np.zeros(design.shape[1])
    label = np.repeat([1, 0], len(design))
    model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-6, max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weight = np.concatenate([weights * target, weights * (1.0 - target)])
        kept = weight > 0
        model.fit(np.vstack([design, design])[kept], label[kept], sample_weight=weight[kept])
    return np.asarray(np.round(model.coef_[0], 6))
