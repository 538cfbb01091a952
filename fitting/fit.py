"""Fit: from a log and a budget to a policy, with what it will earn on queries that it has not seen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from threadpoolctl import threadpool_limits

from metaverify.fitting.certify import Terms, certify_crossed, certify_quality
from metaverify.fitting.certify import certify as certify_budget
from metaverify.fitting.chain import Thresholds
from metaverify.fitting.context import FEWEST, Pooling
from metaverify.fitting.crossfit import CrossFit, Learner, calibrate, cross_fit_all, with_evidence
from metaverify.fitting.export import FILE_TARGET, thin
from metaverify.fitting.learner import Study, TableLearner
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.outages import Outages, outages_of, with_outages
from metaverify.fitting.select import (
    ONE_ERROR,
    TIERS,
    VISIBLE,
    Candidate,
    Tried,
    budget_grid,
    candidates,
    choose,
    context_only,
)
from metaverify.policies.context import interval_label, split_label
from metaverify.policies.file import dump_policy, policy_id
from metaverify.policies.policy import BudgetError, OperatingPoint, Policy
from metaverify.policies.tiers import Tier
from metaverify.simulators.log import LogError, LoggedTier, ReplayLog, fingerprint, fingerprint_queries
from metaverify.simulators.outcome import Estimate, Ledger, Outcome, gain_values, mean_with_interval, measure, replay
from metaverify.simulators.overlap import sample_of_rows
from metaverify.simulators.references import fixed_tiers, no_information_hull, oracle

__all__ = ["Fit", "FloorError", "Reference", "fit"]

Floats = NDArray[np.float64]

MANY_VALUES = 20  # of a context column: more can hardly all be meant
FEW_GROUPS = 30  # below which intervals are rough
FITTED = 1 / 3
"""The share of the groups that a policy is fitted on where the others certify it: what is lost by few rows is lost by
the bound more than by the policy (from 300 rows a half of them costs up to a point of quality more)."""


class FloorError(ValueError):
    """A quality that no policy learnt from the log reaches; the message gives the highest."""

    code = "E_FLOOR"

    def __str__(self) -> str:
        return f"{self.code}: {super().__str__()}"


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
    log: ReplayLog,
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
        log: what to learn from; row order does not matter.
        budget: mean cost per query, in the log's unit.
        price: quality per unit of cost, instead of a budget.
        quality_floor: mean quality, instead of a budget.
        certify: how the budget or the floor is to be certified: at the finite-sample level on two thirds of the
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
        rows, held_out = (part.by_id() for part in rows.split(FITTED, seed=seed))
    groups = rows.group_count
    if groups < 2 or (held_out is not None and len(held_out) == 0):
        raise LogError("E_FEW", "the log has a single group: nothing is left to check a policy on")
    goal = _Goal(budget, price, quality_floor, certify, held_out)
    # the arrays are small: more threads only wait for one another, and checks take longer than the sums
    with threadpool_limits(1), config_context(assume_finite=True, skip_parameter_validation=True):
        found = _fit(_Job(rows, min(folds, groups), seed, tried, compare, outages, progress), goal)
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

    def settle(self, learnt: _Learnt, finished: Policy) -> Policy:
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


def _fit(job: _Job, goal: _Goal) -> Fit:
    grid = budget_grid(job.log)
    at, compared = choose(job.tried, [job.crossed[c.name] for c in job.tried], grid)
    price = goal.price
    budget = goal.budget if goal.floor is None else job.budget_for(job.tried[at], goal.floor)
    chosen = own = job.learn(job.tried[at], budget, price)
    notes = [*chosen.shortcuts]
    if at > 0:
        gain = compared[at].gain
        notes.append(
            f"{compared[at].name} was taken instead of {compared[0].name}: on unseen queries it earned "
            f"{100 * gain.mean:.2f} points more, in an interval of [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}], "
            f"in the mean over budgets from {grid[0]:.4g} to {grid[-1]:.4g}"
        )
    references: list[Reference] = []
    if job.blind is not None and job.rival is not None:
        blind, rival = (job.learn(reference, budget, price) for reference in (job.blind, job.rival))
        references += [_reference(each.candidate.name, each.outcome) for each in (rival, blind)]
        better = mean_with_interval(own.gains - blind.gains, own.rows, level=ONE_ERROR)
        if better.high <= 1e-9:
            chosen, notes = blind, []  # how the other one was made is of no use now
            worse = f"{-100 * better.mean:.2f} points better" if better.mean < -VISIBLE / 10 else "as good"
            notes.append(
                f"reading confidences does not pay here: on unseen queries routing without it was {worse}; "
                "the policy reads nothing"
            )
        elif better.low <= 1e-9:
            notes.append(
                "reading confidences hardly pays here: what it gained over routing without on unseen queries, "
                f"{100 * better.mean:+.2f} points, is within its standard error"
            )
        ahead = mean_with_interval(rival.gains - chosen.gains, chosen.rows)
        if ahead.low > 0.0 and ahead.mean >= VISIBLE:
            notes.append(
                f"{rival.candidate.name} gained {100 * ahead.mean:.2f} points more on unseen queries, "
                f"90 % interval [{100 * ahead.low:+.2f}, {100 * ahead.high:+.2f}]; "
                f"try --method {'thresholds' if isinstance(rival.candidate.learner, Thresholds) else 'lattice'}"
            )
    finished = _finish(chosen, job)
    if goal.terms is not None:
        finished = goal.settle(chosen, finished)
        chosen = chosen.turned(finished.expected_cost)
        finished = _certified(finished, chosen, job)
    notes += _scattered(job.log)
    notes += _narrowed(chosen.policy, job.log)
    planned, missing = _planned(finished, job)
    notes += missing
    if chosen.outcome.groups < FEW_GROUPS:
        notes.append(f"{chosen.outcome.groups} groups are few: take figures and intervals as rough")
    spent = chosen.outcome.cost.mean
    if goal.budget is not None and goal.terms is None and spent < 0.98 * goal.budget:
        notes.append(
            f"the policy spends {spent:.4g} of the {goal.budget:g} allowed: nothing dearer that was learnt "
            "earned more on unseen queries"
        )
    references.append(
        Reference("hull: fixed tiers mixed", _exactly(spent), _exactly(chosen.outcome.hull), _exactly(0.0))
    )
    references += _fixed(job.log, job.abstain)
    best = oracle(job.log)
    references.append(Reference("oracle", _exactly(best.cost), _exactly(best.quality)))
    learner = chosen.candidate.learner
    finished = with_outages(finished, learner, job.log, planned, study=chosen.study, done=job.step)
    return Fit(finished, chosen.outcome_as_read, tuple(references), tuple(notes), tuple(compared))


@dataclass(frozen=True, slots=True)
class _Learnt:
    """A calibrated policy at its operating point, and what its cross-fitted likes earned there."""

    candidate: Candidate
    policy: Policy
    rows: ReplayLog  # in the order of the ledger
    ledger: Ledger
    targets: tuple[float, ...]  # of the policy's vertices
    crossed: CrossFit
    abstain: float | None  # the worth of handing over, to everything that is compared
    shortcuts: tuple[str, ...]  # taken on the way
    study: Study | None  # where the learner made one

    @property
    def outcome(self) -> Outcome:
        return measure(self.policy, self.rows, self.ledger, abstain=self.abstain)

    @property
    def outcome_as_read(self) -> Outcome:
        """The outcome, with what the policy itself reads of what comes free.

        Rehearsed plans have every free reading in hand; the policy's graph reads those that change what it does, of the
        answers that it has, in the share found by replaying it on the same queries.
        """
        graph, found = replay(self.policy, self.rows), self.outcome
        price = {(tier.name, r.name): r.price for tier in self.policy.tiers for r in tier.readings}

        def free(source: str, name: str) -> float:
            share = graph.reads.get(source, {}).get(name, 0.0)
            called = graph.calls.get(source, 0.0)
            return share * found.calls[source] / called if called > 0.0 else share

        reads = {
            source: {n: share if price.get((source, n), 0.0) > 0.0 else free(source, n) for n, share in shares.items()}
            for source, shares in found.reads.items()
        }
        return replace(found, reads=reads)

    def turned(self, cost: float) -> _Learnt:
        """The same with its dial where it is expected to cost so much."""
        low = self.policy.vertices[0].cost
        policy = self.policy.at(budget=max(cost, low))
        return replace(self, policy=policy, ledger=self.crossed.ledger(self._target(policy.point, max(cost, low))))

    def costs(self, points: Sequence[OperatingPoint]) -> Floats:
        """What each query cost at points of the dial, routed by a policy that did not see it, [points, n]."""
        vertices = self.policy.vertices
        found = []
        for point in points:
            cost = (1.0 - point.share) * vertices[point.low].cost + point.share * vertices[point.high].cost
            spent = self.crossed.ledger(self._target(point, cost)).cost
            mean = self.rows.mean(spent)
            found.append(spent * max(cost / mean, 1.0) if mean > 0.0 else spent)
        return np.array(found)

    def _target(self, point: OperatingPoint, cost: float) -> float:
        """Where the folds' dials stand at a point of this one."""
        return self.targets[point.low] if point.share == 0.0 else self.crossed.target(cost)

    @property
    def gains(self) -> Floats:
        """What each query adds to the gain over the hull, or to quality - price x cost where a price was given, [n]."""
        if self.policy.point.price is not None:
            return np.asarray(self.ledger.quality - self.policy.point.price * self.ledger.cost)
        hull = no_information_hull(self.rows, abstain=self.abstain)
        return gain_values(hull, self.ledger.quality, self.ledger.cost, self.rows, self.abstain)


