"""A model of LiteLLM that is a cascade: ``metaverify/<name>`` in the SDK, in `litellm.Router` and in the proxy.

    litellm.custom_provider_map = [{"provider": "metaverify", "custom_handler": load_provider("cascades.toml")}]
    litellm.completion(model="metaverify/support", messages=[...], metadata={"budget": 1.5})

What can be told in a request's ``metadata``: ``budget`` turns the dial for it, ``key`` is its id (else LiteLLM's call
id), ``context`` what is known of it before any call.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import httpx
import litellm

from metaverify.policies.forks import renew_in_children
from metaverify.policies.integrations.cascade import ENDED, Asked, BrokenStreamError, Cascade, trail
from metaverify.policies.integrations.chunks import chunks_of, last_chunks
from metaverify.policies.integrations.models import Request
from metaverify.policies.integrations.settings import CascadeSettings, read_settings
from metaverify.policies.names import did_you_mean
from metaverify.policies.policy import BudgetError
from metaverify.policies.routed import Routed

__all__ = ["Provider", "load_provider"]

NOT_PASSED_ON = frozenset({"stream", "stream_options", "max_retries"})
"""What LiteLLM says to this provider and no model."""

COST_HEADER = "x-metaverify-cost"
"""Dollars that were spent on a request that ends in an error; LiteLLM's own header for costs has 0 there."""

WHO_ASKS = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key", "host"})
"""Headers that no client chooses: who asks a model, and where, is for the settings."""

LONGEST_KEY = 400  # letters

T = TypeVar("T")


def load_provider(path: str | os.PathLike[str]) -> Provider:
    """The provider of all cascades of a settings file; see `settings`.

    Raises:
        OSError: the settings file cannot be read.
        PolicyFileError: a policy's file is refused.
        SettingsError: the settings are none, or do not fit a policy.
    """
    return Provider(read_settings(path))


