"""The decision graph: what a policy does next, given what has been read.

Nodes stand in one table, a node's successors always further down, so walking ends.  Equal subtrees are one node.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from types import MappingProxyType

from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.tiers import Tier, fused_score

TYPE_CHECKING = False  # the module `typing` is dear to import
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Ask",
    "Graph",
    "GraphError",
    "Node",
    "Poll",
    "Read",
    "Stop",
    "Tally",
    "Unread",
    "all_votes",
    "always_next",
    "as_confidence",
    "as_number",
    "as_votes",
    "as_whole",
    "bought_first",
    "check_graph",
    "come_to",
    "compact",
    "compile_graph",
    "nearest_tally",
    "reading_in_hand",
    "renumbered",
    "successors",
    "walk",
]


NO_SIGNALS: Mapping[str, Sequence[str]] = MappingProxyType({})
NO_VOTES: Mapping[tuple[str, str], int] = MappingProxyType({})


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
class Tally:
    """What follows so many votes: ``then[b]`` where cuts[b-1] <= yes < cuts[b], a node, or None: ask for one more."""

    cuts: tuple[int, ...]
    then: tuple[int | None, ...]  # len(cuts) + 1

    def after(self, yes: int) -> int | None:
        """What follows where so many of the votes are yes."""
        return self.then[bisect_right(self.cuts, yes)]


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask for votes one by one, and go on as soon as they suffice.

    ``tallies[j - 1]`` says what follows j votes, the last one never to ask for more; ``missing`` is the node for
    votes that are missing.
    """

    tier: str
    reading: str
    tallies: tuple[Tally, ...]
    missing: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Return an answer in hand, or abstain."""

    action: Accept | Abstain


Node = Ask | Read | Poll | Stop
Graph = tuple[Node, ...]


def bought_first(nodes: Graph, root: int) -> frozenset[tuple[str, str | None]]:
    """What is bought from a root on before anything depends on it: (tier, None) for an answer, (tier, reading)."""
    found: set[tuple[str, str | None]] = set()
    at: int | None = root
    while at is not None and isinstance(node := nodes[at], Ask | Read):
        found.add((node.tier, None if isinstance(node, Ask) else node.reading))
        at = always_next(node)
    return frozenset(found)


def always_next(node: Node) -> int | None:
    """The node that follows whatever is read; None where that depends, or votes are asked for, or the walk ends."""
    match node:
        case Ask(_, then):
            return then
        case Read(_, _, _, then, missing) if {*then} == {missing}:
            return missing
        case _:
            return None


def successors(node: Node) -> tuple[int, ...]:
    """The nodes that can follow, in order of confidence, the missing branch last."""
    match node:
        case Ask(_, then):
            return (then,)
        case Read(_, _, _, then, missing):
            return (*then, missing)
        case Poll(_, _, tallies, missing):
            return (*(child for tally in tallies for child in tally.then if child is not None), missing)
        case _:
            return ()


def renumbered(node: Node, place: Mapping[int, int]) -> Node:
    """The node with its successors at their new places."""
    match node:
        case Ask(tier, then):
            return Ask(tier, place[then])
        case Read(tier, reading, cuts, then, missing):
            return Read(tier, reading, cuts, tuple(place[child] for child in then), place[missing])
        case Poll(tier, reading, tallies, missing):
            moved = (Tally(t.cuts, tuple(None if c is None else place[c] for c in t.then)) for t in tallies)
            return Poll(tier, reading, tuple(moved), place[missing])
        case _:
            return node


def compact(nodes: Sequence[Node], roots: Iterable[int]) -> tuple[Graph, dict[int, int]]:
    """The nodes that walks from these roots come to, in order, and where each of them went."""
    needed: set[int] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(successors(nodes[node]))
    place = {node: at for at, node in enumerate(sorted(needed))}
    return tuple(renumbered(nodes[node], place) for node in place), place


def come_to(poll: Poll) -> tuple[tuple[bool, ...], ...]:
    """Which tallies can be come to by asking: after 1, 2, .. votes, for 0, 1, .. of them yes."""
    reached: list[tuple[bool, ...]] = [(True, True)]
    for tally in poll.tallies[:-1]:
        more = [here and tally.after(yes) is None for yes, here in enumerate(reached[-1])]
        reached.append(tuple(a or b for a, b in zip([*more, False], [False, *more], strict=True)))
    return tuple(reached)


def nearest_tally(yes: int, asked: int, most: int) -> tuple[int, int]:
    """(yes, asked) itself, or the nearest one of ``most`` votes where more were asked than that.

    Example:
        >>> nearest_tally(2, 3, 4), nearest_tally(7, 8, 4)
        ((2, 3), (4, 4))
    """
    return (yes, asked) if asked <= most else ((2 * yes * most + asked) // (2 * asked), most)


def check_graph(
    nodes: Sequence[Node],
    roots: Iterable[int],
    readings: Mapping[str, Sequence[str]],
    needs: Mapping[str, Sequence[str]] = NO_SIGNALS,
    votes: Mapping[tuple[str, str], int] = NO_VOTES,
) -> None:
    """Prove that every walk from ``roots`` ends, buys nothing twice, reads nothing before what it needs is in hand,
    and accepts only an answer in hand.

    Args:
        nodes: the table.
        roots: where walks begin.
        readings: the tiers and signals, and the readings that each one has.
        needs: the signals, and the tiers whose answers each one needs.
        votes: (tier, reading) -> how many votes there are, of readings that are votes.

    Raises:
        GraphError: naming the node at which the proof fails.
    """
    bits = _bits_of(readings)
    always: dict[int, int] = {}  # had on every path to the node
    ever: dict[int, int] = {}  # had on some path
    for root in roots:
        if not 0 <= root < len(nodes):
            raise GraphError(f"root {root}", f"is not one of the {len(nodes)} nodes")
        always[root] = ever[root] = 0
    for at, node in enumerate(nodes):
        place = f"nodes[{at}]"
        if at not in always:
            raise GraphError(place, "cannot be reached from any root")
        surely, maybe = always.pop(at), ever.pop(at)
        gained = _gain(node, place, surely, maybe, bits, needs)
        if isinstance(node, Poll):
            _check_poll(node, place, votes.get((node.tier, node.reading), 0))
        for child in successors(node):
            if not at < child < len(nodes):
                raise GraphError(place, f"goes on to node {child}, which is not further down")
            always[child] = always.get(child, surely | gained) & (surely | gained)
            ever[child] = ever.get(child, 0) | maybe | gained


def _bits_of(readings: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], int]:
    """A bit for all that can be bought, so that a set of it is one whole number; an answer is the reading ""."""
    bought = ((tier, reading) for tier, names in readings.items() for reading in ("", *names))
    return {one: 1 << at for at, one in enumerate(bought)}


def _gain(
    node: Node,
    place: str,
    always: int,
    ever: int,
    bits: Mapping[tuple[str, str], int],
    needs: Mapping[str, Sequence[str]],
) -> int:
    """What a walk has after this node that it may not have had before, as a bit."""
    match node:
        case Stop(Accept(tier)) if not bits.get((tier, ""), 0) & always:
            raise GraphError(place, f"accepts {tier!r}, whose answer is not in hand on every path")
        case Stop(_):
            return 0
        case Ask(tier, _):
            wanted = (tier, "")
            if wanted not in bits:
                raise GraphError(place, f"calls {tier!r}, which is not one of the tiers")
            if tier in needs:
                raise GraphError(place, f"calls {tier!r}, which has no answer")
        case look:
            tier, reading = wanted = (look.tier, look.reading)
            if not reading or wanted not in bits:
                raise GraphError(place, f"reads {reading!r} of {tier!r}, which the tiers do not list")
            for need in needs.get(tier, (tier,)):
                if not bits.get((need, ""), 0) & always:
                    whose = "whose answer" if need == tier else f"though the answer of {need!r}"
                    raise GraphError(place, f"reads {tier!r}, {whose} is not in hand on every path")
            if isinstance(look, Read):
                _check_read(look, place)
    if bits[wanted] & ever:
        raise GraphError(place, f"buys {wanted[1] or 'the answer'} of {wanted[0]!r} a second time")
    return bits[wanted]


def _check_read(node: Read, place: str) -> None:
    cuts, then = node.cuts, node.then
    if len(then) != len(cuts) + 1:
        raise GraphError(place, f"has {len(cuts)} cuts and {len(then)} branches, not one more")
    if any(not low < high for low, high in pairwise(cuts)):
        raise GraphError(place, "has cuts that do not rise")
    if cuts and not 0.0 <= cuts[0] <= cuts[-1] <= 1.0:
        raise GraphError(place, "has a cut outside [0, 1]")


def _check_poll(node: Poll, place: str, votes: int) -> None:
    if not 1 <= len(node.tallies) <= votes:
        raise GraphError(place, f"asks for up to {len(node.tallies)} votes of {node.tier!r}, of {votes}")
    for asked, (cuts, then) in enumerate(((tally.cuts, tally.then) for tally in node.tallies), start=1):
        if len(then) != len(cuts) + 1:
            raise GraphError(place, f"has {len(cuts)} cuts and {len(then)} branches after {asked} votes, not one more")
        if any(not low < high for low, high in pairwise((0, *cuts, asked + 1))):
            raise GraphError(place, f"has cuts after {asked} votes that do not rise within 1 .. {asked}")
    if None in node.tallies[-1].then:
        raise GraphError(place, f"asks for more after {len(node.tallies)} votes, and does not say what follows them")


Linked = tuple["Any", ...]
"""A compiled node: (tier, reading, is first reading, cuts, branches, missing branch, action, reading as listed).

