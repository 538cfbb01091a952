"""Contexts: what is known of a query before any call, and a table for each, shrunk towards the pooled one."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from metaverify.fitting.coding import CodedLog, Floats
from metaverify.fitting.table import JointTable, average

__all__ = ["KAPPA", "TableEstimator", "contextual_table"]

KAPPA = 100.0
"""Rows of pooled evidence that stand beside a context's own; robust, and no better when cross-validated."""

FEWEST = 20  # rows below which a context has no table of its own


class TableEstimator(Protocol):
    """Anything that turns coded rows into a joint table plugs in."""

    def table(self, coded: CodedLog) -> JointTable:
        """The joint table of these rows, contexts not told apart: one row on its context axis."""
        ...


def contextual_table(estimator: TableEstimator, coded: CodedLog, *, kappa: float = KAPPA) -> JointTable:
    """The pooled table, and beside it T_c = (n_c T_c + kappa T) / (n_c + kappa) for each context c.

    A table without contexts is the special case of none.
    """
    pooled = estimator.table(coded)
    if not coded.contexts:
        return pooled
    tables, rows = [pooled], [0.0]
    for context in range(len(coded.contexts)):
        own = coded.take(coded.context == context)
        weight = float(own.weights.sum())
        rows.append(weight)
        tables.append(pooled if len(own) < FEWEST else average([estimator.table(own), pooled], [weight, kappa]))
    rows[0] = float(coded.weights.sum()) - sum(rows)
    return _stack(tables, coded.contexts, tuple(r / float(coded.weights.sum()) for r in rows))


def _stack(tables: list[JointTable], contexts: tuple[str, ...], share: tuple[float, ...]) -> JointTable:
    def stacked(arrays: list[Floats]) -> Floats:
        return np.concatenate(arrays, axis=0)

    def price(prices: list[float | Floats]) -> float | Floats:
        if all(isinstance(p, float) and p == prices[0] for p in prices):
            return prices[0]
        return stacked([p if isinstance(p, np.ndarray) else p * t.mass for p, t in zip(prices, tables, strict=True)])

    first = tables[0]
    return replace(
        first,
        mass=stacked([t.mass for t in tables]),
        quality=tuple(
            None if first.quality[s] is None else stacked([q for t in tables if (q := t.quality[s]) is not None])
            for s in range(len(first.ladders))
        ),
        price=tuple(
            tuple(price([t.price[s][j] for t in tables]) for j in range(len(ladder.rungs)))
            for s, ladder in enumerate(first.ladders)
        ),
        contexts=contexts,
        share=share,
    )
