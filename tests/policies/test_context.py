"""Names of contexts: which interval a number falls in, and that a policy decides by it."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.context import context_label, context_word, interval_label, interval_labels, split_label
from metaverify.policies.drawing import draw_mermaid, draw_text
from metaverify.policies.episode import Episode
from metaverify.policies.explain import explain
from metaverify.policies.file import dump_policy, load_policy, parse_policy
from metaverify.simulators.reader import read_log

POLICY = load_policy(Path(__file__).resolve().parents[1] / "golden" / "numbers.json")
numbers = st.floats(-1e9, 1e9) | st.integers(-1000, 1000).map(float)


@given(cuts=st.lists(numbers, min_size=1, max_size=5, unique=True).map(sorted), value=numbers)
def test_a_number_is_named_by_the_two_cuts_around_it(cuts: list[float], value: float) -> None:
    low, high = None, None
    for cut in cuts:
        if cut <= value:
            low = cut
        elif high is None:
            high = cut
    label = interval_label("n", cuts, value)
    told = label.replace("<=n<", " ").replace("n<", "-inf ").replace("n>=", "").split()
    ends = [float(end) for end in told] + [math.inf] * (len(told) < 2)
    assert ends == [-math.inf if low is None else low, math.inf if high is None else high]
    assert label in interval_labels("n", cuts)[:-1]


@given(cuts=st.lists(numbers, min_size=1, max_size=6, unique=True).map(sorted))
def test_no_two_intervals_have_one_name(cuts: list[float]) -> None:
    assert len(set(interval_labels("n", cuts))) == len(cuts) + 2


def test_a_cut_is_written_as_short_as_can_be() -> None:
    labels = interval_labels("prompt_tokens", (-0.5, 120.0, 1e16))
    assert labels == (
        "prompt_tokens<-0.5",
        "-0.5<=prompt_tokens<120",
        "120<=prompt_tokens<1e+16",
        "prompt_tokens>=1e+16",
        "prompt_tokens missing",
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        b"431",
        "",
        "many",
        "1_0",
        "٣",
        "nan",
        [],
        {},
        np.zeros(3),
        1j,
        object(),
    ],
)
def test_what_is_no_finite_number_is_missing(value: Any) -> None:
    assert interval_label("n", (0.0,), value) == "n missing"


@pytest.mark.parametrize("number", [int, float, np.int64, np.float32, np.float64, Decimal, np.asarray])
def test_a_number_of_any_kind_is_a_number(number: Any) -> None:
    assert [interval_label("n", (120.0, 480.0), number(n)) for n in (119, 120, 480)] == [
        "n<120",
        "120<=n<480",
        "n>=480",
    ]


@pytest.mark.parametrize("text", ["431", " 431 ", "431.0", "4.31e2", "+431"])
def test_a_number_told_as_text_is_the_number_that_a_log_takes_it_for(text: str, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(f'n,correct_small,cost_small\n"{text}",1,1\n7,0,1\n')
    cuts = (430.5, 431.0, 431.5)
    read = read_log(log, context="n", context_cuts={"n": cuts})
    assert read.contexts is not None
    assert interval_label("n", cuts, text) == read.contexts[0] == interval_label("n", cuts, 431)


@pytest.mark.parametrize("tokens", [0, 119.5, 120, 480.4, 480.5, 1e9, None, math.nan, "many"])
def test_values_by_name_decide_as_their_label_does(tokens: Any) -> None:
    context = {"task": "qa", "tokens": tokens, "not asked for": 1}
    label = POLICY.context_of(context)
    assert label in POLICY.vertices[0].context_roots
    for readings in ({}, {"small": 0.4}, {"small": 0.6}):
        assert POLICY.decide(readings, context=context) == POLICY.decide(readings, context=label)
    assert Episode(POLICY, context=context).action == POLICY.decide({}, context=label)
    explanation = explain(POLICY, {"small": 0.6}, context=context)
    assert (explanation.context, explanation.context_known) == (label, True)
    assert f"context {label}: its own graph" in str(explanation)


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.jsonl"])
@pytest.mark.parametrize("values", [[True, False, None], [1, -7, None], [0.5, -1.25, None], ["a/b", "", "True"]])
def test_a_column_s_values_have_the_words_that_a_log_gives_them(values: list[Any], name: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"told": values, "correct_a": [1, 0, 1], "cost_a": [1.0] * 3})
    write = {"log.parquet": frame.write_parquet, "log.csv": frame.write_csv, "log.jsonl": frame.write_ndjson}[name]
    write(tmp_path / name)
    contexts = read_log(tmp_path / name, context="told").contexts
    assert contexts is not None
    assert [context_word("told", value) for value in values] == contexts.tolist()
    assert [context_word("told", value) for value in np.array(values[:2])] == contexts.tolist()[:2]


def test_a_value_that_is_missing_has_no_word() -> None:
    assert [context_word("told", value) for value in (None, math.nan, math.inf, -math.inf, np.float64("nan"))] == [
        ""
    ] * 5


@pytest.mark.parametrize("value", [[], ["a"], {}, {"a": 1}, ("a",), {"a"}, b"a", np.zeros(1)])
def test_a_value_that_is_not_plain_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^the context's 'told' is .*, not one plain value$"):
        context_word("told", value)


def test_a_number_that_is_not_told_at_all_is_an_error() -> None:
    for context in ({"task": "qa"}, {"task": "qa", "token": 7}):
        with pytest.raises(ValueError, match="nor the values of task, tokens by name: 'tokens' is missing"):
            POLICY.decide({}, context=context)


def test_pictures_name_the_intervals() -> None:
    assert "every request, context qa/tokens<120\n" in draw_text(POLICY)
    assert "every request, context qa/tokens&lt;120" in draw_mermaid(POLICY)


def test_cuts_come_back_from_the_file() -> None:
    assert POLICY.context_cuts == {"tokens": (120.0, 480.5)}
    two = replace(POLICY, context_cuts={"tokens": (-1.0, 0.0, 2.5), "task": (1e300,)})
    assert parse_policy(dump_policy(two).encode()) == two
    assert "context_cuts" not in dump_policy(replace(POLICY, context_cuts={}))


@pytest.mark.parametrize(
    ("values", "label"),
    [
        (["a"], "a"),
        (["a/b\\c"], "a/b\\c"),  # one value stands as it is
        (["a", "b"], "a/b"),
        (["a/b", "c\\d"], r"a\/b/c\\d"),
        (["", ""], "/"),
        (["", "\n", "/"], "/\n/\\/"),
        (["\\", "/"], r"\\/\/"),
    ],
)
def test_a_label_is_its_values_joined_and_comes_apart_again(values: list[str], label: str) -> None:
    assert context_label(values) == label
    assert split_label(label, len(values)) == tuple(values)


@given(values=st.lists(st.text(alphabet="ab/\\\n\u00e9", max_size=4), min_size=1, max_size=4))
def test_any_values_come_back_from_their_label(values: list[str]) -> None:
    assert split_label(context_label(values), len(values)) == tuple(values)


@pytest.mark.parametrize("value", [True, "1", " 1", np.int8(1), bytearray(b"1"), "1\u0661", "1e999", "\u00b9"])
def test_what_looks_like_a_number_is_one_where_a_log_would_have_it_so(value: Any) -> None:
    number = value in (True, "1", " 1") or isinstance(value, np.int8)
    assert interval_label("n", (1.0,), value) == ("n>=1" if number else "n missing")