``reading`` is None at a call, ``tier`` None at a stop; branches are compiled nodes themselves; the last entry is None
unless the reading is fused.  Where votes are asked ``cuts`` is None, and ``branches`` is (most votes, the last of the
tallies): before these one more vote is asked for, whatever was said."""


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands where a reading would: this one of the tier must be read first."""

    reading: str


_UNREAD = object()


def compile_graph(nodes: Sequence[Node], tiers: Sequence[Tier]) -> tuple[Linked, ...]:
    """The same graph with nodes that hold each other, which is what ``walk`` walks."""
    first = {(tier.name, reading.name) for tier in tiers for reading in tier.readings[:1]}
    listed = {(tier.name, reading.name): (tier, reading) for tier in tiers for reading in tier.readings}
    linked: list[Linked] = [()] * len(nodes)
    for at in range(len(nodes) - 1, -1, -1):
        match nodes[at]:
            case Stop(action):
                linked[at] = (None, None, False, (), (), None, action, None)
            case Ask(name, then):
                linked[at] = (name, None, False, (), (), linked[then], Call(name), None)
            case look:
                bought = name, read = look.tier, look.reading
                tier, reading = listed[bought]
                fused = tier if reading.parts else None
                cuts, branches = _branches(look, reading.votes, linked)
                missing = linked[look.missing]
                asked = Verify(name, reading.parts[0].reading if reading.parts else read)
                linked[at] = (name, read, bought in first, cuts, branches, missing, asked, fused)
    return tuple(linked)


