"""Policies of the conformance vectors, each made for the edges of one part of the format; others are golden ones."""

from __future__ import annotations

import math

from metaverify.policies.actions import Abstain, Accept
from metaverify.policies.graph import Ask, Poll, Read, Stop, Tally
from metaverify.policies.policy import OperatingPoint, Outage, Policy, Vertex
from metaverify.policies.tiers import Points, Reading, Tier

KEYS = ("request-17", "", " ", "é", "e\u0301", "Grüße, 模型 🙂", "\u0000", "\uffff", "00", "-0", "1e3", "a" * 200)
"""Requests' keys of every script and length, some of which look like numbers."""

PROVENANCE = {
    "whole": [0, -1, 2**53 + 1, -(2**63), 2**63 - 1],
    "points": [0.0, -0.0, 1.0, -1.5, 0.1, 1e-4, 1e-5, 1.5e-5, 1e15, 1e16, 1.5e16, 5e-324, 1.7976931348623157e308, 1e22],
    "texts": ['"\\/\b\f\n\r\t\u0000\u001f\u007f\u0080\u2028', "é", "e\u0301", "模型", "🙂", "\ufb01", "<b>&"],
    "order": {"": 1, "a": 2, "A": 3, "é": 4, "\ufb01": 5, "🙂": 6, "\uffff": 7, "aa": 8, "a\u0000": 9},
    "rest": [None, True, False, [], {}],
}
"""Every kind of JSON: what the canonical text has to get right."""

ONE = OperatingPoint(0, 0, 0.0)
SMALL = Reading("conf", 0.0, (0.5,), (40, 55, 5))


def dial() -> Policy:
    """Five vertices, of which each stops at once in another way; costs that no binary fraction is, two of them at equal
    worth at many prices, and a share of 0.3 between the second and the third."""
    tiers = tuple(Tier(name, price) for name, price in (("a", 0.1), ("b", 0.3), ("c", 1.1), ("d", 3.3), ("e", 7.7)))
    nodes = (*(Ask(tier.name, 5 + at) for at, tier in enumerate(tiers)), *(Stop(Accept(tier.name)) for tier in tiers))
    known = ((0.1, 0.5), (0.30000000000000004, 0.6), (1.1, 0.7), (3.3, 0.8), (7.7, 0.8125))
    vertices = tuple(Vertex(0.0, cost, quality, at) for at, (cost, quality) in enumerate(known))
    return Policy(tiers, nodes, vertices, OperatingPoint(1, 2, 0.3, 0.54), salt="dïal")


def share() -> Policy:
    """Two vertices without a salt, mixed at a third."""
    tiers = (Tier("a", 1.0), Tier("b", 2.0))
    nodes = (Ask("a", 2), Ask("b", 3), Stop(Accept("a")), Stop(Accept("b")))
    return Policy(tiers, nodes, (Vertex(0.5, 1.0, 0.5, 0), Vertex(0.25, 2.0, 0.75, 1)), OperatingPoint(0, 1, 1 / 3))


def intervals() -> Policy:
    """A text and two numbers make the context; every interval of the numbers begins at another tier."""
    cuts = {"tokens": (-2.5, 1e-05, 0.1, 120.0, 480.5, 100000.0, 1e16, 1.5e22), "depth": (0.0,)}
    tiers = tuple(Tier(f"tier{at}", 1.0) for at in range(12))
    nodes = tuple(Ask(tier.name, len(tiers) + at) for at, tier in enumerate(tiers))
    stops = tuple(Stop(Accept(tier.name)) for tier in tiers)
    words = ("tokens<-2.5", "-2.5<=tokens<1e-05", "1e-05<=tokens<0.1", "0.1<=tokens<120", "120<=tokens<480.5")
    words += ("480.5<=tokens<100000", "100000<=tokens<1e+16", "1e+16<=tokens<1.5e+22", "tokens>=1.5e+22")
    roots = {f"qa/{word}/depth>=0": at + 1 for at, word in enumerate((*words, "tokens missing"))}
    roots |= {"qa/-2.5<=tokens<1e-05/depth<0": 11, "qa/-2.5<=tokens<1e-05/depth missing": 0}
    roots |= {"q\\/a/-2.5<=tokens<1e-05/depth>=0": 11}
    vertices = (Vertex(0.1, 1.0, 0.5, 0, roots),)
    return Policy(tiers, (*nodes, *stops), vertices, ONE, context=("task", "tokens", "depth"), context_cuts=cuts)


