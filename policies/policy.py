"""The policy: everything needed to decide, and the dial that sets what to spend."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from hashlib import blake2b
from operator import or_

from metaverify.policies.actions import Action
from metaverify.policies.context import context_label, context_word, interval_label
from metaverify.policies.graph import (
    Ask,
    Graph,
    GraphError,
    as_number,
    check_graph,
    compact,
    compile_graph,
    successors,
    walk,
)
from metaverify.policies.names import did_you_mean
from metaverify.policies.tiers import Tier

TYPE_CHECKING = False  # the module `typing` is dear to import
if TYPE_CHECKING:
    from typing import Any

    from metaverify.policies.certificate import Certificate

__all__ = ["Belief", "BudgetError", "OperatingPoint", "Outage", "Policy", "Vertex", "VertexEvidence"]


class BudgetError(ValueError):
    """A budget that no policy in the file can keep; the message gives the cheapest one that can be kept."""

    code = "E_BUDGET"

    def __str__(self) -> str:
        return f"{self.code}: {super().__str__()}"


@dataclass(frozen=True, slots=True)
class Belief:
    """What is known at one point of a walk: for each tier, in order, the expected quality of its answer, None for a
    signal, and what going on by its next rung is worth (quality net of price x cost), None where it has none left.

    ``share`` is the share of queries that come here.
    """

    share: float
    quality: tuple[float | None, ...]
    worth: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class VertexEvidence:
    """What policies like a vertex really did with queries that they had not seen.

    ``cost`` and ``quality`` are 90 % intervals (low, high) around the vertex's own; ``calls`` and ``accepts`` are the
    shares of queries that call and accept each tier, in order, None for a signal.  What a mixture of two vertices
    costs and earns lies in an interval that is at most as wide as theirs, mixed.  ``cost_sd`` is the standard deviation
    of what one query costs, None in files that do not say.
    """

    cost: tuple[float, float]
    quality: tuple[float, float]
    calls: tuple[float | None, ...]
    accepts: tuple[float | None, ...]
    cost_sd: float | None = None


@dataclass(frozen=True, slots=True)
class Outage:
    """Where the walks of a vertex begin while some tiers are down; no node from there on calls one of them."""

    without: tuple[str, ...]  # sorted
    root: int
    context_roots: Mapping[str, int] = field(default_factory=dict)

    @property
    def roots(self) -> tuple[int, ...]:
        """Where walks begin, without a context and of each."""
        return (self.root, *self.context_roots.values())

    def moved(self, place: Mapping[int, int]) -> Outage:
        """The outage on the same nodes at their new places."""
        roots = {label: place[root] for label, root in self.context_roots.items()}
        return replace(self, root=place[self.root], context_roots=roots)


@dataclass(frozen=True, slots=True)
class Vertex:
    """One deterministic policy on the frontier: the best at its price.

    ``price`` is in quality per unit cost; ``cost`` and ``quality`` are what a query is expected to cost and to earn.
    ``root`` is where walks begin, ``context_roots`` where they begin for a known context.  ``beliefs`` is what
    `explain` knows: at a read node, what is known after each of its outcomes, missing last; at a poll, for each
    interval of yes votes after 1, 2, .. votes, missing last.  ``evidence`` is None where nothing was cross-fitted.
    ``outages`` has what is best at the same price while some tiers are down; all vertices of a policy have the same.
    """

    price: float
    cost: float
    quality: float
    root: int
    context_roots: Mapping[str, int] = field(default_factory=dict)
    beliefs: Mapping[int, tuple[Belief, ...]] = field(default_factory=dict)
    evidence: VertexEvidence | None = None
    outages: tuple[Outage, ...] = ()

    @property
    def roots(self) -> tuple[int, ...]:
        """Everywhere that walks begin, in outages too."""
        outages = (root for outage in self.outages for root in outage.roots)
        return (self.root, *self.context_roots.values(), *outages)

    def moved(self, place: Mapping[int, int]) -> Vertex:
        """The vertex on the same nodes at their new places."""
        return replace(
            self,
            root=place[self.root],
            context_roots={label: place[root] for label, root in self.context_roots.items()},
            beliefs={place[node]: rows for node, rows in self.beliefs.items()},
            outages=tuple(outage.moved(place) for outage in self.outages),
        )


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Which vertices are in use: a share ``share`` of requests takes ``high``, the rest ``low``."""

    low: int
    high: int
    share: float
    budget: float | None = None  # the mean cost per query that was asked for, if one was
    price: float | None = None  # the quality per unit of cost that was asked for, if it was


