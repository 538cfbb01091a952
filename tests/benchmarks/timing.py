"""Timings that are fair on a busy machine: the sides of a comparison take turns, and ratios are taken turn by turn."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

__all__ = ["Goal", "Line", "Section", "compare", "layout", "turns"]

SHORTEST = 5e-3  # seconds of a turn; quicker calls are repeated to fill it


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked: ours / yardstick, ours in seconds, or both."""

    ratio: float | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        ratio = [] if self.ratio is None else [_times(self.ratio, at_most="<= ", at_least=">= ")]
        return ", ".join(ratio + ([] if self.seconds is None else [f"<= {_span(self.seconds)}"]))

    def met(self, ours: float, ratio: float | None) -> bool:
        """Whether a result reaches it."""
        near = self.ratio is None or (ratio is not None and ratio <= self.ratio)
        return near and (self.seconds is None or ours <= self.seconds)


@dataclass(frozen=True, slots=True)
class Line:
    """One result: seconds, and ours / yardstick as the median over turns."""

    what: str
    ours: float
    yardstick: float | None = None
    ratio: float | None = None
    goal: Goal | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """met, missed, or nothing where nothing is asked."""
        return "" if self.goal is None else "met" if self.goal.met(self.ours, self.ratio) else "missed"


@dataclass(frozen=True, slots=True)
class Section:
    """Results that belong together, and what each side does."""

    title: str
    ours: str
    yardstick: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        lines = [{**asdict(line), "goal": line.goal and str(line.goal), "verdict": line.verdict} for line in self.lines]
        return {**asdict(self), "lines": lines}


def turns(
    *sides: Callable[[], object],
    count: int = 9,
    most: float = math.inf,
    clock: Callable[[], float] = time.process_time,
) -> list[list[float]]:
    """Seconds a call, [turns][sides]: every side once a turn, each turn beginning with another one.

    The clock counts this process's own work, so that what else runs on the machine is not counted.  The first turn
    warms up and is left out.  Once all turns together took ``most`` seconds no other is begun; a first turn that took
    as long is the only one.
    """
    calls = [1] * len(sides)
    taken: list[list[float]] = []
    while len(taken) <= count and sum(map(sum, taken)) < most:
        seconds = [0.0] * len(sides)
        for step in range(len(sides)):
            at = (step + len(taken)) % len(sides)
            seconds[at] = _spent(sides[at], calls[at], clock) / calls[at]
        if not taken:
            calls = [max(1, math.ceil(SHORTEST / max(s, 1e-7))) for s in seconds]
        taken.append(seconds)
    return taken[1:] or taken


def _spent(side: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    gc.collect()
    gc.disable()
    try:
        start = clock()
        for _ in range(calls):
            side()
        return clock() - start
    finally:
        gc.enable()


def compare(
    what: str, taken: list[list[float]], *, goal: Goal | None = None, ours: int = 0, yardstick: int = 1
) -> Line:
    """One side of what ``turns`` took against another."""
    return Line(
        what,
        median(turn[ours] for turn in taken),
        median(turn[yardstick] for turn in taken),
        median(turn[ours] / turn[yardstick] for turn in taken),
        goal,
        f"{len(taken)} turn{'s' if len(taken) > 1 else ''}",
    )


def layout(section: Section) -> str:
    """A section as text."""
    head = [section.title, f"ours: {section.ours}"]
    if section.yardstick:
        head.append(f"yardstick: {section.yardstick}")
    rows = [_cells(line) for line in section.lines]
    if rows:
        rows.insert(0, ("", "ours", "yardstick", "ratio", "goal", "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(map(_pad, row, widths, "<>>><<<")).rstrip() for row in rows]
    return "\n  ".join([*head, *table, *section.notes])


def _cells(line: Line) -> tuple[str, ...]:
    beside = "" if line.yardstick is None else _span(line.yardstick)
    ratio = "" if line.ratio is None else _times(line.ratio)
    return line.what, _span(line.ours), beside, ratio, str(line.goal or ""), line.verdict, line.note


def _pad(cell: str, width: int, side: str) -> str:
    return f"{cell:{side}{width}}"


def _times(ratio: float, *, at_most: str = "", at_least: str = "") -> str:
    return f"{at_most}{_number(ratio)}x" if ratio >= 0.5 else f"{at_least}{_number(1 / ratio)}x faster"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _span(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{_number(seconds / size)} {unit}"
    return f"{_number(seconds / 1e-9)} ns"
