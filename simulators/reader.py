"""Replay logs in files, one row a query or one row a reading."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metaverify.policies.context import context_label, interval_labels
from metaverify.simulators.bins import balanced_cuts
from metaverify.simulators.cells import Cells
from metaverify.simulators.columns import (
    AGREE,
    NO_SIGNALS,
    KeyColumns,
    LogColumns,
    ReadingColumns,
    SignalColumns,
    Signals,
    TierColumns,
    check_names,
    check_signals,
    nearest,
    reading_column,
    source_columns,
)
from metaverify.simulators.counts import counted_columns, is_counted, load_counts
from metaverify.simulators.doubts import doubts, prompt_columns
from metaverify.simulators.files import (
    ends_amid_a_line,
    refuse_mixed_kinds,
    scan_table,
    told_as_log_errors,
    write_table,
)
from metaverify.simulators.log import (
    Floats,
    Ints,
    LogError,
    LoggedReading,
    LoggedSignal,
    LoggedTier,
    ReplayLog,
    Texts,
    in_order,
)
from metaverify.simulators.sheet import Sheet, reckonable

__all__ = ["Choice", "LogColumns", "log_columns", "read_log", "wide_columns", "write_log"]

_FEWEST_ROWS = 2  # one row cannot be learnt from
_NO_VOTE = 1e-4  # of a vote: more than rounding takes off a share
_PARTIAL = "a log in which tiers were called for some queries only is read with --partial"


def read_log(
    path: str | os.PathLike[str],
    *,
    tiers: Sequence[str] | None = None,
    context: str | Sequence[str] = (),
    costs: Mapping[str, float] | None = None,
    scale: float = 1.0,
    group: str | None = None,
    weight: str | None = None,
    signals: Signals = NO_SIGNALS,
    votes: Mapping[str, int] | None = None,
    context_cuts: Mapping[str, Sequence[float]] | None = None,
    samples: str | Sequence[str] = (),
    unlabelled: Sequence[str] = (),
    partial: bool = False,
) -> ReplayLog:
    """The log in a ``.parquet``, ``.csv``, ``.jsonl`` or ``.ndjson`` file (the texts also as ``.gz``).

    Wide form, one row a query: ``correct_<tier>`` in [0, 1] makes a tier; ``cost_<tier>`` is the price of its answer,
    ``conf_<tier>`` its reading "conf", ``conf2_<tier>`` "conf2", ``conf_<reading>_<tier>`` any other; a reading's own
    price is ``verify_cost_<tier>``, ``verify_cost2_<tier>``, ``verify_cost_<reading>_<tier>``, and it is free without.
    Long form, one row a (query, tier, reading): ``query_id, tier, correct`` and optionally ``reading, confidence,
    cost, verify_cost``.  Both may have ``group_id``, ``weight`` and context columns; only the wide form may leave
    out ``query_id``, and then the ids are made from row numbers.  A reading that is missing everywhere is dropped.

    A *signal* is a source without an answer: what has readings as a tier has them, but no ``correct``.  A judge must be
    declared, so that a misspelt tier is never taken for one; ``cost_<signal>`` is then the price of reading it.  How
    far the answers of two tiers agree, ``agree_<tier>_<tier>`` (with ``cost_agree_<tier>_<tier>`` where comparing them
    costs something), is a signal of that name that needs both.

    A *sample* is a reading that changes the answer: one more draw and the majority of them, or the question put in
    other words.  It must be declared too; ``correct2_<tier>`` beside ``conf2_<tier>``, ``correct_<reading>_<tier>``
    beside ``conf_<reading>_<tier>``, or in the long form the ``correct`` of its own rows, is then the quality of the
    tier's answer once it and all before it were bought.  A tier without that column keeps its answer, and so does a
    query whose sample is missing.  Undeclared, ``correct2_<tier>`` is ignored.

    Args:
        path: the file; its suffix says the format.
        tiers: the tiers and signals to keep; the others' values are not looked at.
        context: columns known before any call; several make one label (see `context_label`).  A column that is a number
            is written with the most intervals that it is cut into, as in ``tokens:4``: the cuts divide the log's
            queries as evenly as can be, and are remembered in ``context_cuts`` of the log.
        costs: price per call by tier, instead of the cost columns.
        scale: what the confidences are divided by (100 for percent).
        group: the column that names what is drawn together, instead of ``group_id``.
        weight: the column that says how many queries a row stands for, instead of ``weight``.
        signals: name -> the tiers whose answers must be in hand before it can be read; none for a signal that can be
            read before any call.
        votes: reading -> how many votes it is the share of (of every source that has a reading of this name); its
            price is that of all of them, and they can be asked for one by one.
        context_cuts: context column -> where it is cut, instead of at the log's own quantiles: those of a policy
            (``policy.context_cuts``) for a log that it is to be replayed on.
        samples: the readings (of every tier that has one of this name) that change the answer.
        unlabelled: tiers of which it need not be known what was correct; where it is not, ``correct`` is NaN.
        partial: whether answers and their qualities and prices may be missing, which are NaN then; what else there is
            to know of such a log is read by `read_partial_log`.

    Raises:
        LogError: the file, a column or a value cannot be used; the message names it and the way out.  Counts (see
            `count`) are a log too, of which tiers may be chosen, and contexts told or not; the rest was settled when
            they were counted.
    """
    file = Path(path)
    samples = (samples,) if isinstance(samples, str) else samples
    if is_counted(file):
        said = {"costs": costs, "group": group, "weight": weight, "partial": partial, "scale": scale != 1.0}
        counts = load_counts(file)
        _check_counted(file.name, counts.cells, said, context, signals, votes or {}, context_cuts or {}, samples)
        log = counts.log() if context else counts.log().without_contexts()
        return log if tiers is None else _keeping(file.name, log, tiers)
    if not (math.isfinite(scale) and scale > 0):
        raise LogError("E_OPTION", f"{file.name}: scale is {scale}; give a number above 0, such as 100 for percent")
    with told_as_log_errors(file):
        table = _with_labels(scan_table(file), unlabelled)
        columns = _columns(file, table, context, group, weight, signals, samples)
        sheet = _sheet(file.name, table.select(*columns.used, *prompt_columns(columns)).collect())
        refuse_mixed_kinds(file, sheet.frame)
        index = _index(sheet, columns)
        weights = _weights(sheet, columns.keys, index)
        choice = Choice(file.name, tiers, costs or {}, scale, signals, votes or {}, samples, unlabelled, partial)
        logged, read = (_wide_sources if columns.form == "wide" else _long_sources)(sheet, index, choice)
        choice.check_votes([reading.name for of in (logged, read) for source in of for reading in source.readings])
        choice.check_samples(logged)
        ids = _ids(sheet, columns.keys, index)
        cuts = _context_cuts(sheet, columns.keys, index, weights, context_cuts or {})
        return ReplayLog(
            query_ids=ids,
            tiers=in_order(logged, weights),
            weights=weights,
            group_ids=_labels(sheet, columns.keys.group, index) if columns.keys.group else ids,
            contexts=_contexts(sheet, columns.keys.context, index, cuts),
            context_names=columns.keys.context,
            signals=tuple(signal for signal in read if signal.readings),
            context_cuts=cuts,
            notes=doubts(columns, sheet.frame, queries=len(ids), cut_off=ends_amid_a_line(file)),
        )


def log_columns(
    path: str | os.PathLike[str],
    *,
    context: str | Sequence[str] = (),
    group: str | None = None,
    weight: str | None = None,
    signals: Signals = NO_SIGNALS,
    samples: str | Sequence[str] = (),
    unlabelled: Sequence[str] = (),
) -> LogColumns:
    """Which columns of a file `read_log` uses with these options, and which it ignores, in file order.

    Raises:
        LogError: as `read_log`, for the file and its columns; no value is looked at.
    """
    file = Path(path)
    if is_counted(file):
        return counted_columns(file)
    with told_as_log_errors(file):
        return _columns(file, _with_labels(scan_table(file), unlabelled), context, group, weight, signals, samples)


def write_log(log: ReplayLog, path: str | os.PathLike[str]) -> None:
    """Write a log in the wide form, in the format of the suffix, whole or not at all.

    Reading it back, with ``context="context"`` where the log has contexts and its signals, votes and samples declared,
    gives the same log; only a reading that is missing everywhere is not kept, and tiers come back in order of mean
    cost, those of one cost the worse first, equals by name.

    Raises:
        LogError: a suffix that is no log's, names that would not read back, or a file that cannot be written.
    """
    file = Path(path)
    columns = wide_columns(file.name, log)
    declared = {signal.name: signal.needs for signal in log.signals}
    samples = sorted({r.name for tier in log.tiers for r in tier.readings if r.correct is not None})
    tiers, signals = source_columns(file.name, [column.name for column in columns], declared, samples)
    found = {tier.name: tier.readings for tier in tiers} | {signal.name: signal.readings for signal in signals}
    for source in log.sources:
        was, is_now = ([reading.name for reading in of] for of in (source.readings, found[source.name]))
        if was != is_now:
            kind = "tier" if isinstance(source, LoggedTier) else "signal"
            fault = f"{kind} {source.name!r} with the readings {was} would read back with {is_now}"
            raise LogError("E_NAME", f"{file.name}: {fault}; put 'conf' first, or rename a reading or a tier")
    write_table(pl.DataFrame(columns), file)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the caller chose for the tiers and signals."""

    file: str
    tiers: Sequence[str] | None
    costs: Mapping[str, float]
    scale: float
    signals: Signals
    votes: Mapping[str, int]
    samples: Sequence[str] = ()
    unlabelled: Sequence[str] = ()
    partial: bool = False

    def __post_init__(self) -> None:
        for name in self.samples:
            if name in self.votes:
                raise LogError("E_OPTION", f"{self.file}: {name!r} is in --votes and in --samples; leave it out of one")

    def of(self, known: Sequence[str], signals: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
        """The chosen of the known tiers and of the signals, each in their order."""
        every = [*known, *signals]
        wanted = every if self.tiers is None else [self.tiers] if isinstance(self.tiers, str) else self.tiers
        for option, names in (("tiers", wanted), ("cost", list(self.costs))):
            if strange := [name for name in names if name not in every]:
                raise LogError(
                    "E_OPTION", f"{self.file} has no tier {strange[0]!r} for --{option}; {nearest(strange[0], every)}"
                )
        tiers, read = [name for name in known if name in wanted], [name for name in signals if name in wanted]
        if not tiers:
            raise LogError("E_OPTION", f"{self.file}: --tiers leaves no tier; there are {', '.join(known)}")
        for signal in read:
            for need in signals[signal]:
                if need not in tiers:
                    fault = f"--tiers keeps {signal!r}, which needs the answer of {need!r}"
                    raise LogError("E_OPTION", f"{self.file}: {fault}; name that tier too, or leave {signal!r} out")
        return tiers, read

    def check_votes(self, readings: Sequence[str]) -> None:
        """Make sure that there is a reading of every name that is declared to be votes."""
        for name in self.votes:
            if name not in readings:
                known = list(dict.fromkeys(readings))
                raise LogError(
                    "E_OPTION", f"{self.file} has no reading {name!r} for --votes; {nearest(name, known or ['none'])}"
                )

    def check_samples(self, tiers: Sequence[LoggedTier]) -> None:
        """Make sure that every reading that is declared a sample changes an answer."""
        found = {r.name for tier in tiers for r in tier.readings if r.correct is not None}
        for name in self.samples:
            if name not in found:
                conf, correct = (reading_column(kind, name, "<tier>") for kind in ("conf", "correct"))
                fault = f"{self.file} has no answers of reading {name!r} for --samples {name}"
                raise LogError(
                    "E_OPTION", f"{fault}; they stand in {correct} beside {conf}, or in rows of that reading"
                )

    def counted(self, sheet: Sheet, column: str, reading: LoggedReading) -> LoggedReading:
        """The reading, as shares of its votes where it was declared to be that."""
        votes = self.votes.get(reading.name, 0)
        if reading.name not in self.votes:
            return reading
        if not (isinstance(votes, int) and votes >= 1):
            raise LogError(
                "E_OPTION", f"{self.file}: --votes {reading.name}={votes} is no number of votes; give at least 1"
            )
        yes = np.rint(reading.confidence * votes)
        odd = np.abs(reading.confidence * votes - yes) > _NO_VOTE
        sheet.refuse(
            "E_RANGE", odd, column, f"no share of {votes} votes; give a multiple of 1/{votes}, or correct --votes"
        )
        return replace(reading, confidence=yes / votes, votes=votes)

    def price(self, tier: str) -> float | None:
        """The price that was given for a tier or signal, if one was."""
        price = self.costs.get(tier)
        if price is not None and not (math.isfinite(price) and price >= 0):
            raise LogError(
                "E_OPTION", f"{self.file}: --cost {tier}={price} is not a price; give a finite number from 0 up"
            )
        if price is not None and not reckonable(price):
            raise LogError("E_OPTION", f"{self.file}: --cost {tier}={price} is out of reckoning; choose another unit")
        return price

    def no_price(self, tier: str) -> LogError:
        """The complaint that a tier has no price."""
        return LogError(
            "E_PRICE", f"{self.file}: tier {tier!r} has no price; add a cost column or give --cost {tier}=PRICE"
        )


def _check_counted(
    file: str,
    cells: Cells,
    said: Mapping[str, object],
    context: str | Sequence[str],
    signals: Signals,
    votes: Mapping[str, int],
    context_cuts: Mapping[str, Sequence[float]],
    samples: Sequence[str],
) -> None:
    """Make sure that what is said of a counted log is what it was counted with."""
    readings = [reading for source in cells.sources for reading in source.readings]
    columns = [context] if isinstance(context, str) else [*context]
    known: dict[str, tuple[bool, object]] = {
        "context": (not columns or tuple(c.split(":")[0] for c in columns) == cells.context, cells.context),
        "signal": (
            all(
                any(s.name == name and s.needs == tuple(needs) for s in cells.sources)
                for name, needs in signals.items()
            ),
            tuple(source.name for source in cells.sources if not source.answer),
        ),
        "votes": (
            all(any(r.name == name for r in readings) for name in votes)
            and all(r.votes == votes[r.name] for r in readings if r.name in votes),
            {reading.name: reading.votes for reading in readings if reading.votes},
        ),
        "samples": (all(any(r.name == n and r.sample for r in readings) for n in samples), tuple(samples)),
        "context_cuts": (
            all(cells.context_cuts.get(name) == tuple(cuts) for name, cuts in context_cuts.items()),
            dict(cells.context_cuts),
        ),
    }
    for option, value in said.items():
        if value and option == "partial":
            raise LogError(
                "E_OPTION", f"{file} was counted, which no partial log can be; give --partial the log itself"
            )
        if value:
            raise LogError("E_OPTION", f"{file} was counted, so --{option} comes too late; give it to metaverify count")
    for option, (same, was) in known.items():
        if not same:
            told = f"{file} was counted otherwise than --{option} says (with {was or 'none'})"
            raise LogError("E_OPTION", f"{told}; leave it out, or count again")


def _keeping(file: str, log: ReplayLog, names: Sequence[str]) -> ReplayLog:
    """The log with only these tiers and signals."""
    wanted = [names] if isinstance(names, str) else list(names)
    tiers, _ = Choice(file, wanted, {}, 1.0, NO_SIGNALS, {}).of(log.tier_names, {s.name: s.needs for s in log.signals})
    kept = log.with_tiers(tiers)
    return replace(kept, signals=tuple(signal for signal in kept.signals if signal.name in wanted))


def _columns(
    file: Path,
    table: pl.LazyFrame,
    context: str | Sequence[str],
    group: str | None,
    weight: str | None,
    signals: Signals,
    samples: str | Sequence[str],
) -> LogColumns:
    names = table.collect_schema().names()
    chosen = (context,) if isinstance(context, str) else context
    drawn = (samples,) if isinstance(samples, str) else samples
    return LogColumns.of(file.name, names, context=chosen, group=group, weight=weight, signals=signals, samples=drawn)


def _with_labels(table: pl.LazyFrame, unlabelled: Sequence[str]) -> pl.LazyFrame:
    """The table with an empty column of what was correct wherever one is lacking that may be."""
    names = table.collect_schema().names()
    wanted = ["correct"] if "tier" in names else [f"correct_{tier}" for tier in unlabelled]
    lacking = [name for name in wanted if unlabelled and name not in names]
    return table.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in lacking)


