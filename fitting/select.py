"""Selection: a safe way of learning, left only for one that is clearly better on queries it has not seen.

The freedom of a policy is earned.  A chain of cuts on a smooth table is hard to beat with few rows; the exact solution
over every information state, thresholds on the raw rows, or less information may be better on a given log.  Each is
cross-fitted on the same folds, and what they earn on the same queries is compared over a range of budgets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.chain import Thresholds
from metaverify.fitting.context import Pooling
from metaverify.fitting.crossfit import CrossFit, Learner, calibrate, cross_fit_all
from metaverify.fitting.learner import Policies, TableLearner
from metaverify.fitting.models.average import Average
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.models.latent import LatentClasses
from metaverify.fitting.models.zoo import default_model, name_of
from metaverify.policies.policy import Policy
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.outcome import Estimate, mean_with_interval
from metaverify.simulators.references import no_information_hull

__all__ = [
    "Candidate",
    "Selected",
    "Tried",
    "budget_grid",
    "candidates",
    "choose",
    "context_only",
]

Floats = NDArray[np.float64]

TIERS = 5  # that are kept of more
FEW = 100  # queries below which readings are not fused
MANY = 1000  # queries that show what more freedom is worth
HALFWAY = 200.0  # queries at which a fused score aims half way between own quality and the gain over the best tier
ODD = 1000.0  # queries at which latent classes count as much as the other models together
FEWEST_ODD = 200  # queries below which latent classes are not tried

SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)
"""Budgets of a comparison: shares of the way from the cheapest tier's cost to the dearest one's."""

VISIBLE = 5e-4
"""A gain in quality that is worth a word, and so the least for which the safest way of learning is left."""

ONE_ERROR = 0.6827
"""Level of an interval of one standard error to each side."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way of learning, by a name for people.

    ``margin`` is how many standard errors better than the first one it must be to be taken: two for another look at
    the same freedom, or where queries are few; one for more freedom that has many queries to show what it is worth.
    """

    name: str
    learner: Learner
    margin: float = 2.0


@dataclass(frozen=True, slots=True)
class Tried:
    """What a candidate earned more than the first one, in quality, in the mean over budgets on unseen queries."""

    name: str
    gain: Estimate  # with an interval of as many standard errors as are asked of it


def candidates(
    log: ReplayLog,
    *,
    model: TableModel | None = None,
    abstain: float | None = None,
    bins: int | None = None,
    budget: float | None = None,
    pooling: Pooling = "average",
) -> tuple[Candidate, ...]:
    """The ways of learning that are worth a try on a log, the safest first."""
    several = any(sum(r.free and not r.votes for r in tier.readings) > 1 for tier in log.tiers)
    fuse = None if log.queries < FEW or not several else round(log.queries / (log.queries + HALFWAY), 3)
    lattice = TableLearner(
        model or default_model(),
        bins=bins or 8,
        pooling=pooling,
        fuse=fuse,
        first=fuse is None,
        tiers=TIERS if len(log.tiers) > TIERS else None,
        abstain=abstain,
        budget=budget,
    )
    freer = 1.0 if log.queries >= MANY else 2.0
    found = [Candidate("lattice", lattice, freer)]
    if abstain is None:
        found.insert(0, Candidate("chain", replace(lattice, policies="chain")))
        by_context = log.contexts is not None
        name = "thresholds by context" if by_context else "thresholds"
        found.append(Candidate(name, Thresholds(bins, context=by_context)))
    safest = found[0]
    assert isinstance(safest.learner, TableLearner)
    if fuse is not None:
        found.append(Candidate(f"{safest.name}, first readings", replace(safest.learner, fuse=None, first=True)))
    if log.contexts is not None:
        found.append(Candidate(f"{safest.name}, no context", replace(safest.learner, context=False)))
    elif model is None and log.queries >= FEWEST_ODD:
        odd = Average((lattice.model, LatentClasses(starts=1)), (1.0, round(log.queries / ODD, 3)))
        found.append(Candidate("lattice, latent classes", replace(lattice, model=odd), freer))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Selected:
    """The default way of learning, as a learner: the candidate that cross-fitting prefers, its dial cross-fitted.

    Args:
        model: of the candidates' tables; None for the default one, beside which latent classes are tried too.
        folds: of the cross-fitting.
        seed: of the folds.
    """

    model: TableModel | None = None
    folds: int = 5
    seed: int = 0

    @property
    def abstain(self) -> None:
        """It always answers."""
        return None

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record."""
        options = {"model": name_of(self.model or default_model()), "folds": self.folds, "seed": self.seed}
        return {"method": "selected", "options": options}

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The chosen candidate's frontier, each vertex at the cost and quality that cross-fitting found for it."""
        rows = log.by_id()
        tried = candidates(rows, model=self.model)
        folds = min(self.folds, rows.group_count)
        crossed = cross_fit_all([c.learner for c in tried], rows, folds=folds, seed=self.seed)
        at, _ = choose(tried, crossed, budget_grid(rows))
        return calibrate(tried[at].learner.policy(rows, near=near), crossed[at])[0]


