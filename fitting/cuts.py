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
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class CutChain:
    """Call one source after another; keep an answer whose first reading is in bin ``cut`` or above, and go on where it
    is below or missing.  The last answer is kept unread.

    It is defined whatever was bought before: what is in hand is not bought again.
    """

    model: CascadePOMDP
    cuts: tuple[tuple[int, int], ...]  # (source, cut) in order
    last: int  # the source whose answer ends the chain; ABSTAIN to hand the query over

    def __call__(self, information: Information) -> Action:
        """What the chain does next."""
        ladders, depths = self.model.ladders, information.depths
        for source, cut in self.cuts:
            reading = _first_reading(ladders[source])
            if depths[source] <= reading:
                return ladders[source].action(depths[source])
            if cut <= self._outcome(information, source) < ladders[source].sizes[reading] - 1:
                return Accept(ladders[source].source)
        if self.last == ABSTAIN:
            return Abstain()
        return Accept(ladders[self.last].source) if depths[self.last] else ladders[self.last].action(0)

    def value(self, information: Information, going: Floats, states: Ints) -> float:
        """What the chain earns from here on, net of price x cost.

        Args:
            information: what is known.
            going: [m], the weight of each hidden state.
            states: [m], which hidden states these are.
        """
        model, depths, total = self.model, information.depths, 0.0
        for source, cut in self.cuts:
            first, reading = model.climbs.index(source), _first_reading(model.ladders[source])
            bins = model.ladders[source].sizes[reading] - 1
            if depths[source] <= reading:
                spent = model.gain[first + depths[source] : first + reading + 1, states].sum(axis=0)
                kept = going * model.emission[first + reading, states, cut:bins].sum(axis=1)
                total += float(going @ spent)
            else:
                kept = going * (cut <= self._outcome(information, source) < bins)
            total += float(kept @ self._worth(source)[states])
            going = going - kept
        if self.last == ABSTAIN:
            return total + float(going @ model.gain[-1, states])
        if not depths[self.last]:
            total += float(going @ model.gain[model.climbs.index(self.last), states])
        return total + float(going @ self._worth(self.last)[states])

    def action_values(self, information: Information) -> dict[Action, float]:
        """What everything that can be done earns, net of price x cost, where after it the query stops or follows the
        chain, whichever is better; exact, and at least what the chain itself earns."""
        belief = self.model.belief(information)
        states = np.flatnonzero(belief)
        return {
            action: self._value_of(information, belief[states], states, self.model.number[action])
            for action in self.model.legal(information.depths)
        }

    def _value_of(self, information: Information, going: Floats, states: Ints, at: int) -> float:
        model = self.model
        total = float(going @ model.gain[at, states])
        for outcome in range(model.emission.shape[2]) if at < len(model.climbs) else ():
            after = going * model.emission[at, states, outcome]
            seen = np.flatnonzero(after)
            if len(seen):
                then = model.advance(information, model.actions[at], outcome)
                stops = np.flatnonzero(model.possible[:, model.progress.index(then.depths)])
                stops = stops[stops >= len(model.climbs)]
                worth = (model.gain[stops][:, states[seen]] @ after[seen]).tolist()
                total += max(self.value(then, after[seen], states[seen]), *worth, -np.inf)
        return total

    def _outcome(self, information: Information, source: int) -> int:
        """What the first reading of a source has shown."""
        return information.outcomes[sum(information.depths[:source]) + _first_reading(self.model.ladders[source])]

    def _worth(self, source: int) -> Floats:
        """The quality of a source's answer, [Z]."""
        return np.asarray(self.model.gain[self.model.number[Accept(self.model.ladders[source].source)]])


def tune_cuts(model: CascadePOMDP) -> CutChain:
    """The best chain that coordinate ascent finds: for every last source, the cut of each cheaper one in turn, until
    none can be bettered.  Ties go to the cheaper last source and to fewer cuts."""
    answers = [source for source, ladder in enumerate(model.ladders) if ladder.answer]
    order = sorted(answers, key=lambda source: -float(model.prior @ model.gain[model.climbs.index(source)]))
    found = []
    for last in [*([] if model.abstain is None else [ABSTAIN]), *order]:
        before = order if last == ABSTAIN else order[: order.index(last)]
        found.append(_ascend(CutChain(model, (), last), before))
    return max(found, key=lambda pair: pair[0])[1]


def _ascend(chain: CutChain, order: list[int]) -> tuple[float, CutChain]:
    """The chain with the cuts of the sources in ``order`` made better one at a time, and its value."""
    model, states = chain.model, np.arange(len(chain.model.prior))
    value, improved = chain.value(model.root, model.prior, states), True
    while improved:
        improved = False
        for source in order:
            others = [pair for pair in chain.cuts if pair[0] != source]
            for cut in range(_bins(model.ladders[source])):
                cuts = sorted([*others, (source, cut)], key=lambda pair: order.index(pair[0]))
                for option in (cuts, others) if cut == 0 else (cuts,):
                    other = CutChain(model, tuple(option), chain.last)
                    if (worth := other.value(model.root, model.prior, states)) > value + 1e-12:
                        chain, value, improved = other, worth, True
    return value, chain


def _first_reading(ladder: Ladder) -> int:
    """The position of a source's first reading on its ladder; -1 where it has none."""
    return next((at for at, rung in enumerate(ladder.rungs) if rung.reading is not None), -1)


def _bins(ladder: Ladder) -> int:
    """Bins of a source's first reading; 0 where it has none."""
    reading = _first_reading(ladder)
    return ladder.sizes[reading] - 1 if reading >= 0 else 0
