"""What may be spent: on one request, and over time, whatever traffic and confidences do."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from metaverify.policies.forks import renew_in_children
from metaverify.policies.graph import Ask, Read, Stop, as_number, successors
from metaverify.policies.policy import Policy

__all__ = [
    "Allowance",
    "Bucket",
    "Guard",
    "Prices",
    "TokenBucket",
    "as_cost",
    "check_flow",
    "dearest_path",
    "dearest_prices",
]

MOST = 1e100
"""The most that anything can cost, in a log too: sums and ratios of larger amounts overflow."""

Prices = Mapping[str | tuple[str, str], float]
"""The most that a purchase can cost: tier -> its answer, (tier, reading) -> that reading, of votes a single one."""


class Bucket(Protocol):
    """What bounds spend over time, this process's (`TokenBucket`) or that of many."""

    @property
    def level(self) -> float:
        """What could be granted now; below 0 while a debt is repaid."""

    def take(self, amount: float) -> bool:
        """Take ``amount`` out if all of it is there."""

    def settle(self, taken: float, spent: float) -> None:
        """Give back what was taken and not spent, or owe what was spent beyond it."""

    def reset(self) -> None:
        """Fill it to the brim and forget what is owed."""


class TokenBucket:
    """Bounds spend over time: what was spent after t seconds is never more than ``rate`` x t + ``burst``.

    What a call costs is known only after it, so its dearest price is taken out before and the rest given back after.
    A call dearer than its dearest price leaves a debt, however large, which is repaid before anything else is granted;
    where it was a slip, such as a cost told in another unit, `reset` forgives it.

    Args:
        rate: cost per second.
        burst: what may be spent at once, and what an idle time saves up to.
        clock: seconds; where it goes back nothing flows in until it is where it was.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        check_flow(rate, burst)
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._level = burst
        self._filled = clock()
        self._renew()
        renew_in_children(self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may ask amid a request

    @property
    def level(self) -> float:
        """What could be granted now; below 0 while a debt is repaid."""
        with self._lock:
            return self._fill()

    def take(self, amount: float) -> bool:
        """Take ``amount`` out if all of it is there."""
        with self._lock:
            granted = amount <= self._fill()
            if granted:
                self._level -= amount
            return granted

    def settle(self, taken: float, spent: float) -> None:
        """Give back what was taken and not spent, or owe what was spent beyond it."""
        with self._lock:
            self._level = min(self._fill() + (taken - spent), self.burst)

    def reset(self) -> None:
        """Fill it to the brim and forget what is owed; the bound begins anew."""
        with self._lock:
            self._filled = max(self._filled, self._clock())
            self._level = self.burst

    def _fill(self) -> float:
        before, self._filled = self._filled, max(self._filled, self._clock())
        self._level = min(self._level + self.rate * (self._filled - before), self.burst)
        return self._level


def check_flow(rate: float, burst: float) -> None:
    """Refuse what bounds nothing.

    Raises:
        ValueError: an amount that is not finite, or below 0; a burst of 0.
    """
    if not (0.0 <= rate < math.inf and 0.0 < burst < math.inf):
        raise ValueError(f"rate {rate} and burst {burst}: give finite amounts, the burst above 0")


@dataclass(frozen=True, slots=True)
class Guard:
    """What a router may spend.

    Args:
        cap: the most that one request may cost.
        bucket: the most that all requests may cost over time.  A `TokenBucket` is this process's; several share a
            budget by having a part of the rate and of the burst each, or all of it in Redis (`RedisBucket`).
        dearest: the most that a purchase can cost, where that is more than the price in the policy's file, which is a
            mean; the bounds hold as far as these do.
        fail_open: whether a request without an answer goes on where a bound forbids it: a cheap answer is then bought
            all the same, and owed to the bucket.  Otherwise it ends without an answer.
    """

    cap: float = math.inf
    bucket: Bucket | None = None
    dearest: Prices = field(default_factory=lambda: MappingProxyType({}))
    fail_open: bool = False

    def __post_init__(self) -> None:
        if not self.cap > 0.0:
            raise ValueError(f"cap is {self.cap}; give the most that a request may cost, above 0")
        for name, price in self.dearest.items():
            if not 0.0 <= price < math.inf:
                raise ValueError(f"the dearest price of {name!r} is {price}; give a finite amount of at least 0")


class Allowance:
    """What one request may still spend: its share of the bucket, below the cap."""

    __slots__ = ("_guard", "_settled", "_taken", "spent")

    def __init__(self, guard: Guard) -> None:
        self.spent = 0.0
        self._guard = guard
        self._taken = 0.0  # out of the bucket, and not settled
        self._settled = 0.0  # of what was spent

    def admit(self, dearest: float) -> bool:
        """Set aside what the whole request may cost at most, the cap if that is less; False where it is not there."""
        amount = min(dearest, self._guard.cap)
        granted = self._guard.bucket is None or self._guard.bucket.take(amount)
        self._taken = amount if granted else 0.0
        return granted

    def refusal(self, price: float) -> str:
        """Why a purchase of at most ``price`` is not allowed, "cap" or "budget"; "" where it is."""
        wanted = self.spent + price
        if wanted > self._guard.cap * (1 + 1e-12):  # sums of prices that are the cap to the last digit
            return "cap"
        missing = wanted - self._taken
        if self._guard.bucket is None or missing <= 1e-12 * wanted:
            return ""
        if not self._guard.bucket.take(missing):
            return "budget"
        self._taken += missing
        return ""

    def close(self) -> None:
        """Give back what was not spent, at the request's end; what is spent after it is owed."""
        if self._guard.bucket is not None:
            self._guard.bucket.settle(self._taken, self.spent - self._settled)
        self._taken, self._settled = 0.0, self.spent


