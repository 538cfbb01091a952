"""What LiteLLM knows of a model's prices and tokens, without a network; and its responses on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaverify.policies.integrations.models import Model

__all__ = ["Price", "as_json", "count_tokens", "made_up", "price_of", "response_of", "the_litellm"]

NEEDED = "collect needs the extra `litellm`: pip install 'metaverify[fit,litellm]'"


def the_litellm() -> Any:
    """LiteLLM, quiet, with the prices of its own version.

    Raises:
        ImportError: it is not installed.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it fetches prices, other ones each day
    try:
        import litellm
    except ModuleNotFoundError as error:
        raise ImportError(f"{NEEDED} (it brings {error.name})") from error
    litellm.suppress_debug_info = True
    return litellm


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for a token of the prompt and of the answer, and the most tokens that an answer can have; None where
    nobody knows."""

    prompt: float | None
    answer: float | None
    most: int | None

    def of(self, tokens: int, answered: int) -> float | None:
        """Dollars for a call."""
        if self.prompt is None or self.answer is None:
            return None
        return self.prompt * tokens + self.answer * answered

    def dearest(self, tokens: int) -> float | None:
        """Dollars for the longest answer."""
        if self.answer == 0.0:
            return self.of(tokens, 0)
        return None if self.most is None else self.of(tokens, self.most)


def price_of(model: Model, params: Mapping[str, Any]) -> Price:
    """The price of a call with these parameters: as the settings say, else as LiteLLM's table does."""
    told = {**_table(model), **model.litellm_params, **params}
    most = next((told[name] for name in ("max_completion_tokens", "max_tokens") if told.get(name)), None)
    most = most or told.get("max_output_tokens")
    return Price(
        told.get("input_cost_per_token"),
        told.get("output_cost_per_token"),
        None if most is None else int(most) * int(told.get("n") or 1),
    )


def _table(model: Model) -> dict[str, Any]:
    name = str(model.litellm_params["model"])
    try:
        info = the_litellm().get_model_info(name, custom_llm_provider=model.litellm_params.get("custom_llm_provider"))
    except Exception:  # LiteLLM says so of what it does not know
        return {}
    names = ("input_cost_per_token", "output_cost_per_token", "max_output_tokens")
    return {name: info[name] for name in names if info.get(name) is not None}


def count_tokens(model: Model, messages: Sequence[Any]) -> int:
    """Tokens of a conversation, as LiteLLM counts them."""
    counted = the_litellm().token_counter(model=str(model.litellm_params["model"]), messages=[*messages])
    return int(counted)


def as_json(response: Any) -> dict[str, Any]:
    """A response with what it cost in dollars, as plain JSON."""
    paid = (getattr(response, "_hidden_params", None) or {}).get("response_cost")
    return {"response": json.loads(response.model_dump_json(warnings=False)), "dollars": paid}


def response_of(kept: Mapping[str, Any]) -> Any:
    """The response that `as_json` was given."""
    the_litellm()
    from litellm.types.utils import ModelResponse

    response = ModelResponse(**kept["response"])
    response._hidden_params = {"response_cost": kept["dollars"]}
    return response


def made_up(text: str, dollars: float | None) -> Any:
    """A response that nobody gave."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return response_of({"response": {"model": "none", "choices": [choice]}, "dollars": dollars})
