"""The decision graph: what a policy does next, given what has been read.

Nodes stand in one table, a node's successors always further down, so walking ends.  Equal subtrees are one node.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify

__all__ = [
    "Ask",
    "Graph",
    "GraphError",
    "Node",
    "Read",
    "Stop",
    "as_confidence",
    "check_graph",
    "compile_graph",
    "renumbered",
    "successors",
    "walk",
]


NO_SIGNALS: Mapping[str, Sequence[str]] = MappingProxyType({})


class GraphError(ValueError):
    """A node table that is no decision graph; ``place`` names the node."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place}: {message}")
        self.place = place
        self.message = message


@dataclass(frozen=True, slots=True)
class Ask:
    """Have this tier's answer, then go on at node ``then``."""

    tier: str
    then: int


@dataclass(frozen=True, slots=True)
class Read:
    """Have this reading, then go on where it falls.

    ``then[b]`` is the node for cuts[b-1] <= confidence < cuts[b]; ``missing`` the one for a reading that is
    missing, NaN, infinite or outside [0, 1].
    """

    tier: str
    reading: str
    cuts: tuple[float, ...]
    then: tuple[int, ...]  # len(cuts) + 1
    missing: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Return an answer in hand, or abstain."""

    action: Accept | Abstain


Node = Ask | Read | Stop
Graph = tuple[Node, ...]


def successors(node: Node) -> tuple[int, ...]:
    """The nodes that can follow, in order of confidence, the missing branch last."""
    match node:
        case Ask(_, then):
            return (then,)
        case Read(_, _, _, then, missing):
            return (*then, missing)
        case Stop(_):
            return ()


def renumbered(node: Node, place: Mapping[int, int]) -> Node:
    """The node with its successors at their new places."""
    match node:
        case Ask(tier, then):
            return Ask(tier, place[then])
        case Read(tier, reading, cuts, then, missing):
            return Read(tier, reading, cuts, tuple(place[child] for child in then), place[missing])
        case Stop(_):
            return node


def check_graph(
    nodes: Sequence[Node],
    roots: Iterable[int],
    readings: Mapping[str, Sequence[str]],
    needs: Mapping[str, Sequence[str]] = NO_SIGNALS,
) -> None:
    """Prove that every walk from ``roots`` ends, buys nothing twice, reads nothing before what it needs is in hand,
    and accepts only an answer in hand.

    Args:
        nodes: the table.
        roots: where walks begin.
        readings: the tiers and signals, and the readings that each one has.
        needs: the signals, and the tiers whose answers each one needs.

    Raises:
        GraphError: naming the node at which the proof fails.
    """
    always: dict[int, frozenset[tuple[str, str]]] = {}  # had on every path to the node
    ever: dict[int, frozenset[tuple[str, str]]] = {}  # had on some path
    for root in roots:
        if not 0 <= root < len(nodes):
            raise GraphError(f"root {root}", f"is not one of the {len(nodes)} nodes")
        always[root] = ever[root] = frozenset()
    for at, node in enumerate(nodes):
        place = f"nodes[{at}]"
        if at not in always:
            raise GraphError(place, "cannot be reached from any root")
        gained = _gain(node, place, always[at], ever[at], readings, needs)
        for child in successors(node):
            if not at < child < len(nodes):
                raise GraphError(place, f"goes on to node {child}, which is not further down")
            always[child] = always.get(child, always[at] | gained) & (always[at] | gained)
            ever[child] = ever.get(child, frozenset()) | ever[at] | gained


def _gain(
    node: Node,
    place: str,
    always: frozenset[tuple[str, str]],
    ever: frozenset[tuple[str, str]],
    readings: Mapping[str, Sequence[str]],
    needs: Mapping[str, Sequence[str]],
) -> frozenset[tuple[str, str]]:
    """What a walk has after this node that it may not have had before; the answer itself is the reading ""."""
    match node:
        case Stop(Abstain()):
            return frozenset()
        case Stop(Accept(tier)):
            if (tier, "") not in always:
                raise GraphError(place, f"accepts {tier!r}, whose answer is not in hand on every path")
            return frozenset()
        case Ask(tier, _):
            wanted = (tier, "")
            if tier not in readings:
                raise GraphError(place, f"calls {tier!r}, which is not one of the tiers")
            if tier in needs:
                raise GraphError(place, f"calls {tier!r}, which has no answer")
        case Read(tier, reading, cuts, then, _):
            wanted = (tier, reading)
            if reading not in readings.get(tier, ()):
                raise GraphError(place, f"reads {reading!r} of {tier!r}, which the tiers do not list")
            for need in needs.get(tier, (tier,)):
                if (need, "") not in always:
                    whose = "whose answer" if need == tier else f"though the answer of {need!r}"
                    raise GraphError(place, f"reads {tier!r}, {whose} is not in hand on every path")
            if len(then) != len(cuts) + 1:
                raise GraphError(place, f"has {len(cuts)} cuts and {len(then)} branches, not one more")
            if any(not low < high for low, high in pairwise(cuts)):
                raise GraphError(place, "has cuts that do not rise")
            if cuts and not 0.0 <= cuts[0] <= cuts[-1] <= 1.0:
                raise GraphError(place, "has a cut outside [0, 1]")
    if wanted in ever:
        raise GraphError(place, f"buys {wanted[1] or 'the answer'} of {wanted[0]!r} a second time")
    return frozenset({wanted})


Linked = tuple[Any, ...]
"""A compiled node: (tier, reading, is first reading, cuts, branches, missing branch, action).

