"""The decision loop once more, slow and plain, from the text of its contract: what `decide` is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from metaverify.policies.actions import Action, Call, Verify
from metaverify.policies.graph import Ask, Node, Poll, Read, Stop


def plain_action(
    nodes: Sequence[Node],
    root: int,
    first: Mapping[str, str],
    readings: Mapping[str, Any],
    votes: Mapping[tuple[str, str], int] | None = None,
) -> Action:
    """The next action from ``nodes[root]``; ``first`` names each tier's first reading, ``votes`` those that are votes
    and how many there are."""
    seen: dict[tuple[str, str], Any] = {}
    for tier, given in readings.items():
        by_name = given if isinstance(given, Mapping) else {first.get(tier, ""): given}
        seen.update({(tier, name): confidence for name, confidence in by_name.items()})
    node = nodes[root]
    while not isinstance(node, Stop):
        if isinstance(node, Ask):
            if node.tier not in readings:
                return Call(node.tier)
            node = nodes[node.then]
        elif (node.tier, node.reading) not in seen:
            return Verify(node.tier, node.reading)
        elif (node.tier, node.reading) in (votes or {}):
            after = after_votes(node, (votes or {})[node.tier, node.reading], as_tally(seen[node.tier, node.reading]))
            if after is None:
                return Verify(node.tier, node.reading)
            node = nodes[after]
        else:
            assert isinstance(node, Read)
            confidence = as_number(seen[node.tier, node.reading])
            if confidence is None:
                node = nodes[node.missing]
            else:
                node = nodes[node.then[sum(cut <= confidence for cut in node.cuts)]]
    return node.action


def after_votes(node: Read | Poll, votes: int, tally: tuple[int, int] | None) -> int | None:
    """The node that follows votes, None where one more is asked for; a plain read node wants them all."""
    if tally is None:
        return node.missing
    yes, asked = tally
    most = votes if isinstance(node, Read) else len(node.tallies)
    if asked == 0 or (isinstance(node, Read) and asked < most):
        return None
    if asked > most:
        yes, asked = math.floor(Fraction(yes * most, asked) + Fraction(1, 2)), most
    if isinstance(node, Read):
        return node.then[sum(cut <= yes / votes for cut in node.cuts)]
    row = node.tallies[asked - 1]
    return row.then[sum(cut <= yes for cut in row.cuts)]


def as_tally(given: Any) -> tuple[int, int] | None:
    """Votes as (yes, asked), None where they are missing."""
    if given is None or (isinstance(given, float) and math.isnan(given)):
        return None
    if (
        not isinstance(given, (tuple, list))
        or len(given) != 2
        or not all(isinstance(n, (int, np.integer)) for n in given)
    ):
        raise TypeError(given)
    if not 0 <= given[0] <= given[1]:
        raise TypeError(given)
    return int(given[0]), int(given[1])


def as_number(confidence: Any) -> float | None:
    """The confidence as a number in [0, 1], None where it is missing."""
    if confidence is None:
        return None
    if isinstance(confidence, (str, bytes)) or not hasattr(confidence, "__float__"):
        raise TypeError(confidence)
    number = float(confidence)
    return number if math.isfinite(number) and 0.0 <= number <= 1.0 else None