def _sheet(file: str, frame: pl.DataFrame) -> Sheet:
    if not len(frame):
        raise LogError("E_EMPTY", f"{file} has a header but no rows; write the log again")
    return Sheet(file, frame, np.arange(1, len(frame) + 1))


# Queries -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Index:
    """The query of each row and the first row of each query, queries in order of appearance."""

    query: Ints  # [rows]
    first: Ints  # [queries]

    def __len__(self) -> int:
        return len(self.first)


def _index(sheet: Sheet, columns: LogColumns) -> _Index:
    every = np.arange(len(sheet))
    index = _Index(every, every)
    if columns.keys.query:
        ids = sheet.texts(columns.keys.query)
        sheet.refuse(
            "E_MISSING", ids.is_null().to_numpy(), columns.keys.query, "but every row needs its query's id; fill it in"
        )
        index = _by_appearance(ids)
        if columns.form == "wide":
            _refuse_repeats(sheet, ids, index)
    if len(index) < _FEWEST_ROWS:
        raise LogError("E_FEW", f"{sheet.file} has only {len(index)} query; log at least {_FEWEST_ROWS}")
    return index


def _by_appearance(ids: pl.Series) -> _Index:
    dense = ids.rank("dense").to_numpy().astype(np.int64) - 1
    _, first = np.unique(dense, return_index=True)
    place = np.argsort(np.argsort(first))
    return _Index(place[dense], np.sort(first))


