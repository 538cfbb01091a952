"""Frames: a log as frames in the wide form, one for all Parquet files of one schema, and what their columns are."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import narwhals as nw
import polars as pl

from metaverify.simulators.cells import Amount, Cells, Place, ReadingCells, SourceCells
from metaverify.simulators.columns import (
    AGREE,
    NO_SIGNALS,
    LogColumns,
    ReadingColumns,
    SignalColumns,
    Signals,
    TierColumns,
    source_columns,
)
from metaverify.simulators.counts import is_counted
from metaverify.simulators.engines import reading_little_ahead
from metaverify.simulators.files import told_as_log_errors
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.reader import Choice, log_columns, read_log, wide_columns

__all__ = ["Options", "Part", "Source", "files_of", "is_glob", "parts_of"]

Source = Any
"""A log: a path, a glob or several; a lazy frame of polars, DuckDB, PySpark or Dask; any table narwhals knows; a
`ReplayLog`."""

SAMPLED = 100_000  # rows of Parquet files from which edges are made
PIECES = 25  # in which they lie


@dataclass(frozen=True, slots=True)
class Options:
    """How the columns are to be taken; as `read_log` has it."""

    tiers: Sequence[str] | None = None
    context: str | Sequence[str] = ()
    costs: Mapping[str, float] | None = None
    scale: float = 1.0
    group: str | None = None
    weight: str | None = None
    signals: Signals = field(default_factory=lambda: NO_SIGNALS)
    votes: Mapping[str, int] | None = None
    context_cuts: Mapping[str, Sequence[float]] | None = None
    samples: str | Sequence[str] = ()

    @classmethod
    def of(cls, **options: Any) -> Options:
        """The options that are given; None stands for none."""
        return cls(**{name: value for name, value in options.items() if value is not None})

    def read(self, path: str) -> ReplayLog:
        """The log in a file, read whole."""
        return read_log(
            path,
            tiers=self.tiers,
            context=self.context,
            costs=self.costs,
            scale=self.scale,
            group=self.group,
            weight=self.weight,
            signals=self.signals,
            votes=self.votes,
            context_cuts=self.context_cuts,
            samples=self.samples,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One frame in the wide form, and what its columns are."""

    name: str
    native: Any
    tiers: tuple[TierColumns, ...]
    signals: tuple[SignalColumns, ...]
    choice: Choice
    identity: str | None  # the column whose hash is the batch
    weight: str | None
    context: tuple[str, ...]  # columns
    context_names: tuple[str, ...]
    context_cuts: Mapping[str, tuple[float, ...]]
    sampled: Callable[[], tuple[Any, int]] | None = None  # some of the rows, and how many there are in all
    rows: Callable[[], int] | None = None  # how many there are, where that is known before they are read
    share: float = 1.0  # of the log

    @property
    def frame(self) -> nw.LazyFrame[Any]:
        """The frame in the words of every engine."""
        lazy: nw.LazyFrame[Any] = nw.from_native(self.native).lazy()
        return lazy

    def readings(self) -> Iterator[tuple[Place, ReadingColumns, float]]:
        """(the place, its columns, its scale) of every reading."""
        sources: tuple[TierColumns | SignalColumns, ...] = (*self.tiers, *self.signals)
        for source in sources:
            own = 1.0 if source.readings and source.readings[0].name == AGREE else self.choice.scale
            for reading in source.readings:
                yield (source.name, reading.name), reading, own

    def columns(self) -> set[str | None]:
        """Everything that is looked at."""
        priced = {price for price in self.prices().values() if isinstance(price, str)}
        read = {reading.confidence for _, reading, _ in self.readings()}
        return {*priced, *read, *self.answers().values(), *self.context, self.weight}

    def prices(self) -> dict[Place, str | float | None]:
        """The column in which each price stands, or the price that was given; None where nothing is paid."""
        found: dict[Place, str | float | None] = {}
        for tier in self.tiers:
            price = self.choice.price(tier.name)
            if price is None and tier.cost is None:
                raise self.choice.no_price(tier.name)
            found[tier.name, None] = tier.cost if price is None else float(price)
            found |= {(tier.name, reading.name): reading.price for reading in tier.readings}
        for signal in self.signals:
            price = self.choice.price(signal.name)
            for at, reading in enumerate(signal.readings):
                paid = reading.price if price is None or at else float(price)
                found[signal.name, reading.name] = paid
        return found

    def answers(self) -> dict[Place, str]:
        """The column of each answer's quality."""
        found: dict[Place, str] = {(tier.name, None): tier.correct for tier in self.tiers}
        for place, reading, _ in self.readings():
            if reading.correct is not None:
                found[place] = reading.correct
        return found

    def outline(self) -> Cells:
        """The cells without edges."""
        prices, paid = self.prices(), Amount.between(0.0, 1.0)

        def readings(of: TierColumns | SignalColumns) -> tuple[ReadingCells, ...]:
            return tuple(
                ReadingCells(
                    r.name,
                    votes=(self.choice.votes or {}).get(r.name, 0),
                    price=None if prices[of.name, r.name] in (None, 0.0) else paid,
                    sample=r.correct is not None,
                )
                for r in of.readings
            )

        tiers = sorted((SourceCells(t.name, paid, readings=readings(t)) for t in self.tiers), key=lambda s: s.name)
        signals = sorted(
            (SourceCells(s.name, None, readings=readings(s), needs=s.needs) for s in self.signals), key=lambda s: s.name
        )
        weight = None if self.weight is None else paid
        return Cells((*tiers, *signals), self.context_names, self.context_cuts, 0, weight)


