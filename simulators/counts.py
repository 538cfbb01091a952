"""Counts: a log of any size as weighted cells, which add up, fit in a small file, and are a log again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metaverify.policies.context import context_label, interval_labels
from metaverify.simulators.cells import SCORE, Amount, Cells, Place, ReadingCells, SourceCells
from metaverify.simulators.columns import KeyColumns, LogColumns, reading_column
from metaverify.simulators.files import metadata_of, told_as_log_errors, write_table
from metaverify.simulators.log import (
    Counted,
    LogError,
    LoggedReading,
    LoggedSignal,
    LoggedTier,
    LogWarning,
    ReplayLog,
    Texts,
    in_order,
)
from metaverify.simulators.sketch import Histogram, Sketch

__all__ = ["Counts", "is_counted", "load_counts", "load_sketch", "rows_of", "save_sketch"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MARK = "metaverify"  # the key of the file's metadata
VERSION = 1
COUNTS, SKETCH = "counts", "sketch"


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """How many queries of a log fell into each cell, and what they cost there: all that a fit needs.

    Cells stand in the order of their contexts and then of ``key``, the number whose digits are `Cells.digits`.  Sums
    are whole numbers of each amount's unit, so that the counts of the parts of a log, in any order, add up to those
    of the whole to the last bit.
    """

    cells: Cells
    label: Texts  # [n], the context; "" where there is none
    key: Ints  # [n]
    rows: Ints  # [n], queries
    sums: Ints  # [n, amounts]
    notes: tuple[str, ...] = ()  # where the edges come from, and what was made coarser

    @classmethod
    def of(cls, cells: Cells, label: Texts, key: Ints, rows: Ints, sums: Ints, notes: tuple[str, ...] = ()) -> Counts:
        """Counts of cells in any order, of which one may stand several times."""
        names, place = np.unique(label.astype(str), return_inverse=True)
        order = np.lexsort((key, place))
        place, key = place[order], key[order]
        first = np.ones(len(key), dtype=bool)
        first[1:] = (place[1:] != place[:-1]) | (key[1:] != key[:-1])
        starts = np.flatnonzero(first)
        return cls(
            cells,
            names.astype(object)[place[starts]],
            key[starts],
            np.add.reduceat(rows[order], starts) if len(starts) else rows,
            np.add.reduceat(sums[order], starts, axis=0) if len(starts) else sums,
            notes,
        )

    def __len__(self) -> int:
        return len(self.key)

    def __add__(self, other: Counts) -> Counts:
        """The counts of both logs.

        Raises:
            LogError: they were counted over other cells.
        """
        if self.cells != other.cells:
            raise LogError(
                "E_OPTION",
                f"counts over different cells do not add up: {_difference(self.cells, other.cells)}; count both over "
                "the cells of one (--cuts FILE)",
            )
        return Counts.of(
            self.cells,
            np.concatenate([self.label, other.label]),
            np.concatenate([self.key, other.key]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.sums, other.sums]),
            tuple(dict.fromkeys((*self.notes, *other.notes))),
        )

    @property
    def queries(self) -> int:
        """How many queries were counted."""
        return int(self.rows.sum())

    def digits(self) -> dict[str, Ints]:
        """Where each cell lies, by column, [n] each."""
        sizes = self.cells.digits()
        return dict(zip(sizes, np.unravel_index(self.key, tuple(sizes.values())), strict=True))

    def log(self) -> ReplayLog:
        """The counts as a log: a row a cell, at its mean prices, with a confidence that stands for its bin; a group a
        batch.

        Raises:
            LogError: fewer than two cells.
        """
        if len(self) < 2:
            raise LogError("E_FEW", f"the counts have only {len(self)} cell; count at least 2 different queries")
        digits, amounts = self.digits(), {name: at for at, (name, _, _) in enumerate(self.cells.amounts())}
        weights = self.rows.astype(np.float64)
        if self.cells.weight is not None:
            weights = self.sums[:, 0] * self.cells.weight.unit + self.rows * self.cells.weight.origin

        def mean(name: str, amount: Amount | None) -> Floats:
            if amount is None or name not in amounts:
                return np.full(len(self), 0.0 if amount is None else amount.origin)
            return np.maximum(amount.origin + amount.unit * (self.sums[:, amounts[name]] / weights), 0.0)

        def quality(level: Ints, name: str) -> Floats:
            right = np.where(level == 2, np.nan, level).astype(np.float64)
            if name not in amounts:
                return right
            return np.where(np.isnan(right), right, np.clip(mean(name, SCORE), 0.0, 1.0))

        def reading(source: str, of: ReadingCells) -> LoggedReading:
            column = reading_column("conf", of.name, source)
            correct = None
            if of.sample:
                level = digits[reading_column("correct", of.name, source)]
                correct = quality(level, reading_column("score", of.name, source))
            return LoggedReading(
                of.name,
                np.array([*of.values, np.nan])[digits[column]],
                mean(reading_column("verify_cost", of.name, source), of.price),
                votes=of.votes,
                correct=correct,
                edges=of.edges,
            )

        def readings(source: SourceCells) -> tuple[LoggedReading, ...]:
            found = (reading(source.name, of) for of in source.readings)
            return tuple(reading for reading in found if not np.isnan(reading.confidence).all())

        tiers = [
            LoggedTier(
                source.name,
                quality(digits[f"correct_{source.name}"], f"score_{source.name}"),
                mean(f"cost_{source.name}", source.cost),
                readings(source),
            )
            for source in self.cells.sources
            if source.answer
        ]
        signals = [LoggedSignal(s.name, readings(s), s.needs) for s in self.cells.sources if not s.answer]
        names = np.array([f"batch-{at:04d}" for at in range(self.cells.batches)], dtype=object)
        return ReplayLog(
            query_ids=np.array([f"cell-{at:08d}" for at in range(len(self))], dtype=object),
            tiers=in_order(tiers, weights),
            weights=weights,
            group_ids=names[digits["batch"]],
            contexts=self.label if self.cells.context else None,
            context_names=self.cells.context,
            signals=tuple(signal for signal in signals if signal.readings),
            context_cuts=self.cells.context_cuts,
            notes=(_NOTE, *(LogWarning("counted-log", note) for note in self.notes)),
            counted=Counted(self.rows, self.cells.batches, self._dearest()),
        )

    def _dearest(self) -> Mapping[Place, float]:
        """The most that was paid, as far as was known beforehand, for what did not always cost the same."""
        priced = ((place, amount) for _, place, amount in self.cells.amounts() if place[0] and amount is not SCORE)
        return {place: amount.high for place, amount in priced if amount.high > amount.origin}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file, whole or not at all; the same counts give the same bytes.

        Raises:
            LogError: the name does not end in .parquet, or the file cannot be written.
        """
        amounts = [name for name, _, _ in self.cells.amounts()]
        columns = {"context": pl.Series(self.label.tolist(), dtype=pl.String)} if self.cells.context else {}
        columns |= {name: pl.Series(digit.astype(np.int32)) for name, digit in self.digits().items()}
        columns |= {"queries": pl.Series(self.rows)}
        columns |= {name: pl.Series(self.sums[:, at]) for at, name in enumerate(amounts)}
        _write(path, COUNTS, {"cells": self.cells.to_json(), "notes": list(self.notes)}, pl.DataFrame(columns))


