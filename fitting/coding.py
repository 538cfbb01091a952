"""A log in the language of ladders: every reading as the outcome of a rung."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.ladders import Ladder, Place, Rung, in_hand, leaf_shape, vote_rung
from metaverify.simulators.log import LoggedReading, LoggedSignal, LoggedTier, ReplayLog
from metaverify.simulators.partial import PartialLog

__all__ = ["UNKNOWN", "CodedLog", "code_log", "code_partial", "ladders_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


UNKNOWN = -1
"""The outcome of a rung that was not climbed, in a partial log."""


@dataclass(frozen=True, slots=True, eq=False)
class CodedLog:
    """What an estimator sees of n queries."""

    ladders: tuple[Ladder, ...]
    codes: tuple[Ints, ...]  # a rung of a ladder, in order: [n], its outcome; UNKNOWN where it was not climbed
    quality: tuple[Floats | None, ...]  # a source: [n], the quality of its first answer
    price: tuple[tuple[Floats, ...], ...]  # a source, a rung: [n]
    weights: Floats  # [n]
    context: Ints  # [n], position in `contexts`; -1 for one that is not among them
    contexts: tuple[str, ...] = ()
    later: Mapping[Place, Floats] = field(default_factory=dict)  # a rung that is a sample: [n], the answer's quality

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def answers(self) -> dict[Place, Floats]:
        """The quality [n] of every answer, by the rung that it comes with."""
        return {(source, 0): q for source, q in enumerate(self.quality) if q is not None} | dict(self.later)

    def answer(self, source: int, depth: int) -> Floats:
        """The quality [n] of a source's answer after ``depth`` steps."""
        answers = self.answers
        return answers[in_hand(answers, source, depth)]

    def take(self, rows: Ints | NDArray[np.bool_]) -> CodedLog:
        """The queries at ``rows``, positions or a mask."""
        return replace(
            self,
            codes=tuple(code[rows] for code in self.codes),
            quality=tuple(None if q is None else q[rows] for q in self.quality),
            price=tuple(tuple(p[rows] for p in rungs) for rungs in self.price),
            weights=self.weights[rows],
            context=self.context[rows],
            later={place: q[rows] for place, q in self.later.items()},
        )

    def cells(self) -> Ints:
        """The leaf of each query, [n]: its position in a C-order array over the rungs' outcomes."""
        if not self.codes:
            return np.zeros(len(self), dtype=np.int64)
        return np.ravel_multi_index(self.codes, leaf_shape(self.ladders)).astype(np.int64)

    def leaves(self) -> int:
        """How many leaves there are."""
        return math.prod(leaf_shape(self.ladders))


Cutter = Callable[[LoggedReading, Floats, int], tuple[float, ...]]
"""From a reading, weights [n] and the most bins to cuts."""


def ladders_of(
    log: ReplayLog, bins: int | Mapping[tuple[str, str], int], *, cut: Cutter = LoggedReading.cuts
) -> tuple[Ladder, ...]:
    """A ladder a tier: the call together with the reading that comes free with it, then the other readings in order.
    After them a ladder a signal: its readings in order.

    Votes that cost something are asked one by one, where there are several; of a source that has more than one such
    reading, those that cost most.  They stand last.

    Args:
        log: cuts are the balanced quantiles of its confidences.
        bins: the most bins of a reading; or (tier, reading) -> the most, a reading that is not named being left out
            and votes with fewer bins than outcomes being asked all at once.
        cut: places the cuts.
    """
    signals = (Ladder(s.name, _rungs(log, s, bins, cut), answer=False, needs=s.needs) for s in log.signals)
    return (*(_ladder(log, tier, bins, cut) for tier in log.tiers), *(ladder for ladder in signals if ladder.rungs))


def _ladder(log: ReplayLog, tier: LoggedTier, bins: int | Mapping[tuple[str, str], int], cut: Cutter) -> Ladder:
    bare = () if tier.readings and tier.readings[0].free else (Rung(None),)
    return Ladder(tier.name, (*bare, *_rungs(log, tier, bins, cut)) or (Rung(None),))


