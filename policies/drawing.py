"""Pictures of a policy: a tree of text, and the same as a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from metaverify.policies.actions import Accept
from metaverify.policies.explain import interval_text
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.policies.policy import Belief, Policy, Vertex

__all__ = ["draw_mermaid", "draw_text"]


@dataclass(frozen=True, slots=True)
class _Branch:
    """All outcomes of a reading that lead to one node."""

    label: str
    node: int
    share: float | None  # of the queries that come to the reading; None where the file holds no beliefs
    quality: tuple[float, ...]  # expected, a tier; empty where the file holds no beliefs


def draw_text(policy: Policy) -> str:
    """The graphs in use as indented trees, one for each context that is treated differently.

    In brackets stands the share of the tree's queries that come to a branch, and at its end the expected quality of
    the answer that is accepted there.
    """
    lines: list[str] = [_headline(policy)]
    for title, root in _graphs(policy):
        lines += ["", title]
        lines += _tree(policy, root)
    return "\n".join(lines) + "\n"


def draw_mermaid(policy: Policy) -> str:
    """The graphs in use as a Mermaid flowchart."""
    lines = ["flowchart TD"]
    drawn: set[int] = set()
    for number, (title, root) in enumerate(_graphs(policy)):
        called = _escape(f"call {', '.join(_calls(policy, root))}")
        lines.append(f'  start{number}(["{_escape(title)}"]) -->|"{called}"| n{_landing(policy, root)}')
        lines += _mermaid_nodes(policy, root, drawn)
    return "\n".join(lines) + "\n"


def _headline(policy: Policy) -> str:
    tiers = ", ".join(f"{tier.name} ({tier.price:.4g})" for tier in policy.tiers)
    return (
        f"tiers: {tiers}\nexpected: quality {policy.expected_quality:.4f} at cost {policy.expected_cost:.4g} per query"
    )


def _graphs(policy: Policy) -> Iterator[tuple[str, int]]:
    """A title and a root for each distinct graph in use."""
    point = policy.point
    arms = (
        [(point.high, point.share), (point.low, 1.0 - point.share)] if point.low != point.high else [(point.low, 1.0)]
    )
    for vertex, share in arms:
        if share > 0.0:
            part = "every request" if share == 1.0 else f"{share:.1%} of requests"
            for context, root in _roots(policy.vertices[vertex]):
                yield f"{part}{context}", root


def _roots(vertex: Vertex) -> list[tuple[str, int]]:
    """The contexts that share a root, in words; the pooled root stands for contexts never seen."""
    if not vertex.context_roots:
        return [("", vertex.root)]
    by_root: dict[int, list[str]] = {}
    for label, root in vertex.context_roots.items():
        by_root.setdefault(root, []).append(label)
    by_root.setdefault(vertex.root, []).append("any other")
    return [(f", context {', '.join(labels)}", root) for root, labels in by_root.items()]


def _branches(policy: Policy, at: int, node: Read) -> list[_Branch]:
    """The outcomes of a read node gathered by where they lead, in order of confidence."""
    bounds = [None, *node.cuts, None]
    beliefs = policy.beliefs.get(at)
    gathered: dict[int, list[int]] = {}
    for cell, child in enumerate([*node.then, node.missing]):
        gathered.setdefault(child, []).append(cell)
    branches = []
    total = sum(belief.share for belief in beliefs or ())
    for child, cells in gathered.items():
        labels = [
            "missing" if cell == len(node.then) else interval_text(node.reading, bounds[cell], bounds[cell + 1])
            for cell in cells
        ]
        here = [] if beliefs is None else [beliefs[cell] for cell in cells]
        share = sum(belief.share for belief in here) / total if total > 0 else None
        branches.append(_Branch(" or ".join(labels), child, share, _mean_quality(here)))
    return branches


def _mean_quality(beliefs: list[Belief]) -> tuple[float, ...]:
    if not beliefs:
        return ()
    total = sum(belief.share for belief in beliefs)
    weights = [belief.share / total if total > 0 else 1 / len(beliefs) for belief in beliefs]
    tiers = range(len(beliefs[0].quality))
    return tuple(sum(w * b.quality[t] for w, b in zip(weights, beliefs, strict=True)) for t in tiers)


def _tree(policy: Policy, root: int) -> list[str]:
    """Lines of a tree; a subtree that stands above already is only named."""
    lines: list[str] = []
    numbered: dict[int, int] = {}
    counts = _parents(policy, root)

    def grow(at: int, lead: str, below: str, branch: _Branch | None, share: float | None) -> None:
        steps = []
        while isinstance(node := policy.nodes[at], Ask):
            steps.append(f"call {node.tier}")
            at = node.then
        if isinstance(node, Stop):
            steps.append(_stop_text(policy, node, branch))
            lines.append(lead + ", ".join(steps))
            return
        steps.append(f"read {node.reading} of {node.tier}")
        if at in numbered:
            lines.append(f"{lead}{', '.join(steps)}: as at [{numbered[at]}]")
            return
        mark = ""
        if counts[at] > 1:
            numbered[at] = len(numbered) + 1
            mark = f"  [{numbered[at]}]"
        lines.append(lead + ", ".join(steps) + mark)
        branches = _branches(policy, at, node)
        for place, child in enumerate(branches):
            last = place == len(branches) - 1
            part = None if share is None or child.share is None else share * child.share
            told = "" if part is None else f" ({part:.1%})"
            head = f"{below}{'└─ ' if last else '├─ '}{child.label}{told}: "
            grow(child.node, head, below + ("   " if last else "│  "), child, part)

    grow(root, "", "", None, 1.0)
    return lines


def _parents(policy: Policy, root: int) -> dict[int, int]:
    """How many branches lead to each read node below a root."""
    counts: dict[int, int] = {}
    stack = [_landing(policy, root)]
    while stack:
        at = stack.pop()
        counts[at] = counts.get(at, 0) + 1
        node = policy.nodes[at]
        if isinstance(node, Read) and counts[at] == 1:
            stack += [_landing(policy, branch.node) for branch in _branches(policy, at, node)]
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
    place = [t.name for t in policy.tiers].index(tier)
    right = "" if branch is None or not branch.quality else f", quality {branch.quality[place]:.2f}"
    return f"accept {tier}{right}"


def _mermaid_nodes(policy: Policy, root: int, drawn: set[int]) -> list[str]:
    lines = []
    stack = [_landing(policy, root)]
    while stack:
        at = stack.pop(0)
        if at in drawn:
            continue
        drawn.add(at)
        node = policy.nodes[at]
        if isinstance(node, Stop):
            text = f"accept {node.action.tier}" if isinstance(node.action, Accept) else "hand over"
            lines.append(f'  n{at}(["{_escape(text)}"])')
        elif isinstance(node, Read):
            lines.append(f'  n{at}["{_escape(f"{node.reading} of {node.tier}?")}"]')
            for branch in _branches(policy, at, node):
                calls = _calls(policy, branch.node)
                text = branch.label + ("" if not calls else f"<br/>call {', '.join(calls)}")
                after = _landing(policy, branch.node)
                lines.append(f'  n{at} -->|"{_escape(text)}"| n{after}')
                stack.append(after)
    return lines


def _calls(policy: Policy, at: int) -> list[str]:
    calls = []
    while isinstance(node := policy.nodes[at], Ask):
        calls.append(node.tier)
        at = node.then
    return calls


def _escape(text: str) -> str:
    """Text that cannot end or change a Mermaid label."""
    plain = text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    return plain.replace("&lt;br/&gt;", "<br/>")
