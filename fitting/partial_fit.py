"""Fit on a partial log: a policy from what an older one has left to be seen, as far as that goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from metaverify.fitting.coding import code_log, code_partial, ladders_of
from metaverify.fitting.context import contextual_table
from metaverify.fitting.crossfit import CrossFit, FoldRun, calibrate
from metaverify.fitting.finish import origin, rounded
from metaverify.fitting.learner import Study, TableLearner, bins_that_fit
from metaverify.fitting.models.average import Average
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.models.latent import LatentClasses
from metaverify.fitting.models.latent_errors import TierQuality, tier_qualities
from metaverify.fitting.models.zoo import name_of
from metaverify.fitting.subsets import Subset
from metaverify.fitting.support import BINS, Edges, Gap, edges_of, gaps, never_climbed, supported
from metaverify.fitting.table import average
from metaverify.policies.actions import Accept
from metaverify.policies.file import policy_id
from metaverify.policies.graph import Ask, Stop
from metaverify.policies.policy import BudgetError, OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Tier
from metaverify.simulators.log import LogError, ReplayLog, fingerprint
from metaverify.simulators.offpolicy import Appraisal, Finding, appraise, robust_values
from metaverify.simulators.outcome import mean_with_interval
from metaverify.simulators.partial import PartialLog, complete
from metaverify.simulators.replay import Routes

__all__ = ["PartialFit", "Reference", "fit_partial"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DEFAULT = LatentClasses(starts=10)  # with fewer, one kind of query is taken for another in one log of twenty


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
    """A policy and what it is to earn, cross-fitted and doubly robust; and where the log has never been.

    Quality and cost have no mean where it or what was cross-fitted goes there all the same.
    """

    policy: Policy
    n: int
    groups: int
    quality: Finding
    cost: Finding
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
        within_support: whether to learn although some tiers or readings were never bought in some bins; they are not
            bought there, nor in any other state in which they were not.
        bins: the most bins of a reading.
        folds: of the cross-fitting, at most as many as there are groups.
        seed: of the folds.
        progress: told what is being done, and the share of the whole that is done.

    Raises:
        BudgetError: the budget is below the cost of the cheapest policy.
        LogError: a tier was never called in some bin, or a reading never bought, and ``within_support`` is not set; or
            of no query everything is known; or a reading is votes that are to be asked one by one, or a sample.
        TypeError: neither or both of budget and price are given.
    """
    if (budget is None) == (price is None):
        raise TypeError("give a budget or a price")
    _check_readings(partial.log)
    found = gaps(partial, bins)
    if found and not within_support:
        raise LogError(
            "E_SUPPORT",
            f"never tried: {'; '.join(map(str, found))}. What that would earn cannot be known from this log: let a "
            "router explore, or stay where it has been with --within-support",
        )
    if found and not isinstance(model or DEFAULT, LatentClasses):
        raise LogError(
            "E_SUPPORT",
            f"never tried: {'; '.join(map(str, found))}. A table by {name_of(model or DEFAULT)} is of the queries that "
            "are known whole, which do not stand for those; leave out --model: latent classes learn from all",
        )
    order = np.argsort(partial.log.query_ids, kind="stable")
    partial = partial.take(order)
    mark, partial = fingerprint(partial.log), replace(partial, log=partial.log.evened())
    learner = TableLearner(model or DEFAULT, bins=bins)
    folds = min(folds, partial.log.group_count)
    member = partial.log.folds(folds, seed=seed)
    edges = edges_of(partial) if within_support else None
    with threadpool_limits(1):
        runs = []
        for fold in range(folds):
            rows = np.flatnonzero(member != fold)
            policy = _learn(learner, partial, rows, None, edges)
            runs.append(_rehearsed(policy, partial, member, fold))
            progress("what to expect", (fold + 1) / (folds + 1))
        crossed, hopeful = (CrossFit(partial.log, tuple(side)) for side in zip(*runs, strict=True))
        near = None if budget is None else crossed.target(budget)
        policy = _learn(learner, partial, np.arange(len(partial)), near, edges)
        policy, targets = calibrate(policy, crossed)
    if budget is not None and budget < policy.vertices[0].cost * (1 - 1e-9):
        raise BudgetError(f"budget {budget:g} is below {policy.vertices[0].cost:.6g}, the cost of the cheapest policy")
    policy = policy.at(price=price) if budget is None else policy.at(budget=budget)
    point = policy.point
    reached = (1.0 - point.share) * targets[point.low] + point.share * targets[point.high]
    target = crossed.target(budget) if budget is not None and point.low != point.high else reached
    careful, best, queries = crossed.ledger(target), hopeful.ledger(target), crossed.rows()
    own = appraise(policy, partial)
    quality = _found(careful.quality, best.quality, queries, own.estimators["dr"].quality)
    cost = _found(best.cost, careful.cost, queries, own.estimators["dr"].cost)
    by_classes = {} if found else _by_classes(learner, partial)
    return PartialFit(
        _finished(policy, partial, learner, quality, cost, folds, seed, mark),
        len(partial),
        partial.log.group_count,
        quality,
        cost,
        tuple(_always(partial, name, by_classes.get(name)) for name in partial.log.tier_names),
        tuple(found),
        (*(f"never tried, and not to be: {gap}" for gap in found), *_beyond(own, quality, cost)),
    )


