"""Cross-fitting: what a way of learning spends and earns on queries that it did not see.

A table's own expectation of cost overruns on new queries.  So each fold's policy is run on the fold that it was not
fitted on, with its own dial at the same target; the realised spend, as a function of the target, says where to set
the dial of the policy that is fitted on everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from joblib import delayed
from numpy.typing import NDArray

from metaverify.fitting.backends import in_turn
from metaverify.fitting.export import keep_vertices
from metaverify.fitting.frontier import mixture_at
from metaverify.fitting.rehearse import Rehearsal, rehearse_policy
from metaverify.policies.policy import Policy, Vertex, VertexEvidence
from metaverify.policies.tiers import Tier
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.outcome import Estimate, Ledger, join_ledgers, ledger_of, mean_with_interval
from metaverify.simulators.replay import Routes

__all__ = [
    "CrossFit",
    "FoldRun",
    "Learner",
    "Rehearsing",
    "calibrate",
    "cross_fit",
    "cross_fit_all",
    "rehearse",
    "with_evidence",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Learner(Protocol):
    """A way of learning: from a log to a policy whose vertices carry what the learner expects of them."""

    @property
    def abstain(self) -> float | None:
        """The worth of handing a query over; None where its policies never do."""
        ...

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record: plain types."""
        ...

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The policy learnt from this log; ``near`` is an expected cost around which it should be complete."""
        ...


@runtime_checkable
class Rehearsing(Protocol):
    """A learner that can try what it learns without making a policy of it."""

    def rehearse(self, known: ReplayLog, unseen: ReplayLog, memo: MutableMapping[Any, Any]) -> Rehearsal:
        """What is learnt from ``known``, run on ``unseen``; ``memo`` is shared by all that learn from ``known``."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FoldRun:
    """What was learnt without one fold, run on it."""

    rows: Ints  # positions in the log
    log: ReplayLog  # those queries
    tiers: tuple[Tier, ...]
    targets: tuple[float, ...]  # a vertex: what it was expected to cost
    routes: tuple[Routes, ...]  # a vertex
    costs: tuple[float, ...]  # a vertex: the weighted sum over the queries
    qualities: tuple[float, ...]

    @property
    def expected(self) -> tuple[float, ...]:
        """What its policy expects each of its vertices to spend on these queries, summed as `costs` are."""
        weight = float(self.log.weights.sum())
        return tuple(weight * target for target in self.targets)

    def ledger(self, target: float) -> Ledger:
        """What the queries earn and spend with the fold's dial at ``target``."""
        mix = mixture_at(self.targets, target)
        return ledger_of(self.tiers, [(1.0 - mix.share, self.routes[mix.low]), (mix.share, self.routes[mix.high])])

    def draws(self, target: float) -> tuple[Floats, Floats]:
        """What each query costs by either graph of the fold's dial at ``target``, and the weight of that, [2n] each."""
        mix = mixture_at(self.targets, target)
        costs = np.concatenate([self.routes[mix.low].cost, self.routes[mix.high].cost])
        return costs, np.concatenate([(1.0 - mix.share) * self.log.weights, mix.share * self.log.weights])


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """Every query of a log, routed by a policy that did not see it."""

    log: ReplayLog
    folds: tuple[FoldRun, ...]
    _knots: Floats = field(init=False, repr=False)  # the targets at which some fold's dial turns
    _spent: Floats = field(init=False, repr=False)  # what is found to be spent there

    def __post_init__(self) -> None:
        knots = np.unique([target for fold in self.folds for target in fold.targets])
        object.__setattr__(self, "_knots", knots)
        object.__setattr__(self, "_spent", np.array([self._spend(float(knot)) for knot in knots]))

    def cost(self, target: float) -> float:
        """What a dial at ``target`` is found to cost: what the folds' policies, their own dials there, really spent.

        Known at the targets at which some fold's dial turns, linear between them.  Where some fold's policies end below
        the target, the sum is scaled up by what that takes off the expectation.
        """
        return float(np.interp(target, self._knots, self._spent))

    def quality(self, target: float) -> float:
        """Realised mean quality when every fold's dial stands at ``target``."""
        return self._mean(target, [fold.qualities for fold in self.folds])

    def target(self, budget: float) -> float:
        """The target that is found to cost ``budget``, clipped to those at which some fold's dial turns."""
        return float(np.interp(budget, np.maximum.accumulate(self._spent), self._knots))

    def ledger(self, target: float) -> Ledger:
        """What each query earned and spent when every fold's dial stood at ``target``, in the order of `rows`."""
        return join_ledgers([fold.ledger(target) for fold in self.folds])

    def cost_sd(self, target: float) -> float:
        """The standard deviation of what one query costs when every fold's dial stands at ``target``.

        Queries differ in what they cost, and where a dial stands between two graphs so does one query in what it may
        cost: both are in it (the law of total variance).  Votes count as the mean over their orders.
        """
        costs, weights = (
            np.concatenate(parts) for parts in zip(*(fold.draws(target) for fold in self.folds), strict=True)
        )
        apart = costs - costs[0]  # where all cost the same, exactly nothing
        return float(np.sqrt(np.average((apart - np.average(apart, weights=weights)) ** 2, weights=weights)))

    def rows(self) -> ReplayLog:
        """The queries, fold after fold."""
        return self.log.take(np.concatenate([fold.rows for fold in self.folds]))

    def _spend(self, target: float) -> float:
        spent = self._mean(target, [fold.costs for fold in self.folds])
        expected = self._mean(target, [fold.expected for fold in self.folds])
        return spent * max(target / expected, 1.0) if expected > 0 else spent

    def _mean(self, target: float, sums: list[tuple[float, ...]]) -> float:
        total = 0.0
        for fold, values in zip(self.folds, sums, strict=True):
            mix = mixture_at(fold.targets, target)
            total += (1.0 - mix.share) * values[mix.low] + mix.share * values[mix.high]
        return total / float(self.log.weights.sum())


