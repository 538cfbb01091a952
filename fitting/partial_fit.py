"""Fit on a partial log: a policy from what an older one has left to be seen, as far as that goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from metaverify.fitting.coding import code_log, code_partial, ladders_of
from metaverify.fitting.context import contextual_table
from metaverify.fitting.crossfit import CrossFit, FoldRun, calibrate
from metaverify.fitting.finish import origin, rounded
from metaverify.fitting.ladders import Ladder
from metaverify.fitting.learner import Study, TableLearner, bins_that_fit
from metaverify.fitting.models.average import Average
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.models.latent import LatentClasses
from metaverify.fitting.models.latent_errors import TierQuality, tier_qualities
from metaverify.fitting.models.zoo import name_of
from metaverify.fitting.subsets import Subset
from metaverify.fitting.table import JointTable, average
from metaverify.policies.actions import Accept
from metaverify.policies.file import policy_id
from metaverify.policies.graph import Ask, Stop
from metaverify.policies.policy import BudgetError, OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Tier
from metaverify.simulators.bins import balanced_cuts
from metaverify.simulators.log import LogError, fingerprint
from metaverify.simulators.offpolicy import Finding, appraise, robust_values, untried
from metaverify.simulators.outcome import Estimate, mean_with_interval
from metaverify.simulators.partial import PartialLog, complete
from metaverify.simulators.replay import Routes
from metaverify.simulators.walks import Step

__all__ = ["Gap", "PartialFit", "Reference", "fit_partial", "gaps"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 8
DEFAULT = LatentClasses(starts=10)  # with fewer, one kind of query is taken for another in one log of twenty
CERTAIN = 1e-9


@dataclass(frozen=True, slots=True)
class Gap:
    """A tier that was never called where a reading of one before it is in [low, high); ``share`` of all queries."""

    tier: str
    before: str
    low: float
    high: float
    share: float

    def __str__(self) -> str:
        where = f"the first reading of {self.before} is in [{self.low:.3g}, {self.high:.3g})"
        where = f"{self.before} says nothing" if np.isnan(self.low) else where
        return f"{self.tier} where {where} ({self.share:.1%} of queries)"


@dataclass(frozen=True, slots=True)
class Reference:
    """A tier, always called: what it costs and earns, doubly robust, the mean None where that is not identified; and
    what the classes say of its quality, None where they are not used or where it was never called in places."""

    name: str
    cost: Finding
    quality: Finding
    classes: TierQuality | None = None


@dataclass(frozen=True, slots=True)
class PartialFit:
    """A policy and what it is to earn, cross-fitted and doubly robust; and where the log has never been."""

    policy: Policy
    n: int
    groups: int
    quality: Estimate
    cost: Estimate
    references: tuple[Reference, ...]
    gaps: tuple[Gap, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "policy": policy_id(self.policy),
            "operating_point": asdict(self.policy.point),
            "n": self.n,
            "groups": self.groups,
            "estimator": "doubly robust",
            "quality": asdict(self.quality),
            "cost": asdict(self.cost),
            "references": [asdict(reference) for reference in self.references],
            "gaps": [asdict(gap) for gap in self.gaps],
            "notes": list(self.notes),
        }


def fit_partial(
    partial: PartialLog,
    *,
    budget: float | None = None,
    price: float | None = None,
    model: TableModel | None = None,
    within_support: bool = False,
    bins: int = BINS,
    folds: int = 5,
    seed: int = 0,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> PartialFit:
    """Learn a policy that spends ``budget`` per query on average, or that pays ``price`` of quality per unit cost.

    Latent classes learn from all queries by expectation maximisation; any other model from those of which everything
    was seen, weighted for what they stand for.  The dial is set, and what is reported is estimated, by doubly robust
    values of queries that a policy was not learnt from.

    Args:
        partial: what to learn from.
        budget: mean cost per query, in the log's unit.
        price: quality per unit of cost, instead of a budget.
        model: of the table; latent classes from ten random starts where none is given.
        within_support: whether to learn although some tiers were never called in some bins; they are not called there.
        bins: the most bins of a reading.
        folds: of the cross-fitting, at most as many as there are groups.
        seed: of the folds.
        progress: told what is being done, and the share of the whole that is done.

    Raises:
        BudgetError: the budget is below the cost of the cheapest policy.
        LogError: a tier was never called in some bin, and ``within_support`` is not set; or of no query everything is
            known.
        TypeError: neither or both of budget and price are given.
    """
    if (budget is None) == (price is None):
        raise TypeError("give a budget or a price")
    found = gaps(partial, bins)
    if found and not within_support:
        places = "; ".join(map(str, found[:3])) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
        raise LogError(
            "E_SUPPORT",
            f"never called: {places}. What that would earn cannot be known from this log: let a router explore, or "
            "stay where it has been with --within-support",
        )
    order = np.argsort(partial.log.query_ids, kind="stable")
    partial = partial.take(order)
    mark, partial = fingerprint(partial.log), replace(partial, log=partial.log.evened())
    learner = TableLearner(model or DEFAULT, bins=bins)
    folds = min(folds, partial.log.group_count)
    member = partial.log.folds(folds, seed=seed)
    with threadpool_limits(1):
        runs = []
        for fold in range(folds):
            policy = _learn(learner, partial.take(member != fold), None)
            runs.append(_rehearsed(policy, partial, member, fold))
            progress("what to expect", (fold + 1) / (folds + 1))
        crossed = CrossFit(partial.log, tuple(runs))
        near = None if budget is None else crossed.target(budget)
        policy, targets = calibrate(_learn(learner, partial, near), crossed)
    if budget is not None and budget < policy.vertices[0].cost * (1 - 1e-9):
        raise BudgetError(f"budget {budget:g} is below {policy.vertices[0].cost:.6g}, the cost of the cheapest policy")
    policy = policy.at(price=price) if budget is None else policy.at(budget=budget)
    point = policy.point
    reached = (1.0 - point.share) * targets[point.low] + point.share * targets[point.high]
    ledger = crossed.ledger(crossed.target(budget) if budget is not None and point.low != point.high else reached)
    own = appraise(policy, partial).estimators["dr"]
    quality = _no_narrower(mean_with_interval(ledger.quality, crossed.rows()), own.quality)
    cost = _no_narrower(mean_with_interval(ledger.cost, crossed.rows()), own.cost)
    by_classes = {} if found else _by_classes(learner, partial)
    return PartialFit(
        _finished(policy, partial, learner, quality, cost, folds, seed, mark),
        len(partial),
        partial.log.group_count,
        quality,
        cost,
        tuple(_always(partial, name, by_classes.get(name)) for name in partial.log.tier_names),
        tuple(found),
        tuple(f"never called, and not to be called: {gap}" for gap in found),
    )


def _no_narrower(estimate: Estimate, own: Finding) -> Estimate:
    """The estimate with an interval as wide as the policy's own on the log, which knows how few queries it rests on."""
    if own.mean is None:
        return estimate
    half = max(estimate.high - estimate.mean, (own.high - own.low) / 2.0)
    return Estimate(estimate.mean, estimate.mean - half, estimate.mean + half)


