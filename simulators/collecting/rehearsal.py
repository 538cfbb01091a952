"""What a collection would cost, found without asking anybody."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from metaverify.policies.integrations.settings import CascadeSettings
from metaverify.policies.integrations.verifiers import Judge, PTrue, SelfConsistency, SelfVerification
from metaverify.policies.router import Look
from metaverify.simulators.collecting.calls import Calls, Place, Recorded
from metaverify.simulators.collecting.collection import Collection, Grading, Tell
from metaverify.simulators.collecting.grading import Ask
from metaverify.simulators.collecting.journal import journal_path, read_journal
from metaverify.simulators.collecting.panel import Reader
from metaverify.simulators.collecting.prices import as_json, count_tokens, made_up, price_of, the_litellm
from metaverify.simulators.collecting.prompts import Prompt

__all__ = ["ANSWER", "Estimate", "Share", "estimate"]

ANSWER = 256
"""Tokens that an answer is taken to have, where it may have as many."""

_WORD = " word"  # a token in most tokenizers


@dataclass(slots=True)
class Share:
    """What one purpose would take: calls, tokens of prompts and of answers, and dollars, None where a price is not
    known; ``dearest`` where every answer is as long as it may be."""

    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    dollars: float | None = 0.0
    dearest: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is left to be bought, by purpose; what was paid already; and readings whose calls nobody can foresee."""

    prompts: int
    shares: Mapping[str, Share]
    paid: float
    unforeseen: Sequence[str]

    @property
    def total(self) -> Share:
        """All of it."""
        shares = [*self.shares.values()]
        return Share(
            sum(share.calls for share in shares),
            sum(share.prompt_tokens for share in shares),
            sum(share.answer_tokens for share in shares),
            _sum([share.dollars for share in shares]),
            _sum([share.dearest for share in shares]),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "prompts": self.prompts,
            "shares": {purpose: asdict(share) for purpose, share in self.shares.items()},
            "total": asdict(self.total),
            "paid": self.paid,
            "unforeseen": [*self.unforeseen],
        }


def estimate(
    prompts: Sequence[Prompt],
    settings: CascadeSettings,
    out: str | os.PathLike[str],
    *,
    grading: Grading | None = None,
    answer_tokens: int = ANSWER,
    progress: Tell = lambda what, share: None,
) -> Estimate:
    """What `collect` would still have to pay for: the same calls, with answers of so many tokens that nobody gave.

    Tokens are as LiteLLM counts them, prices as the settings say, else as its table does.  No model, verifier or
    function is called, and nothing is written.

    Raises:
        LogError, ImportError, ValueError: as `collect`.
    """
    the_litellm()
    calls = _Rehearsed(read_journal(journal_path(out)), answer_tokens)
    run = Collection(prompts, settings, calls, grading or Grading(), progress)
    if run.judge is None:
        run.grade = _ungraded
    foreseen = [_foreseen(reader) for reader in run.panel.readers]
    unforeseen = [reader.purpose for reader, seen in zip(run.panel.readers, foreseen, strict=True) if seen is None]
    run.panel = replace(run.panel, readers=[reader for reader in foreseen if reader is not None])
    asyncio.run(run.all(1))
    return Estimate(len(prompts), calls.shares, calls.paid, unforeseen)


class _Rehearsed(Calls):
    """Calls that nobody makes."""

    def __init__(self, kept: Any, answer_tokens: int) -> None:
        super().__init__(kept)
        self.shares: dict[str, Share] = {}
        self._most = answer_tokens

    async def look(self, place: Place, asked: object, read: Callable[[], Awaitable[Look]], dollars: float) -> Look:
        """What a verifier says of an answer that nobody gave."""
        with self.made_for(place):
            return await read()

    async def _bought(
        self, key: str, place: Place, model: Recorded, messages: Sequence[Any], params: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        price, asked = price_of(model, params), count_tokens(model, messages)
        answered = self._most if price.most is None else min(self._most, price.most)
        share = self.shares.setdefault(place.purpose, Share())
        share.calls += 1
        share.prompt_tokens += asked
        share.answer_tokens += answered
        share.dollars = _sum([share.dollars, price.of(asked, answered)])
        share.dearest = _sum([share.dearest, price.dearest(asked) if model.dearest is None else model.dearest])
        return as_json(made_up(_WORD * answered, 0.0))


def _foreseen(reader: Reader) -> Reader | None:
    """The reading, where it makes the same calls whatever the answer is; None where nobody knows that."""
    verifier = reader.verifier
    if isinstance(verifier, SelfConsistency):
        return replace(reader, verifier=replace(verifier, pattern=""))
    return reader if reader.with_answer or isinstance(verifier, SelfVerification | PTrue | Judge) else None


async def _ungraded(prompt: Prompt, answer: str, ask: Ask) -> float | None:
    return None


def _sum(amounts: Sequence[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None
