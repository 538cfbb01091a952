"""Expressions: what a row of a frame means, said so that every engine can work it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import narwhals as nw
import polars as pl

from metaverify.simulators.cells import SCORE, Amount, Cells
from metaverify.simulators.columns import ReadingColumns
from metaverify.simulators.engines import BATCH
from metaverify.simulators.frames import Part

__all__ = [
    "Expr",
    "amount_columns",
    "confidence",
    "context_columns",
    "context_values",
    "digit_columns",
    "is_missing",
    "number",
]

Expr = nw.Expr


def number(column: str) -> Expr:
    """A column's value, missing values as they are."""
    return nw.col(column).cast(nw.Float64)


def is_missing(value: Expr) -> Expr:
    """Whether a number is null or NaN."""
    return value.is_null() | value.is_nan()


def confidence(reading: ReadingColumns, scale: float) -> Expr:
    """A reading, in [0, 1] if it keeps the rules."""
    raw = number(reading.confidence)
    return raw if scale == 1.0 else raw / scale


def digit_columns(part: Part, cells: Cells) -> dict[str, Expr]:
    """The value of each of `Cells.digits` in a row."""
    readings = {place: (reading, scale) for place, reading, scale in part.readings()}
    answers, names = part.answers(), list(cells.digits())
    found: list[Expr] = []
    for source in cells.sources:
        if source.answer:
            found.append((number(answers[source.name, None]) >= 0.5).cast(nw.Int64))
        for reading in source.readings:
            place = (source.name, reading.name)
            value = confidence(*readings[place])
            found.append(_bin(value, reading.edges, is_missing(value), len(reading.values)))
            if reading.sample:
                quality = number(answers[place])
                right = (quality >= 0.5).cast(nw.Int64)
                found.append(nw.when(is_missing(quality)).then(2).otherwise(right))
    return dict(zip(names, [*found, nw.col(BATCH).cast(nw.Int64)], strict=True))


def amount_columns(part: Part, cells: Cells) -> dict[str, Expr]:
    """What a row adds to each sum."""
    prices, answers = part.prices(), part.answers()
    weight = None if part.weight is None else number(part.weight)
    found: dict[str, Expr] = {}
    for name, place, amount in cells.amounts():
        if name == "weight":
            found[name] = _whole(number(part.weight or ""), amount, None)
            continue
        column = answers[place] if amount is SCORE else prices[place]
        value = number(column) if isinstance(column, str) else nw.lit(column or 0.0)
        if isinstance(column, str) and place[1] is not None:  # what is missing costs nothing
            value = nw.when(is_missing(value)).then(0.0).otherwise(value)
        found[name] = _whole(value, amount, weight)
    return found


def _whole(value: Expr, amount: Amount, weight: Expr | None) -> Expr:
    units = (value - amount.origin) * (1.0 / amount.unit)
    return ((units if weight is None else weight * units) + 0.5).floor().cast(nw.Int64)


def _bin(value: Expr, edges: Sequence[float], none: Expr, instead: int) -> Expr:
    """How many rising edges a value is not below, found by halving; where there is no value, another number."""
    narrow = nw.Int8() if max(len(edges), instead) < 128 else nw.Int64()

    def among(low: int, high: int) -> Expr:
        if low == high:
            return nw.lit(low, dtype=narrow)
        middle = (low + high) // 2
        return nw.when(value >= edges[middle]).then(among(middle + 1, high)).otherwise(among(low, middle))

    return nw.when(none).then(nw.lit(instead, dtype=narrow)).otherwise(among(0, len(edges))).cast(nw.Int64)


def context_columns(part: Part) -> dict[str, Expr]:
    """Each column of the context: a text, or the number of an interval."""
    found = {}
    for at, column in enumerate(part.context):
        if column in part.context_cuts:
            value, cuts = number(column), part.context_cuts[column]
            none = is_missing(value) | (value - value).is_nan()
            found[f"context {at}"] = _bin(value, cuts, none, len(cuts) + 1)
        else:
            found[f"context {at}"] = _text(column, part.frame.collect_schema()[column])
    return found


def _text(column: str, kind: Any) -> Expr:
    if kind == nw.Boolean:
        value = nw.col(column)
        told = nw.when(value).then(nw.lit("true")).otherwise(nw.lit("false"))
        return nw.when(value.is_null()).then(nw.lit("")).otherwise(told)
    value = nw.col(column)
    text = (value.fill_null(0).cast(kind) if kind.is_integer() else value).cast(nw.String)
    return nw.when(value.is_null()).then(nw.lit("")).otherwise(text)  # pandas makes 1.0 of a whole number among nulls


def context_values(part: Part, found: pl.DataFrame) -> dict[str, list[Any]]:
    """The values of `context_columns` in a query's result, by their own names."""
    return {column: found[f"context {at}"].to_list() for at, column in enumerate(part.context)}