class _Job:
    """One log, and every way of learning from it that is tried, on the same folds."""

    def __init__(
        self,
        log: ReplayLog,
        folds: int,
        seed: int,
        tried: Sequence[Candidate],
        compare: bool,
        outages: Outages,
        progress: Callable[[str, float], None],
    ) -> None:
        self.log, self.folds, self.seed, self.tried = log, folds, seed, tried
        self.abstain = tried[0].learner.abstain
        self.outages = outages_of(outages, log.tier_names)
        self._tell, self._done = progress, 0
        self._steps = folds + (3 if compare else 1) + len(self.outages)
        self.blind = self.rival = None
        if compare:
            self.blind = context_only(log, abstain=self.abstain)
            self.rival = Candidate("thresholds", Thresholds())
            if all(isinstance(c.learner, Thresholds) for c in tried):
                self.rival = Candidate("lattice", TableLearner(tiers=TIERS))
        every = {c.name: c.learner for c in (*tried, self.blind, self.rival) if c is not None}
        done = partial(self.step, "what to expect")
        crossed = cross_fit_all(list(every.values()), log, folds=folds, seed=seed, done=done)
        self.crossed = dict(zip(every, crossed, strict=True))

    def learn(self, candidate: Candidate, budget: float | None, price: float | None) -> _Learnt:
        """A candidate's policy, its dial set where its likes, cross-fitted, spend the budget."""
        crossed, learner = self.crossed[candidate.name], candidate.learner
        shortcuts: tuple[str, ...] = ()
        learnt, study = learner.policy, None
        if isinstance(learner, TableLearner):
            study = learner.study(self.log)
            learnt, shortcuts = partial(learner.policy, study=study), study.shortcuts()
        if budget is not None:
            near = crossed.target(budget)
        else:
            first, targets = calibrate(learnt(self.log), crossed)
            near = targets[first.at(price=price).point.low]
        policy, targets = calibrate(learnt(self.log, near=near), crossed)
        self.step(candidate.name)
        dial = policy.at(price=price) if budget is None else policy.at(budget=max(budget, policy.vertices[0].cost))
        point = dial.point
        reached = (1.0 - point.share) * targets[point.low] + point.share * targets[point.high]
        settled = crossed.target(budget) if budget is not None and point.low != point.high else reached
        ledger = crossed.ledger(settled)
        return _Learnt(candidate, dial, crossed.rows(), ledger, targets, crossed, self.abstain, shortcuts, study)

    def budget_for(self, candidate: Candidate, floor: float) -> float:
        """What a candidate's policy is found to cost where it is found to earn ``floor``."""
        policy, _ = calibrate(candidate.learner.policy(self.log), self.crossed[candidate.name])
        costs, qualities = ([getattr(v, name) for v in policy.vertices] for name in ("cost", "quality"))
        if not floor <= qualities[-1]:
            raise FloorError(
                f"no policy learnt from this log reaches a quality of {floor:g} on unseen queries; the best one "
                f"comes to {qualities[-1]:.4g}, at a cost of {costs[-1]:.4g}"
            )
        return float(np.interp(floor, qualities, costs))

    def step(self, name: str) -> None:
        """Tell that one thing more is done."""
        self._done += 1
        self._tell(f"learning {name}", self._done / self._steps)


