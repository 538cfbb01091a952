"""A cascade of LiteLLM's models: the router, with calls and readings that LiteLLM makes."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import litellm

from metaverify.policies.decision_log import DecisionLog, decision_lines
from metaverify.policies.exploration import load_exploration
from metaverify.policies.file import load_policy
from metaverify.policies.guards import Guard, TokenBucket, dearest_prices
from metaverify.policies.integrations.chunks import response_of, said_in
from metaverify.policies.integrations.models import Model, Request, is_empty
from metaverify.policies.integrations.settings import CascadeSettings, ReadingSettings, SettingsError
from metaverify.policies.integrations.verifiers import Verifier, find_verifier, in_thread, with_model
from metaverify.policies.monitor import Monitor
from metaverify.policies.policy import BudgetError, Policy, point_at_budget
from metaverify.policies.routed import Routed
from metaverify.policies.router import Failure, Look, Reply, Router
from metaverify.policies.store import PolicyStore

__all__ = ["ENDED", "Asked", "BrokenStreamError", "Cascade", "trail"]

LOGGER = logging.getLogger("metaverify")


FAR = 100.0
"""How many times its price in the policy's file a call may cost, or the other way round, before that is wondered at."""

LONGEST_CALL = 1e6  # tokens of a prompt, and of an answer

ENDED: ContextVar[list[Routed]] = ContextVar("ended")
"""Where a request's end is put, for whoever has to tell what one cost that is broken off."""

TOLD = ("action", "tier", "reading", "confidence", "cost", "reason")
"""What a client is told of each step."""


class BrokenStreamError(BaseException):
    """A tier failed after a part of its answer was passed on, so no other can answer any more.

    It is no `Exception`, which a router would take for a failure that it can mend.
    """


@dataclass(frozen=True, slots=True)
class Asked:
    """A request on its way.

    ``errors`` has what tiers failed with, the last one last.  Where a client wants a stream, the chunks of an answer
    that is passed on while it arrives go into ``sink``.
    """

    request: Request
    sink: asyncio.Queue[Any] | None = None
    errors: dict[str, Exception] = field(default_factory=dict)


class _Ends(Monitor):
    """Counts ends, and puts them where they are wanted."""

    def record(self, routed: Routed) -> None:
        super().record(routed)
        ENDED.get([]).append(routed)