def _branches(look: Read | Poll, votes: int, linked: Sequence[Linked]) -> tuple[tuple[float, ...] | None, Linked]:
    """Cuts and branches of a compiled node that reads."""
    if isinstance(look, Poll):
        return None, (len(look.tallies), tuple(_row(tally.cuts, tally.then, linked) for tally in look.tallies))
    if votes:
        return None, (votes, (_row([_fewest(cut, votes) for cut in look.cuts], look.then, linked),))
    return look.cuts, tuple(linked[child] for child in look.then)


def _row(cuts: Sequence[int], then: Sequence[int | None], linked: Sequence[Linked]) -> Linked:
    return tuple(cuts), tuple(None if child is None else linked[child] for child in then)


def _fewest(share: float, votes: int) -> int:
    """How many of the votes must be yes for their share to be at least that."""
    return bisect_left(range(votes + 1), share, key=lambda yes: yes / votes)


def all_votes(read: Read, votes: int) -> Poll:
    """The poll that asks for all votes, whatever they say, and then goes on as their share falls."""
    last = tuple(read.then[bisect_right(read.cuts, yes / votes)] for yes in range(votes + 1))
    tallies = (*(Tally((), (None,)) for _ in range(votes - 1)), Tally(tuple(range(1, votes + 1)), last))
    return Poll(read.tier, read.reading, tallies, read.missing)


