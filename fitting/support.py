"""Where a partial log has been: what was never tried, in the states of a lattice and in the bins of a reading.

Whether something was tried the replay of a policy and a fit decide alike, by `untried`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.coding import UNKNOWN, CodedLog, code_partial
from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import Depths, legal_climbs, reachable_depths
from metaverify.simulators.bins import balanced_cuts, cut_between
from metaverify.simulators.offpolicy import untried
from metaverify.simulators.partial import PartialLog, Sighting
from metaverify.simulators.propensities import alike
from metaverify.simulators.walks import Step

__all__ = ["BINS", "Edges", "Gap", "edges_of", "gaps", "never_climbed", "supported"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Edges = Mapping[tuple[str, str], tuple[float, ...]]
"""Of each reading, by (source, reading), the cuts at which it changes whether something else was tried."""

BINS = 8
CERTAIN = 1e-9
FAINT = 1e-300


@dataclass(frozen=True, slots=True)
class Gap:
    """What was never tried where the first reading of a tier is in one of some intervals [low, high), or where it says
    nothing (None); ``share`` of all queries."""

    wanted: str
    before: str
    where: tuple[tuple[float, float] | None, ...]
    share: float

    def __str__(self) -> str:
        inside = " and ".join(f"[{low:.3g}, {high:.3g})" for low, high in filter(None, self.where))
        told = [f"the first reading of {self.before} is in {inside}"] if inside else []
        told += [f"{self.before} says nothing"] if None in self.where else []
        return f"{self.wanted} where {' or '.join(told)} ({self.share:.1%} of queries)"


def gaps(partial: PartialLog, bins: int = BINS) -> list[Gap]:
    """Which tiers and readings were never tried where the first reading of a tier before them was in some bins."""
    log = partial.log
    total, found = float(log.weights.sum()), []
    for wanted, before, sighting in _purchases(partial):
        confidence = _told(partial, before)
        rows = np.flatnonzero(partial.answers[before].seen)
        never = untried(_step(partial.answers[before].chance, sighting, rows, confidence))
        if not (never > CERTAIN).any():
            continue
        cuts = sorted({*balanced_cuts(confidence, log.weights, bins), *_edges(never > CERTAIN, confidence[rows])})
        place = np.where(np.isnan(confidence[rows]), -1, np.searchsorted(cuts, confidence[rows], side="right"))
        where = _joined(np.unique(place[never > CERTAIN]).tolist(), (0.0, *cuts, 1.0))
        found.append(Gap(wanted, before, where, float(log.weights[rows] @ never) / total))
    return found


def _purchases(partial: PartialLog) -> Iterator[tuple[str, str, Sighting]]:
    """Everything that can be bought, and a tier that may be called before it."""
    names = partial.log.tier_names
    for name in names:
        for first in [other for other in names if other != name][:1]:
            yield name, first, partial.answers[name]
    for (source, reading), sighting in partial.readings.items():
        yield f"{reading} of {source}", source if source in names else names[0], sighting


def _told(partial: PartialLog, tier: str) -> Floats:
    """The first reading that comes with a tier's answer, [n]; NaN where there is none."""
    free = [reading.confidence for reading in partial.log.tier(tier).readings if reading.free]
    return free[0] if free else np.full(len(partial), np.nan)


def _joined(bins: Sequence[int], edges: Sequence[float]) -> tuple[tuple[float, float] | None, ...]:
    """The intervals of these bins in order, adjacent ones as one; None for bin -1, where nothing is said."""
    found: list[tuple[float, float]] = []
    for at in (at for at in bins if at >= 0):
        low = found.pop()[0] if found and found[-1][1] == edges[at] else edges[at]
        found.append((float(low), float(edges[at + 1])))
    return (*found, *([None] if -1 in bins else []))


def _step(before: Floats, wanted: Sighting, rows: Ints, last: Floats) -> Step:
    """The purchase of one thing by the queries at ``rows``, that came there with the chances ``before`` [n]."""
    here, seen = before[rows], wanted.seen[rows]
    through = np.minimum(here, wanted.chance[rows])
    return Step(0, rows, seen, here, through, np.zeros(len(rows)), None, last[rows])


def _edges(never: Bools, confidence: Floats) -> list[float]:
    """The cuts of a reading on one side of which everything was tried, rising."""
    known = np.flatnonzero(~np.isnan(confidence))
    rows = known[np.argsort(confidence[known], kind="stable")]
    leaf = alike(never[rows], {"": confidence[rows]})
    all_tried = np.bincount(leaf, weights=never[rows], minlength=1)[leaf] == 0.0
    ends = np.flatnonzero(all_tried[1:] != all_tried[:-1])
    return [cut_between(float(confidence[rows[at]]), float(confidence[rows[at + 1]])) for at in ends]


