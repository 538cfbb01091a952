"""Chunks are the answer, and nothing else."""

from __future__ import annotations

from typing import Any

import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litellm.types.utils import ModelResponse, Usage

from metaverify.policies.integrations.chunks import chunks_of, last_chunks
from tests.policies.strategies import examples

pytestmark = [
    pytest.mark.filterwarnings("ignore:Items? .* using the `ReadOnly` qualifier:UserWarning"),  # LiteLLM's own
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning"),
]


def response(*texts: str, **more: Any) -> ModelResponse:
    choices = [
        {"index": at, "finish_reason": "length", "message": {"role": "assistant", "content": text, **more}}
        for at, text in enumerate(texts)
    ]
    return ModelResponse(choices=choices, usage=Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3))


@examples(100)
@given(texts=st.lists(st.text(alphabet=" \n\tab,é", max_size=120), min_size=1, max_size=3))
def test_joined_chunks_are_the_text_of_each_choice(texts: list[str]) -> None:
    said = dict.fromkeys(range(len(texts)), "")
    chunks = [*chunks_of(response(*texts))]
    for chunk in chunks:
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
    assert [*said.values()] == texts
    assert [choice.delta.role for chunk in chunks for choice in chunk.choices].count("assistant") == len(texts)


def test_a_text_comes_in_pieces_of_a_few_words() -> None:
    chunks = [*chunks_of(response(" ".join("abcdefghijklmnopqrst")))]
    assert [len(chunk.choices[0].delta.content.split()) for chunk in chunks] == [8, 8, 4]


def test_what_is_no_text_is_in_the_first_chunk() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    first, *_ = chunks_of(response("yes", tool_calls=[call], reasoning_content="so it is"))
    assert first.choices[0].delta.reasoning_content == "so it is"
    assert first.choices[0].delta.tool_calls[0].function.name == "look_up"


def test_the_last_chunks_tell_why_it_ended_and_what_it_cost() -> None:
    told, end = last_chunks(response("yes"), {"dollars": 0.5})
    assert (told.metaverify, told.usage.cost, told.usage.total_tokens) == ({"dollars": 0.5}, 0.5, 3)
    assert end.choices[0].finish_reason == "length"


def test_without_usage_there_is_none() -> None:
    answer = response("yes")
    del answer.usage
    told, _ = last_chunks(answer, {"dollars": 0.5})
    assert getattr(told, "usage", None) is None


def test_litellm_puts_the_chunks_together_again() -> None:
    answer = response("one two three four five six seven eight nine ten")
    whole = litellm.stream_chunk_builder([*chunks_of(answer), *last_chunks(answer, {"dollars": 0.5})])
    assert whole.choices[0].message.content == answer.choices[0].message.content
    assert whole.choices[0].finish_reason == "length"
