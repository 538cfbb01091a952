"""Prompts: what is read, and what is refused with its place, its value and the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from metaverify.simulators.collecting.prompts import Prompt, read_prompts
from metaverify.simulators.log import LogError

CHAT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_prompts_and_conversations_are_read_with_what_is_carried(tmp_path: Path) -> None:
    one, two = read_prompts(
        lines(
            tmp_path / "p.jsonl",
            {"query_id": "a", "prompt": "2 + 2?", "reference": 4, "task": "sums", "length": 6},
            {"query_id": 7, "messages": CHAT, "references": ["hello", "hi"], "task": None, "length": 2},
        )
    )
    asked = [{"role": "user", "content": "2 + 2?"}]
    assert one == Prompt("a", asked, "2 + 2?", ("4",), {"task": "sums", "length": 6})
    assert two == Prompt("7", CHAT, CHAT, ("hello", "hi"), {"task": None, "length": 2})


def test_csv_and_parquet_say_the_same_as_json_lines(tmp_path: Path) -> None:
    rows = [
        {"query_id": "a", "prompt": "x", "messages": None, "references": ["1", "2"], "group_id": "g"},
        {"query_id": "b", "prompt": None, "messages": CHAT[:1], "references": ["3"], "group_id": "g"},
    ]
    expected = read_prompts(lines(tmp_path / "p.jsonl", *rows))
    pl.DataFrame(rows).write_parquet(tmp_path / "p.parquet")
    coded = [
        {name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()} for row in rows
    ]
    pl.DataFrame(coded).write_csv(tmp_path / "p.csv")
    assert read_prompts(tmp_path / "p.parquet") == read_prompts(tmp_path / "p.csv") == expected


def test_ids_are_made_of_the_content_and_repeated_prompts_are_a_group(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", {"prompt": "x"}, {"prompt": "y"}, {"prompt": "x"})
    found = read_prompts(path)
    x, y, again = (prompt.id for prompt in found)
    assert again == f"{x}-2"
    assert [prompt.carried for prompt in found] == [{"group_id": x}, {"group_id": y}, {"group_id": x}]
    turned = read_prompts(lines(tmp_path / "q.jsonl", {"prompt": "y"}, {"prompt": "x"}))
    assert [(prompt.id, prompt.carried) for prompt in turned] == [(y, {}), (x, {})]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "x"}], r"E_COLUMN: p\.jsonl has neither prompt nor messages; "),
        ([{"promt": "x"}], r"E_COLUMN: .*; did you mean 'promt'\?"),
        ([{"prompt": "x"}, {"prompt": ""}], r"E_MISSING: p\.jsonl line 2: prompt is missing; give a text"),
        ([{"prompt": 7}], r"E_TYPE: p\.jsonl line 1: prompt is 7; give a text"),
        ([{"prompt": "  "}], r"E_TYPE: p\.jsonl line 1: prompt is '  '; give a text"),
        ([{"prompt": "x", "messages": CHAT}], r"E_CONFLICT: p\.jsonl line 1: messages is \[.*; leave one of"),
        ([{"messages": "hi"}], r"E_TYPE: p\.jsonl line 1: messages is 'hi'; give a list"),
        ([{"messages": ["hi"]}], r"E_TYPE: p\.jsonl line 1: messages is 'hi'; give each as "),
        ([{"messages": []}], r"E_MISSING: p\.jsonl line 1: messages is missing; give one at least"),
        ([{"prompt": "x", "reference": {"a": 1}}], r"E_TYPE: p\.jsonl line 1: reference is \{'a': 1\}; give a text"),
        ([{"prompt": "x", "query_id": 1.5}], r"E_TYPE: p\.jsonl line 1: query_id is 1\.5; give a text"),
        ([{"prompt": x, "query_id": "a"} for x in "xy"], r"E_DUPID: p\.jsonl line 2: query_id is 'a'; a query stands"),
        ([{"prompt": "x", "conf_small": 1}], r"E_COLUMN: p\.jsonl line 1: conf_small is 1; a log has columns of such"),
        ([{"prompt": "x", "tier": "a"}], r"E_COLUMN: p\.jsonl line 1: tier is 'a'; a log has columns of such names"),
        ([{"prompt": "x", "of": ["a"]}], r"E_TYPE: p\.jsonl line 1: of is \['a'\]; give a text or a number"),
        ([{"prompt": "x", "of": 1}, {"prompt": "y", "of": "1"}], r"line 2: of is '1'; above it is a number; write one"),
        ([3], r"E_SYNTAX: p\.jsonl line 1 is no JSON object \(3\); correct it, or take it out"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(LogError, match=message):
        read_prompts(lines(tmp_path / "p.jsonl", *rows))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", 'prompt,messages\n,"[1"\n', r"E_TYPE: p\.csv line 2: messages is '\[1'; write a list in JSON"),
        ("p.csv", "prompt\n", "E_EMPTY: p.csv has no prompts"),
        ("p.txt", "x", "E_FILE: p.txt has no known suffix"),
        ("gone.csv", None, "E_FILE: gone.csv: there is no such file"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(LogError, match=message):
        read_prompts(tmp_path / name)
