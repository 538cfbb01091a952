"""The exact solver: dynamic programming over information states.

The hidden state of a query never changes and nothing is read twice, so what has been learnt depends on which rungs
were climbed and what came out, never on the order.  The states in which the same rungs were climbed form a *slab*:
one array [contexts x outcomes of each climbed rung], C order, so that the outcomes of one more rung are one axis of
a neighbouring slab.  With unnormalised expectations Bellman's equation needs neither belief nor division:

    W(x) = max{ best answer in hand, abstention;  max over rungs: sum of W over outcomes - price x cost of the rung }
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.ladders import Ladder
from metaverify.fitting.table import JointTable

__all__ = [
    "ABSTAIN",
    "Depths",
    "Lattice",
    "LatticeSizeError",
    "Plan",
    "Stage",
    "check_size",
    "deeper",
    "lattice_bytes",
    "legal_climbs",
    "reachable_depths",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Depths = tuple[int, ...]

ABSTAIN = -1
TIE = 1e-12
"""Relative differences below this, in a state, are rounding: an answer in hand wins, then the earlier source."""


class LatticeSizeError(MemoryError):
    """The exact solution would not fit; the message gives its size and the ways out."""


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The states of one slab that a plan reaches, and what it does there."""

    depths: Depths
    states: Ints  # [m], positions in the slab
    climb: Ints  # [m], the source whose next rung is climbed, or -1: stop
    answer: Ints  # [m], the source accepted where it stops, ABSTAIN otherwise


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The best decisions at one price, in every state that they reach."""

    price: float  # quality per unit cost
    quality: float
    cost: float
    stages: tuple[Stage, ...]  # by total depth, the root slab first


@dataclass(frozen=True, slots=True, eq=False)
class _Move:
    """One rung that can be climbed from a slab."""

    source: int
    outcomes: int
    inner: int  # states behind one outcome: the child of (x // inner, outcome, x % inner)
    child: int  # the slab it leads to
    expense: Floats  # [states]; times `unit` it is E[price of the rung · 1{x}]
    unit: float


@dataclass(frozen=True, slots=True, eq=False)
class _Slab:
    depths: Depths
    mass: Floats  # [states]
    stop: Floats  # [states], worth of the best answer in hand or of abstention; -inf where there is neither
    answer: NDArray[np.int8]  # [states]
    moves: tuple[_Move, ...]


def lattice_bytes(ladders: Sequence[Ladder], *, contexts: int = 0, token_prices: int = 0) -> tuple[int, int]:
    """Information states of a lattice, and the bytes that its table and its solution take at the most.

    ``token_prices`` counts the rungs whose price varies from query to query.
    """
    states = leaves = 1 + contexts
    for ladder in ladders:
        states *= sum(math.prod(ladder.sizes[:depth]) for depth in range(len(ladder.rungs) + 1))
        leaves *= math.prod(ladder.sizes)
    tables = 1 + len(ladders) + token_prices
    return states, 8 * (states * (6 + len(ladders) + token_prices) + 3 * leaves * tables)


class Lattice:
    """A joint table, marginalised to every information state once and for all; then ``solve`` at any price.

    Args:
        table: what is known.
        abstain: the worth of handing a query over, in quality; None where that is not to be had.
        memory: bytes that may be taken.

    Attributes:
        cheapest: the least that any policy costs.
        share: of traffic, a context row each.

    Raises:
        LatticeSizeError: the states would need more than ``memory``.
    """

    def __init__(self, table: JointTable, *, abstain: float | None = None, memory: int = 4 << 30) -> None:
        varying = sum(isinstance(p, np.ndarray) for rungs in table.price for p in rungs)
        check_size(table.ladders, contexts=len(table.contexts), token_prices=varying, memory=memory)
        self.table = table
        self.abstain = abstain
        self.share = np.asarray(table.share)
        self._slabs = _build(table, abstain)
        self._at = {slab.depths: at for at, slab in enumerate(self._slabs)}
        self._sums: dict[int, _Marginals] = {}
        self._value = [np.empty_like(slab.mass) for slab in self._slabs]
        self._scratch = np.empty((2, max(len(slab.mass) for slab in self._slabs)))
        self._axes = [
            [self._value[move.child].reshape(-1, move.outcomes, move.inner) for move in slab.moves]
            for slab in self._slabs
        ]

        self.cheapest = self._cheapest()

    @property
    def states(self) -> int:
        """How many information states there are, contexts counted apart."""
        return sum(len(slab.mass) for slab in self._slabs)

    @property
    def dearest_price(self) -> float:
        """A price at which no rung is worth climbing but the one that must be."""
        rates = [1.0]
        for slab in self._slabs:
            for move in slab.moves:
                paid = move.expense > 0
                if move.unit > 0 and paid.any():
                    rates.append(float((slab.mass[paid] / (move.unit * move.expense[paid])).max()))
        return 2.0 * max(rates)

    @property
    def everything(self) -> float:
        """What climbing every rung of every source costs: no policy costs more."""
        table = self.table
        by_row = [
            p * table.mass if isinstance(p, float) else p for rungs in table.price for p in rungs
        ]  # each [rows, *leaf]
        return sum(float(self.share @ column.reshape(len(self.share), -1).sum(axis=1)) for column in by_row)

    def solve(self, price: float) -> Plan:
        """The decisions that maximise expected quality - ``price`` x expected cost, exactly.  Ties go to stopping."""
        self._sweep([slab.stop for slab in self._slabs], price)
        return self._follow(price)

    def _sweep(self, stops: Sequence[Floats], price: float) -> None:
        """Bellman's equation from the deepest slab up, into the values."""
        for slab, stop, value, axes in zip(self._slabs, stops, self._value, self._axes, strict=True):
            np.copyto(value, stop)
            total, charge = self._scratch[:, : len(value)]
            for move, axis in zip(slab.moves, axes, strict=True):
                _sum_outcomes(axis, total)
                np.multiply(move.expense, price * move.unit, out=charge)
                np.subtract(total, charge, out=total)
                np.maximum(value, total, out=value)

    def _cheapest(self) -> float:
        """The least that any policy costs: the solution where every answer, and abstention, is worth the same."""
        self._sweep([np.where(np.isfinite(slab.stop), 0.0, -np.inf) for slab in self._slabs], 1.0)
        return -float((self.share * self._value[-1]).sum())

    def _follow(self, price: float) -> Plan:
        """From the roots down, the states that the best decisions reach, with what they gain and spend there."""
        reached: dict[int, list[Ints]] = {len(self._slabs) - 1: [np.arange(len(self.share))]}
        stages, quality, cost = [], 0.0, 0.0
        for at in range(len(self._slabs) - 1, -1, -1):
            if at not in reached:
                continue
            slab = self._slabs[at]
            states = np.concatenate(reached.pop(at))
            row_share = self.share[states // (len(slab.mass) // len(self.share))]
            climb = np.full(len(states), -1)
            value = self._value[at][states]
            floor = value - TIE * np.maximum(slab.mass[states], np.abs(value))
            left = np.flatnonzero(slab.stop[states] < floor)  # positions among the states, undecided as yet
            for move in slab.moves:
                if len(left) == 0:
                    break
                children = _children(states[left], move)
                spent = move.unit * move.expense[states[left]]
                worth = self._value[move.child][children].sum(axis=1) - price * spent
                taken = worth >= floor[left]
                if taken.any():
                    climb[left[taken]] = move.source
                    cost += float(row_share[left[taken]] @ spent[taken])
                    reached.setdefault(move.child, []).append(children[taken].ravel())
                    left = left[~taken]
            stops = climb < 0
            quality += float(row_share[stops] @ slab.stop[states[stops]])
            answer = np.where(stops, slab.answer[states], ABSTAIN).astype(np.int64)
            stages.append(Stage(slab.depths, states, climb, answer))
        return Plan(price, quality, cost, tuple(stages))

    def children(self, depths: Depths, source: int, states: Ints) -> Ints:
        """The states [m, outcomes] that climbing ``source``'s next rung leads to from ``states`` [m] of a slab."""
        return _children(states, self._move(depths, source))

    def child(self, depths: Depths, source: int, states: Ints, outcome: Ints) -> Ints:
        """The states [m] that ``outcome`` [m] of ``source``'s next rung leads to from ``states`` [m] of a slab."""
        move = self._move(depths, source)
        return np.asarray(states + (states // move.inner * (move.outcomes - 1) + outcome) * move.inner)

    def charge(self, depths: Depths, source: int, states: Ints) -> Floats:
        """E[price of ``source``'s next rung · 1{x}] in ``states`` [m] of a slab."""
        move = self._move(depths, source)
        return np.asarray(move.unit * move.expense[states])

    def climbable(self, depths: Depths) -> tuple[int, ...]:
        """The sources with a rung that can be climbed from a slab."""
        return tuple(move.source for move in self._slabs[self._at[depths]].moves)

    def mass(self, depths: Depths, states: Ints) -> Floats:
        """P(x) in ``states`` [m] of a slab."""
        return self._slabs[self._at[depths]].mass[states]

    def row(self, depths: Depths, states: Ints) -> Ints:
        """The context row of ``states`` [m] of a slab."""
        return np.asarray(states // (len(self._slabs[self._at[depths]].mass) // len(self.share)))

    def quality(self, source: int, depths: Depths, states: Ints) -> Floats:
        """E[quality of ``source``'s answer · 1{x}] in ``states`` [m] of a slab, whether it is in hand or not."""
        if source not in self._sums:
            quality = self.table.quality[source]
            assert quality is not None, "only a source with an answer has a quality"
            self._sums[source] = _Marginals(self.table.ladders, quality)
        return self._sums[source](depths)[states]

    def value(self, depths: Depths, states: Ints) -> Floats:
        """W(x), the worth of going on in the best way at the price solved last, in ``states`` [m] of a slab."""
        return self._value[self._at[depths]][states]

    def _move(self, depths: Depths, source: int) -> _Move:
        return next(move for move in self._slabs[self._at[depths]].moves if move.source == source)


def check_size(ladders: Sequence[Ladder], *, contexts: int = 0, token_prices: int = 0, memory: int = 4 << 30) -> None:
    """Make sure that a lattice over these ladders fits, before anything is allocated.

    Raises:
        LatticeSizeError: with its size and the ways out.
    """
    states, size = lattice_bytes(ladders, contexts=contexts, token_prices=token_prices)
    if size > memory:
        raise LatticeSizeError(
            f"{len(ladders)} tiers with {sum(len(ladder.rungs) for ladder in ladders)} rungs make {states:,} "
            f"information states, {size / 2**30:,.1f} GiB where {memory / 2**30:,.1f} are allowed; "
            "name fewer tiers (--tiers), fewer readings (--readings) or fewer bins (--bins)"
        )


def _sum_outcomes(axis: Floats, out: Floats) -> None:
    """Sum [outer, outcomes, inner] over its middle into ``out`` [outer * inner]."""
    outer, _, inner = axis.shape
    target = out.reshape(outer, inner)
    if inner < 256:
        np.einsum("oki->oi", axis, out=target)
    else:
        np.add.reduce(axis, axis=1, out=target)


def _children(states: Ints, move: _Move) -> Ints:
    first = states + states // move.inner * (move.outcomes - 1) * move.inner
    return np.asarray(first[:, None] + np.arange(0, move.outcomes * move.inner, move.inner))


def legal_climbs(ladders: Sequence[Ladder], depths: Depths) -> Iterator[int]:
    """The sources with a rung that can be climbed now."""
    depth = {ladder.source: d for ladder, d in zip(ladders, depths, strict=True)}
    for source, ladder in enumerate(ladders):
        if depths[source] < len(ladder.rungs) and all(depth[need] > 0 for need in ladder.needs):
            yield source


def reachable_depths(ladders: Sequence[Ladder]) -> list[Depths]:
    """Every tuple of depths that legal climbing reaches, deepest first."""
    seen = {(0,) * len(ladders)}
    fresh = list(seen)
    while fresh:
        grown = {deeper(depths, source) for depths in fresh for source in legal_climbs(ladders, depths)}
        fresh = sorted(grown - seen)
        seen |= grown
    return sorted(seen, key=lambda depths: (-sum(depths), depths))


def deeper(depths: Depths, source: int) -> Depths:
    """The slab that one more rung of ``source`` leads to."""
    return (*depths[:source], depths[source] + 1, *depths[source + 1 :])


class _Marginals:
    """One leaf array summed down to any tuple of depths, each sum made once from the nearest one above it.

    ``pinned`` is climbed last on the way up, so that sums over it are shared by all that leave it where it is.
    """

    def __init__(self, ladders: Sequence[Ladder], leaf: Floats, pinned: int = -1) -> None:
        self._ladders = ladders
        self._rows = leaf.shape[0]
        self._order = sorted(range(len(ladders)), key=lambda source: (source == pinned, source))
        self._memo = {tuple(len(ladder.rungs) for ladder in ladders): np.ascontiguousarray(leaf).reshape(-1)}

    def __call__(self, depths: Depths) -> Floats:
        if depths not in self._memo:
            source = next(s for s in self._order if depths[s] < len(self._ladders[s].rungs))
            above = self(deeper(depths, source))
            inner, outcomes = _inner(self._ladders, depths, source), self._ladders[source].sizes[depths[source]]
            total = np.empty(len(above) // outcomes)
            _sum_outcomes(above.reshape(-1, outcomes, inner), total)
            self._memo[depths] = total
        return self._memo[depths]


def _inner(ladders: Sequence[Ladder], depths: Depths, source: int) -> int:
    return math.prod(
        math.prod(ladder.sizes[:depth])
        for ladder, depth in itertools.islice(zip(ladders, depths, strict=True), source + 1, None)
    )


def _build(table: JointTable, abstain: float | None) -> list[_Slab]:
    ladders = table.ladders
    depths_list = reachable_depths(ladders)
    position = {depths: at for at, depths in enumerate(depths_list)}
    mass_of = _Marginals(ladders, table.mass)
    mass = [mass_of(depths) for depths in depths_list]
    stop, answer = _stops(table, depths_list, mass, abstain)
    expense: dict[tuple[int, Depths], tuple[Floats, float]] = {}
    for source in range(len(ladders)):
        for rung, price in enumerate(table.price[source]):
            if isinstance(price, float):
                found = {depths: (mass[at], price) for at, depths in enumerate(depths_list) if depths[source] == rung}
            else:
                sums = _Marginals(ladders, price, pinned=source)
                found = {depths: (sums(depths), 1.0) for depths in depths_list if depths[source] == rung}
            expense.update({(source, depths): pair for depths, pair in found.items()})
    return [
        _Slab(
            depths,
            mass[at],
            stop[at],
            answer[at],
            tuple(
                _Move(
                    source,
                    ladders[source].sizes[depths[source]],
                    _inner(ladders, depths, source),
                    position[deeper(depths, source)],
                    *expense[source, depths],
                )
                for source in legal_climbs(ladders, depths)
            ),
        )
        for at, depths in enumerate(depths_list)
    ]


def _stops(
    table: JointTable, depths_list: list[Depths], mass: list[Floats], abstain: float | None
) -> tuple[list[Floats], list[NDArray[np.int8]]]:
    """The worth of stopping in each state, and the answer that is then returned."""
    stop = [np.full(len(m), -np.inf) if abstain is None else abstain * m for m in mass]
    answer = [np.full(len(m), ABSTAIN, dtype=np.int8) for m in mass]
    for source, quality in enumerate(table.quality):
        if quality is None:
            continue
        sums = _Marginals(table.ladders, quality)
        for at, depths in enumerate(depths_list):
            if depths[source] > 0:
                worth = sums(depths)
                better = worth > stop[at] + TIE * mass[at]
                answer[at][better] = source
                stop[at][better] = worth[better]
    return stop, answer