class Provider(litellm.CustomLLM):  # type: ignore[misc]
    """Answers ``metaverify/<name>`` by the cascade of that name.

    A response is the accepted tier's own.  ``response.metaverify`` has what was done: the policy's id and serial, the
    trail, what each step cost; it is in ``_hidden_params`` too, with the whole cost in dollars as ``response_cost``.

    An exception that ends a request which had bought something has ``metaverify`` too, and LiteLLM's callbacks are told
    what it cost.

    Raises (as LiteLLM's exceptions):
        BadRequestError: there is no cascade of that name; a budget that is none, is not on the dial or above the key's;
            a context without one of its columns.
        RateLimitError: the guard has nothing left for the request.
        UnprocessableEntityError: the policy hands the request over rather than answer it, or every tier said nothing.
        Timeout: the request's own timeout is over.
        Exception: where no tier answered, what the last of them failed with.
    """

    def __init__(self, settings: Mapping[str, CascadeSettings]) -> None:
        super().__init__()
        self.cascades = {name: Cascade(of) for name, of in settings.items()}
        self._loop = _Loop()

    async def acompletion(self, model: str, messages: list[Any], **given: Any) -> Any:
        """The accepted answer."""
        cascade = self._cascade(model)
        routed = await self._route(cascade, Asked(_request(messages, given)), given)
        response = routed.answer.model_copy()
        response.metaverify = trail(routed, cascade.settings.dollars)
        response._hidden_params = _hidden(response.metaverify)
        return response

    async def astreaming(self, model: str, messages: list[Any], **given: Any) -> AsyncIterator[Any]:
        """The accepted answer as chunks: as they come where the policy accepts it unread, else once it is accepted."""
        cascade = self._cascade(model)
        sink: asyncio.Queue[Any] = asyncio.Queue()
        asked = Asked(_request(messages, given), sink)
        routing = asyncio.ensure_future(self._route(cascade, asked, given))
        routing.add_done_callback(lambda _: sink.put_nowait(None))
        passed_on = False
        try:
            while (chunk := await sink.get()) is not None:
                passed_on = True
                yield chunk
            routed = routing.result()
            for chunk in chunks_of(routed.answer) if not passed_on else ():
                yield chunk
            for chunk in last_chunks(routed.answer, trail(routed, cascade.settings.dollars)):
                yield chunk
        finally:
            routing.cancel()  # where the client went
            await asyncio.wait([routing])
            _ = routing.cancelled() or routing.exception()  # else asyncio complains of one that nobody looked at

    def completion(self, *args: Any, **given: Any) -> Any:
        """`acompletion`, awaited."""
        return self._loop.run(self.acompletion(*args, **given))

    def streaming(self, *args: Any, **given: Any) -> Iterator[Any]:
        """`astreaming`, awaited chunk by chunk."""
        return self._loop.iterate(self.astreaming(*args, **given))

    def prometheus(self, name: str) -> str:
        """The metrics of a cascade in Prometheus' text format."""
        cascade = self.cascades[name]
        log = "" if cascade.log is None else cascade.log.prometheus()
        return cascade.monitor.prometheus() + cascade.store.prometheus() + log

    def _cascade(self, name: str) -> Cascade:
        cascade = self.cascades.get(name)
        if cascade is None:
            hint = did_you_mean(name, self.cascades)
            raise _bad_request(f"there is no cascade {name!r}; there are {', '.join(self.cascades)}{hint}", name)
        return cascade

    async def _route(self, cascade: Cascade, asked: Asked, given: Mapping[str, Any]) -> Routed:
        """The request's end, which is an answer."""
        name, ended = cascade.settings.name, list[Routed]()
        before = ENDED.set(ended)
        try:
            routed = await self._end(cascade, asked, given)
            if routed.tier is None:
                raise _unanswered(routed, asked, name)
            return routed
        except Exception as error:
            if ended:
                _tell(error, trail(ended[-1], cascade.settings.dollars), given)
            raise
        finally:
            ENDED.reset(before)

    async def _end(self, cascade: Cascade, asked: Asked, given: Mapping[str, Any]) -> Routed:
        name, metadata = cascade.settings.name, _metadata(given)
        try:
            async with asyncio.timeout(_seconds(given.get("timeout"))):
                return await cascade.router.aroute(
                    asked,
                    key=_key(metadata) or given["logging_obj"].litellm_call_id,
                    context=metadata.get("context"),
                    budget=_budget(cascade.settings, metadata),
                )
        except TimeoutError as error:
            raise litellm.Timeout("the request took too long", name, "metaverify") from error
        except BrokenStreamError as error:
            raise _last(asked, name) from error
        except (BudgetError, ValueError) as error:
            raise _bad_request(str(error), name) from error