def gaps(partial: PartialLog, bins: int = BINS) -> list[Gap]:
    """Which tiers were never called where another one's first reading was in a bin."""
    log = partial.log
    total, found = float(log.weights.sum()), []
    for name in log.tier_names:
        for before in log.tiers:
            if before.name == name or not before.readings:
                continue
            rows = np.flatnonzero(partial.answers[before.name].seen)
            confidence = before.readings[0].confidence
            never = _never(partial, before.name, name, rows)
            if not (never > CERTAIN).any() or before.name != _first(partial, name):
                continue
            cuts = balanced_cuts(confidence, log.weights, bins)
            place = np.where(np.isnan(confidence[rows]), -1, np.searchsorted(cuts, confidence[rows], side="right"))
            edges = (0.0, *cuts, 1.0)
            for at in np.unique(place[never > CERTAIN]):
                share = float((log.weights[rows] * never)[place == at].sum()) / total
                low, high = (np.nan, np.nan) if at < 0 else (edges[at], edges[at + 1])
                found.append(Gap(name, before.name, float(low), float(high), share))
    return found


def _first(partial: PartialLog, name: str) -> str:
    """The first other tier, which is called before this one."""
    return next(tier for tier in partial.log.tier_names if tier != name)


def _never(partial: PartialLog, before: str, name: str, rows: Ints) -> Floats:
    """The share of each query, of those that called one tier, of which no query stands for a call of another, [m]."""
    earlier, later = partial.answers[before].take(rows), partial.answers[name].take(rows)
    confidence = partial.log.tier(before).readings[0].confidence[rows]
    through = np.minimum(earlier.chance, later.chance)
    return untried(Step(0, rows, later.seen, earlier.chance, through, confidence, None, confidence))