def context_only(log: ReplayLog, *, abstain: float | None = None) -> Candidate:
    """Routing that reads nothing: the best tier of each context, or of all queries where there are none."""
    policies: Policies = "chain" if abstain is None else "lattice"
    name = "no readings" if log.contexts is None else "context only"
    return Candidate(name, TableLearner(policies=policies, read=False, abstain=abstain))


def reading_gain(own: CrossFit, blind: CrossFit, budgets: Sequence[float]) -> Estimate:
    """What reading gained over routing without, in the mean over budgets, with an interval of one standard error.

    Where it lost more than that at the budget in use, nothing should be read.  To ask for a gain beyond the error would
    give up what reading earns on small logs, where the error is larger than the gain.
    """
    rows = own.rows()
    return mean_with_interval(_values(own, rows, budgets) - _values(blind, rows, budgets), rows, level=ONE_ERROR)


def budget_grid(log: ReplayLog) -> tuple[float, ...]:
    """The budgets of a comparison."""
    costs = [log.mean(tier.cost) for tier in log.tiers]
    return tuple(min(costs) + share * (max(costs) - min(costs)) for share in SHARES)


def choose(
    tried: Sequence[Candidate], crossed: Sequence[CrossFit], budgets: Sequence[float]
) -> tuple[int, list[Tried]]:
    """The candidate to take, and how each compares with the first.

    That is the first, unless others are better by more than their margins of the paired difference, and by enough to be
    worth a word; of those, the best.  Measured in known worlds and on real logs: leaving the first one any sooner loses
    with few queries, and with many gains what a freer policy can.
    """
    rows = crossed[0].rows()
    values = [_values(each, rows, budgets) for each in crossed]
    compared = [
        Tried(c.name, mean_with_interval(value - values[0], rows, level=math.erf(c.margin / math.sqrt(2.0))))
        for c, value in zip(tried, values, strict=True)
    ]
    clear = [at for at, each in enumerate(compared) if each.gain.low > 0.0 and each.gain.mean >= VISIBLE]
    return max(clear, key=lambda at: compared[at].gain.mean, default=0), compared


def _values(crossed: CrossFit, rows: ReplayLog, budgets: Sequence[float]) -> Floats:
    """Quality of each query, [n], in the mean over budgets.

    What is spent beyond a budget is charged at the slope of the no-information hull.
    """
    hull = no_information_hull(rows)
    total = np.zeros(len(rows))
    for budget in budgets:
        ledger = crossed.ledger(crossed.target(budget))
        low, high, _ = hull.between(budget)
        slope = (high.quality - low.quality) / (high.cost - low.cost) if high.cost > low.cost else 0.0
        over = max(rows.mean(ledger.cost) - budget, 0.0)
        total += ledger.quality - slope * over
    return total / len(budgets)
