"""A cascade is a model of LiteLLM's SDK and Router."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import litellm
import openai
import polars as pl
import pytest
from litellm.caching.caching import Cache
from litellm.integrations.custom_logger import CustomLogger

from metaverify.fitting.partial_fit import fit_partial
from metaverify.policies.actions import Abstain, Accept, Call
from metaverify.policies.exploration import Exploration, save_exploration
from metaverify.policies.file import load_policy, policy_id, save_policy
from metaverify.policies.graph import Ask, Graph, Poll, Read, Stop, Tally
from metaverify.policies.integrations import cascade as of_cascades
from metaverify.policies.integrations import litellm as of_litellm
from metaverify.policies.integrations.litellm import Provider, load_provider
from metaverify.policies.integrations.models import Model, Request
from metaverify.policies.integrations.settings import SettingsError
from metaverify.policies.integrations.verifiers import HTTPVerifier
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.router import Look
from metaverify.policies.tiers import Points, Reading, Tier
from metaverify.simulators.decisions import join_labels, read_decisions
from metaverify.simulators.outcome import replay
from metaverify.simulators.partial_reader import read_partial_log
from metaverify.simulators.reader import read_log

from .cascades import COST, EASY, HARD, HIGH, LOW, MIDDLE, MIDDLING, cascade, outcome, write_settings
from .https import ANSWER, REFUSAL, http
from .mocks import Mock, prompt

Serve = Callable[..., Provider]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Items? .* using the `ReadOnly` qualifier:UserWarning"),  # LiteLLM's own
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning"),
]


@pytest.fixture
def serve(tmp_path: Path, mocked: Mock) -> Serve:
    """Makes a provider, and LiteLLM know it."""

    def begin(more: str = "", policy: Policy | None = None, **timeouts: float) -> Provider:
        provider = load_provider(write_settings(tmp_path, more, policy, timeouts))
        litellm.custom_provider_map.append({"provider": "metaverify", "custom_handler": provider})
        return provider

    return begin


def ask(world: dict[str, Any], **given: Any) -> Any:
    return litellm.completion(model="metaverify/support", messages=prompt(**world), **given)


async def aask(world: dict[str, Any], **given: Any) -> Any:
    return await litellm.acompletion(model="metaverify/support", messages=prompt(**world), **given)


def decisions(provider: Provider, folder: Path) -> list[dict[str, Any]]:
    log = provider.cascades["support"].log
    assert log is not None
    log.close()
    return [json.loads(line) for line in (folder / "decisions.jsonl").read_text().splitlines()]


def test_a_connection_to_elsewhere_is_denied() -> None:
    with socket.socket() as other, pytest.raises(AssertionError, match=r"192\.0\.2\.1"):
        other.connect(("192.0.2.1", 80))


@pytest.mark.parametrize("world", [EASY, MIDDLING, HARD], ids=["easy", "middling", "hard"])
def test_the_right_tier_answers_and_the_sum_of_all_costs_is_told(serve: Serve, world: dict[str, Any]) -> None:
    serve()
    tier, cost = outcome(world)
    response = ask(world)
    assert response.choices[0].message.content == world.get(tier, {}).get("text", f"says {tier}")
    assert response._hidden_params["response_cost"] == pytest.approx(cost / 1000, rel=1e-12)
    told = response.metaverify
    assert (told["tier"], told["cost"]) == (tier, pytest.approx(cost, rel=1e-12))
    assert sum(step["cost"] for step in told["trail"]) == pytest.approx(cost, rel=1e-12)
    assert told["policy"] == policy_id(cascade())
    assert told == response._hidden_params["metaverify"]
    assert getattr(response.choices[0], "logprobs", None) is None  # which no client asked for


def test_the_trail_tells_every_step(serve: Serve) -> None:
    serve()
    told = ask(HARD, metadata={"key": "request-17"}).metaverify
    assert told["key"] == "request-17"
    assert [(step["action"], step.get("reading", step.get("tier"))) for step in told["trail"]] == [
        ("call", "small"),
        ("call", "medium"),
        ("verify", "judge"),
        ("call", "large"),
        ("accept", "large"),
    ]
    assert told["trail"][0]["confidence"] == {"conf": pytest.approx(0.3)}
    assert told["trail"][2]["confidence"] == {"judge": 0.1}


@pytest.mark.parametrize("stream", [False, True])
def test_a_router_of_litellm_serves_the_cascade(serve: Serve, stream: bool) -> None:
    serve()
    router = litellm.Router([{"model_name": "assistant", "litellm_params": {"model": "metaverify/support"}}])

    async def both() -> list[Any]:
        if not stream:
            return [await router.acompletion("assistant", prompt(**world)) for world in (EASY, HARD)]
        streams = [await router.acompletion("assistant", prompt(**world), stream=True) for world in (EASY, HARD)]
        return [[chunk async for chunk in one] for one in streams]

    for world, came in zip((EASY, HARD), asyncio.run(both()), strict=True):
        tier, cost = outcome(world)
        told = came.metaverify if not stream else next(c.metaverify for c in came if hasattr(c, "metaverify"))
        assert (told["tier"], told["cost"]) == (tier, pytest.approx(cost))


@pytest.mark.parametrize("world", [EASY, MIDDLING, HARD], ids=["easy", "middling", "hard"])
@pytest.mark.parametrize("waits", [True, False], ids=["sync", "async"])
def test_joined_chunks_are_the_answer_and_the_cost_that_is_logged_is_the_sum(
    serve: Serve, world: dict[str, Any], waits: bool
) -> None:
    serve()
    tier, cost = outcome(world)
    given = {"stream": True, "stream_options": {"include_usage": True}}

    async def collected() -> tuple[list[Any], Any]:
        stream = await aask(world, **given)
        return [chunk async for chunk in stream], stream

    if waits:
        stream = ask(world, **given)
        chunks = [*stream]
    else:
        chunks, stream = asyncio.run(collected())
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said == world.get(tier, {}).get("text", f"says {tier}")
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    told = [chunk.metaverify for chunk in chunks if hasattr(chunk, "metaverify")]
    assert [(one["tier"], one["cost"]) for one in told] == [(tier, pytest.approx(cost))]
    whole = litellm.stream_chunk_builder(stream.chunks, logging_obj=stream.logging_obj)
    assert stream.logging_obj.response_cost_calculator(result=whole) == pytest.approx(cost / 1000, rel=1e-12)
    usage = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    assert [(one.prompt_tokens, one.completion_tokens) for one in usage] == [(1, 10)]


def test_a_tier_that_is_accepted_unread_is_passed_on_as_it_comes(serve: Serve, mocked: Mock) -> None:
    serve()
    roles: list[str] = []

    async def first() -> list[str]:
        stream = await aask(HARD, stream=True)
        said = []
        async for chunk in stream:
            roles.extend(choice.delta.role for choice in chunk.choices if choice.delta.role)
            said += [choice.delta.content for choice in chunk.choices if choice.delta.content]
        return said

    said = asyncio.run(first())
    assert roles == ["assistant"]
    assert "".join(said) == HARD["large"]["text"]
    assert len(said) == len(HARD["large"]["text"].split())  # in its own chunks, and not in ours
    assert mocked.asked[-1][1]["stream"] is True
    assert all("stream" not in asked or not asked["stream"] for tier, asked in mocked.asked if tier != "large")


def test_messages_tools_and_formats_reach_every_tier_as_they_are(serve: Serve, mocked: Mock) -> None:
    serve()
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    given = {
        "tools": [tool],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "temperature": 0.25,
        "seed": 4,
    }
    text = json.dumps(HARD | {"large": {"tool": "look_up"}})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": text}, image]}]
    response = litellm.completion(model="metaverify/support", messages=messages, **given)
    asked = [params for tier, params in mocked.asked if tier != "judge"]
    assert len(asked) == 3
    for params in asked:
        assert params["messages"] == messages
        assert {name: params[name] for name in given} == given
    assert response.choices[0].message.tool_calls[0].function.name == "look_up"
    assert response.choices[0].finish_reason == "tool_calls"


def test_headers_reach_a_tier_but_for_those_that_say_who_asks(tmp_path: Path, mocked: Mock, api: Any) -> None:
    url, sent = api(ANSWER)
    more = 'extra_headers = { x-ours = "1", x-both = "ours" }'
    one_tier(tmp_path, f'{{ model = "openai/none", api_base = "{url}", api_key = "k", {more} }}')
    headers = {"x-theirs": "2", "x-both": "theirs", "Authorization": "Bearer other", "Host": "elsewhere"}
    ask({}, extra_headers=headers)
    head = sent[0].split(b"\r\n\r\n")[0].decode().lower().splitlines()
    told = dict(line.split(": ", 1) for line in head[1:])
    assert {name: told[name] for name in ("x-ours", "x-theirs", "x-both", "authorization")} == {
        "x-ours": "1",
        "x-theirs": "2",
        "x-both": "ours",
        "authorization": "bearer k",
    }
    assert told["host"] in url


@pytest.mark.parametrize("name", ["reasoning_effort", "user"])
def test_what_litellm_takes_of_no_provider_of_ones_own_reaches_a_tier_where_it_is_allowed(
    tmp_path: Path, mocked: Mock, api: Any, name: str
) -> None:
    url, sent = api(ANSWER)
    allowed = f'allowed_openai_params = ["{name}"]'
    one_tier(tmp_path, f'{{ model = "openai/none", api_base = "{url}", api_key = "k", {allowed} }}')
    ask({}, **{name: "low", "allowed_openai_params": [name]})
    assert json.loads(sent[0].split(b"\r\n\r\n")[1])[name] == "low"


def test_a_call_of_a_tool_is_streamed_too(serve: Serve) -> None:
    serve()
    world = EASY | {"small": {"p": [0.9], "tool": "look_up"}}
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    whole = litellm.stream_chunk_builder([*ask(world, stream=True, tools=[tool])])
    assert [(c.function.name, c.function.arguments) for c in whole.choices[0].message.tool_calls] == [
        ("look_up", '{"x": 1}')
    ]
    assert whole.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("wanted", [True, False, None])
@pytest.mark.parametrize("budget", [1, 40])
def test_logprobs_are_told_where_a_client_asks_for_them(serve: Serve, wanted: bool | None, budget: int) -> None:
    serve()
    given = {} if wanted is None else {"logprobs": wanted}
    whole = ask(EASY, **given)
    assert {step["reason"] for step in whole.metaverify["trail"]} == {""}
    told = getattr(whole.choices[0], "logprobs", None)
    assert (len(told.content) if told else 0) == (2 if wanted else 0)
    chunks = [*ask(EASY, **given, stream=True, metadata={"budget": budget})]  # passed on at 1, streamed after all at 40
    passed = [getattr(choice, "logprobs", None) for chunk in chunks for choice in chunk.choices]
    assert [len(one.content) for one in passed if one is not None] == ([2] if wanted else [])
    metaverify = next(chunk.metaverify for chunk in chunks if hasattr(chunk, "metaverify"))
    assert metaverify["trail"][0]["confidence"] == {"conf": pytest.approx(0.9)}


# --------------------------------------------------------------------------------------------- the dial


@pytest.mark.parametrize(("budget", "vertex"), [(1.0, LOW), ("6", MIDDLE), (40, HIGH), (1e9, HIGH)])
def test_a_request_turns_the_dial_for_itself(serve: Serve, budget: float, vertex: int) -> None:
    provider = serve()
    response = ask(HARD, metadata={"budget": budget})
    assert (response.metaverify["tier"], response.metaverify["cost"]) == outcome(HARD, vertex)
    assert response.metaverify["vertex"] == vertex
    assert response.metaverify["policy"] == provider.cascades["support"].store.snapshot().id
    assert ask(HARD).metaverify["tier"] == "large"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"budget": 0.5}, "budget 0.5 is below 1, the cost of the cheapest policy"),
        ({"budget": float("nan")}, "metadata.budget is nan; give a mean cost per request, a finite number"),
        ({"budget": "1e400"}, "metadata.budget is '1e400'; give a mean cost"),
        ({"budget": 10**400}, "metadata.budget is 1000"),
        ({"budget": True}, "metadata.budget is True; give a mean cost"),
        ({"budget": "much"}, "metadata.budget is 'much'; give a mean cost per request"),
        ({"key": "k" * 401}, "metadata.key is a text of 401 letters; give a text of 1 to 400 letters, or none"),
        ({"key": ""}, "metadata.key is ''; give a text"),
        ({"key": {"a": 1}}, "metadata.key is {'a': 1}; give a text"),
        ({"key": True}, "metadata.key is True; give a text"),
        ({"budget": 7, "user_api_key_alias": "intern"}, "metadata.budget is 7, above the 6 that 'intern' may spend"),
        ({"context": {"task": "sums"}}, None),
        ({"context": 4}, "context 4 is neither a label nor the values"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_budget_or_a_context_that_is_none_is_the_clients_fault(
    serve: Serve, metadata: dict[str, Any], message: str | None, stream: bool
) -> None:
    serve("budgets = { intern = 6.0 }")
    if message is None:
        assert ask(EASY, metadata=metadata)
        return
    with pytest.raises(litellm.BadRequestError, match=message.replace(".", r"\.")):
        list(ask(EASY, metadata=metadata, stream=stream))


@pytest.mark.parametrize(
    ("metadata", "vertex"),
    [
        ({"user_api_key_alias": "intern"}, MIDDLE),
        ({"user_api_key_team_alias": "guests"}, LOW),
        ({"user_api_key_alias": "intern", "user_api_key_team_alias": "guests"}, MIDDLE),
        ({"user_api_key_alias": "intern", "budget": 1}, LOW),
        ({"user_api_key_alias": "somebody"}, HIGH),
    ],
)
def test_a_key_has_a_budget_and_a_request_may_ask_for_less(serve: Serve, metadata: dict[str, Any], vertex: int) -> None:
    serve("budgets = { intern = 6.0, guests = 1.0 }")
    assert ask(HARD, metadata=metadata).metaverify["vertex"] == vertex


@pytest.mark.parametrize(("told", "key"), [("k" * 400, "k" * 400), (17, "17"), (None, None)])
def test_a_request_has_the_key_that_it_tells_or_litellms_id(serve: Serve, told: Any, key: str | None) -> None:
    serve()
    response = ask(EASY, metadata={"key": told}, litellm_call_id="call-17")
    assert response.metaverify["key"] == (key or "call-17")


def test_an_answer_out_of_litellms_cache_costs_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    serve()
    monkeypatch.setattr(litellm, "cache", Cache())
    tiers_alone = {"cache": {"no-cache": True, "no-store": True}}

    async def three_times() -> list[Any]:
        first = await aask(HARD, **tiers_alone)
        await asyncio.sleep(0.2)  # LiteLLM stores in a task of its own
        return [first, *[await aask(HARD, **tiers_alone, metadata={"budget": budget}) for budget in (40, 1)]]

    told = [response.metaverify for response in asyncio.run(three_times())]
    assert [(one["tier"], one["cost"]) for one in told] == [("large", 113.0), ("large", 0.0), ("small", 0.0)]


def test_a_cascade_that_is_not_there_is_the_clients_fault(serve: Serve) -> None:
    serve()
    with pytest.raises(litellm.BadRequestError, match=r"no cascade 'suport'; there are support; did you mean"):
        litellm.completion(model="metaverify/suport", messages=prompt(**EASY))


# --------------------------------------------------------------------------------------------- what fails


@pytest.mark.parametrize(
    ("world", "tier", "cost", "reason"),
    [
        (MIDDLING | {"small": {"fail": "rate"}}, "medium", 12.0, "RateLimitError"),
        (MIDDLING | {"small": {"fail": "down"}}, "medium", 13.0, "APIConnectionError"),
        (MIDDLING | {"small": {"wait": 9}}, "medium", 13.0, "timeout"),
        (MIDDLING | {"small": {"fail_late": "timeout"}}, "medium", 13.0, "timeout"),
        (MIDDLING | {"small": {"text": "  "}}, "medium", 13.0, "empty answer"),
        (MIDDLING | {"medium": {"wait": 9}}, "large", 111.0, "timeout"),
        (MIDDLING | {"judge": {"wait": 9}}, "large", 113.0, "timeout"),
        (MIDDLING | {"judge": {"fail": "rate"}}, "large", 113.0, "RateLimitError"),
        (MIDDLING | {"judge": {}}, "large", 113.0, None),
        (HARD | {"large": {"fail": "rate"}}, "medium", 13.0, "RateLimitError"),
        (EASY | {"small": {}}, "medium", 13.0, None),
    ],
    ids=lambda told: json.dumps(told) if isinstance(told, dict) else None,
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_fails_is_gone_round_within_its_time_and_counted(
    serve: Serve, world: dict[str, Any], tier: str, cost: float, reason: str | None, stream: bool
) -> None:
    provider = serve(**{name: 0.2 for name, of in world.items() if "wait" in of})
    began = time.monotonic()
    came = ask(world, stream=stream)
    told = next(c.metaverify for c in came if hasattr(c, "metaverify")) if stream else came.metaverify
    assert time.monotonic() - began < 5.0
    assert (told["tier"], told["cost"]) == (tier, pytest.approx(cost))
    reasons = provider.cascades["support"].monitor.report()["reasons"]
    assert reason is None or reasons[reason] == 1
    assert bool(reasons) == (reason is not None)


@pytest.mark.parametrize("confidence", [float("nan"), float("inf"), -0.5, 1.5, "sure", None, True])
def test_a_verifier_that_tells_no_confidence_is_missing_and_never_sure(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, confidence: Any
) -> None:
    (tmp_path / "of_ours.py").write_text(
        "from metaverify.policies.router import Look\n"
        "told = []\n"
        "def verify(tier, request, answer):\n"
        "    return Look(told[0], 2.0)\n"
    )
    monkeypatch.delitem(sys.modules, "of_ours", raising=False)
    path = write_settings(tmp_path)
    told_before, judge = path.read_text(), "[support.tiers.medium.readings.judge]\n"
    own = f'{judge}verifier = "of_ours:verify"\n[support.tiers.large]\n'
    path.write_text(told_before[: told_before.index(judge)] + own + told_before.split("[support.tiers.large]\n")[1])
    provider = load_provider(path)
    sys.modules["of_ours"].told[:] = [confidence]  # type: ignore[attr-defined]
    litellm.custom_provider_map.append({"provider": "metaverify", "custom_handler": provider})
    told = ask(MIDDLING).metaverify
    assert (told["tier"], told["cost"]) == ("large", 113.0)
    counted = provider.cascades["support"].monitor.report()["reasons"]
    assert counted == ({"invalid": 1} if confidence in ("sure", True) else {})


def one_tier(folder: Path, params: str, more: str = "") -> Provider:
    """A cascade of one model with these parameters."""
    nodes = (Ask("small", 1), Stop(Accept("small")))
    policy = Policy((Tier("small", 1.0),), nodes, (Vertex(0.0, 1.0, 0.9, 0),), OperatingPoint(0, 0, 0.0))
    save_policy(policy, folder / "policy.json")
    path = folder / "cascades.toml"
    path.write_text(f'[support]\npolicy = "policy.json"\n{more}\n[support.tiers.small]\nlitellm_params = {params}\n')
    provider = load_provider(path)
    litellm.custom_provider_map.append({"provider": "metaverify", "custom_handler": provider})
    return provider


@pytest.mark.parametrize("provider", ["openai", "anthropic", "mistral"])
@pytest.mark.parametrize(
    ("reply", "cost"),
    [
        *((http(status, REFUSAL), 0.0) for status in (400, 401, 404, 429, 500, 503)),
        (None, 0.0),  # nobody listens
        (b"", 1.0),  # closed once the request was read
        (http(200, b'{"id":', length=500), 1.0),
        (http(200, b"<html>So.</html>", b"text/html"), 1.0),
        (http(200, b"{}"), 1.0),
    ],
)
def test_a_refusal_costs_nothing_and_what_may_be_billed_the_dearest_price(
    tmp_path: Path, mocked: Mock, api: Any, provider: str, reply: bytes | None, cost: float
) -> None:
    url = "http://127.0.0.1:9/v1" if reply is None else api(reply)[0]
    at = url if provider != "anthropic" else url.removesuffix("/v1")
    one_tier(tmp_path, f'{{ model = "{provider}/none", api_base = "{at}", api_key = "k" }}')
    with pytest.raises(openai.APIError) as failed:
        ask({})
    assert failed.value.metaverify["cost"] == cost  # type: ignore[attr-defined]


def test_where_no_tier_answers_the_last_failure_is_told(serve: Serve) -> None:
    serve(small=0.2, medium=0.2, large=0.2)
    nobody = {tier: {"fail": "rate"} for tier in ("small", "medium", "large")}
    with pytest.raises(litellm.RateLimitError, match="too many"):
        ask(nobody, num_retries=0)
    refused = {tier: {"fail": "request"} for tier in ("small", "medium", "large")}
    with pytest.raises(litellm.BadRequestError, match="this is no request"):
        ask(refused)
    hanging = {tier: {"wait": 9} for tier in ("small", "medium", "large")}
    with pytest.raises(litellm.Timeout):
        ask(hanging, num_retries=0)


NOBODY = ("small", "medium", "large")


class Bills(CustomLogger):  # type: ignore[misc]
    """What LiteLLM tells its callbacks of requests of cascades that fail."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[float] = []

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        if kwargs["custom_llm_provider"] == "metaverify":
            self.told.append(kwargs["standard_logging_object"]["response_cost"])