class _Loop:
    """An event loop in a thread of its own, for who cannot await; it begins where it is first needed."""

    def __init__(self) -> None:
        self._renew()
        renew_in_children(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def _begun(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="metaverify-litellm", daemon=True).start()
            return self._loop

    def run(self, awaited: Coroutine[Any, Any, T]) -> T:
        """What comes of it; where waiting for it is broken off, so is it."""
        future = asyncio.run_coroutine_threadsafe(awaited, self._begun())
        try:
            return future.result()
        finally:
            future.cancel()

    def iterate(self, items: Any) -> Iterator[Any]:
        try:
            while (item := self.run(_next(items))) is not None:
                yield item
        finally:
            self.run(items.aclose())


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Goes on whatever a task raises: a `SystemExit` is that of its request, who waits for which is told."""
    while not loop.is_closed():
        with suppress(BaseException):
            loop.run_forever()


async def _next(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)


def _request(messages: list[Any], given: Mapping[str, Any]) -> Request:
    params = {name: of for name, of in (given.get("optional_params") or {}).items() if name not in NOT_PASSED_ON}
    headers = {name: of for name, of in (given.get("headers") or {}).items() if name.lower() not in WHO_ASKS}
    return Request(messages, params | {"extra_headers": headers} if headers else params)


def _metadata(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """A request's metadata, where LiteLLM puts them."""
    params = given.get("litellm_params") or {}
    return {**(params.get("litellm_metadata") or {}), **(params.get("metadata") or {})}


def _key(metadata: Mapping[str, Any]) -> str | None:
    """The request's id, None where it tells none.

    Raises:
        ValueError: it tells what is none.
    """
    told = metadata.get("key")
    if told is None:
        return None
    key = str(told) if isinstance(told, str | int) and not isinstance(told, bool) else ""
    if not 0 < len(key) <= LONGEST_KEY:
        shown = f"a text of {len(key)} letters" if key else repr(told)[:LONGEST_KEY]
        raise ValueError(f"metadata.key is {shown}; give a text of 1 to {LONGEST_KEY} letters, or none")
    return key


def _budget(settings: CascadeSettings, metadata: Mapping[str, Any]) -> float | None:
    """What the dial is turned to for a request: what it asks for, up to what its key may spend, else that.

    Raises:
        ValueError: it asks for more, or for what is no number.
    """
    names = [metadata.get(f"user_api_key_{of}") for of in ("alias", "hash", "team_alias", "team_id")]
    owner = next((name for name in names if name in settings.budgets), None)
    allowed = None if owner is None else settings.budgets[owner]
    asked = metadata.get("budget")
    if asked is None:
        return allowed
    try:
        budget = math.nan if isinstance(asked, bool) else float(asked)  # OpenAI's clients send metadata as texts
    except (TypeError, ValueError, OverflowError):
        budget = math.nan
    if not math.isfinite(budget):
        shown = repr(asked)[:LONGEST_KEY]
        raise ValueError(f"metadata.budget is {shown}; give a mean cost per request, a finite number")
    if allowed is not None and not budget <= allowed:
        raise ValueError(f"metadata.budget is {budget:g}, above the {allowed:g} that {owner!r} may spend; ask for less")
    return budget


def _seconds(timeout: Any) -> float | None:
    return timeout.read if isinstance(timeout, httpx.Timeout) else timeout


def _hidden(told: Mapping[str, Any]) -> dict[str, Any]:
    return {"custom_llm_provider": "metaverify", "response_cost": told["dollars"], "metaverify": told}


def _bad_request(message: str, model: str) -> Exception:
    return litellm.BadRequestError(message, model, "metaverify")  # type: ignore[no-any-return]


def _tell(error: Exception, told: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Tells client and callbacks what was bought of which no answer came."""
    error.metaverify = told  # type: ignore[attr-defined]
    error.headers = {COST_HEADER: f"{told['dollars']:.12g}"}  # type: ignore[attr-defined]
    bill = getattr(given.get("logging_obj"), "record_partial_usage_for_failure", None)
    if bill is not None and told["dollars"] > 0.0:
        bill(litellm.Usage(), told["dollars"])


def _last(asked: Asked, model: str) -> Exception:
    """What the last tier failed with."""
    if asked.errors:
        return next(reversed(asked.errors.values()))
    return litellm.Timeout("no tier answered in time", model, "metaverify")  # type: ignore[no-any-return]


def _unanswered(routed: Routed, asked: Asked, model: str) -> Exception:
    """Why a request ends without an answer."""
    reason, reasons = routed.steps[-1].reason, routed.reasons
    if "budget" in reasons or ("cap" in reasons and not asked.errors):
        return litellm.RateLimitError("nothing is left of what may be spent", "metaverify", model)  # type: ignore[no-any-return]
    if not reason:
        return _unprocessable("the policy hands this request over to a person rather than answer it", model)
    if asked.errors or "timeout" in reasons:
        return _last(asked, model)
    return _unprocessable("every tier that could be called gave an empty answer", model)


def _unprocessable(message: str, model: str) -> Exception:
    """Something that comes out the same however often it is asked, so that nobody asks again."""
    response = httpx.Response(422, request=httpx.Request("POST", "https://metaverify"))
    return litellm.UnprocessableEntityError(message, model, "metaverify", response)  # type: ignore[no-any-return]