def _check_readings(log: ReplayLog) -> None:
    """Make sure that a policy over these readings can be followed on a partial log (see `walks`).

    Raises:
        LogError: one is votes with a price, or a sample.
    """
    for source in log.sources:
        for reading in source.readings:
            polled = reading.votes > 1 and reading.price.any()
            if polled or reading.correct is not None:
                what, option = ("votes to be asked one by one", "votes") if polled else ("a sample", "samples")
                raise LogError(
                    "E_OPTION",
                    f"{reading.name!r} of {source.name!r} is {what}, of which a partial log knows too little; leave "
                    f"out --{option} {reading.name}, and it is a reading that is bought as a whole",
                )


def _found(least: Floats, most: Floats, rows: ReplayLog, own: Finding) -> Finding:
    """The mean of what was cross-fitted, [n], with an interval as wide as the policy's own on the log, which knows how
    few queries it rests on; no mean where what was never tried makes a difference to it, or to the policy's own."""
    low, high = mean_with_interval(least, rows), mean_with_interval(most, rows)
    if own.mean is None or not np.array_equal(least, most):
        return Finding(None, min(low.low, own.low), max(high.high, own.high))
    half = max(low.high - low.mean, (own.high - own.low) / 2.0)
    return Finding(low.mean, low.mean - half, low.mean + half)


def _beyond(own: Appraisal, quality: Finding, cost: Finding) -> list[str]:
    """A note where what is to be expected is not known."""
    if quality.mean is not None and cost.mean is not None:
        return []
    untried = (each for each in own.support if each.untried > 0.0)
    places = [f"{each.wanted} where {each.where} ({each.untried:.1%} of queries)" for each in untried]
    told = f" ({'; '.join(places)})" if places else ", in the cross-fitting at least"
    return [
        f"the policy goes where the log has never been{told}: the intervals hold whatever may be there; explore and "
        "label some of it, or log the chances of what was not bought, 0 where it never is, and give --within-support"
    ]


def _learn(learner: TableLearner, whole: PartialLog, of: Ints, near: float | None, edges: Edges | None) -> Policy:
    """The frontier learnt from the queries at ``of``; in the support of all of them, where its ``edges`` are given."""
    partial = whole.take(of)
    rows = complete(partial)
    contexts = () if rows.contexts is None else tuple(sorted(set(rows.contexts)))
    bins = bins_that_fit(rows, learner.bins, contexts=len(contexts))
    ladders = ladders_of(rows, bins)
    if edges is not None:
        ladders = supported(ladders, partial, bins, edges)
    models = learner.model.models if isinstance(learner.model, Average) else (learner.model,)
    tables = []
    for model in models:
        by_classes = isinstance(model, LatentClasses)
        coded = code_partial(partial, ladders, contexts) if by_classes else code_log(rows, ladders, contexts)
        tables.append(contextual_table(model, coded, kappa=learner.kappa))
    table = average(tables, [1.0] * len(tables))
    never = {} if edges is None else never_climbed(whole, ladders, contexts)
    return learner.policy(rows, near=near, study=Study(learner, rows, {}, Subset(rows.tier_names, 0.0), table, never))


def _rehearsed(policy: Policy, partial: PartialLog, member: Ints, fold: int) -> tuple[FoldRun, FoldRun]:
    """What a policy that was learnt without a fold earns on it; by the least and by the most that what was never tried
    may be worth."""
    rows = np.flatnonzero(member == fold)
    log = partial.log.take(rows)
    nothing = (0.0,) * len(policy.tiers)
    reads = tuple((0.0,) * len(tier.readings) for tier in policy.tiers)
    sides: tuple[list[Routes], list[Routes]] = [], []
    for vertex in range(len(policy.vertices)):
        values = robust_values(policy, partial, vertex, member)
        for routes, (quality, cost) in zip(sides, values, strict=True):
            routes.append(Routes(quality[rows], cost[rows], np.zeros(len(rows), np.int8), nothing, reads, nothing))
    careful, hopeful = (
        FoldRun(
            rows,
            log,
            policy.tiers,
            tuple(vertex.cost for vertex in policy.vertices),
            tuple(routes),
            tuple(log.total(of.cost) for of in routes),
            tuple(log.total(of.quality) for of in routes),
        )
        for routes in sides
    )
    return careful, hopeful


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
    quality: Finding,
    cost: Finding,
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
