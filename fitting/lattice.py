"""The exact solver: dynamic programming over information states.

The hidden state of a query never changes and nothing is read twice, so what has been learnt depends on which rungs
were climbed and what came out, never on the order.  The states in which the same rungs were climbed form a *slab*:
one array [contexts x outcomes of each climbed rung], C order, so that the outcomes of one more rung are one axis of
a neighbouring slab.  With unnormalised expectations Bellman's equation needs neither belief nor division:

    W(x) = max{ best answer in hand, abstention;  max over rungs: sum of W over outcomes - price x cost of the rung }

Votes that are asked one by one have a slab for each number of them.  They are bought in one go: a slab in which some
were asked offers no more of them, and whether to ask for another one is decided within the step that asks for votes
(see `votes`), so that what is known never depends on when they were asked.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.ladders import Ladder, Place, in_hand
from metaverify.fitting.table import JointTable
from metaverify.fitting.votes import one_less, one_more, worth_of_asking

__all__ = [
    "ABSTAIN",
    "Depths",
    "Lattice",
    "LatticeSizeError",
    "Never",
    "Plan",
    "Stage",
    "Tallied",
    "check_size",
    "deeper",
    "ends_of_climb",
    "lattice_bytes",
    "legal_climbs",
    "reachable_depths",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Masks = NDArray[np.bool_]
Depths = tuple[int, ...]
"""How many steps of each source's ladder are climbed."""
Never = Mapping[tuple[Depths, int], Floats]
"""From a slab and a source, [m]: 0 in the states in which its next rung was climbed; in others the least mass that they
are taken to have, so that a table that thinks nothing of a state is not believed."""

ABSTAIN = -1
BARRED = 1e6  # what a unit of mass pays to do what was never tried, times all that could be gained and saved by it
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
    asks: Mapping[int, tuple[Masks, ...]] = field(default_factory=dict)
    """A source whose votes are asked for: after j = 1, 2, .. votes, whether another one is, [its states, j + 2]."""


