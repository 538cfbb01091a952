"""Raw counts: the log itself as a joint table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from metaverify.fitting.coding import CodedLog, Floats
from metaverify.fitting.ladders import leaf_shape
from metaverify.fitting.models.base import TableModel, at_least
from metaverify.fitting.table import JointTable, average

__all__ = ["Counts"]


@dataclass(eq=False, repr=False)
class Counts(TableModel):
    """Shares and means of the log's own cells.

    Exact on the log that it is made from: the solver's value is what replay earns.  On new queries it is right only
    where every cell has many rows, so few tiers, few bins, much data: mean regret (see `tests/benchmarks/regret.py`) in
    15 known worlds is 9.5 / 6.2 / 3.7 / 1.5 points at n = 50 / 200 / 1,000 / 5,000, where `Copula` has
    2.2 / .9 / .4 / .3; with a strength of 200 it is 4.2 / 1.9 / 1.3 / .7.

    Args:
        strength: rows, beside the log's own, of a log in which sources have nothing to do with each other: each has
            the outcomes, qualities and prices that its own rungs show, whatever comes out elsewhere.  At 0 the table
            is the log's exactly.
    """

    strength: float = 0.0

    def table(self, coded: CodedLog) -> JointTable:
        """The joint table of the coded rows, contexts not told apart."""
        at_least(0.0, self, "strength")
        counted = _count(coded)
        if self.strength == 0.0:
            return counted
        return average([counted, _independent(counted)], [float(coded.weights.sum()), self.strength])


def _count(coded: CodedLog) -> JointTable:
    shape = (1, *leaf_shape(coded.ladders))
    cells, leaves = coded.cells(), coded.leaves()
    share = coded.weights / coded.weights.sum()

    def total(values: Floats) -> Floats:
        return np.asarray(np.bincount(cells, weights=share * values, minlength=leaves), np.float64).reshape(shape)

    def price(column: Floats) -> float | Floats:
        return float(column[0]) if (column == column[0]).all() else total(column)

    return JointTable(
        coded.ladders,
        total(np.ones(len(coded))),
        tuple(None if q is None else total(q) for q in coded.quality),
        tuple(tuple(price(column) for column in rungs) for rungs in coded.price),
        later={place: total(q) for place, q in coded.later.items()},
    )


def _independent(table: JointTable) -> JointTable:
    """The table with the same sources, each as it is by itself, independent of each other."""
    sizes = [math.prod(ladder.sizes) for ladder in table.ladders]

    def own(array: Floats, source: int) -> Floats:  # summed over the rungs of all other sources
        return np.asarray(array.reshape(math.prod(sizes[:source]), sizes[source], -1).sum(axis=(0, 2)))

    mass = [own(table.mass, source) for source in range(len(sizes))]

    def beside(source: int, array: Floats) -> Floats:
        product = np.ones(1)
        for at, part in enumerate(mass):
            product = np.multiply.outer(product, own(array, source) if at == source else part).reshape(-1)
        return product.reshape(table.mass.shape)

    return JointTable(
        table.ladders,
        beside(0, table.mass),
        tuple(None if q is None else beside(source, q) for source, q in enumerate(table.quality)),
        tuple(
            tuple(p if isinstance(p, float) else beside(source, p) for p in rungs)
            for source, rungs in enumerate(table.price)
        ),
        later={(source, rung): beside(source, q) for (source, rung), q in table.later.items()},
    )