def edges_of(partial: PartialLog) -> Edges:
    """Where support ends in each reading."""
    log, found = partial.log, {}
    for source in log.sources:
        for reading in source.readings:
            own = partial.readings.get((source.name, reading.name), partial.answers.get(source.name))
            here = own or Sighting(~np.isnan(reading.confidence), np.ones(len(log)))
            rows = np.flatnonzero(here.seen)
            others = (s for of in (partial.answers, partial.readings) for s in of.values() if s is not own)
            steps = [_step(here.chance, other, rows, reading.confidence) for other in others]
            cuts = {cut for step in steps for cut in _edges(untried(step) > CERTAIN, step.last)}
            found[source.name, reading.name] = tuple(sorted(cuts))
    return found


def supported(
    ladders: Sequence[Ladder],
    partial: PartialLog,
    bins: Mapping[tuple[str, str], int],
    edges: Edges,
) -> tuple[Ladder, ...]:
    """The ladders with bins of all queries, not of those alone that were seen whole, that end where support does.

    Each edge takes the place of the nearest cut, as far as there are cuts.
    """

    def moved(source: str, rung: Rung) -> Rung:
        if rung.reading is None:
            return rung
        place = source, rung.reading
        sighting = partial.readings.get(place, partial.answers.get(source))
        confidence = next(r.confidence for r in partial.log.source(source).readings if r.name == rung.reading)
        weights = partial.log.weights
        if sighting is not None:
            weights = np.divide(weights, sighting.chance, out=np.zeros(len(partial)), where=sighting.seen)
        free = list(balanced_cuts(confidence, weights, bins[place]))
        ends = edges[place][: len(free)]
        for edge in ends:
            free.remove(min(free, key=lambda cut: abs(cut - edge)))
        return replace(rung, cuts=tuple(sorted({*free, *ends})))

    return tuple(replace(of, rungs=tuple(moved(of.source, rung) for rung in of.rungs)) for of in ladders)


def never_climbed(
    partial: PartialLog, ladders: Sequence[Ladder], contexts: Sequence[str] = ()
) -> dict[tuple[Depths, int], Floats]:
    """In which states of a lattice nobody stands for what a source's next rung would have shown (see `Never`); slabs
    in which there is none are left out.

    A state that no query came to counts with them where its slab has such states, as far as it has any mass.
    """
    coded, found = code_partial(partial, ladders, contexts), {}
    for depths in reachable_depths(ladders):
        for source in legal_climbs(ladders, depths):
            sighting = _next(partial, ladders[source], depths[source])
            mask = None if sighting is None else _barred(partial, coded, depths, sighting)
            if mask is not None:
                found[depths, source] = mask
    return found


def _next(partial: PartialLog, ladder: Ladder, depth: int) -> Sighting | None:
    """Of the next rung of a source; None where it comes with what is there already."""
    bought = partial.readings.get((ladder.source, ladder.rung(depth).reading or ""))
    return partial.answers[ladder.source] if bought is None and ladder.answer and depth == 0 else bought


def _barred(partial: PartialLog, coded: CodedLog, depths: Depths, wanted: Sighting) -> Floats | None:
    """What `Never` says of something in the states of a slab; None where it was seen in all."""
    come, chance, last = np.ones(len(partial), dtype=bool), np.ones(len(partial)), np.full(len(partial), np.nan)
    cell, states, at = np.zeros(len(partial), dtype=np.int64), 1, 0
    for ladder, depth in zip(coded.ladders, depths, strict=True):
        for rung, code in enumerate(coded.codes[at : at + depth]):
            sighting = _next(partial, ladder, rung)
            come &= code != UNKNOWN
            chance = (
                chance if sighting is None else np.where(sighting.seen, np.minimum(chance, sighting.chance), chance)
            )
            last = code.astype(np.float64)
            cell, states = cell * ladder.rungs[rung].size + code, states * ladder.rungs[rung].size
        at += len(ladder.rungs)
    rows = np.flatnonzero(come)
    if wanted.seen[rows].all():
        return None
    step = _step(chance, wanted, rows, last)
    never = untried(step)
    barred, visited = np.zeros((2, 1 + len(coded.contexts), states), dtype=bool)
    for row in (np.zeros(len(rows), dtype=np.int64), 1 + coded.context[rows]):  # all queries, and those of each context
        place = row * states + cell[rows]
        lacking = np.maximum(never, untried(step, place)) > CERTAIN
        shown = np.bincount(place, weights=step.seen, minlength=barred.size) > 0.0
        visited.reshape(-1)[place] = True
        barred.reshape(-1)[place[lacking | ~shown[place]]] = True
    if not barred.any():
        return None
    alike_elsewhere = barred.any(axis=1, keepdims=True) & ~visited
    return np.where(barred, 1.0, np.where(alike_elsewhere, FAINT, 0.0)).reshape(-1)
