"""What a policy earned on a log: quality and cost with intervals, who answered, and the gain over reading nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.policy import Policy
from metaverify.policies.tiers import Tier
from metaverify.simulators.counts import Counts, rows_of
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.references import Hull, no_information_hull
from metaverify.simulators.replay import Routes, check_match, route

__all__ = ["Estimate", "Ledger", "Outcome", "gain_values", "ledger_of", "mean_with_interval", "measure", "replay"]

Floats = NDArray[np.float64]
K = TypeVar("K", str, tuple[str, str])

LEVEL = 0.9  # of every interval


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 90 % interval, by groups."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy earned on n queries.

    Shares are of queries and by name: those called and accepted of tiers, those read of signals too.  ``gain`` is
    quality above the no-information hull of the same queries at the same cost, ``hull`` the quality of that hull.
    """

    n: int
    groups: int
    quality: Estimate
    cost: Estimate
    hull: float
    gain: Estimate
    calls: Mapping[str, float]
    reads: Mapping[str, Mapping[str, float]]
    accepts: Mapping[str, float]
    abstained: float

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """What n queries are expected to earn and to spend; mixtures and unions of policies add up.

    Weights of queries are by name: a tier, or a tier and a reading.
    """

    quality: Floats  # [n]
    cost: Floats  # [n]
    calls: Mapping[str, float]
    reads: Mapping[tuple[str, str], float]
    accepts: Mapping[str, float]


def ledger_of(tiers: Sequence[Tier], parts: Sequence[tuple[float, Routes]]) -> Ledger:
    """The ledger of routes through these tiers over the same queries, each followed by a share of requests; shares
    sum to 1."""
    taken = [(share, routes) for share, routes in parts if share > 0.0]

    def mix(values: list[Sequence[float] | Floats]) -> Floats:
        return np.asarray(sum(share * np.asarray(v) for (share, _), v in zip(taken, values, strict=True)))

    names = [tier.name for tier in tiers]
    reads = [mix([routes.reads[at] for _, routes in taken]).tolist() for at in range(len(tiers))]
    return Ledger(
        mix([routes.quality for _, routes in taken]),
        mix([routes.cost for _, routes in taken]),
        dict(zip(names, mix([routes.calls for _, routes in taken]).tolist(), strict=True)),
        {
            (tier.name, reading.name): weight
            for tier, weights in zip(tiers, reads, strict=True)
            for reading, weight in zip(tier.readings, weights, strict=True)
        },
        dict(zip(names, mix([routes.accepts for _, routes in taken]).tolist(), strict=True)),
    )


def join_ledgers(ledgers: Sequence[Ledger]) -> Ledger:
    """The ledger of all the queries, one ledger's after another's."""
    return Ledger(
        np.concatenate([ledger.quality for ledger in ledgers]),
        np.concatenate([ledger.cost for ledger in ledgers]),
        _sum([ledger.calls for ledger in ledgers]),
        _sum([ledger.reads for ledger in ledgers]),
        _sum([ledger.accepts for ledger in ledgers]),
    )


def _sum(tables: Sequence[Mapping[K, float]]) -> dict[K, float]:
    names = {name for table in tables for name in table}
    return {name: sum(table.get(name, 0.0) for table in tables) for name in sorted(names)}


def replay(policy: Policy, log: ReplayLog | Counts) -> Outcome:
    """What the policy would have earned on a log or its counts, in expectation over the draw between its two graphs.

    Raises:
        LogError: the log lacks a tier, a reading or the context that the policy uses.
    """
    log = rows_of(log)
    check_match(policy, log)
    point = policy.point
    low = route(policy, log, point.low)
    high = low if point.share == 0.0 else route(policy, log, point.high)
    return measure(policy, log, ledger_of(policy.tiers, [(1.0 - point.share, low), (point.share, high)]))


def measure(policy: Policy, log: ReplayLog, ledger: Ledger, *, abstain: float | None = None) -> Outcome:
    """The outcome that a ledger over the log's queries amounts to.

    ``abstain`` is what handing over is worth to the hull; as the policy has it where not given.
    """
    total = float(log.weights.sum())
    names = [tier.name for tier in log.tiers if tier.name in ledger.calls]
    read = {name for name, _ in ledger.reads}
    worth = policy.abstain if abstain is None else abstain
    hull = no_information_hull(log, abstain=worth)
    cost = mean_with_interval(ledger.cost, log)
    return Outcome(
        n=log.queries,
        groups=log.group_count,
        quality=mean_with_interval(ledger.quality, log),
        cost=cost,
        hull=hull.quality(cost.mean),
        gain=mean_with_interval(gain_values(hull, ledger.quality, ledger.cost, log, worth), log),
        calls={name: ledger.calls[name] / total for name in names},
        reads={
            name: {reading: weight / total for (tier, reading), weight in ledger.reads.items() if tier == name}
            for name in [*names, *(signal.name for signal in log.signals if signal.name in read)]
        },
        accepts={name: ledger.accepts[name] / total for name in names},
        abstained=_handed_over(ledger, total) if policy.abstain is not None else 0.0,
    )


def _handed_over(ledger: Ledger, total: float) -> float:
    """The share of queries that no tier answered; what is left by rounding is nothing."""
    share = 1.0 - sum(ledger.accepts.values()) / total
    return share if share > 1e-12 else 0.0


def gain_values(hull: Hull, quality: Floats, cost: Floats, log: ReplayLog, abstain: float | None = None) -> Floats:
    """What each query adds to the gain over the hull at equal mean cost, [n]; their mean is the gain.

    Quality above the hull's mixture of two fixed tiers on the same query, less what its cost differs by at the
    hull's slope, which is nothing in the mean (the influence function of the gain).
    """
    low, high, share = hull.between(log.mean(cost))
    ends = [_columns(log, point.tier, abstain) for point in (low, high)]
    reference = (1 - share) * ends[0][0] + share * ends[1][0]
    reference_cost = (1 - share) * ends[0][1] + share * ends[1][1]
    slope = (high.quality - low.quality) / (high.cost - low.cost) if high.cost > low.cost else 0.0
    return np.asarray(quality - reference - slope * (cost - reference_cost))


def mean_with_interval(values: Floats, log: ReplayLog, *, level: float = LEVEL) -> Estimate:
    """The weighted mean of ``values`` [n] and its interval, robust to dependence within groups.

    Sums of residuals by group stand in for independent draws (Liang & Zeger 1986), with Student's quantile at
    groups - 1 degrees of freedom.
    """
    mean = log.mean(values)
    residual = log.weights * (values - mean) / log.weights.sum()
    if not log.ungrouped:
        residual = np.bincount(log.groups[1], weights=residual)
    count = len(residual)
    if count < 2:
        return Estimate(mean, -math.inf, math.inf)
    half = student_quantile(0.5 + level / 2, count - 1) * math.sqrt(count / (count - 1) * float((residual**2).sum()))
    return Estimate(mean, mean - half, mean + half)


def student_quantile(probability: float, freedom: float) -> float:
    """Student's quantile by the Cornish-Fisher expansion (Abramowitz & Stegun 26.7.5); within 1 % from 5 degrees on."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def _columns(log: ReplayLog, tier: str | None, abstain: float | None) -> tuple[Floats, Floats]:
    if tier is None:
        return np.full(len(log), abstain or 0.0), np.zeros(len(log))
    column = log.tier(tier)
    return column.correct, column.cost
