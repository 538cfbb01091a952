"""Rows of answers made into queries: what comes twice, what disagrees, what is lacking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from metaverify.simulators.columns import AGREE, reading_column, source_columns
from metaverify.simulators.importers.tally import Tally
from metaverify.simulators.log import LogError

__all__ = ["AT", "BY", "FILE", "LINE", "TIME", "Known", "Settled", "schema", "settle"]

FILE, LINE, TIME, AT = "\0file", "\0line", "\0time", "\0at"
"""The columns that say where a row comes from, and when: its record's time and number; no name of a log has a NUL."""

PLACE = (FILE, LINE, TIME, AT)
KEY = ("query_id", "tier", "reading")
BY = ("query_id", "tier", TIME, AT, "reading")
ANSWER = ("correct", "cost", "label_propensity")
READING = ("confidence", "verify_cost", "propensity")


_AS_READ = {"cost": "verify_cost"}  # of signals


def schema(contexts: Sequence[str]) -> dict[str, pl.DataType]:
    """The columns of rows of answers, in the order of `Answer`."""
    texts = dict.fromkeys(KEY, pl.String())
    numbers = dict.fromkeys((*ANSWER, *READING), pl.Float64())
    query = {"group_id": pl.String(), "weight": pl.Float64(), **dict.fromkeys(contexts, pl.String())}
    return {FILE: pl.Int32(), LINE: pl.Int64(), TIME: pl.Float64(), AT: pl.Int64(), **texts, **numbers, **query}


@dataclass(slots=True)
class Known:
    """What is known of anything at all: which columns each source has, by its readings, and which each query has."""

    contexts: Sequence[str]
    sources: dict[str, dict[str | None, set[str]]] = field(default_factory=dict)
    query: set[str] = field(default_factory=set)
    paid: set[str] = field(default_factory=set)  # signals whose cost is that of reading them

    def add(self, frame: pl.DataFrame) -> None:
        """Look at more rows."""
        there = [pl.col(name).is_not_null().any() for name in (*ANSWER, *READING)]
        for tier, reading, *found in frame.group_by("tier", "reading").agg(there).iter_rows():
            names = {name for name, is_there in zip((*ANSWER, *READING), found, strict=True) if is_there}
            self.sources.setdefault(tier, {}).setdefault(reading, set()).update(names)
        self.query |= {name for name in ("group_id", "weight", *self.contexts) if frame[name].null_count() < len(frame)}

    def decide(self, detached: set[str]) -> list[str]:
        """Once all was looked at: of sources that may be tiers or signals, those never correct are signals.

        Returns those that have nothing but a price, which are left out.
        """
        dropped = []
        for source in sorted(detached & self.sources.keys()):
            readings = self.sources[source]
            if "correct" in self.of(source):
                continue
            if any("confidence" in found for found in readings.values()):
                self.paid.add(source)
                self.sources[source] = {of: {_AS_READ.get(name, name) for name in got} for of, got in readings.items()}
            else:
                del self.sources[source]
                dropped.append(source)
        return dropped

    def of(self, source: str) -> set[str]:
        """The columns that a source has for its answers."""
        return {name for found in self.sources[source].values() for name in found & set(ANSWER)}

    @property
    def labelled(self) -> list[str]:
        """The tiers of which it is known anywhere what was correct."""
        return sorted(source for source in self.sources if "correct" in self.of(source))

    @property
    def signals(self) -> list[str]:
        """The sources that have neither answers nor prices of answers."""
        return sorted(source for source in self.sources if not self.of(source))

    def columns(self, form: str) -> list[str]:
        """The columns of the log, in order."""
        query = ["query_id", *(name for name in ("group_id", "weight", *self.contexts) if name in self.query)]
        if form == "wide":
            return [*query, *(column for _, _, _, column in self.wide())]
        found = {name for of in self.sources.values() for names in of.values() for name in names}
        named = ["reading"] if any(reading for of in self.sources.values() for reading in of) else []
        kept = [name for name in (*READING, *ANSWER) if name in found or name == "correct"]
        return [*query, "tier", *named, *kept]

    def wide(self) -> Iterator[tuple[str, str | None, str, str]]:
        """The columns of sources in the wide form: source, reading, column of the long form, column of the wide one."""
        for source, readings in sorted(self.sources.items()):
            answers = self.of(source)
            for name in ANSWER:
                if name in answers or (name == "correct" and answers):
                    yield source, None, name, f"{name}_{source}"
            for reading, found in sorted(readings.items(), key=lambda item: item[0] or ""):
                for name in READING:
                    if name in found:
                        yield source, reading, name, _wide_name(name, reading, source)

    def reads_back(self) -> bool:
        """Whether the columns of the wide form would be understood as what they are."""
        names = self.columns("wide")
        if len(set(names)) < len(names):
            return False
        declared = {name: () for name in self.signals if not name.startswith(f"{AGREE}_")}
        try:
            tiers, signals = source_columns("", names, declared)
        except LogError:
            return False
        found = {of.name: of.readings for of in tiers} | {of.name: of.readings for of in signals}
        got = {source: {reading.name for reading in readings} for source, readings in found.items()}
        want = {
            source: {reading or "conf" for reading, found in readings.items() if "confidence" in found}
            for source, readings in self.sources.items()
        }
        return got == want