@dataclass(frozen=True, slots=True)
class Policy:
    """A frontier of decision graphs over one node table, and the operating point in use.

    Args:
        tiers: the cascade, cheapest first, and the signals.
        nodes: the table that every vertex shares.
        vertices: the frontier, by cost.
        point: the operating point.
        salt: what keys the draw between two graphs.  It is the frontier's and not the operating point's, so that a
            request that took the dearer graph of a pair still takes it after its share is raised.
        context: the columns whose values name a context (see `context_label`).
        abstain: what handing a query over is worth, in quality; None where the policy never does.
        evidence: how good it is and how that was found.
        provenance: what it was made from.
        context_cuts: of each context column that is a number, where it is cut (see `interval_label`).
        serial: which edition of the file it is; later ones are higher, 0 where editions are not counted.
        expires: when it is not to be used any more, in seconds since 1970, as `time.time()`; None is never.
        certificate: what is promised of the operating point; None where nothing is.

    Raises:
        GraphError: the nodes are no decision graph.
        ValueError: an operating point that is not one of this frontier.
    """

    tiers: tuple[Tier, ...]
    nodes: Graph
    vertices: tuple[Vertex, ...]
    point: OperatingPoint
    salt: str = ""
    context: tuple[str, ...] = ()
    abstain: float | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    context_cuts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    serial: int = 0
    expires: float | None = None
    certificate: Certificate | None = None
    _linked: tuple[Any, ...] = field(init=False, repr=False, compare=False)
    _names: frozenset[str] = field(init=False, repr=False, compare=False)
    _arms: tuple[tuple[Any, ...], ...] = field(init=False, repr=False, compare=False)
    _salt: bytes = field(init=False, repr=False, compare=False)
    _cut: bytes = field(init=False, repr=False, compare=False)  # draws below it, as big-endian bytes, go high
    _mixed: bool = field(init=False, repr=False, compare=False)
    _in_outage: dict[frozenset[str], Policy] = field(init=False, repr=False, compare=False)  # as far as asked for

    def __post_init__(self) -> None:
        _check_point(self)
        roots = [root for vertex in self.vertices for root in vertex.roots]
        needs = {tier.name: tier.needs for tier in self.tiers if not tier.answer}
        votes = {(tier.name, r.name): r.votes for tier in self.tiers for r in tier.readings if r.votes}
        readings = {tier.name: [reading.name for reading in tier.readings] for tier in self.tiers}
        check_graph(self.nodes, roots, readings, needs, votes)
        _check_outages(self)
        put = object.__setattr__
        put(self, "_linked", compile_graph(self.nodes, self.tiers))
        put(self, "_names", frozenset(tier.name for tier in self.tiers))
        put(self, "_arms", tuple(_roots(self, at) for at in (self.point.low, self.point.high)))
        put(self, "_salt", self.salt.encode(errors="surrogatepass"))
        put(self, "_cut", math.ceil(self.point.share * 2.0**56).to_bytes(8)[1:])
        put(self, "_mixed", self.point.low != self.point.high and 0.0 < self.point.share < 1.0)
        put(self, "_in_outage", {})

    def decide(
        self,
        readings: Mapping[str, Any],
        *,
        context: str | Mapping[str, Any] | None = None,
        key: str | bytes | int | None = None,
    ) -> Action:
        """What to do next, given what has been read: a pure function of its arguments.

        Args:
            readings: tier -> confidence in [0, 1], or tier -> {reading: confidence}, signals likewise.  An empty
                mapping means that the tier has answered and nothing has been read yet; None, NaN or a number outside
                [0, 1] is a reading that is missing.  Votes are (yes, asked), and `Verify` asks for one more of them
                until they suffice.
            context: what is known of the query before any call: a label, or the values of the policy's context
                columns by name.  None or an unknown one takes the pooled graph.  Of a column that is a number, None,
                NaN, or what does not read as a number, is missing; of any other, None and NaN are.
            key: the request's id.  Where the operating point mixes two graphs, a hash of it picks one, the same one
                for every step and in every process.

        Raises:
            ValueError: a tier that the policy does not have, a context without one of its columns, or no key where
                one is needed.
            TypeError: a confidence that is neither a number nor None, votes that are neither (yes, asked) nor None, or
                a list among the values of a context.
        """
        for tier in readings:
            if tier not in self._names:
                raise ValueError(_unknown_tier(readings, self._names))
        roots = self._arms[self._draw(key)] if self._mixed else self._arms[self.point.share == 1.0]
        if context is None:
            return walk(roots[0], readings)
        label = context if type(context) is str else self.context_of(context)
        return walk(roots[1].get(label, roots[0]), readings)

    def context_of(self, context: str | Mapping[str, Any]) -> str:
        """The label of a context, given as itself or as the values of the policy's context columns by name.

        Raises:
            TypeError: one of the values is a list or the like.
            ValueError: one of the columns is not there.
        """
        if isinstance(context, str):
            return context
        missing = [name for name in self.context if name not in context] if isinstance(context, Mapping) else [""]
        if missing:
            wanted = ", ".join(self.context) or "no context"
            lacks = f": {missing[0]!r} is missing" if missing[0] else ""
            raise ValueError(f"context {context!r} is neither a label nor the values of {wanted} by name{lacks}")
        cuts = self.context_cuts
        return context_label(
            [
                interval_label(name, cuts[name], context[name]) if name in cuts else context_word(name, context[name])
                for name in self.context
            ]
        )

    def arm(self, key: str | bytes | int | None) -> int:
        """The vertex that a request follows."""
        high = self._draw(key) if self._mixed else self.point.share == 1.0
        return self.point.high if high else self.point.low

    def _draw(self, key: str | bytes | int | None) -> bool:
        if key is None:
            raise ValueError("this policy mixes two decision graphs to meet its budget: pass key=<the request's id>")
        raw = key.encode() if type(key) is str else key if type(key) is bytes else str(key).encode()
        return blake2b(raw, digest_size=7, key=self._salt).digest() < self._cut

    def at(self, *, budget: float | None = None, price: float | None = None) -> Policy:
        """The same frontier with the dial turned to a mean cost per query, or to a price in quality per unit cost.

        A budget above what the best policy costs buys the best policy.  A certificate goes along where it holds at the
        new point too: of costs at a cheaper one, of quality at a dearer one.

        Raises:
            BudgetError: the budget is below the cost of the cheapest policy.
            TypeError: neither or both are given, or what is no number.
        """
        if (budget is None) == (price is None):
            raise TypeError("give a budget or a price")
        point = point_at_price(self.vertices, price) if budget is None else point_at_budget(self.vertices, budget)  # type: ignore[arg-type]
        cost = _mix(point, [vertex.cost for vertex in self.vertices])
        holds = self.certificate is not None and self.certificate.covers(cost)
        return replace(self, point=point, certificate=self.certificate if holds else None)

    def without(self, *names: str) -> Policy:
        """The policy that decides while these tiers are down: each vertex by the graph that is best without them.

        That is the smallest of its `Outage` that has them all, the first one of equals.  Dial, salt and what vertices
        are said to cost and earn are as they were, when all tiers are up, so that a request keeps its arm; beliefs and
        evidence, which are of other graphs, are left out.  Of a request that is under way, tell it everything that is
        known: what is in hand is not bought again.  Nothing is promised of an outage: the certificate is left out.

        Raises:
            ValueError: a name that is no tier of the policy, or an outage that it was not solved for.
        """
        down = frozenset(names)
        if not down:
            return self
        if down not in self._in_outage:
            self._in_outage[down] = _in_outage(self, down)
        return self._in_outage[down]

    @property
    def expected_cost(self) -> float:
        """Mean cost per query at the operating point."""
        return _mix(self.point, [vertex.cost for vertex in self.vertices])

    @property
    def expected_quality(self) -> float:
        """Mean quality at the operating point."""
        return _mix(self.point, [vertex.quality for vertex in self.vertices])