def labels() -> Policy:
    """Two texts make the context, of every script, with slashes and backslashes in them, and names of JavaScript's."""
    tiers = tuple(Tier(f"tier{at}", 1.0) for at in range(9))
    nodes = tuple(Ask(tier.name, len(tiers) + at) for at, tier in enumerate(tiers))
    stops = tuple(Stop(Accept(tier.name)) for tier in tiers)
    names = ("a/b", "a\\/b/a", "a\\\\b/7", "résumé/模型", "re\u0301sume\u0301/模型", "🙂/🙂", "__proto__/", "-7/0")
    vertices = (Vertex(0.1, 1.0, 0.5, 0, {name: at + 1 for at, name in enumerate(names)}),)
    return Policy(tiers, (*nodes, *stops), vertices, ONE, context=("task", "tenant"))


def names() -> Policy:
    """Names that are found in every object of JavaScript, or have letters of every script; a salt beyond ASCII; a
    signal that needs nothing; abstention."""
    first, second = Reading("constructor", 0.0, (0.5,), (1, 1, 0)), Reading("größe", 0.25, (), (1, 1))
    tiers = (
        Tier("__proto__", 1.0, (first, second)),
        Tier("模型", 2.0, (Reading("__proto__", 0.0, (0.25, 0.75), (1, 1, 1, 0)),)),
        Tier("toString", 3.0),
        Tier("🙂", 0.5, (Reading("valueOf", 0.5, (0.5,), (1, 1, 0)),), answer=False),
    )
    nodes = (
        Read("🙂", "valueOf", (0.5,), (1, 7), 10),
        Ask("__proto__", 2),
        Read("__proto__", "constructor", (0.5,), (4, 9), 3),
        Read("__proto__", "größe", (), (9,), 4),
        Ask("模型", 5),
        Read("模型", "__proto__", (0.25, 0.75), (10, 6, 8), 9),
        Ask("toString", 11),
        Ask("toString", 11),
        Stop(Accept("模型")),
        Stop(Accept("__proto__")),
        Stop(Abstain()),
        Stop(Accept("toString")),
    )
    roots = {"__proto__": 1, "constructor": 7}
    vertices = (Vertex(0.1, 3.0, 0.5, 0, roots), Vertex(0.05, 4.0, 0.75, 1, roots))
    return Policy(tiers, nodes, vertices, OperatingPoint(0, 1, 0.5), salt="s🙂lt", context=("task",), abstain=0.25)


def ballots() -> Policy:
    """Votes in three ways: a poll that asks for fewer than there are, one that asks for the only one, and a node that
    wants all at once, with cuts at shares of them that no binary fraction is."""
    polled = Reading("verify", 0.7, (0.5,), (0, 0, 0), votes=7)
    asked = Reading("verify", 0.3, (0.5,), (0, 0, 0), votes=3)
    tiers = (
        Tier("small", 1.0, (polled,)),
        Tier("medium", 3.0, (SMALL, asked)),
        Tier("large", 9.0, (Reading("judge", 1.0, (0.5,), (0, 0, 0), votes=1),)),
    )
    four = (
        Tally((), (None,)),
        Tally((1, 2), (2, None, 8)),
        Tally((1, 3), (2, None, 8)),
        Tally((2,), (2, 8)),
    )
    nodes = (
        Ask("small", 1),
        Poll("small", "verify", four, 5),
        Ask("medium", 3),
        Read("medium", "verify", (1 / 3, 2 / 3, 1.0), (5, 4, 9, 8), 7),
        Read("medium", "conf", (), (9,), 5),
        Ask("large", 6),
        Poll("large", "judge", (Tally((1,), (8, 10)),), 7),
        Stop(Abstain()),
        Stop(Accept("small")),
        Stop(Accept("medium")),
        Stop(Accept("large")),
    )
    return Policy(tiers, nodes, (Vertex(0.1, 4.0, 0.5, 0),), ONE, abstain=0.1)


