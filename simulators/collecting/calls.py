"""LiteLLM's calls, each of them made once: where it was made before, what came of it is known."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from metaverify.policies.integrations.models import Model
from metaverify.policies.router import Look
from metaverify.simulators.collecting.journal import Kept
from metaverify.simulators.collecting.prices import response_of

__all__ = ["Calls", "Place", "Recorded", "StopError", "Tally", "purpose_of", "sound"]

VOLATILE = frozenset(
    {"api_key", "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "azure_ad_token"}
    | {"vertex_credentials", "input_cost_per_token", "output_cost_per_token", "timeout", "rpm", "tpm"}
    | {"num_retries", "max_retries"}
)
"""Parameters that do not change what a model answers: with others a call is still the same."""


class StopError(Exception):
    """Nothing more can be asked now, and why; ``capped`` where the cap is reached."""

    def __init__(self, why: str, capped: bool = False) -> None:
        super().__init__(why)
        self.capped = capped


@dataclass(slots=True)
class Tally:
    """Calls that were made for one purpose, those of them that this run made, and what all cost in dollars; ``priced``
    is False where that is not known of all, ``failed`` has the others by reason."""

    calls: int = 0
    bought: int = 0
    dollars: float = 0.0
    priced: bool = True
    failed: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Place:
    """What a call is for: a query, and an answer or a reading of it.

    Calls of one query take ``turn``.  ``asked`` counts calls in the same words, ``failed`` those that did.
    """

    query: str
    purpose: str
    turn: asyncio.Lock
    asked: Counter[str] = field(default_factory=Counter)
    failed: int = 0


_PLACE: ContextVar[Place] = ContextVar("place")


def purpose_of(tier: str, reading: str | None = None) -> str:
    """What the calls for an answer, or for a reading of it, are counted under."""
    return tier if reading is None else f"{tier} {reading}"


@dataclass(frozen=True, slots=True)
class Recorded(Model):
    """A model whose calls ``calls`` makes; seconds for each, the most dollars that one can cost, where that is told."""

    calls: Calls | None = None
    timeout: float | None = None
    dearest: float | None = None

    async def complete(self, messages: Sequence[Any], **params: Any) -> Any:
        """As `Model.complete`, once for all runs."""
        assert self.calls is not None
        return await self.calls.complete(self, messages, params)


class Calls:
    """All calls of a collection, of earlier runs too.

    ``tally`` counts by purpose.  Where nothing more can be asked, ``stopped`` says why.  ``said`` is called after each
    call.  How a call is made is for who inherits: ``_bought`` is what it brings, and ``_keep`` keeps what a verifier
    said that asked others than LiteLLM.
    """

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.tally: dict[str, Tally] = {}
        self.stopped: StopError | None = None
        self.said: Callable[[], None] = lambda: None

    @property
    def paid(self) -> float:
        """Dollars of all calls that are finished."""
        return math.fsum(value.get("dollars") or 0.0 for value in self.kept.done.values())

    @property
    def lost(self) -> list[float]:
        """The most dollars that each of those calls cost of which nobody knows what became."""
        return [amount for of in self.kept.lost.values() for amount in of]

    def stop(self, why: str, capped: bool = False) -> StopError:
        """Nothing more is asked; what to raise where something is."""
        self.stopped = self.stopped or StopError(why, capped)
        return self.stopped

    @contextmanager
    def made_for(self, place: Place) -> Iterator[None]:
        """Inside, calls are made for this."""
        before = _PLACE.set(place)
        try:
            yield
        finally:
            _PLACE.reset(before)

    async def ask(self, place: Place, model: Recorded, messages: Sequence[Any], **params: Any) -> Any:
        """What a model answers there.

        Raises:
            StopError: nothing more is asked.
            Exception: what the call failed with.
        """
        with self.made_for(place):
            return await model.complete(messages, **params)

    async def look(self, place: Place, asked: object, read: Callable[[], Awaitable[Look]], dollars: float) -> Look:
        """What a verifier says there.  Where it asks LiteLLM its calls are in the journal, else what it says is.

        Raises:
            StopError: nothing more is asked.
            Exception: what it failed with.
        """
        key = _digest([place.query, place.purpose, asked])
        kept = self.kept.done.get(key)
        if kept is not None:
            self._count(place, kept, bought=False)
            return Look(kept["confidence"], kept["cost"])
        with self.made_for(place):
            told = await read()
        look = sound(told)
        if self.stopped is not None and place.failed:  # of which a verifier may have made less of a reading
            raise self.stopped
        if not place.asked:
            paid = None if look.cost is None else look.cost * dollars
            said = {"confidence": look.confidence, "cost": look.cost, "dollars": paid}
            self._keep(key, said)
            self._count(place, said, bought=True)
        return look

    async def complete(self, model: Recorded, messages: Sequence[Any], params: Mapping[str, Any]) -> Any:
        """A call of `Recorded`."""
        place = _PLACE.get()
        key = _key(place, model, messages, params)
        async with place.turn:
            kept = self.kept.done.get(key)
            bought = kept is None
            try:
                kept = kept or await self._bought(key, place, model, messages, params)
            except Exception:
                place.failed += 1
                raise
            self._count(place, kept, bought)
            return response_of(kept)

    def _count(self, place: Place, kept: Mapping[str, Any], bought: bool) -> None:
        tally = self.of(place.purpose)
        tally.calls += 1
        tally.bought += bought
        tally.dollars += kept["dollars"] or 0.0
        tally.priced = tally.priced and kept["dollars"] is not None
        self.said()

    def of(self, purpose: str) -> Tally:
        """What was bought for a purpose."""
        return self.tally.setdefault(purpose, Tally())

    async def _bought(
        self, key: str, place: Place, model: Recorded, messages: Sequence[Any], params: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        raise NotImplementedError

    def _keep(self, key: str, said: Mapping[str, Any]) -> None:
        raise NotImplementedError


def sound(told: Look) -> Look:
    """What a verifier told, as far as its confidence and its cost are numbers that they can be."""
    return Look(_number(told.confidence, most=1.0), _number(told.cost))


def _number(told: Any, most: float = math.inf) -> float | None:
    """The number from 0 on, None where it is none; True is none."""
    with suppress(TypeError, ValueError, OverflowError):
        number = math.nan if isinstance(told, bool | str) else float(told)
        return number if 0.0 <= number <= most and number < math.inf else None
    return None


def _key(place: Place, model: Model, messages: Sequence[Any], params: Mapping[str, Any]) -> str:
    """The name of a call: the same in every run, another for the next one in the same words."""
    told = {name: value for name, value in {**model.litellm_params, **params}.items() if name not in VOLATILE}
    words = _digest([place.query, place.purpose, told, [*messages]])
    place.asked[words] += 1
    return words if place.asked[words] == 1 else f"{words}-{place.asked[words]}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
