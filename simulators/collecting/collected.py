"""What a collection came to: the log, and what became of everybody that was asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from metaverify.simulators.collecting.calls import purpose_of
from metaverify.simulators.collecting.collection import Collection, Row
from metaverify.simulators.collecting.journal import journal_path
from metaverify.simulators.columns import reading_column
from metaverify.simulators.files import write_table
from metaverify.simulators.log import LogError

__all__ = ["Collected", "Source", "written"]


@dataclass(frozen=True, slots=True)
class Source:
    """What became of a tier's answers, of a ``reading`` of them, or of grading them ("grade").

    ``calls`` were made for it, ``bought`` of them now; ``dollars`` is what all cost, None where LiteLLM does not know.
    ``quality`` is the mean of a tier's grades, ``missing`` how many prompts have none, or no reading; ``failed`` why.
    """

    tier: str
    reading: str | None
    calls: int
    bought: int
    dollars: float | None
    quality: float | None
    missing: int
    failed: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {"failed": dict(self.failed)}


@dataclass(frozen=True, slots=True)
class Collected:
    """What `collect` did.

    ``prompts`` of the file, ``asked`` of them by everybody, ``queries`` in the log; ``partial`` of those that were
    asked lack an answer or a grade of some tier.  ``dollars`` is what all runs paid, grading included; ``lost`` what
    each call that was broken off may have cost besides.  ``stopped`` says why prompts are left, None where none are.
    """

    out: str
    journal: str
    prompts: int
    asked: int
    queries: int
    partial: int
    dollars: float
    lost: Sequence[float]
    sources: Sequence[Source]
    stopped: str | None = None
    capped: bool = False
    unpriced: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        told = {name: getattr(self, name) for name in self.__slots__}
        lists = {"unpriced": [*self.unpriced], "lost": [*self.lost]}
        return told | lists | {"sources": [of.to_json() for of in self.sources]}


def written(run: Collection, target: Path, whole: bool) -> Collected:
    """The log, and what became of everybody.

    Raises:
        LogError: no query is whole.
    """
    kept = {number: row for number, row in sorted(run.rows.items()) if row.is_whole or not whole}
    stopped = run.calls.stopped
    if not kept:
        why = str(stopped or "no prompt has an answer and a grade of every tier; --partial keeps what there is")
        raise LogError(
            "E_UNUSABLE", f"{why}; no log was written, and {journal_path(target).name} has what was paid for"
        )
    frame, unpriced = _table(run, kept)
    write_table(frame, target)
    return Collected(
        out=str(target),
        journal=str(journal_path(target)),
        prompts=len(run.prompts),
        asked=len(run.rows),
        queries=len(kept),
        partial=sum(not row.is_whole for row in run.rows.values()),
        dollars=run.calls.paid,
        lost=run.calls.lost,
        sources=[*_sources(run)],
        stopped=None if stopped is None else str(stopped),
        capped=stopped is not None and stopped.capped,
        unpriced=unpriced,
    )


def _table(run: Collection, kept: Mapping[int, Row]) -> tuple[pl.DataFrame, list[str]]:
    """The log in the wide form, and the sources of which no price is known: they have no column of it."""
    prompts = [run.prompts[number] for number in kept]
    rows, unpriced = [*kept.values()], []
    columns: dict[str, pl.Series] = {"query_id": pl.Series([prompt.id for prompt in prompts], dtype=pl.String)}
    for name in dict.fromkeys(name for prompt in run.prompts for name in prompt.carried):
        columns[name] = pl.Series([prompt.carried.get(name) for prompt in prompts], strict=False)
    for tier in run.panel.tiers:
        columns[f"correct_{tier}"] = _floats(row.correct[tier] for row in rows)
        if any(row.cost[tier] is None and row.correct[tier] is not None for row in rows):
            unpriced.append(tier)
        else:
            columns[f"cost_{tier}"] = _floats(row.cost[tier] for row in rows)
    for reader in run.panel.readers:
        looks = [row.looks[reader.source, reader.name] for row in rows]
        signal = reader.source not in run.panel.tiers
        columns[reading_column("conf", reader.name, reader.source)] = _floats(look.confidence for look in looks)
        if any(look.cost is None for look in looks):
            unpriced.append(purpose_of(reader.source, reader.name))
        elif not reader.with_answer:
            price = f"cost_{reader.source}" if signal and reader.name == "conf" else None
            price = price or reading_column("verify_cost", reader.name, reader.source)
            columns[price] = _floats(look.cost for look in looks)
    return pl.DataFrame(columns), unpriced


def _floats(values: Iterable[float | None]) -> pl.Series:
    return pl.Series([*values], dtype=pl.Float64)


def _sources(run: Collection) -> Iterator[Source]:
    """Every tier with its readings and its grading, then the signals."""
    rows = [*run.rows.values()]
    grading = [name for name in run.panel.tiers if f"grade {name}" in run.calls.tally]
    for tier in run.panel.tiers:
        grades = [grade for row in rows if (grade := row.correct[tier]) is not None]
        quality = math.fsum(grades) / len(grades) if grades else None
        yield _source(run, purpose_of(tier), tier, None, quality=quality, missing=len(rows) - len(grades))
        if tier in grading:
            yield _source(run, f"grade {tier}", tier, "grade")
        yield from _readings(run, tier)
    for source in dict.fromkeys(of.source for of in run.panel.readers if of.source not in run.panel.tiers):
        yield from _readings(run, source)


def _readings(run: Collection, source: str) -> Iterator[Source]:
    for reader in run.panel.readers:
        if reader.source == source:
            looks = [row.looks[source, reader.name].confidence for row in run.rows.values()]
            purpose = purpose_of(source, reader.name)
            yield _source(run, purpose, source, reader.name, missing=looks.count(None))


def _source(
    run: Collection, purpose: str, tier: str, reading: str | None, quality: float | None = None, missing: int = 0
) -> Source:
    tally = run.calls.of(purpose)
    dollars = tally.dollars if tally.priced else None
    return Source(tier, reading, tally.calls, tally.bought, dollars, quality, missing, dict(tally.failed))
