"""Contexts: what is known of a query before any call, and a table for each, shrunk towards the pooled one."""

from __future__ import annotations

import numpy as np

from metaverify.fitting.coding import CodedLog
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.table import JointTable, average, combine

__all__ = ["KAPPA", "contextual_table"]

KAPPA = 100.0
"""Rows of pooled evidence that stand beside a context's own; robust, and no better when cross-validated."""

FEWEST = 20  # rows below which a context has no table of its own


def contextual_table(model: TableModel, coded: CodedLog, *, kappa: float = KAPPA) -> JointTable:
    """The pooled table, and beside it T_c = (n_c T_c + kappa T) / (n_c + kappa) for each context c.

    A table without contexts is the special case of none.
    """
    pooled = model.table(coded)
    if not coded.contexts:
        return pooled
    tables, rows = [pooled], [0.0]
    for context in range(len(coded.contexts)):
        own = coded.take(coded.context == context)
        weight = float(own.weights.sum())
        rows.append(weight)
        tables.append(pooled if len(own) < FEWEST else average([model.table(own), pooled], [weight, kappa]))
    rows[0] = float(coded.weights.sum()) - sum(rows)
    share = tuple(r / float(coded.weights.sum()) for r in rows)
    return combine(tables, np.concatenate, contexts=coded.contexts, share=share)