class Cascade:
    """One cascade of the settings, ready to answer.

    ``router``, ``store``, ``monitor`` and ``log`` are its parts, for health and metrics.  A policy that has tiers or
    readings of which the settings do not say how they are had is refused, as a reload too.

    Raises:
        PolicyFileError: the policy's file is refused.
        SettingsError: settings and policy do not fit each other.
    """

    def __init__(self, settings: CascadeSettings) -> None:
        self.settings = settings
        self.models = {
            name: Model(name, tier.litellm_params or {}, settings.dollars) for name, tier in settings.tiers.items()
        }
        self._verifiers: dict[tuple[str, str], Verifier] = {
            (tier, name): self._verifier(tier, name, reading)
            for tier, of in settings.tiers.items()
            for name, reading in of.readings.items()
        }
        self._votes: dict[tuple[str, str], bool] = {}
        self._needs: Mapping[str, Sequence[str]] = {}
        self.store = PolicyStore(settings.policy, every=settings.every, load=self._load)
        self.monitor: Monitor = _Ends()
        self.log = DecisionLog(settings.decisions) if settings.decisions else None
        known = dearest_prices(self.store.policy)
        self.router = Router(
            self.store,
            self._call,
            self._verify,
            timeouts={name: seconds for name, seconds in self._told("timeout").items() if name in known},
            guard=Guard(
                cap=settings.cap,
                bucket=None if settings.rate is None else TokenBucket(settings.rate, settings.burst or 0.0),
                dearest={name: price for name, price in self._told("dearest").items() if name in known},
                fail_open=settings.fail_open,
            ),
            monitor=self.monitor,
            log=self.log,
            exploration=load_exploration(settings.exploration) if settings.exploration else None,
            final=self._pass_on,
        )
        priced = {tier.name: tier.price for tier in self.store.policy.tiers if tier.answer and tier.price > 0.0}
        self._unpaid = {name: price for name, price in priced.items() if not self._is_far_by_token(name, price)}

    def _is_far_by_token(self, tier: str, price: float) -> bool:
        """Whether a call cannot cost what the policy's file says, whatever is asked, which is then told."""
        token, dollars = self.models[tier].dollars_per_token() or 0.0, price * self.settings.dollars
        far = token > 0.0 and not token <= dollars <= token * LONGEST_CALL
        if far:
            self._wonder(tier, price, f"a token of its prompt and one of its answer cost {token:g} dollars together")
        return far

    def _paid(self, model: Model, response: Any) -> float | None:
        """What a tier's answer cost; it is said where the first one is far from the policy's price."""
        cost = model.cost(response)
        if cost and (price := self._unpaid.pop(model.name, None)) and not 1.0 / FAR < cost / price < FAR:
            self._wonder(model.name, price, f"its first call cost {cost * self.settings.dollars:g} dollars")
        return cost

    def _wonder(self, tier: str, price: float, but: str) -> None:
        dollars = self.settings.dollars
        LOGGER.warning(
            "%s: the policy's file says that a call of %s costs %g, which is %g dollars where dollars = %g, but %s; "
            "set dollars to what a unit of the policy's cost is (1 where its log was in dollars), "
            "and the tier's own prices if LiteLLM's are not what you pay",
            *(self.settings.name, tier, price, price * dollars, dollars, but),
        )

    def _verifier(self, tier: str, name: str, reading: ReadingSettings) -> Verifier:
        try:
            params = with_model(reading.params, f"{name} of {tier}", self.settings.dollars)
            return find_verifier(reading.verifier, params, self.settings.folder)
        except ValueError as error:
            raise SettingsError(f"{self.settings.name}.tiers.{tier}.readings.{name}: {error}") from error

    def _told(self, key: str) -> dict[str | tuple[str, str], float]:
        """What the settings say of this of purchases, by their names."""
        told: dict[str | tuple[str, str], float | None] = {}
        for name, tier in self.settings.tiers.items():
            told[name] = getattr(tier, key)
            told |= {(name, reading): getattr(of, key) for reading, of in tier.readings.items()}
        return {name: value for name, value in told.items() if value is not None}

    def _load(self, path: Path) -> Policy:
        """The policy, where the settings say how all of it is had."""
        policy = load_policy(path, now=time.time())
        settings = self.settings
        budgets = {f"budgets.{name}": budget for name, budget in settings.budgets.items()}
        for name, budget in (budgets | ({} if settings.budget is None else {"budget": settings.budget})).items():
            try:
                point_at_budget(policy.vertices, budget)
            except BudgetError as error:
                raise SettingsError(f"{settings.name}.{name}: {error}") from error
        policy = policy if settings.budget is None else policy.at(budget=settings.budget)
        votes = self._check(policy)
        changed = [name for name, wanted in votes.items() if self._votes.get(name, wanted) != wanted]
        if changed:
            tier, name = changed[0]
            raise SettingsError(f"{name!r} of {tier!r} is votes in one of two policies; restart to change that")
        self._votes |= votes
        self._needs = {**self._needs, **{tier.name: tier.needs for tier in policy.tiers}}
        return policy

    def _check(self, policy: Policy) -> dict[tuple[str, str], bool]:
        """Which readings are votes; every tier and reading is one that the settings have."""
        votes = {}
        for tier in policy.tiers:
            place = f"{self.settings.name}.tiers.{tier.name}"
            told = self.settings.tiers.get(tier.name)
            if tier.answer and (told is None or told.litellm_params is None):
                raise SettingsError(f'{place}: the policy calls this tier; give its litellm_params = {{ model = "…" }}')
            for reading in tier.readings:
                if reading.parts:
                    continue
                verifier = self._verifiers.get((tier.name, reading.name))
                if verifier is None:
                    raise SettingsError(
                        f"{place}.readings.{reading.name}: the policy reads this; say by which verifier = …"
                    )
                if reading.votes and not hasattr(verifier, "vote"):
                    raise SettingsError(
                        f"{place}.readings.{reading.name}: the policy asks for its votes one by one, and the verifier "
                        "gives none; take self_verification, or one of your own with a method `vote`"
                    )
                votes[tier.name, reading.name] = reading.votes > 0
        known = {tier.name for tier in policy.tiers}
        foreign = [name for name in self.settings.tiers if name not in known]
        if foreign and not self._votes:  # a later policy may do without a tier
            raise SettingsError(
                f"{self.settings.name}.tiers.{foreign[0]}: the policy has no such tier; it has "
                f"{', '.join(map(repr, sorted(known)))}"
            )
        return votes

    async def _call(self, tier: str, asked: Asked) -> Reply:
        model, request = self.models[tier], asked.request
        try:
            response = await model.complete(request.messages, **self._params(tier, request))
        except Exception as error:
            raise self._failed(tier, asked, error) from error
        if is_empty(response):
            raise Failure("empty answer", self._paid(model, response))
        return await self._reply(model, request, response)

    async def _pass_on(self, tier: str, asked: Asked) -> Reply:
        """The same where the answer is returned whatever it says: a stream is passed on as it comes."""
        if asked.sink is None:
            return await self._call(tier, asked)
        model, request, chunks, begun = self.models[tier], asked.request, [], False
        added = self._added(tier, request)
        try:
            streamed = {"stream": True, "stream_options": {"include_usage": True}}
            stream = await model.complete(request.messages, **self._params(tier, request), **streamed)
            async for chunk in stream:
                chunks.append(chunk)
                said = said_in(chunk, "logprobs" not in added, not begun)
                if said is not None:
                    begun = True
                    asked.sink.put_nowait(said)
            response = response_of(chunks, request.messages, stream.logging_obj)
        except BaseException as error:
            failed = self._failed(tier, asked, error) if isinstance(error, Exception) else error
            raise BrokenStreamError if begun else failed from error
        if not begun:
            raise Failure("empty answer", self._paid(model, response))
        return await self._reply(model, request, response)

    def _failed(self, tier: str, asked: Asked, error: Exception) -> Exception:
        """What the router is told of a call that failed; the log and the client may be told more."""
        error = getattr(error, "original_exception", None) or error  # LiteLLM's, where a stream fails
        LOGGER.warning("%s: %s failed: %s: %s", self.settings.name, tier, type(error).__name__, error)
        asked.errors[tier] = error
        return _failure(error)

    def _params(self, tier: str, request: Request) -> dict[str, Any]:
        """What a tier is asked with."""
        return {**request.params, **self._added(tier, request)}

    def _added(self, tier: str, request: Request) -> dict[str, Any]:
        """What a tier is asked for beside what the client wants, since its readings need it."""
        wanted: dict[str, Any] = {}
        for (of, _), verifier in self._verifiers.items():
            if of == tier and getattr(verifier, "with_answer", False):
                wanted |= getattr(verifier, "params", {})
        return {name: value for name, value in wanted.items() if not request.params.get(name)}

    async def _reply(self, model: Model, request: Request, response: Any) -> Reply:
        """The answer with the readings that come with it."""
        readings: dict[str, Any] = {}
        for (of, name), verifier in self._verifiers.items():
            if of == model.name and getattr(verifier, "with_answer", False):
                try:
                    readings[name] = (await _asked(verifier, model, request, response)).confidence
                except Exception:
                    readings[name] = None
        if "logprobs" in self._added(model.name, request):
            for choice in response.choices:
                choice.logprobs = None
        return Reply(response, readings, self._paid(model, response))

    async def _verify(self, tier: str, reading: str, asked: Asked, answers: Mapping[str, Any]) -> Look:
        verifier = self._verifiers[tier, reading]
        of = tier if self.settings.tiers[tier].litellm_params is not None else next(reversed(self._needs[tier]), tier)
        request = replace(asked.request, answers=answers)
        look = verifier.vote if self._votes[tier, reading] else verifier  # type: ignore[attr-defined]
        try:
            return await _asked(look, self.models[of], request, answers.get(of))
        except Exception as error:
            LOGGER.warning("%s: %s of %s failed: %s", self.settings.name, reading, tier, error)
            if isinstance(error, Failure):
                raise
            raise Failure(_failure(error).reason) from error  # of several calls some may be billed


