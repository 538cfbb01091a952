"""The default estimator: a one-factor copula for what confidences do together, times ridge-logistic quality.

Confidences of one query are correlated (hard for one tier is hard for all), and so are the tiers' errors.  Taking
readings as independent given each tier's own correctness counts that evidence twice.  Here the bins of all readings
follow from one hidden difficulty (and, where a tier has several readings, one more of its own), and each tier's
quality is a logistic function of *all* readings: its own weakly penalised, those of other tiers more, squares and
products most.  Everything is deterministic: Gauss-Hermite quadrature, no sampling.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri
from sklearn.linear_model import LogisticRegression, PoissonRegressor

from metaverify.fitting.coding import CodedLog
from metaverify.fitting.ladders import leaf_shape
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.table import JointTable

__all__ = ["Copula"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STRONGEST = 0.95  # of a factor loading
NODES = 21  # of the quadrature over the shared factor
TIER_NODES = 9  # of the one over a tier's own


@dataclass(eq=False, repr=False)
class Copula(TableModel):
    """The estimator's options: ridge penalties, in units of one row's log-likelihood (the inverse of a prior variance).

    Args:
        own: on a tier's own scores and on what a missing reading says.
        cross: on the scores of other tiers.
        curved: on squares and products of scores.
        price_range: prices are kept within this factor of their mean.
    """

    own: float = 1.0
    cross: float = 4.0
    curved: float = 30.0
    price_range: float = 8.0

    def table(self, coded: CodedLog) -> JointTable:
        """The joint table of the coded rows, contexts not told apart."""
        axes = _axes(coded)
        mass = _mass(coded, axes)
        features = _Features(coded, axes, self)
        quality = {place: (mass * features.quality(place[0], q))[None] for place, q in coded.answers.items()}
        first = tuple(quality.get((source, 0)) for source in range(len(coded.ladders)))
        price = tuple(
            tuple(self._price(features, source, column, mass) for column in rungs)
            for source, rungs in enumerate(coded.price)
        )
        later = {place: quality[place] for place in coded.later}
        return JointTable(coded.ladders, mass[None], first, price, later=later)

    def _price(self, features: _Features, source: int, column: Floats, mass: Floats) -> float | Floats:
        if (column == column[0]).all():
            return float(column[0])
        return np.asarray((mass * features.price(source, column))[None])


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """One reading: an axis of the table."""

    source: int
    position: int  # among the rungs of all ladders
    edges: Floats  # [bins + 1], normal quantiles of the bins' edges
    score: Floats  # [bins + 1], the mean normal score of a bin; 0 for a missing reading
    missing: float  # share


def _axes(coded: CodedLog) -> list[_Axis]:
    axes, position = [], 0
    for source, ladder in enumerate(coded.ladders):
        for rung in ladder.rungs:
            if rung.reading is not None:
                axes.append(_axis(source, position, coded.codes[position], coded.weights, rung.size))
            position += 1
    return axes


def _axis(source: int, position: int, codes: Ints, weights: Floats, size: int) -> _Axis:
    count = np.bincount(codes, weights=weights, minlength=size)
    seen = count[:-1] + 0.5 / (size - 1)  # half a row over all bins: no edge at infinity but the outer ones
    share = seen / seen.sum()
    edges = np.concatenate([[-np.inf], ndtri(np.cumsum(share)[:-1]), [np.inf]])
    density = np.exp(-0.5 * edges**2) / np.sqrt(2 * np.pi)
    score = (density[:-1] - density[1:]) / share
    return _Axis(source, position, edges, np.append(score, 0.0), float(count[-1] / count.sum()))


# ------------------------------------------------------------------------------------------------ P(o)


def _mass(coded: CodedLog, axes: list[_Axis]) -> Floats:
    """P(o) over the leaves [*leaf]."""
    shape = leaf_shape(coded.ladders)
    if not axes:
        return np.ones(shape)
    correlation = _correlations(coded, axes)
    source = np.array([axis.source for axis in axes])
    shared = _loadings(correlation, source[:, None] != source[None, :])
    own = _own_loadings(correlation - np.outer(shared, shared), source)
    nodes, weights = _gauss_hermite(NODES)
    given = [  # a source: [nodes, its leaves]
        _given(nodes, [(axes[a], shared[a], own[a]) for a in np.flatnonzero(source == s)])
        for s in range(len(coded.ladders))
    ]
    total: Floats = given[0] * weights[:, None]
    for at, block in enumerate(given[1:], start=1):
        if at < len(given) - 1:
            total = (total[:, :, None] * block[:, None, :]).reshape(len(nodes), -1)
        else:
            total = total.T @ block
    mass = np.asarray(total if len(given) > 1 else total.sum(axis=0)).reshape(shape)
    return mass / float(mass.sum())


def _correlations(coded: CodedLog, axes: list[_Axis]) -> Floats:
    """Correlations of the normal scores [axes, axes], corrected for what binning takes off."""
    scores = np.stack([axis.score[coded.codes[axis.position]] for axis in axes])
    seen = np.stack([coded.codes[axis.position] < len(axis.score) - 1 for axis in axes]).astype(np.float64)
    both = (seen * coded.weights) @ seen.T
    cross = (scores * coded.weights) @ scores.T  # a missing reading has score 0
    spread = np.array([float(axis.score[:-1] ** 2 @ np.diff(ndtr(axis.edges))) for axis in axes])
    reliable = np.maximum(np.outer(spread, spread), 1e-9) * np.maximum(both, 1e-9)
    shrink = both / (both + 10.0)  # ten rows' worth of no correlation
    return np.asarray(np.clip(shrink * cross / reliable, -STRONGEST, STRONGEST))


def _loadings(correlation: Floats, apart: NDArray[np.bool_]) -> Floats:
    """Loadings a with a_r a_q closest, in squares, to the correlations of axes that are ``apart``."""
    target = np.where(apart, correlation, 0.0)
    loading: Floats = np.sqrt(np.clip(np.abs(target).max(axis=1), 0.0, STRONGEST))
    if not apart.any():
        return np.zeros(len(loading))
    for _ in range(200):
        pull, weight = target @ loading, apart @ loading**2
        loading = 0.5 * loading + 0.5 * np.clip(pull / np.maximum(weight, 1e-9), -STRONGEST, STRONGEST)
    return np.round(loading, 6)


def _own_loadings(rest: Floats, source: Ints) -> Floats:
    """Loadings on each tier's own factor, for what the shared one leaves between several readings of one tier."""
    alike = (source[:, None] == source[None, :]) & ~np.eye(len(source), dtype=bool)
    return np.clip(_loadings(np.maximum(rest, 0.0), alike), 0.0, STRONGEST)