def point_at_budget(vertices: Sequence[Vertex], budget: float) -> OperatingPoint:
    """The mixture of two adjacent vertices that costs ``budget``, or the last one where that costs no more.

    Raises:
        BudgetError: the budget is below the first vertex's cost.
    """
    costs = [vertex.cost for vertex in vertices]
    budget = _told("budget", budget)
    if not budget >= costs[0] * (1 - 1e-9):
        raise BudgetError(f"budget {budget:g} is below {costs[0]:.6g}, the cost of the cheapest policy")
    high = bisect_right(costs, budget)
    if high == 0 or high == len(costs):
        end = min(high, len(costs) - 1)
        return OperatingPoint(end, end, 0.0, budget if math.isfinite(budget) else None)
    low = high - 1
    return OperatingPoint(low, high, (budget - costs[low]) / (costs[high] - costs[low]), budget)


def point_at_price(vertices: Sequence[Vertex], price: float) -> OperatingPoint:
    """The vertex that is best when a unit of cost is worth ``price`` of quality; the cheaper one of equals."""
    price = _told("price", price)
    if not 0.0 <= price < math.inf:
        raise BudgetError(f"price {price:g} is not a finite number of at least 0")
    best = max(range(len(vertices)), key=lambda v: (vertices[v].quality - price * vertices[v].cost, -v))
    return OperatingPoint(best, best, 0.0, price=price)


