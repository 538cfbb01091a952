"""Partial logs in files: what a router saw, how likely that was, and where that has to be guessed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metaverify.policies.graph import Ask, Read
from metaverify.policies.policy import Policy
from metaverify.simulators.bins import balanced_cuts
from metaverify.simulators.columns import reading_column
from metaverify.simulators.files import scan_table, told_as_log_errors, write_table
from metaverify.simulators.log import LogError, LoggedReading, LoggedTier, LogWarning, ReplayLog
from metaverify.simulators.partial import PartialLog, Sighting
from metaverify.simulators.reader import read_log, wide_columns
from metaverify.simulators.replay import arms, check_match
from metaverify.simulators.sheet import Sheet
from metaverify.simulators.trace import chances
from metaverify.simulators.walks import walks

__all__ = ["logged_by_policy", "read_partial_log", "write_partial_log"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BINS = 8  # of the reading by which calls are guessed to have been decided
OFF = 4.0  # standard errors by which calls and their propensities differ
HIDDEN = "a reason that is not in the log cannot be repaired"


def read_partial_log(
    path: str | os.PathLike[str], *, logged_by: Policy | None = None, epsilon: float = 0.0, **options: Any
) -> PartialLog:
    """A log in which tiers were called, or answers labelled, for some queries only.

    It is as `read_log` wants it, but for nulls: a tier that was not called has no values of its own (in the long form
    no row), and an answer that was not labelled no ``correct``.  Beside them may stand

    * ``propensity_<tier>``: the chance that the tier was called, given all that is to be known of the query, and so the
      product over the draws on the way to it.  Where it was not called this may be null, or best its chance all the
      same, 0 where it was never called.  ``propensity2_<tier>`` is that of buying the reading ``conf2``.
    * ``label_propensity_<tier>``: the chance that the answer was labelled, given that it is there.

    In the long form they are columns ``propensity`` and ``label_propensity``.

    Where there are none, everything that is there counts as certain if it always is; else ``logged_by`` says what the
    policy that wrote the log wanted; else the chance is guessed as the share that was called among queries of alike
    confidence, and a warning says so.

    Args:
        path: the file.
        logged_by: the policy that wrote the log, at its operating point.
        epsilon: the share of queries for which it called every tier, whatever it wanted.
        options: of `read_log`.

    Raises:
        LogError: as `read_log`; or a propensity is none, or missing of what was seen.
    """
    if not 0.0 <= epsilon < 1.0:
        raise LogError("E_OPTION", f"epsilon is {epsilon}; give the share of queries that were explored, below 1")
    log = read_log(path, partial=True, **options)
    told = _Told.of(path, log)
    seen = {tier.name: _called(tier, told) for tier in log.tiers}
    log = replace(log, tiers=tuple(_blanked(tier, seen[tier.name]) for tier in log.tiers))
    bought = {
        (source.name, reading.name): ~np.isnan(reading.confidence) | (reading.price > 0.0)
        for source in log.sources
        for reading in source.readings
        if reading.price.any()
    }
    notes: list[LogWarning] = []
    answers: dict[str, Sighting] = {}
    readings: dict[tuple[str, str], Sighting] = {}
    certain = {name: Sighting(mask, np.ones(len(log))) for name, mask in seen.items()}
    by_policy: Mapping[Any, Floats] = {}
    if logged_by is not None:
        sure = {place: Sighting(mask, np.ones(len(log))) for place, mask in bought.items()}
        by_policy = logged_by_policy(logged_by, PartialLog(log, certain, certain, sure), epsilon)
    for at, tier in enumerate(log.tiers):
        chance = told.chance(reading_column("propensity", "conf", tier.name), tier.name, None)
        chance = by_policy.get(tier.name) if chance is None else chance
        if chance is None:
            chance = np.where(seen[tier.name], _guessed(log, at, seen, answers, notes), np.nan)
        answers[tier.name] = told.sighting(seen[tier.name], chance, f"propensity of {tier.name}")
        notes += _misfit(tier.name, answers[tier.name])
    for (source, name), mask in bought.items():
        chance = told.chance(reading_column("propensity", name, source), source, name)
        chance = by_policy.get((source, name)) if chance is None else chance
        before = answers[source].chance if source in answers else np.ones(len(log))
        if chance is None:
            there = seen.get(source, np.ones(len(log), dtype=bool))
            chance = before * _shares(mask, there, _bins(log.source(source).readings[0], log.weights))
            notes += _guess(f"{name} of {source}", mask, there)
        readings[source, name] = told.sighting(mask, chance, f"propensity of {name} of {source}")
    labels = {tier.name: _labelled(log, tier, told, seen[tier.name], notes) for tier in log.tiers}
    return PartialLog(replace(log, notes=(*log.notes, *notes)), answers, labels, readings)


def write_partial_log(partial: PartialLog, path: str | os.PathLike[str]) -> None:
    """Write a partial log in the wide form, with its propensities, in the format of the suffix.

    Raises:
        LogError: a suffix that is no log's, names that clash, or a file that cannot be written.
    """
    file = Path(path)
    columns = wide_columns(file.name, partial.log)
    for kind, sightings in (("propensity", partial.answers), ("label_propensity", partial.labels)):
        if kind == "propensity" or any((s.chance != 1.0).any() for s in sightings.values()):
            columns += [pl.Series(f"{kind}_{name}", s.chance).fill_nan(None) for name, s in sightings.items()]
    for (source, name), sighting in partial.readings.items():
        column = reading_column("propensity", name, source)
        columns.append(pl.Series(column, sighting.chance).fill_nan(None))
    write_table(pl.DataFrame(columns), file)


def logged_by_policy(policy: Policy, partial: PartialLog, epsilon: float = 0.0) -> dict[str | tuple[str, str], Floats]:
    """The chance that each answer, by tier, and each reading, by (source, reading), was bought by a policy at its
    operating point that calls every tier for a share ``epsilon`` of queries, [n]; NaN where that would take knowing
    what was not seen.  The ids of the queries are the keys that it was asked with.  See `chances`.

    Raises:
        LogError: the log shows what the policy would never have bought.
    """
    check_match(policy, partial.log)
    n = len(partial)
    places: list[str | tuple[str, str]] = [*partial.answers, *partial.readings]
    wanted = {place: np.zeros(n) for place in places}
    unknown = {place: np.zeros(n, dtype=bool) for place in places}
    point, drawn = policy.point, arms(policy, partial.log)
    own = {place: np.zeros(n, dtype=bool) for place in places}  # wanted by the query's own graph
    for vertex, share in ((point.low, 1.0 - point.share), (point.high, point.share)):
        if share == 0.0:
            continue
        want = {place: np.zeros(n, dtype=bool) for place in places}
        stuck = np.zeros(n, dtype=bool)
        for step in walks(policy, partial, vertex):
            node = policy.nodes[step.node]
            if isinstance(node, Ask | Read):
                want[node.tier if isinstance(node, Ask) else (node.tier, node.reading)][step.rows] = True
                stuck[step.rows] |= ~step.seen
        for place in places:
            wanted[place] += share * want[place]
            own[place] |= want[place] & (drawn == vertex)
            unknown[place] |= stuck & ~want[place]
    seen = {place: s.seen for of in (partial.answers, partial.readings) for place, s in of.items()}
    found = {}
    for place in places:
        rate = epsilon if place in partial.answers else 0.0
        chance = chances(own[place] if rate > 0.0 else seen[place], wanted[place], rate or None)
        odd = (seen[place] & ~(chance > 0.0)) | (own[place] & ~seen[place] & (rate > 0.0))
        if odd.any():
            at = int(odd.argmax())
            query, name = partial.log.query_ids[at], place if isinstance(place, str) else " of ".join(reversed(place))
            does = "shows" if seen[place][at] else "lacks"
            raise LogError(
                "E_POLICY",
                f"query {query!r} {does} {name!r}, as {odd.sum():,} do, which is not what the policy does that is said "
                "to have written the log; is it that policy, at that budget, and are the ids its keys? --epsilon says "
                "what was explored",
            )
        found[place] = np.where(~seen[place] & unknown[place] & (rate == 0.0), np.nan, chance)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """What a file says of chances."""

    sheet: Sheet
    log: ReplayLog
    long: bool

    @classmethod
    def of(cls, path: str | os.PathLike[str], log: ReplayLog) -> _Told:
        file = Path(path)
        with told_as_log_errors(file):
            table = scan_table(file)
            names = table.collect_schema().names()
            long = not any(name.startswith("correct_") for name in names)
            kept = ["query_id", "tier", "reading", "verify_cost"] if long else []
            columns = [n for n in names if n in kept or n.startswith(("propensity", "label_propensity"))]
            frame = table.select(columns).collect() if columns else pl.DataFrame()
        return cls(Sheet(file.name, frame, np.arange(1, len(frame) + 1)), log, long)

    def chance(self, column: str, source: str, reading: str | None, *, of: str = "propensity") -> Floats | None:
        """[n]: what the file says of a source's answer, or of one of its readings, NaN where it says nothing.

        None where it has no such column.
        """
        if not self.long:
            return self.numbers(self.sheet, column) if column in self.sheet else None
        if of not in self.sheet:
            return None
        rows = (self.sheet.texts("tier") == source).fill_null(False).to_numpy()
        if reading is not None and "reading" in self.sheet:
            rows &= (self.sheet.texts("reading") == reading).fill_null(False).to_numpy()
        sheet = self.sheet.where(rows)
        given = self.numbers(sheet, of)
        place = {query: at for at, query in enumerate(self.log.query_ids)}
        chance = np.full(len(self.log), np.nan)
        where = np.fromiter((place[query] for query in sheet.texts("query_id")), np.int64, count=len(sheet))
        known = ~np.isnan(given)
        np.fmax.at(chance, where[known], given[known])  # an answer has at least the chance of its readings
        return chance

    def numbers(self, sheet: Sheet, column: str) -> Floats:
        values = sheet.numbers(column, "give a probability")
        outside = ~np.isnan(values) & ~((values >= 0.0) & (values <= 1.0))
        sheet.refuse("E_RANGE", outside, column, "no probability; give a number in [0, 1]")
        return values

    def sighting(self, seen: Bools, chance: Floats, what: str) -> Sighting:
        """The sighting, if every query that shows it had a chance to.

        Raises:
            LogError: one had none, or it is not known.
        """
        lacking = seen & ~(chance > 0.0)
        if lacking.any():
            query = self.log.query_ids[int(lacking.argmax())]
            raise LogError(
                "E_MISSING",
                f"{self.sheet.file}: the {what} is missing or 0 for query {query!r}, where it was seen, as in "
                f"{lacking.sum():,} of {seen.sum():,}; fill it in, or drop the column and name the policy that wrote "
                "the log (--logged-by)",
            )
        return Sighting(seen, chance)


def _called(tier: LoggedTier, told: _Told) -> Bools:
    """Whether the tier was called, [n]: it has a price, where prices are missing elsewhere; else something of it is
    known."""
    known = ~np.isnan(tier.correct)
    for reading in tier.readings:
        known |= ~np.isnan(reading.confidence)
    priced = ~np.isnan(tier.cost)
    if priced.all():
        chance = told.chance(reading_column("propensity", "conf", tier.name), tier.name, None)
        return known if chance is None else known | (chance == 1.0)
    if (odd := known & ~priced).any():
        query = told.log.query_ids[int(odd.argmax())]
        raise LogError(
            "E_MISSING",
            f"{told.sheet.file}: {tier.name!r} answered query {query!r} at no price; fill in its cost, or give "
            f"--cost {tier.name}=PRICE",
        )
    return priced


def _blanked(tier: LoggedTier, seen: Bools) -> LoggedTier:
    return replace(tier, cost=np.where(seen, tier.cost, np.nan))


def _guessed(
    log: ReplayLog, at: int, seen: Mapping[str, Bools], answers: Mapping[str, Sighting], notes: list[LogWarning]
) -> Floats:
    """The chance of a tier's answer where nothing says what it was: the share of queries that called it, among those
    that called the same tiers before it and whose first readings of those are in the same bins."""
    name = log.tiers[at].name
    mask = seen[name]
    if mask.all():
        return np.ones(len(log))
    stratum, before = np.zeros(len(log), dtype=np.int64), np.ones(len(log))
    for tier in log.tiers[:at]:
        there = seen[tier.name]
        place = _bins(tier.readings[0], log.weights) + 1 if tier.readings else np.ones(len(log), dtype=np.int64)
        stratum = (BINS + 3) * stratum + np.where(there, place, 0)
        before = np.where(there, answers[tier.name].chance, before)
    notes += _guess(name, mask, np.ones(len(log), dtype=bool))
    return before * _shares(mask, np.ones(len(log), dtype=bool), stratum)


def _guess(what: str, seen: Bools, there: Bools) -> list[LogWarning]:
    if seen[there].all():
        return []
    text = (
        f"no chance is logged with which {what} was called, as it was for {seen.sum():,} of {there.sum():,} queries; "
        f"it is taken for the share among queries of alike confidence, and {HIDDEN}: log propensities, or name the "
        "policy that wrote the log (--logged-by)"
    )
    return [LogWarning("propensity-not-logged", text, (what,))]


def _labelled(log: ReplayLog, tier: LoggedTier, told: _Told, seen: Bools, notes: list[LogWarning]) -> Sighting:
    known = ~np.isnan(tier.correct)
    chance = told.chance(f"label_propensity_{tier.name}", tier.name, None, of="label_propensity")
    if chance is None and (known | ~seen).all():
        return Sighting(known, np.ones(len(log)))
    if chance is None:
        place = _bins(tier.readings[0], log.weights) if tier.readings else np.zeros(len(log), dtype=np.int64)
        chance = _shares(known, seen, place)
        text = (
            f"{(seen & ~known).sum():,} of {seen.sum():,} answers of {tier.name} have no label, and no chance of one "
            f"is logged; taken is the share among answers of alike confidence, and {HIDDEN}: log label_propensity"
        )
        notes.append(LogWarning("label-propensity-not-logged", text, (tier.name,)))
    return told.sighting(known, np.where(np.isnan(chance) & ~seen, 1.0, chance), f"label_propensity of {tier.name}")


def _bins(reading: LoggedReading, weights: Floats) -> NDArray[np.int64]:
    cuts = balanced_cuts(reading.confidence, weights, BINS)
    place = np.searchsorted(cuts, reading.confidence, side="right")
    return np.where(np.isnan(reading.confidence), len(cuts) + 1, place).astype(np.int64)


def _shares(seen: Bools, among: Bools, stratum: NDArray[np.int64]) -> Floats:
    """The share that was seen in each query's stratum, [n]."""
    _, member = np.unique(stratum, return_inverse=True)
    count = np.bincount(member, weights=among.astype(np.float64))
    found = np.bincount(member, weights=(seen & among).astype(np.float64))
    return np.asarray((found / np.maximum(count, 1.0))[member])


def _misfit(name: str, sighting: Sighting) -> list[LogWarning]:
    """A warning where calls are not as frequent as their chances say; only where all chances are known."""
    if np.isnan(sighting.chance).any():
        return []
    expected = float(sighting.chance.sum())
    error = math.sqrt(float((sighting.chance * (1.0 - sighting.chance)).sum()))
    found = int(sighting.seen.sum())
    if abs(found - expected) <= OFF * error + 1e-6 * len(sighting.seen):
        return []
    text = (
        f"{name} was called for {found:,} queries, where the propensities say {expected:,.0f} ± {error:,.0f}; "
        "something else decided too, or they are wrong"
    )
    return [LogWarning("propensity-misfit", text, (name,))]
