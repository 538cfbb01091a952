"""How sure a tier's answer is: verifiers for the readings of a policy.

A verifier is any callable ``(tier, request, answer) -> Look``, plain or a coroutine function: ``tier`` is the tier's
`Model`, ``request`` a `Request`, ``answer`` LiteLLM's response, None where a signal is read (``request.answers`` has
the answers that it needs).  It returns the confidence in [0, 1], None where it has none, and what that cost in the
policy's unit, None for the price in the policy's file.  Where it raises, takes too long or returns anything else, the
reading is missing and charged with its dearest price.

Three things that a verifier may have besides:

- ``with_answer`` True: it reads nothing but the answer, at no price, and is read with every answer;
- ``params``: what a tier must be asked for that to work;
- ``vote``: the same arguments, one vote of True or False, for a reading that the policy asks vote by vote.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import re
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.error import HTTPError

from metaverify.policies.integrations.models import Model, Request, answer_text, token_logprobs
from metaverify.policies.names import did_you_mean
from metaverify.policies.router import Look
from metaverify.policies.threads import Threads

__all__ = [
    "AnswerProbability",
    "HTTPVerifier",
    "Judge",
    "PTrue",
    "SelfConsistency",
    "SelfVerification",
    "Verifier",
    "find_verifier",
    "in_thread",
]

Verifier = Callable[[Model, Request, Any], Any]

FEW_SHOT = """\
Decide whether the last answer above is correct. Here is how to decide.

Question: A train leaves at 9:40 and takes 85 minutes. When does it arrive?
Answer: It arrives at 11:05.
Check: 9:40 and 85 minutes is 9:40 + 1:25 = 11:05, as the answer says.
Decision: correct

Question: Which of the two rivers named in the text is longer? (The text: "The Aar has 288 km, the Reuss 164 km.")
Answer: The Reuss.
Check: The text gives the Aar 288 km and the Reuss 164 km, so the Aar is longer; the answer says otherwise.
Decision: incorrect

Question: Who wrote the report? (The text does not say.)
Answer: The finance department.
Check: Nothing in the text says who wrote it, so the answer is made up.
Decision: incorrect