def _told(name: str, given: Any) -> float:
    number = as_number(given)
    if number is None:
        raise TypeError(f"the {name} is {given!r}, not a number")
    return number


def _mix(point: OperatingPoint, values: Sequence[float]) -> float:
    return (1.0 - point.share) * values[point.low] + point.share * values[point.high]


def _check_point(policy: Policy) -> None:
    point, count = policy.point, len(policy.vertices)
    if not (0 <= point.low <= point.high < count and 0.0 <= point.share <= 1.0):
        raise ValueError(f"operating point {point} is not one of a frontier with {count} vertices")


def _check_outages(policy: Policy) -> None:
    """Make sure that no walk in an outage calls a tier that is down; what it reads and accepts it must call before."""
    if not any(vertex.outages for vertex in policy.vertices):
        return
    bit = {tier.name: 1 << at for at, tier in enumerate(policy.tiers)}
    called = [0] * len(policy.nodes)  # from each node on, a bit for each tier
    for at in range(len(policy.nodes) - 1, -1, -1):
        node = policy.nodes[at]
        called[at] = bit[node.tier] if isinstance(node, Ask) else 0
        for child in successors(node):
            called[at] |= called[child]
    for at, vertex in enumerate(policy.vertices):
        for number, outage in enumerate(vertex.outages):
            any_called = reduce(or_, (called[root] for root in outage.roots))
            for tier in outage.without:
                if bit.get(tier, 0) & any_called:
                    place = f"vertices[{at}].outages[{number}]"
                    raise GraphError(place, f"calls {tier!r}, without which it is to do")


def _in_outage(policy: Policy, down: frozenset[str]) -> Policy:
    answering = [tier.name for tier in policy.tiers if tier.answer]
    for name in sorted(down.difference(answering)):
        hint = did_you_mean(name, answering)
        raise ValueError(f"without {name!r}, which is not one of the tiers {', '.join(answering)}{hint}")
    kept = [tuple(outage for outage in vertex.outages if down.issubset(outage.without)) for vertex in policy.vertices]
    if not kept[0]:
        solved = ", ".join("+".join(outage.without) for outage in policy.vertices[0].outages) or "none"
        raise ValueError(
            f"without {'+'.join(sorted(down))}: the policy was not solved for that outage (it was for {solved}); "
            "`metaverify fit --outages` does it"
        )
    vertices = []
    for vertex, outages in zip(policy.vertices, kept, strict=True):
        taken = min(outages, key=lambda outage: len(outage.without))
        vertices.append(
            Vertex(vertex.price, vertex.cost, vertex.quality, taken.root, taken.context_roots, outages=outages)
        )
    nodes, place = compact(policy.nodes, [root for vertex in vertices for root in vertex.roots])
    moved = tuple(vertex.moved(place) for vertex in vertices)
    return replace(policy, nodes=nodes, vertices=moved, evidence={}, certificate=None)


def _roots(policy: Policy, at: int) -> tuple[Any, dict[str, Any]]:
    vertex = policy.vertices[at]
    return policy._linked[vertex.root], {c: policy._linked[root] for c, root in vertex.context_roots.items()}


def _unknown_tier(readings: Mapping[str, Any], names: frozenset[str]) -> str:
    unknown = sorted(str(name) for name in readings.keys() - names)[0]
    return f"readings of {unknown!r}, which is not one of the tiers {', '.join(sorted(names))}" + (
        did_you_mean(unknown, names)
    )