def sums() -> Policy:
    """Scores whose last bit depends on the order in which points are added, one of them asked in the other order in the
    context "backwards", and sums above 1; in the context "signal" the score of a source without an answer."""
    a = Points("a", (0.5,), (0.1, 0.7), 0.0)
    b = Points("b", (0.25, 0.75), (0.0, 0.2, 0.5), 0.1)
    c = Points("c", (), (0.3,), 0.05)
    free = tuple(Reading(name, 0.0, (), (9, 1)) for name in "abc")
    forwards, backwards = (
        Reading(name, 0.0, (), (1, 0), parts) for name, parts in (("abc", (a, b, c)), ("cba", (c, b, a)))
    )
    tiers = (
        Tier("small", 1.0, (*free, forwards, backwards)),
        Tier("large", 9.0),
        Tier("prompt", 0.0, (*free[:2], Reading("ab", 0.0, (), (1, 0), (a, b))), answer=False),
    )
    above = math.nextafter(0.6, 1.0)  # (0.1 + 0.2) + 0.3, while (0.3 + 0.2) + 0.1 is 0.6
    nodes = (
        Read("prompt", "ab", (above, 1.0), (1, 5, 6), 5),
        Ask("small", 3),
        Ask("small", 4),
        Read("small", "abc", (0.1 + 0.05, above, 1.0), (5, 6, 7, 5), 6),
        Read("small", "cba", (0.6, above), (5, 7, 6), 6),
        Ask("large", 8),
        Stop(Abstain()),
        Stop(Accept("small")),
        Stop(Accept("large")),
    )
    roots = {"backwards": 2, "signal": 0}
    return Policy(tiers, nodes, (Vertex(0.1, 4.0, 0.5, 1, roots),), ONE, context=("order",), abstain=0.1)


def cuts() -> Policy:
    """Cuts at both ends, beside each other and at fractions that are not binary; a paid reading after a free one; a
    node without cuts, that tells a missing reading from any other."""
    edge = math.nextafter(0.5, 1.0)
    free = Reading("conf", 0.0, (0.5,), (5, 5, 0))
    tiers = (
        Tier("small", 1.0, (free, Reading("judge", 0.5, (), (9, 1)))),
        Tier("medium", 3.0, (free,)),
        Tier("large", 9.0),
    )
    nodes = (
        Ask("small", 1),
        Read("small", "conf", (0.0, 0.1, 0.3, 0.5, edge, 1.0), (8, 6, 3, 2, 7, 8, 9), 4),
        Read("small", "judge", (), (9,), 6),
        Ask("medium", 5),
        Read("small", "judge", (5e-324,), (6, 9), 7),
        Read("medium", "conf", (0.7,), (9, 11), 8),
        Ask("large", 10),
        Ask("large", 9),
        Stop(Abstain()),
        Stop(Accept("small")),
        Stop(Accept("large")),
        Stop(Accept("medium")),
    )
    return Policy(tiers, nodes, (Vertex(0.1, 4.0, 0.5, 0),), ONE, abstain=0.1)


def covers() -> Policy:
    """Outages in an order in which a larger one comes first, and two of the same size cover a third; every one begins
    at a tier of its own."""
    tiers = tuple(Tier(name, 1.0) for name in "abcdef")
    nodes = (*(Ask(name, 6 + at) for at, name in enumerate("abcdef")), *(Stop(Accept(name)) for name in "abcdef"))
    outages = (
        Outage(("a", "b", "c"), 3, {"task": 5}),
        Outage(("a", "b"), 4, {"task": 2}),
        Outage(("b", "c"), 0, {"task": 3}),
        Outage(("a",), 5, {"task": 1}),
    )
    return Policy(tiers, nodes, (Vertex(0.1, 1.0, 0.5, 0, {"task": 1}, outages=outages),), ONE, context=("task",))
