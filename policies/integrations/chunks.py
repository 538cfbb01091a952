"""Answers as chunks of a stream, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import litellm
from litellm.types.utils import ChoiceLogprobs, Delta, ModelResponseStream, StreamingChoices

__all__ = ["chunks_of", "last_chunks", "response_of", "said_in"]

PIECES = 8  # words in a chunk


def chunks_of(response: Any) -> Iterator[Any]:
    """A whole answer as chunks without its end: texts in pieces, all else in the first chunk of its choice."""
    for choice in response.choices:
        whole = choice.message.model_dump(exclude_none=True)
        text = whole.pop("content", None) or ""
        for at, call in enumerate(whole.get("tool_calls") or ()):
            call.setdefault("index", at)
        pieces = _pieces(text)
        logs = choice.model_dump().get("logprobs")
        first = Delta(**whole, content=pieces[0] if pieces else None)
        yield _chunk(response, choice.index, first, ChoiceLogprobs(**logs) if logs else None)
        for piece in pieces[1:]:
            yield _chunk(response, choice.index, Delta(content=piece))


def last_chunks(response: Any, told: Any) -> Iterator[Any]:
    """The end of a stream: what is told of the request, and why and with which usage the answer ended."""
    # Without provider_specific_fields the proxy takes a chunk without text for an artefact, and drops it.
    empty = StreamingChoices(index=0, delta=Delta())
    chunk = ModelResponseStream(id=response.id, choices=[empty], provider_specific_fields={}, metaverify=told)
    if getattr(response, "usage", None) is not None:
        # Here, since a custom provider's last chunk loses it; with the cost, which LiteLLM logs a stream with.
        chunk.usage = response.usage.model_copy(update={"cost": told["dollars"]})
    yield chunk
    ended = StreamingChoices(index=0, delta=Delta(), finish_reason=response.choices[0].finish_reason)
    yield ModelResponseStream(id=response.id, choices=[ended])


def response_of(chunks: Sequence[Any], messages: Sequence[Any], log: Any) -> Any:
    """The answer that a model's stream was, with what it cost; ``log`` is the stream's logging object."""
    response = litellm.stream_chunk_builder([*chunks], messages=[*messages], logging_obj=log)
    told = [t for chunk in chunks for choice in chunk.choices[:1] for t in _logprobs(choice)]
    if told:
        response.choices[0].logprobs = ChoiceLogprobs(content=told)
    response._hidden_params.pop("response_cost", None)
    response._hidden_params["response_cost"] = log.response_cost_calculator(result=response)
    return response


def said_in(chunk: Any, logprobs: bool, first: bool) -> Any | None:
    """What is passed on of a model's chunk: without its end and usage, and without logprobs that no client asked for;
    None where that says nothing.  The ``first`` one says who speaks."""
    kept = [choice.model_copy() for choice in chunk.choices if _says_something(choice.delta)]
    if not kept:
        return None
    passed = ModelResponseStream(id=chunk.id, created=chunk.created, model=chunk.model, choices=kept)
    for choice in passed.choices:
        choice.finish_reason = None
        choice.delta.role = "assistant" if first else None
        if not logprobs:
            choice.logprobs = None
    return passed


def _says_something(delta: Any) -> bool:
    return any(told for name, told in delta.model_dump(exclude_none=True).items() if name != "role")


def _logprobs(choice: Any) -> list[Any]:
    told = getattr(choice, "logprobs", None)
    content = told.get("content") if isinstance(told, dict) else getattr(told, "content", None)
    return [*(content or ())]


def _chunk(response: Any, index: int, delta: Any, logprobs: Any = None) -> Any:
    choice = StreamingChoices(index=index, delta=delta, logprobs=logprobs)
    return ModelResponseStream(id=response.id, created=response.created, model=response.model, choices=[choice])


def _pieces(text: str) -> list[str]:
    words = re.findall(r"\s*\S+\s*$|\s*\S+|\s+", text)
    return ["".join(words[at : at + PIECES]) for at in range(0, len(words), PIECES)]
