"""Sketch: the histogram of each reading over one grid for all logs, from which bins are made before rows are counted.

Cells of the grid are of width 2^-14, and finer by a factor of 256 within 2^-8, 2^-16 and 2^-24 of 0 and of 1, where
confidences crowd.  Their bounds are short binary numbers, so that every engine finds the same cells, and counts,
least and largest values in them add up exactly: the sketch of a log is the sum of those of its parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from metaverify.simulators.bins import balanced_cuts_of
from metaverify.simulators.cells import Amount, Cells, Place, ReadingCells, SourceCells
from metaverify.simulators.log import LogError

__all__ = ["CELLS", "Histogram", "Sketch", "grid_cell"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CELLS = 100_000
"""Cells that a fit takes in a second or two; where there would be more, bins are made coarser."""

LAST, USUAL, FEWEST = 2, 8, 2
"""Bins, where something must be coarser: of the dearest tier's readings, which a chain does not read; of the others
before there are fewer batches, as many as a fit has; and at last."""

FEWEST_BATCHES = 16

LEVELS = ((0, 14), (8, 22), (16, 30), (24, 38))
"""Of the grid: within 2^-a of an end cells have a width of 2^-b."""


def grid_cell(confidence: nw.Expr) -> nw.Expr:
    """The number of the grid's cell that a confidence in [0, 1] lies in."""
    upper = confidence > 0.5
    end = nw.when(upper).then(1.0 - confidence).otherwise(confidence)  # exact on either side
    (_, bits), *finer = LEVELS
    cell = (end * 2.0**bits).floor()
    for level, (near, bits) in enumerate(finer, start=1):
        cell = nw.when(end < 2.0**-near).then((end * 2.0**bits).floor() + level * 2.0**14).otherwise(cell)
    return nw.when(upper).then(-1.0 - cell).otherwise(cell)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """The cells of one reading that were met, by rising value."""

    cell: Ints  # [m]
    rows: Ints  # [m]
    low: Floats  # [m], the least value
    high: Floats  # [m]

    def __add__(self, other: Histogram) -> Histogram:
        cells, member = np.unique(np.concatenate([self.cell, other.cell]), return_inverse=True)
        rows = np.zeros(len(cells), dtype=np.int64)
        low, high = np.full(len(cells), np.inf), np.full(len(cells), -np.inf)
        np.add.at(rows, member, np.concatenate([self.rows, other.rows]))
        np.minimum.at(low, member, np.concatenate([self.low, other.low]))
        np.maximum.at(high, member, np.concatenate([self.high, other.high]))
        return Histogram.rising(cells, rows, low, high)

    @classmethod
    def rising(cls, cell: Ints, rows: Ints, low: Floats, high: Floats) -> Histogram:
        """The cells in order."""
        order = np.argsort(low)
        return cls(cell[order], rows[order], low[order], high[order])

    @property
    def total(self) -> int:
        """How many readings there are."""
        return int(self.rows.sum())

    @property
    def rank_error(self) -> float:
        """How far any rank may lie from the next one at which there can be an edge, in shares of the readings: the
        largest share in a cell that holds several values."""
        return float(self.rows[self.low < self.high].max(initial=0)) / max(self.total, 1)

    def edges(self, bins: int) -> tuple[float, ...]:
        """At most ``bins - 1`` cuts that divide the readings as evenly as can be, between cells."""
        return balanced_cuts_of(self.low, self.high, self.rows.astype(np.float64), bins)

    def values(self, edges: tuple[float, ...]) -> tuple[float, ...]:
        """What stands for each bin between edges: the mean of its readings, or its middle where it has none."""
        ends = (0.0, *edges, math.nextafter(1.0, 2.0))
        place = np.searchsorted(np.asarray(edges), self.low, side="right")
        found = []
        for at in range(len(edges) + 1):
            here = place == at
            rows, low, high = self.rows[here], self.low[here], self.high[here]
            middle = (ends[at] + min(ends[at + 1], 1.0)) / 2
            mean = float(rows @ (low / 2 + high / 2)) / float(rows.sum()) if len(rows) else middle
            if len(rows) == 1 and low[0] == high[0]:
                mean = float(low[0])
            found.append(min(max(mean, ends[at]), math.nextafter(ends[at + 1], 0.0)))
        return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """What must be known of a log before it is counted.

    ``outline`` has its sources, readings and contexts, without edges; ``amounts`` how little and how much was paid;
    ``graded`` the answers whose quality is more than right or wrong.  It is of ``seen`` of the log's ``rows``.
    """

    outline: Cells
    histograms: Mapping[Place, Histogram]
    amounts: Mapping[Place, tuple[float, float]]
    graded: frozenset[Place]
    contexts: frozenset[str]
    rows: int
    seen: int

    def __add__(self, other: Sketch) -> Sketch:
        """The sketch of both logs.

        Raises:
            LogError: they have other tiers, readings or contexts.
        """
        if self.outline != other.outline:
            raise LogError("E_OPTION", f"sketches of different logs do not add up: {_difference(self, other)}")
        both = {place: (*self.amounts[place], *other.amounts[place]) for place in self.amounts}
        return Sketch(
            self.outline,
            {place: own + other.histograms[place] for place, own in self.histograms.items()},
            {place: (min(ends), max(ends)) for place, ends in both.items()},
            self.graded | other.graded,
            self.contexts | other.contexts,
            self.rows + other.rows,
            self.seen + other.seen,
        )

    @property
    def rank_error(self) -> float:
        """The largest of the readings'."""
        return max((histogram.rank_error for histogram in self.histograms.values()), default=0.0)

    def cells(
        self,
        *,
        bins: int = 32,
        batches: int = 32,
        most: int | None = CELLS,
        cuts: Mapping[Place, tuple[float, ...]] | None = None,
    ) -> Cells:
        """The cells to count over.

        Args:
            bins: of a reading, at most.
            batches: random parts that the log's groups are divided into.
            most: cells; while there could be more, and there are more rows, bins are halved: of the dearest tier's
                readings, then of the finest, down to 8; then there are fewer batches, and then still fewer bins.
                None is without a bound.
            cuts: the edges of some readings, instead of quantiles.

        Raises:
            LogError: there are too many cells however coarse the bins.
        """
        given, known = dict(cuts or {}), dict[tuple[Place, int], tuple[float, ...]]()

        def edges(place: Place) -> tuple[float, ...]:
            at = (place, wanted[place])
            if at not in known:
                known[at] = given[place] if place in given else self.histograms[place].edges(at[1])
            return known[at]

        wanted = {place: len(given.get(place, ())) + 1 if place in given else bins for place in self.histograms}
        found = self._cells(edges, batches)
        while most is not None and min(self._most(found), self.rows) > most:
            free = {place: count for place, count in self._bins(found).items() if place not in given}
            if coarser := self._coarser(free, USUAL):
                wanted[coarser] = free[coarser] // 2
            elif batches > FEWEST_BATCHES:
                batches = max(batches // 2, FEWEST_BATCHES)
            elif coarser := self._coarser(free, FEWEST):
                wanted[coarser] = free[coarser] // 2
            else:
                raise LogError(
                    "E_SIZE",
                    f"{self._most(found):,} cells for {most:,} at the most, with {len(self.contexts)} contexts and "
                    "bins as coarse as can be; give a coarser context, fewer readings or tiers",
                )
            found = self._cells(edges, batches)
        return found

    def _coarser(self, bins: Mapping[Place, int], fewest: int) -> Place | None:
        """The reading to get half as many bins: one of the dearest tier's, or the finest of those that can, of equals
        the dearer tier's."""
        prices = {source.name: self.amounts[source.name, None][1] for source in self.outline.sources if source.answer}
        dearest = max(prices, key=prices.__getitem__) if len(prices) > 1 else None
        last = {place: count for place, count in bins.items() if place[0] == dearest and count >= 2 * LAST}
        found = last or {place: count for place, count in bins.items() if count >= 2 * fewest}
        return max(found, key=lambda place: (found[place], prices.get(place[0], 0.0)), default=None)

    def _bins(self, cells: Cells) -> dict[Place, int]:
        return {(s.name, r.name): len(r.values) for s in cells.sources for r in s.readings if not r.votes}

    def _most(self, cells: Cells) -> int:
        """How many cells there may be, a reading that is never missing having no bin for that."""
        whole = [
            reading
            for source in cells.sources
            for reading in source.readings
            if self.histograms[source.name, reading.name].total == self.seen
        ]
        saved = math.prod(len(reading.values) / (len(reading.values) + 1) for reading in whole)
        return round(cells.most() * saved) * max(len(self.contexts), 1)

    def _cells(self, edges_of: Callable[[Place], tuple[float, ...]], batches: int) -> Cells:
        def amount(place: Place) -> Amount:
            return Amount.between(*self.amounts[place])

        def reading(source: str, of: ReadingCells) -> ReadingCells:
            place, histogram = (source, of.name), self.histograms[source, of.name]
            price = None if of.price is None else amount(place)
            if of.votes:
                edges = tuple((yes - 0.5) / of.votes for yes in range(1, of.votes + 1))
                values = tuple(yes / of.votes for yes in range(of.votes + 1))
            else:
                edges = edges_of(place)
                values = histogram.values(edges) if histogram.total or edges else ()
            return replace(of, edges=edges, values=values, price=price, graded=place in self.graded)

        def source(of: SourceCells) -> SourceCells:
            place = (of.name, None)
            return replace(
                of,
                cost=None if of.cost is None else amount(place),
                graded=place in self.graded,
                readings=tuple(reading(of.name, r) for r in of.readings),
            )

        weight = None if self.outline.weight is None else amount(("", None))
        sources = tuple(map(source, self.outline.sources))
        return replace(self.outline, sources=sources, batches=batches, weight=weight)

    def coarse(
        self, cells: Cells, bins: int, batches: int, cuts: Mapping[Place, tuple[float, ...]] | None = None
    ) -> tuple[str, ...]:
        """What has fewer bins in these cells than was asked for with `cells`, in words."""
        found = []
        for place, count in self._bins(cells).items():
            finest = len(self.histograms[place].edges(bins)) + 1
            if place not in (cuts or {}) and count < finest:
                found.append(f"{place[1]} of {place[0]} {count} bins instead of {finest}")
        if cells.batches < batches:
            found.append(f"{cells.batches} batches instead of {batches}")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Plain types, but for the histograms."""
        return {
            "outline": self.outline.to_json(),
            "amounts": [[*place, *ends] for place, ends in self.amounts.items()],
            "graded": sorted([list(place) for place in self.graded], key=str),
            "contexts": sorted(self.contexts),
            "rows": self.rows,
            "seen": self.seen,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any], histograms: Mapping[Place, Histogram]) -> Sketch:
        """What `to_json` gave, and the histograms."""
        return cls(
            Cells.from_json(found["outline"]),
            histograms,
            {(source, reading): (low, high) for source, reading, low, high in found["amounts"]},
            frozenset((source, reading) for source, reading in found["graded"]),
            frozenset(found["contexts"]),
            found["rows"],
            found["seen"],
        )


def _difference(one: Sketch, other: Sketch) -> str:
    names = [
        [f"{source.name}: {', '.join(r.name for r in source.readings)}" for source in sketch.outline.sources]
        for sketch in (one, other)
    ]
    return f"{names[0]} and {names[1]}" if names[0] != names[1] else "their contexts, votes, prices or weights differ"