def _wide_name(name: str, reading: str | None, source: str) -> str:
    if reading == AGREE and source.startswith(f"{AGREE}_"):
        return source if name == "confidence" else f"cost_{source}" if name == "verify_cost" else f"{name}_{source}"
    return reading_column("conf" if name == "confidence" else name, reading or "conf", source)


@dataclass(frozen=True, slots=True)
class Settled:
    """Some queries, each with all that is known of it, once."""

    queries: pl.DataFrame  # query_id, and what is said of a query
    answers: pl.DataFrame  # query_id, tier, and what is said of an answer
    readings: pl.DataFrame  # query_id, tier, reading, and what is said of a reading
    partial: pl.DataFrame  # query_id of those that some labelled tier did not answer, or not with a label

    def without(self, queries: pl.DataFrame) -> Settled:
        """The others."""
        return Settled(
            *(
                of.join(queries, on="query_id", how="anti", maintain_order="left")
                for of in (self.queries, self.answers)
            ),
            *(
                of.join(queries, on="query_id", how="anti", maintain_order="left")
                for of in (self.readings, self.partial)
            ),
        )

    def frame(self, known: Known, form: str) -> pl.DataFrame:
        """The rows of a log in this form."""
        if form == "long":
            whole = self.readings.join(self.answers, on=["query_id", "tier"], maintain_order="left")
            return whole.join(self.queries, on="query_id", maintain_order="left").select(known.columns(form))
        table = self.queries
        parts: dict[tuple[str, str | None, bool], dict[str, str]] = {}
        for source, reading, name, column in known.wide():
            parts.setdefault((source, reading, name in ANSWER), {})[name] = column
        for (source, reading, is_answer), columns in parts.items():
            of = self.answers if is_answer else self.readings
            chosen = of.filter(tier=source) if is_answer else of.filter(_is(reading), tier=source)
            part = chosen.select("query_id", *(pl.col(name).alias(column) for name, column in columns.items()))
            table = table.join(part, on="query_id", how="left", maintain_order="left")
        return table.select(known.columns(form))


def _is(reading: str | None) -> pl.Expr:
    return pl.col("reading").is_null() if reading is None else pl.col("reading") == reading


def settle(frame: pl.DataFrame, known: Known, tally: Tally, *, partly: bool) -> Settled:
    """Make queries of all their rows, which are sorted ``BY``; what is overruled or lacking is counted.

    The last record of an answer stands for itself, or where records may tell of it ``partly`` with all that do not
    contradict the later ones.
    """
    frame = frame.filter(pl.col("tier").is_in(list(known.sources)))
    if known.paid:
        is_paid = pl.col("tier").is_in(list(known.paid))
        frame = frame.with_columns(
            verify_cost=pl.when(is_paid).then(pl.coalesce("verify_cost", "cost")).otherwise("verify_cost"),
            cost=pl.when(~is_paid).then("cost"),
        )
    frame = _once(_last(frame, partly, tally), tally)
    answers = _agreed(frame, ["query_id", "tier"], ANSWER, tally)
    queries = _agreed(frame, ["query_id"], sorted(known.query), tally)
    frame, answers, queries = _priced(frame, answers, queries, known, tally)
    readings = frame.select(*KEY, *READING).sort(KEY)
    labelled = answers.filter(pl.col("tier").is_in(known.labelled) & pl.col("correct").is_not_null())
    whole = labelled.group_by("query_id").len().filter(pl.col("len") == len(known.labelled))
    partial = queries.select("query_id").join(whole, on="query_id", how="anti", maintain_order="left")
    return Settled(queries, answers, readings, partial)