``reading`` is None at a call, ``tier`` None at a stop; branches are compiled nodes themselves."""

_UNREAD = object()


def compile_graph(nodes: Sequence[Node], first_reading: Mapping[str, str]) -> tuple[Linked, ...]:
    """The same graph with nodes that hold each other, which is what ``walk`` walks."""
    linked: list[Linked] = [()] * len(nodes)
    for at in range(len(nodes) - 1, -1, -1):
        match nodes[at]:
            case Stop(action):
                linked[at] = (None, None, False, (), (), None, action)
            case Ask(tier, then):
                linked[at] = (tier, None, False, (), (), linked[then], Call(tier))
            case Read(tier, reading, cuts, then, missing):
                branches = tuple(linked[child] for child in then)
                first = first_reading.get(tier) == reading
                linked[at] = (tier, reading, first, cuts, branches, linked[missing], Verify(tier, reading))
    return tuple(linked)


def walk(node: Linked, readings: Mapping[str, Any]) -> Action:
    """The next action from a compiled node, given ``readings``: tier -> confidence, or {reading: confidence}."""
    while True:
        tier, reading, first, cuts, branches, missing, action = node
        if tier not in readings:  # nor is None, the tier of a stop
            return action  # type: ignore[no-any-return]
        if reading is None:
            node = missing
            continue
        confidence = readings[tier]
        if type(confidence) is dict:
            confidence = confidence.get(reading, _UNREAD)
        elif not first or type(confidence) is not float:
            confidence = _lookup(confidence, reading, first)
        if type(confidence) is not float:
            if confidence is _UNREAD:
                return action  # type: ignore[no-any-return]
            confidence = as_confidence(confidence, tier, reading)
        node = branches[bisect_right(cuts, confidence)] if 0.0 <= confidence <= 1.0 else missing


def _lookup(given: Any, reading: str, first: bool) -> Any:
    """The reading in anything but a plain dict; a bare confidence is the tier's first reading."""
    if isinstance(given, Mapping):
        return given.get(reading, _UNREAD)
    return given if first else _UNREAD


def as_confidence(given: Any, tier: str, reading: str) -> float:
    """A reading as a float; NaN where it is None.

    Raises:
        TypeError: it is neither a number nor None.
    """
    if given is None:
        return math.nan
    if isinstance(given, str | bytes | bytearray) or not hasattr(given, "__float__"):
        raise TypeError(f"the reading {reading!r} of {tier!r} is {given!r}, not a number or None")
    try:
        return float(given)
    except OverflowError:  # a whole number beyond all floats is outside [0, 1] like any other
        return math.inf