@pytest.mark.parametrize(
    ("world", "given", "error", "message", "cost"),
    [
        ({of: {"text": ""} for of in NOBODY}, {}, litellm.UnprocessableEntityError, "gave an empty answer", 111.0),
        (HARD | {of: {"text": "", "fail_late": "timeout"} for of in NOBODY}, {}, litellm.Timeout, "too late", 111.0),
        ({"small": {"wait": 9}}, {"timeout": 0.2}, litellm.Timeout, "took too long", 1.0),
        ({of: {"fail": "rate"} for of in NOBODY}, {}, litellm.RateLimitError, "too many", 0.0),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_was_bought_of_which_no_answer_came_is_told(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    world: dict[str, Any],
    given: dict[str, Any],
    error: type[Exception],
    message: str,
    cost: float,
    stream: bool,
) -> None:
    serve()
    bills = Bills()
    for name in ("callbacks", "failure_callback", "_async_failure_callback"):
        monkeypatch.setattr(litellm, name, [bills] if name == "callbacks" else [])

    async def whole() -> None:
        came = await aask(world, stream=stream, **given)
        assert stream, "it is only a stream that fails later"
        _ = [chunk async for chunk in came]

    async def fail() -> Any:
        with pytest.raises((error, litellm.exceptions.MidStreamFallbackError), match=message) as failed:
            await whole()
        async with asyncio.timeout(10.0):
            while not bills.told:
                await asyncio.sleep(0.01)
        return failed.value

    failed = asyncio.run(fail())
    told = getattr(failed, "original_exception", failed).metaverify
    assert (told["tier"], told["cost"]) == (None, pytest.approx(cost))
    assert sum(step["cost"] for step in told["trail"]) == pytest.approx(cost)
    assert bills.told == [pytest.approx(cost / 1000)]


def test_where_the_cap_leaves_nothing_a_429_says_so(serve: Serve) -> None:
    serve("cap = 0.5")
    with pytest.raises(litellm.RateLimitError, match="nothing is left") as failed:
        ask(EASY, num_retries=0)
    assert failed.value.metaverify["cost"] == 0.0


def test_the_requests_own_time_ends_it(serve: Serve) -> None:
    provider = serve()
    began = time.monotonic()
    with pytest.raises(litellm.Timeout, match="took too long"):
        ask(EASY | {"small": {"wait": 9}}, timeout=0.1, num_retries=0)
    assert time.monotonic() - began < 0.5 + 2.0
    assert provider.cascades["support"].monitor.report()["reasons"] == {"cancelled": 1, "interrupted": 1}


def test_a_stream_that_breaks_off_ends_in_an_error(serve: Serve) -> None:
    provider = serve()
    stream = ask(HARD | {"large": {"text": "one two three", "breaks": 2}}, stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["one", " two"]
    with pytest.raises(litellm.exceptions.MidStreamFallbackError, match="lost on the way"):
        next(stream)
    assert provider.cascades["support"].monitor.report()["reasons"] == {"cancelled": 1, "interrupted": 1}


def test_a_stream_that_breaks_before_it_begins_is_gone_round(serve: Serve) -> None:
    serve()
    chunks = [*ask(HARD | {"large": {"text": "one two three", "breaks": 0}}, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "says medium"


@pytest.mark.parametrize(("text", "said"), [("", "says medium"), (" ", " ")])
def test_a_stream_that_says_nothing_is_gone_round_unless_it_has_begun(serve: Serve, text: str, said: str) -> None:
    serve()
    chunks = [*ask(HARD | {"large": {"text": text}}, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip() == said.strip()


def test_a_client_that_goes_ends_the_request(serve: Serve) -> None:
    provider = serve()

    async def leave() -> None:
        stream = provider.astreaming("support", prompt(**HARD), logging_obj=_Logging())
        await anext(stream)
        await stream.aclose()

    asyncio.run(leave())
    assert provider.cascades["support"].monitor.report()["reasons"] == {"cancelled": 1, "interrupted": 1}


class _Logging:
    litellm_call_id = "call-1"


def test_the_guard_holds(serve: Serve) -> None:
    provider = serve("cap = 20.0\nrate = 0.0\nburst = 50.0")
    # Three times small, medium and the judge, since large is beyond the cap; the cap is set aside for each.  Then 11 is
    # left: enough for small and medium, and not for 20.
    assert [ask(HARD).metaverify["cost"] for _ in range(4)] == [13.0, 13.0, 13.0, 11.0]
    with pytest.raises(litellm.RateLimitError, match="nothing is left of what may be spent"):
        ask(HARD, num_retries=0)
    assert provider.cascades["support"].monitor.report()["reasons"]["budget"] == 1


# ------------------------------------------------------------------------------------- how readings are had


TWO_TIERS = """
[support]
policy = "policy.json"
dollars = 0.001

[support.tiers.small]
litellm_params = { model = "mock/small", input_cost_per_token = 0.0, output_cost_per_token = 0.0001 }
READING

[support.tiers.large]
litellm_params = { model = "mock/large", input_cost_per_token = 0.0, output_cost_per_token = 0.01 }
"""


def two_tiers(folder: Path, reading: str, nodes: Graph, *sources: Tier) -> Provider:
    """Small, something to read of it, and large."""
    policy = Policy((*sources, Tier("large", 100.0)), nodes, (Vertex(0.0, 20.0, 0.9, 0),), OperatingPoint(0, 0, 0.0))
    save_policy(policy, folder / "policy.json")
    path = folder / "cascades.toml"
    path.write_text(TWO_TIERS.replace("READING", reading))
    provider = load_provider(path)
    litellm.custom_provider_map.append({"provider": "metaverify", "custom_handler": provider})
    return provider


ENDS: Graph = (Ask("large", 4), Stop(Accept("small")), Stop(Accept("large")))  # nodes 2, 3 and 4


@pytest.mark.parametrize(
    ("votes", "asked", "tier"),
    [([1, 1], 2, "small"), ([0], 1, "large"), ([1, 0, 1], 3, "small"), ([1, 0, 0], 3, "large")],
)
def test_votes_are_asked_for_one_by_one_until_they_suffice(
    tmp_path: Path, mocked: Mock, votes: list[int], asked: int, tier: str
) -> None:
    poll = Poll(
        "small",
        "self_verify",
        (
            Tally((1,), (2, None)),  # no: to large
            Tally((2,), (None, 3)),  # two yes: accept
            Tally((2,), (2, 3)),
        ),
        2,
    )
    small = Tier("small", 1.0, (Reading("self_verify", 3.0, (0.5,), (1, 1, 0), votes=3),))
    provider = two_tiers(
        tmp_path, 'readings.self_verify = { verifier = "self_verification" }', (Ask("small", 1), poll, *ENDS), small
    )
    told = ask({"small": {"votes": votes}}).metaverify
    assert told["tier"] == tier
    assert told["cost"] == pytest.approx(1.0 + asked * 1.0 + (100.0 if tier == "large" else 0.0))
    assert [step["action"] for step in told["trail"]].count("verify") == asked
    share = replace(small, readings=(replace(small.readings[0], votes=0),))
    nodes = (Ask("small", 1), Read("small", "self_verify", (0.5,), (2, 3), 2), *ENDS)
    policy = Policy((share, Tier("large", 100.0)), nodes, (Vertex(0.0, 20.0, 0.9, 0),), OperatingPoint(0, 0, 0.0))
    save_policy(policy, tmp_path / "policy.json")
    error = provider.cascades["support"].store.reload().error
    assert error is not None
    assert "'self_verify' of 'small' is votes in one of two policies; restart to change that" in error


def test_a_verifier_without_votes_is_refused_where_the_policy_asks_for_them(tmp_path: Path, mocked: Mock) -> None:
    poll = Poll("small", "sure", (Tally((1,), (2, 3)),), 2)
    small = Tier("small", 1.0, (Reading("sure", 3.0, (0.5,), (1, 1, 0), votes=3),))
    with pytest.raises(SettingsError, match=r"small\.readings\.sure: the policy asks for its votes one by one"):
        two_tiers(tmp_path, 'readings.sure = { verifier = "p_true" }', (Ask("small", 1), poll, *ENDS), small)


@pytest.mark.parametrize(
    ("reading", "world", "price"),
    [
        ('{ verifier = "p_true" }', {"true": 0.9}, 1.0),
        ('{ verifier = "self_verification", k = 4 }', {"votes": [1, 1, 0, 1]}, 4.0),
        ('{ verifier = "self_consistency", k = 2 }', {}, 2.0),
        ('{ verifier = "answer_probability", aggregate = "min" }', {"p": [0.9, 0.8]}, 0.0),
    ],
    ids=["p_true", "self_verification", "self_consistency", "answer_probability"],
)
def test_each_verifier_reads_a_tiers_answer_at_its_price(
    tmp_path: Path, mocked: Mock, reading: str, world: dict[str, Any], price: float
) -> None:
    confidence = {"true": 0.9 / (0.9 + 0.05), "votes": 0.75, "p": 0.8}.get(next(iter(world), ""), 1.0)
    small = Tier("small", 1.0, (Reading("sure", 0.5, (0.5,), (1, 1, 0)),))
    nodes = (Ask("small", 1), Read("small", "sure", (0.5,), (2, 3), 2), *ENDS)
    two_tiers(tmp_path, f"readings.sure = {reading}", nodes, small)
    told = ask({"small": world}).metaverify
    assert (told["tier"], told["cost"]) == ("small", pytest.approx(1.0 + price))
    sure = {name: value for step in told["trail"] for name, value in step["confidence"].items()}
    assert sure == {"sure": pytest.approx(confidence)}


def test_a_signal_reads_the_answer_that_it_needs(tmp_path: Path, mocked: Mock) -> None:
    judge = Tier("judge", 0.0, (Reading("conf", 2.0, (0.5,), (1, 1, 0)),), answer=False, needs=("small",))
    nodes = (Ask("small", 1), Read("judge", "conf", (0.5,), (2, 3), 2), *ENDS)
    reading = """
[support.tiers.judge.readings.conf]
verifier = "judge"
litellm_params = { model = "mock/judge", input_cost_per_token = 0.0, output_cost_per_token = 0.0002 }
"""
    two_tiers(tmp_path, reading, nodes, Tier("small", 1.0), judge)
    assert ask({"judge": {"grade": 80}}).metaverify["cost"] == pytest.approx(3.0)
    told = ask({"judge": {"grade": 20}, "small": {"text": "so it is"}}).metaverify
    assert (told["tier"], told["cost"]) == ("large", pytest.approx(103.0))
    assert [asked["messages"][1]["content"] for tier, asked in mocked.asked if tier == "judge"] == [
        "says small",
        "so it is",
    ]


def test_a_policy_that_hands_over_ends_in_an_error_that_is_not_tried_again(tmp_path: Path, mocked: Mock) -> None:
    small = Tier("small", 1.0, (Reading("sure", 0.0, (0.5,), (1, 1, 0)),))
    nodes = (Ask("small", 1), Read("small", "sure", (0.5,), (2, 3), 2), Stop(Abstain()), Stop(Accept("small")))
    policy = Policy((small,), nodes, (Vertex(0.0, 20.0, 0.9, 0),), OperatingPoint(0, 0, 0.0), abstain=0.4)
    save_policy(policy, tmp_path / "policy.json")
    path = tmp_path / "cascades.toml"
    settings = TWO_TIERS.replace("READING", 'readings.sure = { verifier = "answer_probability" }')
    path.write_text(settings[: settings.index("[support.tiers.large]")])
    litellm.custom_provider_map.append({"provider": "metaverify", "custom_handler": load_provider(path)})
    assert ask({"small": {"p": [0.9]}}).metaverify["tier"] == "small"
    with pytest.raises(litellm.UnprocessableEntityError, match="hands this request over to a person"):
        ask({"small": {"p": [0.1]}})
    with pytest.raises(litellm.UnprocessableEntityError) as failed:
        ask({"small": {"p": [0.1]}})
    assert (failed.value.metaverify["cost"], failed.value.headers) == (1.0, {"x-metaverify-cost": "0.001"})


OURS = """
import threading, time
from metaverify.policies.router import Failure, Look

asked_in = []

def slow(tier, request, answer):
    asked_in.append(threading.current_thread().name)
    time.sleep(0.1)
    return Look(0.9, 0.5)

def refusing(tier, request, answer):
    raise Failure("closed", 0.25)

def broken(tier, request, answer):
    raise ValueError

broken.with_answer = True

def ending(tier, request, answer):
    raise SystemExit(3)

def interrupting(tier, request, answer):
    raise KeyboardInterrupt

async def ending_itself(tier, request, answer):
    raise SystemExit(3)

def nothing(tier, request, answer):
    pass

def bare(tier, request, answer):
    return 0.9
"""


def test_a_verifier_that_cannot_be_awaited_holds_nobody_up(
    tmp_path: Path, mocked: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ours", raising=False)
    (tmp_path / "ours.py").write_text(OURS)
    small = Tier("small", 1.0, (Reading("sure", 0.5, (0.5,), (1, 1, 0)),))
    nodes = (Ask("small", 1), Read("small", "sure", (0.5,), (2, 3), 2), *ENDS)
    two_tiers(tmp_path, 'readings.sure = { verifier = "ours:slow" }', nodes, small)

    async def both() -> float:
        ticks = 0
        request = asyncio.create_task(aask({}))
        while not request.done():
            await asyncio.sleep(0.005)
            ticks += not request.done()
        assert (await request).metaverify["cost"] == pytest.approx(1.5)
        return ticks

    asyncio.run(both())
    (name,) = sys.modules["ours"].asked_in
    assert name != threading.main_thread().name
    assert sys.path.count(str(tmp_path)) == 0


@pytest.mark.parametrize(
    ("verifier", "cost", "reason"),
    [
        ("refusing", 101.25, "closed"),
        ("broken", 101.0, ""),
        ("ending", 101.5, "SystemExit"),
        ("interrupting", 101.5, "KeyboardInterrupt"),
        ("ending_itself", 101.5, "SystemExit"),
        ("nothing", 101.5, "TypeError"),
        ("bare", 101.5, "TypeError"),
    ],
)
def test_a_verifier_of_ones_own_that_fails_is_missing(
    tmp_path: Path, mocked: Mock, monkeypatch: pytest.MonkeyPatch, verifier: str, cost: float, reason: str
) -> None:
    monkeypatch.delitem(sys.modules, "ours", raising=False)
    (tmp_path / "ours.py").write_text(OURS)
    small = Tier("small", 1.0, (Reading("sure", 0.5, (0.5,), (1, 1, 0)),))
    nodes = (Ask("small", 1), Read("small", "sure", (0.5,), (2, 3), 2), *ENDS)
    two_tiers(tmp_path, f'readings.sure = {{ verifier = "ours:{verifier}" }}', nodes, small)
    told = ask({}).metaverify
    assert (told["tier"], told["cost"]) == ("large", pytest.approx(cost))
    assert [step["reason"] for step in told["trail"] if step["reason"]] == ([reason] if reason else [])


def test_a_verifier_that_ends_the_loop_ends_only_its_own_request(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = serve()

    async def end(*_: object, **__: object) -> None:
        raise SystemExit(3)

    with monkeypatch.context() as patch:
        patch.setattr(provider, "acompletion", end)
        with pytest.raises(SystemExit):
            provider.completion("support", [])
    assert ask(EASY).metaverify["tier"] == "small"


def test_who_interrupts_the_program_is_no_verifier_that_fails() -> None:
    async def interrupted(tier: Any, request: Any, answer: Any) -> Look:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(of_cascades._asked(interrupted, Model("small", {}), Request([]), None))


def test_a_failure_that_is_its_own_cause_may_have_been_billed() -> None:
    error = RuntimeError("round and round")
    error.__cause__ = error
    failure = of_cascades._failure(error)
    assert (failure.reason, failure.cost) == ("RuntimeError", None)


def test_a_loop_that_is_closed_has_nothing_to_run() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    runner = threading.Thread(target=of_litellm._run, args=(loop,), daemon=True)
    runner.start()
    runner.join(10.0)
    assert not runner.is_alive()


@pytest.mark.parametrize("kind", ["plain", "http"])
def test_verifiers_that_wait_hold_up_neither_each_other_nor_those_who_ask_none(
    tmp_path: Path, mocked: Mock, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    asked: list[Any] = []
    gate = threading.Event()

    def wait(*told: Any) -> Any:
        asked.append(told)
        gate.wait(30.0)
        return Look(0.9, 0.5) if kind == "plain" else {"confidence": 0.9, "cost": 0.5}

    ours = ModuleType("ours")
    ours.wait = wait  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ours", ours)
    monkeypatch.setattr(HTTPVerifier, "_post", wait)
    how = 'verifier = "ours:wait"' if kind == "plain" else 'verifier = "http", url = "http://127.0.0.1:9/"'
    small = Tier("small", 1.0, (Reading("sure", 0.5, (0.5,), (1, 1, 0)),))
    nodes = (Ask("small", 1), Read("small", "sure", (0.5,), (2, 3), 2), *ENDS)
    two_tiers(tmp_path, f"readings.sure = {{ {how} }}", nodes, small)
    many = min(32, (os.cpu_count() or 1) + 4) + 4  # more than asyncio has threads

    async def all_at_once() -> None:
        requests = [asyncio.create_task(aask({})) for _ in range(many)]
        try:
            async with asyncio.timeout(10.0):
                while len(asked) < many:
                    await asyncio.sleep(0.01)
                await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        finally:
            gate.set()
        assert [(await request).metaverify["tier"] for request in requests] == ["small"] * many

    asyncio.run(all_at_once())


def test_parts_of_a_fused_reading_are_read_and_the_sum_is_not(tmp_path: Path, mocked: Mock) -> None:
    parts = (Points("a", (0.5,), (0.1, 0.4), 0.0), Points("b", (0.5,), (0.1, 0.4), 0.0))
    hist = ((0.5,), (1, 1, 0))
    readings = (Reading("a", 0.0, *hist), Reading("b", 0.0, *hist), Reading("fused", 0.0, *hist, parts=parts))
    nodes = (Ask("small", 1), Read("small", "fused", (0.6,), (2, 3), 2), *ENDS)
    reading = """
readings.a = { verifier = "answer_probability" }
readings.b = { verifier = "answer_probability", aggregate = "min" }
"""
    two_tiers(tmp_path, reading, nodes, Tier("small", 1.0, readings))
    assert ask({"small": {"p": [0.9, 0.8]}}).metaverify["tier"] == "small"  # .4 + .4
    assert ask({"small": {"p": [0.9, 0.4]}}).metaverify["tier"] == "large"  # .4 + .1


def warnings_of(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


@pytest.mark.parametrize(
    ("per_token", "dollars", "start", "call"),  # a call has one token of prompt, which is free, and ten of answer
    [
        (1e-4, 1e-3, False, False),
        (0.9e-3, 1e-3, False, False),
        (1.1e-3, 1e-3, True, False),  # no call costs less than a token
        (1.1e-3, 1.0, False, False),
        (0.9e-9, 1e-3, True, False),  # and none has more than a million
        (0.9e-6, 1e-3, False, True),
        (1.1e-6, 1e-3, False, False),
        (0.9e-6, 1e-6, False, False),
        (0.0, 1e-3, False, False),
    ],
)
def test_a_price_that_is_far_from_what_a_call_costs_is_told_once(
    tmp_path: Path,
    mocked: Mock,
    caplog: pytest.LogCaptureFixture,
    per_token: float,
    dollars: float,
    start: bool,
    call: bool,
) -> None:
    with caplog.at_level("WARNING", "metaverify"):
        one_tier(
            tmp_path,
            f'{{ model = "mock/small", input_cost_per_token = 0.0, output_cost_per_token = {per_token} }}',
            f"dollars = {dollars}",
        )
        at_start = warnings_of(caplog, "set dollars to what a unit")
        caplog.clear()
        for _ in range(2):
            ask({})
        at_call = warnings_of(caplog, "set dollars to what a unit")
    assert (len(at_start), len(at_call)) == (start, call)
    for message in at_start + at_call:
        assert f"a call of small costs 1, which is {dollars:g} dollars" in message
        assert f"{per_token if start else 10 * per_token:g} dollars" in message


def test_metrics_are_told_in_prometheus_format(serve: Serve) -> None:
    provider = serve()
    ask(HARD)
    text = provider.prometheus("support")
    assert 'metaverify_calls_total{tier="large"} 1\n' in text
    assert "metaverify_policy_serial 0\n" in text
    assert 'metaverify_decisions_dropped_total{cause="full"} 0\n' in text


# --------------------------------------------------------------------------------- reloads, decisions, refits


def test_two_hundred_requests_at_once_with_reloads_follow_one_policy_each(serve: Serve, tmp_path: Path) -> None:
    cuts = {serial: 0.05 + 0.1 * serial for serial in range(1, 10)}
    revisions = {serial: cascade(serial=serial, cut=cut) for serial, cut in cuts.items()}
    provider = serve(policy=revisions[1])
    store = provider.cascades["support"].store
    worlds = [{"small": {"p": [(at % 100) / 100 + 0.003]}, "judge": {"grade": at % 97}} for at in range(200)]

    def reload(stop: threading.Event) -> None:
        for serial in range(2, 10):
            save_policy(revisions[serial], tmp_path / "policy.json")
            if stop.wait(0.05):
                return

    async def all_of_them() -> list[Any]:
        jobs = []
        for world in worlds:
            jobs.append(asyncio.create_task(aask(world)))
            await asyncio.sleep(0.003)
        return await asyncio.gather(*jobs)

    stop = threading.Event()
    writer = threading.Thread(target=reload, args=(stop,))
    writer.start()
    responses = asyncio.run(all_of_them())
    stop.set()
    writer.join()
    seen = set()
    for world, response in zip(worlds, responses, strict=True):
        told = response.metaverify
        serial = told["serial"]
        seen.add(serial)
        assert told["policy"] == policy_id(revisions[serial])
        tier, cost = outcome(world, cut=cuts[serial])
        assert (told["tier"], told["cost"]) == (tier, pytest.approx(cost))
        assert response.choices[0].message.content == f"says {tier}"
    assert len(seen) > 2
    assert store.health().refused == 0


def test_a_policy_that_the_settings_do_not_fit_is_refused_and_the_last_one_stays(serve: Serve, tmp_path: Path) -> None:
    provider = serve()
    stranger = replace(
        cascade(serial=1), tiers=(*cascade().tiers, Tier("other", 1.0, (Reading("conf", 0.0, (), (1, 0)),)))
    )
    save_policy(stranger, tmp_path / "policy.json")
    assert ask(EASY).metaverify["serial"] == 0
    error = provider.cascades["support"].store.health().error
    assert error is not None
    assert "support.tiers.other: the policy calls this tier; give its litellm_params" in error


def test_the_decision_log_has_what_the_policy_decides_on_the_same_readings(serve: Serve, tmp_path: Path) -> None:
    policy = Policy(**{**_fields(cascade()), "point": OperatingPoint(MIDDLE, HIGH, 0.5)})
    provider = serve(policy=policy)
    worlds = [{"small": {"p": [at / 40 + 0.01]}, "judge": {"grade": (at * 37) % 100}} for at in range(40)]
    for at, world in enumerate(worlds):
        ask(world, metadata={"key": f"request-{at}"})
    policy = load_policy(tmp_path / "policy.json")
    steps: dict[str, list[dict[str, Any]]] = {}
    for line in decisions(provider, tmp_path):
        steps.setdefault(line["key"], []).append(line)
    assert len(steps) == len(worlds)
    for key, lines in steps.items():
        readings: dict[str, dict[str, Any]] = {}
        for line in lines:
            action = policy.decide(readings, key=key)
            assert type(action).__name__.lower() == line["action"]
            assert (action.tier, getattr(action, "reading", None)) == (line["tier"], line["reading"])  # type: ignore[union-attr]
            readings.setdefault(line["tier"], {}).update(line["confidence"])
    assert {lines[-1]["vertex"] for lines in steps.values()} == {MIDDLE, HIGH}


def test_the_decision_log_costs_what_a_replay_of_the_same_readings_costs(serve: Serve, tmp_path: Path) -> None:
    provider = serve()
    worlds = [{"small": {"p": [at / 40 + 0.01]}, "judge": {"grade": (at * 37) % 100}} for at in range(40)]
    for at, world in enumerate(worlds):
        ask(world, metadata={"key": f"request-{at}"})
    lines = decisions(provider, tmp_path)
    rows = [
        {
            "query_id": f"request-{at}",
            "conf_small": world["small"]["p"][0],
            "conf_judge_medium": world["judge"]["grade"] / 100,
            "verify_cost_judge_medium": COST["judge"],
            **{f"cost_{tier}": COST[tier] for tier in ("small", "medium", "large")},
            **{f"correct_{tier}": 1.0 for tier in ("small", "medium", "large")},
        }
        for at, world in enumerate(worlds)
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "log.csv")
    replayed = replay(load_policy(tmp_path / "policy.json"), read_log(tmp_path / "log.csv"))
    spent = {line["key"]: line["spent"] for line in lines}
    assert replayed.cost.mean == pytest.approx(sum(spent.values()) / 40, rel=1e-9)
    accepted = Counter(line["tier"] for line in lines if line["action"] == "accept")
    assert {tier: 40 * share for tier, share in replayed.accepts.items()} == pytest.approx(accepted)


def test_the_decision_log_refits(serve: Serve, tmp_path: Path) -> None:
    save_exploration(Exploration(0.5), tmp_path / "exploration.json")
    nodes = (
        Ask("small", 4),
        Ask("small", 2),
        Read("small", "conf", (0.8,), (3, 4), 3),
        Ask("medium", 5),
        Stop(Accept("small")),
        Stop(Accept("medium")),
    )
    tiers = (cascade().tiers[0], Tier("medium", 10.0))
    without_judge = replace(cascade(MIDDLE), nodes=nodes, vertices=cascade().vertices[:2], tiers=tiers)
    path = tmp_path / "cascades.toml"
    write_settings(tmp_path, 'exploration = "exploration.json"', without_judge)
    told = path.read_text()
    path.write_text(told[: told.index("[support.tiers.medium.readings")])  # and without large
    provider = load_provider(path)
    litellm.custom_provider_map.append({"provider": "metaverify", "custom_handler": provider})
    worlds = {f"request-{at}": {"small": {"p": [(at * 61) % 200 / 200 + 0.001]}} for at in range(200)}
    for key, world in worlds.items():
        ask(world, metadata={"key": key})
    decisions(provider, tmp_path)
    rows, skipped = read_decisions(tmp_path / "decisions.jsonl")
    assert skipped == 0
    labels = pl.DataFrame(
        [
            {"query_id": key, "tier": tier, "correct": float(tier == "medium" or world["small"]["p"][0] > 0.4)}
            for key, world in worlds.items()
            for tier in ("small", "medium")
        ]
    )
    join_labels(rows, labels).write_parquet(tmp_path / "seen.parquet")
    fitted = fit_partial(read_partial_log(tmp_path / "seen.parquet"), budget=6.0, folds=2)
    # Small is right above .4, and medium always is; the policy before had its cut at .8.
    assert fitted.policy.expected_quality > 0.97
    assert fitted.policy.decide({"small": {"conf": 0.1}}, key="?") == Call("medium")
    assert fitted.policy.decide({"small": {"conf": 0.7}}, key="?") == Accept("small")


def _fields(policy: Policy) -> dict[str, Any]:
    return {name: getattr(policy, name) for name in ("tiers", "nodes", "vertices", "salt")}


def test_settings_that_do_not_fit_the_policy_are_refused(tmp_path: Path, mocked: Mock) -> None:
    path = write_settings(tmp_path)
    whole = path.read_text()
    for old, new, message in [
        ("[support.tiers.large]", "[support.tiers.huge]", "support.tiers.large: the policy calls this tier"),
        ("readings.conf", "readings.cnf", "support.tiers.small.readings.conf: the policy reads this; say by which"),
        ('"answer_probability"', '"answer_prob"', "readings.conf: verifier 'answer_prob' is none of"),
        ('"judge"', '"self_verification"\nk = 0', "readings.judge: k is 0; give a whole number"),
        ('"judge"', '"p_true"\ntpo = 3', "readings.judge: verifier 'p_true': got an unexpected keyword argument 'tpo'"),
        ("every", "budget = 0.5\nevery", "support.budget: E_BUDGET: budget 0.5 is below 1"),
        ("every", "budgets = { intern = 0.5 }\nevery", "support.budgets.intern: E_BUDGET: budget 0.5 is below 1"),
    ]:
        path.write_text(whole.replace(old, new, 1))
        with pytest.raises((SettingsError, ValueError)) as refused:
            load_provider(path)
        assert message in str(refused.value)
    path.write_text(whole + '\n[support.tiers.extra]\nlitellm_params = { model = "mock/extra" }\n')
    with pytest.raises(SettingsError, match=r"support\.tiers\.extra: the policy has no such tier; it has 'large'"):
        load_provider(path)
