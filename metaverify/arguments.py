"""Arguments that hold several things, taken apart: names, pairs, JSON.

Each raises a `ValueError` that shows the argument and how to write it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaverify.fitting.outages import Outages
    from metaverify.policies.policy import Policy

__all__ = [
    "parse_budgets",
    "parse_context",
    "parse_costs",
    "parse_counts",
    "parse_names",
    "parse_outages",
    "parse_paths",
    "parse_readings",
    "parse_signals",
    "parse_text",
    "parse_votes",
]


def parse_names(text: str | None) -> list[str] | None:
    """Names that commas separate; None where none were given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def parse_budgets(text: str | None) -> list[float] | None:
    """Numbers that commas separate; None where none were given."""
    try:
        return None if text is None else [float(budget) for budget in parse_names(text) or ()]
    except ValueError:
        raise ValueError(f"--budgets {text}: write them as numbers, for example --budgets 1,2.5,4") from None


def parse_costs(pairs: Sequence[str]) -> dict[str, float]:
    """Prices by tier, each given as tier=price."""
    costs = {}
    for pair in pairs:
        tier, _, price = pair.rpartition("=")
        try:
            if not tier:
                raise ValueError
            costs[tier] = float(price)
        except ValueError:
            raise ValueError(f"--cost {pair}: write it as tier=price, for example --cost small=0.2") from None
    return costs


def parse_signals(declared: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The tiers that a signal needs, by signal, each given as name or name=tier,tier."""
    signals = {}
    for text in declared:
        name, equals, needs = text.partition("=")
        tiers = tuple(parse_names(needs) or ())
        if not name.strip() or (equals and not tiers):
            raise ValueError(f"--signal {text}: write it as name=tier, for example --signal judge=small")
        signals[name.strip()] = tiers
    return signals


def parse_votes(declared: Sequence[str]) -> dict[str, int]:
    """How many votes a reading is the share of, each given as reading=number."""
    votes = {}
    for text in declared:
        name, _, count = text.rpartition("=")
        try:
            votes[name.strip()] = int(count)
        except ValueError:
            raise ValueError(f"--votes {text}: write it as reading=number, for example --votes self_verify=8") from None
    return votes


def parse_counts(option: str, pairs: Sequence[str]) -> dict[str, int]:
    """Whole numbers of at least 1 by name, each given as name=number."""
    counts = {}
    for pair in pairs:
        name, _, count = pair.rpartition("=")
        if not (name.strip() and count.isascii() and count.isdigit() and int(count)):
            raise ValueError(f"{option} {pair}: write it as name=number, for example {option} large=2")
        counts[name.strip()] = int(count)
    return counts


def parse_paths(option: str, pairs: Sequence[str]) -> dict[str, str]:
    """What stands on the right, by what stands on the left, each given as name=text; a name by itself is both."""
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or (equals and not text):
            raise ValueError(f"{option} {pair}: write it as name=text, for example {option} task=metadata.task")
        found[name] = text or name
    return found


def parse_outages(text: str | None, tiers: Sequence[str]) -> Outages:
    """Outages as they were named; a tier may have a + in its own name."""
    if not text:
        return () if text is None else "each"
    return [[name] if name in tiers else [part.strip() for part in name.split("+")] for name in parse_names(text) or ()]


def parse_text(text: str, name: str) -> str:
    """A text as it was typed: where the locale knows no UTF-8, its bytes come as lone surrogates.

    Raises:
        ValueError: they are not UTF-8.
    """
    try:
        return text.encode(errors="surrogateescape").decode()
    except UnicodeError:
        raise ValueError(f"E_ENCODING: {name} {text!a} is not UTF-8; type it in a terminal that writes UTF-8") from None


def parse_readings(text: str) -> dict[str, Any]:
    """What has been read, a JSON object."""
    text = parse_text(text, "the readings")
    subject, example = "the readings are", """'{"small": 0.42}'"""
    return _parse_object(
        text,
        subject,
        broken=f"{subject} no JSON",
        way_out=f"{example} in quotes",
        other=f"{subject} {text}, not a JSON object such as {example}",
    )


def parse_context(text: str | None, policy: Policy) -> str | dict[str, Any] | None:
    """A context as a label, or the values of its columns where it is a JSON object.

    Raises:
        ValueError: what begins as JSON does is neither an object nor a label that the policy knows.
    """
    text = None if text is None else parse_text(text, "--context")
    if text is None or not text.startswith(("{", "[")) or text in policy.vertices[0].context_roots:
        return text
    example = repr(json.dumps(dict.fromkeys(policy.context, "…"), ensure_ascii=False))
    return _parse_object(
        text,
        "--context is",
        broken=f"--context {text} is no JSON",
        way_out=f"{example} in quotes, or a label",
        other=f"--context {text} is not a JSON object such as {example}, nor a label of the policy",
    )


def _parse_object(text: str, subject: str, *, broken: str, way_out: str, other: str) -> dict[str, Any]:
    """The JSON object in a text.

    Raises:
        ValueError: there is none; ``broken`` and ``way_out`` say it of what is no JSON, ``other`` of what is.
    """
    twice: list[str] = []

    def note_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=note_twice)
    except json.JSONDecodeError as error:
        raise ValueError(f"{broken} ({error}); write {way_out}") from None
    except (RecursionError, ValueError):
        raise ValueError(f"{subject} no JSON that can be read: nested too deep, or too many digits") from None
    if not isinstance(value, dict):
        raise ValueError(other)
    if twice:
        raise ValueError(f"E_DUPKEY: {subject} {text}, with {twice[0]!r} twice in one object; write it once")
    return value
