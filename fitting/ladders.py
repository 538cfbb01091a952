"""Ladders: what can be bought from each source, rung by rung, and the outcomes that each rung can have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.actions import Call, Verify

__all__ = ["Ladder", "Place", "Rung", "in_hand", "leaf_shape", "vote_rung"]

Place = tuple[int, int]
"""A source and one of its rungs."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One purchase.  Its outcome is the bin of ``reading``, or nothing at all where ``reading`` is None.

    ``cuts`` are ascending, on the raw confidence scale.  Bin b holds cuts[b-1] <= confidence < cuts[b]; the last
    outcome is "missing".  Where ``votes`` is not 0 the reading is a share of so many votes, bin b being b of them,
    and they are bought one by one (see `vote_rung`).
    """

    reading: str | None
    cuts: tuple[float, ...] = ()
    votes: int = 0

    @property
    def size(self) -> int:
        """How many outcomes there are, "missing" included; 1 where nothing is read."""
        return 1 if self.reading is None else len(self.cuts) + 2

    def code(self, confidence: NDArray[np.float64]) -> NDArray[np.int64]:
        """The outcome of each confidence [n]: its bin, or ``size - 1`` where it is NaN or outside [0, 1]."""
        if self.reading is None:
            return np.zeros(len(confidence), dtype=np.int64)
        bins = np.searchsorted(np.asarray(self.cuts, dtype=np.float64), confidence, side="right")
        return np.where((confidence >= 0.0) & (confidence <= 1.0), bins, self.size - 1).astype(np.int64)


def vote_rung(reading: str, votes: int) -> Rung:
    """The rung of a reading that is the share of ``votes`` exchangeable votes, bought one by one."""
    return Rung(reading, tuple((yes - 0.5) / votes for yes in range(1, votes + 1)), votes)


@dataclass(frozen=True, slots=True)
class Ladder:
    """One source and its rungs, bottom first.

    The first rung of a source with an answer is the call, together with the reading that comes with it.
    A source without an answer (a judge, a signal) can be read once the answers of the sources in ``needs``
    are in hand.

    It is climbed in *steps*: a rung is one step, or as many as it has votes.  After some votes what is known is how
    many of them were yes, one outcome more than votes asked, and "missing" where the first one failed.  Votes are
    bought in one go: once something else was done, no more are to be had; so they stand on the last rung.
    """

    source: str
    rungs: tuple[Rung, ...]
    answer: bool = True
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        whole = self.rungs[:-1] if not self.answer or len(self.rungs) > 1 else self.rungs
        if any(rung.votes for rung in whole):
            raise ValueError(f"ladder {self.source!r}: votes stand on the last rung, and do not come with the answer")

    @property
    def at_once(self) -> Ladder:
        """The same where votes are had all at once, like any other reading."""
        return replace(self, rungs=tuple(replace(rung, votes=0) for rung in self.rungs))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Outcomes of each rung."""
        return tuple(rung.size for rung in self.rungs)

    @property
    def votes(self) -> int:
        """How many votes the last rung has; 0 where it is climbed in one step, or there is none."""
        return self.rungs[-1].votes if self.rungs else 0

    @property
    def steps(self) -> int:
        """How many steps there are in all."""
        return len(self.rungs) + max(self.votes - 1, 0)

    def asked(self, depth: int) -> int:
        """How many votes are in hand after ``depth`` steps."""
        return max(depth - len(self.rungs) + 1, 0) if self.votes else 0

    def rung(self, depth: int) -> Rung:
        """The rung that is climbed from ``depth``."""
        return self.rungs[min(depth, len(self.rungs) - 1)]

    def outcomes(self, depth: int) -> int:
        """Outcomes of the step from ``depth``, all of them new: of a rung, or of the first of its votes."""
        rung = self.rung(depth)
        return 3 if rung.votes else rung.size

    def states(self, depth: int) -> int:
        """What can be known of this source alone after ``depth`` steps."""
        asked = self.asked(depth)
        whole = depth - asked
        return math.prod(self.sizes[:whole]) * (asked + 2 if asked else 1)

    def action(self, depth: int) -> Call | Verify:
        """What the router is asked to do to climb from ``depth`` to ``depth + 1``."""
        if self.answer and depth == 0:
            return Call(self.source)
        reading = self.rung(depth).reading
        assert reading is not None, "a rung that is not a call yields a reading"
        return Verify(self.source, reading)


def leaf_shape(ladders: Sequence[Ladder]) -> tuple[int, ...]:
    """Outcomes of every rung of every ladder, in order: the axes of a joint table after its context axis."""
    return tuple(size for ladder in ladders for size in ladder.sizes)


def in_hand(answers: Iterable[Place], source: int, depth: int) -> Place:
    """Which of the ``answers``, each at the rung that it comes with, is a source's answer after ``depth`` steps: the
    last one; before any step the first, which its call will give."""
    return max(place for place in answers if place[0] == source and place[1] < max(depth, 1))
