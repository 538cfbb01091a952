"""Rules on the pairs of a log's tiers: what each candidate costs and earns, and the policy of those that are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.automix.objectives import Envelope, Objective, price_of
from metaverify.fitting.automix.rules import Binned, Rule, kinds_of, pomdp_union
from metaverify.fitting.export import salt_of, tiers_of
from metaverify.fitting.ladders import Ladder, Rung
from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Node, Read, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.simulators.bins import balanced_cuts, nearest_edges
from metaverify.simulators.log import LogError, LoggedReading, LoggedTier, ReplayLog

__all__ = ["AutoMix", "Cuts", "Route", "verified"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Sets = NDArray[np.bool_]

Cuts = Literal["grid", "balanced"]
"""How confidence is binned: around equally spaced values, those of a share of votes; or in bins of equal shares."""

FIXED = 0.5  # the confidence in an answer below which it is one that always goes on


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A tier alone; or a cheap one whose answer is verified, and a dear one asked where its bin says so."""

    cost: float
    quality: float
    tiers: tuple[str, ...]  # one, or the cheap one and the dear one
    reads: tuple[Read, ...] = ()
    """Readings of the cheap answer, in order; a branch is KEEP, GO_ON, or NEXT: the next reading."""


KEEP, GO_ON, NEXT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class AutoMix:
    """AutoMix with a rule on bins of the cheap tier's confidence; of more than two tiers, on every pair.

    The answer is verified in any case, and that is paid for.  A reading that is missing is a bin of its own: every
    candidate is tried with it going on and with it staying, where the log has such; where it has none it goes on.
    Contexts are not told apart.

    A confidence is taken for the nearest of the values that bins stand around.  So does the package for its POMDPs; its
    thresholds compare the confidence itself, which is the same for votes.

    Args:
        rule: the sets of bins that are tried.
        objective: which of them are taken; `LargestIBC` is AutoMix's own.
        bins: of a reading; 9 are those of 8 votes.
        cuts: "grid", around the values 0, 1 / (bins - 1), .. 1, as AutoMix has it; or "balanced", at most so many of
            equal shares, for confidences that are no votes.
        reading: the verifier, by name; None is each tier's first reading.
        fixed: a further reading, below 0.5 where the answer is one of those that always go on (the package's
            FixedAnswerRouting); such an answer is not verified.  A tier that lacks it has no such answers.  It is a
            reading, not a context, because no answer is known before the call.
    """

    rule: Rule = field(default_factory=pomdp_union)
    objective: Objective = field(default_factory=Envelope)
    bins: int = 9
    cuts: Cuts = "grid"
    reading: str | None = None
    fixed: str | None = None

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ValueError(f"bins is {self.bins}; give at least 2")
        if self.cuts not in get_args(Cuts):
            raise ValueError(f"cuts is {self.cuts!r}; give one of {', '.join(get_args(Cuts))}")
        if self.fixed is not None and self.fixed == self.reading:
            raise ValueError(f"reading and fixed are both {self.fixed!r}; the one that is verified is another one")

    @property
    def abstain(self) -> None:
        """It always answers."""
        return None

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record."""
        options = {name: getattr(self, name) for name in ("bins", "cuts", "reading", "fixed")}
        return {
            "method": "automix",
            "options": {"rule": repr(self.rule), "objective": repr(self.objective), **options},
        }

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The candidates that the objective takes; all of it is there whatever ``near``.

        Raises:
            LogError: no tier has the reading that is named.
        """
        del near
        alone = [Route(log.mean(tier.cost), log.mean(tier.correct), (tier.name,)) for tier in log.tiers]
        pairs = combinations(log.tiers, 2)
        routed = [route for cheap, dear in pairs for route in self._pair(log, cheap, dear)]
        return _policy(log, self.objective.choose(alone, routed))

    def _pair(self, log: ReplayLog, cheap: LoggedTier, dear: LoggedTier) -> Iterator[Route]:
        """Every candidate for two tiers."""
        verifier, fixed = verified(log, cheap, self.reading, but=self.fixed), self._fixed(log, cheap)
        if verifier is None:
            return
        asked = np.ones(len(log), dtype=bool) if fixed is None else ~(fixed.confidence < FIXED)
        share = log.weights / log.weights.sum()
        rung = Rung(verifier.name, self._cuts(verifier, asked, log.weights))
        bins = rung.code(verifier.confidence[asked])

        def by_bin(column: Floats) -> Floats:
            return np.asarray(np.bincount(bins, (share * column)[asked], rung.size), dtype=np.float64)

        answer = cheap.correct if verifier.correct is None else _known(verifier.correct, cheap.correct)
        mass, spend, gain = by_bin(np.ones(len(log))), by_bin(dear.cost), by_bin(dear.correct - answer)
        kinds = np.stack([by_bin(kind) for kind in kinds_of(answer, dear.correct).T.astype(np.float64)], axis=1)
        edges = np.array([0.0, *rung.cuts, 1.0])
        seen = Binned((edges[1:] + edges[:-1]) / 2, mass[:-1], gain[:-1], kinds[:-1])
        sets = _with_missing(self.rule.sets(seen), bool(mass[-1] > 0.0))  # [candidates, outcomes]
        bought = cheap.cost + np.where(asked, verifier.paid, dear.cost) + (0.0 if fixed is None else fixed.paid)
        costs = float(share @ bought) + sets @ spend
        qualities = float(share @ np.where(asked, answer, dear.correct)) + sets @ gain
        first = () if fixed is None else (Read(cheap.name, fixed.name, (FIXED,), (GO_ON, NEXT), NEXT),)
        for cost, quality, goes_on in zip(costs.tolist(), qualities.tolist(), sets.tolist(), strict=True):
            yield Route(cost, quality, (cheap.name, dear.name), (*first, _read(cheap.name, rung, goes_on)))

    def _cuts(self, verifier: LoggedReading, asked: NDArray[np.bool_], weights: Floats) -> tuple[float, ...]:
        if self.cuts == "balanced":
            return balanced_cuts(verifier.confidence[asked], weights[asked], self.bins, verifier.edges)
        even = ((at + 0.5) / (self.bins - 1) for at in range(self.bins - 1))
        return tuple(even) if verifier.edges is None else nearest_edges(even, verifier.edges)

    def _fixed(self, log: ReplayLog, tier: LoggedTier) -> LoggedReading | None:
        return None if self.fixed is None else _reading_of(log, tier, self.fixed)


