"""A cascade is a model of LiteLLM's proxy: the real one, started once for all of these tests."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from metaverify.policies.file import policy_id, save_policy
from metaverify.policies.policy import Policy

from .cascades import EASY, HARD, HIGH, LOW, MIDDLE, MIDDLING, cascade, outcome
from .mocks import prompt
from .proxies import running_proxy


@dataclass(frozen=True)
class Proxy:
    """One that runs."""

    url: str
    folder: Path

    def client(self, key: str = "sk-example") -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=30.0)

    def decisions(self, wanted: set[str]) -> dict[str, list[dict[str, Any]]]:
        """The steps of these requests, once they are written."""
        steps: dict[str, list[dict[str, Any]]] = {}
        for _ in range(100):
            steps = {}
            for line in (self.folder / "decisions.jsonl").read_text().splitlines():
                told = json.loads(line)
                steps.setdefault(told["key"], []).append(told)
            if wanted <= steps.keys():
                break
            time.sleep(0.05)
        return {key: steps[key] for key in wanted}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    with running_proxy(folder, "budgets = { intern = 6.0 }\nrate = 1e6\nburst = 1e6") as url:
        yield Proxy(url, folder)


def ask(client: openai.OpenAI, world: dict[str, Any], metadata: dict[str, Any] | None = None) -> tuple[Any, float]:
    """The response, and the cost in its header in dollars."""
    raw = client.chat.completions.with_raw_response.create(
        model="assistant",
        messages=prompt(**world),  # type: ignore[arg-type]
        extra_body={"metadata": metadata} if metadata else {},
    )
    return raw.parse(), float(raw.headers["x-litellm-response-cost"])


@pytest.mark.parametrize("world", [EASY, MIDDLING, HARD], ids=["easy", "middling", "hard"])
def test_the_right_tier_answers_and_the_header_has_the_sum_of_all_costs(proxy: Proxy, world: dict[str, Any]) -> None:
    tier, cost = outcome(world)
    response, paid = ask(proxy.client(), world)
    assert response.choices[0].message.content == world.get(tier, {}).get("text", f"says {tier}")
    assert paid == pytest.approx(cost / 1000, rel=1e-12)
    assert (response.metaverify["tier"], response.metaverify["cost"]) == (tier, pytest.approx(cost, rel=1e-12))


@pytest.mark.parametrize("world", [EASY, MIDDLING, HARD], ids=["easy", "middling", "hard"])
def test_joined_chunks_are_the_answer(proxy: Proxy, world: dict[str, Any]) -> None:
    stream = proxy.client().chat.completions.create(
        model="assistant",
        messages=prompt(**world),  # type: ignore[arg-type]
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks: list[Any] = [*stream]
    tier, cost = outcome(world)
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said == world.get(tier, {}).get("text", f"says {tier}")
    told = [chunk.metaverify for chunk in chunks if getattr(chunk, "metaverify", None)]
    assert [(one["tier"], one["cost"]) for one in told] == [(tier, pytest.approx(cost, rel=1e-12))]
    paid = [chunk.usage.cost for chunk in chunks if chunk.usage]
    assert paid == [pytest.approx(cost / 1000, rel=1e-12)]


def test_a_request_turns_the_dial_and_a_key_has_its_own(proxy: Proxy) -> None:
    owner, intern = proxy.client(), proxy.client("sk-intern")
    assert [ask(owner, HARD, {"budget": budget})[0].metaverify["vertex"] for budget in (1, "6", 40)] == [
        LOW,
        MIDDLE,
        HIGH,
    ]
    assert ask(intern, HARD)[0].metaverify["vertex"] == MIDDLE
    assert ask(intern, HARD, {"budget": 1})[0].metaverify["vertex"] == LOW
    for client, budget, message in [
        (owner, 0.5, "budget 0.5 is below 1, the cost of the cheapest policy"),
        (intern, 40, "metadata.budget is 40, above the 6 that 'intern' may spend"),
        (intern, "much", "metadata.budget is 'much'; give a mean cost per request"),
    ]:
        with pytest.raises(openai.BadRequestError, match=message):
            ask(client, HARD, {"budget": budget})
    with pytest.raises(openai.BadRequestError, match="below 1"):
        owner.chat.completions.create(
            model="assistant",
            messages=prompt(**HARD),  # type: ignore[arg-type]
            stream=True,
            extra_body={"metadata": {"budget": 0.5}},
        )


def test_no_client_passes_for_another_key(proxy: Proxy) -> None:
    response, _ = ask(proxy.client("sk-intern"), HARD, {"user_api_key_alias": "owner"})
    assert response.metaverify["vertex"] == MIDDLE


@pytest.mark.parametrize(
    ("world", "tier", "cost"),
    [
        (MIDDLING | {"small": {"fail": "rate"}}, "medium", 12.0),
        (MIDDLING | {"small": {"text": ""}}, "medium", 13.0),
        (MIDDLING | {"judge": {"fail": "rate"}}, "large", 113.0),
        (HARD | {"large": {"fail": "rate"}}, "medium", 13.0),
    ],
)
def test_what_fails_is_gone_round(proxy: Proxy, world: dict[str, Any], tier: str, cost: float) -> None:
    response, paid = ask(proxy.client(), world)
    assert response.metaverify["tier"] == tier
    assert paid == pytest.approx(cost / 1000, rel=1e-12)


def test_where_no_tier_answers_the_status_is_the_last_tiers(proxy: Proxy) -> None:
    with pytest.raises(openai.RateLimitError):
        ask(proxy.client(), {tier: {"fail": "rate"} for tier in ("small", "medium", "large")})


@pytest.mark.slow
def test_where_no_tier_says_anything_the_error_tells_the_cost_and_is_not_tried_again(proxy: Proxy) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="gave an empty answer") as failed:
        ask(proxy.client(), {of: {"text": ""} for of in ("small", "medium", "large")})
    assert float(failed.value.response.headers["x-metaverify-cost"]) == pytest.approx(0.111)


def test_two_hundred_requests_at_once_with_reloads_follow_one_policy_each(proxy: Proxy) -> None:
    cuts = {serial: 0.05 + 0.1 * serial for serial in range(1, 10)}
    revisions: dict[int, Policy] = {serial: cascade(serial=serial, cut=cut) for serial, cut in cuts.items()}
    worlds = [{"small": {"p": [(at % 100) / 100 + 0.003]}, "judge": {"grade": at % 97}} for at in range(200)]
    client = openai.AsyncOpenAI(base_url=proxy.url, api_key="sk-example", max_retries=0, timeout=60.0)

    async def ask_one(at: int) -> tuple[Any, float]:
        raw = await client.chat.completions.with_raw_response.create(
            model="assistant",
            messages=prompt(**worlds[at]),  # type: ignore[arg-type]
            extra_body={"metadata": {"key": f"reload-{at}"}},
        )
        return raw.parse(), float(raw.headers["x-litellm-response-cost"])

    async def all_of_them() -> list[tuple[Any, float]]:
        jobs = []
        for at in range(len(worlds)):
            if at % 20 == 0 and at // 20 + 1 in revisions:
                save_policy(revisions[at // 20 + 1], proxy.folder / "policy.json")
            jobs.append(asyncio.create_task(ask_one(at)))
            await asyncio.sleep(0.004)
        try:
            return await asyncio.gather(*jobs)
        finally:
            await client.close()

    responses = asyncio.run(all_of_them())
    seen: Counter[int] = Counter()
    for world, (response, paid) in zip(worlds, responses, strict=True):
        told = response.metaverify
        serial = told["serial"]
        seen[serial] += 1
        right = cascade() if serial == 0 else revisions[serial]
        tier, cost = outcome(world, cut=cuts.get(serial, 0.8))
        assert told["policy"] == policy_id(right)
        assert told["tier"] == tier
        assert paid == pytest.approx(cost / 1000, rel=1e-12)
        assert response.choices[0].message.content == f"says {tier}"
    assert len(seen) > 2
    by_id = {policy_id(policy): policy for policy in [cascade(), *revisions.values()]}
    steps = proxy.decisions({f"reload-{at}" for at in range(len(worlds))})
    for key, lines in steps.items():  # the log has what its policy decides on the same readings
        readings: dict[str, dict[str, Any]] = {}
        for line in lines:
            action = by_id[line["policy"]].decide(readings, key=key)
            assert type(action).__name__.lower() == line["action"]
            assert (action.tier, getattr(action, "reading", None)) == (line["tier"], line["reading"])  # type: ignore[union-attr]
            readings.setdefault(line["tier"], {}).update(line["confidence"])


def test_nothing_was_sent_anywhere_else(proxy: Proxy) -> None:
    assert not (proxy.folder / "denied.txt").exists()
