"""Three models and a judge that need no network: they do sums, the small ones only easy sums.

Whether one is right, and how sure it is, follows from its name and the question alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import Any

import litellm
from litellm.types.utils import ChoiceLogprobs, Delta, ModelResponse, ModelResponseStream, StreamingChoices, Usage

SKILL = {  # how often each is right
    "easy": {"small": 0.97, "medium": 0.99, "large": 0.995},
    "middling": {"small": 0.4, "medium": 0.93, "large": 0.98},
    "hard": {"small": 0.03, "medium": 0.25, "large": 0.95},
}
WORDS = {"small": 60, "medium": 80, "large": 100, "judge": 4}  # tokens of an answer; of the question there are 20


def difficulty(question: str) -> str:
    """Sums are easy, products with a one-digit number middling, other products hard."""
    a, sign, b = _parts(question)
    return "easy" if sign == "+" else "middling" if min(a, b) < 10 else "hard"


def truth(question: str) -> int:
    """The right answer."""
    a, sign, b = _parts(question)
    return a + b if sign == "+" else a * b


def answer(tier: str, question: str) -> tuple[int, float]:
    """What a tier says, and how sure it is: in [0, 1], higher where it is right."""
    skill = SKILL[difficulty(question)][tier]
    right = _draw(tier, "right", question) < skill
    said = truth(question) + (0 if right else 1 + int(_draw(tier, "slip", question) * 9))
    return said, _sure(skill, right, 0.8, tier, question)


def grade(question: str, said: int) -> int:
    """The judge's: from 0 to 100."""
    return round(100 * _sure(0.6, said == truth(question), 1.6, "judge", f"{question} {said}"))


class MockTiers(litellm.CustomLLM):  # type: ignore[misc]
    """``mock/small``, ``mock/medium``, ``mock/large`` and ``mock/judge``."""

    async def acompletion(
        self, model: str, messages: list[Any], optional_params: dict[str, Any], **_: Any
    ) -> ModelResponse:
        """An answer, at once."""
        question = messages[0]["content"]
        if model == "judge":
            text, sure = str(grade(question, int(messages[1]["content"]))), 1.0
        else:
            said, sure = answer(model, question)
            text = str(said)
        told = ChoiceLogprobs(content=[{"token": text, "logprob": math.log(sure), "top_logprobs": []}])
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
            "logprobs": told if optional_params.get("logprobs") else None,
        }
        usage = Usage(prompt_tokens=20, completion_tokens=WORDS[model], total_tokens=20 + WORDS[model])
        return ModelResponse(model=model, choices=[choice], usage=usage)

    async def astreaming(self, model: str, messages: list[Any], **given: Any) -> AsyncIterator[Any]:
        """An answer, digit by digit."""
        whole = await self.acompletion(model, messages, **given)
        for digit in whole.choices[0].message.content:
            yield _chunk(Delta(role="assistant", content=digit))
        usage = _chunk(Delta())
        usage.usage = whole.usage
        yield usage
        yield _chunk(Delta(), "stop")


def _chunk(delta: Delta, reason: str | None = None) -> ModelResponseStream:
    return ModelResponseStream(choices=[StreamingChoices(index=0, delta=delta, finish_reason=reason)])


def _parts(question: str) -> tuple[int, str, int]:
    found = re.search(r"(\d+) ([+*]) (\d+)", question)
    if found is None:
        raise ValueError(f"{question!r} is no sum; ask such as 'What is 3 + 4?'")
    return int(found[1]), found[2], int(found[3])


def _sure(skill: float, right: bool, weight: float, *names: str) -> float:
    logit = math.log(skill / (1 - skill)) + (weight if right else -weight) + 2 * _draw("noise", *names) - 1
    return 1 / (1 + math.exp(-logit))


def _draw(*names: str) -> float:
    return int.from_bytes(blake2b("|".join(names).encode(), digest_size=6).digest()) / 2**48


provider = MockTiers()
