"""The replay log: what every tier answered, how sure it looked, whether it was right, and what it cost."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.tiers import Points
from metaverify.simulators.bins import balanced_cuts

__all__ = [
    "FUSED",
    "Counted",
    "LogError",
    "LogWarning",
    "LoggedReading",
    "LoggedSignal",
    "LoggedTier",
    "ReplayLog",
    "fingerprint",
    "fingerprint_queries",
    "fuse",
    "in_order",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Texts = NDArray[Any]  # of str

FUSED = "fused"
"""The name of the reading that is made of a tier's others."""


class LogError(ValueError):
    """A log that cannot be used: a stable ``code``, and a ``message`` that names the place, the value and the way out.

    ``docs/logs.md`` lists the codes.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)  # both, so that worker processes can hand it on
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass(frozen=True, slots=True)
class LogWarning:
    """One thing to know before trusting a log: its kind, a sentence, and the tiers or readings that it is about."""

    slug: str
    text: str
    cases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class LoggedReading:
    """One verifier's readings of one tier's answers.

    ``confidence`` is in [0, 1] and NaN where the reading is missing; ``price`` is what buying it cost,
    in the log's unit, zero where it came with the answer.  Both have one entry a query.
    ``parts`` says how it was made of other readings of the same answer, if it was.

    Where ``votes`` is not 0 the confidence is the share of so many votes that were yes, and the price that of all of
    them; the votes are exchangeable, and can be bought one by one.

    A *sample* is a reading that changes the answer (one more draw and the majority of them, the question put in other
    words): ``correct`` is the quality of the tier's answer once it and the samples before it were bought; NaN, where
    the sample is missing, leaves the answer what it was.

    In a counted log a confidence stands for all of its bin.  ``edges`` are where the bins meet, and the only places
    where a cut means the same for every query.

    Raises:
        LogError: it is votes and a sample at once, or a quality is missing of an answer that is there.
    """

    name: str
    confidence: Floats  # [n]
    price: Floats  # [n]
    parts: tuple[Points, ...] = ()
    votes: int = 0
    correct: Floats | None = None  # [n]
    edges: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.votes and self.correct is not None:
            raise LogError(
                "E_OPTION", f"reading {self.name!r} is votes, and changes the answer as well; make two readings of it"
            )
        if self.correct is not None and (np.isnan(self.correct) & ~np.isnan(self.confidence)).any():
            raise LogError(
                "E_MISSING", f"sample {self.name!r} is there where the quality of its answer is not; fill that in"
            )

    def cuts(self, weights: Floats, bins: int) -> tuple[float, ...]:
        """At most ``bins - 1`` cuts that divide the queries as evenly as can be (see `balanced_cuts`)."""
        return balanced_cuts(self.confidence, weights, bins, self.edges)

    @property
    def free(self) -> bool:
        """Whether it comes with the answer: it costs nothing, and is no sample."""
        return self.correct is None and not self.price.any()

    @property
    def paid(self) -> Floats:
        """What buying the whole reading costs, [n]: of votes that are missing, the first, which failed."""
        return np.where(np.isnan(self.confidence), self.price / self.votes, self.price) if self.votes else self.price


@dataclass(frozen=True, slots=True, eq=False)
class LoggedTier:
    """One tier's columns: ``correct`` of its first answer in [0, 1], ``cost`` of that (>= 0), and its readings in the
    order in which they are bought.  A tier that is never read has no readings.  In traffic without labels ``correct``
    is NaN (see `read_traffic`)."""

    name: str
    correct: Floats  # [n]
    cost: Floats  # [n]
    readings: tuple[LoggedReading, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class LoggedSignal:
    """A source without an answer of its own: it can be read, once the answers of the tiers in ``needs`` are in hand.

    A judge needs the answers that it judges, an agreement the two that it compares; a signal that needs none can be
    read before any call.

    Raises:
        LogError: a reading is a sample.
    """

    name: str
    readings: tuple[LoggedReading, ...]
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for reading in self.readings:
            if reading.correct is not None:
                raise LogError(
                    "E_OPTION", f"reading {reading.name!r} of {self.name!r} is a sample, but a signal has no answer"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """What a log of cells counts: each row stands for all queries of one cell, and each group for a *batch*, a random
    part of the log's groups."""

    queries: Ints  # [n], of each cell
    batches: int
    dearest: Mapping[tuple[str, str | None], float] = field(default_factory=dict)
    """(tier, reading), None for an answer: the most that it cost, where that varies and as far as is known."""