def parts_of(source: Source, options: Options) -> Callable[[], Iterator[Part]]:
    """The frames of a log, made anew each time that they are asked for."""
    if isinstance(source, ReplayLog):
        return lambda: iter((_part_of_log("the log", source),))
    if isinstance(source, str | os.PathLike) or (
        isinstance(source, Sequence) and all(isinstance(path, str | os.PathLike) for path in source)
    ):
        return _parts_of_files(files_of(source), options)
    try:
        frame = nw.from_native(source)
    except TypeError as error:
        raise LogError(
            "E_OPTION", f"{type(source).__name__} is no log; give a path, a glob, a frame or a ReplayLog"
        ) from error
    lazy = frame if isinstance(frame, nw.LazyFrame) else frame.lazy("polars")
    part = _part("the frame", lazy.to_native(), lazy.collect_schema(), options)
    return lambda: iter((part,))


def files_of(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """The files that are named, by themselves or by patterns, in order.

    Raises:
        LogError: there is none, or one of them is named twice, in whatever words.
    """
    named = [source] if isinstance(source, str | os.PathLike) else list(source)
    found: list[str] = []
    for each in named:
        matches = sorted(glob.glob(os.fspath(each), recursive=True)) if is_glob(each) else [os.fspath(each)]  # noqa: PTH207
        if not matches:
            raise LogError("E_FILE", f"{os.fspath(each)}: no file is called so")
        found += matches
    if not found:
        raise LogError("E_FILE", "no file is named; give at least one")
    known: dict[object, str] = {}
    for file in found:
        if (place := _place_of(file)) in known:
            same = file == known[place]
            told = f"{file} is named twice, and" if same else f"{known[place]} and {file} are one file, which"
            raise LogError("E_FILE", f"{told} would count twice; name it once")
        known[place] = file
    return found


def _place_of(file: str) -> object:
    """What all names of a file have in common."""
    try:
        found = Path(file).stat()
    except (OSError, ValueError):  # not there, which is said where it is opened
        return file
    return found.st_dev, found.st_ino


def is_glob(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a pattern for the names of files, and not itself one."""
    return glob.has_magic(os.fspath(path)) and not Path(path).exists()


def _parts_of_files(files: Sequence[str], options: Options) -> Callable[[], Iterator[Part]]:
    streamed = [file for file in files if _is_wide_parquet(file, options)]
    whole = [file for file in files if file not in streamed]
    size = {file: max(Path(file).stat().st_size, 1) for file in files}
    at_once = []
    for _, same in _by_schema(streamed):
        name = Path(same[0]).name if len(same) == 1 else f"{Path(same[0]).name} and {len(same) - 1} more"
        with told_as_log_errors(Path(same[0])):
            table = pl.scan_parquet(same, glob=False)
            part = _part(name, table, nw.from_native(table).collect_schema(), options)
        used = [column for column in part.columns() if column is not None]
        at_once.append(
            replace(
                part,
                sampled=partial(_spread, table.select(used)),
                rows=partial(_length, table),
                share=sum(map(size.__getitem__, same)) / sum(size.values()),
            )
        )

    def parts() -> Iterator[Part]:
        yield from at_once
        for file in whole:
            part = _part_of_log(Path(file).name, options.read(file))
            yield replace(part, share=size[file] / sum(size.values()))

    return parts


def _is_wide_parquet(file: str, options: Options) -> bool:
    if not file.lower().endswith(".parquet"):
        return False
    if kind := is_counted(file):
        raise LogError(
            "E_FILE",
            f"{Path(file).name} is a {kind} file, which is not counted again, nor added to a log; count the log by "
            f"itself (--cuts {Path(file).name} for the same edges), then add up what was counted: metaverify count "
            f"{Path(file).name} OTHER -o SUM, in Python with +",
        )
    context = [options.context] if isinstance(options.context, str) else options.context
    samples = [options.samples] if isinstance(options.samples, str) else options.samples
    columns = log_columns(
        file, context=context, group=options.group, weight=options.weight, signals=options.signals, samples=samples
    )
    return columns.form == "wide"


def _by_schema(files: Sequence[str]) -> list[tuple[Any, list[str]]]:
    found: list[tuple[Any, list[str]]] = []
    for file in files:
        schema = pl.read_parquet_schema(file)
        same = next((group for known, group in found if known == schema), None)
        if same is None:
            found.append((schema, [file]))
        else:
            same.append(file)
    return found


def _spread(table: pl.LazyFrame) -> tuple[pl.LazyFrame, int]:
    """About `SAMPLED` rows in pieces that are spread over a table, and how many it has."""
    total = _length(table)
    if total <= SAMPLED:
        return table, total
    length, step = SAMPLED // PIECES, total // PIECES
    with reading_little_ahead():
        pieces = [table.slice(at * step, length).collect(engine="streaming") for at in range(PIECES)]
    return pl.concat(pieces).lazy(), total


def _length(table: pl.LazyFrame) -> int:
    return int(table.select(pl.len()).collect().item())


def _part(name: str, native: Any, schema: nw.Schema, options: Options) -> Part:
    names = list(schema.names())
    context = (options.context,) if isinstance(options.context, str) else tuple(options.context)
    samples = (options.samples,) if isinstance(options.samples, str) else tuple(options.samples)
    columns = LogColumns.of(
        name,
        names,
        context=context,
        group=options.group,
        weight=options.weight,
        signals=options.signals,
        samples=samples,
    )
    if columns.form == "long":
        raise LogError(
            "E_COLUMN",
            f"{name} has a row a reading, which is counted from files only, each with whole queries; write it to such "
            "files, or pivot it to a row a query (correct_<tier>, cost_<tier>, conf_<tier>)",
        )
    choice = Choice(
        name, options.tiers, options.costs or {}, options.scale, options.signals, options.votes or {}, samples
    )
    tiers, signals = source_columns(name, names, options.signals, samples)
    kept, read = choice.of([tier.name for tier in tiers], {signal.name: signal.needs for signal in signals})
    tiers, signals = [t for t in tiers if t.name in kept], [s for s in signals if s.name in read]
    choice.check_votes([reading.name for of in (tiers, signals) for source in of for reading in source.readings])
    cuts = columns.keys.given_cuts(name, options.context_cuts or {})
    if lacking := [column for column in columns.keys.bins if column not in cuts]:
        raise LogError(
            "E_OPTION",
            f"{name}: where {lacking[0]} is cut must be known to count it; `metaverify count --cuts FILE` takes it "
            f"from a policy that has it, as one does that was fitted on a single file with --context {lacking[0]}:"
            f"{columns.keys.bins[lacking[0]]}, or from counts; in Python give context_cuts={{{lacking[0]!r}: [...]}}",
        )
    part = Part(
        name,
        native,
        tuple(tiers),
        tuple(signals),
        choice,
        columns.keys.group or columns.keys.query,
        columns.keys.weight,
        columns.keys.context,
        columns.keys.context,
        {column: cuts[column] for column in columns.keys.context if column in cuts},
    )
    _check_types(part, schema)
    return part


def _part_of_log(name: str, log: ReplayLog) -> Part:
    """A log in memory as a frame; what was said of its columns is said of the log."""
    if log.counted is not None:
        raise LogError("E_OPTION", f"{name} was counted already; add counts with +")
    frame = pl.DataFrame(wide_columns(name, log))
    needs = {signal.name: signal.needs for signal in log.signals}
    samples = sorted({r.name for tier in log.tiers for r in tier.readings if r.correct is not None})
    votes = {r.name: r.votes for source in log.sources for r in source.readings if r.votes}
    options = Options(signals=needs, samples=samples, votes=votes, context=() if log.contexts is None else "context")
    part = _part(name, frame.lazy(), nw.from_native(frame).schema, options)
    return replace(part, context_names=log.context_names or part.context, context_cuts={}, rows=lambda: len(log))


_NUMBERS = "give numbers, or write the log as a file, of which texts are read too"


_TOLD_VARIOUSLY = (nw.Float64, nw.Float32, nw.Decimal, nw.Datetime, nw.Duration, nw.Time, nw.Binary, nw.Unknown)


def _check_types(part: Part, schema: nw.Schema) -> None:
    """Make sure that what is summed is numbers, and what is a label or an id is the same text in every engine."""
    numeric = [reading.confidence for _, reading, _ in part.readings()]
    numeric += [column for column in part.prices().values() if isinstance(column, str)]
    numeric += [*part.context_cuts, *([] if part.weight is None else [part.weight])]
    for column in (*numeric, *part.answers().values()):
        if not (schema[column].is_numeric() or (schema[column] == nw.Boolean and column not in numeric)):
            raise LogError("E_TYPE", f"{part.name}: {column} holds {schema[column]}, not numbers; {_NUMBERS}")
    labels = [column for column in part.context if column not in part.context_cuts]
    for column in [*labels, *([] if part.identity is None else [part.identity])]:
        kind = schema[column]
        if (
            isinstance(kind, _TOLD_VARIOUSLY)
            or kind.is_nested()
            or (kind == nw.Boolean and column == part.identity and column not in labels)
        ):
            raise LogError(
                "E_TYPE",
                f"{part.name}: {column} holds {type(kind).__name__}, of which engines make different texts; give texts "
                "or whole numbers, which are names",
            )
