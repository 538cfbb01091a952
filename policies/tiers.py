"""The sources of a cascade, as a policy knows them: name, price, readings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Points", "Reading", "Tier", "fused_score"]


@dataclass(frozen=True, slots=True)
class Points:
    """What one reading adds to a fused score: ``points[b]`` where cuts[b-1] <= confidence < cuts[b], ``missing`` where
    it is missing."""

    reading: str
    cuts: tuple[float, ...]
    points: tuple[float, ...]  # one more than cuts
    missing: float


@dataclass(frozen=True, slots=True)
class Reading:
    """One confidence that can be read in a tier's answer.

    One with ``parts`` is fused: the sum of the points of other readings of the same answer, which come with it.

    ``price`` is its mean price, 0 where it comes with the answer.  ``cuts`` and ``counts`` are the histogram of the
    log that the policy was fitted on, against which drift is judged: counts of confidence < cuts[0], of each bin
    [cuts[b-1], cuts[b]), of the last bin, and of missing readings (len(cuts) + 2 of them).

    Where ``votes`` is not 0 the reading is a share of at most so many votes, and ``price`` that of all of them.  They
    can be asked for one by one, and are told as (yes, asked).

    A ``sample`` changes the answer: once it was read, accepting the tier means the answer that came with it.
    """

    name: str
    price: float
    cuts: tuple[float, ...]
    counts: tuple[int, ...]
    parts: tuple[Points, ...] = ()
    votes: int = 0
    sample: bool = False


@dataclass(frozen=True, slots=True)
class Tier:
    """A model of the cascade: its name, its mean price per call, and its readings in the order they are bought.

    One without an answer is a signal: nothing is called and nothing accepted, and its readings can be bought once the
    answers of the tiers in ``needs`` are in hand.
    """

    name: str
    price: float
    readings: tuple[Reading, ...] = ()
    answer: bool = True
    needs: tuple[str, ...] = ()


def fused_score(parts: Sequence[Points], confidences: Sequence[float]) -> float:
    """The sum of the points of ``confidences``, one a part in their order, 1 at most; NaN or outside [0, 1] is missing.

    Points are rounded one by one, so that the most that they add up to may be a little above 1.
    """
    score = 0.0
    for part, confidence in zip(parts, confidences, strict=True):
        known = 0.0 <= confidence <= 1.0
        score += part.points[bisect_right(part.cuts, confidence)] if known else part.missing
    return min(score, 1.0)
