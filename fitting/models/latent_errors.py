"""How sure latent classes are of each tier's quality: standard errors that what was not seen, and groups, widen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag
from scipy.sparse import csr_array
from scipy.special import expit, logit, softmax

from metaverify.fitting.coding import CodedLog
from metaverify.fitting.models.latent import FAINTEST, ONE_ROW, Expectation, LatentClasses, Maximiser, Mixture

__all__ = ["TierQuality", "tier_qualities"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEP = 1e-4  # of a logit, in the differences of the score
CHUNK = 4096  # groups whose scores are summed at once


@dataclass(frozen=True, slots=True)
class TierQuality:
    """The mean quality of a tier's answers to all queries, by latent classes, and its standard error."""

    mean: float
    error: float


def tier_qualities(model: LatentClasses, coded: CodedLog, groups: Ints) -> dict[str, TierQuality]:
    """The quality of each tier's first answer over all queries, seen or not, by tier; ``groups`` [n] counts from 0.

    A row's score is the expectation of its complete-data score given what was seen (Fisher's identity; Louis 1982); J,
    what the sum of scores and of the penalty's, P its part, loses with the parameters, is found by central differences,
    and so is less for what is missing.  What the penalty took off is given back by one Newton step, J⁻¹ Σ s, which
    leaves the covariance K (Σ s_g s_gᵀ) Kᵀ over groups g, with K = J⁻¹ (I + P J⁻¹).  Of a direction in which J knows
    less than a row would tell, it is taken for one row.

    Right where the classes are, whatever else is missing at random.  Without that step 90 % intervals held the truth in
    30 to 60 % of 25 to 40 draws of 4,000 and 20,000 queries of two worlds, with it in 80 to 96 %.
    """
    em = model.maximiser(coded)
    rows, found = em.rows, model.likeliest(em)
    layout = _Layout(found)
    at = layout.flat(found)
    steps = (layout.total(em, at + h) - layout.total(em, at - h) for h in np.eye(len(at)) * STEP)
    lost = -np.stack(list(steps), axis=1) / (2.0 * STEP)
    known, way = np.linalg.eigh((lost + lost.T) / 2.0)
    inverse = (way / np.maximum(known, ONE_ROW)) @ way.T
    penalty = layout.penalty(found, em.own)
    scores = layout.scores(em, em.expect(found), found)  # [R, P]
    spread = _squares(scores, rows.member, coded.weights, groups)
    told = {}
    for a, place in enumerate(rows.answers):
        if place[1] > 0:  # a sample
            continue
        first = inverse @ layout.slope(found, a)
        both = first + inverse @ (penalty @ first)
        mean = float(found.share @ found.right[:, a] + first @ (rows.weight @ scores))
        told[coded.ladders[place[0]].source] = TierQuality(
            min(max(mean, 0.0), 1.0), float(np.sqrt(both @ spread @ both))
        )
    return told


def _squares(scores: Floats, member: Ints, weights: Floats, groups: Ints) -> Floats:
    """Σ over groups of the outer square of a group's score, but for the mean, [P, P]."""
    count = int(groups.max()) + 1
    of = csr_array((weights, (groups, member)), shape=(count, len(scores)))
    mean = np.asarray((of.T @ np.ones(count)) @ scores) / count
    total = np.zeros((scores.shape[1],) * 2)
    for first in range(0, count, CHUNK):
        part = of[first : first + CHUNK] @ scores - mean
        total += part.T @ part
    return np.asarray(total * count / max(count - 1, 1))


class _Layout:
    """The parameters of a mixture in a row of logits: shares, right answers, emissions by rung."""

    def __init__(self, found: Mixture) -> None:
        self._found = found
        self._classes, self._answers = found.right.shape

    def flat(self, of: Mixture) -> Floats:
        """A mixture as logits, [P]."""
        parts = [np.log(of.share), logit(of.right).reshape(-1)]
        parts += [np.log(np.maximum(emission, FAINTEST)).reshape(-1) for emission in of.emission]
        return np.concatenate(parts)

    def mixture(self, at: Floats) -> Mixture:
        """The mixture of logits [P]."""
        ends = np.cumsum([self._classes, self._found.right.size, *(e.size for e in self._found.emission)])
        share, right, *emission = np.split(at, ends[:-1])
        return Mixture(
            softmax(share),
            expit(right).reshape(self._found.right.shape),
            tuple(softmax(e.reshape(of.shape), axis=-1) for e, of in zip(emission, self._found.emission, strict=True)),
        )

    def total(self, em: Maximiser, at: Floats) -> Floats:
        """The score of all rows with the penalty's, [P]: 0 where the mixture is likeliest."""
        of = self.mixture(at)
        step = em.expect(of)
        weight = em.rows.weight
        count = weight @ step.belief
        right = np.stack([weight @ step.split(a)[1] for a in range(self._answers)], axis=1)
        parts = [count + ONE_ROW - (count + ONE_ROW).sum() * of.share]
        parts.append((right + ONE_ROW * em.mean - (count[:, None] + ONE_ROW) * of.right).reshape(-1))
        for given, centre, emission in zip(em.counts(step), em.centre, of.emission, strict=True):
            known = given.sum(axis=-1, keepdims=True) + em.own
            parts.append((given + em.own * centre - known * emission).reshape(-1))
        return np.concatenate(parts)

    def scores(self, em: Maximiser, step: Expectation, of: Mixture) -> Floats:
        """The score of each distinct row, without the penalty, [R, P]."""
        parts = [step.belief - of.share]
        parts.append(
            np.stack([step.split(a)[1] - step.belief * of.right[:, a] for a in range(self._answers)], axis=2).reshape(
                len(step.belief), -1
            )
        )
        for about, emission, code in zip(em.about, of.emission, em.rows.codes, strict=True):
            sides = np.stack(step.split(about), axis=2) * (code >= 0)[:, None, None]  # [R, Z, 2]
            shown = code[:, None] == np.arange(emission.shape[-1])  # [R, outcomes]
            parts.append((sides[..., None] * (shown[:, None, None, :] - emission)).reshape(len(code), -1))
        return np.concatenate(parts, axis=1)

    def penalty(self, of: Mixture, own: float) -> Floats:
        """The information of the penalty, [P, P]."""

        def spread(shares: Floats) -> Floats:
            return np.diag(shares) - np.outer(shares, shares)

        blocks = [ONE_ROW * self._classes * spread(of.share), ONE_ROW * np.diag((of.right * (1.0 - of.right)).ravel())]
        blocks += [
            own * spread(shares) for emission in of.emission for shares in emission.reshape(-1, emission.shape[-1])
        ]
        return np.asarray(block_diag(*blocks), dtype=np.float64)

    def slope(self, of: Mixture, answer: int) -> Floats:
        """How the quality of an answer changes with the logits, [P]."""
        right = of.right[:, answer]
        slope = np.zeros(len(self.flat(of)))
        slope[: self._classes] = of.share * (right - of.share @ right)
        at = self._classes + np.arange(self._classes) * self._answers + answer
        slope[at] = of.share * right * (1.0 - right)
        return slope
