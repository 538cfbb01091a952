"""Raw counts: the log itself as a joint table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metaverify.fitting.coding import CodedLog, Floats
from metaverify.fitting.ladders import leaf_shape
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.table import JointTable

__all__ = ["Counts"]


@dataclass(eq=False, repr=False)
class Counts(TableModel):
    """Shares and means of the log's own cells.

    Exact on the log that it is made from: the solver's value is what replay earns.  On new queries it is right only
    where every cell has many rows, so few tiers, few bins, much data.
    """

    def table(self, coded: CodedLog) -> JointTable:
        """The joint table of the coded rows, contexts not told apart."""
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
        )
