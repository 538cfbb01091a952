"""A chain of cuts as a planner: sources in order of price, each answer kept from some outcome of its reading on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.ladders import Ladder
from metaverify.fitting.lattice import ABSTAIN
from metaverify.fitting.pomdp import CascadePOMDP, Information
from metaverify.policies.actions import Abstain, Accept, Action

__all__ = ["CutChain", "tune_cuts"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CutChain:
    """Call one source after another; keep an answer whose first reading is in bin ``cut`` or above, and go on where it
    is below or missing.  The last answer is kept unread.

    It is defined whatever was bought before: what is in hand is not bought again.
    """

    ladders: tuple[Ladder, ...]
    cuts: tuple[tuple[int, int], ...]  # (source, cut) in order
    last: int  # the source whose answer ends the chain; ABSTAIN to hand the query over

    def __call__(self, information: Information) -> Action:
        """What the chain does next."""
        ladders, depths = self.ladders, information.depths
        for source, cut in self.cuts:
            ladder, reading = ladders[source], _first_reading(ladders[source])
            if depths[source] <= reading:
                return ladder.action(depths[source])
            outcome = information.outcomes[sum(depths[:source]) + reading]
            if cut <= outcome < ladder.sizes[reading] - 1:
                return Accept(ladder.source)
        if self.last == ABSTAIN:
            return Abstain()
        return Accept(ladders[self.last].source) if depths[self.last] else ladders[self.last].action(0)


def tune_cuts(model: CascadePOMDP) -> CutChain:
    """The best chain that coordinate ascent finds: for every last source, the cut of each cheaper one in turn, until
    none can be bettered.  Ties go to fewer sources."""
    trial = _Trial(model)
    found: tuple[float, CutChain] | None = None
    for last in [*([] if model.abstain is None else [ABSTAIN]), *trial.order]:
        before = trial.order if last == ABSTAIN else trial.order[: trial.order.index(last)]
        cuts: dict[int, int] = {}
        value, improved = trial.value(cuts, last), True
        while improved:
            improved = False
            for source in before:
                for option in [None, *trial.options(source)]:
                    other = {s: c for s, c in cuts.items() if s != source}
                    other |= {} if option is None else {source: option}
                    if (worth := trial.value(other, last)) > value + 1e-12:
                        cuts, value, improved = other, worth, True
        chain = CutChain(model.ladders, tuple((s, cuts[s]) for s in trial.order if s in cuts), last)
        if found is None or value > found[0] + 1e-12:
            found = value, chain
    assert found is not None, "a cascade has an answer"
    return found[1]


def _first_reading(ladder: Ladder) -> int:
    """The position of a source's first reading on its ladder; -1 where it has none."""
    return next((at for at, rung in enumerate(ladder.rungs) if rung.reading is not None), -1)


class _Trial:
    """The hidden states laid out for valuing chains."""

    def __init__(self, model: CascadePOMDP) -> None:
        self._model = model
        self._first = {s: model.climbs.index(s) for s in range(len(model.ladders))}  # the action of its first rung
        answers = [s for s, ladder in enumerate(model.ladders) if ladder.answer]
        self.order = sorted(answers, key=lambda s: -float(model.prior @ model.gain[self._first[s]]))
        self._kept = {s: self._chances(s) for s in answers}

    def options(self, source: int) -> range:
        """The cuts that a source can have."""
        return range(len(self._kept[source]))

    def value(self, cuts: dict[int, int], last: int) -> float:
        """What the chain earns, net of price x cost."""
        model, going, total = self._model, self._model.prior, 0.0
        for source in (s for s in self.order if s in cuts):
            first = self._first[source]
            spent = model.gain[first : first + _first_reading(model.ladders[source]) + 1].sum(axis=0)
            kept = going * self._kept[source][cuts[source]]
            total += float(going @ spent + kept @ self._worth(source))
            going = going - kept
        if last == ABSTAIN:
            return total + float(going @ model.gain[-1])
        return total + float(going @ (model.gain[self._first[last]] + self._worth(last)))

    def _worth(self, source: int) -> Floats:
        """The quality of its answer, [Z]."""
        return np.asarray(self._model.gain[self._model.number[Accept(self._model.ladders[source].source)]])

    def _chances(self, source: int) -> list[Floats]:
        """For each cut, the chance that its answer is kept, [Z]."""
        reading = _first_reading(self._model.ladders[source])
        if reading < 0:
            return []
        bins = self._model.ladders[source].sizes[reading] - 1
        emission = self._model.emission[self._first[source] + reading]
        return [emission[:, cut:bins].sum(axis=1) for cut in range(min(bins, emission.shape[1]))]
