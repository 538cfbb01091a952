"""How much to explore, and where: what it takes to know a policy's value while another policy runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.exploration import Exploration, ExploredBin
from metaverify.policies.graph import Ask, Read, Stop, successors
from metaverify.policies.policy import Policy
from metaverify.simulators.bins import balanced_cuts
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.offpolicy import surpluses
from metaverify.simulators.replay import check_match
from metaverify.simulators.trace import answering, asked_tiers

__all__ = ["ExplorationPlan", "PlannedBin", "cheapest_rates", "plan_exploration"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEAST = 0.01
BINS = 8  # of a reading, beside the cuts of the new policy
ROWS = 10.0  # of what is usual, beside those of a bin, in how much an explored query of it tells


@dataclass(frozen=True, slots=True)
class PlannedBin:
    """Queries that one tier answers, its first reading in [low, high), and how many of them are to be explored.

    ``share`` is that of all queries, ``rate`` the part that is explored, ``explored`` how many that makes of the
    traffic, ``cost`` what it adds to the cost of a query in the mean over all, ``part`` its part of what stays
    uncertain because not all are explored.  Queries without that reading, or handed over, have no tier here.
    """

    tier: str | None
    reading: str | None
    low: float
    high: float
    share: float
    rate: float
    explored: float
    cost: float
    part: float

    @property
    def where(self) -> str:
        """The bin in words."""
        if self.tier is None:
            return "everywhere else"
        return (
            f"{self.tier} answers, {self.reading} in [{self.low:.4g}, {self.high:.4g}{']' if self.high == 1 else ')'}"
        )


@dataclass(frozen=True, slots=True)
class ExplorationPlan:
    """How much is to be explored in each bin, and at least anywhere, and what a query costs more for it in the mean,
    where a share ``labelled`` of answers is labelled; ``alike`` is what the same precision costs where all are explored
    at one rate."""

    precision: float
    traffic: int
    least: float
    labelled: float
    cost: float
    alike: float
    bins: tuple[PlannedBin, ...]

    def exploration(self, salt: str = "") -> Exploration:
        """What a router is to be given."""
        rate = next((of.rate for of in self.bins if of.tier is None), self.least)
        return Exploration(
            _short(rate),
            salt,
            tuple(
                ExploredBin(of.tier, of.reading, of.low, of.high, _short(of.rate), math.ceil(of.explored) or None)
                for of in self.bins
                if of.tier is not None and of.reading is not None
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def plan_exploration(
    new: Policy,
    old: Policy,
    log: ReplayLog,
    *,
    traffic: int,
    precision: float,
    least: float = LEAST,
    labelled: float = 1.0,
    bins: int = BINS,
) -> ExplorationPlan:
    """The cheapest exploration that tells the quality of ``new`` to a standard error of ``precision`` from ``traffic``
    queries that ``old`` routes.

    With s what a step earned more than was to be expected, the doubly robust estimate of n queries has the variance
    (A + Σ V_b / r_b) / n, where A sums s² over the steps that the old policy takes too, V_b over the others of the
    queries in bin b, r_b is the rate there; a query's exploration costs Σ C_b r_b in the mean.  A, V and C are found on
    a full log, such as the old policy was fitted on.  Where only a share of the answers is labelled, s² of whether an
    answer is right counts 1 over that share.

    Args:
        new: the policy whose value is to be known, at its operating point.
        old: the one that runs.
        log: a full log.
        traffic: how many queries will be routed.
        precision: the standard error that is wanted, in quality.
        least: the rate of every bin at least, so that nothing is never tried and other policies can be valued, too.
        labelled: the share of answers that will be labelled, of those that are explored as of all others.
        bins: the most bins of a tier's first reading, beside the cuts of the new policy.

    Raises:
        LogError: the log lacks what a policy uses.
        ValueError: a precision that so much traffic cannot have, were all of it explored.
    """
    for policy in (new, old):
        check_match(policy, log)
    if not (precision > 0.0 and traffic >= 1):
        raise ValueError(f"precision is {precision} and traffic is {traffic}; give more than 0")
    if not (0.0 <= least <= 1.0 and bins >= 1):
        raise ValueError(f"least is {least} and bins is {bins}; give a rate in [0, 1] and at least 1")
    if not 0.0 < labelled <= 1.0:
        raise ValueError(
            f"labelled is {labelled}; give the share of answers that will be labelled, above 0 and at most 1"
        )
    cells = _Cells.of(new, old, log, labelled, bins)
    lacking = float(cells.variance.sum())
    room = traffic * precision**2 - cells.common
    if lacking > room * (1 + 1e-12):
        needed = (cells.common + lacking) / precision**2
        raise ValueError(
            f"{traffic:,} queries cannot tell the quality to {precision:g}, were all of them explored"
            f"{f' and {labelled:.3g} of the answers labelled' if labelled < 1.0 else ''}; that takes {needed:,.0f}"
        )
    rate = cheapest_rates(cells.variance, cells.cost, room, least)
    alike = max(lacking / room, least) if lacking > 0.0 else least
    unsure = np.divide(cells.variance, rate, out=np.zeros(len(rate)), where=rate > 0.0)
    parts = unsure / unsure.sum() if lacking > 0.0 else unsure
    columns = zip(cells.places, cells.share, rate, traffic * cells.share * rate, cells.cost * rate, parts, strict=True)
    useful = (cells.cost > 0.0) | (cells.variance > 0.0)  # elsewhere every tier is called anyway
    every = [PlannedBin(*place, *map(float, told)) for place, *told in itertools.compress(columns, useful)]
    alike = max(lacking / room, least) if lacking > 0.0 else least
    cost = float(cells.cost @ rate)
    return ExplorationPlan(
        precision, traffic, least, labelled, cost, alike * float(cells.cost.sum()), tuple(_joined(every))
    )


def _joined(bins: list[PlannedBin]) -> Iterator[PlannedBin]:
    """The bins, neighbours that are explored alike as one."""
    for _, group in itertools.groupby(bins, lambda of: (of.tier, of.rate)):
        first, *others = group
        for of in others:
            sums = {name: getattr(first, name) + getattr(of, name) for name in ("share", "explored", "cost", "part")}
            first = replace(first, high=of.high, **sums)
        yield first


def _short(rate: float) -> float:
    """To six significant digits."""
    return float(f"{rate:.6g}")


def cheapest_rates(variance: Floats, cost: Floats, room: float, least: float) -> Floats:
    """The rates r, [b], in [least, 1] of least cost Σ C r with Σ V / r <= room.

    They are t · sqrt(V / C), clipped, with the one t at which the bound is reached (Neyman's allocation with costs); it
    is found exactly, between the values of t at which another rate is clipped.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = np.where(variance > 0.0, np.sqrt(variance / cost), 0.0)  # infinite where exploring costs nothing

    def clipped(t: float) -> Floats:
        return np.clip(np.where(np.isinf(shape), 1.0, t * np.where(np.isinf(shape), 0.0, shape)), least, 1.0)

    def uncertain(rate: Floats) -> float:
        return float(np.divide(variance, rate, out=np.full(len(rate), np.inf), where=rate > 0.0)[variance > 0.0].sum())

    turns = shape[(shape > 0.0) & np.isfinite(shape)]
    knots = np.unique(np.concatenate([[0.0], least / turns, 1.0 / turns]))
    at = next((at for at, t in enumerate(knots) if uncertain(clipped(float(t))) <= room), len(knots) - 1)
    if at == 0:
        return clipped(0.0)
    low, high = clipped(float(knots[at - 1])), clipped(float(knots[at]))
    moving = ~np.isclose(low, high, rtol=1e-9, atol=0.0)
    left = room - uncertain(np.where(moving, np.inf, high))
    if not left > 0.0:
        return high
    t = float((variance[moving] / shape[moving]).sum()) / left
    return clipped(min(t, float(knots[at])))


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """What exploring tells and costs in each bin, a query in the mean over all."""

    places: tuple[tuple[str | None, str | None, float, float], ...]
    share: Floats  # [b]
    variance: Floats  # [b]
    cost: Floats  # [b], were all of it explored
    common: float

    @classmethod
    def of(cls, new: Policy, old: Policy, log: ReplayLog, labelled: float, bins: int) -> _Cells:
        places, member = _places(new, log, bins)  # [tiers, n]; the last place is anywhere else
        share, variance, cost, gone = (np.zeros(len(places)) for _ in range(4))
        common, total = 0.0, float(log.weights.sum())
        steps = [(own, surpluses(new, log, vertex)) for vertex, own in _arms(new)]
        for vertex, part in _arms(old):
            called = asked_tiers(old, log, vertex)
            place = np.where(
                (answered := answering(old, log, vertex)) < 0, len(places) - 1, member[answered, np.arange(len(log))]
            )
            weight = part * log.weights / total
            dear = sum(np.where(called[tier.name], 0.0, tier.cost) for tier in log.tiers)
            share += _by(place, weight, len(places))
            cost += _by(place, weight * dear, len(places))
            for own, walked in steps:
                inside = np.ones(len(log), dtype=bool)
                for step, surplus, _ in walked:
                    node = new.nodes[step.node]
                    if isinstance(node, Ask):
                        inside[step.rows] &= called[node.tier][step.rows]
                    told = own * weight[step.rows] * surplus**2 / (labelled if isinstance(node, Stop) else 1.0)
                    there = inside[step.rows]
                    common += float(told[there].sum())
                    variance += _by(place[step.rows][~there], told[~there], len(places))
                gone += _by(place[~inside], own * weight[~inside], len(places))
        usual = variance.sum() / gone.sum() if gone.sum() > 0.0 else 0.0
        row = 1.0 / len(log)
        smooth = gone * (variance + ROWS * row * usual) / (gone + ROWS * row)
        return cls(places, share, smooth, cost, common)


def _arms(policy: Policy) -> Iterator[tuple[int, float]]:
    point = policy.point
    for vertex, share in ((point.low, 1.0 - point.share), (point.high, point.share)):
        if share > 0.0:
            yield vertex, share


def _places(
    new: Policy, log: ReplayLog, bins: int
) -> tuple[tuple[tuple[str | None, str | None, float, float], ...], Ints]:
    """The bins of each tier's first reading, and anywhere else; and which one each query is in if that tier answers it,
    [tiers, n]."""
    places: list[tuple[str | None, str | None, float, float]] = []
    member = np.full((len(log.tiers), len(log)), -1)
    for at, tier in enumerate(log.tiers):
        if not tier.readings:
            continue
        first = tier.readings[0]
        own = {cut for vertex, _ in _arms(new) for cut in _cuts(new, vertex, tier.name, first.name)}
        known = np.sort(first.confidence[~np.isnan(first.confidence)])
        cuts = np.array(sorted({*balanced_cuts(first.confidence, log.weights, bins), *own} - {0.0, 1.0}))
        below = np.searchsorted(known, cuts).tolist()  # of cuts with nothing between them the last one is enough
        cuts = np.array([cut for count, cut in dict(zip(below, cuts, strict=True)).items() if 0 < count < len(known)])
        member[at] = np.where(
            np.isnan(first.confidence), -1, len(places) + np.searchsorted(cuts, first.confidence, side="right")
        )
        places += [(tier.name, first.name, low, high) for low, high in itertools.pairwise((0.0, *cuts.tolist(), 1.0))]
    places.append((None, None, 0.0, 1.0))
    return tuple(places), np.where(member < 0, len(places) - 1, member)


def _cuts(policy: Policy, vertex: int, tier: str, reading: str) -> Iterator[float]:
    """The cuts of a reading in the graph at one vertex."""
    root = policy.vertices[vertex]
    waiting, met = [root.root, *root.context_roots.values()], set[int]()
    while waiting:
        at = waiting.pop()
        if at in met:
            continue
        met.add(at)
        node = policy.nodes[at]
        if isinstance(node, Read) and (node.tier, node.reading) == (tier, reading):
            yield from node.cuts
        waiting += successors(node)


def _by(place: Ints, values: Floats, count: int) -> Floats:
    return np.asarray(np.bincount(place, weights=values, minlength=count), dtype=np.float64)
