"""Ladders: what can be bought from each source, rung by rung, and the outcomes that each rung can have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.actions import Call, Verify

__all__ = ["Ladder", "Rung"]


@dataclass(frozen=True, slots=True)
class Rung:
    """One purchase.  Its outcome is the bin of ``reading``, or nothing at all where ``reading`` is None.

    ``cuts`` are ascending, on the raw confidence scale.  Bin b holds cuts[b-1] <= confidence < cuts[b]; the last
    outcome is "missing".
    """

    reading: str | None
    cuts: tuple[float, ...] = ()

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


@dataclass(frozen=True, slots=True)
class Ladder:
    """One source and its rungs, bottom first.

    The first rung of a source with an answer is the call, together with the reading that comes with it.
    A source without an answer (a judge, a signal) can be read once the answers of the sources in ``needs``
    are in hand.
    """

    source: str
    rungs: tuple[Rung, ...]
    answer: bool = True
    needs: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Outcomes of each rung."""
        return tuple(rung.size for rung in self.rungs)

    def action(self, depth: int) -> Call | Verify:
        """What the router is asked to do to climb from ``depth`` to ``depth + 1``."""
        if self.answer and depth == 0:
            return Call(self.source)
        reading = self.rungs[depth].reading
        assert reading is not None, "a rung that is not a call yields a reading"
        return Verify(self.source, reading)


def leaf_shape(ladders: Sequence[Ladder]) -> tuple[int, ...]:
    """Outcomes of every rung of every ladder, in order: the axes of a joint table after its context axis."""
    return tuple(size for ladder in ladders for size in ladder.sizes)
