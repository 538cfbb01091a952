"""Contexts: what is known of a query before any call, and a table for each, pooled with the others'."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from metaverify.fitting.coding import CodedLog
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.table import JointTable, average, combine

__all__ = ["KAPPA", "Pooling", "contextual_table", "quality_offsets"]

Floats = NDArray[np.float64]

Pooling = Literal["average", "offsets"]
"""How a context's table is pooled with the others'."""

KAPPA = 100.0
"""Rows of pooled evidence that stand beside a context's own; robust, and no better when cross-validated."""

FEWEST = 20  # rows below which a context has no table of its own

SPREAD = 0.5
"""Standard deviation, in logits, that a tier's offset in a context is expected to have."""

SURE = 1e-9  # how near to 0 and 1 qualities are taken when offsets are sought, so that no row is a proof
STEPS = 100  # of Newton's method; what rounding leaves to do after so many is not worth one more


def contextual_table(
    model: TableModel, coded: CodedLog, *, kappa: float = KAPPA, pooling: Pooling = "average"
) -> JointTable:
    """The pooled table, and beside it one for each context c; a table without contexts is the special case of none.

    With "average" a context's table is T_c = (n_c T_c + kappa T) / (n_c + kappa).  With "offsets" its masses and prices
    are those, and its quality given the readings is the pooled one, moved by one offset for each tier s (see
    `quality_offsets`): mass_c(o) expit(logit q_s(o) + d_cs).

    Offsets ask less of a small context than a table of its own does; neither is better in general, so the simpler one
    is the default.
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
    table = combine(tables, np.concatenate, contexts=coded.contexts, share=share)
    return table if pooling == "average" else _moved(table, coded)


def quality_offsets(coded: CodedLog, source: int, given: Floats) -> Floats:
    """The offset of a tier's quality in each context, [contexts]: two-level logistic regression.

    d_c maximises sum_i w_i (y_i log p_i + (1 - y_i) log(1 - p_i)) - d_c^2 / (2 SPREAD^2) over the context's rows, where
    p_i = expit(logit q_i + d_c); 0 where it has none.  Newton's steps, all contexts at once, none above 1: the slope's
    derivative changes by less than a factor e over a step, which is near enough for the next one to be closer.

    Args:
        coded: the rows, with their contexts.
        source: position of the tier.
        given: [rows], the quality q that the pooled table expects of each given its readings.
    """
    quality = coded.quality[source]
    assert quality is not None, "a signal has no quality"
    known = coded.context >= 0
    context, weights = coded.context[known], coded.weights[known]
    right, before = quality[known], logit(np.clip(given[known], SURE, 1.0 - SURE))
    offsets = np.zeros(len(coded.contexts))
    for _ in range(STEPS):
        p = expit(before + offsets[context])
        slope = np.bincount(context, weights * (right - p), len(offsets)) - offsets / SPREAD**2
        curvature = np.bincount(context, weights * p * (1.0 - p), len(offsets)) + SPREAD**-2
        step = np.clip(slope / curvature, -1.0, 1.0)
        offsets = offsets + step
        if (np.abs(step) < 1e-12).all():
            break
    return np.round(offsets, 9)


def _moved(table: JointTable, coded: CodedLog) -> JointTable:
    """The table with each context's qualities those of the pooled row, moved by their offsets."""
    mass, cells = table.mass, coded.cells()
    quality = []
    for source, worth in enumerate(table.quality):
        if worth is not None:
            given = np.divide(worth[0], mass[0], out=np.full(mass[0].shape, worth[0].sum()), where=mass[0] > 0.0)
            offsets = quality_offsets(coded, source, given.ravel()[cells])
            before = logit(np.clip(given, 0.0, 1.0))
            moved = [own * expit(before + offset) for own, offset in zip(mass[1:], offsets, strict=True)]
            worth = np.stack([worth[0], *moved])
        quality.append(worth)
    return replace(table, quality=tuple(quality))
