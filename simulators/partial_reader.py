"""Partial logs in files: what a router saw, how likely that was, and where that has to be guessed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metaverify.policies.graph import Ask, Read
from metaverify.policies.policy import Policy
from metaverify.simulators.columns import reading_column
from metaverify.simulators.files import scan_table, told_as_log_errors, write_table
from metaverify.simulators.log import LogError, LoggedReading, LoggedTier, LogWarning, ReplayLog
from metaverify.simulators.partial import PartialLog, Sighting
from metaverify.simulators.propensities import misfit, shares
from metaverify.simulators.reader import read_log, wide_columns
from metaverify.simulators.replay import arms, check_match
from metaverify.simulators.sheet import Sheet
from metaverify.simulators.trace import chances
from metaverify.simulators.walks import walks

__all__ = ["logged_by_policy", "read_partial_log", "write_partial_log"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NEARLY = 0.95  # share of queries that call a tier which is taken to be called first
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
    readings, and a warning says so.

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
    for tier in _ways(log, seen):
        name, earlier = tier.name, [*answers]
        mask = seen[name]
        chance = told.chance(reading_column("propensity", "conf", name), name, None)
        chance = by_policy.get(name) if chance is None else chance
        guessed = chance is None
        if chance is None:
            mask, chance = _guessed(log, name, seen, answers, notes)
        answers[name] = told.sighting(mask, chance, f"propensity of {name}")
        notes += [] if guessed else _misfit(log, name, earlier, answers)
    answers = {name: answers[name] for name in log.tier_names}
    for (source, name), mask in bought.items():
        chance = told.chance(reading_column("propensity", name, source), source, name)
        chance = by_policy.get((source, name)) if chance is None else chance
        if chance is None:
            mask, chance = _guessed_reading(log, source, name, bought, answers, notes)
        readings[source, name] = told.sighting(mask, chance, f"propensity of {name} of {source}")
    labels = {tier.name: _labelled(log, at, told, seen, notes) for at, tier in enumerate(log.tiers)}
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


def _ways(log: ReplayLog, seen: Mapping[str, Bools]) -> list[LoggedTier]:
    """The tiers in the order in which they are taken to be called: as the log has them, but first those that (nearly)
    every query called, for these depend on nothing that was read."""
    return sorted(log.tiers, key=lambda tier: float(seen[tier.name].mean()) < NEARLY)


def _guessed(
    log: ReplayLog, name: str, seen: Mapping[str, Bools], answers: Mapping[str, Sighting], notes: list[LogWarning]
) -> tuple[Bools, Floats]:
    """For which queries a tier's answer can be used where nothing says what its chance was, and that chance, [n]: the
    share of queries that called it, among those whose readings of the tiers before it, ``answers``, are alike; 0 where
    none of them did, and unknown of the others that did not.

    Chances multiply along a way, so that an answer is of no use where one before it is lacking that had a chance.
    """
    on_way, before = np.ones(len(log), dtype=bool), np.ones(len(log))
    for earlier in answers.values():
        on_way &= earlier.seen | (earlier.chance == 0.0)
        before = np.where(earlier.seen, earlier.chance, before)
    mask = seen[name] & on_way
    notes += _guess(name, seen[name], np.ones(len(log), dtype=bool), int((seen[name] & ~on_way).sum()))
    share = shares(mask, on_way, _before(log, seen, answers))
    return mask, np.where(mask, before * share, np.where(share == 0.0, 0.0, np.nan))


def _guessed_reading(
    log: ReplayLog,
    source: str,
    name: str,
    bought: Mapping[tuple[str, str], Bools],
    answers: Mapping[str, Sighting],
    notes: list[LogWarning],
) -> tuple[Bools, Floats]:
    """For which queries a reading with a price can be used where nothing says what its chance was, and that chance,
    [n], as `_guessed`: the share that bought it of the queries that have the answers it is of, and whose free readings
    are alike."""
    signals = {signal.name: signal.needs for signal in log.signals}
    needs = signals.get(source, (source,))
    there, before = np.ones(len(log), dtype=bool), np.ones(len(log))
    for need in needs:
        there &= answers[need].seen
        before = np.where(answers[need].seen, np.minimum(before, answers[need].chance), before)
    places = [(of, reading) for of in dict.fromkeys((*needs, source)) for reading in log.source(of).readings]
    free = [(of, reading) for of, reading in places if (of, reading.name) not in bought]
    mask = bought[source, name] & there
    notes += _guess(f"{name} of {source}", mask, there)
    share = shares(mask, there, _columns(log, free))
    return mask, np.where(mask, before * share, np.where(share == 0.0, 0.0, np.nan))


def _before(log: ReplayLog, seen: Mapping[str, Bools], before: Iterable[str]) -> dict[str, Floats]:
    """What may be known of a query before a tier is called: which tiers before it were, their readings, the context."""
    columns = _columns(log, [(name, reading) for name in before for reading in log.tier(name).readings])
    return columns | {name: seen[name].astype(np.float64) for name in before}


def _columns(log: ReplayLog, readings: Sequence[tuple[str, LoggedReading]]) -> dict[str, Floats]:
    """Readings of sources by their names, and the context as a number."""
    columns = {f"{reading.name} of {source}": reading.confidence for source, reading in readings}
    if log.contexts is not None:
        columns["the context"] = np.unique(log.contexts, return_inverse=True)[1].astype(np.float64)
    return columns


def _guess(what: str, seen: Bools, there: Bools, unused: int = 0) -> list[LogWarning]:
    if seen[there].all() and not unused:
        return []
    lost = f"; {unused:,} of them, behind calls that are lacking there, are left out" if unused else ""
    text = (
        f"no chance is logged with which {what} was called, as it was for {seen.sum():,} of {there.sum():,} queries; "
        f"it is taken for the share among queries of alike readings, and {HIDDEN}: log propensities, or name the "
        f"policy that wrote the log (--logged-by){lost}"
    )
    return [LogWarning("propensity-not-logged", text, (what,))]


def _labelled(log: ReplayLog, at: int, told: _Told, called: Mapping[str, Bools], notes: list[LogWarning]) -> Sighting:
    """For which queries a tier's answer was labelled, and the chance of that given that the answer is there.

    Where that is not logged it is the share among answers of alike readings.  These are the tier's own and those of the
    tiers before it, and which of them were called; and of a tier after it where it was called whatever came of that:
    where users label the answer that they are shown, all of them decide.  Whether a later tier was called does not
    count, being drawn.
    """
    tier, seen = log.tiers[at], called[log.tiers[at].name]
    known = ~np.isnan(tier.correct)
    own = _columns(log, [(tier.name, reading) for reading in tier.readings])
    columns = _before(log, called, log.tier_names[:at]) | own
    chance = told.chance(f"label_propensity_{tier.name}", tier.name, None, of="label_propensity")
    if chance is None and (known | ~seen).all():
        return Sighting(known, np.ones(len(log)))
    guessed = chance is None
    if chance is None:
        later = {of.name: _columns(log, [(of.name, reading) for reading in of.readings]) for of in log.tiers[at + 1 :]}
        there = {column: called[name] for name, of in later.items() for column in of}
        chance = shares(known, seen, reduce(or_, later.values(), columns), there)
        never = int((chance[seen] == 0.0).sum())
        none = f", which is none for {never:,}: they count as never tried" if never else ""
        text = (
            f"{(seen & ~known).sum():,} of {seen.sum():,} answers of {tier.name} have no label, and no chance of one "
            f"is logged; taken is the share among answers of alike readings{none}, and {HIDDEN}: log label_propensity"
        )
        notes.append(LogWarning("label-propensity-not-logged", text, (tier.name,)))
    chance = np.where(np.isnan(chance) & ~seen, 1.0, chance)
    sighting = told.sighting(known, chance, f"label_propensity of {tier.name}")
    notes += [] if guessed else _misfits(f"labels of {tier.name}", tier.name, misfit(sighting, seen, columns))
    return sighting


def _misfit(log: ReplayLog, name: str, before: Sequence[str], answers: Mapping[str, Sighting]) -> list[LogWarning]:
    """A warning where calls are not as frequent as their chances say: among all queries, by the readings that all have,
    and among those that called a tier before it, by the readings of that."""
    own, always = answers[name], np.ones(len(log), dtype=bool)
    told = misfit(own, always, {} if log.contexts is None else {"the context": _columns(log, [])["the context"]})
    for tier in map(log.tier, before):
        there, earlier = answers[tier.name].seen, answers[tier.name].chance
        given = np.divide(np.minimum(own.chance, earlier), earlier, out=np.full(len(log), np.nan), where=there)
        columns = {f"{reading.name} of {tier.name}": reading.confidence for reading in tier.readings}
        told = told or misfit(Sighting(own.seen & there, given), there, columns)
    return _misfits(f"calls of {name}", name, told)


def _misfits(what: str, tier: str, told: str) -> list[LogWarning]:
    if not told:
        return []
    text = f"{what}: {told}; something else decided too, or the propensities are wrong"
    return [LogWarning("propensity-misfit", text, (tier,))]
