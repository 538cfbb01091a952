"""Walks of a policy over a partial log: as far as what was seen leads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Poll, Read, Stop
from metaverify.policies.policy import Policy
from metaverify.simulators.log import LogError, LoggedReading
from metaverify.simulators.partial import PartialLog, Sighting
from metaverify.simulators.replay import divide, readings_of, start

__all__ = ["Step", "walks"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One purchase, or the end, of a policy's walks: a node, and the queries that come to it.

    ``before`` is the chance that everything on the way was seen, ``through`` that this was seen too; NaN where that is
    not known.  ``last`` has the reading that they were told apart by.
    """

    node: int
    rows: Ints  # [m]
    seen: Bools  # [m]
    before: Floats  # [m]
    through: Floats  # [m]
    cost: Floats  # [m], of what is bought; NaN where it was not seen
    quality: Floats | None  # [m], where an answer is accepted or the query handed over
    last: Floats  # [m], NaN where none was read

    @property
    def inverse(self) -> Floats:
        """1 over the chance of what was seen, [m]; 0 where it was not."""
        return np.divide(1.0, self.through, out=np.zeros(len(self.rows)), where=self.seen)

    @property
    def drawn(self) -> Floats:
        """The root of what a query that was seen adds to the variance of a sum for each unit that it earned more than
        was expected, because it might not have been seen, [m]; 0 where it was certain to be."""
        given = np.divide(self.through, self.before, out=np.ones(len(self.rows)), where=self.seen)
        return self.inverse * np.sqrt(np.maximum(1.0 - given, 0.0))


def walks(policy: Policy, partial: PartialLog, vertex: int) -> Iterator[Step]:
    """The purchases and ends to which the policy's graph at one vertex leads, each after all that lead to it.

    A query goes on as long as what the graph wants was seen.

    Raises:
        LogError: the policy asks for votes one by one, or buys samples.
    """
    log = partial.log
    tiers = {tier.name: tier for tier in log.tiers}
    columns = readings_of(policy, log)
    chance = np.ones(len(log))
    last = np.full(len(log), np.nan)
    waiting: dict[int, list[Ints]] = {node: [rows for rows, _ in of] for node, of in start(policy, log, vertex).items()}
    while waiting:
        at = min(waiting)
        rows = np.concatenate(waiting.pop(at))
        if not len(rows):
            continue
        node = policy.nodes[at]
        match node:
            case Stop(action):
                worth = np.full(len(rows), policy.abstain or 0.0)
                label = None
                if isinstance(action, Accept):
                    worth, label = tiers[action.tier].correct[rows], partial.labels[action.tier].take(rows)
                yield _step(at, rows, chance, label, np.zeros(len(rows)), worth, last, times=True)
            case Ask(tier, then):
                step = _step(at, rows, chance, partial.answers[tier].take(rows), tiers[tier].cost[rows], None, last)
                yield step
                go = rows[step.seen]
                chance[go] = step.through[step.seen]
                waiting.setdefault(then, []).append(go)
            case Read(tier, reading, cuts, then, missing):
                column = columns[tier, reading]
                _check(column, tier)
                if (tier, reading) in partial.readings:
                    step = _step(
                        at, rows, chance, partial.readings[tier, reading].take(rows), column.paid[rows], None, last
                    )
                    yield step
                    rows = rows[step.seen]
                    chance[rows] = step.through[step.seen]
                last[rows] = column.confidence[rows]
                for child, group in divide(column, rows, cuts, then, missing):
                    waiting.setdefault(child, []).append(rows[group])
            case Poll(tier, reading, _, _):
                raise LogError(
                    "E_POLICY",
                    f"the policy asks for votes of {tier!r} one by one, of which a partial log knows too little",
                )


def _check(column: LoggedReading, tier: str) -> None:
    if column.correct is not None:
        raise LogError("E_POLICY", f"the policy buys the sample {column.name!r} of {tier!r}; replay it on a full log")


def _step(
    at: int,
    rows: Ints,
    chance: Floats,
    sighting: Sighting | None,
    cost: Floats,
    quality: Floats | None,
    last: Floats,
    *,
    times: bool = False,
) -> Step:
    before = chance[rows]
    if sighting is None:
        return Step(at, rows, np.ones(len(rows), dtype=bool), before, before, cost, quality, last[rows])
    through = before * sighting.chance if times else np.minimum(before, sighting.chance)
    return Step(at, rows, sighting.seen, before, through, cost, quality, last[rows])