def cross_fit(
    learner: Learner, log: ReplayLog, *, folds: int = 5, seed: int = 0, done: Callable[[], None] = lambda: None
) -> CrossFit:
    """Learn on all folds but one, route that one, for each in turn; a group is never divided.

    Runs under the caller's joblib ``parallel_config``.  ``done`` is called after each fold.
    """
    return cross_fit_all([learner], log, folds=folds, seed=seed, done=done)[0]


def cross_fit_all(
    learners: Sequence[Learner],
    log: ReplayLog,
    *,
    folds: int = 5,
    seed: int = 0,
    done: Callable[[], None] = lambda: None,
) -> tuple[CrossFit, ...]:
    """Several learners on the same folds, sharing what they can; ``done`` is called after each fold."""
    member = log.folds(folds, seed=seed)
    tasks = (delayed(_run)(learners, log, np.flatnonzero(member == fold)) for fold in range(folds))
    runs = []
    for run in in_turn(tasks):
        runs.append(run)
        done()
    return tuple(CrossFit(log, of_learner) for of_learner in zip(*runs, strict=True))


def _run(learners: Sequence[Learner], log: ReplayLog, rows: Ints) -> list[FoldRun]:
    unseen = log.take(rows)
    others = np.ones(len(log), dtype=bool)
    others[rows] = False
    known = log.take(np.flatnonzero(others))
    memo: dict[Any, Any] = {}
    return [_fold(rows, unseen, rehearse(learner, known, unseen, memo)) for learner in learners]


def _fold(rows: Ints, unseen: ReplayLog, tried: Rehearsal) -> FoldRun:
    return FoldRun(
        rows,
        unseen,
        tried.tiers,
        tried.targets,
        tried.routes,
        tuple(unseen.total(r.cost) for r in tried.routes),
        tuple(unseen.total(r.quality) for r in tried.routes),
    )


def rehearse(
    learner: Learner, known: ReplayLog, unseen: ReplayLog, memo: MutableMapping[Any, Any] | None = None
) -> Rehearsal:
    """What a learner learns from ``known``, run on ``unseen``."""
    if isinstance(learner, Rehearsing):
        return learner.rehearse(known, unseen, {} if memo is None else memo)
    return rehearse_policy(learner.policy(known), unseen)


def calibrate(policy: Policy, crossed: CrossFit) -> tuple[Policy, tuple[float, ...]]:
    """The policy with each vertex at the cost and quality that cross-fitting found for it, and the targets of the
    vertices that are left.

    A vertex is left out where a later one costs no more, or where it costs more than one before and earns no more.
    """
    targets: list[float] = []
    vertices: list[Vertex] = []
    for vertex in policy.vertices:
        cost, quality = crossed.cost(vertex.cost), crossed.quality(vertex.cost)
        while vertices and vertices[-1].cost >= cost * (1 - 1e-9):
            vertices.pop()
            targets.pop()
        if vertices and quality <= max(v.quality for v in vertices):
            continue
        vertices.append(replace(vertex, cost=cost, quality=quality))
        targets.append(vertex.cost)
    return keep_vertices(policy, vertices), tuple(targets)


def with_evidence(policy: Policy, targets: Sequence[float], crossed: CrossFit) -> Policy:
    """The calibrated policy with what cross-fitting found of each of its vertices; ``targets`` as `calibrate` gives."""
    rows = crossed.rows()
    return replace(
        policy,
        vertices=tuple(
            replace(vertex, evidence=_evidence(policy.tiers, vertex, crossed, target, rows))
            for vertex, target in zip(policy.vertices, targets, strict=True)
        ),
    )


def _evidence(
    tiers: Sequence[Tier], vertex: Vertex, crossed: CrossFit, target: float, rows: ReplayLog
) -> VertexEvidence:
    ledger, total = crossed.ledger(target), float(rows.weights.sum())
    spent = mean_with_interval(ledger.cost, rows)
    scale = vertex.cost / spent.mean if spent.mean > 0.0 else 1.0  # not 1 where some fold's frontier ends below

    def shares(weights: Mapping[str, float]) -> tuple[float | None, ...]:
        return tuple(_short(min(weights.get(tier.name, 0.0) / total, 1.0)) if tier.answer else None for tier in tiers)

    return VertexEvidence(
        _ends(spent, scale),
        _ends(mean_with_interval(ledger.quality, rows)),
        shares(ledger.calls),
        shares(ledger.accepts),
        _short(scale * crossed.cost_sd(target)),
    )


def _ends(estimate: Estimate, scale: float = 1.0) -> tuple[float, float]:
    return _short(scale * estimate.low), _short(scale * estimate.high)


def _short(value: float) -> float:
    """To six significant digits, more than an interval tells."""
    return float(f"{value:.6g}")