def _last(frame: pl.DataFrame, partly: bool, tally: Tally) -> pl.DataFrame:
    """The rows without those of records that a later one of the same answer overrules.

    Another price or another reading is another answer: nothing of it is taken for the last one.  A label alone
    contradicts nothing.
    """
    answer = ["query_id", "tier"]
    if not frame.select(answer).is_duplicated().any():
        return frame
    if partly:
        others = [pl.col(name) != pl.col(name).drop_nulls().last().over(KEY) for name in ("cost", *READING)]
        overruled = frame.filter(pl.any_horizontal(others))
    else:
        overruled = frame.filter(pl.col(AT) != pl.col(AT).last().over(answer))
    for file, line in overruled.unique([*answer, AT]).select(FILE, LINE).iter_rows():
        tally.add(file, line, _AGAIN)
    return frame.join(overruled, on=[*answer, AT], how="anti", maintain_order="left")


def _once(frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """One row for each query, tier and reading: of what comes twice the last counts, what it leaves open is filled."""
    again = frame.select(KEY).is_duplicated()
    if not again.any():
        return frame
    rows = frame.filter(again)
    values = [name for name in frame.columns if name not in (*KEY, *PLACE)]
    later = [
        pl.col(name).is_not_null() & (pl.col(name).is_not_null().cum_sum(reverse=True).over(KEY) > 1)
        for name in (*ANSWER, *READING)
    ]
    for file, line in rows.filter(pl.any_horizontal(later)).select(FILE, LINE).iter_rows():
        tally.add(file, line, _AGAIN)
    last = [*(pl.col(name).drop_nulls().last() for name in values), pl.col(*PLACE).last()]
    merged = rows.group_by(KEY, maintain_order=True).agg(last)
    return pl.concat([frame.filter(~again), merged.select(frame.columns)]).sort(BY)


def _agreed(frame: pl.DataFrame, by: Sequence[str], columns: Sequence[str], tally: Tally) -> pl.DataFrame:
    """One row for each ``by`` with the last values of ``columns``; those that differ are counted."""
    if not frame.select(by).is_duplicated().any():
        return frame.select(*by, *columns)
    known = [name for name in columns if frame[name].null_count() < len(frame)]
    last = [pl.col(name).drop_nulls().last() for name in known]
    found = frame.group_by(by, maintain_order=True).agg(last)
    found = found.with_columns(pl.lit(None, frame.schema[name]).alias(name) for name in columns if name not in known)
    if known:
        both = frame.select(*by, FILE, LINE, *known).join(found, on=by, suffix="\0")
        for name in known:
            for file, line, value in both.filter(pl.col(name) != pl.col(f"{name}\0")).select(FILE, LINE, name).rows():
                tally.add(
                    file, line, f"has another {name} than other rows of the {_OF[len(by)]}, and is overruled", value
                )
    return found.select(*by, *columns)


_AGAIN = "has an answer that comes again, and the last one counts"
_OF: Mapping[int, str] = {1: "query", 2: "answer"}


def _priced(
    frame: pl.DataFrame, answers: pl.DataFrame, queries: pl.DataFrame, known: Known, tally: Tally
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The same without answers that lack a price which others of their tier have, and without queries that lack a
    group or a weight."""
    priced = [source for source in known.sources if "cost" in known.of(source)]
    told = frame.filter(pl.col("confidence").is_not_null() | pl.col("correct").is_not_null())
    free = answers.filter(pl.col("tier").is_in(priced) & pl.col("cost").is_null()).select("query_id", "tier")
    lacking = told.join(free, on=["query_id", "tier"], how="semi", maintain_order="left")
    for file, line in lacking.select(FILE, LINE).unique().iter_rows():
        tally.add(file, line, "has no cost, which other answers of the tier have")
    out = lacking.select("query_id", "tier").unique()
    if len(out):
        frame, answers = (
            of.join(out, on=["query_id", "tier"], how="anti", maintain_order="left") for of in (frame, answers)
        )
        queries = queries.join(frame, on="query_id", how="semi", maintain_order="left")
    for name in ("group_id", "weight"):
        if name in known.query and queries[name].has_nulls():
            bad = queries.filter(pl.col(name).is_null()).select("query_id")
            for file, line in frame.join(bad, on="query_id", how="semi").select(FILE, LINE).unique().iter_rows():
                tally.add(file, line, f"has no {name}, which other queries have")
            frame, answers, queries = (
                of.join(bad, on="query_id", how="anti", maintain_order="left") for of in (frame, answers, queries)
            )
    return frame, answers, queries
