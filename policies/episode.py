"""One request, without input or output: the caller does what `action` says and tells what came back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.policy import Policy

__all__ = ["Episode", "EpisodeError"]


Told = float | tuple[int, int] | None
"""A reading as it was told: a confidence, votes as (yes, asked), or None where it is missing."""


class EpisodeError(RuntimeError):
    """Something was told that the pending action did not ask for; the episode is as it was before."""


class Episode:
    """The decision loop as a state machine.

    Args:
        policy: what decides; the episode keeps it even if a newer one is loaded meanwhile, and goes on with
            `Policy.without` where a call fails.
        context: what is known before any call.
        key: the request's id.

    Example:
        >>> from metaverify.policies.policy import OperatingPoint, Policy, Vertex
        >>> from metaverify.policies.graph import Ask, Stop
        >>> from metaverify.policies.tiers import Tier
        >>> nodes = (Ask("small", 1), Stop(Accept("small")))
        >>> policy = Policy((Tier("small", 1.0),), nodes, (Vertex(0.0, 1.0, 0.7, 0),), OperatingPoint(0, 0, 0.0))
        >>> episode = Episode(policy)
        >>> episode.action
        Call(tier='small')
        >>> episode.answered({"self_verify": 0.4})
        Accept(tier='small')
        >>> episode.done
        True
    """

    def __init__(
        self, policy: Policy, *, context: str | Mapping[str, Any] | None = None, key: str | bytes | int | None = None
    ) -> None:
        self.policy = policy
        self._context = context
        self._key = key
        self._readings: dict[str, dict[str, Told]] = {}
        self._votes = {Verify(tier.name, r.name) for tier in policy.tiers for r in tier.readings if r.votes}
        self._failed: frozenset[str] = frozenset()
        self._without: frozenset[str] = frozenset()
        self._steps: list[Action] = []
        self._action = self._next(self._readings)

    @property
    def action(self) -> Action:
        """What to do now."""
        return self._action

    @property
    def done(self) -> bool:
        """Whether `action` is the last one."""
        return isinstance(self._action, (Accept, Abstain))

    @property
    def steps(self) -> tuple[Action, ...]:
        """What was done so far, in order."""
        return tuple(self._steps)

    @property
    def without(self) -> frozenset[str]:
        """The tiers that failed, where the policy was solved for that and decides without them from then on."""
        return self._without

    @property
    def readings(self) -> dict[str, dict[str, Told]]:
        """What has been read so far."""
        return {tier: dict(given) for tier, given in self._readings.items()}

    def answered(self, readings: Mapping[str, Told] | None = None) -> Action:
        """The tier that was to be called has answered, with these readings; returns the next action.

        Raises:
            EpisodeError: no call is pending.
            TypeError: the readings are no mapping, or one is no number.
        """
        if not isinstance(self._action, Call):
            raise EpisodeError(f"no answer is awaited: the pending action is {self._action}")
        if readings is not None and not isinstance(readings, Mapping):
            raise TypeError(f"the readings of an answer are {readings!r}; give them by name, as in {{'conf': 0.4}}")
        return self._advance({**self._readings, self._action.tier: {} if readings is None else dict(readings)})

    def failed(self) -> Action:
        """The tier that was to be called is down; returns the next action.

        Where the policy was solved for the outage of the tiers that failed, it begins anew with what is best then, and
        with everything that is known.  Otherwise it goes on as if the tier had answered and every reading of it were
        missing, and may accept an answer that is not there.

        Raises:
            EpisodeError: no call is pending.
        """
        if not isinstance(self._action, Call):
            raise EpisodeError(f"no call is awaited: the pending action is {self._action}")
        failed = self._failed | {self._action.tier}
        try:
            policy, without, readings = self.policy.without(*failed), failed, self._readings
        except ValueError:  # it was not solved for that
            policy, without = self.policy, self._without
            readings = {**self._readings, self._action.tier: {}}
        following = policy.decide(readings, context=self._context, key=self._key)  # may read what was not read before
        self.policy, self._without, self._failed = policy, without, failed
        self._steps.append(self._action)
        self._readings, self._action = readings, following
        return following

    def read(self, confidence: float | None) -> Action:
        """The reading that was to be bought came out as this, None where it failed; returns the next action.

        Where votes are asked for this is one vote, True or False (or 1 or 0).

        Raises:
            EpisodeError: no reading is pending.
            TypeError: a vote that is neither yes nor no nor None.
        """
        if not isinstance(self._action, Verify):
            raise EpisodeError(f"no reading is awaited: the pending action is {self._action}")
        tier, reading = self._action.tier, self._action.reading
        before = self._readings.get(tier, {})
        told: float | tuple[int, int] | None = confidence
        if self._action in self._votes and confidence is not None:
            if confidence not in (0, 1):
                raise TypeError(f"the vote {reading!r} of {tier!r} is {confidence!r}, not True, False or None")
            yes, asked = before.get(reading) or (0, 0)  # type: ignore[misc]
            told = (yes + int(confidence), asked + 1)
        return self._advance({**self._readings, tier: {**before, reading: told}})

    def _advance(self, readings: dict[str, dict[str, Told]]) -> Action:
        following = self._next(readings)
        self._steps.append(self._action)
        self._readings, self._action = readings, following
        return following

    def _next(self, readings: dict[str, dict[str, Told]]) -> Action:
        return self.policy.decide(readings, context=self._context, key=self._key)