def _rungs(
    log: ReplayLog, source: LoggedTier | LoggedSignal, bins: int | Mapping[tuple[str, str], int], cut: Cutter
) -> tuple[Rung, ...]:
    rungs, last = [], []
    polled = max((r for r in source.readings if r.votes > 1), key=lambda r: log.total(r.price), default=None)
    for reading in source.readings:
        most = bins if isinstance(bins, int) else bins.get((source.name, reading.name), 0)
        finest = isinstance(bins, int) or most > reading.votes
        if most > 0 and reading is polled and finest and reading.price.any():
            last.append(vote_rung(reading.name, reading.votes))
        elif most > 0:
            rungs.append(Rung(reading.name, cut(reading, log.weights, most)))
    return (*rungs, *last)


def code_log(log: ReplayLog, ladders: Sequence[Ladder], contexts: Sequence[str] = ()) -> CodedLog:
    """The log as outcomes of these ladders' rungs; the call of a tier has its price, every other rung its reading's."""
    codes: list[Ints] = []
    prices: list[tuple[Floats, ...]] = []
    quality: list[Floats | None] = []
    later: dict[Place, Floats] = {}
    for at, ladder in enumerate(ladders):
        source = log.source(ladder.source)
        readings = {reading.name: reading for reading in source.readings}
        read = [None if rung.reading is None else readings[rung.reading] for rung in ladder.rungs]
        nothing = np.zeros(len(log))
        codes += [
            rung.code(nothing if reading is None else reading.confidence)
            for rung, reading in zip(ladder.rungs, read, strict=True)
        ]
        paid = [
            nothing if reading is None else reading.price if rung.votes else reading.paid
            for rung, reading in zip(ladder.rungs, read, strict=True)
        ]
        prices.append((source.cost, *paid[1:]) if isinstance(source, LoggedTier) else tuple(paid))
        answer = source.correct if isinstance(source, LoggedTier) else None
        quality.append(answer)
        for depth, reading in enumerate(read):
            if answer is not None and reading is not None and reading.correct is not None:
                answer = later[at, depth] = np.where(np.isnan(reading.correct), answer, reading.correct)
    place = {label: at for at, label in enumerate(contexts)}
    labels = [-1] * len(log) if log.contexts is None else [place.get(label, -1) for label in log.contexts]
    return CodedLog(
        tuple(ladders),
        tuple(codes),
        tuple(quality),
        tuple(prices),
        log.weights,
        np.asarray(labels, dtype=np.int64),
        tuple(contexts),
        later,
    )


def code_partial(partial: PartialLog, ladders: Sequence[Ladder], contexts: Sequence[str] = ()) -> CodedLog:
    """A partial log as outcomes of these ladders' rungs, `UNKNOWN` where one was not climbed, at a price of NaN."""
    coded = code_log(partial.log, ladders, contexts)
    climbed = [_climbed(partial, ladder.source, rung, len(coded)) for ladder in ladders for rung in ladder.rungs]
    codes = tuple(np.where(seen, code, UNKNOWN) for seen, code in zip(climbed, coded.codes, strict=True))
    rest = iter(climbed)
    price = tuple(tuple(np.where(next(rest), p, np.nan) for p in rungs) for rungs in coded.price)
    return replace(coded, codes=codes, price=price)


def _climbed(partial: PartialLog, source: str, rung: Rung, n: int) -> NDArray[np.bool_]:
    """Whether a rung was climbed, [n]."""
    bought = partial.readings.get((source, rung.reading or ""))
    if bought is not None:
        return bought.seen
    answer = partial.answers.get(source)
    if answer is not None:
        return answer.seen
    seen = np.ones(n, dtype=bool)
    for need in next(signal.needs for signal in partial.log.signals if signal.name == source):
        seen &= partial.answers[need].seen
    return seen