_NOTE = LogWarning(
    "counted-log", "the log was counted: confidences stand for their bins, and a query that is there twice counts twice"
)


def _difference(one: Cells, other: Cells) -> str:
    names = [[source.name for source in cells.sources] for cells in (one, other)]
    if names[0] != names[1]:
        return f"tiers and signals {', '.join(names[0])}, and {', '.join(names[1])}"
    for left, right in zip(one.sources, other.sources, strict=True):
        if left.cost != right.cost or left.graded != right.graded:
            return f"prices or qualities of {left.name} in different units"
        pairs = {r.name: r for r in right.readings}
        for reading in left.readings:
            if reading.name not in pairs:
                return f"{left.name} has no reading {reading.name!r} in one of them"
            if reading.edges != pairs[reading.name].edges:
                return f"reading {reading.name!r} of {left.name} has other edges"
            if reading != pairs[reading.name]:
                return f"reading {reading.name!r} of {left.name} has other values, votes or prices"
    if one.batches != other.batches:
        return f"{one.batches} and {other.batches} batches"
    return "their contexts or weights differ"


def rows_of(log: ReplayLog | Counts) -> ReplayLog:
    """The log itself, or that of counts."""
    return log.log() if isinstance(log, Counts) else log


# Files ---------------------------------------------------------------------------------------------------------------


def is_counted(path: str | os.PathLike[str]) -> str | None:
    """Whether a file holds "counts" or a "sketch"; None where it holds neither, or cannot be read as Parquet."""
    file = Path(path)
    if file.suffix.lower() != ".parquet" or not file.is_file():
        return None
    try:
        return str(json.loads(metadata_of(file)[MARK])["kind"])
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, LookupError, TypeError, ValueError):
        return None