def walk(node: Linked, readings: Mapping[str, Any]) -> Action:
    """The next action from a compiled node, given ``readings``: tier -> confidence, or {reading: confidence}."""
    while True:
        tier, reading, first, cuts, branches, missing, action, fused = node
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
                if fused is None:
                    return action  # type: ignore[no-any-return]
                confidence = reading_in_hand(fused, reading, readings[tier])
                if isinstance(confidence, Unread):
                    return Verify(tier, confidence.reading)
            if cuts is not None:
                confidence = as_confidence(confidence, tier, reading)
        if cuts is None:
            told = as_votes(confidence, tier, reading)
            after = missing if told is None else _follow_votes(branches, *told)
            if after is None:
                return action  # type: ignore[no-any-return]
            node = after
            continue
        node = branches[bisect_right(cuts, confidence)] if 0.0 <= confidence <= 1.0 else missing


def _follow_votes(branches: Linked, yes: int, asked: int) -> Linked | None:
    most, rows = branches
    yes, asked = nearest_tally(yes, asked, most)
    if asked <= most - len(rows):
        return None
    cuts, then = rows[asked - most - 1]
    return then[bisect_right(cuts, yes)]  # type: ignore[no-any-return]


def _lookup(given: Any, reading: str, first: bool) -> Any:
    """The reading in anything but a plain dict; a bare confidence is the tier's first reading."""
    if isinstance(given, Mapping):
        return given.get(reading, _UNREAD)
    return given if first else _UNREAD


def reading_in_hand(tier: Tier, name: str, given: Any) -> Any:
    """A reading in what a router gave of a tier, its score where it is fused; `Unread` where one must be read first.

    Raises:
        TypeError: a confidence that a score is made of is neither a number nor None.
    """
    value = _lookup(given, name, tier.readings[0].name == name)
    if value is not _UNREAD:
        return value
    parts = next((reading.parts for reading in tier.readings if reading.name == name), ())
    confidences = []
    for part in parts:
        value = _lookup(given, part.reading, tier.readings[0].name == part.reading)
        if value is _UNREAD:
            return Unread(part.reading)
        confidences.append(as_confidence(value, tier.name, part.reading))
    return fused_score(parts, confidences) if parts else Unread(name)


def as_confidence(given: Any, tier: str, reading: str) -> float:
    """A reading as a float; NaN where it is None.

    Raises:
        TypeError: it is neither a number nor None.
    """
    if given is None:
        return math.nan
    number = as_number(given)
    if number is None:
        raise TypeError(f"the reading {reading!r} of {tier!r} is {given!r}, not a number or None")
    return number


def as_number(given: Any) -> float | None:
    """What is a number as a float, infinite beyond all floats; None where it is none: text, True and False."""
    truth = isinstance(given, bool) or getattr(getattr(given, "dtype", None), "kind", "") == "b"  # numpy's True
    if truth or isinstance(given, str | bytes | bytearray) or not hasattr(given, "__float__"):
        return None
    try:
        return float(given)
    except OverflowError:
        return math.inf if given > 0 else -math.inf


def as_whole(given: Any) -> int | None:
    """What is a whole number, also 3.0, which other languages do not tell from 3, and True and False; else None."""
    if hasattr(given, "__index__"):
        return index(given)
    number = as_number(given)
    return int(number) if number is not None and number.is_integer() else None


def as_votes(given: Any, tier: str, reading: str) -> tuple[int, int] | None:
    """Votes as (yes, asked); None where they are None or NaN: missing.

    Raises:
        TypeError: they are no two whole numbers of which the first is at least 0 and at most the second.
    """
    if given is None or (isinstance(given, float) and math.isnan(given)):
        return None
    if isinstance(given, tuple | list) and len(given) == 2:
        yes, asked = map(as_whole, given)
        if yes is not None and asked is not None and 0 <= yes <= asked:
            return yes, asked
    raise TypeError(f"the votes {reading!r} of {tier!r} are {given!r}, not (yes, asked), such as (2, 3), or None")
