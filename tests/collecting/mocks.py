"""Models that need no network and are right by chance, with a ledger of what they were paid for.

``mock/small`` and ``mock/large`` answer "question 17" with "answer 17", or with another number where they are wrong;
``mock/judge`` grades.  Whether one is right, and how sure it is, follows from a seed, its name and the question.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litellm
from litellm.types.utils import ChoiceLogprobs, ModelResponse, Usage

SKILL = {"small": 0.6, "large": 0.9}
SURE = {True: (6.0, 2.0), False: (2.0, 2.0)}
"""The Beta distribution of how sure a model is of a right answer, and of a wrong one."""

YES = {True: 0.8, False: 0.3}
"""How likely a model that verifies itself says yes."""

TOKENS = {"small": 10, "large": 20, "judge": 2}
PRICE = {"small": 0.001, "large": 0.01, "judge": 0.0005}
"""Dollars for a token of an answer; those of prompts are free."""

SETTINGS = """
[shop]
policy = "policy.json"
dollars = 0.001

[shop.tiers.small]
litellm_params = {{ model = "mock/small", {small} }}
readings.conf = {{ verifier = "answer_probability" }}
{more}
[shop.tiers.large]
litellm_params = {{ model = "mock/large", {large} }}

[shop.tiers.large.readings.judge]
verifier = "judge"
litellm_params = {{ model = "mock/judge", {judge} }}
"""

VOTES = 'readings.votes = { verifier = "self_verification", k = 3, max_tokens = 10 }\n'


def write_settings(path: Path, more: str = VOTES) -> Path:
    """Settings of both tiers, with what ``more`` says of small; a unit is a thousandth of a dollar."""
    priced = {
        name: f"input_cost_per_token = 0.0, output_cost_per_token = {PRICE[name]}, max_tokens = {TOKENS[name]}"
        for name in PRICE
    }
    path.write_text(SETTINGS.format(more=more, **priced))
    return path


def write_prompts(path: Path, count: int) -> Path:
    """Questions with their answers."""
    lines = [{"prompt": f"question {at}", "reference": f"answer {at}", "kind": "ab"[at % 2]} for at in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def draw(*names: object) -> random.Random:
    """A generator that these names determine."""
    return random.Random("|".join(map(str, names)))


def is_right(tier: str, question: int) -> bool:
    return draw(tier, "right", question).random() < SKILL[tier]


def sureness(tier: str, question: int) -> float:
    return draw(tier, "sure", question).betavariate(*SURE[is_right(tier, question)])


def grade(question: int, right: bool) -> int:
    """The judge's: from 0 to 100."""
    return round(100 * draw("judge", question).betavariate(*SURE[right]))


class Mock(litellm.CustomLLM):  # type: ignore[misc]
    """The models.

    Args:
        ledger: gets a line for each call that was paid.
        wait: seconds that a call takes.
        steady: whether a vote is the same however often it is asked for.
        before: is told of each call before it is paid, and may fail it.
    """

    def __init__(
        self,
        ledger: Path | None = None,
        wait: float = 0.0,
        steady: bool = False,
        before: Callable[[str, int], None] = lambda model, question: None,
    ) -> None:
        super().__init__()
        self.ledger, self.wait, self.steady, self.before = ledger, wait, steady, before
        self.asked: Counter[str] = Counter()
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.paid = 0.0
        self.params: list[dict[str, Any]] = []
        self.after: Callable[[], None] = lambda: None

    async def acompletion(
        self, model: str, messages: list[Any], optional_params: dict[str, Any], **_: Any
    ) -> ModelResponse:
        self.asked[model] += 1
        self.params.append({"model": model, **optional_params})
        for name in (model, "all"):
            self.under_way[name] += 1
            self.most[name] = max(self.most[name], self.under_way[name])
        try:
            return await self._answer(model, messages, optional_params)
        finally:
            self.under_way[model] -= 1
            self.under_way["all"] -= 1

    async def _answer(self, model: str, messages: list[Any], optional_params: dict[str, Any]) -> ModelResponse:
        question = int(re.findall(r"question (\d+)", messages[0]["content"])[0])
        await asyncio.sleep(self.wait)
        self.before(model, question)
        name, logprobs = os.urandom(8).hex(), None
        said = messages[1]["content"] if len(messages) > 1 else ""
        right = said == f"answer {question}"
        if model == "judge":
            text = str(grade(question, right))
            if "Compare" in messages[-1]["content"]:
                text = "correct" if right else "incorrect"
        elif said:
            times = 0 if self.steady else self.asked[model]
            yes = draw("vote", model, question, times).random() < YES[right]
            text = f"Check: so.\nDecision: {'correct' if yes else 'incorrect'}"
        else:
            text = f"answer {question if is_right(model, question) else -1}"
            logs = [{"token": "answer", "logprob": math.log(sureness(model, question)), "top_logprobs": []}]
            logprobs = ChoiceLogprobs(content=logs) if optional_params.get("logprobs") else None
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
        usage = Usage(prompt_tokens=5, completion_tokens=TOKENS[model], total_tokens=5 + TOKENS[model])
        self.paid += PRICE[model] * TOKENS[model]
        if self.ledger is not None:
            with self.ledger.open("a") as ledger:
                ledger.write(json.dumps({"id": name, "model": model, "question": question}) + "\n")
        self.after()
        return ModelResponse(id=name, model=model, choices=[choice], usage=usage)
