"""Pictures of a policy: a tree of text, and the same as a Mermaid flowchart."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from metaverify.policies.actions import Accept
from metaverify.policies.certificate import certificate_text
from metaverify.policies.explain import interval_text
from metaverify.policies.graph import Ask, Poll, Read, Stop, come_to
from metaverify.policies.names import TURNING
from metaverify.policies.policy import Belief, Policy, Vertex
from metaverify.policies.tiers import Tier

__all__ = ["draw_mermaid", "draw_text"]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """One graph in use: whose it is, who follows it, and where it begins."""

    policy: Policy
    vertex: Vertex
    share: float  # of requests
    contexts: str  # in words
    root: int

    @property
    def title(self) -> str:
        return ("every request" if self.share == 1.0 else f"{self.share:.1%} of requests") + self.contexts


@dataclass(frozen=True, slots=True)
class _Branch:
    """All outcomes of a reading that lead to one node."""

    label: str
    node: int
    share: float | None  # of the queries that come to the reading; None where the file holds no beliefs
    quality: tuple[float | None, ...]  # expected, a tier; empty where the file holds no beliefs


def draw_text(policy: Policy) -> str:
    """The graphs in use as indented trees, one for each context that is treated differently.

    In brackets stands the share of the tree's queries that come to a branch, and at its end the expected quality of
    the answer that is accepted there.
    """
    lines: list[str] = [_headline(policy)]
    for graph in _graphs(policy):
        lines += ["", _one_line(graph.title), *_tree(graph)]
    return "\n".join(lines) + "\n"


def draw_mermaid(policy: Policy) -> str:
    """The graph that most requests follow as a Mermaid flowchart, a tree for each context treated differently.

    Boxes are steps, rounded ends what is accepted, with its expected quality.  Branches that almost no query takes
    are left out (`draw_text` has them all).
    """
    graphs = list(_graphs(policy))
    largest = max(graph.share for graph in graphs)
    lines = ["flowchart LR"]
    for number, graph in enumerate(graph for graph in graphs if graph.share == largest):
        lines.append(f'  start{number}(["{_escape(graph.title)}"])')
        lines += _flow(graph, f"start{number}")
    for at in range(len(policy.tiers)):
        lines.append(f"  classDef tier{at} fill:{_FILLS[at % len(_FILLS)]},stroke:#555,color:#111")
    return "\n".join(lines) + "\n"


_FILLS = ("#dbeafe", "#dcfce7", "#fef9c3", "#ffe4e6", "#ede9fe", "#ffedd5")
_FAINT = 5e-4  # the share below which a branch is left out of a picture


def _headline(policy: Policy) -> str:
    tiers = ", ".join(f"{tier.name} ({tier.price:.4g})" for tier in policy.tiers if tier.answer)
    return "\n".join(
        [
            _one_line(f"tiers: {tiers}"),
            *(_one_line(f"signal: {_signal_text(tier)}") for tier in policy.tiers if not tier.answer),
            f"expected: quality {policy.expected_quality:.4f} at cost {policy.expected_cost:.4g} per query",
            certificate_text(policy.certificate),
        ]
    )


def _signal_text(signal: Tier) -> str:
    prices = ", ".join(f"{reading.name} {reading.price:.4g}" for reading in signal.readings)
    when = f"once {' and '.join(signal.needs)} answered" if signal.needs else "before any call"
    return f"{signal.name} ({prices}), {when}"


def _graphs(policy: Policy) -> Iterator[_Drawn]:
    """Each distinct graph in use, those that most requests follow first."""
    point = policy.point
    arms = (
        [(point.high, point.share), (point.low, 1.0 - point.share)] if point.low != point.high else [(point.low, 1.0)]
    )
    for at, share in sorted(arms, key=lambda arm: -arm[1]):
        if share >= _FAINT:
            vertex = policy.vertices[at]
            for contexts, root in _roots(vertex):
                yield _Drawn(policy, vertex, share, contexts, root)


def _roots(vertex: Vertex) -> list[tuple[str, int]]:
    """The contexts that share a root, in words; the pooled root stands for contexts never seen."""
    if not vertex.context_roots:
        return [("", vertex.root)]
    by_root: dict[int, list[str]] = {}
    for label, root in vertex.context_roots.items():
        by_root.setdefault(root, []).append(label)
    by_root.setdefault(vertex.root, []).append("any other")
    return [(f", context {', '.join(labels)}", root) for root, labels in by_root.items()]


def _branches(vertex: Vertex, at: int, node: Read | Poll) -> list[_Branch]:
    """The outcomes of a read node gathered by where they lead, in order of confidence."""
    beliefs = vertex.beliefs.get(at)
    gathered: dict[int, list[tuple[str, int]]] = {}
    for label, cell, child in _outcomes(node) if isinstance(node, Read) else _tallies(node):
        gathered.setdefault(child, []).append((label, cell))
    branches = []
    total = sum(beliefs[cell].share for cells in gathered.values() for _, cell in cells) if beliefs else 0.0
    for child, cells in gathered.items():
        here = [] if beliefs is None else [beliefs[cell] for _, cell in cells]
        share = sum(belief.share for belief in here) / total if total > 0 else None
        branches.append(_Branch(" or ".join(label for label, _ in cells), child, share, _mean_quality(here)))
    return branches


def _outcomes(node: Read) -> Iterator[tuple[str, int, int]]:
    """The outcomes of a reading in words, their beliefs' places, and where each leads."""
    bounds = [None, *node.cuts, None]
    for cell, child in enumerate([*node.then, node.missing]):
        missing = cell == len(node.then)
        yield "missing" if missing else interval_text(node.reading, bounds[cell], bounds[cell + 1]), cell, child


