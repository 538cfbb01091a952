"""A policy in the shadow of another: what it would have done with a request, as far as what was bought tells."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.decision_log import DecisionLog, decision_lines
from metaverify.policies.exposition import counter
from metaverify.policies.forks import renew_in_children
from metaverify.policies.policy import Policy
from metaverify.policies.routed import Routed
from metaverify.policies.store import PolicyStore

__all__ = ["Shadow", "Shadowed", "follow"]

AS_PLANNED = frozenset({"", "explored", "invalid", "invalid cost"})
"""The reasons of steps that tell what a policy's purchase would have told."""


@dataclass(frozen=True, slots=True)
class Shadowed:
    """One request: what was done with it, and what another policy would have done on the same readings.

    ``then`` is how that policy would have ended; or the purchase that it wanted and nobody made, and from there on
    nothing is known of it.  ``live_cost`` is what the request cost without what was bought to explore, ``cost`` what
    the other policy would have bought of it.
    """

    live: Accept | Abstain
    live_cost: float
    then: Action
    cost: float

    @property
    def identified(self) -> bool:
        """Whether it is known how the other policy would have ended."""
        return isinstance(self.then, (Accept, Abstain))

    @property
    def differs(self) -> bool:
        """Whether another answer would have been returned; where it is not known it would have bought otherwise."""
        return self.then != self.live


def follow(policy: Policy, steps: Sequence[Mapping[str, Any]], *, key: bytes | None = None) -> Shadowed | None:
    """What the policy would have done with a request, given the lines that a decision log has of it, in their order.

    ``key`` is the request's where that is bytes, which a line cannot tell.

    None where something failed, a guard stepped in or the request was broken off: what would have come of another walk
    is not known then.

    Raises:
        ValueError: the policy needs a key, and the request had none.
        TypeError: a reading is none that the policy can use.
    """
    if any(step["reason"] not in AS_PLANNED for step in steps):
        return None
    *purchases, end = steps
    live = Abstain() if end["tier"] is None else Accept(end["tier"])
    live_cost = sum(step["cost"] for step in purchases if step["reason"] != "explored")
    calls = {step["tier"]: step for step in purchases if step["action"] == "call"}
    looks: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for step in purchases:
        if step["action"] == "verify":
            looks.setdefault((step["tier"], step["reading"]), []).append(step)
    readings: dict[str, dict[str, Any]] = {}
    cost = 0.0
    while True:
        action = policy.decide(readings, context=end.get("context"), key=end["key"] if key is None else key)
        match action:
            case Call(tier) if tier in calls:
                readings[tier] = {name: _told(value) for name, value in calls[tier]["confidence"].items()}
                cost += calls[tier]["cost"]
            case Verify(tier, reading) if looks.get((tier, reading)):
                step = looks[tier, reading].pop(0)
                held = readings.setdefault(tier, {})
                held[reading] = _with(held.get(reading), step["confidence"].get(reading), _votes(policy, tier, reading))
                cost += step["cost"]
            case _:
                return Shadowed(live, live_cost, action, cost)


def _votes(policy: Policy, tier: str, reading: str) -> int:
    return next(r.votes for each in policy.tiers if each.name == tier for r in each.readings if r.name == reading)


def _told(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _with(held: Any, told: Any, votes: int) -> Any:
    """A reading with what one more purchase of it told: a vote is counted in, all else is as it was told."""
    if not votes or told is None:
        return told
    yes, asked = held if held is not None else (0, 0)
    more, of = told if isinstance(told, list | tuple) else (int(told), 1)
    return yes + more, asked + of


class Shadow:
    """Counts what a candidate would have done with the requests of a router in use, whose answers stay as they are.

    Give it to the `Router` as its ``log``, or call `put` with each `Routed`.  It buys nothing: where the candidate
    wants what the request did not buy, what would have come of it is not identified, and counted so by what was
    wanted.  With `Exploration`, of which every tier's answer is known, it goes on.

    Args:
        candidate: the policy, or a store that reloads it.
        log: where requests go on to.
    """

    def __init__(self, candidate: Policy | PolicyStore, *, log: DecisionLog | None = None) -> None:
        self._candidate = candidate
        self._next = log
        self._renew()
        renew_in_children(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._costs = [0.0, 0.0]  # of the policy in use and of the candidate, where that is identified

    def put(self, routed: Routed) -> bool:
        """Count a request, and hand it on; False where it could not be handed on.  It never raises."""
        try:
            self._count(routed)
        except Exception as error:  # whatever it is, the request was answered
            with self._lock:
                self._counts["error", type(error).__name__] += 1
        return True if self._next is None else self._next.put(routed)

    def _count(self, routed: Routed) -> None:
        policy = self._candidate.policy if isinstance(self._candidate, PolicyStore) else self._candidate
        key = routed.key if isinstance(routed.key, bytes) else None
        found = follow(policy, [*decision_lines(routed, 0.0)], key=key)
        with self._lock:
            if found is None:
                self._counts["requests", "left out"] += 1
                return
            if not found.identified:
                self._counts["requests", "not identified"] += 1
                self._counts["wanted", _name(found.then)] += 1
                return
            self._counts["requests", "different" if found.differs else "same"] += 1
            self._counts["live", _name(found.live)] += 1
            self._counts["candidate", _name(found.then)] += 1
            self._costs[0] += found.live_cost
            self._costs[1] += found.cost

    def report(self) -> dict[str, Any]:
        """What was counted: requests the same, different, not identified and left out; how both ended and what they
        cost in all, over requests that are identified; what was wanted that nobody had bought; errors by kind."""
        with self._lock:
            counts, costs = dict(self._counts), tuple(self._costs)

        def of(kind: str) -> dict[str, int]:
            return {name: count for (each, name), count in sorted(counts.items()) if each == kind}

        kinds = ("requests", "live", "candidate", "wanted", "error")
        return {**{kind: of(kind) for kind in kinds}, "cost": {"live": costs[0], "candidate": costs[1]}}

    def prometheus(self) -> str:
        """The same in Prometheus' text format."""
        told = self.report()
        return "".join(
            [
                counter("shadow_requests_total", "Requests, by what the candidate did.", told["requests"], "is"),
                counter("shadow_live_total", "How requests that are identified ended.", told["live"], "end"),
                counter("shadow_candidate_total", "How the candidate would have ended.", told["candidate"], "end"),
                counter("shadow_wanted_total", "What it wanted that was not bought.", told["wanted"], "purchase"),
                counter("shadow_cost_total", "What identified requests cost with each.", told["cost"], "policy"),
                counter("shadow_errors_total", "Requests that it could not follow.", told["error"], "kind"),
            ]
        )


def _name(action: Action) -> str:
    """An action in a word or two."""
    match action:
        case Accept(tier):
            return tier
        case Call(tier):
            return f"call {tier}"
        case Verify(tier, reading):
            return f"{reading} of {tier}"
        case _:
            return "abstain"
