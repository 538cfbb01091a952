"""Hypothesis strategies: cascades, graphs that keep every rule, what a caller may have read, whole policies."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from metaverify.policies.actions import Abstain, Accept
from metaverify.policies.certificate import LEVELS, METHODS, PROMISES, SOURCES, Certificate
from metaverify.policies.graph import Ask, Graph, Node, Poll, Read, Stop, Tally, renumbered, successors
from metaverify.policies.names import look_of, name_fault
from metaverify.policies.policy import Belief, OperatingPoint, Outage, Policy, Vertex, VertexEvidence
from metaverify.policies.tiers import Reading, Tier

ENOUGH = 40  # nodes, after which a graph grows no further than it must

words = st.text(min_size=1, max_size=4)
names = words.map(lambda text: unicodedata.normalize("NFC", text)).filter(lambda text: name_fault([text]) is None)
shares = st.floats(0.0, 1.0)
amounts = st.floats(0.0, 1e6)
cut_lists = st.lists(st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), shares), max_size=3, unique=True).map(sorted)
plain_json = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**15), 10**15),
        st.floats(allow_nan=False, allow_infinity=False),
        words,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)
nonsense = st.sampled_from(["", "0.5", "high", b"1", [0.5], {"a": 0.5}, object()])


def examples(count: int) -> settings:
    """This many examples, the same ones in every run; or a part of them (EXAMPLES=0.1), of which one that fails is not
    made smaller."""
    part = float(os.environ.get("EXAMPLES", "1"))
    phases = (Phase.explicit, Phase.generate) if part < 1.0 else tuple(Phase)
    most = max(1, round(count * part))
    return settings(max_examples=most, phases=phases, deadline=None, derandomize=True, database=None)


Bought = frozenset[tuple[str, str]]  # (tier, reading), the answer itself is the reading ""


class Grove:
    """Nodes under construction, children first; equal ones are one.

    ``signals`` has the sources without an answer, and what each one needs.
    """

    def __init__(self, signals: Mapping[str, Sequence[str]] | None = None) -> None:
        self.signals = signals or {}
        self.nodes: dict[Node, int] = {}
        self.needs: list[Bought] = []  # answers that must be in hand on the way to the node
        self.buys: list[Bought] = []  # what may be bought from it on

    def add(self, node: Node) -> int:
        if node in self.nodes:
            return self.nodes[node]
        children = successors(node)
        needs = frozenset[tuple[str, str]]().union(*(self.needs[child] for child in children))
        buys = frozenset[tuple[str, str]]().union(*(self.buys[child] for child in children))
        match node:
            case Stop(Accept(tier)):
                needs |= {(tier, "")}
            case Ask(tier, _):
                needs, buys = needs - {(tier, "")}, buys | {(tier, "")}
            case Read(tier, reading, _, _, _) | Poll(tier, reading, _, _):
                wanted = {(need, "") for need in self.signals.get(tier, (tier,))}
                needs, buys = needs | wanted, buys | {(tier, reading)}
        self.needs.append(needs)
        self.buys.append(buys)
        self.nodes[node] = len(self.nodes)
        return self.nodes[node]

    def legal(self, have: Bought) -> list[int]:
        """The nodes that a walk which has bought ``have`` may go on to."""
        return [at for at in range(len(self.nodes)) if self.needs[at] <= have and not self.buys[at] & have]

    def table(self, roots: Sequence[int]) -> tuple[Graph, list[int]]:
        """The nodes with successors further down, and where the roots went."""
        place = {at: len(self.nodes) - 1 - at for at in self.nodes.values()}
        nodes = [renumbered(node, place) for node in self.nodes]
        return tuple(reversed(nodes)), [place[root] for root in roots]


def grow(
    draw: st.DrawFn, grove: Grove, tiers: Sequence[Tier], have: Bought, abstain: bool, down: Sequence[str] = ()
) -> int:
    """The root of a graph that is legal after ``have`` was bought, and calls nothing that is down."""
    stops = [Stop(Accept(tier.name)) for tier in tiers if (tier.name, "") in have] + [Stop(Abstain())] * abstain
    can = [tier for tier in tiers if tier.answer and tier.name not in down]
    calls = [("call", tier.name, "") for tier in can if (tier.name, "") not in have]
    reads = [
        ("read", tier.name, reading.name)
        for tier in tiers
        for reading in tier.readings
        if all((need, "") in have for need in needed(tier)) and (tier.name, reading.name) not in have
    ]
    shared = [at for at in grove.legal(have) if not grove.buys[at] & {(name, "") for name in down}]
    small = len(grove.nodes) < ENOUGH
    choices = (["shared"] if shared else []) + (["stop"] if stops else [])
    choices += ["go on", "go on"] if (calls or reads) and (small or not choices) else []
    match draw(st.sampled_from(choices)):
        case "shared":
            return draw(st.sampled_from(shared))
        case "stop":
            return grove.add(draw(st.sampled_from(stops)))
    kind, tier, reading = draw(st.sampled_from(calls + reads))
    bought = have | {(tier, reading)}
    if kind == "call":
        return grove.add(Ask(tier, grow(draw, grove, tiers, bought, abstain, down)))
    votes = next(r.votes for t in tiers if t.name == tier for r in t.readings if r.name == reading)
    if votes and draw(st.booleans()):
        most = draw(st.integers(1, votes))
        tallies = tuple(
            _tally(draw, asked, most, lambda: grow(draw, grove, tiers, bought, abstain, down))
            for asked in range(1, most + 1)
        )
        return grove.add(Poll(tier, reading, tallies, grow(draw, grove, tiers, bought, abstain, down)))
    cuts = tuple(draw(cut_lists))
    then = tuple(grow(draw, grove, tiers, bought, abstain, down) for _ in range(len(cuts) + 1))
    return grove.add(Read(tier, reading, cuts, then, grow(draw, grove, tiers, bought, abstain, down)))


def _tally(draw: st.DrawFn, asked: int, most: int, grown: Callable[[], int]) -> Tally:
    """What follows so many votes; after the last ones nobody is asked for more."""
    cuts = tuple(sorted(draw(st.sets(st.integers(1, asked), max_size=2))))
    on = [asked < most and draw(st.booleans()) for _ in range(len(cuts) + 1)]
    return Tally(cuts, tuple(None if more else grown() for more in on))


def needed(tier: Tier) -> tuple[str, ...]:
    """The tiers whose answers must be in hand before this one is read."""
    return (tier.name,) if tier.answer else tier.needs


@st.composite
def cascades(draw: st.DrawFn, *, votes: bool = False, least: int = 1) -> tuple[Tier, ...]:
    """1 to 4 tiers with 0 to 2 readings each, some of them votes, and perhaps a signal that needs some of them."""

    def reading(name: str) -> Reading:
        cuts = tuple(draw(cut_lists))
        counts = draw(st.lists(st.integers(0, 10**6), min_size=len(cuts) + 2, max_size=len(cuts) + 2))
        return Reading(name, draw(amounts), cuts, tuple(counts), votes=draw(st.sampled_from([0, 1, 3])) if votes else 0)

    tier_names = draw(st.lists(names, min_size=least, max_size=4, unique_by=look_of))
    tiers = [
        Tier(name, draw(amounts), tuple(map(reading, draw(st.lists(names, max_size=2, unique_by=look_of)))))
        for name in tier_names
    ]
    if draw(st.booleans()):
        name = draw(names.filter(lambda name: look_of(name) not in map(look_of, tier_names)))
        needs = draw(st.lists(st.sampled_from(tier_names), max_size=2, unique=True))
        tiers.append(Tier(name, 0.0, (reading(draw(names)),), answer=False, needs=tuple(needs)))
    return tuple(tiers)


@st.composite
def policies(
    draw: st.DrawFn,
    over: st.SearchStrategy[tuple[Tier, ...]] | None = None,
    *,
    votes: bool = False,
    outages: bool = False,
) -> Policy:
    """Policies with any number of contexts, vertices and beliefs, with or without abstention; perhaps with votes, or
    solved for outages."""
    tiers = draw(cascades(votes=votes) if over is None else over)
    abstain = draw(st.none() | shares)
    most = 1 if outages else 2  # outages multiply the graphs
    contexts = draw(st.lists(words, max_size=most, unique=True))
    dearest = sum(tier.price + sum(reading.price for reading in tier.readings) for tier in tiers)
    costs = sorted({dearest + more for more in draw(st.lists(amounts, min_size=1, max_size=most + 1))})
    grove = Grove({tier.name: tier.needs for tier in tiers if not tier.answer})
    answering = [tier.name for tier in tiers if tier.answer]
    some = (
        st.sets(st.sampled_from(answering), min_size=1, max_size=len(answering) - 1) if answering[1:] else st.nothing()
    )
    without = draw(st.lists(some.map(sorted).map(tuple), max_size=2, unique=True)) if outages and answering[1:] else []
    roots = [
        grow(draw, grove, tiers, frozenset(), abstain is not None, down)
        for _ in costs
        for down in ((), *without)
        for _ in (None, *contexts)
    ]
    nodes, placed = grove.table(roots)
    starts = [placed[at : at + len(contexts) + 1] for at in range(0, len(placed), len(contexts) + 1)]
    by_label = [(start[0], dict(zip(contexts, start[1:], strict=True))) for start in starts]
    of_vertex = [by_label[at : at + len(without) + 1] for at in range(0, len(by_label), len(without) + 1)]
    vertices = tuple(
        Vertex(
            draw(amounts),
            cost,
            draw(shares),
            *start,
            draw(_beliefs_at(nodes, tiers)),
            draw(st.none() | _vertex_evidence(tiers)),
            tuple(Outage(down, *own) for down, own in zip(without, in_outage, strict=True)),
        )
        for cost, (start, *in_outage) in zip(costs, of_vertex, strict=True)
    )
    low = draw(st.integers(0, len(costs) - 1))
    high, share = draw(st.integers(low, min(low + 1, len(costs) - 1))), draw(shares)
    return Policy(
        tiers,
        nodes,
        vertices,
        OperatingPoint(low, high, share, draw(st.none() | amounts), draw(st.none() | amounts)),
        salt=draw(st.text(max_size=8)),
        context=tuple(draw(st.lists(names, max_size=2, unique_by=look_of))),
        abstain=abstain,
        evidence=draw(st.dictionaries(words, plain_json, max_size=3)),
        provenance=draw(st.dictionaries(words, plain_json, max_size=3)),
        serial=draw(st.sampled_from([0, 0, 1, 2**63 - 1])),
        expires=draw(st.none() | amounts),
        certificate=draw(st.none() | certificates((1 - share) * costs[low] + share * costs[high])),
    )


@st.composite
def certificates(draw: st.DrawFn, cost: float) -> Certificate:
    """What can be promised of an operating point of this expected cost."""
    promise, dearest = draw(st.sampled_from(PROMISES)), draw(st.none() | amounts)
    first, second = sorted(draw(st.tuples(*[shares if promise == "expected quality" else amounts] * 2)))
    limit, bound = (first, second) if promise == "expected quality" else (max(second, cost), first)
    groups = draw(st.integers(1, 2**40))
    return Certificate(
        promise,
        limit,
        draw(st.floats(0.0, 0.5, exclude_min=True)),
        draw(st.sampled_from(LEVELS)),
        draw(st.sampled_from(METHODS)),
        bound,
        cost,
        draw(st.integers(groups, 2**41)),
        groups,
        draw(amounts),
        dearest,
        "" if dearest is None else draw(st.sampled_from(SOURCES)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 10**6)) if promise == "realised cost" else 0,
    )


@st.composite
def _beliefs_at(draw: st.DrawFn, nodes: Sequence[Node], tiers: Sequence[Tier]) -> dict[int, tuple[Belief, ...]]:
    reads = [(at, node) for at, node in enumerate(nodes) if isinstance(node, Read | Poll) and draw(st.booleans())]
    return {at: tuple(draw(_beliefs(tiers, outcomes(node))) for _ in range(outcomes(node))) for at, node in reads}


def _vertex_evidence(tiers: Sequence[Tier]) -> st.SearchStrategy[VertexEvidence]:
    interval = st.tuples(*[st.floats(-1e6, 1e6)] * 2).map(lambda ends: (min(ends), max(ends)))
    calls = st.tuples(*(shares if tier.answer else st.none() for tier in tiers))

    def accepted(called: tuple[float | None, ...]) -> tuple[float | None, ...]:
        return tuple(None if share is None else share / len(tiers) for share in called)

    spread = st.none() | st.floats(0.0, 1e6)
    return calls.flatmap(
        lambda called: st.builds(VertexEvidence, interval, interval, st.just(called), st.just(accepted(called)), spread)
    )


def outcomes(node: Read | Poll) -> int:
    """How many beliefs a node has: one for each branch, missing last, also of those that ask for more."""
    return 1 + (len(node.then) if isinstance(node, Read) else sum(len(tally.then) for tally in node.tallies))


def _beliefs(tiers: Sequence[Tier], outcomes: int) -> st.SearchStrategy[Belief]:
    """One of so many outcomes, whose shares add up to at most 1."""
    quality = st.tuples(*(shares if tier.answer else st.none() for tier in tiers))
    worth = st.none() | st.floats(-1e6, 1e6)
    return st.builds(Belief, shares.map(lambda share: share / outcomes), quality, st.tuples(*[worth] * len(tiers)))


def confidences(nodes: Sequence[Node]) -> st.SearchStrategy[Any]:
    """Every cut of the graph, its neighbours in both directions, and everything that is missing."""
    cuts = [cut for node in nodes if isinstance(node, Read) for cut in node.cuts]
    edges = [near for cut in cuts for near in (cut, math.nextafter(cut, -1.0), math.nextafter(cut, 2.0))]
    missing = [None, math.nan, math.inf, -math.inf, -1, 2, -5e-324, math.nextafter(1.0, 2.0), np.float64("nan")]
    usable = [0, 1, -0.0, 0.5, np.float64(0.5), np.int64(1), np.float32(0.25)]
    return st.sampled_from(edges + [np.float64(edge) for edge in edges] + missing + usable) | st.floats(0.0, 1.0)


tallies = st.integers(0, 5).flatmap(lambda asked: st.tuples(st.integers(0, asked), st.just(asked))) | st.sampled_from(
    [None, math.nan, [1, 2], (np.int64(1), 1), (True, 1)]
)


@st.composite
def told(
    draw: st.DrawFn, tiers: Sequence[Tier], values: st.SearchStrategy[Any], votes: st.SearchStrategy[Any] = tallies
) -> dict[str, Any]:
    """Readings in any state of a request: tiers absent, only answered, given as a bare confidence, or by name."""
    readings: dict[str, Any] = {}
    for tier in tiers:
        kinds = {reading.name: votes if reading.votes else values for reading in tier.readings}
        by_name = st.fixed_dictionaries({}, optional=kinds)
        bare = next(iter(kinds.values()), values)
        given = draw(st.just("absent") | st.just({}) | by_name | by_name | bare)  # {} of a signal: nothing is read
        if given != "absent":
            readings[tier.name] = given
    return readings
