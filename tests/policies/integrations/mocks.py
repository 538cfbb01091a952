"""Tiers that do what the prompt says, in LiteLLM's own terms: models ``mock/<tier>``.

The first message is a world in JSON: tier -> {"p": the probability of each token, "text": what it says, "votes": what
it says of its own answer in turn, "grade": a judge's, "fail": how it fails, "wait": seconds}.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import litellm
from litellm.types.utils import ChoiceLogprobs, Delta, ModelResponse, ModelResponseStream, StreamingChoices, Usage

PRICES = {"small": 0.001, "medium": 0.01, "large": 0.1, "judge": 0.002}
"""Dollars of a call: each reply has one token of prompt, which costs nothing, and ten of answer."""

PARAMS = {
    tier: {"model": f"mock/{tier}", "input_cost_per_token": 0.0, "output_cost_per_token": price / 10}
    for tier, price in PRICES.items()
}


def prompt(**world: Any) -> list[dict[str, Any]]:
    """Messages that tell the tiers what to do."""
    return [{"role": "user", "content": json.dumps(world)}]


class Mock(litellm.CustomLLM):  # type: ignore[misc]
    """The tiers, and what they were asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.votes: Counter[str] = Counter()

    async def acompletion(
        self, model: str, messages: list[Any], optional_params: dict[str, Any], **_: Any
    ) -> ModelResponse:
        self.asked.append((model, {"messages": messages, **optional_params}))
        content = messages[0]["content"]
        if not isinstance(content, str):
            content = next(part["text"] for part in content if part["type"] == "text")
        of = json.loads(content).get(model, {})
        await asyncio.sleep(of.get("wait", 0.0))
        _fail(of.get("fail"), model)
        text, logprobs = of.get("text", f"says {model}"), None
        last = messages[-1]["content"]
        if "Decision:" in last:
            self.votes[content] += 1
            text = f"Check: so.\nDecision: {['incorrect', 'correct'][of['votes'][self.votes[content] - 1]]}"
        elif "Grade" in last:
            text = str(of.get("grade", "no idea"))
        elif "True or False" in last:
            text, of = "True", {**of, "p": [of["true"]]}
        if optional_params.get("logprobs") and "p" in of:
            logprobs = ChoiceLogprobs(
                content=[
                    {
                        "token": "True",
                        "logprob": math.log(p),
                        "top_logprobs": [
                            {"token": word, "logprob": math.log(share)}
                            for word, share in (("True", p), (" false", (1 - p) / 2))
                            if share > 0.0
                        ],
                    }
                    for p in of["p"]
                ]
            )
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if "tools" in optional_params and of.get("tool"):
            call = {"id": "call-1", "type": "function", "function": {"name": of["tool"], "arguments": '{"x": 1}'}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        reason = "tool_calls" if "tool_calls" in message else "stop"
        choice = {"index": 0, "finish_reason": reason, "message": message, "logprobs": logprobs}
        if of.get("fail_late") == "timeout":
            raise litellm.Timeout("too late", model, "mock")
        usage = Usage(prompt_tokens=1, completion_tokens=10, total_tokens=11)
        return ModelResponse(model=model, choices=[choice], usage=usage)

    async def astreaming(self, model: str, messages: list[Any], **given: Any) -> AsyncIterator[Any]:
        whole = await self.acompletion(model, messages, **given)
        text = whole.choices[0].message.content
        broken = json.loads(messages[0]["content"]).get(model, {}).get("breaks")
        yield ModelResponseStream(model=model, choices=[StreamingChoices(index=0, delta=Delta(role="assistant"))])
        for at, word in enumerate(text.split(" ")):
            await asyncio.sleep(0)
            if at == broken:
                raise litellm.InternalServerError("lost on the way", "mock", model)
            delta = Delta(content=word if at == 0 else f" {word}")
            told = getattr(whole.choices[0], "logprobs", None) if at == 0 else None
            yield ModelResponseStream(model=model, choices=[StreamingChoices(index=0, delta=delta, logprobs=told)])
        yield ModelResponseStream(model=model, choices=[StreamingChoices(index=0, delta=Delta(content=""))])
        usage = ModelResponseStream(model=model, choices=[StreamingChoices(index=0, delta=Delta())])
        usage.usage = whole.usage
        yield usage
        yield ModelResponseStream(model=model, choices=[StreamingChoices(index=0, delta=Delta(), finish_reason="stop")])


class Forwarding(litellm.CustomLLM):  # type: ignore[misc]
    """A provider that only forwards to a tier."""

    async def acompletion(self, model: str, messages: list[Any], **_: Any) -> Any:
        return await litellm.acompletion(**PARAMS[model], messages=messages)


def _fail(how: str | None, model: str) -> None:
    if how == "rate":
        raise litellm.RateLimitError("too many", "mock", model)
    if how == "request":
        raise litellm.BadRequestError("this is no request", model, "mock")
    if how == "down":
        raise litellm.APIConnectionError("nobody there", "mock", model)
    if how is not None:
        raise ValueError(how)


mock = Mock()
