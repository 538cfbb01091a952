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

from metaverify.fitting.export import reading_of
from metaverify.fitting.ladders import Rung
from metaverify.policies.policy import Policy
from metaverify.policies.tiers import Points, Tier
from metaverify.simulators.log import FUSED, LoggedReading, ReplayLog, fuse

__all__ = ["Cards", "cross_fused", "fuse_log", "with_inputs"]

Floats = NDArray[np.float64]
Cards = dict[str, tuple[Points, ...]]

FINE = 16  # bins of a reading in a scorecard
FOLDS = 5  # in which the scores of the log itself are made
LINEAR, CURVED = 1.0, 4.0  # ridge penalties, in units of one row's log-likelihood


def cross_fused(log: ReplayLog, *, aim: float = 0.0) -> tuple[ReplayLog, Cards]:
    """The log with fused scores in place of the readings that they are made of, and the scorecards.

    A row's score comes from a card that was fitted without the row's fold, so that what is learnt from it holds for
    rows that the card has not seen.

    Args:
        log: what they are fitted on.
        aim: 0 asks how good an answer is, 1 how much better it is than the best tier's, which is what a router needs
            to know and takes more rows to learn.
    """
    drafts = _drafts(log, aim)
    cards = {name: draft.card(log.weights) for name, draft in drafts.items()}
    if not cards:
        return log, cards
    fold = log.folds(min(FOLDS, log.group_count), seed=0)
    columns = {name: np.empty(len(log)) for name in cards}
    for at in range(int(fold.max()) + 1):
        here = np.flatnonzero(fold == at)
        part = log.take(here)
        for name, draft in drafts.items():
            columns[name][here] = fuse(draft.card(np.where(fold == at, 0.0, log.weights)), part.tier(name))
    whole = log.fused(cards)
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
    """The policy with the readings that its fused scores are made of listed before them, as they were on the log.

    The scores' histograms become those of the cards themselves, which is what a router reads: the scores that were
    learnt from come of several cards, each on a scale of its own.
    """
    if not cards:
        return policy
    return replace(policy, tiers=tuple(_with_inputs(tier, log, cards) for tier in policy.tiers))


def _with_inputs(tier: Tier, log: ReplayLog, cards: Cards) -> Tier:
    if tier.name not in cards:
        return tier
    columns = log.fused(cards).tier(tier.name).readings
    parts = {part.reading: part for part in cards[tier.name]}
    inputs = (reading_of(log, c, Rung(c.name, parts[c.name].cuts)) for c in columns if c.name in parts)
    score = next(c for c in columns if c.parts)
    listed = (
        replace(r, counts=reading_of(log, score, Rung(r.name, r.cuts)).counts) if r.parts else r for r in tier.readings
    )
    return replace(tier, readings=(*inputs, *listed))


def _scores_only(log: ReplayLog) -> ReplayLog:
    """The log without the readings that went into a fused one, which comes first."""
    tiers = []
    for tier in log.tiers:
        parts = {part.reading for reading in tier.readings for part in reading.parts}
        kept = [r for r in tier.readings if r.name not in parts]
        tiers.append(replace(tier, readings=tuple(sorted(kept, key=lambda r: not r.parts))))
    return replace(log, tiers=tuple(tiers))


def _drafts(log: ReplayLog, aim: float) -> dict[str, _Draft]:
    """What the scorecard of each tier with several free readings is fitted on."""
    best = max(log.tiers, key=lambda tier: log.mean(tier.correct))
    drafts = {}
    for tier in log.tiers:
        free = [r for r in tier.readings if r.free and not (r.votes or np.isnan(r.confidence).all())]
        free = [r for r in free if r.name != FUSED]
        if len(free) >= 2:
            against = 0.0 if tier.name == best.name else aim
            target = (against + tier.correct - against * best.correct) / (1.0 + against)
            drafts[tier.name] = _Draft(log, free, target)
    return drafts


class _Draft:
    """One tier's readings in fine bins, and a target in [0, 1]; rows alike in all are counted together."""

    def __init__(self, log: ReplayLog, free: list[LoggedReading], target: Floats) -> None:
        self._scales = [_Scale(reading, log.weights) for reading in free]
        self._target = target
        columns = [scale.codes for scale in self._scales]
        if log.contexts is not None:  # what contexts explain is not the score's to explain
            columns.append(np.unique(log.contexts, return_inverse=True)[1])
        sizes = [int(column.max()) + 1 for column in columns]
        cells = np.ravel_multi_index(columns, sizes)
        found, self._member = np.unique(cells, return_inverse=True)
        codes = np.unravel_index(found, sizes)
        blocks = [scale.basis[code] for scale, code in zip(self._scales, codes, strict=False)]
        penalties = [scale.penalty for scale in self._scales]
        if log.contexts is not None:
            blocks.append(np.eye(sizes[-1])[codes[-1]])
            penalties.append(np.full(sizes[-1], LINEAR))
        self._scale = 1.0 / np.sqrt(np.concatenate(penalties))
        self._design = np.hstack(blocks) * self._scale

    def card(self, weights: Floats) -> tuple[Points, ...]:
        """The scorecard of the rows with these weights [n]: the higher the score, the higher the target."""
        count = len(self._design)
        good = np.asarray(np.bincount(self._member, weights * self._target, count), np.float64)
        bad = np.maximum(np.asarray(np.bincount(self._member, weights, count), np.float64) - good, 0.0)
        coefficients = _logistic(self._design, good, bad) * self._scale
        points, start = [], 0
        for scale in self._scales:
            width = scale.basis.shape[1]
            points.append(scale.basis @ coefficients[start : start + width])
            start += width
        span = max(sum(float(np.ptp(p)) for p in points), 1e-9)
        share = [(p - p.min()) / span for p in points]
        return tuple(
            Points(scale.name, scale.cuts, tuple(round(float(x), 4) for x in p[:-1]), round(float(p[-1]), 4))
            for scale, p in zip(self._scales, share, strict=True)
        )


class _Scale:
    """A reading in fine bins, the missing one last, and a smooth basis over them [bins + 1, terms]."""

    def __init__(self, reading: LoggedReading, weights: Floats) -> None:
        self.name = reading.name
        self.cuts = reading.cuts(weights, FINE)
        rung = Rung(reading.name, self.cuts)
        self.codes = rung.code(reading.confidence)
        bins = rung.size - 1
        share = np.bincount(self.codes, weights=weights, minlength=rung.size)[:-1] + 0.5 / bins
        score = ndtri((np.cumsum(share) - 0.5 * share) / share.sum())
        columns = [np.append(score, 0.0), np.append(score**2 - 1.0, 0.0)]
        if (self.codes == bins).any():
            columns.append(np.append(np.zeros(bins), 1.0))
        self.basis = np.column_stack(columns)
        self.penalty = np.array([LINEAR, CURVED, LINEAR])[: len(columns)]


def _logistic(design: Floats, good: Floats, bad: Floats) -> Floats:
    """Coefficients of a ridge-logistic regression on weights of good and bad outcomes [rows]."""
    if design.shape[1] == 0 or min(good.sum(), bad.sum()) <= 1e-9 * (good.sum() + bad.sum()):
        return np.zeros(design.shape[1])
    weight = np.concatenate([good, bad])
    kept = weight > 0
    model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-6, max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        label = np.repeat([1, 0], len(design))
        model.fit(np.vstack([design, design])[kept], label[kept], sample_weight=weight[kept])
    return np.asarray(np.round(model.coef_[0], 6))
