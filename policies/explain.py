"""Why a policy decides as it does: the walk, what was believed at its end, and what each action was worth there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from metaverify.policies.actions import Accept, Action, Call, Verify
from metaverify.policies.certificate import Certificate, certificate_text
from metaverify.policies.graph import (
    Ask,
    Poll,
    Read,
    Stop,
    Unread,
    all_votes,
    as_confidence,
    as_votes,
    nearest_tally,
    reading_in_hand,
)
from metaverify.policies.policy import Belief, Policy, Vertex
from metaverify.policies.tiers import Tier

__all__ = ["Explanation", "Look", "explain", "interval_text", "unknown_readings"]


@dataclass(frozen=True, slots=True)
class Look:
    """One reading on the way: where it fell, and what is believed of queries for which it falls there."""

    tier: str
    reading: str
    confidence: float | None  # None where it is missing
    low: float | None  # the interval it fell in; None where it is open or the reading is missing
    high: float | None
    belief: Belief | None
    votes: tuple[int, int] | None = None  # (yes, asked) where they were asked for; confidence is then their share


@dataclass(frozen=True, slots=True)
class Explanation:
    """An action, and how the policy came to it.

    ``share`` is the share of requests that follow the same graph; ``price`` is what that graph pays, in quality per
    unit of cost.  ``quality`` is the expected quality of each tier's answer as far as is known by now, and ``worth``
    of each action that was open: expected quality less price x expected cost from here on.  Both are empty before
    anything was read and where the file holds no beliefs.  ``rival`` is the action that is worth most by these figures
    where that is not the one taken.
    """

    action: Action
    vertex: int
    share: float
    price: float
    looks: tuple[Look, ...]
    quality: Mapping[str, float]
    worth: Mapping[str, float]
    context: str | None = None
    context_known: bool | None = None  # False: the pooled graph was taken; None: no context was given
    rival: str | None = None
    certificate: Certificate | None = None  # of the operating point

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {**asdict(self), "action": action_json(self.action)}

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def explain(
    policy: Policy,
    readings: Mapping[str, Any],
    *,
    context: str | Mapping[str, Any] | None = None,
    key: str | bytes | int | None = None,
) -> Explanation:
    """The decision that `Policy.decide` makes on the same arguments, explained; raises as it does."""
    action = policy.decide(readings, context=context, key=key)
    vertex = policy.arm(key)
    corner = policy.vertices[vertex]
    looks: list[Look] = []
    tiers = {tier.name: tier for tier in policy.tiers}
    label = None if context is None else policy.context_of(context)
    at = corner.root if label is None else corner.context_roots.get(label, corner.root)
    while not isinstance(node := policy.nodes[at], Stop):
        if node.tier not in readings:
            break
        if isinstance(node, Ask):
            at = node.then
            continue
        given = reading_in_hand(tiers[node.tier], node.reading, readings[node.tier])
        if isinstance(given, Unread):
            break
        look, after = _look(tiers[node.tier], corner, at, node, given)
        looks += [] if look is None else [look]
        if after is None:
            break
        at = after
    belief = looks[-1].belief if looks else None
    names = [tier.name for tier in policy.tiers]
    point = policy.point
    share = 1.0 if point.low == point.high else point.share if vertex == point.high else 1.0 - point.share
    known_quality = () if belief is None else zip(names, belief.quality, strict=True)
    quality = {name: value for name, value in known_quality if value is not None}
    worth = {} if belief is None else _worth(policy, readings, belief)
    known = None if label is None else label in corner.context_roots
    best = max(worth, key=worth.__getitem__, default=None)
    taken = worth.get(_open_action(action, readings, policy))
    rival = None if best is None or taken is None or worth[best] <= taken else best
    return Explanation(
        action, vertex, share, corner.price, tuple(looks), quality, worth, label, known, rival, policy.certificate
    )


def _look(tier: Tier, vertex: Vertex, at: int, node: Read | Poll, given: Any) -> tuple[Look | None, int | None]:
    """What a reading says at a node, None where no vote was asked for yet, and the node after it, None where it is to
    be asked for one more."""
    beliefs = vertex.beliefs.get(at)
    votes = next(r.votes for r in tier.readings if r.name == node.reading)
    if votes:
        return _look_at_votes(beliefs, node, votes, as_votes(given, node.tier, node.reading))
    assert isinstance(node, Read), "only votes are polled"
    given = as_confidence(given, node.tier, node.reading)
    usable = 0.0 <= given <= 1.0
    cell = sum(given >= cut for cut in node.cuts) if usable else len(node.then)
    low = node.cuts[cell - 1] if usable and cell > 0 else None
    high = node.cuts[cell] if usable and cell < len(node.cuts) else None
    belief = None if beliefs is None else beliefs[cell]
    look = Look(node.tier, node.reading, given if usable else None, low, high, belief)
    return look, node.then[cell] if usable else node.missing


def _look_at_votes(
    beliefs: tuple[Belief, ...] | None, node: Read | Poll, votes: int, told: tuple[int, int] | None
) -> tuple[Look | None, int | None]:
    poll = all_votes(node, votes) if isinstance(node, Read) else node
    if told is None:
        return Look(node.tier, node.reading, None, None, None, None if beliefs is None else beliefs[-1]), node.missing
    if told[1] == 0:
        return None, None
    yes, asked = nearest_tally(*told, len(poll.tallies))
    tally = poll.tallies[asked - 1]
    cell = sum(yes >= cut for cut in tally.cuts)
    belief = None
    if beliefs is not None and isinstance(node, Poll):
        belief = beliefs[sum(len(before.then) for before in poll.tallies[: asked - 1]) + cell]
    elif beliefs is not None and isinstance(node, Read) and asked == votes:
        belief = beliefs[sum(yes / votes >= cut for cut in node.cuts)]
    return Look(node.tier, node.reading, told[0] / told[1], None, None, belief, told), tally.then[cell]


def _worth(policy: Policy, readings: Mapping[str, Any], belief: Belief) -> dict[str, float]:
    worth = {
        f"accept {tier.name}": quality
        for tier, quality in zip(policy.tiers, belief.quality, strict=True)
        if tier.name in readings and quality is not None
    }
    if policy.abstain is not None:
        worth["abstain"] = policy.abstain
    for tier, value in zip(policy.tiers, belief.worth, strict=True):
        if value is not None:
            worth[_going_on(tier, readings)] = value
    return worth


def _going_on(tier: Tier, readings: Mapping[str, Any]) -> str:
    """The next rung of a tier, as `worth` names it."""
    return f"{'read on at' if tier.name in readings else 'call' if tier.answer else 'read'} {tier.name}"


def _open_action(action: Action, readings: Mapping[str, Any], policy: Policy) -> str:
    """An action, as `worth` names it."""
    match action:
        case Call(name) | Verify(name, _):
            return _going_on(next(tier for tier in policy.tiers if tier.name == name), readings)
        case Accept(name):
            return f"accept {name}"
        case _:
            return "abstain"


def action_json(action: Action) -> dict[str, str]:
    """An action in plain types, as the command line prints it."""
    match action:
        case Call(tier):
            return {"action": "call", "tier": tier}
        case Verify(tier, reading):
            return {"action": "verify", "tier": tier, "reading": reading}
        case Accept(tier):
            return {"action": "accept", "tier": tier}
        case _:
            return {"action": "abstain"}


def action_text(action: Action) -> str:
    """An action in words."""
    match action:
        case Call(tier):
            return f"call {tier}"
        case Verify(tier, reading):
            return f"read {reading} of {tier}"
        case Accept(tier):
            return f"accept the answer of {tier}"
        case _:
            return "abstain"


def interval_text(name: str, low: float | None, high: float | None) -> str:
    """An interval of a reading in words.

    Example:
        >>> interval_text("conf", 0.4, None)
        'conf >= 0.4'
        >>> interval_text("conf", 0.4, 0.9)
        '0.4 <= conf < 0.9'
    """
    if low is None and high is None:
        return f"any {name}"
    if low is None:
        return f"{name} < {high!r}"
    return f"{name} >= {low!r}" if high is None else f"{low!r} <= {name} < {high!r}"


def _lines(explanation: Explanation) -> list[str]:
    lines = [action_text(explanation.action)]
    if explanation.context is not None:
        graph = "its own graph" if explanation.context_known else "not known to the policy, so the pooled graph"
        lines.append(f"  context {explanation.context}: {graph}")
    for look in explanation.looks:
        where = "missing"
        if look.votes is not None:
            where = "{} of {} yes".format(*look.votes)
        elif look.confidence is not None:
            where = f"{look.confidence:g}, in the interval {interval_text(look.reading, look.low, look.high)}"
        lines.append(f"  {look.reading} of {look.tier} is {where}")
    if explanation.quality:
        known = ", ".join(f"{name} {value:.3f}" for name, value in explanation.quality.items())
        lines.append(f"  expected quality of each answer, for queries like this: {known}")
        best = ", ".join(f"{name} {value:.3f}" for name, value in explanation.worth.items())
        lines.append(f"  worth of each action (quality less price x cost to come): {best}")
    if explanation.rival is not None:
        lines.append(
            f"  {explanation.rival} looks better here, but the policy was kept simpler than these figures: it has one "
            "branch for queries that it treats nearly as well alike"
        )
    part = "all requests" if explanation.share == 1.0 else f"{explanation.share:.1%} of requests"
    lines.append(
        f"  graph {explanation.vertex}, followed by {part}, pays {explanation.price:.4g} of quality per unit cost"
    )
    lines.append(f"  {certificate_text(explanation.certificate)}")
    return lines


def unknown_readings(policy: Policy, readings: Mapping[str, Any]) -> list[str]:
    """Which readings the policy does not know, a sentence each; it decides without them, since a log may have had more.

    A tier that it does not know is refused by `Policy.decide`.
    """
    from metaverify.policies.names import did_you_mean

    known = {tier.name: [reading.name for reading in tier.readings] for tier in policy.tiers}
    return [
        f"reading {name!r} of {tier!r} is not one that the policy knows ({', '.join(known[tier]) or 'none'}), and"
        f" changes nothing{did_you_mean(name, known[tier])}"
        for tier, given in readings.items()
        for name in (given if isinstance(given, Mapping) else ())
        if name not in known[tier]
    ]
