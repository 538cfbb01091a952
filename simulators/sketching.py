"""Sketching: the sketch of a log of any size in one pass over a lazy frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np

from metaverify.simulators.cells import Place
from metaverify.simulators.checks import TOO_DEAR
from metaverify.simulators.counts import labels_of
from metaverify.simulators.engines import collected
from metaverify.simulators.expressions import Expr, confidence, context_columns, context_values, is_missing, number
from metaverify.simulators.files import told_as_log_errors
from metaverify.simulators.frames import Options, Part, Source, parts_of
from metaverify.simulators.log import LogError
from metaverify.simulators.progress import Tell, silent
from metaverify.simulators.sketch import Histogram, Sketch, grid_cell

__all__ = ["sketch", "sketched"]


def sketch(source: Source, *, progress: Tell = silent, **options: Any) -> Sketch:
    """The sketch of a whole log: what its parts on several machines are to be counted over is made from the sum of
    their sketches.

    Args:
        source: as `count`.
        progress: as `count`.
        **options: those of `count` that are `read_log`'s.

    Raises:
        LogError: as `count`.
    """
    return sketched(parts_of(source, Options.of(**options)), progress, sampled=False)


def sketched(parts: Callable[[], Iterator[Part]], progress: Tell, *, sampled: bool) -> Sketch:
    """The sketch of all parts, or of some rows of those that know of some."""
    done, found = 0.0, list[Sketch]()
    progress("sketching", done)
    for part in parts():
        within = partial(_tell_within, progress, done, part.share)
        found.append(_sketch_of(part, within, sampled=sampled))
        done += part.share
        progress("sketching", done)
    return reduce(add, found)


def _tell_within(progress: Tell, before: float, share: float, within: float) -> None:
    progress("sketching", before + share * within)


def _sketch_of(part: Part, told: Callable[[float], None], *, sampled: bool) -> Sketch:
    rows = None
    if sampled and part.sampled is not None:
        native, rows = part.sampled()
        part = replace(part, native=native)
    with told_as_log_errors(Path(part.name)):
        return _sketch_frame(part, rows, told)


def _sketch_frame(part: Part, rows: int | None, told: Callable[[float], None]) -> Sketch:
    frame = part.frame
    prices = {place: column for place, column in part.prices().items() if isinstance(column, str)}
    if part.weight is not None:
        prices["", None] = part.weight
    figures = {"rows": nw.len()}
    for at, column in enumerate(prices.values()):
        figures |= {f"low {at}": number(column).min(), f"high {at}": number(column).max()}
    for at, column in enumerate(part.answers().values()):
        value = number(column)
        figures[f"graded {at}"] = ((value > 0.0) & (value < 1.0)).cast(nw.Int64).sum()
    found = collected(frame.select(**figures)).row(0, named=True)
    if not found["rows"]:
        raise LogError("E_EMPTY", f"{part.name} has no rows")
    amounts: dict[Place, tuple[float, float]] = {
        place: (_amount(found[f"low {at}"]), _amount(found[f"high {at}"])) for at, place in enumerate(prices)
    }
    amounts |= {place: (price, price) for place, price in part.prices().items() if isinstance(price, float)}
    graded = frozenset(place for at, place in enumerate(part.answers()) if found[f"graded {at}"])
    readings, histograms = list(part.readings()), dict[Place, Histogram]()
    for at, (place, reading, scale) in enumerate(readings, start=1):
        told(at / (len(readings) + 1))
        histograms[place] = _histogram(frame, confidence(reading, scale))
    outline = part.outline()
    order = [(s.name, r.name) for s in outline.sources for r in s.readings]
    return Sketch(
        outline,
        {place: histograms[place] for place in order},
        dict(sorted(amounts.items(), key=str)),
        graded,
        _contexts(part),
        found["rows"] if rows is None else rows,
        found["rows"],
    )


def _amount(found: float | None) -> float:
    """What a sketch makes of an extreme; what cannot be a price is refused when it is counted."""
    return float(found) if found is not None and 0.0 <= found <= TOO_DEAR else 0.0


def _histogram(frame: nw.LazyFrame[Any], confidence: Expr) -> Histogram:
    values = frame.select(value=confidence).filter(~is_missing(nw.col("value")))
    cells = values.filter((nw.col("value") >= 0.0) & (nw.col("value") <= 1.0)).with_columns(
        cell=grid_cell(nw.col("value")).cast(nw.Int64)
    )
    found = collected(cells.group_by("cell").agg(rows=nw.len(), low=nw.col("value").min(), high=nw.col("value").max()))
    return Histogram.rising(
        found["cell"].to_numpy().astype(np.int64),
        found["rows"].to_numpy().astype(np.int64),
        found["low"].to_numpy().astype(np.float64),
        found["high"].to_numpy().astype(np.float64),
    )


def _contexts(part: Part) -> frozenset[str]:
    if not part.context:
        return frozenset()
    columns = context_columns(part)
    found = collected(part.frame.select(**columns).unique())
    return frozenset(labels_of(context_values(part, found), part.context_cuts).tolist())