def _scattered(log: ReplayLog) -> list[str]:
    """The context columns most of whose values, of many, are too rare to be learnt from."""
    labels = () if log.contexts is None else log.contexts
    values = [split_label(label, len(log.context_names)) for label in labels]
    if any(len(parts) != len(log.context_names) for parts in values):
        return []  # labels made by hand
    notes = []
    for name, column in zip(log.context_names, zip(*values, strict=True), strict=False):
        rows = Counter(column)
        rare = sum(count < FEWEST for count in rows.values())
        if len(rows) < MANY_VALUES or rare <= len(rows) / 2:
            continue
        number = all(interval_label(name, (0.0,), value) != f"{name} missing" for value in rows if value)
        way_out = f"it is a number, so cut it (--context {name}:4)" if number else "give a coarser column, or none"
        notes.append(
            f"context {name!r} has {len(rows):,} values, {rare:,} of them in fewer than {FEWEST} queries, too few to "
            f"learn from: {way_out}"
        )
    return notes


def _narrowed(policy: Policy, log: ReplayLog) -> list[str]:
    """Which budgets the dial covers, where the cheapest or the dearest tier was not kept and is not reached."""
    known = sorted(fixed_tiers(log), key=lambda point: point.cost)
    kept = {tier.name for tier in policy.tiers}
    low, high = policy.vertices[0].cost, policy.vertices[-1].cost
    beyond = [point for point in (known[0], known[-1]) if point.tier not in kept and not low <= point.cost <= high]
    if not beyond:
        return []
    ends = " and ".join(f"{point.tier} ({point.cost:.4g})" for point in beyond)
    verb = "was" if len(beyond) == 1 else "were"
    return [
        f"the dial covers budgets from {low:.4g} to {high:.4g}: {ends} {verb} not kept; name tiers to keep (--tiers)"
    ]


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