def _refuse_repeats(sheet: Sheet, ids: pl.Series, index: _Index) -> None:
    before = index.first[index.query]
    again = before < np.arange(len(sheet))
    if again.any():
        at = int(again.argmax())
        same = sheet.frame.row(at) == sheet.frame.row(int(before[at]))
        others = "with the same values; drop one, or" if same else "with other values;"
        fault = f"query_id {ids[at]!r} is already in row {sheet.rows[before[at]]}, {others}"
        raise sheet.error("E_DUPID", at, f"{fault} give each row its own id (repeats of one prompt share a group_id)")


def _ids(sheet: Sheet, keys: KeyColumns, index: _Index) -> Texts:
    if keys.query:
        return sheet.texts(keys.query).gather(index.first).to_numpy()
    return ("row-" + pl.Series(sheet.rows).cast(pl.String).str.zfill(9)).to_numpy()


def _labels(sheet: Sheet, column: str, index: _Index, *, empty: str | None = None) -> Texts:
    """[queries]: the text that all rows of a query share; an empty one is ``empty``, or refused."""
    texts = sheet.texts(column)
    if empty is None:
        sheet.refuse(
            "E_MISSING",
            texts.is_null().to_numpy(),
            column,
            "but every row needs one; fill it in or leave the column out",
        )
    labels = texts.fill_null(empty or "").to_numpy()
    first: Texts = labels[index.first]
    sheet.refuse(
        "E_CONFLICT",
        labels != first[index.query],
        column,
        "but an earlier row of the query says otherwise; make them agree",
    )
    return first


