"""How cost grows: with tiers, with bins, and not with rows once they are counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from metaverify.fitting.fit import fit
from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.table import JointTable
from metaverify.simulators.counting import count
from metaverify.simulators.counts import Counts
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.worlds import shared_difficulty, token_prices
from tests.benchmarks.timing import Goal, Line, Section, compare, turns

TIERS = (2, 3, 4, 5, 6)
BINS = (4, 8, 16, 32)
USUAL_TIERS, USUAL_BINS = 3, 4  # while the other is varied
ROWS = 5_000
MILLIONS = (1, 10, 50)


def random_table(tiers: int, *, outcomes: int = 9, seed: int = 0) -> JointTable:
    """A table in which nothing has structure but that dearer tiers are better; an outcome is a bin or "missing"."""
    rng = np.random.default_rng(seed)
    cuts = tuple(np.linspace(0, 1, outcomes)[1:-1].tolist())
    ladders = tuple(Ladder(f"tier{k + 1}", (Rung("conf", cuts),)) for k in range(tiers))
    shape = (1, *(outcomes,) * tiers)
    mass = rng.exponential(size=shape)
    mass /= mass.sum()
    quality = tuple(mass * (0.6 * rng.random(shape) + 0.4 * (k + 1) / tiers) for k in range(tiers))
    price = tuple((4.0**k * mass * rng.uniform(0.5, 1.5, shape),) for k in range(tiers))
    return JointTable(ladders, mass, quality, price)


def growing() -> Section:
    """One solution, and a whole frontier learnt from rows, over tiers and over bins."""
    sweeps = {
        "tiers": [(tiers, USUAL_BINS) for tiers in TIERS],
        "bins": [(USUAL_TIERS, bins) for bins in BINS],
    }
    lines, notes = list[Line](), list[str]()
    for what, cells in sweeps.items():
        for work, seconds_of in (("solve", _solving), ("learn", _learning)):
            found = [seconds_of(tiers, bins) for tiers, bins in cells]
            states = [(bins + 2) ** tiers for tiers, bins in cells]
            lines += [
                Line(f"{tiers} tiers, {bins:2} bins: {work}", seconds, note=f"{of:,} states")
                for (tiers, bins), seconds, of in zip(cells, found, states, strict=True)
            ]
            against = [cell[0] if what == "tiers" else cell[1] for cell in cells]
            notes.append(
                f"{work}: log-log slope against {what} {_slope(against, found):.2f}, against states "
                f"{_slope(states, found):.2f}"
            )
    return Section(
        "Growth with tiers and bins, one free reading a tier",
        f"solve: Lattice.solve at one price, of a random table; learn: TableLearner(bins=...).policy of {ROWS:,} rows "
        "(table, frontier, graph; of 6 tiers 5 are kept)",
        "",
        tuple(lines),
        tuple(notes),
    )


def _solving(tiers: int, bins: int) -> float:
    lattice, price = Lattice(random_table(tiers, outcomes=bins + 1)), 0.5 / 4.0 ** (tiers - 1)
    return median(turn[0] for turn in turns(lambda: lattice.solve(price), count=9))


def _learning(tiers: int, bins: int) -> float:
    log = _drawn(tiers)
    return median(turn[0] for turn in turns(lambda: TableLearner(bins=bins).policy(log), count=3))


def _drawn(tiers: int) -> ReplayLog:
    """Rows of a world, which has 5 tiers at most; a sixth knows nothing of the others."""
    log = shared_difficulty(min(tiers, 5), 64).draw(ROWS, 0)
    if tiers == 6:
        last = shared_difficulty(5, 64).draw(ROWS, 1).tiers[-1]
        log = replace(log, tiers=(*log.tiers, replace(last, name="tier6", cost=4.0 * last.cost)))
    return log


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def counted() -> Section:
    """A fit from the statistics of so many millions of rows: one million, counted, of which each stands for several."""
    once = count(token_prices(3, 64, missing=0.02).draw(1_000_000, 1))
    logs = [_times(once, factor) for factor in MILLIONS]
    sides: list[Callable[[], object]] = [lambda log=log: fit(log, budget=6.0) for log in logs]
    taken = turns(*sides, count=7)
    flat = Goal(ratio=1.2)
    lines = [compare(f"{log.queries:>10,} rows", taken, goal=flat, ours=at, yardstick=0) for at, log in enumerate(logs)]
    return Section(
        f"Fitting from statistics, 3 tiers, {len(once):,} cells",
        "fit of the counts, 5 folds and references; counts of more rows are the first million's, times 10 and 50",
        "the same of a million rows",
        tuple(lines),
    )


def _times(counts: Counts, factor: int) -> Counts:
    return replace(counts, rows=counts.rows * factor, sums=counts.sums * factor)
