"""Grades, against cases worked out by hand."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.simulators.collecting.grading import exact_match, f1, find_grader, matches
from metaverify.simulators.collecting.prompts import Prompt
from metaverify.simulators.log import LogError


def prompt(*references: str) -> Prompt:
    return Prompt("q", [{"role": "user", "content": "?"}], "?", references, {})


def graded(name: str, answer: str, *references: str, extract: str = "", judge: str = "") -> float | None:
    """The grade of one answer; the judge replies so."""
    asked = prompt(*references)

    async def ask(messages: Sequence[Any]) -> Any:
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=judge))])

    async def grade() -> float | None:
        return await find_grader(name, [asked], extract)(asked, answer, ask)

    return asyncio.run(grade())


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "overlap"),
    [
        ("Paris", "paris.", 1.0, 1.0),
        (" the  Eiffel\nTower ", "The Eiffel Tower", 1.0, 1.0),
        ("It is Paris", "Paris", 0.0, 0.5),  # 1 of 3 words, 1 of 1
        ("-5", "5", 0.0, 1.0),  # SQuAD knows no signs
        ("1.5", "15", 0.0, 1.0),
        ("a cat", "the cat", 0.0, 1.0),
        ("cat cat dog", "cat dog dog", 0.0, 2 / 3),  # as multisets: 2 of 3 and 2 of 3
        ("anything", "else", 0.0, 0.0),
        ("the", "a", 0.0, 1.0),  # nothing but articles
        ("the", "cat", 0.0, 0.0),
        ("", "x", 0.0, 0.0),
    ],
)
def test_texts_are_compared_as_by_hand(answer: str, reference: str, exact: float, overlap: float) -> None:
    assert exact_match(answer, reference) == exact
    assert f1(answer, reference) == pytest.approx(overlap)


def squad_f1(answer: str, reference: str) -> float:
    """As precision and recall, in another order of steps."""
    said, wanted = (
        [w for w in re.sub(r"[^\w\s]|_", "", text.lower()).split() if w not in ("a", "an", "the")]
        for text in (answer, reference)
    )
    same = sum(min(said.count(word), wanted.count(word)) for word in {*said})
    if not said or not wanted:
        return float(said == wanted)
    precision, recall = same / len(said), same / len(wanted)
    return 2 * precision * recall / (precision + recall) if same else 0.0


WORDS = st.lists(st.sampled_from(["a", "the", "cat", "Dog.", "dog", "x-ray", "4", "'tis"]), max_size=6).map(" ".join)


@given(WORDS, WORDS)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(answer: str, reference: str) -> None:
    assert f1(answer, reference) == pytest.approx(squad_f1(answer, reference))
    assert f1(answer, reference) == f1(reference, answer)


def test_a_regular_expression_is_looked_for() -> None:
    assert [matches("it is 42.", r"\b42\b"), matches("it is 421", r"\b42\b")] == [1.0, 0.0]
    assert graded("regex", "no", r"^yes", r"^no$") == 1.0


def test_the_best_reference_counts() -> None:
    assert graded("exact", "US", "USA", "us") == 1.0
    assert graded("f1", "red car", "a blue car", "green") == 0.5


@pytest.mark.parametrize(
    ("answer", "grade"),
    [("so 3 + 4 = 8, no: answer is 7", 1.0), ("answer is 7 or answer is 8", 0.0), ("seven", 0.0)],
)
def test_the_last_match_is_what_is_graded(answer: str, grade: float) -> None:
    assert graded("exact", answer, "7", extract=r"answer is (\d+)") == grade


@pytest.mark.parametrize(
    ("reply", "grade"),
    [("correct", 1.0), ("Incorrect.", 0.0), ("It looks correct, but is incorrect", 0.0), ("who knows", None)],
)
def test_a_judge_says_correct_or_incorrect(reply: str, grade: float | None) -> None:
    assert graded("judge", "7", "7", judge=reply) == grade


@pytest.mark.parametrize("told", [0, 1, 0.25, True, None])
def test_ones_own_function_grades(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own", SimpleNamespace(grade=lambda prompt, answer: told))
    assert graded("own:grade", "x") == told


@pytest.mark.parametrize("told", [1.01, -1, float("nan"), "1", [1]])
def test_ones_own_function_may_not_say_everything(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own", SimpleNamespace(grade=lambda prompt, answer: told))
    with pytest.raises(LogError, match=r"E_RANGE: --grade own:grade: query q got .*; return a number in"):
        graded("own:grade", "x")


def test_ones_own_function_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own", SimpleNamespace(grade=lambda prompt, answer: 1 / 0))
    with pytest.raises(LogError, match="query q made it raise ZeroDivisionError"):
        graded("own:grade", "x")


@pytest.mark.parametrize(
    ("name", "extract", "references", "message"),
    [
        ("exakt", "", ["x"], r"E_OPTION: --grade exakt is none of .*; did you mean 'exact'\?"),
        ("exact", "", [], "E_MISSING: query q: reference is missing, which --grade exact needs"),
        ("regex", "", ["("], r"E_OPTION: query q: reference is '\(', no regular expression"),
        ("exact", "x", ["x"], "E_OPTION: --extract 'x' has no group"),
        ("exact", "(", ["x"], r"E_OPTION: --extract is '\(', no regular expression"),
        ("no_such_module:f", "", [], "E_OPTION: --grade no_such_module:f cannot be imported"),
        ("math:pi", "", [], "E_OPTION: --grade math:pi is 3.14.*, which cannot be called"),
    ],
)
def test_what_cannot_grade_is_told(name: str, extract: str, references: list[str], message: str) -> None:
    with pytest.raises(LogError, match=message):
        find_grader(name, [prompt(*references)], extract)
