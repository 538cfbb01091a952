"""Partial logs: what is known of queries for which only some tiers were called, and how likely that was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from metaverify.simulators.bins import balanced_cuts
from metaverify.simulators.log import LogError, ReplayLog

__all__ = ["PartialLog", "Sighting", "complete", "whole"]

STRATA = 8  # of the first reading

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """For which queries something was seen, and how likely that was.

    ``chance`` is the probability that it was seen, given everything that there is to see of the query; 0 where it
    never is, NaN where it was not seen and the chance is not known.

    Raises:
        LogError: a chance is outside [0, 1], or not above 0 where it was seen.
    """

    seen: Bools  # [n]
    chance: Floats  # [n]

    def __post_init__(self) -> None:
        if ((self.chance < 0.0) | (self.chance > 1.0)).any():
            raise LogError("E_RANGE", "a propensity is outside [0, 1]; give probabilities")
        if not (self.chance[self.seen] > 0.0).all():
            at = int(np.flatnonzero(self.seen & ~(self.chance > 0.0))[0])
            raise LogError("E_MISSING", f"query {at + 1} shows what had no chance to be seen; correct its propensity")

    def take(self, rows: Ints | Bools) -> Sighting:
        """Those of the queries at ``rows``."""
        return Sighting(self.seen[rows], self.chance[rows])


@dataclass(frozen=True, slots=True, eq=False)
class PartialLog:
    """A log in which a tier was called for some queries only; what was not seen is NaN in ``log``.

    The chance of an answer, or of a reading that was bought, is that of it and of all that was bought before it: only
    whether to go on is drawn, where to go on follows from what was read.  So all answers on a way were seen with the
    smallest of their chances.  A reading that comes with its answer needs no sighting of its own.
    The chance of a label is that of knowing the quality, given that the answer is there.
    """

    log: ReplayLog
    answers: Mapping[str, Sighting]  # a tier
    labels: Mapping[str, Sighting]  # a tier
    readings: Mapping[tuple[str, str], Sighting] = field(default_factory=dict)  # (source, reading): those with a price

    def __len__(self) -> int:
        return len(self.log)

    def take(self, rows: Ints | Bools) -> PartialLog:
        """The queries at ``rows`` (positions or a mask), in that order."""
        return PartialLog(
            self.log.take(rows),
            {name: sighting.take(rows) for name, sighting in self.answers.items()},
            {name: sighting.take(rows) for name, sighting in self.labels.items()},
            {name: sighting.take(rows) for name, sighting in self.readings.items()},
        )

    @property
    def everything(self) -> Sighting:
        """Of all that the log could show of a query."""
        seen = np.ones(len(self), dtype=bool)
        chance = np.ones(len(self))
        for sighting in (*self.answers.values(), *self.readings.values()):
            seen &= sighting.seen
            chance = np.minimum(chance, sighting.chance)
        for sighting in self.labels.values():
            seen &= sighting.seen
            chance = chance * sighting.chance
        return Sighting(seen, chance)


def whole(log: ReplayLog) -> PartialLog:
    """A log in which everything was seen."""
    always = Sighting(np.ones(len(log), dtype=bool), np.ones(len(log)))
    return PartialLog(log, dict.fromkeys(log.tier_names, always), dict.fromkeys(log.tier_names, always))


def complete(partial: PartialLog) -> ReplayLog:
    """The queries of which everything was seen, each weighted for those that it stands for (1 over its chance).

    Weights are evened out so that the queries of each bin of the first tier's first reading, which is known of all of
    them, weigh what they do in the whole log; their sum is the number of equally likely queries that tell as much.

    Raises:
        LogError: of no query everything was seen, or of none with a reading that others have.
    """
    everything = partial.everything
    rows = np.flatnonzero(everything.seen)
    if not len(rows):
        raise LogError(
            "E_FEW",
            "no query shows all tiers and labels; explore some (a router's `exploration`) and label what they show",
        )
    log = partial.log.take(rows)
    weight = log.weights / everything.chance[rows]
    place = _strata(partial)
    whole_weight = np.bincount(place, weights=partial.log.weights)
    own = np.bincount(place[rows], weights=weight, minlength=len(whole_weight))
    weight = weight * (whole_weight / np.where(own > 0.0, own, 1.0))[place[rows]]
    effective = weight.sum() ** 2 / (weight**2).sum()
    return replace(log, weights=weight * effective / weight.sum())


def _strata(partial: PartialLog) -> Ints:
    """The bin of the first tier's first reading, [n]; one for all where it has none, or was not always called."""
    first = partial.log.tiers[0]
    if not first.readings or not partial.answers[first.name].seen.all():
        return np.zeros(len(partial), dtype=np.int64)
    confidence = first.readings[0].confidence
    cuts = balanced_cuts(confidence, partial.log.weights, STRATA)
    return np.where(np.isnan(confidence), len(cuts) + 1, np.searchsorted(cuts, confidence, side="right"))