def _learn(learner: TableLearner, partial: PartialLog, near: float | None) -> Policy:
    """The frontier learnt from a partial log."""
    rows = complete(partial)
    contexts = () if rows.contexts is None else tuple(sorted(set(rows.contexts)))
    ladders = ladders_of(rows, bins_that_fit(rows, learner.bins, contexts=len(contexts)))
    models = learner.model.models if isinstance(learner.model, Average) else (learner.model,)
    tables = []
    for model in models:
        whole = isinstance(model, LatentClasses)
        coded = code_partial(partial, ladders, contexts) if whole else code_log(rows, ladders, contexts)
        tables.append(contextual_table(model, coded, kappa=learner.kappa))
    table = average(tables, [1.0] * len(tables))
    table = _without_gaps(table, ladders, partial)
    return learner.policy(rows, near=near, study=Study(learner, rows, {}, Subset(rows.tier_names, 0.0), table))


def _without_gaps(table: JointTable, ladders: Sequence[Ladder], partial: PartialLog) -> JointTable:
    """The table in which a tier's answers are worth nothing where it was never called, so that it is not called."""
    axes, axis = {}, 1  # of each source's first rung
    for ladder in ladders:
        axes[ladder.source] = axis
        axis += len(ladder.rungs)
    quality = list(table.quality)
    for at, later in enumerate(ladders):
        covered = np.zeros(len(partial), dtype=bool)  # where something that was read keeps the tier from being called
        for before in reversed(ladders):
            first, worth = before.rungs[0], quality[at]
            if before.source == later.source or worth is None or first.reading is None or not before.answer:
                continue
            rows = np.flatnonzero(partial.answers[before.source].seen)
            never = _never(partial, before.source, later.source, rows)
            code = first.code(partial.log.tier(before.source).readings[0].confidence[rows])
            for outcome in np.unique(code[(never > CERTAIN) & ~covered[rows]]):
                worth = np.array(worth)
                worth[(slice(None),) * axes[before.source] + (outcome,)] = 0.0
                covered[rows[code == outcome]] = True
            quality[at] = worth
    return replace(table, quality=tuple(quality))


def _rehearsed(policy: Policy, partial: PartialLog, member: Ints, fold: int) -> FoldRun:
    """What a policy that was learnt without a fold earns on it."""
    rows = np.flatnonzero(member == fold)
    log = partial.log.take(rows)
    nothing = (0.0,) * len(policy.tiers)
    routes = []
    for vertex in range(len(policy.vertices)):
        quality, cost = robust_values(policy, partial, vertex, member)
        reads = tuple((0.0,) * len(tier.readings) for tier in policy.tiers)
        routes.append(Routes(quality[rows], cost[rows], np.zeros(len(rows), np.int8), nothing, reads, nothing))
    return FoldRun(
        rows,
        log,
        policy.tiers,
        tuple(vertex.cost for vertex in policy.vertices),
        tuple(routes),
        tuple(log.total(of.cost) for of in routes),
        tuple(log.total(of.quality) for of in routes),
    )


def _by_classes(learner: TableLearner, partial: PartialLog) -> dict[str, TierQuality]:
    """What expectation maximisation says of each tier, where that is how the policy was learnt."""
    if not isinstance(learner.model, LatentClasses):
        return {}
    rows = complete(partial)
    coded = code_partial(partial, ladders_of(rows, bins_that_fit(rows, learner.bins, contexts=0)))
    _, groups = np.unique(partial.log.group_ids, return_inverse=True)
    with threadpool_limits(1):
        return tier_qualities(learner.model, coded, groups)


def _always(partial: PartialLog, name: str, classes: TierQuality | None) -> Reference:
    """What always calling a tier costs and earns."""
    nodes = (Ask(name, 1), Stop(Accept(name)))
    known = partial.log.tier(name).cost
    tier = Tier(name, float(np.nanmean(known)))
    policy = Policy((tier,), nodes, (Vertex(0.0, tier.price, 0.5, 0),), OperatingPoint(0, 0, 0.0))
    found = appraise(policy, partial).estimators["dr"]
    return Reference(f"always {name}", found.cost, found.quality, classes)


def _finished(
    policy: Policy,
    partial: PartialLog,
    learner: TableLearner,
    quality: Estimate,
    cost: Estimate,
    folds: int,
    seed: int,
    mark: str,
) -> Policy:
    """The policy with evidence and provenance."""
    policy, log = rounded(policy), partial.log
    evidence = {
        "rows": len(log),
        "groups": log.group_count,
        "folds": folds,
        "estimator": "doubly robust",
        "quality": asdict(quality),
        "cost": asdict(cost),
        "certificate": "none",
    }
    provenance = {
        "method": "partial",
        "options": {"model": name_of(learner.model), "bins": learner.bins},
        **origin(partial, policy.tiers, seed, mark),
    }
    return replace(
        policy,
        context=log.context_names,
        context_cuts=log.context_cuts,
        evidence=evidence,
        provenance=provenance,
    )