async def _asked(verifier: Verifier, model: Model, request: Request, answer: Any) -> Look:
    """What a verifier says; one that cannot be awaited may wait for something, and is asked in a thread.

    Raises:
        Exception: whatever the verifier raises, and where it would end the process, or tells no `Look`, a failure too.
    """
    waits = inspect.iscoroutinefunction(verifier) or inspect.iscoroutinefunction(getattr(verifier, "__call__", None))  # noqa: B004
    apart = not waits and not getattr(verifier, "with_answer", False)
    try:
        came = await in_thread(verifier, model, request, answer) if apart else verifier(model, request, answer)
        look = await came if inspect.isawaitable(came) else came
    except (SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) and not apart:  # which may be that of who runs all this
            raise
        raise Failure(type(error).__name__) from error
    if not isinstance(look, Look):
        raise TypeError(f"the verifier returned {look!r}; give a Look(confidence, cost)")
    return look


def _failure(error: Exception) -> Failure:
    """Why a call failed; it cost nothing where the provider refused it, or was not reached."""
    if isinstance(error, litellm.Timeout | TimeoutError):
        return Failure("timeout")
    return Failure(type(error).__name__, 0.0 if _is_refusal(error) else None)


NOT_BILLED = (httpx.HTTPStatusError, httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
DEEPEST = 20  # causes of causes


def _is_refusal(error: Exception) -> bool:
    """Whether a provider turned a call down or was never asked.

    LiteLLM calls anything a 500 that came without a status, such as half an answer, so that a 500 is one only where
    the exchange itself ended in a status.
    """
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400 and status != 500:
        return True
    cause: BaseException | None = error
    for _ in range(DEEPEST):
        if cause is None or isinstance(cause, httpx.HTTPError):
            break
        cause = cause.__cause__ or cause.__context__
    return isinstance(cause, NOT_BILLED)


def trail(routed: Routed, dollars: float) -> dict[str, Any]:
    """What a client is told of a request, as plain JSON; costs are the policy's, ``dollars`` what they come to."""
    lines = [*decision_lines(routed, 0.0)]
    return {
        "policy": routed.snapshot.id,
        "serial": routed.serial,
        "vertex": routed.vertex,
        "key": lines[-1]["key"],
        "tier": routed.tier,
        "cost": routed.cost,
        "dollars": routed.cost * dollars,
        "trail": [{name: line[name] for name in TOLD if line[name] is not None} for line in lines],
    }
