"""The joint table: how often every combination of outcomes comes, and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.ladders import Ladder, Place, leaf_shape

__all__ = ["UNSEEN", "JointTable", "at_once", "average", "back_off", "combine"]

Floats = NDArray[np.float64]

UNSEEN = 2.0**-48
"""The share of its neighbours' mass that an outcome gets beside its own: enough to decide where nothing was seen,
too little to be felt where something was."""


@dataclass(frozen=True, slots=True, eq=False)
class JointTable:
    """Expectations over the leaves of the ladders: every rung of every source climbed.

    The first axis of every array is the context, pooled first: row 0 is what is known of a query whose context
    is unknown, rows 1.. are ``contexts``.  The other axes are the rungs of the ladders, in order (*leaf).
    Everything is linear: an inner information state is a sum over leaves, an average of tables is a table.
    """

    ladders: tuple[Ladder, ...]
    mass: Floats  # [1 + contexts, *leaf]: P(o)
    quality: tuple[Floats | None, ...]  # a source: [1 + contexts, *leaf], E[quality of its first answer · 1{o}]
    price: tuple[tuple[float | Floats, ...], ...]  # a source, a rung: a constant, or E[price · 1{o}] likewise
    contexts: tuple[str, ...] = ()
    share: tuple[float, ...] = (1.0,)  # of traffic, a row each; they sum to 1
    later: Mapping[Place, Floats] = field(default_factory=dict)
    """A rung that is a sample: E[quality of its source's answer once that rung is climbed · 1{o}] likewise."""

    def __post_init__(self) -> None:
        shape = (1 + len(self.contexts), *leaf_shape(self.ladders))
        prices = [p for rungs in self.price for p in rungs if isinstance(p, np.ndarray)]
        for array in (self.mass, *self.answers.values(), *prices):
            if array.shape != shape:
                raise ValueError(f"a table over these ladders has shape {shape}, not {array.shape}")
        if len(self.share) != shape[0] or not math.isclose(sum(self.share), 1.0, abs_tol=1e-9):
            raise ValueError(f"share needs {shape[0]} entries that sum to 1, not {self.share}")

    @property
    def answers(self) -> dict[Place, Floats]:
        """E[quality of each answer · 1{o}], by the rung that it comes with."""
        return {(source, 0): q for source, q in enumerate(self.quality) if q is not None} | dict(self.later)


def combine(
    tables: Sequence[JointTable],
    how: Callable[[list[Floats]], Floats],
    *,
    contexts: tuple[str, ...] = (),
    share: tuple[float, ...] = (1.0,),
) -> JointTable:
    """The table whose every array is what ``how`` makes of the tables' arrays; a constant that all share stays one."""
    first = tables[0]

    def price(prices: list[float | Floats]) -> float | Floats:
        if all(isinstance(p, float) and p == prices[0] for p in prices):
            return prices[0]
        return how([p if isinstance(p, np.ndarray) else p * t.mass for p, t in zip(prices, tables, strict=True)])

    return JointTable(
        first.ladders,
        how([t.mass for t in tables]),
        tuple(
            None if first.quality[s] is None else how([q for t in tables if (q := t.quality[s]) is not None])
            for s in range(len(first.ladders))
        ),
        tuple(
            tuple(price([t.price[s][j] for t in tables]) for j in range(len(ladder.rungs)))
            for s, ladder in enumerate(first.ladders)
        ),
        contexts,
        share,
        {place: how([t.later[place] for t in tables]) for place in first.later},
    )


def average(tables: Sequence[JointTable], weights: Sequence[float]) -> JointTable:
    """The average of tables over the same ladders and contexts."""
    total = sum(weights)

    def mean(arrays: list[Floats]) -> Floats:
        return np.asarray(sum(w * a for w, a in zip(weights, arrays, strict=True)) / total)

    return combine(tables, mean, contexts=tables[0].contexts, share=tables[0].share)


def at_once(table: JointTable) -> JointTable:
    """The same table where votes are had all at once, or not at all."""
    return replace(table, ladders=tuple(ladder.at_once for ladder in table.ladders))


def back_off(table: JointTable) -> JointTable:
    """The same table, with an infinitesimal share of what is known without a reading given to each of its outcomes.

    Where an outcome was never seen in some state (a reading that never went missing, an empty cell), the best
    decision is then the best one in ignorance of that reading; elsewhere nothing changes beyond rounding.
    """

    def spread(array: Floats) -> Floats:
        for axis in range(1, array.ndim):
            if array.shape[axis] > 1:
                array = array + UNSEEN * array.sum(axis=axis, keepdims=True)
        return array

    return replace(
        table,
        mass=spread(table.mass),
        quality=tuple(None if q is None else spread(q) for q in table.quality),
        price=tuple(tuple(spread(p) if isinstance(p, np.ndarray) else p for p in rungs) for rungs in table.price),
        later={place: spread(q) for place, q in table.later.items()},
    )