def _tallies(node: Poll) -> Iterator[tuple[str, int, int]]:
    """The tallies with which asking ends in words, their beliefs' places, and where each leads."""
    cell = 0
    for asked, (reached, tally) in enumerate(zip(come_to(node), node.tallies, strict=True), start=1):
        bounds = [0, *tally.cuts, asked + 1]
        for (low, high), child in zip(pairwise(bounds), tally.then, strict=True):
            ends = [yes for yes in range(low, high) if reached[yes]]
            if child is not None and ends:
                span = f"{ends[0]}" if len(ends) == 1 else f"{ends[0]}-{ends[-1]}"
                yield f"{span} of {asked} yes", cell, child
            cell += 1
    yield "missing", cell, node.missing


def _mean_quality(beliefs: list[Belief]) -> tuple[float | None, ...]:
    if not beliefs:
        return ()
    total = sum(belief.share for belief in beliefs)
    weights = [belief.share / total if total > 0 else 1 / len(beliefs) for belief in beliefs]

    def mean(values: tuple[float | None, ...]) -> float | None:
        known = [w * value for w, value in zip(weights, values, strict=True) if value is not None]
        return sum(known) if known else None  # a tier's are known in all of them, a signal's in none

    return tuple(mean(values) for values in zip(*(belief.quality for belief in beliefs), strict=True))


def _tree(graph: _Drawn) -> list[str]:
    """Lines of a tree; a subtree that stands above already is only named."""
    lines: list[str] = []
    numbered: dict[int, int] = {}
    policy, counts = graph.policy, _parents(graph)

    def grow(at: int, lead: str, below: str, branch: _Branch | None, share: float | None) -> None:
        steps = []
        while isinstance(node := policy.nodes[at], Ask):
            steps.append(f"call {node.tier}")
            at = node.then
        if isinstance(node, Stop):
            steps.append(_stop_text(policy, node, branch))
            lines.append(lead + ", ".join(steps))
            return
        steps.append(_look_text(node))
        if at in numbered:
            lines.append(f"{lead}{', '.join(steps)}: as at [{numbered[at]}]")
            return
        mark = ""
        if counts[at] > 1:
            numbered[at] = len(numbered) + 1
            mark = f"  [{numbered[at]}]"
        lines.append(lead + ", ".join(steps) + mark)
        branches = _branches(graph.vertex, at, node)
        for place, child in enumerate(branches):
            last = place == len(branches) - 1
            part = None if share is None or child.share is None else share * child.share
            told = "" if part is None else f" ({part:.1%})"
            head = f"{below}{'└─ ' if last else '├─ '}{child.label}{told}: "
            grow(child.node, head, below + ("   " if last else "│  "), child, part)

    grow(graph.root, "", "", None, 1.0)
    return [_one_line(line) for line in lines]


