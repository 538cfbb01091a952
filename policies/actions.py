"""What a policy can ask for: the whole set of actions."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Abstain", "Accept", "Action", "Call", "Verify"]


@dataclass(frozen=True, slots=True)
class Call:
    """Ask a tier for its answer."""

    tier: str


@dataclass(frozen=True, slots=True)
class Verify:
    """Read a confidence in an answer that is in hand."""

    tier: str
    reading: str


@dataclass(frozen=True, slots=True)
class Accept:
    """Return a tier's answer: any answer in hand, not only the last."""

    tier: str


@dataclass(frozen=True, slots=True)
class Abstain:
    """Return no answer: hand the query over to a person."""


Action = Call | Verify | Accept | Abstain