Cuts = Mapping[str, tuple[float, ...]]
"""Of each context column that is a number, where it is cut."""


def _contexts(sheet: Sheet, columns: Sequence[str], index: _Index, cuts: Cuts) -> Texts | None:
    if not columns:
        return None
    values = [
        _intervals(sheet, column, index, cuts[column]) if column in cuts else _labels(sheet, column, index, empty="")
        for column in columns
    ]
    if len(values) == 1:
        return values[0]
    labels = {row: context_label(row) for row in set(zip(*values, strict=True))}
    return np.array([labels[row] for row in zip(*values, strict=True)], dtype=object)


def _intervals(sheet: Sheet, column: str, index: _Index, cuts: tuple[float, ...]) -> Texts:
    """[queries]: the name of the interval that a number falls in."""
    numbers = _numbers(sheet, column, index)
    place = np.where(np.isnan(numbers), len(cuts) + 1, np.searchsorted(cuts, numbers, side="right"))
    return np.array(interval_labels(column, cuts), dtype=object)[place]


def _numbers(sheet: Sheet, column: str, index: _Index) -> Floats:
    """[queries]: the number on which all rows of a query agree, NaN where it is missing or not finite."""
    values = sheet.numbers(column, f"give numbers, or --context {column} without bins")
    first = values[index.first]
    sheet.refuse(
        "E_CONFLICT",
        ~((values == first[index.query]) | (np.isnan(values) & np.isnan(first[index.query]))),
        column,
        "but an earlier row of the query says otherwise; make them agree",
    )
    return np.where(np.isfinite(first), first, np.nan)


