"""How right an answer is, in [0, 1]."""

from __future__ import annotations

import asyncio
import inspect
import math
import re
import string
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from metaverify.policies.integrations.models import answer_text
from metaverify.policies.names import did_you_mean
from metaverify.simulators.collecting.prompts import Prompt
from metaverify.simulators.log import LogError

__all__ = ["Ask", "Grader", "exact_match", "f1", "find_grader", "matches"]

Ask = Callable[[Sequence[Any]], Awaitable[Any]]
"""What a judge replies to a conversation."""

Grader = Callable[[Prompt, str, Ask], Awaitable[float | None]]
"""How right an answer's text is; None where that cannot be said."""

_Extract = Callable[[str], str | None]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

JUDGE = """\
Compare the last answer above with {what}.

{references}

Is the answer correct? Reply with one word, correct or incorrect."""


def exact_match(answer: str, reference: str) -> float:
    """1 where both are the same but for case, spaces, and a full stop at the end.

    >>> exact_match("Paris.", "paris"), exact_match("-5", "5")
    (1.0, 0.0)
    """
    return float(_plain(answer) == _plain(reference))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()


def f1(answer: str, reference: str) -> float:
    """The F1 of the words that both have, without case, punctuation and articles.

    Source: SQuAD's evaluation (Rajpurkar et al., EMNLP 2016, section 6).

    >>> f1("The cat sat.", "a cat")
    0.6666666666666666
    """
    said, wanted = _words(answer), _words(reference)
    if not said or not wanted:
        return float(said == wanted)
    same = (Counter(said) & Counter(wanted)).total()
    return 2.0 * same / (len(said) + len(wanted))


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def matches(answer: str, reference: str) -> float:
    """1 where the reference, a regular expression, is found in the answer."""
    return float(re.search(reference, answer) is not None)


def find_grader(name: str, prompts: Sequence[Prompt], extract: str = "") -> Grader:
    """The grader of a name: ``exact``, ``f1``, ``regex``, ``judge``, or ``module:function`` for one's own.

    Args:
        name: of several references the best counts.
        prompts: what will be graded.
        extract: a regular expression; what the first group of its last match has is graded instead of the answer, and
            an answer without a match is wrong.

    Raises:
        LogError: there is none of that name, or the prompts have not what it needs.
    """
    if ":" in name:
        return partial(_by_function, _extract(extract), name, _function(name))
    if name == "judge":
        return partial(_by_judge, _extract(extract))
    found = {"exact": exact_match, "f1": f1, "regex": matches}
    if name not in found:
        known = f"{', '.join(found)}, judge, or your own, 'module:function'"
        raise LogError("E_OPTION", f"--grade {name} is none of {known}{did_you_mean(name, [*found, 'judge'])}")
    for prompt in prompts:
        if not prompt.references:
            raise LogError(
                "E_MISSING", f"query {prompt.id}: reference is missing, which --grade {name} needs; give one"
            )
        for reference in prompt.references if name == "regex" else ():
            _compiled(reference, f"query {prompt.id}: reference")
    return partial(_by_reference, _extract(extract), found[name])


def _extract(pattern: str) -> _Extract:
    if not pattern:
        return lambda text: text
    compiled = _compiled(pattern, "--extract")
    if compiled.groups < 1:
        raise LogError("E_OPTION", f"--extract {pattern!r} has no group; put what is graded in brackets")

    def extracted(text: str) -> str | None:
        found = [*compiled.finditer(text)]
        return (found[-1][1] or "") if found else None

    return extracted


def _compiled(pattern: str, place: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise LogError("E_OPTION", f"{place} is {pattern!r}, no regular expression ({error}); correct it") from error


async def _by_reference(
    extract: _Extract, grade: Callable[[str, str], float], prompt: Prompt, answer: str, _: Ask
) -> float | None:
    said = extract(answer)
    return 0.0 if said is None else max(grade(said, reference) for reference in prompt.references)


async def _by_judge(extract: _Extract, prompt: Prompt, answer: str, ask: Ask) -> float | None:
    said = extract(answer)
    if said is None:
        return 0.0
    question = JUDGE.format(
        what="what is known to be right" if prompt.references else "what you know",
        references="\n".join(f"Right: {reference}" for reference in prompt.references),
    )
    asked = [*prompt.messages, {"role": "assistant", "content": said}, {"role": "user", "content": question}]
    found = re.findall(r"\b(in)?correct\b", answer_text(await ask(asked)), re.IGNORECASE)
    return float(not found[-1]) if found else None


async def _by_function(
    extract: _Extract, name: str, function: Callable[[Any, str], Any], prompt: Prompt, answer: str, _: Ask
) -> float | None:
    said = extract(answer)
    if said is None:
        return 0.0
    try:
        told = await asyncio.to_thread(function, prompt.content, said)
        told = await told if inspect.isawaitable(told) else told
    except Exception as error:
        place = f"--grade {name}: query {prompt.id}"
        raise LogError("E_OPTION", f"{place} made it raise {type(error).__name__}: {error}; mend it") from error
    if told is None:
        return None
    try:
        grade = math.nan if isinstance(told, str | bytes) else float(told)
    except (TypeError, ValueError):
        grade = math.nan
    if not 0.0 <= grade <= 1.0:
        way_out = "return a number in [0, 1], or None where it cannot be said"
        raise LogError("E_RANGE", f"--grade {name}: query {prompt.id} got {told!r}; {way_out}")
    return grade


def _function(name: str) -> Callable[[Any, str], Any]:
    """The function of a module, which may also lie in the present folder."""
    module, _, attribute = name.partition(":")
    before = [*sys.path]
    sys.path.append(str(Path.cwd()))  # last, so that it hides nothing
    try:
        found: Any = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise LogError("E_OPTION", f"--grade {name} cannot be imported: {error}") from error
    finally:
        sys.path[:] = before
    if not callable(found):
        raise LogError("E_OPTION", f"--grade {name} is {found!r}, which cannot be called")
    return found  # type: ignore[no-any-return]
