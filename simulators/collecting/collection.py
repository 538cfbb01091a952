"""Every tier and every verifier asked on every prompt, the answers graded."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from metaverify.policies.integrations.models import Request, answer_text, is_empty
from metaverify.policies.integrations.settings import CascadeSettings
from metaverify.policies.router import Look
from metaverify.simulators.collecting.calls import Calls, Place, Recorded, StopError, purpose_of
from metaverify.simulators.collecting.grading import find_grader
from metaverify.simulators.collecting.panel import Reader, panel_of
from metaverify.simulators.collecting.prompts import Prompt
from metaverify.simulators.log import LogError

__all__ = ["Collection", "Grading", "Row", "Tell"]

T = TypeVar("T")

Tell = Callable[[str, float | None], None]
"""What is being done, and the share of the whole that is done."""


@dataclass(frozen=True, slots=True)
class Grading:
    """How answers are graded: see `find_grader`; ``judge`` is a tier's name or a model of LiteLLM's."""

    name: str = "exact"
    extract: str = ""
    judge: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a prompt: grades and costs by tier, looks by source and reading."""

    correct: dict[str, float | None] = field(default_factory=dict)
    cost: dict[str, float | None] = field(default_factory=dict)
    looks: dict[tuple[str, str], Look] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether every tier has a grade."""
        return None not in self.correct.values()


class Collection:
    """One run: who is asked and who grades, and the rows that are there, by the prompt's number."""

    def __init__(
        self, prompts: Sequence[Prompt], settings: CascadeSettings, calls: Calls, grading: Grading, tell: Tell
    ) -> None:
        self.prompts, self.calls, self.panel = prompts, calls, panel_of(settings, calls)
        self.grade, self.judge = find_grader(grading.name, prompts, grading.extract), _judge(grading, settings, calls)
        self.rows: dict[int, Row] = {}
        self._left = iter(enumerate(prompts))
        self._begun, self._tell = time.monotonic(), tell
        calls.said = self._said

    async def all(self, at_once: int) -> None:
        """Every prompt, so many at once."""
        await asyncio.gather(*(self._work() for _ in range(min(at_once, len(self.prompts)))))

    async def _work(self) -> None:
        while self.calls.stopped is None and (left := next(self._left, None)):
            number, prompt = left
            with suppress(StopError):
                self.rows[number] = await self._row(prompt)
            self._said()

    async def _row(self, prompt: Prompt) -> Row:
        row, turn, answers = Row(), asyncio.Lock(), dict[str, Any]()
        for tier, model in self.panel.tiers.items():
            place = Place(prompt.id, purpose_of(tier), turn)
            answer = await _or_none(self.calls.ask(place, model, prompt.messages, **self.panel.added[tier]))
            row.correct[tier] = row.cost[tier] = None
            if answer is not None:
                row.cost[tier] = model.cost(answer)
                row.correct[tier] = 0.0
            if answer is not None and not is_empty(answer):
                answers[tier] = answer
                row.correct[tier] = await self._graded(Place(prompt.id, f"grade {tier}", turn), prompt, answer)
        for reader in self.panel.readers:
            row.looks[reader.source, reader.name] = await self._read(reader, prompt, answers, turn)
        return row

    async def _graded(self, place: Place, prompt: Prompt, answer: Any) -> float | None:
        async def ask(messages: Sequence[Any]) -> Any:
            assert self.judge is not None
            return await self.calls.ask(place, self.judge, messages, **JUDGED)

        return await _or_none(self.grade(prompt, answer_text(answer), ask))

    async def _read(self, reader: Reader, prompt: Prompt, answers: dict[str, Any], turn: asyncio.Lock) -> Look:
        wanted = {*reader.needs} | ({reader.of} if reader.of else set())
        if not wanted <= {*answers}:
            return Look(None, 0.0)
        place = Place(prompt.id, purpose_of(reader.source, reader.name), turn)
        request = Request(prompt.messages, answers={tier: answers[tier] for tier in wanted})
        answer = answers[reader.of] if reader.of else None
        look = await _or_none(reader.read(self.calls, place, request, answer))
        return look or Look(None, 0.0)

    def _said(self) -> None:
        bought = sum(of.bought for of in self.calls.tally.values())
        rate = bought / max(time.monotonic() - self._begun, 1e-9)
        dollars = math.fsum(of.dollars for of in self.calls.tally.values())
        self._tell(f"{bought:,} calls, {rate:.3g}/s, ${dollars:.4f}", len(self.rows) / len(self.prompts))


JUDGED: Mapping[str, Any] = MappingProxyType({"temperature": 0.0, "max_tokens": 256})
"""How a judge that grades is asked."""


def _judge(grading: Grading, settings: CascadeSettings, calls: Calls) -> Recorded | None:
    """The model that grades: a tier of the settings, or one of LiteLLM's.

    Raises:
        LogError: one is wanted and not named.
    """
    if grading.name != "judge":
        return None
    if grading.judge is None:
        raise LogError("E_OPTION", "--grade judge: name the model that grades, --judge MODEL")
    of = settings.tiers.get(grading.judge)
    if of is None or of.litellm_params is None:
        return Recorded("judge", {"model": grading.judge}, calls=calls)
    return Recorded("judge", of.litellm_params, calls=calls, timeout=of.timeout)


async def _or_none(awaited: Awaitable[T]) -> T | None:
    """What comes of it; None where it fails, unless that ends the run."""
    try:
        return await awaited
    except (StopError, LogError):
        raise
    except Exception:
        return None
