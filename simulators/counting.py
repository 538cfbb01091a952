"""Counting: the cells of a log of any size in one pass over a lazy frame, the work done by the frame's own engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add, and_
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl

from metaverify.policies.graph import Read
from metaverify.policies.policy import Policy
from metaverify.simulators.cells import SCORE, Amount, Cells, Place
from metaverify.simulators.columns import NO_SIGNALS, ReadingColumns, Signals, reading_column
from metaverify.simulators.counts import Counts, labels_of
from metaverify.simulators.engines import BATCH, collected, with_batches
from metaverify.simulators.files import told_as_log_errors
from metaverify.simulators.frames import Options, Part, Source, is_glob, parts_of
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.reader import read_log
from metaverify.simulators.sketch import CELLS, Histogram, Sketch, grid_cell

__all__ = ["Cuts", "as_log", "count", "cuts_of", "sketch"]

Cuts = Counts | Sketch | Policy | Mapping[Place, Sequence[float]]
"""Where the edges of bins come from: other counts, a sketch, the cuts of a policy, or (source, reading) -> edges."""

NO_VOTE = 1e-4  # of a vote: more than rounding takes off a share
TOO_DEAR, TOO_HEAVY = 1e100, 1e15

Expr = nw.Expr
Progress = Callable[[str, float], None]


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
    progress: Progress = lambda what, share: None,
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
        drawn = cuts if isinstance(cuts, Sketch) else _sketched(parts, progress, sampled=True)
        own = {} if isinstance(cuts, Sketch) else _edges_of(cuts, drawn)
        given = drawn.cells(bins=bins, batches=batches, most=cells, cuts=own)
        try:
            found = _counted(parts, given, progress)
        except UnforeseenError:
            if isinstance(cuts, Sketch) or drawn.seen == drawn.rows:
                raise
            drawn = _sketched(parts, progress, sampled=False)
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
        return replace(found, notes=tuple(notes))
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


def sketch(source: Source, *, progress: Progress = lambda what, share: None, **options: Any) -> Sketch:
    """The sketch of a whole log: what its parts on several machines are to be counted over is made from the sum of
    their sketches.

    Args:
        source: as `count`.
        progress: as `count`.
        **options: those of `count` that are `read_log`'s.

    Raises:
        LogError: as `count`.
    """
    return _sketched(parts_of(source, Options.of(**options)), progress, sampled=False)


def as_log(source: Source) -> ReplayLog:
    """Whatever is given for a log as a log: what is in one file is read whole, and what is more is counted.

    Raises:
        LogError: as `read_log` or `count`.
    """
    if isinstance(source, ReplayLog):
        return source
    if isinstance(source, Counts):
        return source.log()
    if isinstance(source, str | os.PathLike) and not is_glob(source):
        return read_log(source)
    return count(source).log()


# One pass ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Check:
    """What must not be: a column, when it is at fault, and what is said then."""

    code: str
    column: str
    fault: Expr
    why: str
    unforeseen: bool = False  # in the sketch's sample, though it may be so


class UnforeseenError(LogError):
    """What a sketch of some of the rows could not tell."""


def _number(column: str) -> Expr:
    return nw.col(column).cast(nw.Float64)


def _is_missing(value: Expr) -> Expr:
    return value.is_null() | value.is_nan()


def _confidence(reading: ReadingColumns, scale: float) -> Expr:
    raw = _number(reading.confidence)
    return raw if scale == 1.0 else raw / scale


def _checks(part: Part, cells: Cells | None) -> list[_Check]:
    """Every rule that rows must keep; where there are cells, also that they hold what is there."""
    found = []
    tiers = {source.name: source for source in cells.sources} if cells else {}
    amounts = {place: amount for _, place, amount in cells.amounts() if amount is not SCORE} if cells else {}
    for (source, sample), column in part.answers().items():
        value = _number(column)
        none = _is_missing(value)
        if sample is None:
            found.append(_Check("E_MISSING", column, none, "but every answer must be right or wrong, or in between"))
        found.append(
            _Check("E_RANGE", column, ~none & ~((value >= 0.0) & (value <= 1.0)), "outside [0, 1]; rescale it")
        )
        if cells is not None:
            own = tiers[source]
            graded = own.graded if sample is None else next(r for r in own.readings if r.name == sample).graded
            between = ~none & (value > 0.0) & (value < 1.0)
            if not graded:
                told = "though the cells were made for right and wrong; sketch the log anew"
                found.append(_Check("E_RANGE", column, between, told, unforeseen=True))
    for _, reading, scale in part.readings():
        value = _confidence(reading, scale)
        none = _is_missing(value)
        outside = ~none & ~((value >= 0.0) & (value <= 1.0))
        found.append(_Check("E_RANGE", reading.confidence, outside, f"outside [0, {scale:g}]; see --scale"))
        if count := (part.choice.votes or {}).get(reading.name, 0):
            share = value * float(count)
            odd = share - (share + 0.5).floor()
            apart = ~none & ((odd > NO_VOTE) | (odd < -NO_VOTE))
            found.append(_Check("E_RANGE", reading.confidence, apart, f"no share of {count} votes; correct --votes"))
        if reading.correct is not None:
            unknown = _is_missing(_number(reading.correct)) & ~none
            found.append(_Check("E_MISSING", reading.correct, unknown, f"though {reading.confidence} is there"))
    confidences = {place: _confidence(reading, scale) for place, reading, scale in part.readings()}
    for place, price in part.prices().items():
        if isinstance(price, str):
            column, value = price, _number(price)
            none = _is_missing(value)
            unpaid = none if place[1] is None else none & ~_is_missing(confidences[place])
            found.append(_Check("E_MISSING", column, unpaid, "but every answer and reading has a price; fill it in"))
            found.append(_Check("E_RANGE", column, ~none & ~((value >= 0.0) & (value <= TOO_DEAR)), "not a price"))
            if place in amounts:
                told = "far beyond the prices that the cells were made for; sketch the log anew"
                found.append(_Check("E_RANGE", column, ~none & (value > amounts[place].most), told, unforeseen=True))
    if part.weight is not None:
        value = _number(part.weight)
        none = _is_missing(value)
        wrong = none | ~((value >= 1 / TOO_HEAVY) & (value <= TOO_HEAVY))
        found.append(_Check("E_RANGE", part.weight, wrong, "not a weight; give a finite number above 0"))
        if ("", None) in amounts:
            told = "far beyond the weights that the cells were made for; sketch the log anew"
            found.append(
                _Check("E_RANGE", part.weight, ~none & (value > amounts["", None].most), told, unforeseen=True)
            )
    return found


def _sound(part: Part, cells: Cells) -> Expr:
    """Whether a row keeps the rules, false or null where it does not; in fewer words than `_checks`, which says why."""
    amounts = {place: amount for _, place, amount in cells.amounts() if amount is not SCORE}
    graded: dict[Place, bool] = {(source.name, None): source.graded for source in cells.sources}
    graded |= {(source.name, r.name): r.graded for source in cells.sources for r in source.readings}
    missing = {place: _is_missing(_confidence(reading, scale)) for place, reading, scale in part.readings()}
    rules = [~nw.col(BATCH).is_null()]
    for place, column in part.answers().items():
        value = _number(column)
        rule = (value >= 0.0) & (value <= 1.0) if graded.get(place) else (value == 0.0) | (value == 1.0)
        rules.append(rule if place[1] is None else rule | (_is_missing(value) & missing[place]))
    for place, reading, scale in part.readings():
        value = _confidence(reading, scale)
        rule = (value >= 0.0) & (value <= 1.0)
        if count := (part.choice.votes or {}).get(reading.name, 0):
            odd = value * float(count) - (value * float(count) + 0.5).floor()
            rule = rule & (odd <= NO_VOTE) & (odd >= -NO_VOTE)
        rules.append(rule | missing[place])
    for place, price in part.prices().items():
        if isinstance(price, str):
            most = amounts[place].most if place in amounts else TOO_DEAR
            rule = (_number(price) >= 0.0) & (_number(price) <= min(most, TOO_DEAR))
            rules.append(rule if place[1] is None else rule | (_is_missing(_number(price)) & missing[place]))
    if part.weight is not None:
        most = min(cells.weight.most if cells.weight else TOO_HEAVY, TOO_HEAVY)
        rules.append((_number(part.weight) >= 1 / TOO_HEAVY) & (_number(part.weight) <= most))
    return reduce(and_, rules)


def _refuse(part: Part, checks: Sequence[_Check]) -> None:
    """Raise for the first rule that some row does not keep, if there is one."""
    faults = collected(
        part.frame.select(**{str(at): check.fault.cast(nw.Int64).sum() for at, check in enumerate(checks)})
    )
    for at, check in enumerate(checks):
        if count := faults[str(at)].item():
            shown: Any = collected(part.frame.filter(check.fault).select(nw.col(check.column)).head(1)).item()
            kind = UnforeseenError if check.unforeseen else LogError
            value = "missing" if shown is None or shown != shown else repr(shown)
            rows = "one row" if count == 1 else f"{count:,} rows"
            raise kind(check.code, f"{part.name}: {check.column} is {value} in {rows}, {check.why}")


def _sketched(parts: Callable[[], Iterator[Part]], progress: Progress, *, sampled: bool) -> Sketch:
    progress("sketching", 0.0)
    return reduce(add, (_sketch_of(part, sampled=sampled) for part in parts()))


def _sketch_of(part: Part, *, sampled: bool) -> Sketch:
    rows = None
    if sampled and part.sampled is not None:
        native, rows = part.sampled()
        part = replace(part, native=native)
    with told_as_log_errors(Path(part.name)):
        return _sketch_frame(part, rows)


def _sketch_frame(part: Part, rows: int | None) -> Sketch:
    frame = part.frame
    prices = {place: column for place, column in part.prices().items() if isinstance(column, str)}
    if part.weight is not None:
        prices["", None] = part.weight
    figures = {"rows": nw.len()}
    for at, column in enumerate(prices.values()):
        figures |= {f"low {at}": _number(column).min(), f"high {at}": _number(column).max()}
    for at, column in enumerate(part.answers().values()):
        value = _number(column)
        figures[f"graded {at}"] = ((value > 0.0) & (value < 1.0)).cast(nw.Int64).sum()
    found = collected(frame.select(**figures)).row(0, named=True)
    if not found["rows"]:
        raise LogError("E_EMPTY", f"{part.name} has no rows")
    amounts: dict[Place, tuple[float, float]] = {
        place: (_amount(found[f"low {at}"]), _amount(found[f"high {at}"])) for at, place in enumerate(prices)
    }
    amounts |= {place: (price, price) for place, price in part.prices().items() if isinstance(price, float)}
    graded = frozenset(place for at, place in enumerate(part.answers()) if found[f"graded {at}"])
    histograms = {place: _histogram(frame, _confidence(reading, scale)) for place, reading, scale in part.readings()}
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
    values = frame.select(value=confidence).filter(~_is_missing(nw.col("value")))
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
    columns = _context_columns(part)
    found = collected(part.frame.select(**columns).unique())
    return frozenset(labels_of(_context_values(part, found), part.context_cuts).tolist())


def _context_columns(part: Part) -> dict[str, Expr]:
    found = {}
    for at, column in enumerate(part.context):
        if column in part.context_cuts:
            value, cuts = _number(column), part.context_cuts[column]
            none = _is_missing(value) | (value - value).is_nan()
            found[f"context {at}"] = nw.when(none).then(len(cuts) + 1).otherwise(_bin(value, cuts))
        else:
            found[f"context {at}"] = _text(column, part.frame.collect_schema()[column])
    return found


def _text(column: str, kind: Any) -> Expr:
    if kind == nw.Boolean:
        value = nw.col(column)
        told = nw.when(value).then(nw.lit("true")).otherwise(nw.lit("false"))
        return nw.when(value.is_null()).then(nw.lit("")).otherwise(told)
    value = nw.col(column).cast(nw.String)
    return nw.when(value.is_null()).then(nw.lit("")).otherwise(value)


def _context_values(part: Part, found: pl.DataFrame) -> dict[str, list[Any]]:
    return {column: found[f"context {at}"].to_list() for at, column in enumerate(part.context)}


def _bin(value: Expr, edges: Sequence[float]) -> Expr:
    """How many edges a value is not below."""
    narrow = nw.Int8() if len(edges) < 127 else nw.Int64()
    return reduce(add, ((value >= edge).cast(narrow) for edge in edges), nw.lit(0, dtype=narrow)).cast(nw.Int64)


def _edges_of(cuts: Cuts | None, drawn: Sketch) -> dict[Place, tuple[float, ...]]:
    """The edges that are given, of readings that the log has."""
    if cuts is None:
        return {}
    assert not isinstance(cuts, Counts | Sketch), "these settle all cells"
    given = cuts_of(cuts) if isinstance(cuts, Policy) else {place: tuple(sorted(at)) for place, at in cuts.items()}
    return {place: edges for place, edges in given.items() if place in drawn.histograms}


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


def _counted(parts: Callable[[], Iterator[Part]], cells: Cells, progress: Progress) -> Counts:
    progress("counting", 0.0)
    total: Counts | None = None
    for part in parts():
        with told_as_log_errors(Path(part.name)):
            own = _count_part(part, cells)
        total = own if total is None else total + own
    assert total is not None, "there is a part at least"
    return total


def _count_part(part: Part, cells: Cells) -> Counts:
    _check_outline(part, cells)
    batched = _with_batches(part, cells.batches)
    checks = [*_checks(batched, cells)]
    lacking = nw.col(BATCH).is_null()
    checks.append(_Check("E_MISSING", batched.identity or BATCH, lacking, "but every row needs one; fill it in"))
    digits, ints = _digit_columns(batched, cells), _amount_columns(batched, cells)
    whole = nw.Int32() if cells.most() < 2**31 else nw.Int64()
    key: Expr = nw.lit(0, dtype=whole)
    for name, size in cells.digits().items():
        key = key * size + digits[name].cast(whole)
    contexts = _context_columns(batched)
    columns = {"key": nw.when(_sound(batched, cells)).then(key).otherwise(nw.lit(-1, dtype=whole)), **contexts, **ints}
    totals = {"rows": nw.len(), **{name: nw.col(name).sum() for name in ints}}
    try:
        found = collected(batched.frame.select(**columns).group_by("key", *contexts).agg(**totals))
    except LogError:
        raise
    except Exception:
        _refuse(batched, checks)  # an overflow or a cast that a wrong value caused, if that is what it was
        raise
    if (found["key"] < 0).any():
        _refuse(batched, checks)
        raise LogError("E_RANGE", f"{part.name} has rows with values that cannot be counted")
    label = np.full(len(found), "", dtype=object)
    if part.context:
        label = labels_of(_context_values(batched, found), batched.context_cuts)
    return Counts.of(
        cells,
        label,
        found["key"].to_numpy().astype(np.int64),
        found["rows"].to_numpy().astype(np.int64),
        found.select(*ints).to_numpy().astype(np.int64).reshape(len(found), len(ints)),
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
    if (has.context, has.context_cuts) != (wanted.context, wanted.context_cuts):
        raise LogError(
            "E_OPTION",
            f"{part.name}: context {', '.join(has.context) or 'none'} is not what was counted: "
            f"{', '.join(wanted.context) or 'none'}, cut alike; give that",
        )
    if (has.weight is None) != (wanted.weight is None):
        raise LogError("E_OPTION", f"{part.name}: some of the logs have weights and some have none; give all or none")


def _with_batches(part: Part, batches: int) -> Part:
    if part.identity is not None:
        return replace(part, native=with_batches(part.native, part.identity, batches))
    if not isinstance(part.native, pl.LazyFrame):
        raise LogError(
            "E_COLUMN", f"{part.name} has neither query_id nor group_id, by which rows are put in batches; add one"
        )
    return replace(part, native=part.native.with_row_index(BATCH).with_columns(pl.col(BATCH).cast(pl.Int64) % batches))


def _digit_columns(part: Part, cells: Cells) -> dict[str, Expr]:
    """The value of each of `Cells.digits` in a row."""
    readings = {place: (reading, scale) for place, reading, scale in part.readings()}
    answers, names = part.answers(), list(cells.digits())
    found: list[Expr] = []
    for source in cells.sources:
        if source.answer:
            found.append((_number(answers[source.name, None]) >= 0.5).cast(nw.Int64))
        for reading in source.readings:
            place = (source.name, reading.name)
            value = _confidence(*readings[place])
            none = _is_missing(value)
            found.append(nw.when(none).then(len(reading.values)).otherwise(_bin(value, reading.edges)))
            if reading.sample:
                quality = _number(answers[place])
                right = (quality >= 0.5).cast(nw.Int64)
                found.append(nw.when(_is_missing(quality)).then(2).otherwise(right))
    return dict(zip(names, [*found, nw.col(BATCH).cast(nw.Int64)], strict=True))


def _amount_columns(part: Part, cells: Cells) -> dict[str, Expr]:
    """What a row adds to each sum."""
    prices, answers = part.prices(), part.answers()
    weight = None if part.weight is None else _number(part.weight)
    found: dict[str, Expr] = {}
    for name, place, amount in cells.amounts():
        if name == "weight":
            found[name] = _whole(_number(part.weight or ""), amount, None)
            continue
        column = answers[place] if amount is SCORE else prices[place]
        value = _number(column) if isinstance(column, str) else nw.lit(column or 0.0)
        if isinstance(column, str) and place[1] is not None:  # what is missing costs nothing
            value = nw.when(_is_missing(value)).then(0.0).otherwise(value)
        found[name] = _whole(value, amount, weight)
    return found


def _whole(value: Expr, amount: Amount, weight: Expr | None) -> Expr:
    units = (value - amount.origin) * (1.0 / amount.unit)
    return ((units if weight is None else weight * units) + 0.5).floor().cast(nw.Int64)
