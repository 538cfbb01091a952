"""What is in a log, and what is wrong with it, before anything is learnt from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metaverify.simulators.counts import Counts, rows_of
from metaverify.simulators.log import Floats, LogWarning, ReplayLog
from metaverify.simulators.measures import (
    ContextReport,
    ReadingReport,
    SignalReport,
    TierReport,
    measure_contexts,
    measure_error_correlation,
    measure_signal,
    measure_tier,
    weighted_mean,
)
from metaverify.simulators.references import HullPoint, no_information_hull, oracle

__all__ = ["LogReport", "LogWarning", "inspect_log", "render"]

_FEW_ROWS = 200
_FEW_ROWS_OF_A_CONTEXT = 50
_FEW_VALUES = 5
_MUCH_MISSING = 0.2
_MANY_DUPLICATES = 0.2
_RARE = 0.01  # a confidence that fewer rows share is not shared by chance
_USEFUL_AUROC = 0.55
_INVERTED_AUROC = 0.45
_CLEARLY = 2.0  # standard errors
_CONTEXTS_SHOWN = 20
_MOST_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class LogReport:
    """What is in a log; every mean is weighted by the log's weights.

    ``weight`` is the sum of the weights: how many queries the rows stand for.  ``groups`` is None where every query
    is its own group; ``contexts`` stand by size, None where the log has none.  ``error_correlation`` is
    [tiers, tiers], None where a tier is always right or always wrong.  ``hull`` has the tiers between which one
    would mix without reading anything, cheapest first; ``oracle`` is what knowing every answer would cost and earn.
    """

    rows: int
    weight: float
    groups: int | None
    contexts: tuple[ContextReport, ...] | None
    tiers: tuple[TierReport, ...]
    error_correlation: tuple[tuple[float | None, ...], ...]
    hull: tuple[HullPoint, ...]
    oracle: HullPoint
    warnings: tuple[LogWarning, ...]
    signals: tuple[SignalReport, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report in dicts, lists, texts and finite numbers; None where a number is undefined."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def inspect_log(log: ReplayLog | Counts) -> LogReport:
    """Count, measure and doubt a log of at least one row and one tier, or its counts; the order of its rows does not
    matter."""
    log = rows_of(log).by_id()
    tiers = tuple(measure_tier(tier, log.weights) for tier in log.tiers)
    signals = tuple(measure_signal(signal, log) for signal in log.signals)
    contexts = None if log.contexts is None else measure_contexts(log, log.contexts)
    groups = None if np.array_equal(log.group_ids, log.query_ids) else log.group_count
    return LogReport(
        rows=log.queries,
        weight=math.fsum(log.weights),
        groups=groups,
        contexts=contexts,
        tiers=tiers,
        error_correlation=measure_error_correlation(log),
        hull=no_information_hull(log).points,
        oracle=oracle(log),
        warnings=(
            *log.notes,
            *_row_warnings(log, groups),
            *_context_warnings(contexts or ()),
            *_tier_warnings(log, tiers),
            *_reading_warnings((*tiers, *signals)),
        ),
        signals=signals,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


# Warnings ------------------------------------------------------------------------------------------------------------


def _row_warnings(log: ReplayLog, groups: int | None) -> Iterator[LogWarning]:
    count, unit = (log.queries, "rows") if groups is None or log.counted else (groups, "groups")
    if count < _FEW_ROWS:
        yield LogWarning("few-rows", f"{count} {unit} are few; below {_FEW_ROWS} expect wide intervals")
    if pl.Series(log.query_ids.tolist(), dtype=pl.String).str.contains(r"^row-\d{9}$").all():
        yield LogWarning("made-ids", "the query ids are row numbers, so a split changes with the order of the rows")
    yield from _twin_warnings(log)


def repeat_warnings(log: ReplayLog) -> tuple[LogWarning, ...]:
    """What says that rows of a log belong together, though nothing in it does."""
    return (*(note for note in log.notes if note.slug == "repeated-prompts"), *_twin_warnings(log))


def _twin_warnings(log: ReplayLog) -> Iterator[LogWarning]:
    if log.ungrouped and (share := _duplicates(log)) > _MANY_DUPLICATES:
        text = (
            f"{share:.0%} of the rows have an exact twin; if prompts were asked again, name them in a group_id column"
        )
        yield LogWarning("duplicate-rows", text)


def _duplicates(log: ReplayLog) -> float:
    """The share of rows with a twin in every number, where some confidence is too rare to agree by chance."""
    readings = [reading.confidence for source in log.sources for reading in source.readings]
    if not readings:
        return 0.0
    columns = [*readings, *(column for tier in log.tiers for column in (tier.correct, tier.cost))]
    twin = pl.DataFrame({str(i): column for i, column in enumerate(columns)}).is_duplicated().to_numpy()
    return float((twin & np.any([_is_rare(confidence) for confidence in readings], axis=0)).mean())


def _is_rare(confidence: Floats) -> NDArray[np.bool_]:
    _, value, count = np.unique(confidence, return_inverse=True, return_counts=True)
    return np.asarray((count < _RARE * len(confidence))[value] & ~np.isnan(confidence))


def _context_warnings(contexts: Sequence[ContextReport]) -> Iterator[LogWarning]:
    if small := [context for context in contexts if context.rows < _FEW_ROWS_OF_A_CONTEXT]:
        text = f"{len(small)} of {len(contexts)} contexts have fewer than {_FEW_ROWS_OF_A_CONTEXT} rows"
        yield LogWarning("small-contexts", f"{text}, too few to be learnt apart; use a coarser one")


def _tier_warnings(log: ReplayLog, tiers: Sequence[TierReport]) -> Iterator[LogWarning]:
    if len(tiers) == 1:
        yield LogWarning("one-tier", f"{tiers[0].name} is the only tier, so there is no one to route to")
    for slug, always, fault in (("all-right", 1, "never wrong"), ("all-wrong", 0, "never right")):
        if names := tuple(tier.name for tier in log.tiers if (tier.correct == always).all()):
            text = f"{len(names)} of {len(tiers)} tiers: {fault}, so a confidence has nothing to tell apart"
            yield LogWarning(slug, text, names)
    yield from _price_warnings(tiers)
    yield from _order_warnings(log, tiers)


def _price_warnings(tiers: Sequence[TierReport]) -> Iterator[LogWarning]:
    if free := tuple(tier.name for tier in tiers if tier.price == 0):
        text = f"{len(free)} of {len(tiers)} tiers: every answer is free; is a price missing?"
        yield LogWarning("free-tier", text, free)
    if len(tiers) > 1 and len({tier.price for tier in tiers}) == 1:
        yield LogWarning("equal-prices", f"all {len(tiers)} tiers cost the same, so no budget chooses between them")


def _order_warnings(log: ReplayLog, tiers: Sequence[TierReport]) -> Iterator[LogWarning]:
    clear: list[str] = []
    unclear: list[str] = []
    for tier in tiers:
        if better := _dominator(tier, tiers):
            gap, error = _paired_gap(log, better.name, tier.name)
            case = f"{tier.name}: {100 * abs(gap):.1f} ± {100 * error:.1f} points below {better.name}"
            (clear if gap > _CLEARLY * error else unclear).append(case)
    for slug, cases, fault in (
        ("dominated-tier", clear, "no cheaper than a better one"),
        ("price-order", unclear, "no cheaper than one that is as good, as far as the log can tell"),
    ):
        if cases:
            yield LogWarning(slug, f"{len(cases)} of {len(tiers)} tiers: {fault}", tuple(cases))


def _dominator(tier: TierReport, tiers: Sequence[TierReport]) -> TierReport | None:
    """The best of the tiers that cost no more and are no worse, and differ in one of the two."""
    above = [
        other
        for other in tiers
        if other.price <= tier.price
        and other.quality >= tier.quality
        and (other.price, other.quality) != (tier.price, tier.quality)
    ]
    return max(above, key=lambda other: other.quality, default=None)


def _paired_gap(log: ReplayLog, better: str, worse: str) -> tuple[float, float]:
    """How much better one tier is than another, and the standard error of that, drawing groups."""
    gaps = log.tier(better).correct - log.tier(worse).correct
    mean = weighted_mean(gaps, log.weights)
    sums = np.bincount(log.groups[1], log.weights * (gaps - mean))
    return mean, math.sqrt(sums @ sums) / float(log.weights.sum())


@dataclass(frozen=True, slots=True)
class _Fault:
    """What can be wrong with a reading, and the number that shows it."""

    slug: str
    text: str
    has: Callable[[ReadingReport], bool]
    shown: Callable[[ReadingReport], str]


_FAULTS = (
    _Fault("constant-confidence", "the same for every answer", lambda r: r.values == 1, lambda r: "one value"),
    _Fault(
        "useless-reading",
        "hardly better than a coin at telling right from wrong",
        lambda r: r.values > 1 and r.auroc is not None and _INVERTED_AUROC <= r.auroc < _USEFUL_AUROC,
        lambda r: f"AUROC {r.auroc:.3f}",
    ),
    _Fault(
        "inverted-reading",
        "higher on wrong answers than on right ones; is the sign turned?",
        lambda r: r.auroc is not None and r.auroc < _INVERTED_AUROC,
        lambda r: f"AUROC {r.auroc:.3f}",
    ),
    _Fault(
        "few-values",
        "few values, so few places to cut",
        lambda r: 1 < r.values <= _FEW_VALUES,
        lambda r: f"{r.values} values",
    ),
    _Fault(
        "missing-readings",
        f"missing in more than {_MUCH_MISSING:.0%} of the rows",
        lambda r: r.missing > _MUCH_MISSING,
        lambda r: f"{r.missing:.0%}",
    ),
)


def _reading_warnings(sources: Sequence[TierReport | SignalReport]) -> Iterator[LogWarning]:
    readings = [(source.name, reading) for source in sources for reading in source.readings]
    if not readings:
        yield LogWarning("no-readings", "no tier has a confidence, so only prices and contexts can decide")
    for fault in _FAULTS:
        found = [(tier, reading) for tier, reading in readings if fault.has(reading)]
        if found:
            cases = tuple(f"{reading.name} of {tier}: {fault.shown(reading)}" for tier, reading in found)
            yield LogWarning(fault.slug, f"{len(cases)} of {len(readings)} readings: {fault.text}", cases)


# Text ----------------------------------------------------------------------------------------------------------------


def render(report: LogReport) -> str:
    """The report as plain text, its tables lined up; up to 12 tiers fit in some 100 columns."""
    sections = [
        _head(report),
        _tier_table(report),
        _reading_table(report),
        _context_table(report),
        _correlation_table(report),
        _warning_list(report),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(report: LogReport) -> str:
    stands_for = "" if report.weight == report.rows else f" standing for {report.weight:,.6g}"
    counts = [f"{report.rows:,} queries{stands_for}"]
    counts += [] if report.groups is None else [f"{report.groups:,} groups"]
    counts += [] if report.contexts is None else [f"{len(report.contexts):,} contexts"]
    counts += [f"{len(report.tiers)} tiers"]
    counts += [f"{len(report.signals)} signals"] if report.signals else []
    counts += [f"{sum(len(s.readings) for of in (report.tiers, report.signals) for s in of)} readings"]
    return ", ".join(counts)


def _tier_table(report: LogReport) -> str:
    amounts = _amounts([*(tier.price for tier in report.tiers), *(tier.price_p95 for tier in report.tiers)])
    prices, tails = amounts[: len(report.tiers)], amounts[len(report.tiers) :]
    hull = {point.tier for point in report.hull}
    rows = [
        [f"{i}", tier.name, price, tail, f"{tier.quality:.4f}", "*" if tier.name in hull else ""]
        for i, (tier, price, tail) in enumerate(zip(report.tiers, prices, tails, strict=True), start=1)
    ]
    best = max(report.tiers, key=lambda tier: tier.quality)
    spent = _amounts([best.price, report.oracle.cost])
    notes = [
        f"best tier alone: {best.quality:.4f} at {spent[0]} ({best.name})",
        f"best tier of each query, were it known: {report.oracle.quality:.4f} at {spent[1]}",
        "hull: the tiers to mix by lot if nothing could be read",
    ]
    header = ["", "tier", "price", "p95", "quality", "hull"]
    return "\n".join(["TIERS", *_table(header, rows, texts=(1,)), *_notes(notes)])


def _reading_table(report: LogReport) -> str:
    readings = [(tier.name, reading) for tier in report.tiers for reading in tier.readings]
    readings += [(f"{signal.name} (of {signal.about})", r) for signal in report.signals for r in signal.readings]
    prices = _amounts([reading.price or None for _, reading in readings], none="free")
    rows = [
        [
            tier,
            reading.name,
            price,
            f"{reading.missing:.1%}",
            f"{reading.values:,}",
            _decimal(reading.auroc),
            _decimal(reading.calibration_error),
            _decimal(reading.bias, sign="+"),
        ]
        for (tier, reading), price in zip(readings, prices, strict=True)
    ]
    header = ["tier", "reading", "price", "missing", "values", "AUROC", "ECE", "bias"]
    notes = [
        "AUROC: how often the surer of two answers is the better one",
        "ECE: calibration error over 10 quantile bins; bias: mean confidence minus mean correctness",
    ]
    return "\n".join(["READINGS", *_table(header, rows, texts=(0, 1)), *_notes(notes)]) if rows else ""


def _context_table(report: LogReport) -> str:
    if report.contexts is None:
        return ""
    shown, rest = report.contexts[:_CONTEXTS_SHOWN], report.contexts[_CONTEXTS_SHOWN:]
    rows = [
        [context.name or '""', f"{context.rows:,}", *(f"{quality:.3f}" for quality in context.qualities)]
        for context in shown
    ]
    table = _table(["context", "rows", *_numbers(report)], rows, texts=(0,))
    more = [f"and {len(rest):,} smaller, {sum(context.rows for context in rest):,} rows"] if rest else []
    return "\n".join(["CONTEXTS, and the tiers' quality there", *table, *_notes(more)])


def _correlation_table(report: LogReport) -> str:
    if len(report.tiers) == 1:
        return ""
    rows = [
        [number, tier.name, *(_decimal(cell, places=2) for cell in row[: i + 1])]
        for i, (number, tier, row) in enumerate(
            zip(_numbers(report), report.tiers, report.error_correlation, strict=True)
        )
    ]
    table = _table(["", "tier", *_numbers(report)], rows, texts=(1,))
    return "\n".join(["CORRELATION OF ERRORS, 1 where two tiers fail on the same queries", *table])


def _warning_list(report: LogReport) -> str:
    if not report.warnings:
        return "NO WARNINGS"
    width = max(len(warning.slug) for warning in report.warnings) + 4
    lines = [
        line
        for warning in report.warnings
        for line in (f"  {warning.slug}".ljust(width) + warning.text, *(" " * (width + 2) + c for c in warning.cases))
    ]
    return "\n".join(["WARNINGS", *lines])


def _notes(notes: Sequence[str]) -> list[str]:
    return [f"  {note}" for note in notes]


def _numbers(report: LogReport) -> list[str]:
    return [f"{i}" for i in range(1, len(report.tiers) + 1)]


def _decimal(value: float | None, *, sign: str = "", places: int = 3) -> str:
    return "-" if value is None else f"{value:{sign}.{places}f}"


def _amounts(values: Sequence[float | None], *, none: str = "-") -> list[str]:
    """Prices with the same number of decimals, the fewest that tell each within a thousandth."""
    known = [value for value in values if value is not None]
    enough = (d for d in range(_MOST_DECIMALS) if all(abs(round(v, d) - v) <= v / 1000 for v in known))
    decimals = next(enough, _MOST_DECIMALS)
    return [none if value is None else f"{value:,.{decimals}f}" for value in values]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: Sequence[int]) -> list[str]:
    """Lines with their cells lined up: to the left in the columns ``texts``, to the right in the others."""
    lines = [[*row, *[""] * (len(header) - len(row))] for row in (header, *rows)]
    columns = [
        [cell.ljust(width) if i in texts else cell.rjust(width) for cell in column]
        for i, column in enumerate(zip(*lines, strict=True))
        for width in [max(map(len, column))]
    ]
    return [("  " + "  ".join(cells)).rstrip() for cells in zip(*columns, strict=True)]
