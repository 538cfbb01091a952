"""Performance: how good the answers of all sources to one query are, the hidden state of a cascade."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.coding import CodedLog
from metaverify.fitting.ladders import Place, in_hand

__all__ = [
    "MOST_STATES",
    "Performances",
    "distinct",
    "later_given",
    "patterns",
    "performances",
    "prices_given",
    "quality_given",
    "rungs_of",
    "shares",
    "shrunk",
    "subject",
    "summed",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_STATES = 2000
"""Distinct performance vectors above which qualities are rounded."""

MOST_ANSWERS = 14
"""Answers, samples counted too, of which every pattern of right and wrong is told apart."""

MOST_CELLS = 2**62
"""Up to which cells are numbered by products."""

FINEST = 64  # steps of the first grid to which they are rounded


@dataclass(frozen=True, slots=True, eq=False)
class Performances:
    """The distinct performance vectors of a log, in ascending order, and the queries that have each of them."""

    coded: CodedLog
    answers: tuple[Place, ...]  # by the rung that each comes with
    value: Floats  # [S, answers], quality
    weight: Floats  # [S], how many queries
    member: Ints  # [n], the vector of each query

    def total(self, values: Floats) -> Floats:
        """The weighted sum of ``values`` [n] over the queries of each vector, [S]."""
        return summed(self.member, self.coded.weights * values, len(self.weight))

    def tally(self, position: int, size: int) -> Floats:
        """How many queries of each vector had each outcome of the rung at ``position``, [S, size]."""
        cell = self.member * size + self.coded.codes[position]
        return summed(cell, self.coded.weights, len(self.weight) * size).reshape(-1, size)


def performances(coded: CodedLog, most: int = MOST_STATES) -> Performances:
    """The distinct performance vectors of a log.

    Where there are more than ``most``, qualities are rounded to a grid of 1/64, or 1/32, 1/16, … until there are not,
    at the coarsest to right or wrong; vectors that are equal then become one, at their mean.

    Raises:
        ValueError: some query's quality is not known.
    """
    answers = tuple(sorted(coded.answers))
    columns = [coded.answers[place] for place in answers]
    for (source, _), column in zip(answers, columns, strict=True):
        if (unknown := np.isnan(column)).any():
            raise ValueError(
                f"row {int(unknown.argmax()) + 1} of {coded.ladders[source].source!r}: its quality is not known; "
                "leave such rows out, or use LatentClasses, which can do without"
            )
    first, member = distinct(columns)
    grid = FINEST
    while len(first) > most and grid >= 1:
        first, member = distinct([np.round(column * grid) for column in columns])
        grid //= 2
    weight = summed(member, coded.weights, len(first))
    mean = [summed(member, coded.weights * column, len(first)) / weight for column in columns]
    return Performances(coded, answers, np.stack(mean, axis=1), weight, member)


def patterns(value: Floats) -> tuple[Floats, Floats]:
    """Every pattern of right and wrong [2^answers, answers], the last answer fastest, and the membership of each
    performance vector in it [S, 2^answers].

    A quality of q counts as right with the share q, answer by answer.

    Raises:
        ValueError: more than ``MOST_ANSWERS`` answers.
    """
    if (answers := value.shape[1]) > MOST_ANSWERS:
        fault = f"{answers} answers make {2**answers:,} patterns of right and wrong, {2**MOST_ANSWERS:,} at the most"
        raise ValueError(f"{fault}; name fewer tiers (--tiers) or fewer samples (--samples)")
    right = np.indices((2,) * value.shape[1]).reshape(value.shape[1], -1).T.astype(np.float64)
    member = np.ones((len(value), 1))
    for q in value.T:
        member = (member[:, :, None] * np.stack([1.0 - q, q], axis=1)[:, None, :]).reshape(len(value), -1)
    return right, member


def rungs_of(coded: CodedLog) -> Iterator[tuple[Place, int, int]]:
    """(the rung, its position among all rungs, its outcomes) of each rung, in order."""
    position = 0
    for source, ladder in enumerate(coded.ladders):
        for rung, size in enumerate(ladder.sizes):
            yield (source, rung), position, size
            position += 1


def subject(coded: CodedLog, place: Place) -> Place | None:
    """The answer that a rung's reading speaks of: its source's, or that of the first source that it needs; None for
    neither."""
    source, rung = place
    ladder = coded.ladders[source]
    if ladder.answer:
        return in_hand(coded.answers, source, rung + 1)
    names = [other.source for other in coded.ladders]
    return (names.index(ladder.needs[0]), 0) if ladder.needs else None


def quality_given(coded: CodedLog, value: Floats) -> tuple[Floats | None, ...]:
    """The column of ``value`` [Z, answers] for each source's first answer, None for one without."""
    columns = dict(zip(sorted(coded.answers), value.T, strict=True))
    return tuple(columns.get((source, 0)) for source in range(len(coded.ladders)))


def later_given(coded: CodedLog, value: Floats) -> dict[Place, Floats]:
    """The column of ``value`` [Z, answers] for each sample."""
    columns = dict(zip(sorted(coded.answers), value.T, strict=True))
    return {place: columns[place] for place in coded.later}


def prices_given(coded: CodedLog, expected: Callable[[int, Floats], Floats]) -> tuple[tuple[float | Floats, ...], ...]:
    """For each source and rung its price where that never varies, ``expected`` of source and prices [n] elsewhere."""

    def price(source: int, column: Floats) -> float | Floats:
        known = column[~np.isnan(column)]
        return float(known[0]) if (known == known[0]).all() else expected(source, column)

    return tuple(tuple(price(source, p) for p in rungs) for source, rungs in enumerate(coded.price))


def distinct(columns: Sequence[Floats | Ints]) -> tuple[Ints, Ints]:
    """The distinct rows of some columns [n] in ascending order: where each stands first, and which one each row is [n].

    `numpy.unique` of an integer that a row amounts to, which is many times quicker than that of the rows.
    """
    cells, count = np.zeros(len(columns[0]), dtype=np.int64), 1
    for column in columns:
        values, place = np.unique(column, return_inverse=True)
        if count * len(values) > MOST_CELLS:
            cells = np.unique(cells, return_inverse=True)[1]
            count = int(cells.max()) + 1
        cells, count = cells * len(values) + place, count * len(values)
    _, first, member = np.unique(cells, return_index=True, return_inverse=True)
    return first.astype(np.int64), member.astype(np.int64)


def summed(member: Ints, values: Floats, count: int) -> Floats:
    """The sum of ``values`` [n] over the members of each of ``count`` cells, [count]."""
    return np.asarray(np.bincount(member, weights=values, minlength=count), dtype=np.float64)


def shrunk(total: Floats, count: Floats, towards: Floats, rows: float) -> Floats:
    """Means, total / count, with ``rows`` rows of ``towards`` beside the counted; that alone where there are none."""
    beside = count + rows
    return np.where(beside > 0.0, (total + rows * towards) / np.where(beside > 0.0, beside, 1.0), towards)


def shares(count: Floats, towards: Floats, rows: float) -> Floats:
    """Shares of outcomes by counts [..., outcomes], with ``rows`` rows of the shares ``towards`` beside them."""
    return shrunk(count, count.sum(axis=-1, keepdims=True), towards, rows)
