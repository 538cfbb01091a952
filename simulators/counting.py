"""Counting: the cells of a log of any size in one pass over a lazy frame, the work done by the frame's own engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import narwhals as nw
import numpy as np
import polars as pl

from metaverify.policies.graph import Read
from metaverify.policies.policy import Policy
from metaverify.simulators.cells import Cells, Place
from metaverify.simulators.checks import Check, UnforeseenError, checks_of, refuse, sound
from metaverify.simulators.columns import NO_SIGNALS, SignalColumns, Signals, TierColumns, reading_column
from metaverify.simulators.counts import Counts, labels_of, rows_of
from metaverify.simulators.engines import BATCH, collected, with_batches
from metaverify.simulators.expressions import Expr, amount_columns, context_columns, context_values, digit_columns
from metaverify.simulators.files import told_as_log_errors
from metaverify.simulators.frames import Options, Part, Source, is_glob, parts_of
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.progress import Passed, Tell, silent
from metaverify.simulators.reader import read_log
from metaverify.simulators.sketch import CELLS, Sketch
from metaverify.simulators.sketching import sketched

__all__ = ["Cuts", "as_log", "count", "cuts_of"]

Kind = TypeVar("Kind", TierColumns, SignalColumns)

Cuts = Counts | Sketch | Policy | Mapping[Place, Sequence[float]]
"""Where the edges of bins come from: other counts, a sketch, the cuts of a policy, or (source, reading) -> edges."""


def count(
    source: Source,
    *,
    cuts: Cuts | None = None,
    bins: int = 32,
    batches: int = 32,
    cells: int = CELLS,
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
    progress: Tell = silent,
) -> Counts:
    """Count a log of any size into cells, from which a policy is fitted as from the log.

    Only cells leave the engine.  Parquet files in the wide form are streamed; each file of another format or form is
    read whole, one after the other, and so must hold whole queries.  A query that is there twice counts twice.

    Args:
        source: the log, in the wide form unless it is in files.
        cuts: where the edges of bins come from.  Counts over the same edges add up; `Counts` and `Sketch` settle
            everything, other cuts those of the readings that they name.  Without, edges are balanced quantiles: of
            the whole log where it is a frame, and of 100,000 rows, spread over it, of Parquet files.
        bins: of a reading, at most.
        batches: random parts of the log's groups (of its queries, where there are no groups), on which
            cross-fitting and intervals rest.
        cells: bins are made coarser while there could be more cells than this.
        tiers: as the options from here on, see `read_log`; a context that is a number needs its ``context_cuts``.
        context: columns known before any call.
        costs: price per call by tier, instead of the cost columns.
        scale: what the confidences are divided by.
        group: the column that names what is drawn together.
        weight: the column that says how many queries a row stands for.
        signals: sources without answers of their own.
        votes: readings that are shares of votes.
        context_cuts: context column -> where it is cut.
        samples: readings that change the answer.
        progress: told what is being done, and the share of the whole that is done.

    Raises:
        LogError: as `read_log`, without the row; a frame in the long form; too many cells.

    Example:
        >>> from metaverify import fit, load_digits_log
        >>> counts = count(load_digits_log())
        >>> counts.queries
        1797
        >>> fit(counts.log(), budget=4.0).outcome.n
        1797
    """
    options = Options(
        tiers, context, costs or {}, scale, group, weight, signals, votes or {}, context_cuts or {}, samples
    )
    parts = parts_of(source, options)
    given = cuts.cells if isinstance(cuts, Counts) else None
    if given is None:
        drawn = cuts if isinstance(cuts, Sketch) else sketched(parts, progress, sampled=True)
        own = {} if isinstance(cuts, Sketch) else _edges_of(cuts, drawn)
        given = drawn.cells(bins=bins, batches=batches, most=cells, cuts=own)
        try:
            found = _counted(parts, given, progress)
        except UnforeseenError:
            if isinstance(cuts, Sketch) or drawn.seen == drawn.rows:
                raise
            drawn = sketched(parts, progress, sampled=False)
            own = _edges_of(cuts, drawn)
            given = drawn.cells(bins=bins, batches=batches, most=cells, cuts=own)
            found = _counted(parts, given, progress)
        coarse = drawn.coarse(given, bins, batches, own)
        notes = [f"to keep the cells few, {'; '.join(coarse)}"] if coarse else []
        if drawn.seen < drawn.rows:
            off = f"{100 * rank_error(found, drawn):.2f} %"
            notes.append(
                f"edges come from {drawn.seen:,} of {drawn.rows:,} rows, and are off by {off} of the rows at most"
            )
        return replace(found, notes=(*found.notes, *notes))
    return _counted(parts, given, progress)


def rank_error(counts: Counts, drawn: Sketch) -> float:
    """The largest difference, at any edge, between the share of readings below it in the counts and in a sketch."""
    errors, digits = [0.0], counts.digits()
    for source in counts.cells.sources:
        for reading in source.readings:
            place, bins = digits[reading_column("conf", reading.name, source.name)], len(reading.values)
            counted = np.bincount(place, counts.rows, bins + 1)[:bins]
            histogram = drawn.histograms[source.name, reading.name]
            at = np.searchsorted(np.asarray(reading.edges), histogram.low, side="right")
            seen = np.bincount(at, histogram.rows, max(bins, 1))
            if counted.sum() and seen.sum():
                below = np.cumsum(counted) / counted.sum() - np.cumsum(seen) / seen.sum()
                errors.append(float(np.abs(below).max()))
    return max(errors)


def as_log(source: Source) -> ReplayLog:
    """Whatever is given for a log as a log: what is in one file is read whole, and what is more is counted.

    Raises:
        LogError: as `read_log` or `count`.
    """
    if isinstance(source, ReplayLog | Counts):
        return rows_of(source)
    if isinstance(source, str | os.PathLike) and not is_glob(source):
        return read_log(source)
    return count(source).log()


def _counted(parts: Callable[[], Iterator[Part]], cells: Cells, progress: Tell) -> Counts:
    done, total = 0.0, None
    progress("counting", done)
    for part in parts():
        passed = Passed(progress, "counting", done, part.share, part.rows() if part.rows else 1)
        with told_as_log_errors(Path(part.name)):
            own = _count_part(part, cells, passed)
        total = own if total is None else total + own
        done += part.share
        progress("counting", done)
    assert total is not None, "there is a part at least"
    return total


def _count_part(part: Part, cells: Cells, passed: Callable[[int], None]) -> Counts:
    _check_outline(part, cells)
    part, notes = _without_new_readings(part, cells)
    batched = _with_batches(part, cells.batches, passed)
    checks = [*checks_of(batched, cells)]
    lacking = nw.col(BATCH).is_null()
    checks.append(Check("E_MISSING", batched.identity or BATCH, lacking, "but every row needs one; fill it in"))
    digits, ints = digit_columns(batched, cells), amount_columns(batched, cells)
    whole = nw.Int32() if cells.most() < 2**31 else nw.Int64()
    key: Expr = nw.lit(0, dtype=whole)
    for name, size in cells.digits().items():
        key = key * size + digits[name].cast(whole)
    contexts = context_columns(batched)
    columns = {"key": nw.when(sound(batched, cells)).then(key).otherwise(nw.lit(-1, dtype=whole)), **contexts, **ints}
    totals = {"rows": nw.len(), **{name: nw.col(name).sum() for name in ints}}
    try:
        found = collected(batched.frame.select(**columns).group_by("key", *contexts).agg(**totals))
    except LogError:
        raise
    except Exception:
        refuse(batched, checks)  # an overflow or a cast that a wrong value caused, if that is what it was
        raise
    if (found["key"] < 0).any():
        refuse(batched, checks)
        raise LogError("E_RANGE", f"{part.name} has rows with values that cannot be counted")
    label = np.full(len(found), "", dtype=object)
    if part.context:
        label = labels_of(context_values(batched, found), batched.context_cuts)
    return Counts.of(
        cells,
        label,
        found["key"].to_numpy().astype(np.int64),
        found["rows"].to_numpy().astype(np.int64),
        found.select(*ints).to_numpy().astype(np.int64).reshape(len(found), len(ints)),
        notes,
    )


def _check_outline(part: Part, cells: Cells) -> None:
    """Make sure that a frame has what the cells tell apart."""
    has, wanted = part.outline(), cells
    for source in wanted.sources:
        own = next((each for each in has.sources if each.name == source.name and each.answer == source.answer), None)
        if own is None:
            known = ", ".join(each.name for each in has.sources)
            raise LogError("E_OPTION", f"{part.name} has no {source.name!r}, which is counted; it has {known}")
        readings = {r.name: r for r in own.readings}
        for reading in source.readings:
            plain = readings.get(reading.name)
            if plain is None or (plain.votes, plain.sample) != (reading.votes, reading.sample):
                raise LogError(
                    "E_OPTION",
                    f"{part.name} has no reading {reading.name!r} of {source.name!r} as it is counted (votes and "
                    "samples alike); declare it as it was, or count anew",
                )
    if new := [source.name for source in has.sources if source.name not in {own.name for own in wanted.sources}]:
        known = ",".join(source.name for source in wanted.sources)
        raise LogError(
            "E_OPTION",
            f"{part.name} has {', '.join(map(repr, new))}, which the cells have not: --tiers {known} counts the "
            "rest; to have it too, count every part over the sum of sketches of all (metaverify count --sketch)",
        )
    if (has.context, has.context_cuts) != (wanted.context, wanted.context_cuts):
        raise LogError(
            "E_OPTION",
            f"{part.name}: context {', '.join(has.context) or 'none'} is not what was counted: "
            f"{', '.join(wanted.context) or 'none'}, cut alike; give that",
        )
    if (has.weight is None) != (wanted.weight is None):
        raise LogError("E_OPTION", f"{part.name}: some of the logs have weights and some have none; give all or none")


def _without_new_readings(part: Part, cells: Cells) -> tuple[Part, tuple[str, ...]]:
    """The frame with only those readings that the cells tell apart, and a note on each of the others."""
    known = {(source.name, reading.name) for source in cells.sources for reading in source.readings}

    def kept(source: Kind) -> Kind:
        return replace(source, readings=tuple(r for r in source.readings if (source.name, r.name) in known))

    notes = tuple(
        f"{reading} of {source} is in {part.name} and not in the cells, and is not counted; to have it too, count "
        "every part over the sum of sketches of all"
        for (source, reading), _, _ in part.readings()
        if (source, reading) not in known
    )
    return replace(part, tiers=tuple(map(kept, part.tiers)), signals=tuple(map(kept, part.signals))), notes


def _with_batches(part: Part, batches: int, passed: Callable[[int], None]) -> Part:
    if part.identity is not None:
        return replace(part, native=with_batches(part.native, part.identity, batches, passed))
    if not isinstance(part.native, pl.LazyFrame):
        raise LogError(
            "E_COLUMN", f"{part.name} has neither query_id nor group_id, by which rows are put in batches; add one"
        )
    return replace(part, native=part.native.with_row_index(BATCH).with_columns(pl.col(BATCH).cast(pl.Int64) % batches))


def _edges_of(cuts: Cuts | None, drawn: Sketch) -> dict[Place, tuple[float, ...]]:
    """The edges that are given, of readings that the log has."""
    if cuts is None:
        return {}
    assert not isinstance(cuts, Counts | Sketch), "these settle all cells"
    if isinstance(cuts, Policy):
        return {place: edges for place, edges in cuts_of(cuts).items() if place in drawn.histograms}
    for (source, reading), at in cuts.items():
        if (source, reading) not in drawn.histograms:
            known = ", ".join(f"{reading} of {source}" for source, reading in drawn.histograms)
            raise LogError("E_OPTION", f"cuts of {reading} of {source}, which the log has not; it has {known}")
        if not np.isfinite(np.asarray(at, dtype=float)).all():
            raise LogError("E_OPTION", f"cuts of {reading} of {source} are {tuple(at)}; give finite numbers")
    return {place: tuple(sorted(set(map(float, at)))) for place, at in cuts.items()}


def cuts_of(policy: Policy) -> dict[Place, tuple[float, ...]]:
    """Every cut that a policy makes, by reading; a fused score has those of its parts."""
    found: dict[Place, set[float]] = {}
    for node in policy.nodes:
        if isinstance(node, Read):
            found.setdefault((node.tier, node.reading), set()).update(node.cuts)
    for tier in policy.tiers:
        for reading in tier.readings:
            if reading.parts:
                found.pop((tier.name, reading.name), None)
            for part in reading.parts:
                found.setdefault((tier.name, part.reading), set()).update(part.cuts)
    return {place: tuple(sorted(cuts)) for place, cuts in found.items()}
