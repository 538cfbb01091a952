"""A tier's model, as LiteLLM calls it, and the request that all tiers are asked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["Model", "Request", "answer_text", "is_empty", "token_logprobs"]

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked, as it did: every tier gets the same.

    ``params`` are the OpenAI parameters that came with the messages (tools, response_format, temperature, ...).
    ``answers`` has what tiers answered so far, as LiteLLM's responses, where a verifier is asked.
    """

    messages: Sequence[Any]
    params: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    answers: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that LiteLLM can call.

    ``name`` is the tier's; ``litellm_params`` are those of LiteLLM's ``model_list``; ``dollars`` is what a unit of the
    policy's cost is.
    """

    name: str
    litellm_params: Mapping[str, Any] = field(repr=False)  # may hold a key
    dollars: float = 1.0

    async def complete(self, messages: Sequence[Any], **params: Any) -> Any:
        """LiteLLM's response to these messages; parameters go before the model's own.

        It is not tried again unless the model's own parameters say so: whoever asks has another way out.

        Raises:
            Exception: whatever LiteLLM raises.
        """
        import litellm  # seconds, so not before it is used

        tries = {} if RETRIES & self.litellm_params.keys() else dict.fromkeys(RETRIES, 0)
        asked = {**tries, **self.litellm_params, **params, **self._address()}
        if params.get("extra_headers"):
            asked["extra_headers"] = params["extra_headers"] | (self.litellm_params.get("extra_headers") or {})
        return await litellm.acompletion(**asked | self._prices(), messages=[*messages])

    def _address(self) -> dict[str, Any]:
        """Which model it is and where; no client chooses that."""
        return {name: self.litellm_params[name] for name in _ADDRESS if name in self.litellm_params}

    def _prices(self) -> dict[str, Any]:
        """The model's own prices, by an id that stands for them in LiteLLM's table.

        In a call it would put them under the model's name, for everybody who asks that model.
        """
        import litellm
        from litellm.types.utils import CustomPricingLiteLLMParams

        told = {name: self.litellm_params.get(name) for name in CustomPricingLiteLLMParams.model_fields}
        own = {name: price for name, price in told.items() if price is not None}
        if not (own.keys() >= PER_TOKEN or own.keys() & PER_SECOND):  # by which LiteLLM does not charge
            return {}
        address = self._address()
        provider = litellm.get_llm_provider(address["model"], *map(address.get, _OF_PROVIDER))[1]
        name = f"{provider}/{hashlib.sha256(repr([*own.items()]).encode()).hexdigest()}"
        if name not in litellm.model_cost:
            cached = dict.fromkeys(CACHED, own.get("input_cost_per_token"))
            litellm.register_model({name: {"litellm_provider": provider, **cached, **own}})
        metadata = self.litellm_params.get("litellm_metadata") or {}
        return dict.fromkeys(own) | {"litellm_metadata": {**metadata, "model_info": {"id": name, **own}}}

    def dollars_per_token(self) -> float | None:
        """Dollars for a token of the prompt and one of the answer together: its own prices, else LiteLLM's; None where
        neither knows."""
        import litellm

        model = str(self.litellm_params["model"])
        listed = litellm.model_cost.get(model) or litellm.model_cost.get(model.partition("/")[2]) or {}
        told = [self.litellm_params.get(name, listed.get(name)) for name in PER_TOKEN]
        return math.fsum(told) if all(isinstance(price, int | float) for price in told) else None

    def cost(self, response: Any) -> float | None:
        """What a response cost in the policy's unit: nothing out of a cache, None where nobody knows the price."""
        told = getattr(response, "_hidden_params", None) or {}
        paid = 0.0 if told.get("cache_hit") is True else told.get("response_cost")
        return paid / self.dollars if isinstance(paid, int | float) and math.isfinite(paid) else None


RETRIES = frozenset({"max_retries", "num_retries"})
PER_TOKEN = frozenset({"input_cost_per_token", "output_cost_per_token"})
PER_SECOND = frozenset({"cost_per_second", "input_cost_per_second", "output_cost_per_second"})
CACHED = ("cache_read_input_token_cost", "cache_creation_input_token_cost")

_OF_PROVIDER = ("custom_llm_provider", "api_base", "api_key")
_ADDRESS = ("model", "api_base", "base_url", "api_key", "api_version", "custom_llm_provider", "mock_response")


def answer_text(response: Any) -> str:
    """The text of an answer's first choice, "" where it has none."""
    content = response.choices[0].message.content if response.choices else None
    return content if isinstance(content, str) else ""


def is_empty(response: Any) -> bool:
    """Whether a response says nothing and calls no tool."""
    for choice in response.choices or ():
        message = choice.message
        if (message.content or "").strip() if isinstance(message.content, str | None) else message.content:
            return False
        if getattr(message, "tool_calls", None) or getattr(message, "function_call", None):
            return False
        if any(getattr(message, name, None) for name in ("refusal", "audio", "images")):
            return False
    return True


def token_logprobs(response: Any) -> list[Any]:
    """The tokens of a response's first choice with their log-probabilities; none where they were not told."""
    told = getattr(response.choices[0], "logprobs", None) if response.choices else None
    content = told.get("content") if isinstance(told, dict) else getattr(told, "content", None)
    return [*(content or ())]
