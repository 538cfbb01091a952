"""Calls that are made and paid for: within a cap and limits, tried again where that may help, kept in the journal."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from metaverify.policies.integrations.models import Model
from metaverify.simulators.collecting.calls import Calls, Place, Recorded
from metaverify.simulators.collecting.cap import Cap, CapReachedError
from metaverify.simulators.collecting.journal import Journal
from metaverify.simulators.collecting.prices import as_json, count_tokens, price_of

__all__ = ["Limits", "Purchases", "unpriced"]

LOGGER = logging.getLogger("metaverify")

HOPELESS = (401, 403, 404)  # no other call of this model will do better
LATER = (408, 409, 425, 429)  # and from 500 on: the same call may do better
UNKNOWN = ("Timeout", "TimeoutError", "APIConnectionError")  # nobody knows whether such a call was paid
IN_A_ROW = 10  # failures of a model, after which it is taken to be down
LONGEST_PAUSE = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """How many queries are under way at once, and calls of one model by its name; how often a call is tried; seconds
    before it is tried again, twice as many each time."""

    at_once: int = 8
    by_model: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    tries: int = 6
    pause: float = 1.0


class Purchases(Calls):
    """Calls that LiteLLM makes.

    They stop where a model will not answer whatever it is asked.  Where a call does not fit under the cap, those that
    do are still made, so that queries that have begun may end.

    Args:
        journal: what was bought, and what will be.
        cap: the most dollars, of all runs; see `Cap`.
        limits: of calls at once, and of tries.
    """

    def __init__(self, journal: Journal, cap: float = math.inf, limits: Limits | None = None) -> None:
        super().__init__(journal)
        self.journal, self.limits = journal, limits or Limits()
        self.cap = Cap(cap, self.paid + math.fsum(self.lost))
        self._rooms = {name: asyncio.Semaphore(most) for name, most in self.limits.by_model.items()}
        self._answered: set[str] = set()
        self._in_a_row: Counter[str] = Counter()
        self._draw = random.Random()  # of pauses only

    def _keep(self, key: str, said: Mapping[str, Any]) -> None:
        self.journal.end(key, said)
        self.cap.spent += said["dollars"] or 0.0

    async def _bought(
        self, key: str, place: Place, model: Recorded, messages: Sequence[Any], params: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """What a call brings, tried until it does; see `Limits`."""
        dearest = self._dearest(model, messages, params)
        for tried in range(1, self.limits.tries + 1):
            if self.stopped is not None and not self.stopped.capped:  # what fits under a cap is still bought
                raise self.stopped
            try:
                async with self._rooms.get(model.name) or nullcontext():
                    kept = await self._tried(key, dearest, model, messages, params)
                self._in_a_row[model.name] = 0
                self._answered.add(model.name)
                return kept
            except CapReachedError as error:
                raise self.stop(str(error), capped=True) from error
            except Exception as error:
                later = _may_do_better(error)
                if not later or tried == self.limits.tries:
                    self._failed(place, model, error, later)
                    raise
                await asyncio.sleep(self._pause(error, tried))
        raise AssertionError("a call is tried once at least")

    async def _tried(
        self, key: str, dearest: float, model: Recorded, messages: Sequence[Any], params: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        await self.cap.reserve(dearest, model.name)
        paid = dearest  # where nobody knows
        try:
            self.journal.begin(key, dearest)
            async with asyncio.timeout(model.timeout):
                response = await Model.complete(model, messages, **{"num_retries": 0, "max_retries": 0, **params})
            kept = as_json(response)
            self.journal.end(key, kept)
            paid = dearest if kept["dollars"] is None else kept["dollars"]
        except Exception as error:
            if type(error).__name__ not in UNKNOWN and getattr(error, "status_code", None):
                self.journal.refuse(key)
                paid = 0.0
            raise
        finally:
            await self.cap.settle(dearest, paid)
        return kept

    def _dearest(self, model: Recorded, messages: Sequence[Any], params: Mapping[str, Any]) -> float:
        """The most dollars that a call can cost, 0 where that is not known and nothing depends on it."""
        if model.dearest is not None:
            return model.dearest
        dearest = price_of(model, params).dearest(count_tokens(model, messages))
        if dearest is None and self.cap.limit < math.inf:
            raise self.stop(unpriced(model.name, self.cap.limit))
        return dearest or 0.0

    def _failed(self, place: Place, model: Recorded, error: Exception, later: bool) -> None:
        """Count a call that failed, and stop where others would too."""
        name, reason = model.name, type(error).__name__
        LOGGER.warning("%s of query %s failed: %s: %s", place.purpose, place.query, reason, error)
        self.of(place.purpose).failed[reason] += 1
        self._in_a_row[name] += 1
        down = self._in_a_row[name] >= IN_A_ROW and (later or name not in self._answered)
        if down or getattr(error, "status_code", None) in HOPELESS:
            raise self.stop(f"{name} does not answer: {reason}: {str(error)[:300]}") from error

    def _pause(self, error: Exception, tried: int) -> float:
        """Seconds until the next try: what the provider asks for, else twice as many as before, and some by chance."""
        headers = getattr(getattr(error, "response", None), "headers", None) or {}
        with suppress(ValueError):
            return min(max(float(headers.get("retry-after") or ""), 0.0), LONGEST_PAUSE)
        return min(self.limits.pause * 2.0 ** (tried - 1), LONGEST_PAUSE) * (0.5 + self._draw.random())


def unpriced(name: str, cap: float) -> str:
    """What is said of a model whose calls have no known bound."""
    return (
        f"--cap {cap:g}: nobody knows what a call of {name} can cost; give its litellm_params input_cost_per_token, "
        "output_cost_per_token and max_tokens"
    )


def _may_do_better(error: Exception) -> bool:
    status = getattr(error, "status_code", None)
    return isinstance(error, TimeoutError | ConnectionError) or (
        isinstance(status, int) and (status in LATER or status >= 500)
    )