def _context_cuts(
    sheet: Sheet, keys: KeyColumns, index: _Index, weights: Floats, given: Mapping[str, Sequence[float]]
) -> Cuts:
    cuts = keys.given_cuts(sheet.file, given)
    for column, most in keys.bins.items():
        if column not in cuts:
            cuts[column] = balanced_cuts(_numbers(sheet, column, index), weights, most)
        if not cuts[column]:
            raise LogError(
                "E_OPTION", f"{sheet.file}: {column} has no two different numbers to cut between; leave it out"
            )
    return cuts


def _weights(sheet: Sheet, keys: KeyColumns, index: _Index) -> Floats:
    if keys.weight is None:
        return np.ones(len(index))
    values = sheet.weights(keys.weight)
    first = values[index.first]
    sheet.refuse(
        "E_CONFLICT",
        values != first[index.query],
        keys.weight,
        "but an earlier row of the query says otherwise; make them agree",
    )
    return first


# Tiers, wide ---------------------------------------------------------------------------------------------------------


def _wide_sources(sheet: Sheet, index: _Index, choice: Choice) -> tuple[list[LoggedTier], list[LoggedSignal]]:
    tiers, signals = source_columns(sheet.file, sheet.frame.columns, choice.signals, choice.samples)
    names, read = choice.of([tier.name for tier in tiers], {signal.name: signal.needs for signal in signals})
    return (
        [_wide_tier(sheet, tier, choice) for tier in tiers if tier.name in names],
        [_wide_signal(sheet, signal, choice) for signal in signals if signal.name in read],
    )


