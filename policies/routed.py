"""What became of one request: every step, what it cost, and why it ended as it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metaverify.policies.actions import Abstain, Accept, Action
from metaverify.policies.episode import Told
from metaverify.policies.store import Snapshot

__all__ = ["RESERVED", "UNBOUGHT", "Routed", "Step"]

UNBOUGHT = frozenset({"cap", "budget", "known down", "unanswered", "busy"})
"""The reasons of steps that were not even tried."""

RESERVED = UNBOUGHT | {"interrupted", "cancelled", "fallback", "explored", "invalid", "invalid cost"}
"""The reasons that only a router gives; a `Failure` with one of them is told as "failed: cap", say."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done.

    ``reason`` is "" where it is what the policy asked for and it went well.  Otherwise nothing came of it: "timeout",
    "error", or the reason of a `Failure`; "interrupted" where the request was "cancelled" meanwhile, which is the
    reason of its end; "cap" or "budget" where a guard forbade it; "known down" where the caller had said so;
    "unanswered" where it needs an answer that failed; "busy" where no thread was free.  Or it went well but was not
    asked for by the policy, "fallback" or "explored"; or a reading was no number and was taken as missing, "invalid";
    or what it is said to have cost is no amount, "invalid cost", for which the dearest price was charged.

    ``readings`` is what was told, ``cost`` what the step cost and ``spent`` the sum so far.  ``without`` has the tiers
    that are down, sorted, where the graph that asked for the step is the one that was solved for that.  ``told`` says
    whether the caller told what it cost; otherwise that is a price of the policy's file.
    """

    action: Action
    readings: Mapping[str, Told]
    cost: float
    spent: float
    propensity: float | None
    reason: str = ""
    without: tuple[str, ...] = ()
    told: bool = True


@dataclass(frozen=True, slots=True)
class Routed:
    """A request's end.

    ``answer`` is that of ``tier``, and both are None where the request is handed over: the policy abstains, nothing
    answered, or a guard forbade it (see ``reasons``).  ``vertex`` is the graph that was followed; the propensity of a
    step is the chance, before the draw by key, of a graph that would have done all steps so far; None where a guard
    moved the request to a cheaper graph.  Where requests are explored, that of a call is the chance that the tier was
    called by this graph or to explore it: 1 where the graph wanted it, the request's rate where not.  ``unseen`` has
    that of the tiers that were not called, where the request came to the answer that the policy settled on.  The graph
    is drawn by key, whatever the request, so these tell all that is needed to value another policy, and are right
    whatever the two graphs have in common.
    """

    answer: Any
    tier: str | None
    steps: tuple[Step, ...]  # the last one is how it ended
    snapshot: Snapshot
    vertex: int
    key: str | bytes | int | None = None
    context: str | None = None
    unseen: Mapping[str, float] = field(default_factory=dict)

    @property
    def action(self) -> Accept | Abstain:
        """How it ended."""
        return Abstain() if self.tier is None else Accept(self.tier)

    @property
    def cost(self) -> float:
        """What all steps cost."""
        return self.steps[-1].spent

    @property
    def serial(self) -> int:
        """Which edition of the policy's file was followed."""
        return self.snapshot.serial

    @property
    def without(self) -> tuple[str, ...]:
        """The tiers that were down, where the request ended in a graph that was solved for that."""
        return self.steps[-1].without

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it went otherwise than the policy planned, in order; nothing where it did not."""
        return tuple(step.reason for step in self.steps if step.reason)