def _finish(chosen: _Learnt, job: _Job) -> Policy:
    """The policy as it goes into its file: rounded, with evidence and provenance, small enough."""
    policy = with_evidence(chosen.policy, chosen.targets, chosen.crossed)
    vertices = tuple(
        replace(v, price=_nine(v.price), cost=_nine(v.cost), quality=_nine(min(max(v.quality, 0.0), 1.0)))
        for v in policy.vertices
    )
    tiers = tuple(
        replace(t, price=_nine(t.price), readings=tuple(replace(r, price=_nine(r.price)) for r in t.readings))
        for t in policy.tiers
    )
    return _small_enough(
        replace(
            policy,
            tiers=tiers,
            vertices=vertices,
            point=replace(policy.point, share=_nine(policy.point.share)),
            context=job.log.context_names,
            evidence=_evidence(chosen.outcome, job.folds),
            provenance=_provenance(job, chosen.candidate.learner, policy.tiers),
            context_cuts=job.log.context_cuts,
        )
    )


def _certified(policy: Policy, chosen: _Learnt, job: _Job) -> Policy:
    """The certified policy with what was found at its operating point."""
    assert policy.certificate is not None, "it was certified"
    point = replace(policy.point, share=_nine(policy.point.share))
    moved = replace(policy, point=point)
    evidence = {key: value for key, value in _evidence(chosen.outcome, job.folds).items() if key != "certificate"}
    certificate = replace(policy.certificate, bound=_nine(policy.certificate.bound), cost=moved.expected_cost)
    return replace(moved, evidence=evidence, certificate=certificate)