def _wide_tier(sheet: Sheet, columns: TierColumns, choice: Choice) -> LoggedTier:
    drop = f"leave {columns.name} out with --tiers"
    correct = sheet.correctness(columns.correct, f"or {drop}")
    unknown = np.isnan(correct)
    extent = f"as in {unknown.sum():,} of {len(unknown):,} rows"
    way_out = drop if unknown.all() else f"{_PARTIAL}; or drop those rows, or {drop}"
    if columns.name not in choice.unlabelled and (unknown.all() or not choice.partial):
        sheet.refuse("E_MISSING", unknown, columns.correct, f"{extent}; {way_out}")
    readings = tuple(_wide_reading(sheet, reading, choice, choice.scale) for reading in columns.readings)
    return LoggedTier(columns.name, correct, _wide_cost(sheet, columns, choice), _present(readings))


def _wide_cost(sheet: Sheet, columns: TierColumns, choice: Choice) -> Floats:
    if (price := choice.price(columns.name)) is not None:
        return np.full(len(sheet), float(price))
    if columns.cost is None:
        raise choice.no_price(columns.name)
    way_out = f"fill it in or give --cost {columns.name}=PRICE"
    cost = sheet.amounts(columns.cost, way_out)
    if not choice.partial:
        sheet.refuse("E_MISSING", np.isnan(cost), columns.cost, f"but every answer has a price; {way_out}")
    return cost


def _wide_signal(sheet: Sheet, columns: SignalColumns, choice: Choice) -> LoggedSignal:
    scale = 1.0 if columns.readings[0].name == AGREE else choice.scale
    readings = tuple(_wide_reading(sheet, reading, choice, scale) for reading in columns.readings)
    return LoggedSignal(columns.name, _present(_priced(readings, choice.price(columns.name))), columns.needs)


def _priced(readings: tuple[LoggedReading, ...], price: float | None) -> tuple[LoggedReading, ...]:
    """The readings of a signal, the first one at the price that was given for the signal."""
    if price is None or not readings:
        return readings
    first, *others = readings
    return (replace(first, price=np.full(len(first.price), float(price))), *others)


def _wide_reading(sheet: Sheet, columns: ReadingColumns, choice: Choice, scale: float) -> LoggedReading:
    confidence = sheet.confidences(columns.confidence, scale)
    paid = _paid(sheet, columns.price, columns.confidence, confidence)
    reading = choice.counted(sheet, columns.confidence, LoggedReading(columns.name, confidence, paid))
    return reading if columns.correct is None else replace(reading, correct=_changed(sheet, columns.correct, reading))


def _changed(sheet: Sheet, column: str, sample: LoggedReading) -> Floats:
    """[rows]: the quality of the answer once the sample was bought, NaN where that stays what it was."""
    way_out = f"leave {sample.name} out of --samples"
    correct = sheet.correctness(column, f"or {way_out}")
    unknown = np.isnan(correct) & ~np.isnan(sample.confidence)
    sheet.refuse("E_MISSING", unknown, column, f"though {sample.name} is there; fill it in, or {way_out}")
    return correct


def _paid(sheet: Sheet, column: str | None, reading: str, confidence: Floats) -> Floats:
    """[rows]: what each reading cost; nothing is owed for one that is missing and has no price."""
    if column is None:
        return np.zeros(len(sheet))
    way_out = "fill it in (0 where it was free)"
    price = sheet.amounts(column, way_out)
    sheet.refuse("E_MISSING", np.isnan(price) & ~np.isnan(confidence), column, f"though {reading} is there; {way_out}")
    return np.nan_to_num(price)


