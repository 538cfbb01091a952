"""What is odd about a log's file, though it can be read: told with the log, since its columns no longer show it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

import polars as pl

from metaverify.policies.names import look_of
from metaverify.simulators.columns import LogColumns
from metaverify.simulators.log import LogWarning

__all__ = ["doubts", "prompt_columns"]

_PROMPTS = frozenset(
    f"{word}{end}"
    for word in ("prompt", "question", "query", "input", "problem", "instruction", "example")
    for end in ("", "_id", "_text", "_hash")
)
_CLOSE = 0.75  # of difflib's ratio: confidence_small is conf_small, tokens_small is not cost_small


def doubts(columns: LogColumns, frame: pl.DataFrame, *, queries: int, cut_off: bool) -> tuple[LogWarning, ...]:
    """The oddities of a file whose used and `prompt_columns` are in ``frame``, of which ``queries`` were read.

    ``cut_off`` says that its last line is not ended.
    """
    return (
        *_lookalikes((*columns.used, *columns.ignored)),
        *_unused(columns),
        *_unnamed(columns),
        *_line_breaks(columns, frame),
        *_repeats(columns, frame, queries),
        *_unobserved(columns, frame),
        *_ends(cut_off),
    )


def prompt_columns(columns: LogColumns) -> list[str]:
    """The ignored columns that by their names hold what was asked, where no column says what belongs together."""
    return [] if columns.keys.group else [name for name in columns.ignored if look_of(name) in _PROMPTS]


def _lookalikes(names: Sequence[str]) -> Iterator[LogWarning]:
    by_look: dict[str, list[str]] = {}
    for name in names:
        by_look.setdefault(look_of(name), []).append(name)
    if twins := tuple(", ".join(map(ascii, same)) for same in by_look.values() if len(same) > 1):
        yield LogWarning("look-alike-columns", "columns whose names look alike are taken for different ones", twins)


def _unused(columns: LogColumns) -> Iterator[LogWarning]:
    sources = (*columns.tiers, *columns.signals)
    known = {f"{kind}_{name}" for name in sources for kind in ("correct", "conf", "cost", "verify_cost")}
    known |= {"tier", "reading", "confidence", "correct", "cost", "verify_cost"} if columns.form == "long" else set()
    known |= {"query_id", "group_id", "weight"}
    by_look = {look_of(name): name for name in (*known, *columns.used)}
    absent = sorted(known.difference(columns.used))
    cases = []
    for name in columns.ignored:
        close = difflib.get_close_matches(look_of(name), absent, n=1, cutoff=_CLOSE)
        if meant := by_look.get(look_of(name)) or next(iter(close), None):
            cases.append(f"{name!a}: is it {meant}?")
    if cases:
        yield LogWarning(
            "unused-columns", "columns that are not used have names like those that would be", tuple(cases)
        )


def _unnamed(columns: LogColumns) -> Iterator[LogWarning]:
    if any(not name.strip() for name in columns.ignored):
        yield LogWarning("unnamed-column", "a column has no name in the header, and is not used; name it, or drop it")


def _line_breaks(columns: LogColumns, frame: pl.DataFrame) -> Iterator[LogWarning]:
    keys = columns.keys
    names = [keys.query, keys.group, *keys.context, *(("tier", "reading") if columns.form == "long" else ())]
    cases = []
    for name in dict.fromkeys(name for name in names if name in frame.columns):
        if frame[name].dtype == pl.String:
            broken = frame[name].str.contains(r"[\r\n]").fill_null(False)
            cases += [f"{name} in row {at + 1}" for at in broken.arg_true().to_list()]
    if cases:
        text = "ids or names have line breaks: a quote too many makes one row of several, and the others are lost"
        yield LogWarning("line-breaks", text, tuple(cases))


def _repeats(columns: LogColumns, frame: pl.DataFrame, queries: int) -> Iterator[LogWarning]:
    for name in prompt_columns(columns):
        different = frame[name].n_unique()
        if different < queries:
            text = f"{different:,} values of {name} in {queries:,} queries; keep repeats together with --group {name}"
            yield LogWarning("repeated-prompts", text)


def _unobserved(columns: LogColumns, frame: pl.DataFrame) -> Iterator[LogWarning]:
    readings = [name for name in columns.used if columns.form == "wide" and name.startswith(("conf", "agree_"))]
    if empty := tuple(name for name in readings if _blank(frame[name])):
        yield LogWarning(
            "unobserved-readings", f"{len(empty)} of {len(readings)} readings: never there, so left out", empty
        )


def _ends(cut_off: bool) -> Iterator[LogWarning]:
    if cut_off:
        text = "the last line does not end in a newline; if the file was cut off there, its last value is a part only"
        yield LogWarning("no-newline", text)


def _blank(cells: pl.Series) -> bool:
    if cells.dtype.is_nested():
        return False
    words = cells.cast(pl.String).str.strip_chars().str.to_lowercase()
    return bool(words.is_in(["", "nan", "null"]).fill_null(True).all())
