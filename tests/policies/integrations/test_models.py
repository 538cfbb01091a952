"""A tier's model, as LiteLLM calls it: its prices, its tries, and what a call that failed may have cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger

from metaverify.policies.integrations.chunks import response_of
from metaverify.policies.integrations.models import Model

from .https import ANSWER, REFUSAL, http
from .mocks import Mock, prompt

pytestmark = [
    pytest.mark.filterwarnings("ignore:Items? .* using the `ReadOnly` qualifier:UserWarning"),  # LiteLLM's own
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning"),
]

MESSAGES = [{"role": "user", "content": "?"}]


class Costs(CustomLogger):  # type: ignore[misc]
    """What LiteLLM tells its callbacks that calls cost."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[float] = []

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self.told.append(kwargs["response_cost"])


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Costs:
    seen = Costs()
    for name in ("callbacks", "success_callback", "failure_callback"):
        monkeypatch.setattr(litellm, name, [seen])
    for name in ("_async_success_callback", "_async_failure_callback"):
        monkeypatch.setattr(litellm, name, [])
    return seen


@pytest.mark.parametrize("stream", [False, True])
def test_one_model_has_a_price_for_each_who_names_one(mocked: Mock, costs: Costs, stream: bool) -> None:
    prices = [0.001, 0.25, 0.0]
    ours = [
        Model("t", {"model": "mock/small", "input_cost_per_token": 0.0, "output_cost_per_token": each})
        for each in prices
    ]

    async def cost(model: Model) -> float | None:
        if not stream:
            return model.cost(await model.complete(prompt()))
        came = await model.complete(prompt(), stream=True, stream_options={"include_usage": True})
        return model.cost(response_of([chunk async for chunk in came], prompt(), came.logging_obj))

    async def all_at_once() -> list[float | None]:
        came = await asyncio.gather(*(cost(model) for _ in range(10) for model in ours))
        async with asyncio.timeout(10.0):
            while len(costs.told) < len(came):
                await asyncio.sleep(0.01)
        return came

    expected = [10 * each for each in prices] * 10  # ten tokens each
    assert asyncio.run(all_at_once()) == pytest.approx(expected, rel=1e-12)
    assert sorted(costs.told) == pytest.approx(sorted(expected), rel=1e-12)


def test_what_others_pay_for_a_model_stays_as_it_is(api: Callable[[bytes], tuple[str, list[bytes]]]) -> None:
    url, _ = api(ANSWER)
    before = dict(litellm.model_cost["gpt-4o"])
    own = {"input_cost_per_token": 0.5, "output_cost_per_token": 0.25}
    at = {"model": "openai/gpt-4o", "api_base": url, "api_key": "k"}
    ours = Model("t", at | own)
    assert ours.cost(asyncio.run(ours.complete(MESSAGES))) == pytest.approx(0.5 * 3 + 0.25 * 2, rel=1e-12)
    others = litellm.completion(**at, messages=MESSAGES)._hidden_params["response_cost"]
    assert others == pytest.approx(3 * before["input_cost_per_token"] + 2 * before["output_cost_per_token"], rel=1e-12)
    assert litellm.model_cost["gpt-4o"]["input_cost_per_token"] == before["input_cost_per_token"]


@pytest.mark.parametrize(("told", "tries"), [({}, 1), ({"max_retries": 1}, 2)])
def test_a_model_is_tried_once_unless_its_settings_say_more(
    api: Any, told: dict[str, Any], tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litellm, "num_retries", None if told else 2)
    url, sent = api(http(429, REFUSAL))
    model = Model("t", {"model": "openai/none", "api_base": url, "api_key": "k", **told})
    with pytest.raises(litellm.RateLimitError):
        asyncio.run(model.complete(MESSAGES))
    assert len(sent) == tries