def load_counts(path: str | os.PathLike[str]) -> Counts:
    """The counts in a file that `Counts.save` wrote.

    Raises:
        LogError: it is none, of a later version, or damaged.
    """
    found, frame = _read(path, COUNTS)
    cells = Cells.from_json(found["cells"])
    sizes, amounts = cells.digits(), [name for name, _, _ in cells.amounts()]
    if missing := sorted({*sizes, *amounts, "queries"}.difference(frame.columns)):
        raise LogError("E_DAMAGED", f"{Path(path).name} is no whole counts file: it has no column {missing[0]!r}")
    digits = tuple(frame[name].to_numpy().astype(np.int64) for name in sizes)
    if any((digit < 0).any() or (digit >= size).any() for digit, size in zip(digits, sizes.values(), strict=True)):
        raise LogError("E_DAMAGED", f"{Path(path).name} has cells that lie outside its bins; count again")
    label = frame["context"].to_numpy() if cells.context else np.full(len(frame), "", dtype=object)
    return Counts.of(
        cells,
        label,
        np.ravel_multi_index(digits, tuple(sizes.values())).astype(np.int64),
        frame["queries"].to_numpy(),
        frame.select(amounts).to_numpy().reshape(len(frame), len(amounts)),
        tuple(found["notes"]),
    )


def save_sketch(sketch: Sketch, path: str | os.PathLike[str]) -> None:
    """Write a sketch as a Parquet file, whole or not at all.

    Raises:
        LogError: as `Counts.save`.
    """
    parts = [
        pl.DataFrame(
            {"source": source, "reading": reading, "cell": h.cell, "rows": h.rows, "low": h.low, "high": h.high},
            schema={
                "source": pl.String,
                "reading": pl.String,
                "cell": pl.Int64,
                "rows": pl.Int64,
                "low": pl.Float64,
                "high": pl.Float64,
            },
        )
        for (source, reading), h in sketch.histograms.items()
    ]
    places = [list(place) for place in sketch.histograms]
    frame = pl.concat(parts) if parts else pl.DataFrame({"source": []})
    _write(path, SKETCH, {"sketch": sketch.to_json(), "readings": places}, frame)


def load_sketch(path: str | os.PathLike[str]) -> Sketch:
    """The sketch in a file that `save_sketch` wrote.

    Raises:
        LogError: as `load_counts`.
    """
    found, frame = _read(path, SKETCH)
    histograms = {}
    for source, reading in found["readings"]:
        own = frame.filter((pl.col("source") == source) & (pl.col("reading") == reading))
        histograms[source, reading] = Histogram(
            own["cell"].to_numpy(), own["rows"].to_numpy(), own["low"].to_numpy(), own["high"].to_numpy()
        )
    return Sketch.from_json(found["sketch"], histograms)


def counted_columns(path: str | os.PathLike[str]) -> LogColumns:
    """What a counts file says of the columns that were counted."""
    found, frame = _read(path, COUNTS)
    cells = Cells.from_json(found["cells"])
    keys = KeyColumns(None, "batch", None, cells.context, {})
    tiers = tuple(source.name for source in cells.sources if source.answer)
    signals = tuple(source.name for source in cells.sources if not source.answer)
    return LogColumns("counted", keys, tuple(frame.columns), (), tiers, signals)


def _write(path: str | os.PathLike[str], kind: str, found: Mapping[str, Any], frame: pl.DataFrame) -> None:
    file = Path(path)
    if file.suffix.lower() != ".parquet":
        raise LogError("E_FILE", f"{file.name} does not end in .parquet, in which {kind} are kept; rename it")
    told = json.dumps({"kind": kind, "version": VERSION, **found}, sort_keys=True)
    write_table(frame, file, {MARK: told})


def _read(path: str | os.PathLike[str], kind: str) -> tuple[Mapping[str, Any], pl.DataFrame]:
    file = Path(path)
    with told_as_log_errors(file):
        if file.suffix.lower() == ".parquet":
            metadata_of(file)  # fails where it is damaged
        if (is_kind := is_counted(file)) != kind:
            has = "a log" if is_kind is None else f"a {is_kind} file" if is_kind == SKETCH else "counts"
            raise LogError("E_FILE", f"{file.name} is {has}, no {kind} file; see metaverify count")
        found = json.loads(metadata_of(file)[MARK])
        if found["version"] != VERSION:
            raise LogError(
                "E_FILE", f"{file.name} is of version {found['version']}, newer than this metaverify; install a newer"
            )
        return found, pl.read_parquet(file)


def labels_of(context: Mapping[str, list[str]], cuts: Mapping[str, tuple[float, ...]]) -> Texts:
    """The context's label of each cell, from the text or the interval's number in each column."""
    columns = [
        [interval_labels(name, cuts[name])[int(at)] for at in values] if name in cuts else values
        for name, values in context.items()
    ]
    return np.array([context_label(row) for row in zip(*columns, strict=True)], dtype=object)
