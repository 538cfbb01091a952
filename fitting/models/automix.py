"""AutoMix's observation models: the hidden state is how well every model does on the query.

Madaan et al., AutoMix: Automatically Mixing Language Models, NeurIPS 2024 (arXiv 2310.12963).  A state s is the
performance vector of a training query; belief starts uniform over the training queries; what a tier's verifier shows
depends on s alone, so that outcomes of different tiers are independent given s.  P(o | s) is counted where
performance takes few values, and P(s, o) / P(s) with a Gaussian around every training query where it is a score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from metaverify.fitting.coding import CodedLog
from metaverify.fitting.models.base import HiddenStateModel, at_least
from metaverify.fitting.models.performance import (
    MOST_STATES,
    Performances,
    later_given,
    performances,
    prices_given,
    quality_given,
    rungs_of,
)
from metaverify.fitting.observation import ObservationModel

__all__ = ["AutoMixCounts", "AutoMixKDE"]

Floats = NDArray[np.float64]

NARROWEST = 1e-9  # bandwidth


@dataclass(eq=False, repr=False)
class AutoMixCounts(HiddenStateModel):
    """AutoMix with P(o | s) by counts.

    Where performance is a score, nearly every query is a state of its own, which shows what it showed: raw counts.
    Above 2,000 distinct vectors performance is rounded (see `performances`).

    Right in the limit of many rows, whatever the shape of the dependence, and wasteful before: states share nothing,
    and there are 2^N of them.  Mean regret in 15 known worlds is 7.4 / 2.0 / .62 / .19 points at
    n = 50 / 200 / 1,000 / 5,000; `Patterns`, the same with shrinkage, has 2.8 / 1.0 / .48 / .18, `Copula`
    2.2 / .88 / .38 / .26.  On real logs: docs/quality.md.
    """

    def observe(self, coded: CodedLog) -> ObservationModel:
        """A hidden state for each distinct performance vector."""
        found = performances(coded)
        return _observe(found, np.eye(len(found.weight)))


@dataclass(eq=False, repr=False)
class AutoMixKDE(HiddenStateModel):
    """AutoMix with P(o | s) = P(s, o) / P(s) by Gaussian kernels over performance vectors.

    All kernels have the covariance of the performance vectors times bandwidth² n^(-2 / (d + 4)), d being the number
    of answers (Scott's rule, as in scipy.stats.gaussian_kde); directions in which they do not vary are left out.

    Where performance is right or wrong, kernels hardly reach from one vector to the next once there are some hundreds
    of rows, and this is `AutoMixCounts`; with 50 rows its mean regret in 15 known worlds is 4.6 points instead of 7.4.
    On real logs: docs/quality.md.

    Args:
        bandwidth: a factor on Scott's rule.
        states: the most hidden states; above it performance is rounded as far as needed, to right or wrong at the most.
    """

    bandwidth: float = 1.0
    states: int = MOST_STATES

    def observe(self, coded: CodedLog) -> ObservationModel:
        """A hidden state for each distinct performance vector."""
        at_least(NARROWEST, self, "bandwidth")
        at_least(1, self, "states")
        found = performances(coded, self.states)
        return _observe(found, _kernel(found, self.bandwidth))


def _observe(found: Performances, kernel: Floats) -> ObservationModel:
    """Every state as the kernel [S, S] averages over the training queries of all states; its quality is its own."""
    coded = found.coded
    near = kernel @ found.weight

    def price(_: int, column: Floats) -> Floats:
        return np.asarray(kernel @ found.total(column) / near)

    return ObservationModel(
        coded.ladders,
        found.weight / found.weight.sum(),
        tuple(kernel @ found.tally(position, size) / near[:, None] for _, position, size in rungs_of(coded)),
        quality_given(coded, found.value),
        prices_given(coded, price),
        later_given(coded, found.value),
    )


def _kernel(found: Performances, bandwidth: float) -> Floats:
    """Gaussian kernels around all states, at all states [S, S], 1 where they are centred."""
    rows = found.weight.sum()
    apart = found.value - found.weight @ found.value / rows
    variance, axes = np.linalg.eigh((found.weight * apart.T) @ apart / max(rows - 1.0, 1.0))
    varied = variance > 1e-9
    width = bandwidth * rows ** (-1.0 / (found.value.shape[1] + 4))
    white = apart @ axes[:, varied] / (width * np.sqrt(variance[varied]))
    return np.asarray(np.exp(-0.5 * cdist(white, white, "sqeuclidean")))