def as_cost(told: Any) -> float | None:
    """What a caller says that something cost, None where that is no amount: a finite number from 0 on.

    It never raises: the purchase was made, whatever is said of it.
    """
    try:
        cost = as_number(told)
    except Exception:
        return None
    return cost if cost is not None and 0.0 <= cost <= MOST else None


def dearest_prices(policy: Policy, dearest: Prices = MappingProxyType({})) -> Prices:
    """The most that each purchase can cost: the price in the policy's file, or more where ``dearest`` says so.

    Raises:
        ValueError: a name in ``dearest`` that the policy does not have.
    """
    listed: dict[str | tuple[str, str], float] = {}
    for tier in policy.tiers:
        listed |= {tier.name: tier.price} if tier.answer else {}
        listed |= {(tier.name, reading.name): reading.price / max(reading.votes, 1) for reading in tier.readings}
    for name in dearest:
        if name not in listed:
            known = ", ".join(map(repr, listed))
            raise ValueError(f"a dearest price of {name!r}, which the policy does not buy; it knows {known}")
    return {name: max(price, dearest.get(name, 0.0)) for name, price in listed.items()}


def dearest_path(policy: Policy, prices: Prices) -> tuple[float, ...]:
    """The most that a walk from each node can cost, one entry a node."""
    listed = {(tier.name, reading.name): reading for tier in policy.tiers for reading in tier.readings}
    ahead = [0.0] * len(policy.nodes)
    for at, node in reversed([*enumerate(policy.nodes)]):
        match node:
            case Stop(_):
                continue
            case Ask(tier, _):
                own = prices[tier]
            case Read(tier, reading, _, _, _):
                of = listed[tier, reading]
                own = prices[tier, reading] * max(of.votes, 1) + sum(prices[tier, part.reading] for part in of.parts)
            case poll:
                own = prices[poll.tier, poll.reading] * len(poll.tallies)
        ahead[at] = own + max(ahead[child] for child in successors(node))
    return tuple(ahead)
