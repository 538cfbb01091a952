"""Cells: what the rows of a log are sorted into when they are counted, and what is summed in each.

A cell is a batch, a context, a bin of every reading, and whether each answer was right.  Two logs that are counted
over the same cells add up exactly: how many queries there are is a whole number, and so is what they cost, in a unit
that is small beside any price.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from metaverify.simulators.columns import reading_column

__all__ = ["Amount", "Cells", "Place", "ReadingCells", "SourceCells"]

Place = tuple[str, str | None]
"""A source and one of its readings; None for its answer."""

FINENESS = 36  # bits between an amount's largest value and the unit in which it is summed


@dataclass(frozen=True, slots=True)
class Amount:
    """What is summed as a whole number: how many ``unit`` it lies above ``origin``.

    What never varies lies at its origin, and comes back as it was to the last bit.  ``high`` is the most that was
    known when the unit was chosen.
    """

    origin: float
    unit: float
    high: float

    @classmethod
    def between(cls, low: float, high: float) -> Amount:
        """An amount that is known to lie between two numbers of at least 0.

        Example:
            >>> Amount.between(0.0, 1.0).unit == 2.0**-35
            True
        """
        return cls(low, 2.0 ** (max(math.frexp(high)[1], -900) - FINENESS), high)

    @property
    def most(self) -> float:
        """Beyond it sums might overflow: 16 times as much as was known."""
        return self.origin + self.unit * 2.0 ** (FINENESS + 4)


SCORE = Amount.between(0.0, 1.0)
"""A quality between right and wrong."""


@dataclass(frozen=True, slots=True)
class ReadingCells:
    """One reading: where its bins meet, and the confidence that stands for each of them."""

    name: str
    edges: tuple[float, ...] = ()
    values: tuple[float, ...] = ()  # one more than edges, or none where nothing was ever read
    votes: int = 0
    price: Amount | None = None  # None where it is free
    sample: bool = False
    graded: bool = False  # whether the quality of a sample's answer is more than right or wrong


@dataclass(frozen=True, slots=True)
class SourceCells:
    """One tier or signal; ``cost`` is None where it has no answer."""

    name: str
    cost: Amount | None
    graded: bool = False
    readings: tuple[ReadingCells, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def answer(self) -> bool:
        """Whether it is a tier."""
        return self.cost is not None


@dataclass(frozen=True, slots=True)
class Cells:
    """What rows are sorted into; ``weight`` is None where every row counts once."""

    sources: tuple[SourceCells, ...]
    context: tuple[str, ...] = ()
    context_cuts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    batches: int = 32
    weight: Amount | None = None

    def digits(self) -> dict[str, int]:
        """What tells cells of one context apart, by column, and how many values each has: an answer is wrong or right,
        a reading in a bin or missing, a sample's answer wrong, right or what it was."""
        found = {}
        for source in self.sources:
            if source.answer:
                found[f"correct_{source.name}"] = 2
            for reading in source.readings:
                found[reading_column("conf", reading.name, source.name)] = len(reading.values) + 1
                if reading.sample:
                    found[reading_column("correct", reading.name, source.name)] = 3
        return {**found, "batch": self.batches}

    def amounts(self) -> Iterator[tuple[str, Place, Amount]]:
        """What is summed: a column's name, what it is of, and how."""
        if self.weight is not None:
            yield "weight", ("", None), self.weight
        for source in self.sources:
            if source.graded:
                yield f"score_{source.name}", (source.name, None), SCORE
            if source.cost is not None:
                yield f"cost_{source.name}", (source.name, None), source.cost
            for reading in source.readings:
                place = (source.name, reading.name)
                if reading.price is not None:
                    yield reading_column("verify_cost", reading.name, source.name), place, reading.price
                if reading.graded:
                    yield reading_column("score", reading.name, source.name), place, SCORE

    def most(self) -> int:
        """How many cells of one context there may be."""
        return math.prod(self.digits().values())

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Cells:
        """What `to_json` gave."""

        def amount(of: Mapping[str, float] | None) -> Amount | None:
            return None if of is None else Amount(**of)

        def reading(of: Mapping[str, Any]) -> ReadingCells:
            own = {"edges": tuple(of["edges"]), "values": tuple(of["values"]), "price": amount(of["price"])}
            return ReadingCells(**{**of, **own})

        def source(of: Mapping[str, Any]) -> SourceCells:
            own = {
                "cost": amount(of["cost"]),
                "needs": tuple(of["needs"]),
                "readings": tuple(map(reading, of["readings"])),
            }
            return SourceCells(**{**of, **own})

        return cls(
            tuple(map(source, found["sources"])),
            tuple(found["context"]),
            {name: tuple(cuts) for name, cuts in found["context_cuts"].items()},
            found["batches"],
            amount(found["weight"]),
        )