@dataclass(frozen=True, slots=True, eq=False)
class Tallied:
    """What is known after a number of votes, from m states in which none was asked."""

    depths: Depths
    states: Ints  # [m, votes + 2]
    reach: Floats  # [m, votes + 2], the share of that state which is come to by asking
    asks: Masks  # [m, votes + 2], whether another vote is asked for

    @property
    def stops(self) -> Floats:
        """The share of each state in which no more votes are asked for, [m, votes + 2]."""
        return np.where(self.asks, 0.0, self.reach)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The best decisions at one price, in every state that they reach."""

    price: float  # quality per unit cost
    quality: float
    cost: float
    stages: tuple[Stage, ...]  # by total depth, the root slab first


@dataclass(frozen=True, slots=True, eq=False)
class _Move:
    """One rung that can be climbed from a slab: in one step, or in as many as it has votes.

    ``children`` has the slab after each step, ``expenses`` what is spent on each, in states of the slab before it:
    times ``unit`` they are E[price of the step · 1{x}].
    """

    source: int
    outcomes: int  # of the first step
    inner: int  # states behind one outcome: the child of (x // inner, outcome, x % inner)
    children: tuple[int, ...]
    expenses: tuple[Floats, ...]
    unit: float
    barred: Floats | None = None  # [states], what they weigh where it was never tried, else 0

    @property
    def child(self) -> int:
        """The slab that its first step leads to."""
        return self.children[0]

    @property
    def expense(self) -> Floats:
        """What is spent on its first step, [states]."""
        return self.expenses[0]


@dataclass(frozen=True, slots=True, eq=False)
class _Slab:
    depths: Depths
    mass: Floats  # [states]
    stop: Floats  # [states], worth of the best answer in hand or of abstention; -inf where there is neither
    answer: NDArray[np.int8]  # [states]
    moves: tuple[_Move, ...]


def lattice_bytes(ladders: Sequence[Ladder], *, contexts: int = 0, arrays: int = 0) -> tuple[int, int]:
    """Information states of a lattice, and the bytes that its table and its solution take at the most.

    ``arrays`` counts the rungs whose price varies from query to query, and those that are samples.
    """
    states = leaves = 1 + contexts
    for ladder in ladders:
        states *= sum(ladder.states(depth) for depth in range(ladder.steps + 1))
        leaves *= math.prod(ladder.sizes)
    tables = 1 + len(ladders) + arrays
    return states, 8 * (states * (6 + len(ladders) + arrays) + 3 * leaves * tables)


class Lattice:
    """A joint table, marginalised to every information state once and for all; then ``solve`` at any price.

    Args:
        table: what is known.
        abstain: the worth of handing a query over, in quality; None where that is not to be had.
        memory: bytes that may be taken.
        forward: whether tiers can only be gone through in their order, some left out, as in AutoMix: one that is called
            is read at once as far as it can be, and only the answer of the last one called can be accepted.
        never: what was never tried, and where: that is not done unless nothing else can be.

    Attributes:
        cheapest: the least that any policy costs.
        share: of traffic, a context row each.

    Raises:
        LatticeSizeError: the states would need more than ``memory``.
        ValueError: a source without an answer in a forward lattice.
    """

    def __init__(
        self,
        table: JointTable,
        *,
        abstain: float | None = None,
        memory: int = 4 << 30,
        forward: bool = False,
        never: Never = MappingProxyType({}),
    ) -> None:
        signals = [ladder.source for ladder in table.ladders if not ladder.answer]
        if forward and signals:
            raise ValueError(f"a forward lattice is one of tiers; leave out {', '.join(signals)}, which has no answer")
        varying = sum(isinstance(p, np.ndarray) for rungs in table.price for p in rungs)
        check_size(table.ladders, contexts=len(table.contexts), arrays=varying + len(table.later), memory=memory)
        self.table = table
        self.abstain = abstain
        self.share = np.asarray(table.share)
        self._slabs = _build(table, abstain, forward, never)
        self._at = {slab.depths: at for at, slab in enumerate(self._slabs)}
        self._answers = table.answers
        self._sums: dict[Place, _Marginals] = {}
        self._value = [np.empty_like(slab.mass) for slab in self._slabs]
        self._scratch = np.empty((2, max(len(slab.mass) for slab in self._slabs)))
        self._axes = [
            [
                [self._value[at].reshape(-1, move.outcomes + step, move.inner) for step, at in enumerate(move.children)]
                for move in slab.moves
            ]
            for slab in self._slabs
        ]

        self._most = self.everything
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
                before = (slab, *(self._slabs[at] for at in move.children[:-1]))
                for here, expense in zip(before, move.expenses, strict=True):
                    paid = expense > 0
                    if move.unit > 0 and paid.any():
                        rates.append(float((here.mass[paid] / (move.unit * expense[paid])).max()))
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
            for move, after in zip(slab.moves, axes, strict=True):
                if len(after) == 1:
                    _sum_outcomes(after[0], total)
                else:
                    charges = [
                        price * move.unit * e.reshape(a.shape) for e, a in zip(move.expenses[1:], after, strict=False)
                    ]
                    total[:] = worth_of_asking(after, charges)[0].reshape(-1)
                np.multiply(move.expense, price * move.unit, out=charge)
                np.subtract(total, charge, out=total)
                if move.barred is not None:
                    total -= self._bar(price) * move.barred
                np.maximum(value, total, out=value)

    def _cheapest(self) -> float:
        """The least that any policy costs: the solution where every answer, and abstention, is worth the same."""
        self._sweep([np.where(np.isfinite(slab.stop), 0.0, -np.inf) for slab in self._slabs], 1.0)
        return -float((self.share * self._value[-1]).sum())

    def _follow(self, price: float) -> Plan:
        """From the roots down, the states that the best decisions reach, with what they gain and spend there."""
        everyone = np.ones(len(self.share))
        reached: dict[int, list[tuple[Ints, Floats]]] = {len(self._slabs) - 1: [(np.arange(len(self.share)), everyone)]}
        stages, quality, cost = [], 0.0, 0.0
        for at in range(len(self._slabs) - 1, -1, -1):
            if at not in reached:
                continue
            slab = self._slabs[at]
            states, reach = (np.concatenate(parts) for parts in zip(*reached.pop(at), strict=True))
            row_share = reach * self.share[states // (len(slab.mass) // len(self.share))]
            climb = np.full(len(states), -1)
            asks: dict[int, tuple[Masks, ...]] = {}
            value = self._value[at][states]
            floor = value - TIE * np.maximum(slab.mass[states], np.abs(value))
            left = np.flatnonzero(slab.stop[states] < floor)  # positions among the states, undecided as yet
            for move in slab.moves:
                if len(left) == 0:
                    break
                spent = move.unit * move.expense[states[left]]
                if len(move.children) == 1:
                    children = _children(states[left], move.outcomes, move.inner)
                    worth = self._value[move.child][children].sum(axis=1) - self._outlay(move, states[left], price)
                else:
                    worth, votes = self._ask(move, states[left], price)
                    worth -= price * spent
                taken = worth >= floor[left]
                if taken.any():
                    climb[left[taken]] = move.source
                    if len(move.children) == 1:
                        after = np.repeat(reach[left[taken]], move.outcomes)
                        reached.setdefault(move.child, []).append((children[taken].ravel(), after))
                        spent = spent[taken]
                    else:
                        asks[move.source] = tuple(asked[taken] for asked in votes)
                        spent, tallies = self.poll(slab.depths, move.source, states[left[taken]], asks[move.source])
                        for tally in tallies:
                            share = tally.stops * reach[left[taken], None]
                            ends = share > 0.0
                            if ends.any():
                                found = (tally.states[ends], share[ends])
                                reached.setdefault(self._at[tally.depths], []).append(found)
                    cost += float(row_share[left[taken]] @ spent)
                    left = left[~taken]
            stops = climb < 0
            quality += float(row_share[stops] @ slab.stop[states[stops]])
            answer = np.where(stops, slab.answer[states], ABSTAIN).astype(np.int64)
            stages.append(Stage(slab.depths, states, climb, answer, asks))
        return Plan(price, quality, cost, tuple(stages))

    def _ask(self, move: _Move, states: Ints, price: float) -> tuple[Floats, list[Masks]]:
        """What asking for votes is worth in ``states`` [m], the price of the first one not taken off, and after each
        number of votes but the last whether another one is asked for, [m, votes + 2]; ties go to asking no more."""
        worth, going_on = self._going_on(move, states, price)
        asks = []
        for at, place, on in zip(move.children, _tally_places(states, move), going_on, strict=False):
            stopping = self._value[at][place]
            asks.append(on > stopping + TIE * np.maximum(self._slabs[at].mass[place], np.abs(stopping)))
        return worth, asks

    def _going_on(self, move: _Move, states: Ints, price: float) -> tuple[Floats, list[Floats]]:
        """`worth_of_asking` from ``states`` [m] of a slab: [m], and [m, votes + 2] after each number of votes."""
        places = _tally_places(states, move)
        closed = [self._value[at][place, None] for at, place in zip(move.children, places, strict=True)]
        charges = [price * move.unit * e[place, None] for e, place in zip(move.expenses[1:], places, strict=False)]
        worth, going_on = worth_of_asking(closed, charges)
        return worth[:, 0], [on[:, :, 0] for on in going_on]

    def children(self, depths: Depths, source: int, states: Ints) -> Ints:
        """The states [m, outcomes] that climbing ``source``'s next rung leads to from ``states`` [m] of a slab."""
        move = self._move(depths, source)
        return _children(states, move.outcomes, move.inner)

    def poll(
        self, depths: Depths, source: int, states: Ints, asks: Sequence[Masks]
    ) -> tuple[Floats, tuple[Tallied, ...]]:
        """Ask for ``source``'s votes from ``states`` [m] of a slab in which none was asked.

        Args:
            depths: the slab.
            source: whose votes.
            states: positions in the slab.
            asks: after j = 1, 2, .. votes, whether another one is asked for, [m, j + 2] or what broadcasts to it; no
                more are after the last of these.

        Returns:
            E[price of all the votes · 1{x}] [m], and where that leads after 1, 2, .. votes.
        """
        move = self._move(depths, source)
        places = _tally_places(states, move)
        charge = move.unit * move.expense[states]
        reach, tallies = np.ones(places[0].shape), []
        for step, place in enumerate(places):
            more = np.broadcast_to(asks[step] if step < len(asks) else False, place.shape) & (reach > 0.0)
            more[:, -1] = False
            tallies.append(Tallied(deeper(depths, source, step + 1), place, reach, more))
            if not more.any():
                break
            going = np.where(more, reach, 0.0)
            charge = charge + (going * (move.unit * move.expenses[step + 1][place])).sum(axis=1)
            reach = one_more(going)
        return charge, tuple(tallies)

    def worth_of_votes(self, depths: Depths, source: int, states: Ints, price: float) -> list[Floats]:
        """What asking for another vote is worth at ``price``, the one solved last, after 1, 2, .. votes [m, votes + 2]
        but the last, from ``states`` [m] of a slab in which none was asked; NaN where they are missing."""
        going_on = self._going_on(self._move(depths, source), states, price)[1]
        return [np.append(on[:, :-1], np.full((len(on), 1), np.nan), axis=1) for on in going_on]

    def worth_of_polling(self, depths: Depths, source: int, states: Ints, price: float) -> Floats:
        """What asking for the first vote is worth, its own price not taken off, in ``states`` [m] likewise."""
        return self._going_on(self._move(depths, source), states, price)[0]

    def child(self, depths: Depths, source: int, states: Ints, outcome: Ints) -> Ints:
        """The states [m] that ``outcome`` [m] of ``source``'s next rung leads to from ``states`` [m] of a slab."""
        move = self._move(depths, source)
        return np.asarray(states + (states // move.inner * (move.outcomes - 1) + outcome) * move.inner)

    def charge(self, depths: Depths, source: int, states: Ints) -> Floats:
        """E[price of ``source``'s next step · 1{x}] in ``states`` [m] of a slab."""
        move = self._move(depths, source)
        return np.asarray(move.unit * move.expense[states])

    def outlay(self, depths: Depths, source: int, states: Ints, price: float) -> Floats:
        """What climbing ``source``'s next step takes off the worth of ``states`` [m] of a slab: ``price`` x `charge`,
        and prohibitively more where that was never tried."""
        return self._outlay(self._move(depths, source), states, price)

    def _outlay(self, move: _Move, states: Ints, price: float) -> Floats:
        spent = price * (move.unit * move.expense[states])
        return np.asarray(spent if move.barred is None else spent + self._bar(price) * move.barred[states])

    def _bar(self, price: float) -> float:
        """What a unit of mass pays to do what was never tried."""
        return BARRED * (1.0 + price * self._most)

    def barred(self, depths: Depths, source: int, states: Ints) -> Masks:
        """Whether ``source``'s next rung was never climbed, in ``states`` [m] of a slab."""
        barred = self._move(depths, source).barred
        return np.zeros(len(states), dtype=bool) if barred is None else barred[states] > 0.0

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
        """E[quality of ``source``'s answer · 1{x}] in ``states`` [m] of a slab: the one in hand, or that of a call."""
        place = in_hand(self._answers, source, depths[source])
        if place not in self._sums:
            self._sums[place] = _Marginals(self.table.ladders, self._answers[place])
        return self._sums[place](depths)[states]

    def size(self, depths: Depths) -> int:
        """How many states a slab has."""
        return len(self._slabs[self._at[depths]].mass)

    def stop(self, depths: Depths, states: Ints) -> tuple[Floats, Ints]:
        """The worth of stopping in ``states`` [m] of a slab, -inf where nothing can be returned, and the source of the
        answer that then is, ABSTAIN where the query is handed over."""
        slab = self._slabs[self._at[depths]]
        return slab.stop[states], slab.answer[states].astype(np.int64)

    def value(self, depths: Depths, states: Ints) -> Floats:
        """W(x), the worth of going on in the best way at the price solved last, in ``states`` [m] of a slab."""
        return self._value[self._at[depths]][states]

    def _move(self, depths: Depths, source: int) -> _Move:
        return next(move for move in self._slabs[self._at[depths]].moves if move.source == source)


def check_size(ladders: Sequence[Ladder], *, contexts: int = 0, arrays: int = 0, memory: int = 4 << 30) -> None:
    """Make sure that a lattice over these ladders fits, before anything is allocated.

    Raises:
        LatticeSizeError: with its size and the ways out.
    """
    states, size = lattice_bytes(ladders, contexts=contexts, arrays=arrays)
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


def _children(states: Ints, outcomes: int, inner: int) -> Ints:
    first = states + states // inner * (outcomes - 1) * inner
    return np.asarray(first[:, None] + np.arange(0, outcomes * inner, inner))


def _tally_places(states: Ints, move: _Move) -> list[Ints]:
    """Where ``states`` [m] lead after 1, 2, .. votes, [m, votes + 2] each."""
    return [_children(states, move.outcomes + step, move.inner) for step in range(len(move.children))]


def legal_climbs(ladders: Sequence[Ladder], depths: Depths, *, forward: bool = False) -> Iterator[int]:
    """The sources with a rung that can be climbed now; of votes there are no more once some were asked.

    In a ``forward`` lattice these are the last one called, while it is not wholly read, and then those after it.
    """
    depth = {ladder.source: d for ladder, d in zip(ladders, depths, strict=True)}
    last, read = _last_called(ladders, depths)
    for source, ladder in enumerate(ladders):
        begun = ladder.asked(depths[source]) > 0
        if forward and (source <= last if read else source != last):
            continue
        if depths[source] < ladder.steps and not begun and all(depth[need] > 0 for need in ladder.needs):
            yield source


def _last_called(ladders: Sequence[Ladder], depths: Depths) -> tuple[int, bool]:
    """The last source of which something was had, -1 for none, and whether all its rungs were climbed."""
    last = max((source for source, depth in enumerate(depths) if depth > 0), default=-1)
    return last, last < 0 or depths[last] >= len(ladders[last].rungs)


def ends_of_climb(ladders: Sequence[Ladder], depths: Depths, source: int) -> list[Depths]:
    """The slabs that climbing a source's next rung can end in: one, or one for each number of votes."""
    steps = max(ladders[source].rung(depths[source]).votes, 1)
    return [deeper(depths, source, step) for step in range(1, steps + 1)]


def reachable_depths(ladders: Sequence[Ladder], *, forward: bool = False) -> list[Depths]:
    """Every tuple of depths that legal climbing reaches, deepest first."""
    seen = {(0,) * len(ladders)}
    fresh = list(seen)
    while fresh:
        grown = {
            end
            for depths in fresh
            for source in legal_climbs(ladders, depths, forward=forward)
            for end in ends_of_climb(ladders, depths, source)
        }
        fresh = sorted(grown - seen)
        seen |= grown
    return sorted(seen, key=lambda depths: (-sum(depths), depths))


def deeper(depths: Depths, source: int, steps: int = 1) -> Depths:
    """The slab that more steps of ``source`` lead to."""
    return (*depths[:source], depths[source] + steps, *depths[source + 1 :])


class _Marginals:
    """One leaf array summed down to any tuple of depths, each sum made once from the nearest one above it.

    ``pinned`` is climbed last on the way up, so that sums over it are shared by all that leave it where it is.
    """

    def __init__(self, ladders: Sequence[Ladder], leaf: Floats, pinned: int = -1) -> None:
        self._ladders = ladders
        self._rows = leaf.shape[0]
        self._order = sorted(range(len(ladders)), key=lambda source: (source == pinned, source))
        self._memo = {tuple(ladder.steps for ladder in ladders): np.ascontiguousarray(leaf).reshape(-1)}

    def __call__(self, depths: Depths) -> Floats:
        if depths not in self._memo:
            source = next(s for s in self._order if depths[s] < self._ladders[s].steps)
            above = self(deeper(depths, source))
            ladder, inner = self._ladders[source], _inner(self._ladders, depths, source)
            if asked := ladder.asked(depths[source]):
                total = one_less(above.reshape(-1, asked + 3, inner)).reshape(-1)
            else:
                outcomes = ladder.outcomes(depths[source])
                total = np.empty(len(above) // outcomes)
                _sum_outcomes(above.reshape(-1, outcomes, inner), total)
            self._memo[depths] = total
        return self._memo[depths]


def _inner(ladders: Sequence[Ladder], depths: Depths, source: int) -> int:
    behind = itertools.islice(zip(ladders, depths, strict=True), source + 1, None)
    return math.prod(ladder.states(depth) for ladder, depth in behind)


def _build(table: JointTable, abstain: float | None, forward: bool, never: Never) -> list[_Slab]:
    ladders = table.ladders
    depths_list = reachable_depths(ladders, forward=forward)
    position = {depths: at for at, depths in enumerate(depths_list)}
    mass_of = _Marginals(ladders, table.mass)
    mass = [mass_of(depths) for depths in depths_list]
    stop, answer = _stops(table, depths_list, mass, abstain, forward)
    expense: dict[tuple[int, Depths], tuple[Floats, float]] = {}
    for source, ladder in enumerate(ladders):
        for rung, price in enumerate(table.price[source]):
            share = 1.0 / max(ladder.rungs[rung].votes, 1)  # of the price, a step
            steps = range(rung, ladder.steps if rung + 1 == len(ladder.rungs) else rung + 1)
            if isinstance(price, float):
                found = {d: (mass[at], price * share) for at, d in enumerate(depths_list) if d[source] in steps}
            else:
                sums = _Marginals(ladders, price, pinned=source)
                found = {depths: (sums(depths), share) for depths in depths_list if depths[source] in steps}
            expense.update({(source, depths): pair for depths, pair in found.items()})

    def move(depths: Depths, source: int) -> _Move:
        ends = ends_of_climb(ladders, depths, source)
        spent = [expense[source, before] for before in (depths, *ends[:-1])]
        return _Move(
            source,
            ladders[source].outcomes(depths[source]),
            _inner(ladders, depths, source),
            tuple(position[end] for end in ends),
            tuple(charge for charge, _ in spent),
            spent[0][1],
            _barred(never.get((depths, source)), mass[position[depths]]),
        )

    return [
        _Slab(
            depths,
            mass[at],
            stop[at],
            answer[at],
            tuple(move(depths, source) for source in legal_climbs(ladders, depths, forward=forward)),
        )
        for at, depths in enumerate(depths_list)
    ]


def _barred(never: Floats | None, mass: Floats) -> Floats | None:
    return None if never is None else np.where(never > 0.0, np.maximum(never, mass), 0.0)


def _stops(
    table: JointTable, depths_list: list[Depths], mass: list[Floats], abstain: float | None, forward: bool
) -> tuple[list[Floats], list[NDArray[np.int8]]]:
    """The worth of stopping in each state, and the answer that is then returned."""
    last = [_last_called(table.ladders, depths) for depths in depths_list]
    waits = [abstain is None or (forward and not read) for _, read in last]
    stop = [np.full(len(m), -np.inf) if wait else (abstain or 0.0) * m for m, wait in zip(mass, waits, strict=True)]
    answer = [np.full(len(m), ABSTAIN, dtype=np.int8) for m in mass]
    answers = table.answers
    for source, rung in sorted(answers):
        sums = _Marginals(table.ladders, answers[source, rung])
        steps = range(table.ladders[source].steps + 1)
        held = [depth > 0 and in_hand(answers, source, depth) == (source, rung) for depth in steps]
        for at, depths in enumerate(depths_list):
            if held[depths[source]] and (not forward or last[at] == (source, True)):
                worth = sums(depths)
                better = worth > stop[at] + TIE * mass[at]
                answer[at][better] = source
                stop[at][better] = worth[better]
    return stop, answer
