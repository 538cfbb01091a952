"""Fit: from a log and a budget to a policy, with what it will earn on queries that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from threadpoolctl import threadpool_limits

from metaverify.fitting.certify import Terms, certify_crossed, certify_quality
from metaverify.fitting.certify import certify as certify_budget
from metaverify.fitting.context import Pooling
from metaverify.fitting.crossfit import Learner
from metaverify.fitting.finish import certified, finish
from metaverify.fitting.job import Job, Learnt
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.outages import Outages, outages_of, with_outages
from metaverify.fitting.remarks import (
    few_groups,
    idle,
    narrowed,
    reading_pays,
    rival_ahead,
    scattered,
    taken_instead,
)
from metaverify.fitting.select import (
    ONE_ERROR,
    Candidate,
    Tried,
    budget_grid,
    candidates,
    choose,
)
from metaverify.policies.file import policy_id
from metaverify.policies.policy import BudgetError, Policy
from metaverify.simulators.counting import as_log
from metaverify.simulators.frames import Source
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.outcome import Estimate, Outcome, mean_with_interval
from metaverify.simulators.references import fixed_tiers, no_information_hull, oracle

__all__ = ["Fit", "Reference", "fit"]

Floats = NDArray[np.float64]

FITTED = 1 / 4
"""The share of the groups that a policy is fitted on where the others certify it: what is lost by few rows is lost by
the bound more than by the policy (of 300 rows a half costs up to 1.6 points of quality more, a third up to .3)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A way of routing that stands beside the policy: what it costs and earns on the same queries."""

    name: str
    cost: Estimate
    quality: Estimate
    gain: Estimate | None = None  # over the no-information hull at the same cost


@dataclass(frozen=True, slots=True)
class Fit:
    """A policy, what it earned on queries that it was not fitted on, and what else could have been done."""

    policy: Policy
    outcome: Outcome
    references: tuple[Reference, ...]
    notes: tuple[str, ...] = ()
    compared: tuple[Tried, ...] = ()  # ways of learning that were tried, with the first one

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "policy": policy_id(self.policy),
            "operating_point": asdict(self.policy.point),
            "outcome": self.outcome.to_json(),
            "references": [asdict(reference) for reference in self.references],
            "notes": list(self.notes),
            "compared": [asdict(each) for each in self.compared],
            "certificate": None if self.policy.certificate is None else asdict(self.policy.certificate),
        }


def fit(
    log: ReplayLog | Source,
    *,
    budget: float | None = None,
    price: float | None = None,
    quality_floor: float | None = None,
    certify: Terms | None = None,
    learner: Learner | None = None,
    readings: Sequence[str] | None = None,
    model: TableModel | None = None,
    abstain: float | None = None,
    bins: int | None = None,
    pooling: Pooling = "average",
    folds: int = 5,
    seed: int = 0,
    compare: bool = True,
    outages: Outages = (),
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> Fit:
    """Learn a policy that spends ``budget`` per query on average, that pays ``price`` of quality per unit cost, or that
    is the cheapest to earn ``quality_floor``.

    Everything reported is cross-fitted: each query is routed by a policy that was learnt without its fold.

    Args:
        log: what to learn from; neither the order of rows matters nor the scale of weights.  A path is read, and
            counts, a glob, several paths and a lazy frame are counted (see `count`).
        budget: mean cost per query, in the log's unit.
        price: quality per unit of cost, instead of a budget.
        quality_floor: mean quality, instead of a budget.
        certify: how the budget or the floor is to be certified: at the finite-sample level on three quarters of the
            groups, the policy being fitted on the others; at the approximate level on what cross-fitting saw.
            Without, nothing is certified.
        learner: how to learn; where not given, the way that cross-fitting prefers (see `candidates`).
        readings: names of the readings that may be used; all where neither they nor a learner are given, otherwise
            each tier's first one and those with a price of their own.
        model: of the tables, where no learner is given.
        abstain: the worth of handing a query over, in quality, where no learner is given; None where that is not to be
            had.
        bins: the most bins of a reading, where no learner is given: 8 on a table, and as many as are useful on rows.
        pooling: how contexts learn from each other (see `TableLearner`), where no learner is given.
        folds: of the cross-fitting, at most as many as there are groups.
        seed: of folds and searches.
        compare: whether the references that must be learnt (thresholds, context-only routing) are wanted.
        outages: sets of tiers that may be down at once, or "each" for every single one: what is best then, at the same
            prices, is learnt too and kept in the policy (see `Policy.without`).
        progress: told what is being done, and the share of the whole that is done.

    Raises:
        BudgetError: the budget is below the cost of the cheapest policy.
        CertificateError: what was to be certified cannot be.
        FloorError: no policy reaches the quality floor.
        LatticeSizeError: the exact solution does not fit in memory.
        LogError: the log has a single group, or lacks a reading.
        TypeError: none or two of budget, price and quality floor are given, or a price is to be certified.
        ValueError: a budget, a price, or a number of folds that is none.

    Example:
        >>> from metaverify import fit, load_digits_log
        >>> fitted = fit(load_digits_log(), budget=4.0)
        >>> fitted.outcome.quality.mean > fitted.outcome.hull
        True
    """
    _check_goal(budget, price, quality_floor, certify)
    log = as_log(log)
    if folds < 2 or seed < 0:
        raise ValueError(f"folds is {folds} and seed is {seed}; give at least 2 and at least 0")
    if readings is not None:
        log = log.with_readings(readings)
    outages_of(outages, log.tier_names)
    rows = (log if learner is None or readings is not None else log.with_usual_readings()).by_id()
    tried: tuple[Candidate, ...]
    if learner is not None:
        tried = (Candidate(learner.describe()["method"], learner),)
    else:
        tried = candidates(rows, model=model, abstain=abstain, bins=bins, budget=budget, pooling=pooling)
    _check_budget(rows, budget, tried[0].learner.abstain)
    held_out = None
    if certify is not None and certify.level == "finite-sample":
        rows, held_out = (part.by_id().evened() for part in rows.split(FITTED, seed=seed))
    groups = rows.group_count
    if groups < 2 or (held_out is not None and len(held_out) == 0):
        raise LogError("E_FEW", "the log has a single group: nothing is left to check a policy on")
    goal = _Goal(budget, price, quality_floor, certify, held_out)
    # the arrays are small: more threads only wait for one another, and checks take longer than the sums
    with threadpool_limits(1), config_context(assume_finite=True, skip_parameter_validation=True):
        found = _fit(Job(rows, min(folds, groups), seed, tried, compare, outages, progress), goal)
    if folds <= groups:
        return found
    fewer = f"{groups} folds instead of {folds}: there are no more groups that could be left out in turn"
    return replace(found, notes=(fewer, *found.notes))


@dataclass(frozen=True, slots=True, eq=False)
class _Goal:
    """What is wanted: one of the first three, certified by these terms and on these rows if on any."""

    budget: float | None
    price: float | None
    floor: float | None
    terms: Terms | None
    held_out: ReplayLog | None

    def settle(self, learnt: Learnt, finished: Policy) -> Policy:
        """The finished policy where its promise holds."""
        assert self.terms is not None, "without terms nothing is promised"
        if self.floor is not None:
            assert self.held_out is not None, "floors are certified on rows apart"
            scores = [tier.correct for tier in learnt.rows.tiers]
            binary = learnt.abstain is None and all(bool(np.isin(score, (0.0, 1.0)).all()) for score in scores)
            return certify_quality(finished, self.held_out, floor=self.floor, delta=self.terms.delta, binary=binary)
        assert self.budget is not None, "a price is not certified"
        if self.held_out is not None:
            return certify_budget(finished, self.held_out, budget=self.budget, terms=self.terms)
        return certify_crossed(finished, learnt.rows, learnt.costs, budget=self.budget, terms=self.terms)


def _fit(job: Job, goal: _Goal) -> Fit:
    grid = budget_grid(job.log)
    at, compared = choose(job.tried, [job.crossed[c.name] for c in job.tried], grid)
    budget = goal.budget if goal.floor is None else job.budget_for(job.tried[at], goal.floor)
    chosen = job.learn(job.tried[at], budget, goal.price)
    notes = [*chosen.shortcuts, *(taken_instead(compared[0], compared[at], grid) if at > 0 else [])]
    references: list[Reference] = []
    if job.blind is not None and job.rival is not None:
        blind, rival = (job.learn(reference, budget, goal.price) for reference in (job.blind, job.rival))
        references += [_reference(each.candidate.name, each.outcome) for each in (rival, blind)]
        better = mean_with_interval(chosen.gains - blind.gains, chosen.rows, level=ONE_ERROR)
        if better.high <= 1e-9:
            chosen, notes = blind, []  # how the other one was made is of no use now
        notes += reading_pays(better)
        notes += rival_ahead(chosen, rival)
    finished = finish(chosen, job)
    if goal.terms is not None:
        finished = goal.settle(chosen, finished)
        chosen = chosen.turned(finished.expected_cost)
        finished = certified(finished, chosen, job)
    outcome = chosen.outcome_as_read
    planned, unplanned = _planned(finished, job)
    notes += [*scattered(job.log), *narrowed(chosen.policy, job.log), *unplanned, *few_groups(outcome.groups)]
    if goal.budget is not None and goal.terms is None:
        notes += idle(outcome.cost.mean, goal.budget)
    references += _references(job, outcome)
    finished = with_outages(finished, chosen.candidate.learner, job.log, planned, study=chosen.study, done=job.step)
    return Fit(finished, outcome, tuple(references), tuple(notes), tuple(compared))


def _references(job: Job, outcome: Outcome) -> list[Reference]:
    """What is to be had without learning: the hull at the same cost, every fixed tier, the oracle."""
    best = oracle(job.log)
    return [
        Reference("hull: fixed tiers mixed", _exactly(outcome.cost.mean), _exactly(outcome.hull), _exactly(0.0)),
        *_fixed(job.log, job.abstain),
        Reference("oracle", _exactly(best.cost), _exactly(best.quality)),
    ]


def _planned(policy: Policy, job: Job) -> tuple[list[tuple[str, ...]], list[str]]:
    """The outages that are wanted, of the tiers that were kept, and what is to be said of the others."""
    kept = [tier.name for tier in policy.tiers if tier.answer]
    planned = dict.fromkeys(tuple(name for name in outage if name in kept) for outage in job.outages)
    planned.pop((), None)  # of no tier that the policy uses
    whole = [outage for outage in planned if len(outage) == len(kept)]
    notes = [f"no outage of {'+'.join(outage)} was planned: the policy has no other tier" for outage in whole]
    return [outage for outage in planned if outage not in whole], notes


def _check_goal(budget: float | None, price: float | None, quality_floor: float | None, certify: Terms | None) -> None:
    if sum(goal is not None for goal in (budget, price, quality_floor)) != 1:
        raise TypeError("give a budget, a price or a quality floor")
    if certify is not None and price is not None:
        raise TypeError("a price promises nothing that could be certified: give a budget or a quality floor")
    if quality_floor is not None and not 0.0 <= quality_floor <= 1.0:
        raise ValueError(f"quality floor {quality_floor:g} is outside [0, 1]")
    if certify is not None and quality_floor is not None and certify != Terms(delta=certify.delta):
        raise ValueError("a quality floor is certified at the finite-sample level by its own tests: give delta only")
    if price is not None and not 0.0 <= price < math.inf:
        raise ValueError(f"price {price} is not a finite number of at least 0")
    if budget == math.inf:
        raise ValueError("budget inf is not a finite number; to spend as far as it pays, give the dearest tier's cost")


def _check_budget(log: ReplayLog, budget: float | None, abstain: float | None) -> None:
    cheapest = min(fixed_tiers(log), key=lambda point: point.cost)
    if budget is None or (abstain is not None and budget >= 0):
        return
    if not budget >= cheapest.cost * (1 - 1e-9):
        raise BudgetError(
            f"budget {budget:g} is below {cheapest.cost:.6g}, the mean cost of {cheapest.tier}, the cheapest tier; "
            f"give at least --budget {_round_up(cheapest.cost):g}"
        )


def _round_up(value: float) -> float:
    step = 10.0 ** (np.floor(np.log10(value)) - 2) if value > 0 else 1.0
    return float(np.ceil(value / step) * step)


def _fixed(log: ReplayLog, abstain: float | None) -> list[Reference]:
    """Every fixed tier, with intervals."""
    hull = no_information_hull(log, abstain=abstain)
    rows = []
    for tier in log.tiers:
        cost, quality = mean_with_interval(tier.cost, log), mean_with_interval(tier.correct, log)
        above = _exactly(quality.mean - hull.quality(cost.mean))
        rows.append(Reference(f"always {tier.name}", cost, quality, above))
    return rows


def _reference(name: str, outcome: Outcome) -> Reference:
    return Reference(name, outcome.cost, outcome.quality, outcome.gain)


def _exactly(value: float) -> Estimate:
    return Estimate(value, value, value)