def verified(log: ReplayLog, tier: LoggedTier, name: str | None, *, but: str | None = None) -> LoggedReading | None:
    """The reading of that name, or the first ``but`` one, of a tier's answers; None where the tier has none.

    Raises:
        LogError: no tier has a reading of that name.
    """
    if name is not None:
        return _reading_of(log, tier, name)
    return next((reading for reading in tier.readings if reading.name != but), None)


def _reading_of(log: ReplayLog, tier: LoggedTier, name: str) -> LoggedReading | None:
    if not any(reading.name == name for each in log.tiers for reading in each.readings):
        known = sorted({reading.name for each in log.tiers for reading in each.readings})
        raise LogError("E_OPTION", f"no tier of the log has a reading {name!r}; they have {', '.join(known) or 'none'}")
    return next((reading for reading in tier.readings if reading.name == name), None)


def _known(column: Floats, otherwise: Floats) -> Floats:
    return np.where(np.isnan(column), otherwise, column)


def _with_missing(sets: Sets, seen: bool) -> Sets:
    """Every set with the missing reading going on; and where there are such, with it staying."""
    both = [np.pad(sets, ((0, 0), (0, 1)), constant_values=True)]
    if seen:
        both.append(np.pad(sets, ((0, 0), (0, 1)), constant_values=False))
    return np.concatenate(both)


def _read(tier: str, rung: Rung, goes_on: list[bool]) -> Read:
    """The reading whose outcomes [outcomes] go on or are kept, equal neighbouring bins being one interval."""
    assert rung.reading is not None, "a verifier is a reading"
    *bins, missing = (GO_ON if on else KEEP for on in goes_on)
    breaks = [b for b in range(1, len(bins)) if bins[b] != bins[b - 1]]
    cuts = tuple(rung.cuts[b - 1] for b in breaks)
    return Read(tier, rung.reading, cuts, (bins[0], *(bins[b] for b in breaks)), missing)


# --------------------------------------------------------------------------------------------------------- export


def _policy(log: ReplayLog, routes: Sequence[Route]) -> Policy:
    """The policy whose vertices are these, by cost."""
    nodes: list[Node] = []
    vertices = []
    for at, route in enumerate(routes):
        vertices.append(Vertex(price_of(routes, at), route.cost, route.quality, len(nodes)))
        nodes += _nodes(route, len(nodes))
    salt = salt_of(nodes, [vertex.root for vertex in vertices])
    return Policy(tiers_of(log, _ladders(log, routes)), tuple(nodes), tuple(vertices), OperatingPoint(0, 0, 0.0), salt)


def _nodes(route: Route, start: int) -> list[Node]:
    """A call and its readings, and what they can lead to."""
    after = start + 1 + len(route.reads)  # the first node after them
    if not route.reads:
        return [Ask(route.tiers[0], after), Stop(Accept(route.tiers[0]))]
    cheap, dear = route.tiers
    taken = {child for read in route.reads for child in (*read.then, read.missing)}
    keep: list[Node] = [Stop(Accept(cheap))] if KEEP in taken else []
    dearer = after + len(keep)
    go_on: list[Node] = [Ask(dear, dearer + 1), Stop(Accept(dear))] if GO_ON in taken else []
    reads: list[Node] = []
    for at, read in enumerate(route.reads, start=start + 1):
        place = {KEEP: after, GO_ON: dearer, NEXT: at + 1}
        then = tuple(place[child] for child in read.then)
        reads.append(Read(read.tier, read.reading, read.cuts, then, place[read.missing]))
    return [Ask(cheap, start + 1), *reads, *keep, *go_on]


def _ladders(log: ReplayLog, routes: Sequence[Route]) -> tuple[Ladder, ...]:
    """A ladder a tier, with the readings that the routes read and all their cuts."""
    cuts: dict[tuple[str, str], set[float]] = {}
    for read in (read for route in routes for read in route.reads):
        cuts.setdefault((read.tier, read.reading), set()).update(read.cuts)
    return tuple(
        Ladder(
            tier.name,
            (
                Rung(None),
                *(
                    Rung(r.name, tuple(sorted(cuts[tier.name, r.name])))
                    for r in tier.readings
                    if (tier.name, r.name) in cuts
                ),
            ),
        )
        for tier in log.tiers
    )