def _planned(policy: Policy, job: _Job) -> tuple[list[tuple[str, ...]], list[str]]:
    """The outages that are wanted, of the tiers that were kept, and what is to be said of the others."""
    kept = [tier.name for tier in policy.tiers if tier.answer]
    planned = dict.fromkeys(tuple(name for name in outage if name in kept) for outage in job.outages)
    planned.pop((), None)  # of no tier that the policy uses
    whole = [outage for outage in planned if len(outage) == len(kept)]
    notes = [f"no outage of {'+'.join(outage)} was planned: the policy has no other tier" for outage in whole]
    return [outage for outage in planned if outage not in whole], notes


def _small_enough(policy: Policy) -> Policy:
    """The policy whose file is not too large: without the beliefs of vertices that are not in use, then without some
    of these vertices."""
    if len(dump_policy(policy).encode()) <= FILE_TARGET:
        return policy
    point = policy.point
    pair = [policy.vertices[at].cost for at in (point.low, point.high)]
    believing = tuple(vertex if vertex.cost in pair else replace(vertex, beliefs={}) for vertex in policy.vertices)
    thinned = thin(replace(policy, vertices=believing), pair)
    at = {vertex.cost: place for place, vertex in enumerate(thinned.vertices)}
    return replace(thinned, point=replace(point, low=at[pair[0]], high=at[pair[1]]))


def _evidence(outcome: Outcome, folds: int) -> Mapping[str, Any]:
    def interval(estimate: Estimate) -> dict[str, float]:
        return {name: _nine(value) for name, value in asdict(estimate).items()}

    return {
        "rows": outcome.n,
        "groups": outcome.groups,
        "folds": folds,
        "quality": interval(outcome.quality),
        "cost": interval(outcome.cost),
        "hull": _nine(outcome.hull),
        "gain": interval(outcome.gain),
        "certificate": "none",
    }


def _provenance(job: _Job, learner: Learner, tiers: Sequence[Tier]) -> Mapping[str, Any]:
    return {
        **learner.describe(),
        "log": fingerprint(job.log),
        "queries": fingerprint_queries(job.log),
        "rows": list(sample_of_rows(job.log, tiers)),
        "dearest": _dearest(job.log, tiers),
        "seed": job.seed,
        "metaverify": version("metaverify"),
        "parent": None,
    }


def _dearest(log: ReplayLog, tiers: Sequence[Tier]) -> list[list[Any]]:
    """Of what does not always cost the same the most that it cost: [tier, reading, price], null for an answer."""
    bought: list[tuple[str, str | None, Floats]] = []
    for tier in tiers:
        source = log.source(tier.name)
        bought += [(tier.name, None, source.cost)] if isinstance(source, LoggedTier) else []
        bought += [(tier.name, r.name, r.price) for r in source.readings]
    return [[tier, name, _nine(float(price.max()))] for tier, name, price in bought if (price != price[0]).any()]


def _nine(value: float) -> float:
    """To nine significant digits: what differs between machines beyond that is rounding."""
    return float(f"{value:.9g}")