def _parents(graph: _Drawn) -> dict[int, int]:
    """How many branches lead to each read node below a root."""
    counts: dict[int, int] = {}
    policy = graph.policy
    stack = [_landing(policy, graph.root)]
    while stack:
        at = stack.pop()
        counts[at] = counts.get(at, 0) + 1
        node = policy.nodes[at]
        if isinstance(node, Read | Poll) and counts[at] == 1:
            stack += [_landing(policy, branch.node) for branch in _branches(graph.vertex, at, node)]
    return counts


def _landing(policy: Policy, at: int) -> int:
    """The first node from here that is no call."""
    while isinstance(node := policy.nodes[at], Ask):
        at = node.then
    return at


def _stop_text(policy: Policy, node: Stop, branch: _Branch | None) -> str:
    if not isinstance(node.action, Accept):
        return "hand over"
    tier = node.action.tier
    right = "" if branch is None or not branch.quality else f", quality {branch.quality[_place(policy, tier)]:.2f}"
    return f"accept {tier}{right}"


def _look_text(node: Read | Poll) -> str:
    if isinstance(node, Read):
        return f"read {node.reading} of {node.tier}"
    return f"poll {node.reading} of {node.tier} (up to {len(node.tallies)} votes)"


def _place(policy: Policy, name: str) -> int:
    return next(at for at, tier in enumerate(policy.tiers) if tier.name == name)


def _flow(graph: _Drawn, start: str) -> list[str]:
    """Mermaid's lines for the tree below a root; a subtree that stands in two places is drawn in both."""
    policy = graph.policy
    lines: list[str] = []
    count = 0
    stack: list[tuple[str, str, int, _Branch | None, float | None]] = [(start, "", graph.root, None, 1.0)]
    while stack:
        parent, label, at, branch, share = stack.pop()
        name = f"{start}_{(count := count + 1)}"
        steps = [f"call {tier}" for tier in _calls(policy, at)]
        node = policy.nodes[_landing(policy, at)]
        arrow = f'-->|"{_escape(label)}"|' if label else "-->"
        if isinstance(node, Stop):
            text = "<br/>".join(_escape(step) for step in [*steps, _stop_text(policy, node, branch)])
            style = f":::tier{_place(policy, node.action.tier)}" if isinstance(node.action, Accept) else ""
            lines.append(f'  {parent} {arrow} {name}(["{text}"]){style}')
        else:
            assert isinstance(node, Read | Poll), "calls are passed over"
            text = "<br/>".join(_escape(step) for step in [*steps, _look_text(node)])
            lines.append(f'  {parent} {arrow} {name}["{text}"]')
            for child in reversed(_branches(graph.vertex, _landing(policy, at), node)):
                part = None if share is None or child.share is None else share * child.share
                if part is None or part >= _FAINT:
                    told = child.label + ("" if part is None else f" ({part:.1%})")
                    stack.append((name, told, child.node, child, part))
    return lines


def _calls(policy: Policy, at: int) -> list[str]:
    calls = []
    while isinstance(node := policy.nodes[at], Ask):
        calls.append(node.tier)
        at = node.then
    return calls


def _one_line(text: str) -> str:
    """The text with a space for each line break, control character and what turns the writing around in a name."""
    hidden = ("Cc", "Zl", "Zp")
    return "".join(" " if letter in TURNING or unicodedata.category(letter) in hidden else letter for letter in text)


def _escape(text: str) -> str:
    """Text that cannot end or change a Mermaid label."""
    text = _one_line(text).replace("&", "&amp;").replace("#", "&num;")
    for letter, entity in (('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&vert;")):
        text = text.replace(letter, entity)
    return text
