"""A fit under way: what is learnt from one log on one division into folds, by every way that is tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.chain import Thresholds
from metaverify.fitting.crossfit import CrossFit, calibrate, cross_fit_all
from metaverify.fitting.learner import Study, TableLearner
from metaverify.fitting.outages import Outages, outages_of
from metaverify.fitting.select import (
    TIERS,
    Candidate,
    context_only,
)
from metaverify.policies.policy import OperatingPoint, Policy
from metaverify.simulators.log import ReplayLog, fingerprint
from metaverify.simulators.outcome import Ledger, Outcome, gain_values, measure, replay
from metaverify.simulators.references import no_information_hull

__all__ = ["FloorError", "Job", "Learnt"]

Floats = NDArray[np.float64]


class FloorError(ValueError):
    """A quality that no policy learnt from the log reaches; the message gives the highest."""

    code = "E_FLOOR"

    def __str__(self) -> str:
        return f"{self.code}: {super().__str__()}"


@dataclass(frozen=True, slots=True)
class Learnt:
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
        """What its cross-fitted likes earned."""
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

    def turned(self, cost: float) -> Learnt:
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


class Job:
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
        self.fingerprint, log = fingerprint(log), log.evened()
        self.log, self.folds, self.seed, self.tried = log, folds, seed, tried
        self.abstain = tried[0].learner.abstain
        self.outages = outages_of(outages, log.tier_names)
        self._tell, self._done = progress, 0
        self._steps = folds + (3 if compare else 1) + len(self.outages)
        self.blind = self.rival = None
        if compare:
            self.blind = context_only(log, abstain=self.abstain)
            by_context = log.contexts is not None
            self.rival = Candidate("thresholds by context" if by_context else "thresholds", Thresholds(context=True))
            if all(isinstance(c.learner, Thresholds) for c in tried):
                self.rival = Candidate("lattice", TableLearner(tiers=TIERS))
        every = {c.name: c.learner for c in (*tried, self.blind, self.rival) if c is not None}
        done = partial(self.step, "what to expect")
        crossed = cross_fit_all(list(every.values()), log, folds=folds, seed=seed, done=done)
        self.crossed = dict(zip(every, crossed, strict=True))
        self._studies: dict[str, Study] = {}

    def learn(self, candidate: Candidate, budget: float | None, price: float | None) -> Learnt:
        """A candidate's policy, its dial set where its likes, cross-fitted, spend the budget."""
        crossed, study = self.crossed[candidate.name], self._study(candidate)
        learnt, shortcuts = self._learner(candidate), () if study is None else study.shortcuts()
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
        return Learnt(candidate, dial, crossed.rows(), ledger, targets, crossed, self.abstain, shortcuts, study)

    def budget_for(self, candidate: Candidate, floor: float) -> float:
        """What a candidate's policy is found to cost where it is found to earn ``floor``."""
        policy, _ = calibrate(self._learner(candidate)(self.log), self.crossed[candidate.name])
        costs, qualities = ([getattr(v, name) for v in policy.vertices] for name in ("cost", "quality"))
        if not floor <= qualities[-1]:
            raise FloorError(
                f"no policy learnt from this log reaches a quality of {floor:g} on unseen queries; the best one "
                f"comes to {qualities[-1]:.4g}, at a cost of {costs[-1]:.4g}"
            )
        return float(np.interp(floor, qualities, costs))

    def _study(self, candidate: Candidate) -> Study | None:
        """The log as a candidate sees it, made once."""
        if isinstance(candidate.learner, TableLearner) and candidate.name not in self._studies:
            self._studies[candidate.name] = candidate.learner.study(self.log)
        return self._studies.get(candidate.name)

    def _learner(self, candidate: Candidate) -> Callable[..., Policy]:
        """How a candidate makes a policy of the log."""
        if isinstance(candidate.learner, TableLearner):
            return partial(candidate.learner.policy, study=self._study(candidate))
        return candidate.learner.policy

    def step(self, name: str) -> None:
        """Tell that one thing more is done."""
        self._done += 1
        self._tell(f"learning {name}", self._done / self._steps)
