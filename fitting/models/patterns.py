"""Correctness patterns: what each reading shows, given which tiers are right, with shrinkage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.coding import CodedLog
from metaverify.fitting.models.base import HiddenStateModel
from metaverify.fitting.models.performance import (
    patterns,
    performances,
    prices_given,
    quality_given,
    rungs_of,
    shrunk,
    subject,
)
from metaverify.fitting.observation import ObservationModel

__all__ = ["Patterns"]

Floats = NDArray[np.float64]


@dataclass(eq=False, repr=False)
class Patterns(HiddenStateModel):
    """The hidden state is which tiers are right; a reading depends on all of them.

    A small tier's confidence is lower where the large ones are wrong too, and that dependence is kept: emissions are
    counted given the whole pattern, shrunk to those given the tier's own correctness, shrunk to the outcome's share.
    A quality of q counts as right with the share q.

    Args:
        independent: rows in which tiers are right independently of each other, beside the log's own, in the prior of
            the patterns.
        own: rows of evidence from the tier's own correctness alone, beside those of each pattern.
        marginal: rows of evidence from the outcome's share, beside those of the tier's own correctness.
    """

    independent: float = 4.0
    own: float = 50.0
    marginal: float = 20.0

    def observe(self, coded: CodedLog) -> ObservationModel:
        """A hidden state for each pattern of right and wrong."""
        found = performances(coded)
        right, member = patterns(found.value)
        weight = found.weight @ member  # [patterns]
        rows = float(weight.sum())
        chance = found.weight @ found.value / rows
        unlinked = np.where(right > 0.5, chance, 1.0 - chance).prod(axis=1)
        prior = (weight + self.independent * unlinked) / (rows + self.independent)
        kept = prior > 0.0
        right, member, weight, prior = right[kept], member[:, kept], weight[kept], prior[kept]

        def emission(source: int, position: int, size: int) -> Floats:
            count = member.T @ found.tally(position, size)  # [patterns, outcomes]
            about = subject(coded, source)
            side = np.zeros(len(right), np.int64) if about is None else right[:, found.answers.index(about)].astype(int)
            by_side = np.stack([count[side == s].sum(axis=0) for s in (0, 1)])
            given = _shares(by_side, by_side.sum(axis=0) / rows, self.marginal)
            return _shares(count, given[side], self.own)

        def price(_: int, column: Floats) -> Floats:
            total = found.total(column)
            return shrunk(total @ member, weight, total.sum() / rows, self.own)

        return ObservationModel(
            coded.ladders,
            prior / prior.sum(),
            tuple(emission(*rung) for rung in rungs_of(coded)),
            quality_given(coded, right),
            prices_given(coded, price),
        )


def _shares(count: Floats, towards: Floats, rows: float) -> Floats:
    """Shares of outcomes by counts [..., outcomes], shrunk."""
    return shrunk(count, count.sum(axis=-1, keepdims=True), towards, rows)