@dataclass(frozen=True, eq=False)
class ReplayLog:
    """Logged queries, a column a quantity; tiers stand in order of mean cost, cheapest first, signals apart.

    ``group_ids`` names what is drawn together (a prompt asked many times); where the log has none, every query
    is its own group.  ``contexts`` holds what is known of a query before any call, or is None;
    ``context_names`` are the columns that it was joined from, and ``context_cuts`` says where those that are numbers
    were cut.
    ``weights`` counts how many queries a row stands for; how much it tells is another matter (see `evened`).
    ``notes`` are doubts about the file that it came from.
    ``counted`` is there where rows are cells of a counted log.
    """

    query_ids: Texts  # [n], distinct
    tiers: tuple[LoggedTier, ...]
    weights: Floats  # [n]
    group_ids: Texts  # [n]
    contexts: Texts | None = None  # [n]
    context_names: tuple[str, ...] = ()
    signals: tuple[LoggedSignal, ...] = ()
    context_cuts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    notes: tuple[LogWarning, ...] = ()
    counted: Counted | None = None

    def __len__(self) -> int:
        return len(self.query_ids)

    @property
    def ungrouped(self) -> bool:
        """Whether every query is a group of its own."""
        return self.group_ids is self.query_ids

    @property
    def queries(self) -> int:
        """How many queries were logged: rows, or what the cells of a counted log stand for."""
        return len(self) if self.counted is None else int(self.counted.queries.sum())

    @cached_property
    def groups(self) -> tuple[Texts, Ints]:
        """The groups' ids in their order, and the group of each query, [n]."""
        ids = sorted(set(self.group_ids.tolist()))
        place = {group: at for at, group in enumerate(ids)}
        member = np.fromiter(map(place.__getitem__, self.group_ids.tolist()), dtype=np.int64, count=len(self))
        return np.array(ids, dtype=object), member

    @property
    def group_count(self) -> int:
        """How many groups there are."""
        return len(self) if self.ungrouped else len(self.groups[0])

    @property
    def tier_names(self) -> tuple[str, ...]:
        """The tiers' names, by mean cost."""
        return tuple(tier.name for tier in self.tiers)

    @property
    def sources(self) -> tuple[LoggedTier | LoggedSignal, ...]:
        """Everything that can be read: the tiers, then the signals."""
        return (*self.tiers, *self.signals)

    def total(self, values: Floats) -> float:
        """The weighted sum of ``values`` [n], on one core and the same everywhere."""
        return float(np.einsum("i,i->", self.weights, values))

    def mean(self, values: Floats) -> float:
        """The weighted mean of ``values`` [n]."""
        return self.total(values) / float(self.weights.sum())

    def tier(self, name: str) -> LoggedTier:
        """The columns of one tier.

        Raises:
            LogError: the log has no such tier.
        """
        for tier in self.tiers:
            if tier.name == name:
                return tier
        raise LogError("E_OPTION", f"the log has no tier {name!r}; it has {', '.join(self.tier_names)}")

    def source(self, name: str) -> LoggedTier | LoggedSignal:
        """The columns of one tier or signal.

        Raises:
            LogError: the log has neither of this name.
        """
        for source in self.sources:
            if source.name == name:
                return source
        names = ", ".join(source.name for source in self.sources)
        raise LogError("E_OPTION", f"the log has no tier or signal {name!r}; it has {names}")

    def with_tiers(self, names: Sequence[str]) -> ReplayLog:
        """The same queries, with only these tiers (still in order of mean cost) and the signals that need no other.

        Raises:
            LogError: a name that the log does not have.
        """
        kept = {self.tier(name).name for name in names}
        return replace(
            self,
            tiers=tuple(tier for tier in self.tiers if tier.name in kept),
            signals=tuple(signal for signal in self.signals if kept.issuperset(signal.needs)),
        )

    def with_readings(self, names: Sequence[str]) -> ReplayLog:
        """The same queries, with only the readings of these names; a signal that is left with none is left out.

        Raises:
            LogError: the log has no reading of a name; or a sample is kept, and one before it is not, without which its
                answer was never seen.
        """
        known = sorted({reading.name for source in self.sources for reading in source.readings})
        for name in names:
            if name not in known:
                raise LogError("E_OPTION", f"the log has no reading {name!r}; it has {', '.join(known) or 'none'}")
        for tier in self.tiers:
            samples = [reading.name for reading in tier.readings if reading.correct is not None]
            for before, sample in pairwise(samples):
                if sample in names and before not in names:
                    raise LogError(
                        "E_OPTION",
                        f"sample {sample!r} of {tier.name!r} was drawn after {before!r}, and its answer is that of "
                        f"both; keep {before!r} too, or leave {sample!r} out",
                    )
        return self._reading(lambda _, reading: reading.name in names)

    def with_usual_readings(self) -> ReplayLog:
        """The same queries, with each source's first reading, those that have a price of their own, and the samples.

        A second reading that comes free with the first multiplies what can be known of a query and adds little.
        """
        return self._reading(lambda at, reading: at == 0 or not reading.free)

    def _reading(self, keep: Callable[[int, LoggedReading], bool]) -> ReplayLog:
        def kept(source: LoggedTier | LoggedSignal) -> tuple[LoggedReading, ...]:
            return tuple(reading for at, reading in enumerate(source.readings) if keep(at, reading))

        return replace(
            self,
            tiers=tuple(replace(tier, readings=kept(tier)) for tier in self.tiers),
            signals=tuple(replace(signal, readings=kept(signal)) for signal in self.signals if kept(signal)),
        )

    def evened(self) -> ReplayLog:
        """The log as what is learnt from it takes it: weights w that add up to as many equal rows as tell as much,
        (sum w)^2 / sum w^2 (Kish, "Survey sampling", 1965), so that a factor common to all of them changes nothing.

        A counted log is as it was: its weights count queries that were seen.
        """
        if self.counted is not None or (self.weights == 1.0).all():
            return self
        part = self.weights / self.weights.max()
        mantissa, exponent = np.frexp(part * (math.fsum(part) / math.fsum(part**2)))
        short = np.round(np.ldexp(mantissa, 40))  # so that the factor's rounding changes nothing either
        return replace(self, weights=np.ldexp(short, exponent - 40))

    def without_contexts(self) -> ReplayLog:
        """The same queries, their contexts not told."""
        return replace(self, contexts=None, context_names=(), context_cuts={})

    def fused(self, cards: Mapping[str, tuple[Points, ...]]) -> ReplayLog:
        """The same queries, where each tier named in ``cards`` has a reading ``fused`` last, made of its others; one of
        that name which it had is replaced."""
        return replace(self, tiers=tuple(_fuse_tier(t, cards[t.name]) if t.name in cards else t for t in self.tiers))

    def take(self, rows: Ints | NDArray[np.bool_]) -> ReplayLog:
        """The queries at ``rows`` (positions or a mask), in that order."""
        query_ids = self.query_ids[rows]
        return ReplayLog(
            query_ids=query_ids,
            tiers=tuple(_take_tier(tier, rows) for tier in self.tiers),
            weights=self.weights[rows],
            group_ids=query_ids if self.ungrouped else self.group_ids[rows],
            contexts=None if self.contexts is None else self.contexts[rows],
            context_names=self.context_names,
            signals=tuple(replace(signal, readings=_take_readings(signal, rows)) for signal in self.signals),
            context_cuts=self.context_cuts,
            notes=self.notes,
            counted=None if self.counted is None else replace(self.counted, queries=self.counted.queries[rows]),
        )

    def by_id(self) -> ReplayLog:
        """The same queries in the order of their ids: what a fit works on, so that row order cannot matter."""
        order = np.argsort(self.query_ids, kind="stable")
        return self if np.array_equal(order, np.arange(len(self))) else self.take(order)

    def split(self, share: float, *, seed: int = 0) -> tuple[ReplayLog, ReplayLog]:
        """Two logs, the first with about ``share`` of the groups; a group is never divided.

        Each group is placed by a keyed hash of its id, so neither row order nor other rows matter.
        """
        first = self.group_draws("split", seed) < share
        return self.take(first), self.take(~first)

    def folds(self, count: int, *, seed: int = 0) -> Ints:
        """The fold (0 .. count - 1) of each query, [n]: groups in the order of a keyed hash of their ids, dealt out in
        equal parts, so that no fold is empty while there are groups.

        Raises:
            LogError: there are fewer groups than folds.
        """
        ids, member = self.groups
        if len(ids) < count:
            raise LogError("E_FEW", f"the log has {len(ids)} groups, too few for {count} folds")
        rank = np.argsort(np.argsort(_draws(ids, "folds", seed), kind="stable"), kind="stable")
        return np.asarray((rank * count // len(ids))[member], dtype=np.int64)

    def group_draws(self, purpose: str, seed: int) -> Floats:
        """A uniform draw in [0, 1) for each query, [n], equal within a group: a keyed hash of the group's id.

        Draws for different purposes are independent of each other, so that the folds of a half, say, are all filled.
        """
        ids, member = self.groups
        return np.asarray(_draws(ids, purpose, seed)[member], dtype=np.float64)


def _draws(ids: Texts, purpose: str, seed: int) -> Floats:
    """A uniform draw in [0, 1) for each id."""
    key = hashlib.blake2b(f"metaverify {purpose} {seed}".encode()).digest()
    digests = b"".join(hashlib.blake2b(str(i).encode(), digest_size=8, key=key).digest() for i in ids)
    return (np.frombuffer(digests, dtype=">u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _fuse_tier(tier: LoggedTier, parts: tuple[Points, ...]) -> LoggedTier:
    fused = LoggedReading(FUSED, fuse(parts, tier), np.zeros(len(tier.cost)), parts)
    return replace(tier, readings=(*(r for r in tier.readings if r.name != FUSED), fused))


def fuse(parts: Sequence[Points], tier: LoggedTier) -> Floats:
    """The fused score of a tier's answers, [n]: the sum of its parts' points, in their order, 1 at most."""
    readings = {reading.name: reading.confidence for reading in tier.readings}
    score = np.zeros(len(tier.cost))
    for part in parts:
        confidence = readings[part.reading]
        place = np.searchsorted(np.asarray(part.cuts, dtype=np.float64), confidence, side="right")
        known = (confidence >= 0.0) & (confidence <= 1.0)
        score = score + np.where(known, np.asarray(part.points)[np.where(known, place, 0)], part.missing)
    return np.minimum(score, 1.0)


def _take_tier(tier: LoggedTier, rows: Ints | NDArray[np.bool_]) -> LoggedTier:
    return LoggedTier(
        name=tier.name,
        correct=tier.correct[rows],
        cost=tier.cost[rows],
        readings=_take_readings(tier, rows),
    )


def _take_readings(source: LoggedTier | LoggedSignal, rows: Ints | NDArray[np.bool_]) -> tuple[LoggedReading, ...]:
    return tuple(
        replace(
            reading,
            confidence=reading.confidence[rows],
            price=reading.price[rows],
            correct=None if reading.correct is None else reading.correct[rows],
        )
        for reading in source.readings
    )


def in_order(tiers: Sequence[LoggedTier], weights: Floats) -> tuple[LoggedTier, ...]:
    """Tiers as they stand in a log: by mean cost, of one cost the worse first, equals by name."""

    # exact sums, and of one price the worse first: neither rows nor columns decide by their order
    def total(values: Floats) -> float:  # had all been known
        known = ~np.isnan(values)
        return math.fsum((weights * values)[known]) * (float(weights.sum()) / max(float(weights[known].sum()), 1e-300))

    def place(tier: LoggedTier) -> tuple[float, float, str]:
        return total(tier.cost), total(tier.correct), tier.name

    return tuple(sorted(tiers, key=place))


def fingerprint(log: ReplayLog) -> str:
    """A hash of all that the log holds; the order of its rows does not matter."""
    rows = log.by_id()
    columns = [rows.weights]
    names = []
    for source in rows.sources:
        names.append(source.name)
        if isinstance(source, LoggedTier):
            columns += [source.correct, source.cost]
        else:
            names += ["needs", *source.needs]
        for reading in source.readings:
            names.append(reading.name)
            names += [f"{reading.votes} votes"] if reading.votes else []
            columns += [reading.confidence, reading.price]
            if reading.correct is not None:
                names.append("sample")
                columns.append(reading.correct)
    texts = [rows.query_ids, rows.group_ids, *([] if rows.contexts is None else [rows.contexts])]
    return _hash([names, *texts], columns)


def fingerprint_queries(log: ReplayLog) -> str:
    """A hash of which queries there are and how the tiers did on them, whatever else is known of them."""
    rows = log.by_id()
    columns = [column for tier in rows.tiers for column in (tier.correct, tier.cost)]
    return _hash([rows.tier_names, rows.query_ids], columns)


def _hash(texts: Sequence[Sequence[str] | Texts], columns: Sequence[Floats]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update("\0".join(map(str, text)).encode() + b"\1")
    for column in columns:
        digest.update((column + 0.0).astype("<f8").tobytes())
    return f"sha256:{digest.hexdigest()}"
