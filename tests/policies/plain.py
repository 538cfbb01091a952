"""The decision loop once more, slow and plain, from the text of its contract: what `decide` is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metaverify.policies.actions import Action, Call, Verify
from metaverify.policies.graph import Ask, Node, Stop


def plain_action(nodes: Sequence[Node], root: int, first: Mapping[str, str], readings: Mapping[str, Any]) -> Action:
    """The next action from ``nodes[root]``; ``first`` names each tier's first reading."""
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
        else:
            confidence = as_number(seen[node.tier, node.reading])
            if confidence is None:
                node = nodes[node.missing]
            else:
                node = nodes[node.then[sum(cut <= confidence for cut in node.cuts)]]
    return node.action


def as_number(confidence: Any) -> float | None:
    """The confidence as a number in [0, 1], None where it is missing."""
    if confidence is None:
        return None
    if isinstance(confidence, (str, bytes)) or not hasattr(confidence, "__float__"):
        raise TypeError(confidence)
    number = float(confidence)
    return number if math.isfinite(number) and 0.0 <= number <= 1.0 else None