Now the last answer above. Write one line that begins with "Check:" and one that is "Decision: correct" or \
"Decision: incorrect", and nothing else."""

TRUE_OR_FALSE = "Is the last answer above correct? Reply with one word, True or False."

GRADE = """\
Grade the last answer above: how sure are you that it is correct and does what was asked?
Reply with one whole number from 0 (certainly wrong) to 100 (certainly right), and nothing else."""


@dataclass(frozen=True, slots=True)
class AnswerProbability:
    """The probability that the model gave its own tokens: the geometric mean of them, or the least one.

    Confidence: exp of the mean log-probability of the answer's tokens (``aggregate = "mean"``), or of the least
    (``"min"``).  Price: none, it comes with the answer; tiers are asked with ``logprobs``.  Missing where the model
    tells no log-probabilities, as for a call of a tool.
    """

    aggregate: str = "mean"
    with_answer: ClassVar[bool] = True
    params: ClassVar[Mapping[str, Any]] = MappingProxyType({"logprobs": True})

    def __post_init__(self) -> None:
        if self.aggregate not in ("mean", "min"):
            raise ValueError(f'aggregate is {self.aggregate!r}; give "mean" or "min"')

    def __call__(self, tier: Model, request: Request, answer: Any) -> Look:
        """The reading of an answer."""
        logs = [token.logprob for token in token_logprobs(answer)]
        if not logs:
            return Look(None, 0.0)
        mean = math.fsum(logs) / len(logs) if self.aggregate == "mean" else min(logs)
        return Look(min(math.exp(mean), 1.0), 0.0)


@dataclass(frozen=True, slots=True)
class SelfVerification:
    """AutoMix's few-shot self-verification: the tier's own model is asked k times whether its answer is right.

    Confidence: the share of yes among the votes that can be read.  Price: k calls of the tier's model, all at once; or
    one at a time and only as long as the policy asks for more, where its reading is votes.  A vote that fails or cannot
    be read does not count, and where none is left the reading is missing.

    Source: Madaan et al., AutoMix, NeurIPS 2024 (arXiv 2310.12963), section 3.1.
    """

    k: int = 8
    temperature: float = 0.7
    max_tokens: int = 256
    instruction: str = FEW_SHOT
    model: Model | None = None

    def __post_init__(self) -> None:
        _check_count("k", self.k)

    async def __call__(self, tier: Model, request: Request, answer: Any) -> Look:
        """The share of k votes."""
        came = await asyncio.gather(*(self.vote(tier, request, answer) for _ in range(self.k)), return_exceptions=True)
        looks = _those_that_came(came)
        votes = [look.confidence for look in looks if look.confidence is not None]
        return Look(math.fsum(votes) / len(votes) if votes else None, _sum(look.cost for look in looks))

    async def vote(self, tier: Model, request: Request, answer: Any) -> Look:
        """One vote."""
        asked = self.model or tier
        settings = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        response = await asked.complete(_about(request, answer, self.instruction), **settings)
        decision = re.findall(r"\b(in)?correct\b", answer_text(response), re.IGNORECASE)
        return Look(float(not decision[-1]) if decision else None, asked.cost(response))


@dataclass(frozen=True, slots=True)
class PTrue:
    """P(True): the probability that the tier's own model gives to its answer being true.

    Confidence: P(True) / (P(True) + P(False)) of the first token.  Price: one call of the tier's model of one token.
    Missing where neither word is among the ``top`` likeliest tokens, or none are told.

    Source: Kadavath et al., Language Models (Mostly) Know What They Know, 2022 (arXiv 2207.05221), section 4.
    """

    top: int = 5
    instruction: str = TRUE_OR_FALSE
    model: Model | None = None

    def __post_init__(self) -> None:
        _check_count("top", self.top)

    async def __call__(self, tier: Model, request: Request, answer: Any) -> Look:
        """The reading of an answer."""
        asked = self.model or tier
        settings = {"temperature": 0.0, "max_tokens": 1, "logprobs": True, "top_logprobs": self.top}
        response = await asked.complete(_about(request, answer, self.instruction), **settings)
        shares = {"true": 0.0, "false": 0.0}
        for token in token_logprobs(response)[:1]:
            for other in token.top_logprobs or ():
                word = other.token.strip().lower()
                if word in shares:
                    shares[word] += math.exp(other.logprob)
        total = shares["true"] + shares["false"]
        return Look(shares["true"] / total if total > 0.0 else None, asked.cost(response))


@dataclass(frozen=True, slots=True)
class SelfConsistency:
    """The share of k further samples that say the same as the answer.

    Confidence: that share, of the samples that came.  Two texts say the same where they are equal but for case, spaces
    and punctuation; with ``pattern`` what its last match has in its first group is compared, such as
    ``"answer is (.*)"``.  Price: k calls of the tier's model, all at once.  Missing where no sample came, or the answer
    has no text (a call of a tool) or none that matches.

    Source: Wang et al., Self-Consistency, ICLR 2023 (arXiv 2203.11171).
    """

    k: int = 4
    temperature: float = 0.7
    pattern: str = ""
    model: Model | None = None

    def __post_init__(self) -> None:
        _check_count("k", self.k)
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is no regular expression: {error}") from error
        if self.pattern and groups < 1:
            raise ValueError(f"pattern {self.pattern!r} has no group; put what is compared in brackets")

    async def __call__(self, tier: Model, request: Request, answer: Any) -> Look:
        """The reading of an answer."""
        said = self._said(answer)
        if not said:
            return Look(None, 0.0)
        asked = self.model or tier
        params = {**request.params, "temperature": self.temperature, "n": 1}
        came = await asyncio.gather(
            *(asked.complete(request.messages, **params) for _ in range(self.k)), return_exceptions=True
        )
        samples = _those_that_came(came)
        same = sum(self._said(sample) == said for sample in samples)
        return Look(same / len(samples), _sum(asked.cost(sample) for sample in samples))

    def _said(self, response: Any) -> str:
        text = answer_text(response)
        if self.pattern:
            found = [*re.finditer(self.pattern, text)]
            text = (found[-1][1] or "") if found else ""
        return " ".join(re.findall(r"\w+", text.casefold()))


@dataclass(frozen=True, slots=True)
class Judge:
    """Another model's grade of the answer.

    Confidence: its number from 0 to 100, divided by 100; of 8/10, or 8 out of 10, that.  Price: one call of the judge.
    Missing where it writes no such number.
    """

    model: Model
    instruction: str = GRADE
    max_tokens: int = 16

    async def __call__(self, tier: Model, request: Request, answer: Any) -> Look:
        """The reading of an answer."""
        messages = _about(request, answer, self.instruction)
        response = await self.model.complete(messages, temperature=0.0, max_tokens=self.max_tokens)
        found = re.search(r"(-?\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*(\d+(?:\.\d+)?))?", answer_text(response))
        grade, most = (float(found[1]), float(found[2] or 100.0)) if found else (math.nan, 1.0)
        return Look(grade / most if 0.0 <= grade <= most > 0.0 else None, self.model.cost(response))


@dataclass(frozen=True, slots=True)
class HTTPVerifier:
    """A verifier behind a URL, which is sent ``{"tier", "messages", "answer"}`` as JSON by POST.

    It replies ``{"confidence": 0.8, "cost": 0.1}``.  Confidence: what it says, null where it has none.  Price: what it
    says, or that in the policy's file where it does not.  Anything but a 200 with such an object, and silence of
    ``timeout`` seconds, is a failure: the reading is missing.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url is {self.url!r}; give one that begins with http:// or https://")

    async def __call__(self, tier: Model, request: Request, answer: Any) -> Look:
        """The reading of an answer."""
        said = None if answer is None else answer.choices[0].message.model_dump(exclude_none=True)
        body = {"tier": tier.name, "messages": [*request.messages], "answer": said}
        told = await in_thread(self._post, json.dumps(body).encode())
        return Look(told["confidence"], told.get("cost"))

    def _post(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json", **self.headers}
        posted = urllib.request.Request(self.url, body, headers, method="POST")
        try:
            with urllib.request.urlopen(posted, timeout=self.timeout) as reply:
                return json.loads(reply.read(LONGEST_REPLY))
        except HTTPError as error:
            error.close()
            raise


LONGEST_REPLY = 1 << 20

THREADS = Threads(256)
"""Not asyncio's own, which are few and look up hosts for all else."""


async def in_thread(job: Callable[..., Any], *args: Any) -> Any:
    """What a function returns that cannot be awaited; others go on meanwhile."""
    future = THREADS.begin(partial(job, *args))
    try:
        return await asyncio.wrap_future(future)
    finally:
        THREADS.give_up(future)


VERIFIERS: Mapping[str, Callable[..., Verifier]] = MappingProxyType(
    {
        "answer_probability": AnswerProbability,
        "self_verification": SelfVerification,
        "p_true": PTrue,
        "self_consistency": SelfConsistency,
        "judge": Judge,
        "http": HTTPVerifier,
    }
)


def find_verifier(name: str, params: Mapping[str, Any] = MappingProxyType({}), beside: Path | None = None) -> Verifier:
    """The verifier of a name: one of `VERIFIERS`, or "module:attribute" for one's own, of which the module may also lie
    in the folder ``beside``.

    What is a class is made with ``params``; of a function they are the keyword arguments.

    Raises:
        ValueError: there is none of that name, or not with these parameters.

    Example:
        >>> find_verifier("answer_probability", {"aggregate": "min"})
        AnswerProbability(aggregate='min')
    """
    made: Any = VERIFIERS.get(name)
    if made is None:
        module, colon, attribute = name.partition(":")
        if not colon:
            known = ", ".join(VERIFIERS)
            hint = did_you_mean(name, VERIFIERS)
            raise ValueError(f"verifier {name!r} is none of {known}{hint}; one of your own is 'module:name'")
        try:
            made = getattr(_imported(module, beside), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"verifier {name!r} cannot be imported: {error}") from error
    if not callable(made):
        raise ValueError(f"verifier {name!r} is {made!r}, which cannot be called")
    if not inspect.isclass(made):
        return partial(made, **params) if params else made
    try:
        verifier: Any = made(**params)
        return verifier  # type: ignore[no-any-return]
    except TypeError as error:
        raise ValueError(f"verifier {name!r}: {str(error).replace(f'{made.__name__}.__init__() ', '')}") from error


def _imported(module: str, beside: Path | None) -> Any:
    before = [*sys.path]
    sys.path += [] if beside is None else [str(beside)]  # last, so that it hides nothing
    try:
        return import_module(module)
    finally:
        sys.path[:] = before


def with_model(params: Mapping[str, Any], name: str, dollars: float) -> dict[str, Any]:
    """Parameters of a verifier in which ``litellm_params`` have become a `Model`."""
    made = dict(params)
    if "litellm_params" in made:
        made["model"] = Model(name, made.pop("litellm_params"), dollars)
    return made


def _about(request: Request, answer: Any, instruction: str) -> list[Any]:
    """The conversation with the answer, and a question about it."""
    message = answer.choices[0].message
    said = answer_text(answer)
    calls = [call.function.model_dump(exclude_none=True) for call in getattr(message, "tool_calls", None) or ()]
    if calls:  # of which a conversation would have to tell what came
        said = f"{said}\n{json.dumps(calls)}".strip()
    return [*request.messages, {"role": "assistant", "content": said}, {"role": "user", "content": instruction}]


def _those_that_came(came: Sequence[Any]) -> list[Any]:
    """Those that did not fail.

    Raises:
        BaseException: the first failure, where all failed.
    """
    whole = [one for one in came if not isinstance(one, BaseException)]
    if not whole:
        raise came[0]
    return whole


def _sum(costs: Any) -> float | None:
    """The sum; None where one of them is not known."""
    told = [*costs]
    return None if None in told else math.fsum(told)


def _check_count(name: str, count: Any) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{name} is {count!r}; give a whole number of at least 1")
