"""Write the golden policies and their decisions anew: ``python tests/golden/make.py``.

``policy.json`` is a policy small enough to follow by hand; ``decisions.jsonl`` holds one case a line: what has been
read, the context, the request's key, and the action that `decide` gives, as ``metaverify decide --json`` prints it.
``signals.json`` has sources without an answer, with its cases in ``signals.jsonl``; in ``votes.json`` votes are asked
for one by one, ``numbers.json`` has a context that is a number, ``scores.json`` a fused score, a sample, an edition
and an end, and ``outages.json`` what is best while some tiers are down; its cases say in ``without`` which.
``spread.json`` says how far costs of single queries lie apart.
Run this where the file format or the draw between two graphs was changed on purpose, and read the difference before
committing it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metaverify.policies.actions import Abstain, Accept, Action
from metaverify.policies.explain import action_json
from metaverify.policies.file import dump_policy
from metaverify.policies.graph import Ask, Poll, Read, Stop, Tally
from metaverify.policies.policy import Belief, OperatingPoint, Outage, Policy, Vertex, VertexEvidence
from metaverify.policies.tiers import Points, Reading, Tier

HERE = Path(__file__).resolve().parent


def golden_policy() -> Policy:
    """Three tiers, a free and a paid reading of the small one, two contexts, and a mixture of two graphs.

    The cheaper graph (node 0) accepts `small` from 0.5 on, else asks `medium` and accepts it from 0.4 on, else `large`.
    The dearer one (node 1) accepts `small` from 0.8 on, asks `large` below 0.25, and in between, or where the reading
    is missing, buys the judge's and accepts `small` from 0.6 on.  Code goes straight to `large` (node 12) in the dearer
    graph.  For a "résumé" both are node 2: the cheaper graph, but what cannot be read is handed over.
    """
    tiers = (
        Tier(
            "small",
            1.0,
            (
                Reading("self_verify", 0.0, (0.25, 0.5, 0.8), (20, 30, 25, 20, 5)),
                Reading("judge", 0.5, (0.6,), (50, 45, 5)),
            ),
        ),
        Tier("medium", 4.0, (Reading("self_verify", 0.0, (0.4,), (40, 55, 5)),)),
        Tier("large", 20.0),
    )
    nodes = (
        Ask("small", 3),
        Ask("small", 4),
        Ask("small", 5),
        Read("small", "self_verify", (0.5,), (7, 8), 7),
        Read("small", "self_verify", (0.25, 0.8), (12, 6, 8), 6),
        Read("small", "self_verify", (0.5,), (7, 8), 9),
        Read("small", "judge", (0.6,), (12, 8), 12),
        Ask("medium", 10),
        Stop(Accept("small")),
        Stop(Abstain()),
        Read("medium", "self_verify", (0.4,), (12, 11), 12),
        Stop(Accept("medium")),
        Ask("large", 13),
        Stop(Accept("large")),
    )
    worth = (None, 0.625, 0.5)
    beliefs = {
        3: (
            Belief(0.5, (0.25, 0.5, 0.75), worth),
            Belief(0.45, (0.875, 0.9, 0.95), worth),
            Belief(0.05, (0.5, 0.625, 0.875), worth),
        )
    }
    vertices = (
        Vertex(0.5, 3.0, 0.75, 0, {"code": 0, "résumé": 2}, beliefs),
        Vertex(0.0125, 11.0, 0.875, 1, {"code": 12, "résumé": 2}),
    )
    return Policy(
        tiers,
        nodes,
        vertices,
        OperatingPoint(0, 1, 0.25, 5.0),
        salt="golden",
        context=("task",),
        abstain=0.25,
        evidence={"rows": 100, "groups": 100, "certificate": "none"},
        provenance={"log": "written by hand", "parent": None},
    )


def cases(policy: Policy) -> Iterator[dict[str, Any]]:
    """Every state that matters, in every context, for a request of either graph."""
    small: list[Any] = [
        {},
        *(0.0, 0.2499999, 0.25, 0.4999999, 0.5, 0.7999999, 0.8, 1, None, -0.001, 1.5),
        *({"self_verify": 0.3, "judge": judge} for judge in (0.5999999, 0.6, None, 2.0)),
        {"judge": 0.9},
    ]
    states: list[dict[str, Any]] = [{}, {"large": {}}, *({"small": given} for given in small)]
    states += [{"small": 0.1, "medium": given} for given in ({}, 0.3999999, 0.4, {"self_verify": None}, 7.0)]
    states += [{"small": 0.1, "large": {}}, {"large": {}, "medium": 0.1, "small": {"self_verify": 0.1}}]
    contexts = (None, "code", "résumé", "never seen")
    for number, (context, readings) in enumerate(itertools.product(contexts, states)):
        keys = (
            [f"request-{number}-{at}" for at in range(100)] if number % 2 else range(1000 * number, 1000 * number + 100)
        )
        for arm in (0, 1):
            key = next(key for key in keys if policy.arm(key) == arm)
            yield {"readings": readings, "context": context, "key": key}


def signals_policy() -> Policy:
    """Two tiers and three signals: one that is read before any call, a judge of `small`, and whether both agree.

    A long request, from 0.8 on, goes to `large` at once.  Otherwise `small` answers and its judge is asked: from 0.75
    on `small` is accepted, below 0.5 `large` is called and accepted.  In between, or where the judge fails, `large` is
    called, and `small` is accepted where they agree to at least 0.5 and `large` where they do not.
    """
    tiers = (
        Tier("small", 1.0),
        Tier("large", 10.0),
        Tier("length", 0.0, (Reading("conf", 0.0, (0.8,), (80, 20, 0)),), answer=False),
        Tier("judge", 0.0, (Reading("conf", 0.5, (0.5, 0.75), (30, 30, 35, 5)),), answer=False, needs=("small",)),
        Tier(
            "agree_small_large",
            0.0,
            (Reading("agree", 0.0, (0.5,), (40, 60, 0)),),
            answer=False,
            needs=("small", "large"),
        ),
    )
    nodes = (
        Read("length", "conf", (0.8,), (1, 6), 1),
        Ask("small", 2),
        Read("judge", "conf", (0.5, 0.75), (6, 3, 5), 3),
        Ask("large", 4),
        Read("agree_small_large", "agree", (0.5,), (7, 5), 7),
        Stop(Accept("small")),
        Ask("large", 7),
        Stop(Accept("large")),
    )
    beliefs = {
        2: (
            Belief(0.25, (0.25, 0.75, None, None, None), (None, 0.5, None, None, None)),
            Belief(0.25, (0.5, 0.75, None, None, None), (None, 0.625, None, None, None)),
            Belief(0.45, (0.875, 0.9, None, None, None), (None, 0.75, None, None, None)),
            Belief(0.05, (0.5, 0.75, None, None, None), (None, 0.625, None, None, None)),
        )
    }
    vertices = (Vertex(0.0125, 6.0, 0.8125, 0, {}, beliefs),)
    return Policy(tiers, nodes, vertices, OperatingPoint(0, 0, 0.0, 6.0), salt="golden")


def signals_cases(policy: Policy) -> Iterator[dict[str, Any]]:
    """Every state that matters."""
    del policy  # one graph for all
    lengths: list[Any] = [{}, 0.0, 0.7999999, 0.8, None, {"conf": 1.5}]
    states: list[dict[str, Any]] = [{}, *({"length": length} for length in lengths)]
    states += [{"length": 0.9, "large": {}}, {"small": {}}, {"judge": 0.9}]
    verdicts: list[Any] = [{}, 0.4999999, 0.5, {"conf": 0.7499999}, 0.75, None]
    for length, verdict in itertools.product((0.1, {"conf": None}), verdicts):
        known = {"length": length, "small": {}, "judge": verdict}
        agreements: list[Any] = [{}, 0.0, 0.4999999, {"agree": 0.5}, 1, None]
        states += [known, {**known, "large": {}}]
        states += [{**known, "large": {}, "agree_small_large": agreement} for agreement in agreements]
    for readings in states:
        yield {"readings": readings, "context": None, "key": None}


def votes_policy() -> Policy:
    """Two tiers; `small` verifies itself by up to five votes of a price of 0.25 each.

    Asking stops at 3 of 3 yes, and at 2 of 2 no; after five votes the majority decides.  With a majority of yes
    `small` is accepted, else, or where the first vote fails, `large`.
    """
    shares = (0.1, 0.3, 0.5, 0.7, 0.9)
    small = Tier("small", 1.0, (Reading("self_verify", 1.25, shares, (10, 10, 15, 20, 20, 20, 5), votes=5),))
    tallies = (
        Tally((), (None,)),
        Tally((1,), (2, None)),
        Tally((3,), (None, 4)),
        Tally((3,), (None, 4)),
        Tally((3,), (2, 4)),
    )
    nodes = (
        Ask("small", 1),
        Poll("small", "self_verify", tallies, 2),
        Ask("large", 3),
        Stop(Accept("large")),
        Stop(Accept("small")),
    )
    known = ((0.95, 0.5, 0.75), (0.15, 0.25, None), (0.8, 0.625, 0.75), (0.4, 0.5, 0.625), (0.4, 0.875, None))
    later = ((0.25, 0.5, 0.625), (0.15, 0.75, None), (0.125, 0.25, None), (0.125, 0.625, None))
    rows = (Belief(share, (quality, 0.875), (worth, 0.5)) for share, quality, worth in (*known, *later))
    beliefs = {1: (*rows, Belief(0.05, (0.5, 0.875), (None, 0.5)))}
    return Policy((small, Tier("large", 10.0)), nodes, (Vertex(0.03125, 5.0, 0.8125, 0, {}, beliefs),), FIXED)


FIXED = OperatingPoint(0, 0, 0.0, 5.0)


def votes_cases(policy: Policy) -> Iterator[dict[str, Any]]:
    """Every tally, also those that asking never comes to, and more votes than there are."""
    del policy  # one graph for all
    tallies = [[yes, asked] for asked in range(8) for yes in range(asked + 1)]
    states: list[dict[str, Any]] = [{}, {"small": {}}, {"small": None}, {"small": {"self_verify": None}, "large": {}}]
    states += [{"small": tally} for tally in tallies]
    states += [{"small": {"self_verify": tally}, "large": {}} for tally in tallies]
    for readings in states:
        yield {"readings": readings, "context": None, "key": None}


def numbers_policy() -> Policy:
    """Two tiers; a request's context is its task and its number of tokens, cut at 120 and 480.5.

    Where the task or the length is not known `small` answers and is accepted from 0.5 on, else `large` is called.
    Short questions ("qa") keep the answer of `small` unread, long ones, from 480.5 tokens on, go to `large` at once.
    """
    tiers = (Tier("small", 1.0, (Reading("conf", 0.0, (0.5,), (40, 55, 5)),)), Tier("large", 10.0))
    nodes = (
        Ask("small", 2),
        Ask("small", 4),
        Read("small", "conf", (0.5,), (3, 4), 3),
        Ask("large", 5),
        Stop(Accept("small")),
        Stop(Accept("large")),
    )
    roots = {"qa/tokens<120": 1, "qa/120<=tokens<480.5": 0, "qa/tokens>=480.5": 3, "qa/tokens missing": 0}
    vertices = (Vertex(0.0125, 4.0, 0.75, 0, roots),)
    return Policy(tiers, nodes, vertices, FIXED, context=("task", "tokens"), context_cuts={"tokens": (120.0, 480.5)})


def numbers_cases(policy: Policy) -> Iterator[dict[str, Any]]:
    """Every interval, its ends, and what is no number, also as labels."""
    labels = [None, "never seen", *policy.vertices[0].context_roots]
    told: list[Any] = [-1e300, 0, 119, 119.99999999, 120, 431, 480.4999999, 480.5, 10**400, None, "431", "", []]
    contexts: list[Any] = [{"task": task, "tokens": tokens} for task in ("qa", "code") for tokens in told]
    for context in [*labels, *contexts]:
        for readings in ({}, {"small": 0.4999999}, {"small": 0.5}, {"small": None}, {"small": {}, "large": {}}):
            yield {"readings": readings, "context": context, "key": None}


def scores_policy() -> Policy:
    """Two tiers; `small` has two free readings fused into one score, and a second draw that may change its answer.

    From a score of 0.75 on `small` is accepted, below 0.25 `large` is called.  In between, or where nothing can be
    read, the second draw is bought, and its answer accepted from 0.5 on.  The file is its 7th edition and expires.
    """
    parts = (
        Points("conf", (0.25, 0.75), (0.0, 0.25, 0.5), 0.125),
        Points("entropy", (0.5,), (0.5, 0.125), 0.25),
    )
    readings = (
        Reading("conf", 0.0, (0.25, 0.75), (20, 40, 35, 5)),
        Reading("entropy", 0.0, (0.5,), (60, 35, 5)),
        Reading("fused", 0.0, (0.25, 0.75), (25, 35, 40, 0), parts),
        Reading("draw", 1.0, (0.5,), (45, 50, 5), sample=True),
    )
    nodes = (
        Ask("small", 1),
        Read("small", "fused", (0.25, 0.75), (3, 2, 5), 2),
        Read("small", "draw", (0.5,), (3, 5), 3),
        Ask("large", 4),
        Stop(Accept("large")),
        Stop(Accept("small")),
    )
    found = VertexEvidence((3.5, 4.5), (0.75, 0.8125), (1.0, 0.25), (0.75, 0.25))
    vertices = (Vertex(0.0125, 4.0, 0.78125, 0, evidence=found),)
    tiers = (Tier("small", 1.0, readings), Tier("large", 10.0))
    return Policy(tiers, nodes, vertices, FIXED, salt="golden", serial=7, expires=4e9)


def scores_cases(policy: Policy) -> Iterator[dict[str, Any]]:
    """Every bin of both parts and their edges, one part told, and every bin of the second draw."""
    del policy  # one graph for all
    values: list[Any] = [0.0, 0.2499999, 0.25, 0.4999999, 0.5, 0.75, 1, None, 1.5]
    states: list[dict[str, Any]] = [{}, {"small": {}}, {"small": 0.9}, {"small": {"entropy": 0.1}}]
    for conf, entropy in itertools.product(values, values):
        states.append({"small": {"conf": conf, "entropy": entropy}})
    for draw in (0.4999999, 0.5, None):
        middle = {"conf": 0.5, "entropy": 0.75, "draw": draw}
        states += [{"small": middle}, {"small": middle, "large": {}}, {"small": {"fused": 0.5, "draw": draw}}]
    for readings in states:
        yield {"readings": readings, "context": None, "key": None}


def outages_policy() -> Policy:
    """Three tiers, two contexts, a mixture of two graphs, and what each does in three outages.

    The cheaper graph (node 5) accepts `small` from 0.5 on and else calls `large`; the dearer one (node 4) cuts at 0.75.
    Code goes to `large` (node 9) at once.  Without `large` the place of `large` is taken by `medium` (nodes 0 to 3),
    in the dearer graph from 0.75 on of `small` too; without `medium` nothing changes; without `large` and `small`
    everything goes to `medium` (node 8).
    """
    tiers = (
        Tier("small", 1.0, (Reading("conf", 0.0, (0.5, 0.75), (30, 30, 35, 5)),)),
        Tier("medium", 4.0),
        Tier("large", 20.0),
    )
    nodes = (
        Ask("small", 2),
        Ask("small", 3),
        Read("small", "conf", (0.75,), (8, 10), 8),
        Read("small", "conf", (0.5,), (8, 10), 8),
        Ask("small", 6),
        Ask("small", 7),
        Read("small", "conf", (0.75,), (9, 10), 9),
        Read("small", "conf", (0.5,), (9, 10), 9),
        Ask("medium", 11),
        Ask("large", 12),
        Stop(Accept("small")),
        Stop(Accept("medium")),
        Stop(Accept("large")),
    )

    def vertex(price: float, cost: float, quality: float, root: int, down: int) -> Vertex:
        outages = (
            Outage(("large",), down, {"code": 8}),
            Outage(("large", "small"), 8, {"code": 8}),
            Outage(("medium",), root, {"code": 9}),
        )
        return Vertex(price, cost, quality, root, {"code": 9}, outages=outages)

    vertices = (vertex(0.03125, 9.0, 0.75, 5, 1), vertex(0.0125, 14.0, 0.875, 4, 0))
    return Policy(tiers, nodes, vertices, OperatingPoint(0, 1, 0.5, 11.5), salt="golden", context=("task",))


def outages_cases(policy: Policy) -> Iterator[dict[str, Any]]:
    """Every state that matters, in every context, outage and arm; two of the outages are covered by a larger one."""
    small: list[Any] = [{}, 0.0, 0.4999999, 0.5, 0.7499999, 0.75, None]
    states: list[dict[str, Any]] = [{}, *({"small": told} for told in small), {"medium": {}}, {"large": {}}]
    states += [{"small": told, other: {}} for told in small for other in ("medium", "large")]
    downs: list[list[str]] = [[], ["large"], ["medium"], ["small"], ["large", "small"]]
    for number, (down, context, readings) in enumerate(itertools.product(downs, (None, "code", "?"), states)):
        for arm in (0, 1):
            key = next(key for key in range(100 * number, 100 * number + 100) if policy.arm(key) == arm)
            yield {"readings": readings, "context": context, "key": key, "without": down}


def spread_policy() -> Policy:
    """Two tiers and a mixture of two graphs, of which the file says how much queries differ in what they cost.

    The cheaper graph (node 0) accepts `small` unread; the dearer one (node 1) calls `large` below 0.5 and where nothing
    can be read.
    """
    tiers = Tier("small", 1.0, (Reading("conf", 0.0, (0.5,), (40, 55, 5)),)), Tier("large", 10.0)
    nodes = (
        Ask("small", 4),
        Ask("small", 2),
        Read("small", "conf", (0.5,), (3, 4), 3),
        Ask("large", 5),
        Stop(Accept("small")),
        Stop(Accept("large")),
    )
    cheap = VertexEvidence((1.0, 1.0), (0.5, 0.625), (1.0, 0.0), (1.0, 0.0), 0.0)
    dear = VertexEvidence((5.0, 6.0), (0.75, 0.875), (1.0, 0.45), (0.55, 0.45), 4.97494)
    vertices = Vertex(0.125, 1.0, 0.5625, 0, evidence=cheap), Vertex(0.03125, 5.5, 0.8125, 1, evidence=dear)
    return Policy(tiers, nodes, vertices, OperatingPoint(0, 1, 0.25, 2.125), salt="golden")


def spread_cases(policy: Policy) -> Iterator[dict[str, Any]]:
    """Every state that matters, in both arms."""
    small: list[Any] = [{}, 0.0, 0.4999999, 0.5, 1, None]
    states = [{}, *({"small": told} for told in small), *({"small": told, "large": {}} for told in small)]
    for number, readings in enumerate(states):
        for arm in (0, 1):
            key = next(key for key in range(100 * number, 100 * number + 100) if policy.arm(key) == arm)
            yield {"readings": readings, "context": None, "key": key}


GOLDEN = {
    "policy": (golden_policy, cases, "decisions"),
    "signals": (signals_policy, signals_cases, "signals"),
    "votes": (votes_policy, votes_cases, "votes"),
    "numbers": (numbers_policy, numbers_cases, "numbers"),
    "scores": (scores_policy, scores_cases, "scores"),
    "outages": (outages_policy, outages_cases, "outages"),
    "spread": (spread_policy, spread_cases, "spread"),
}


def decided_in(policy: Policy, without: Sequence[str] = (), **case: Any) -> Action:
    """What the policy does while some tiers are down."""
    return policy.without(*without).decide(**case)


def golden_files() -> dict[str, str]:
    """The text of each golden file, by name."""
    files = {}
    for name, (make, cases_of, decided) in GOLDEN.items():
        policy = make()
        lines = [
            json.dumps({**case, "action": action_json(decided_in(policy, **case))}, ensure_ascii=False)
            for case in cases_of(policy)
        ]
        files |= {f"{name}.json": dump_policy(policy), f"{decided}.jsonl": "\n".join(lines) + "\n"}
    return files


if __name__ == "__main__":
    for name, text in golden_files().items():
        (HERE / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {HERE / name}")
