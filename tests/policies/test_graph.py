"""Walking a graph is the contract's loop, and a graph is refused exactly when some path through it breaks a rule."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.actions import Abstain, Accept, Call, Verify
from metaverify.policies.graph import (
    Ask,
    GraphError,
    Node,
    Poll,
    Read,
    Stop,
    Tally,
    Unread,
    all_votes,
    as_number,
    as_votes,
    bought_first,
    check_graph,
    come_to,
    compact,
    compile_graph,
    nearest_tally,
    reading_in_hand,
    renumbered,
    successors,
    walk,
)
from metaverify.policies.policy import Policy
from metaverify.policies.tiers import Points, Reading, Tier

from .plain import plain_action
from .strategies import confidences, examples, nonsense, policies, tallies, told

ODD_CUTS: list[tuple[float, ...]] = [(0.5, 0.5), (0.7, 0.3), (-0.1,), (1.5,), (math.nan,), (0.2, math.nan, 0.9)]
READINGS = {"small": ["conf", "judge"], "large": ["vote"], "critic": ["score"], "length": ["words"]}
NEEDS = {"critic": ["small"], "length": []}
TIERS = (
    Tier("small", 1.0, (Reading("conf", 0.0, (), (0, 0)), Reading("judge", 0.5, (), (0, 0)))),
    Tier("large", 10.0),
    Tier("critic", 0.0, (Reading("score", 0.0, (), (0, 0)),), answer=False, needs=("small",)),
    Tier("length", 0.0, (Reading("words", 0.0, (), (0, 0)),), answer=False),
)
TREE: tuple[Node, ...] = (
    Ask("small", 1),
    Read("small", "conf", (0.3, 0.7), (3, 2, 5), 3),
    Read("small", "judge", (0.5,), (3, 5), 5),
    Ask("large", 4),
    Stop(Accept("large")),
    Stop(Accept("small")),
)


def after(readings: Mapping[str, Any], nodes: Sequence[Node] = TREE) -> Any:
    return walk(compile_graph(nodes, TIERS)[0], readings)


# ---------------------------------------------------------------------------------------------------- walking


def same_outcome(policy: Policy, readings: Mapping[str, Any]) -> None:
    """Every root of the policy gives the same action, or the same TypeError, as the plain loop."""
    first = {tier.name: tier.readings[0].name for tier in policy.tiers if tier.readings}
    votes = {(tier.name, r.name): r.votes for tier in policy.tiers for r in tier.readings if r.votes}
    linked = compile_graph(policy.nodes, policy.tiers)
    for root in {r for vertex in policy.vertices for r in (vertex.root, *vertex.context_roots.values())}:
        try:
            expected = plain_action(policy.nodes, root, first, readings, votes)
        except TypeError:
            with pytest.raises(TypeError):
                walk(linked[root], readings)
        else:
            assert walk(linked[root], readings) == expected


@examples(300)
@given(data=st.data())
def test_a_walk_takes_the_same_action_as_the_plain_loop(data: st.DataObject) -> None:
    policy = data.draw(policies(votes=True))
    same_outcome(policy, data.draw(told(policy.tiers, confidences(policy.nodes))))


@examples(100)
@given(data=st.data())
def test_what_is_no_number_is_refused_where_it_matters_and_nowhere_else(data: st.DataObject) -> None:
    policy = data.draw(policies(votes=True))
    votes = tallies | nonsense | st.sampled_from([0.5, (2, 1), (-1, 3), (1, 2, 3), (0.5, 1), "12", [None, 1]])
    same_outcome(policy, data.draw(told(policy.tiers, confidences(policy.nodes) | nonsense, votes)))


@pytest.mark.parametrize(
    ("readings", "action"),
    [
        ({}, Call("small")),
        ({"small": {}}, Verify("small", "conf")),
        ({"small": {"judge": 0.9}}, Verify("small", "conf")),
        ({"small": 0.1}, Call("large")),
        ({"small": 0.1, "large": {}}, Accept("large")),
        ({"small": 0.5}, Verify("small", "judge")),
        ({"small": {"conf": 0.5, "judge": 0.2}}, Call("large")),
        ({"small": {"conf": 0.5, "judge": 0.5}}, Accept("small")),
        ({"small": {"conf": 0.5, "judge": None}}, Accept("small")),
        ({"small": 0.8}, Accept("small")),
        ({"small": None}, Call("large")),
        ({"large": 0.9}, Call("small")),
    ],
)
def test_a_graph_small_enough_to_follow_by_hand(readings: dict[str, Any], action: object) -> None:
    assert after(readings) == action


@pytest.mark.parametrize("cut", [0.3, 0.7])
def test_a_cut_belongs_to_the_bin_above_it(cut: float) -> None:
    below, at, above = (after({"small": c}) for c in (math.nextafter(cut, 0), cut, math.nextafter(cut, 1)))
    assert below != at == above


@pytest.mark.parametrize(
    "missing",
    [
        None,
        math.nan,
        math.inf,
        -math.inf,
        -1,
        2,
        10**400,
        -5e-324,
        math.nextafter(1, 2),
        np.float64("nan"),
        np.float32("inf"),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_what_is_outside_the_unit_interval_is_missing(missing: object) -> None:
    assert after({"small": missing}) == after({"small": {"conf": missing}}) == Call("large")


@pytest.mark.parametrize(
    "nothing", ["0.5", "", b"1", [0.5], {"conf": "0.5"}, {"conf": {"a": 1}}, {"conf": [0.1]}, 0.5j]
)
def test_a_confidence_that_is_no_number_names_its_tier_and_reading(nothing: object) -> None:
    with pytest.raises(TypeError, match=r"'conf' of 'small'"):
        after({"small": nothing})


@pytest.mark.parametrize("number", [np.int64(1), np.int8(0), np.float64(0.5), np.float16(0.5), Fraction(1, 2)])
def test_any_real_number_is_a_confidence(number: Any) -> None:
    assert after({"small": number}) == after({"small": float(number)})


def test_both_ends_of_the_unit_interval_are_confidences() -> None:
    nodes = (
        Ask("small", 1),
        Read("small", "conf", (0.5, 1.0), (2, 3, 4), 5),
        Ask("large", 6),
        Stop(Accept("small")),
        Read("small", "judge", (), (3,), 3),
        Stop(Abstain()),
        Stop(Accept("large")),
    )
    for zero in (0, 0.0, -0.0, np.int8(0), 5e-324):
        assert after({"small": zero}, nodes) == Call("large")
    for one in (1, 1.0, np.float32(1)):
        assert after({"small": one}, nodes) == Verify("small", "judge")
    assert after({"small": math.nextafter(1.0, 0.0)}, nodes) == Accept("small")
    assert after({"small": math.nextafter(1.0, 2.0)}, nodes) == Abstain()
    for truth in (True, False, np.True_, np.bool_(False)):  # which is no number, as in a file
        with pytest.raises(TypeError, match=r"the reading 'conf' of 'small' is .*, not a number or None"):
            after({"small": truth}, nodes)
        with pytest.raises(TypeError, match=r"the reading 'conf' of 'small' is .*, not a number or None"):
            after({"small": {"conf": truth}}, nodes)


def test_what_is_a_number_is_so_whoever_made_it() -> None:
    numbers = (Decimal("1.5"), Fraction(3, 2), np.float32(1.5), np.array(1.5), 1.5)
    assert [as_number(number) for number in numbers] == [1.5] * 5
    assert {type(as_number(number)) for number in numbers} == {float}
    assert [as_number(10**400), as_number(-(10**400))] == [math.inf, -math.inf]
    assert [as_number(none) for none in (True, np.True_, np.array(False), "1.5", b"1", None, [1.5], 1 + 0j)] == [
        None
    ] * 8


@pytest.mark.parametrize("narrow", [np.float32, np.float16])
def test_a_narrow_float_falls_where_its_value_falls(narrow: Any) -> None:
    for cut in (0.3, 0.7, 0.1, 0.9):
        nodes = (TREE[0], Read("small", "conf", (cut,), (2, 3), 2), Stop(Abstain()), Stop(Accept("small")))
        assert after({"small": narrow(cut)}, nodes) == after({"small": float(narrow(cut))}, nodes)


def test_the_kind_of_mapping_does_not_matter() -> None:
    class Lookup(Mapping[str, Any]):
        def __init__(self, inner: dict[str, Any]) -> None:
            self.inner = inner

        def __getitem__(self, key: str) -> Any:
            return self.inner[key]

        def __iter__(self) -> Iterator[str]:
            return iter(self.inner)

        def __len__(self) -> int:
            return len(self.inner)

    class Child(dict[str, Any]):
        pass

    for given_ in ({}, {"conf": 0.5}, {"conf": None}, {"judge": 0.5}, {"conf": 0.5, "judge": 0.1}):
        assert after({"small": given_}) == after({"small": Child(given_)}) == after({"small": Lookup(given_)})


def test_a_tier_without_readings_may_be_given_a_confidence_that_nobody_reads() -> None:
    assert after({"small": 0.1, "large": 0.4}) == Accept("large")


# --------------------------------------------------------------------------------------------------- checking


def broken(
    nodes: Sequence[Node],
    roots: Sequence[int],
    readings: Mapping[str, Sequence[str]],
    signals: Mapping[str, Sequence[str]] = NEEDS,
) -> bool:
    """Whether a rule is broken: every path from every root is followed to its end."""
    if any(not 0 <= root < len(nodes) for root in roots):
        return True
    reached: set[int] = set()

    def follow(at: int, have: frozenset[tuple[str, str]]) -> bool:
        node = nodes[at]
        reached.add(at)
        match node:
            case Stop(Accept(tier)):
                return (tier, "") not in have
            case Stop(_):
                return False
            case Ask(tier, _):
                bought = (tier, "")
                wrong = tier not in readings or tier in signals
            case Read(tier, reading, cuts, then, _):
                bought = (tier, reading)
                wrong = reading not in readings.get(tier, ())
                wrong |= any((need, "") not in have for need in signals.get(tier, [tier]))
                wrong |= len(then) != len(cuts) + 1 or list(cuts) != sorted(set(cuts))
                wrong |= any(not 0 <= cut <= 1 for cut in cuts)
            case Poll(tier, reading, rows, _):
                bought = (tier, reading)
                wrong = reading not in readings.get(tier, ())
                wrong |= any((need, "") not in have for need in signals.get(tier, [tier]))
                wrong |= None in rows[-1].then
        wrong |= bought in have or any(not at < child < len(nodes) for child in successors(node))
        return wrong or any(follow(child, have | {bought}) for child in successors(node))

    return any(follow(root, frozenset()) for root in roots) or len(reached) < len(nodes)


def random_table(rng: random.Random) -> tuple[tuple[Node, ...], list[int]]:
    """A small node table, nearly right more often than not."""
    count = rng.randint(1, 7)
    rarely = 0.02
    last_reached = 0

    def child(at: int) -> int:
        nonlocal last_reached
        if rng.random() < rarely or at + 1 == count:
            return rng.randint(-1, count)
        chosen = rng.randint(at + 1, max(at + 1, min(last_reached + 1, count - 1)))
        last_reached = max(chosen, last_reached)
        return chosen

    def node(at: int) -> Node:
        tier = "huge" if rng.random() < rarely else rng.choice(["small", "small", "large"])
        if rng.random() < 0.2:
            tier = rng.choice(["critic", "length"])
        kind = rng.choice(["call", "read", "read", "stop"] if last_reached > at else ["call", "read"])
        if at + 1 == count or kind == "stop":
            return Stop(Accept(tier)) if rng.random() < 0.6 else Stop(Abstain())
        signal = tier in NEEDS and rng.random() > rarely
        if not signal and (kind == "call" or (at == 0 and rng.random() > rarely)):
            return Ask(tier, child(at))
        cuts = rng.choice(ODD_CUTS) if rng.random() < rarely else rng.choice([(), (0.5,), (0.0, 1.0)])
        branches = len(cuts) + 1 + (rng.choice([-1, 1]) if rng.random() < rarely else 0)
        usual = rng.choice(READINGS[tier]) if tier in READINGS else "conf"
        reading = rng.choice(["conf", "judge", "vote", "score"]) if rng.random() < rarely else usual
        return Read(tier, reading, cuts, tuple(child(at) for _ in range(branches)), child(at))

    roots = [0] if rng.random() < 0.8 else [rng.randrange(count) for _ in range(rng.randint(1, 3))]
    return tuple(node(at) for at in range(count)), roots


def test_a_table_is_refused_exactly_when_a_path_through_it_breaks_a_rule() -> None:
    rng = random.Random(0)
    accepted = 0
    for _ in range(50_000):
        nodes, roots = random_table(rng)
        try:
            check_graph(nodes, roots, READINGS, NEEDS)
        except GraphError:
            assert broken(nodes, roots, READINGS), (nodes, roots)
        else:
            assert not broken(nodes, roots, READINGS), (nodes, roots)
            accepted += len(nodes) > 3
    assert accepted > 1_000


@examples(100)
@given(policies(votes=True))
def test_a_graph_that_keeps_every_rule_is_accepted_and_every_walk_ends(policy: Policy) -> None:
    assert not broken(
        policy.nodes,
        [root for vertex in policy.vertices for root in (vertex.root, *vertex.context_roots.values())],
        {tier.name: [r.name for r in tier.readings] for tier in policy.tiers},
        {tier.name: tier.needs for tier in policy.tiers if not tier.answer},
    )
    everything = {t.name: {r.name: (0, r.votes) if r.votes else 0.5 for r in t.readings} for t in policy.tiers}
    assert isinstance(policy.decide(everything, key=1), (Accept, Abstain))


def walks(nodes: Sequence[Node], at: int) -> list[frozenset[tuple[str, str | None]]]:
    """What is bought on every way from a node to an end."""
    node = nodes[at]
    own: set[tuple[str, str | None]] = set()
    if not isinstance(node, Stop):
        own.add((node.tier, None if isinstance(node, Ask) else node.reading))
    rest = [way for child in successors(node) for way in walks(nodes, child)] or [frozenset()]
    return [frozenset(own) | way for way in rest]


@examples(100)
@given(policies(votes=True))
def test_what_is_bought_first_is_bought_on_every_way(policy: Policy) -> None:
    for vertex in policy.vertices:
        for root in vertex.roots:
            first, ways = bought_first(policy.nodes, root), walks(policy.nodes, root)
            assert first <= frozenset.intersection(*ways)


def test_what_is_bought_first_ends_where_ways_part() -> None:
    nodes: tuple[Node, ...] = (
        Ask("a", 1),
        Read("a", "free", (0.5,), (2, 2), 2),  # goes on the same whatever it is
        Ask("b", 3),
        Read("b", "conf", (0.5,), (4, 5), 4),
        Ask("c", 6),
        Stop(Accept("b")),
        Stop(Accept("c")),
    )
    assert bought_first(nodes, 0) == {("a", None), ("a", "free"), ("b", None), ("b", "conf")}
    assert bought_first(nodes, 3) == {("b", "conf")}
    assert bought_first(nodes, 4) == {("c", None)}
    assert bought_first(nodes, 5) == frozenset()
    assert bought_first((replace(nodes[1], missing=3), *nodes[1:]), 0) == {("a", "free")}


def read(cuts: tuple[float, ...], then: tuple[int, ...] = (2, 2), missing: int = 2) -> tuple[Node, ...]:
    return (Ask("small", 1), Read("small", "conf", cuts, then, missing), Stop(Accept("small")))


REFUSED: dict[str, tuple[tuple[Node, ...], list[int], str]] = {
    "a node that no root reaches": ((Stop(Abstain()), Stop(Abstain())), [0], r"nodes\[1\].*reached"),
    "a call that leads back": ((Ask("small", 0),), [0], r"nodes\[0\].*further down"),
    "a cycle": ((Ask("small", 1), Ask("large", 0)), [0], r"nodes\[1\].*further down"),
    "a branch to a node that is not there": (read((0.5,), (2, 3)), [0], r"nodes\[1\].*node 3"),
    "a branch to a negative place": (read((0.5,), (2, -1)), [0], r"nodes\[1\].*node -1"),
    "a missing branch that leads back": (read((0.5,), missing=0), [0], r"nodes\[1\].*node 0"),
    "a root that is not there": ((Stop(Abstain()),), [1], r"root 1"),
    "a negative root": ((Stop(Abstain()),), [-1], r"root -1"),
    "an empty table": ((), [0], r"root 0"),
    "accepting what was not called": ((Ask("small", 1), Stop(Accept("large"))), [0], r"nodes\[1\].*'large'"),
    "accepting what was called on one path only": (
        (Ask("small", 1), Read("small", "conf", (0.5,), (2, 3), 3), Ask("large", 3), Stop(Accept("large"))),
        [0],
        r"nodes\[3\].*every path",
    ),
    "accepting what was called from one root only": (
        (Ask("small", 1), Stop(Accept("small"))),
        [0, 1],
        r"nodes\[1\].*every path",
    ),
    "reading before the call": (
        (Read("small", "conf", (), (1,), 1), Stop(Abstain())),
        [0],
        r"nodes\[0\].*not in hand",
    ),
    "calling twice": ((Ask("small", 1), Ask("small", 2), Stop(Accept("small"))), [0], r"nodes\[1\].*second time"),
    "calling twice on one path only": (
        (
            Ask("small", 1),
            Read("small", "conf", (0.5,), (2, 3), 3),
            Ask("large", 3),
            Ask("large", 4),
            Stop(Accept("large")),
        ),
        [0],
        r"nodes\[3\].*'large' a second time",
    ),
    "reading twice": (
        (TREE[0], Read("small", "conf", (), (2,), 3), Read("small", "conf", (), (3,), 3), Stop(Accept("small"))),
        [0],
        r"nodes\[2\].*conf of 'small' a second time",
    ),
    "an unknown tier": ((Ask("huge", 1), Stop(Abstain())), [0], r"nodes\[0\].*'huge'"),
    "an unknown reading": (
        (Ask("large", 1), Read("large", "judge", (), (2,), 2), Stop(Abstain())),
        [0],
        r"nodes\[1\].*'judge' of 'large'",
    ),
    "calling what has no answer": (
        (Ask("length", 1), Stop(Abstain())),
        [0],
        r"nodes\[0\].*'length', which has no answer",
    ),
    "accepting what has no answer": (
        (Read("length", "words", (), (1,), 1), Stop(Accept("length"))),
        [0],
        r"nodes\[1\].*'length'.*not in hand",
    ),
    "reading a signal before what it needs": (
        (Ask("large", 1), Read("critic", "score", (), (2,), 2), Stop(Abstain())),
        [0],
        r"nodes\[1\].*'critic', though the answer of 'small' is not in hand",
    ),
    "reading a signal twice": (
        (Read("length", "words", (), (1,), 1), Read("length", "words", (), (2,), 2), Stop(Abstain())),
        [0],
        r"nodes\[1\].*words of 'length' a second time",
    ),
    "cuts that fall": (read((0.7, 0.3), (2, 2, 2)), [0], r"nodes\[1\].*rise"),
    "cuts that are equal": (read((0.5, 0.5), (2, 2, 2)), [0], r"nodes\[1\].*rise"),
    "a cut below 0": (read((-0.1,)), [0], r"nodes\[1\].*outside"),
    "a cut above 1": (read((1.1,)), [0], r"nodes\[1\].*outside"),
    "a cut that is NaN": (read((math.nan,)), [0], r"nodes\[1\].*outside"),
    "a branch too few": (read((0.5,), (2,)), [0], r"nodes\[1\].*1 cuts and 1 branches"),
    "a branch too many": (read((0.5,), (2, 2, 2)), [0], r"nodes\[1\].*1 cuts and 3 branches"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_decision_graph_is_refused_with_its_place(case: str) -> None:
    nodes, roots, message = REFUSED[case]
    assert broken(nodes, roots, READINGS)
    with pytest.raises(GraphError, match=message):
        check_graph(nodes, roots, READINGS, NEEDS)


def test_a_signal_is_read_once_what_it_needs_is_in_hand() -> None:
    nodes = (
        Read("length", "words", (0.5,), (1, 1), 1),
        Ask("small", 2),
        Read("critic", "score", (0.5,), (3, 4), 4),
        Ask("large", 4),
        Stop(Accept("small")),
    )
    check_graph(nodes, [0], READINGS, NEEDS)
    root = compile_graph(nodes, TIERS)[0]
    assert walk(root, {}) == Verify("length", "words")
    assert walk(root, {"length": 0.7}) == Call("small")
    assert walk(root, {"length": {"words": None}, "small": {}}) == Verify("critic", "score")
    assert walk(root, {"length": 0.7, "small": {}, "critic": {}}) == Verify("critic", "score")
    for verdict in (0.2, {"score": 0.2}):
        assert walk(root, {"length": 0.7, "small": {}, "critic": verdict}) == Call("large")
    assert walk(root, {"length": 0.7, "small": {}, "critic": {"score": 0.5}}) == Accept("small")


JURY: tuple[Node, ...] = (
    Ask("small", 1),
    Poll(
        "small",
        "judge",
        (Tally((), (None,)), Tally((1, 2), (2, None, 4)), Tally((2,), (2, 4))),
        2,
    ),
    Ask("large", 3),
    Stop(Accept("large")),
    Stop(Accept("small")),
)
BALLOTS = {("small", "judge"): 5}


def jurors(first: str, votes: int = 5) -> tuple[Tier, ...]:
    """The tiers, with this reading of `small` first and so many votes of its judge."""
    judge = Reading("judge", 0.5, (), (0, 0), votes=votes)
    readings = (judge,) if first == "judge" else (Reading("conf", 0.0, (), (0, 0)), judge)
    return (Tier("small", 1.0, readings), Tier("large", 10.0))


@pytest.mark.parametrize(
    ("votes", "action"),
    [
        ({}, Verify("small", "judge")),
        ((0, 0), Verify("small", "judge")),
        ((1, 1), Verify("small", "judge")),
        ((0, 2), Call("large")),
        ((1, 2), Verify("small", "judge")),
        ((2, 2), Accept("small")),
        ([2, 3], Accept("small")),
        ((1, 3), Call("large")),
        (None, Call("large")),
        (math.nan, Call("large")),
        ((3, 5), Accept("small")),  # asked all at once: nearest to 2 of 3
        ((2, 5), Call("large")),  # nearest to 1 of 3
    ],
)
def test_a_poll_asks_for_one_vote_more_until_they_suffice(votes: Any, action: object) -> None:
    check_graph(JURY, [0], READINGS, NEEDS, BALLOTS)
    root = compile_graph(JURY, jurors("judge"))[0]
    assert walk(root, {"small": votes}) == action
    assert walk(root, {"small": votes if votes == {} else {"judge": votes}}) == action


def test_a_read_node_over_votes_wants_them_all() -> None:
    nodes = (Ask("small", 1), Read("small", "judge", (0.5,), (2, 3), 2), Stop(Abstain()), Stop(Accept("small")))
    root = compile_graph(nodes, jurors("conf", votes=3))[0]
    assert [walk(root, {"small": {"judge": (yes, asked)}}) for yes, asked in ((0, 0), (1, 1), (0, 2), (2, 2))] == [
        Verify("small", "judge")
    ] * 4
    assert [walk(root, {"small": {"judge": (yes, 3)}}) for yes in range(4)] == [
        Abstain(),
        Abstain(),
        Accept("small"),
        Accept("small"),
    ]
    assert walk(root, {"small": {"judge": None}}) == Abstain()


@pytest.mark.parametrize("told_", [0.5, 1, (2, 1), (-1, 2), (1,), (1, 2, 3), (0.5, 1), "12", [None, 1]])
def test_votes_that_are_no_tally_name_their_tier_and_reading(told_: object) -> None:
    root = compile_graph(JURY, jurors("conf"))[0]
    with pytest.raises(TypeError, match=r"votes 'judge' of 'small' are .*, not \(yes, asked\)"):
        walk(root, {"small": {"judge": told_}})


def test_a_tally_is_come_to_where_no_earlier_one_ends_the_poll() -> None:
    poll = JURY[1]
    assert isinstance(poll, Poll)
    assert come_to(poll) == ((True, True), (True, True, True), (False, True, True, False))


POLLS_REFUSED = {
    "no tally": ((), r"asks for up to 0 votes of 'small', of 5"),
    "more than there are": ((Tally((), (None,)),) * 5 + (Tally((), (2,)),), r"asks for up to 6 votes of 'small', of 5"),
    "asking on at the end": ((Tally((), (None,)),), r"asks for more after 1 votes"),
    "a cut of nobody": ((Tally((0,), (2, 2)),), r"cuts after 1 votes that do not rise within 1 \.\. 1"),
    "a cut beyond all votes": ((Tally((2,), (2, 2)),), r"cuts after 1 votes that do not rise within 1 \.\. 1"),
    "cuts that fall": ((Tally((), (None,)), Tally((2, 1), (2, 2, 2))), r"cuts after 2 votes that do not rise"),
    "a branch too few": ((Tally((1,), (2,)),), r"1 cuts and 1 branches after 1 votes, not one more"),
    "a branch that leads back": ((Tally((1,), (0, 2)),), r"node 0, which is not further down"),
}


@pytest.mark.parametrize("case", POLLS_REFUSED)
def test_what_is_no_poll_is_refused_with_its_place(case: str) -> None:
    rows, message = POLLS_REFUSED[case]
    with pytest.raises(GraphError, match=r"nodes\[1\].*" + message):
        check_graph((JURY[0], Poll("small", "judge", rows, 2), Stop(Accept("small"))), [0], READINGS, NEEDS, BALLOTS)


def test_a_poll_of_what_is_no_votes_is_refused() -> None:
    with pytest.raises(GraphError, match=r"nodes\[1\].*votes of 'small', of 0"):
        check_graph(JURY, [0], READINGS, NEEDS)


def test_a_node_may_be_shared_by_paths_that_bought_different_things() -> None:
    nodes = (
        Ask("small", 1),
        Read("small", "conf", (0.5,), (2, 4), 3),
        Read("small", "judge", (0.5,), (3, 4), 4),
        Ask("large", 4),
        Stop(Accept("small")),
    )
    check_graph(nodes, [0], READINGS)


def test_a_root_may_stand_within_another_root_s_graph() -> None:
    nodes = (Ask("small", 1), Ask("large", 2), Stop(Accept("large")))
    check_graph(nodes, [1, 0, 1], READINGS)


def test_cuts_at_both_ends_of_the_unit_interval_are_allowed() -> None:
    check_graph(read((0.0, 1.0), (2, 2, 2)), [0], READINGS)


def test_successors_and_renumbered_agree_on_where_a_node_leads() -> None:
    for node, shift in itertools.product(TREE, (0, 3)):
        moved = renumbered(node, {at: at + shift for at in range(len(TREE))})
        assert successors(moved) == tuple(child + shift for child in successors(node))
        assert renumbered(moved, {at + shift: at for at in range(len(TREE))}) == node


SMALL, LARGE = Stop(Accept("small")), Stop(Accept("large"))
LISTED = {"small": ["conf", "votes"], "large": [], "judge": ["verdict"]}


def look(cuts: tuple[float, ...] = (0.5,), then: tuple[int, ...] = (2, 2), reading: str = "conf") -> Read:
    return Read("small", reading, cuts, then, 2)


def poll(*tallies: Tally) -> Poll:
    return Poll("small", "votes", tallies, 2)


WRONG: list[tuple[tuple[Node, ...], str]] = [
    ((SMALL,), "nodes[0]: accepts 'small', whose answer is not in hand on every path"),
    ((Ask("tiny", 1), SMALL), "nodes[0]: calls 'tiny', which is not one of the tiers"),
    ((Ask("judge", 1), SMALL), "nodes[0]: calls 'judge', which has no answer"),
    ((Ask("small", 1), Ask("small", 2), SMALL), "nodes[1]: buys the answer of 'small' a second time"),
    ((Ask("small", 0), SMALL), "nodes[0]: goes on to node 0, which is not further down"),
    ((Ask("small", 2), SMALL), "nodes[0]: goes on to node 2, which is not further down"),
    ((Ask("small", 2), SMALL, SMALL), "nodes[1]: cannot be reached from any root"),
    ((look(), SMALL, SMALL), "nodes[0]: reads 'small', whose answer is not in hand on every path"),
    (
        (Ask("small", 1), Read("judge", "verdict", (), (2,), 2), SMALL),
        "nodes[1]: reads 'judge', though the answer of 'large' is not in hand on every path",
    ),
    ((Ask("small", 1), look(reading="cnf"), SMALL), "nodes[1]: reads 'cnf' of 'small', which the tiers do not list"),
    (
        (Ask("small", 1), Read("tiny", "conf", (), (2,), 2), SMALL),
        "nodes[1]: reads 'conf' of 'tiny', which the tiers do not list",
    ),
    (
        (Ask("small", 1), Read("small", "conf", (), (2,), 2), look((), (3,)), SMALL),
        "nodes[2]: buys conf of 'small' a second time",
    ),
    ((Ask("small", 1), look((0.5,), (2,)), SMALL), "nodes[1]: has 1 cuts and 1 branches, not one more"),
    ((Ask("small", 1), look((0.5, 0.5), (2, 2, 2)), SMALL), "nodes[1]: has cuts that do not rise"),
    ((Ask("small", 1), look((-0.1,)), SMALL), "nodes[1]: has a cut outside [0, 1]"),
    ((Ask("small", 1), look((1.1,)), SMALL), "nodes[1]: has a cut outside [0, 1]"),
    ((Ask("small", 1), poll(), SMALL), "nodes[1]: asks for up to 0 votes of 'small', of 2"),
    (
        (Ask("small", 1), poll(*[Tally((), (None,))] * 2, Tally((), (2,))), SMALL),
        "nodes[1]: asks for up to 3 votes of 'small', of 2",
    ),
    (
        (Ask("small", 1), poll(Tally((1,), (2,))), SMALL),
        "nodes[1]: has 1 cuts and 1 branches after 1 votes, not one more",
    ),
    (
        (Ask("small", 1), poll(Tally((2,), (2, 2))), SMALL),
        "nodes[1]: has cuts after 1 votes that do not rise within 1 .. 1",
    ),
    (
        (Ask("small", 1), poll(Tally((), (None,)), Tally((0,), (2, 2))), SMALL),
        "nodes[1]: has cuts after 2 votes that do not rise within 1 .. 2",
    ),
    (
        (Ask("small", 1), poll(Tally((), (None,)), Tally((1,), (2, None))), SMALL),
        "nodes[1]: asks for more after 2 votes, and does not say what follows them",
    ),
]


@pytest.mark.parametrize(("nodes", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_table_is_refused_in_these_words(nodes: tuple[Node, ...], words: str) -> None:
    with pytest.raises(GraphError) as caught:
        check_graph(nodes, [0], LISTED, {"judge": ["small", "large"]}, {("small", "votes"): 2})
    assert str(caught.value) == words
    assert f"{caught.value.place}: {caught.value.message}" == words


@pytest.mark.parametrize("root", [-1, 2])
def test_a_root_that_is_no_node_is_refused(root: int) -> None:
    with pytest.raises(GraphError) as caught:
        check_graph((Ask("small", 1), SMALL), [0, root], LISTED)
    assert str(caught.value) == f"root {root}: is not one of the 2 nodes"


@pytest.mark.parametrize(
    ("yes", "asked", "most", "nearest"),
    [(1, 3, 3, (1, 3)), (1, 4, 3, (1, 3)), (1, 6, 3, (1, 3)), (1, 7, 3, (0, 3)), (3, 6, 3, (2, 3)), (9, 9, 4, (4, 4))],
)
def test_more_votes_than_a_poll_asks_for_are_rounded_half_up(
    yes: int, asked: int, most: int, nearest: tuple[int, int]
) -> None:
    assert nearest_tally(yes, asked, most) == nearest


@pytest.mark.parametrize(
    "told", [(3, 2), (-1, 2), (1,), (1, 2, 3), "12", (1.5, 2), (1, math.inf), ("1", 2), (None, 1), {1, 2}, 0.5, b"12"]
)
def test_what_are_no_votes_are_refused_in_these_words(told: Any) -> None:
    with pytest.raises(TypeError) as caught:
        as_votes(told, "small", "votes")
    assert str(caught.value) == (
        f"the votes 'votes' of 'small' are {told!r}, not (yes, asked), such as (2, 3), or None"
    )


def test_votes_are_whole_numbers_however_they_are_told() -> None:
    told: list[Any] = [(2, 3), [2.0, 3], (np.float32(2), np.int8(3)), (Decimal(2), Fraction(3))]
    assert [as_votes(votes, "small", "votes") for votes in told] == [(2, 3)] * 4
    assert as_votes((True, 1.0), "small", "votes") == (1, 1)
    assert as_votes((2**60 + 1, 2**61), "small", "votes") == (2**60 + 1, 2**61)


def test_all_votes_are_asked_for_and_then_followed_by_their_share() -> None:
    read = Read("small", "votes", (0.5, 0.75), (4, 5, 6), 7)
    asking, last = (Tally((), (None,)),) * 3, Tally((1, 2, 3, 4), (4, 4, 5, 6, 6))
    assert all_votes(read, 4) == Poll("small", "votes", (*asking, last), 7)
    assert all_votes(read, 1) == Poll("small", "votes", (Tally((1,), (4, 6)),), 7)


# --------------------------------------------------------------------------------------------- what a graph needs


@examples(100)
@given(data=st.data())
def test_what_is_compacted_is_what_walks_come_to_in_order_and_nothing_else(data: st.DataObject) -> None:
    """Against a search that follows one branch after another."""
    nodes = data.draw(policies(votes=True)).nodes
    roots = data.draw(st.lists(st.integers(0, len(nodes) - 1), max_size=3))

    def come_by(at: int) -> set[int]:
        return {at}.union(*(come_by(child) for child in successors(nodes[at])))

    needed = sorted(set().union(*map(come_by, roots)))
    kept, place = compact(nodes, roots)
    assert place == {node: at for at, node in enumerate(needed)}
    back = dict(enumerate(needed))
    assert tuple(renumbered(node, back) for node in kept) == tuple(nodes[at] for at in needed)


def test_a_table_of_no_walks_is_empty() -> None:
    assert compact((Ask("small", 1), Stop(Accept("small"))), ()) == ((), {})
    stop = Stop(Accept("small"))
    assert compact((Ask("small", 2), stop, stop), iter([0])) == ((Ask("small", 1), stop), {0: 0, 2: 1})


def test_a_reading_in_hand_is_what_was_told_or_what_its_parts_add_up_to() -> None:
    parts = (Points("a", (0.5,), (0.125, 0.25), 0.0625), Points("b", (), (0.5,), 0.03125))
    plain = [Reading(name, 0.0, (), (0, 0)) for name in ("a", "b", "c")]
    tier = Tier("small", 1.0, (*plain, Reading("f", 0.0, (), (0, 0), parts)))
    for known, name, wanted in (
        ({"a": 0.25}, "a", 0.25),
        ({"a": None}, "a", None),
        ({"a": 0.25}, "b", Unread("b")),
        ({}, "c", Unread("c")),
        (0.75, "a", 0.75),  # a bare confidence is the first reading
        (0.75, "b", Unread("b")),
        (0.75, "f", Unread("b")),
        ({}, "f", Unread("a")),
        ({"b": 1.0}, "f", Unread("a")),
        ({"a": 0.5}, "f", Unread("b")),
        ({"a": 0.5, "b": 0.0}, "f", 0.75),
        ({"a": 0.49, "b": None}, "f", 0.15625),
        ({"a": 2.0, "b": 10**400}, "f", 0.09375),
        ({"f": 0.875, "a": 0.5}, "f", 0.875),
        ({"a": 0.5}, "no such reading", Unread("no such reading")),
    ):
        assert reading_in_hand(tier, name, known) == wanted, (known, name)
    with pytest.raises(TypeError, match="the reading 'a' of 'small' is 'high', not a number or None"):
        reading_in_hand(tier, "f", {"a": "high", "b": 1.0})