def _present(readings: tuple[LoggedReading, ...]) -> tuple[LoggedReading, ...]:
    return tuple(reading for reading in readings if not np.isnan(reading.confidence).all())


# Tiers, long ---------------------------------------------------------------------------------------------------------


def _long_sources(sheet: Sheet, index: _Index, choice: Choice) -> tuple[list[LoggedTier], list[LoggedSignal]]:
    names = sheet.texts("tier")
    sheet.refuse(
        "E_MISSING", names.is_null().to_numpy(), "tier", "but every row needs one; name the tier that answered"
    )
    known = names.unique(maintain_order=True).to_list()
    check_names(sheet.file, known)
    for name in choice.signals:
        if name not in known:
            raise LogError(
                "E_OPTION", f"{sheet.file} has no rows of tier {name!r} for --signal {name}; {nearest(name, known)}"
            )
    answering = [name for name in known if name not in choice.signals]
    check_signals(sheet.file, choice.signals, answering)
    tiers, read = choice.of(answering, choice.signals)

    def rows(name: str) -> _LongTier:
        mask = (names == name).to_numpy()
        return _LongTier(name, sheet.where(mask), index.query[mask], sheet, index)

    return [rows(name).logged(choice) for name in tiers], [rows(name).signal(choice) for name in read]


@dataclass(frozen=True, slots=True)
class _LongTier:
    """One tier's rows of the long form, and the whole sheet to complain about."""

    name: str
    sheet: Sheet
    query: Ints  # [rows of the sheet]
    whole: Sheet
    index: _Index

    def logged(self, choice: Choice) -> LoggedTier:
        drop = f"leave {self.name} out with --tiers"
        first = self.apart_from(choice.samples)
        correct = first.one_a_query("correct", first.sheet.correctness("correct", f"or {drop}"))
        if self.name in choice.unlabelled:
            return LoggedTier(self.name, correct, self.cost(choice), self.readings(choice))
        if np.isnan(correct).all():
            way_out = f"declare a signal without answers (--signal {self.name}=TIER), or {drop}"
            raise LogError("E_MISSING", f"{self.whole.file}: tier {self.name!r} has no correct in any row; {way_out}")
        extent = f"as in {np.isnan(correct).sum():,} of {len(correct):,} queries"
        if not choice.partial:
            self.refuse_missing(correct, "correct", f"{extent}; {_PARTIAL}; or drop those queries, or {drop}")
        return LoggedTier(self.name, correct, self.cost(choice), self.readings(choice))

    def signal(self, choice: Choice) -> LoggedSignal:
        readings = _priced(self.readings(choice), choice.price(self.name))
        if "correct" in self.sheet:
            given = ~np.isnan(self.sheet.correctness("correct", "or leave it empty"))
            self.sheet.refuse("E_CONFLICT", given, "correct", f"but --signal {self.name} has no answers; is it a tier?")
        return LoggedSignal(self.name, readings, tuple(choice.signals[self.name]))

    def cost(self, choice: Choice) -> Floats:
        if (price := choice.price(self.name)) is not None:
            return np.full(len(self.index), float(price))
        if "cost" not in self.sheet:
            raise choice.no_price(self.name)
        way_out = f"fill it in or give --cost {self.name}=PRICE"
        cost = self.one_a_query("cost", self.sheet.amounts("cost", way_out))
        if not choice.partial:
            self.refuse_missing(cost, "cost", f"but every answer has a price; {way_out}")
        return cost

    def apart_from(self, samples: Sequence[str]) -> _LongTier:
        """The same without the rows of these readings."""
        if not samples or "reading" not in self.sheet:
            return self
        mask = ~self.sheet.texts("reading").is_in(list(samples)).fill_null(False).to_numpy()
        return replace(self, sheet=self.sheet.where(mask), query=self.query[mask])

    def one_a_query(self, column: str, values: Floats) -> Floats:
        """[queries]: the value on which a query's rows agree, NaN where none has one."""
        known = np.flatnonzero(~np.isnan(values))[::-1]  # the first row of a query is written last
        cells = np.full(len(self.index), np.nan)
        cells[self.query[known]] = values[known]
        other = ~np.isnan(values) & (values != cells[self.query])
        self.sheet.refuse(
            "E_CONFLICT", other, column, f"but an earlier row of the query and {self.name} differs; make them agree"
        )
        return cells

    def refuse_missing(self, values: Floats, column: str, why: str) -> None:
        if np.isnan(values).any():
            at = int(self.index.first[np.isnan(values).argmax()])
            query = self.whole.texts("query_id")[at]
            raise self.whole.error("E_MISSING", at, f"query {query!r} has no {column} for tier {self.name!r}, {why}")

    def readings(self, choice: Choice) -> tuple[LoggedReading, ...]:
        if "confidence" not in self.sheet:
            return ()
        confidence = self.sheet.confidences("confidence", choice.scale)
        price = _paid(self.sheet, "verify_cost" if "verify_cost" in self.sheet else None, "confidence", confidence)
        none = pl.repeat(None, len(confidence), dtype=pl.String, eager=True)
        stated = self.sheet.texts("reading") if "reading" in self.sheet else none
        names = stated.fill_null("conf")
        read = stated.is_not_null().to_numpy() | ~np.isnan(confidence)  # else: answered, and nothing read
        order = sorted(names.filter(pl.Series(read)).unique(maintain_order=True), key=lambda name: name != "conf")
        masks = (read & (names == name).to_numpy() for name in order)
        return _present(tuple(self.reading(n, m, confidence, price, choice) for n, m in zip(order, masks, strict=True)))

    def reading(
        self, name: str, mask: NDArray[np.bool_], confidence: Floats, price: Floats, choice: Choice
    ) -> LoggedReading:
        sheet, query = self.sheet.where(mask), self.query[mask]
        again = ~pl.Series(query).is_first_distinct().to_numpy()
        sheet.refuse(
            "E_DUPID", again, "query_id", f"again with tier {self.name!r} and reading {name!r}; name each reading once"
        )
        given = choice.counted(sheet, "confidence", LoggedReading(name, confidence[mask], price[mask]))
        seen, paid = np.full(len(self.index), np.nan), np.zeros(len(self.index))
        seen[query], paid[query] = given.confidence, given.price
        correct = None
        if name in choice.samples and self.name not in choice.signals:
            correct = np.full(len(self.index), np.nan)
            correct[query] = _changed(sheet, "correct", given)
        return replace(given, confidence=seen, price=paid, correct=correct)


