"""How much to explore: what it takes to know a policy's value to a wanted precision while another one is running."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.graph import Ask
from metaverify.policies.policy import Policy
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.offpolicy import surpluses
from metaverify.simulators.replay import check_match
from metaverify.simulators.trace import asked_tiers

__all__ = ["ExplorationPlan", "PlannedBin", "plan_exploration"]

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PlannedBin:
    """One place where the new policy goes and the old one does not: its share of traffic, how many explored queries
    are to come to it, and its part of what exploration has to make up for."""

    where: str
    share: float
    explored: float
    part: float


@dataclass(frozen=True, slots=True)
class ExplorationPlan:
    """The rate at which requests are to be explored, what a query costs more for it, and where it is of use."""

    rate: float
    cost: float
    bins: tuple[PlannedBin, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def plan_exploration(new: Policy, old: Policy, log: ReplayLog, *, traffic: int, precision: float) -> ExplorationPlan:
    """The exploration that tells the quality of ``new`` to a standard error of ``precision`` from ``traffic`` queries
    that ``old`` routes.

    With s what a step earned more than was to be expected, the doubly robust estimate of n queries has the variance
    (A + B / rate) / n, where A sums s² over the steps that the old policy takes too, B over the others; both are found
    on a full log, such as the old policy was fitted on.

    Raises:
        LogError: the log lacks what a policy uses.
        ValueError: a precision that so much traffic cannot have, were all of it explored.
    """
    for policy in (new, old):
        check_match(policy, log)
    if not (precision > 0.0 and traffic >= 1):
        raise ValueError(f"precision is {precision} and traffic is {traffic}; give more than 0")
    total = float(log.weights.sum())
    arms = [(old.point.low, 1.0 - old.point.share), (old.point.high, old.point.share)]
    asked = [(asked_tiers(old, log, vertex), share) for vertex, share in arms if share > 0.0]
    common, missed = 0.0, dict[str, list[float]]()
    for vertex, own in ((new.point.low, 1.0 - new.point.share), (new.point.high, new.point.share)):
        if own == 0.0:
            continue
        steps = surpluses(new, log, vertex)
        for called, share in asked:
            inside = np.ones(len(log), dtype=bool)
            for step, surplus, where in steps:
                node = new.nodes[step.node]
                if isinstance(node, Ask):
                    inside[step.rows] &= called[node.tier][step.rows]
                weight = own * share * log.weights[step.rows] / total
                there = inside[step.rows]
                common += float((weight * surplus**2)[there].sum())
                if isinstance(node, Ask) and not there.all():
                    of = missed.setdefault(where, [0.0, 0.0])
                    of[0] += float(weight[~there].sum())
                if not there.all():
                    missed.setdefault(where, [0.0, 0.0])[1] += float((weight * surplus**2)[~there].sum())
    lacking = sum(variance for _, variance in missed.values())
    room = traffic * precision**2 - common
    if lacking > room:
        needed = (common + lacking) / precision**2
        raise ValueError(
            f"{traffic:,} queries cannot tell the quality to {precision:g}, were all of them explored; "
            f"that takes {needed:,.0f}"
        )
    rate = lacking / room if lacking > 0.0 else 0.0
    dear = sum(log.mean(np.where(called[t.name], 0.0, t.cost)) * share for called, share in asked for t in log.tiers)
    bins = (
        PlannedBin(where, share, traffic * rate * share, variance / lacking)
        for where, (share, variance) in missed.items()
        if lacking > 0.0
    )
    return ExplorationPlan(rate, rate * dear, tuple(sorted(bins, key=lambda each: -each.part)))