def _given(nodes: Floats, readings: list[tuple[_Axis, float, float]]) -> Floats:
    """P(outcomes of one source's rungs | shared factor), [nodes, leaves of the source]."""
    inner, weights = _gauss_hermite(TIER_NODES) if len(readings) > 1 else (np.zeros(1), np.ones(1))
    joint = np.ones((len(nodes), len(inner), 1))
    for axis, shared, own in readings:
        rest = np.sqrt(max(1.0 - shared**2 - own**2, 1.0 - STRONGEST**2))
        centre = shared * nodes[:, None] + own * inner[None, :]
        below = ndtr((axis.edges - centre[..., None]) / rest)  # [nodes, inner, bins + 1]
        outcome = np.concatenate([np.diff(below) * (1 - axis.missing), np.full((*centre.shape, 1), axis.missing)], -1)
        joint = (joint[..., :, None] * outcome[..., None, :]).reshape(len(nodes), len(inner), -1)
    return np.asarray(np.einsum("fgl,g->fl", joint, weights))


def _gauss_hermite(count: int) -> tuple[Floats, Floats]:
    """Nodes and weights for expectations under the standard normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes, weights / weights.sum()


# ------------------------------------------------------------------------------------------- E[quality | o]


_Term = tuple[tuple[int, ...], Floats, float]
"""The axes that a term reads, its values over their outcomes, and its penalty."""


class _Features:
    """Scores, missing flags, squares and products of readings: fitted on distinct cells, predicted on all leaves."""

    def __init__(self, coded: CodedLog, axes: list[_Axis], options: Copula) -> None:
        self._coded, self._axes, self._options = coded, axes, options
        self._shape = leaf_shape(coded.ladders)
        self._cells, self._member = np.unique(coded.cells(), return_inverse=True)
        self._weight = np.bincount(self._member, weights=coded.weights)
        self._codes = np.unravel_index(self._cells, self._shape)

    def quality(self, source: int, quality: Floats) -> Floats:
        """E[quality of a source's answer | o] over the leaves [*leaf], by logistic regression."""
        right = np.bincount(self._member, weights=self._coded.weights * quality)
        wrong = self._weight - right
        if min(right.sum(), wrong.sum()) < 1e-9 * self._weight.sum():
            return np.full(self._shape, (right.sum() + 0.5) / (self._weight.sum() + 1.0))
        terms = self._terms(source)
        design, scale = self._design(terms)
        if design.shape[1] == 0:
            return np.full(self._shape, right.sum() / self._weight.sum())
        model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-8, max_iter=200)
        label = np.repeat([1, 0], len(design))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(np.vstack([design, design]), label, sample_weight=np.concatenate([right, np.maximum(wrong, 0)]))
        return np.asarray(
            expit(self._predict(terms, np.round(model.intercept_[0], 6), np.round(model.coef_[0] * scale, 6)))
        )

    def price(self, source: int, price: Floats) -> Floats:
        """E[price | o] over the leaves [*leaf], by log-linear regression (Poisson pseudo-likelihood)."""
        mean = float(self._coded.weights @ price / self._weight.sum())
        terms = self._terms(source)
        design, scale = self._design(terms)
        if design.shape[1] == 0:
            return np.full(self._shape, mean)
        ratio = np.bincount(self._member, weights=self._coded.weights * price) / self._weight / mean
        model = PoissonRegressor(alpha=1.0 / self._weight.sum(), solver="newton-cholesky", tol=1e-8, max_iter=200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(design, ratio, sample_weight=self._weight)
        factor = np.exp(self._predict(terms, np.round(model.intercept_, 6), np.round(model.coef_ * scale, 6)))
        return np.asarray(mean * np.clip(factor, 1 / self._options.price_range, self._options.price_range))

    def _terms(self, source: int) -> list[_Term]:
        terms: list[_Term] = []
        options = self._options
        for at, axis in enumerate(self._axes):
            linear = options.own if axis.source == source else options.cross
            terms.append(((at,), axis.score, linear))
            terms.append(((at,), np.append(axis.score[:-1] ** 2 - 1.0, 0.0), options.curved))
            if axis.missing > 0:
                terms.append(((at,), np.append(np.zeros(len(axis.score) - 1), 1.0), options.own))
            for before in range(at):
                product = np.multiply.outer(self._axes[before].score, axis.score)
                terms.append(((before, at), product, options.curved))
        return terms

    def _design(self, terms: list[_Term]) -> tuple[Floats, Floats]:
        """Values of the terms at the distinct cells [cells, terms], divided by the root of their penalties [terms]."""
        scale = 1.0 / np.sqrt([penalty for *_, penalty in terms])
        columns = [values[tuple(self._codes[self._axes[a].position] for a in on)] for on, values, _ in terms]
        if not columns:
            return np.empty((len(self._cells), 0)), scale
        return np.column_stack(columns) * scale, scale

    def _predict(self, terms: list[_Term], intercept: float, coefficients: Floats) -> Floats:
        """The linear predictor over all leaves, [*leaf]: a sum of small arrays broadcast along their axes."""
        total = np.full(self._shape, intercept)
        for (on, values, _), coefficient in zip(terms, coefficients, strict=True):
            shape = [1] * len(self._shape)
            for a in on:
                shape[self._axes[a].position] = self._shape[self._axes[a].position]
            total += coefficient * values.reshape(shape)
        return total