# Writing -------------------------------------------------------------------------------------------------------------


def wide_columns(file: str, log: ReplayLog) -> list[pl.Series]:
    """The columns of the wide form, null where nothing is known; ``file`` is to complain about."""
    columns = [pl.Series("query_id", log.query_ids.tolist(), dtype=pl.String)]
    if not np.array_equal(log.group_ids, log.query_ids):
        columns.append(pl.Series("group_id", log.group_ids.tolist(), dtype=pl.String))
    if (log.weights != 1).any():
        columns.append(pl.Series("weight", log.weights))
    if log.contexts is not None:
        columns.append(pl.Series("context", log.contexts.tolist(), dtype=pl.String))
    for tier in log.tiers:
        own = pl.Series(f"correct_{tier.name}", tier.correct), pl.Series(f"cost_{tier.name}", tier.cost)
        columns += [column.fill_nan(None) for column in own]
        for reading in tier.readings:
            confidence = pl.Series(reading_column("conf", reading.name, tier.name), reading.confidence)
            columns.append(confidence.fill_nan(None))
            if reading.price.any():
                columns.append(pl.Series(reading_column("verify_cost", reading.name, tier.name), reading.price))
            if reading.correct is not None:
                changed = pl.Series(reading_column("correct", reading.name, tier.name), reading.correct)
                columns.append(changed.fill_nan(None))
    for signal in log.signals:
        for reading in signal.readings:
            agrees = (signal.name, reading.name) == (f"{AGREE}_{'_'.join(signal.needs)}", AGREE)
            column = signal.name if agrees else reading_column("conf", reading.name, signal.name)
            price = f"cost_{signal.name}" if agrees else reading_column("verify_cost", reading.name, signal.name)
            columns.append(pl.Series(column, reading.confidence).fill_nan(None))
            if reading.price.any():
                columns.append(pl.Series(price, reading.price))
    names = [column.name for column in columns]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise LogError("E_NAME", f"{file}: two columns would be called {twice[0]}; rename a tier or a reading")
    return columns
