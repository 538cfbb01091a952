"""A fused reading is the sum of its parts' points: to decide, to explain, and to the file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.actions import Accept, Action, Call, Verify
from metaverify.policies.episode import Episode
from metaverify.policies.explain import explain
from metaverify.policies.file import dump_policy, load_policy, parse_policy, policy_id
from metaverify.policies.graph import Ask, Node, Read, Stop, compile_graph, walk
from metaverify.policies.policy import Belief, OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Points, Reading, Tier, fused_score

from .plain import as_number
from .strategies import confidences, cut_lists, examples, names, nonsense, policies, shares, told
from .test_file import Document, changed, refusal, sealed, without

# ------------------------------------------------------------------------------------- one policy to follow by hand

CONF = Points("conf", (0.5, 0.9), (0.0, 0.25, 0.5), 0.125)
VOTES = Points("votes", (0.25,), (0.0, 0.5), 0.25)
SMALL = Tier(
    "small",
    1.0,
    (
        Reading("conf", 0.0, (0.5,), (40, 60, 0)),
        Reading("votes", 0.0, (0.25,), (50, 45, 5)),
        Reading("fused", 0.0, (0.5,), (30, 70, 0), (CONF, VOTES)),
    ),
)
NODES: tuple[Node, ...] = (
    Ask("small", 1),
    Read("small", "fused", (0.5, 0.75), (2, 2, 4), 2),
    Ask("large", 3),
    Stop(Accept("large")),
    Stop(Accept("small")),
)
BELIEFS = (
    Belief(0.2, (0.1, 0.9), (None, 0.4)),
    Belief(0.3, (0.6, 0.9), (None, 0.5)),
    Belief(0.5, (0.95, 0.9), (None, 0.6)),
    Belief(0.0, (0.7, 0.9), (None, 0.5)),
)


def by_hand() -> Policy:
    vertex = Vertex(0.1, 2.0, 0.8, 0, {}, {1: BELIEFS})
    return Policy((SMALL, Tier("large", 4.0)), NODES, (vertex,), OperatingPoint(0, 0, 0.0))


@pytest.mark.parametrize(
    ("given", "action"),
    [
        ({}, Verify("small", "conf")),
        ({"votes": 0.9}, Verify("small", "conf")),
        ({"conf": 0.9}, Verify("small", "votes")),
        (0.9, Verify("small", "votes")),  # a bare number is the first reading
        (None, Verify("small", "votes")),
        ({"conf": 0.95, "votes": 0.9}, Accept("small")),  # 0.5 + 0.5
        ({"conf": 0.9, "votes": 0.25}, Accept("small")),  # a cut belongs to the bin above it
        ({"conf": 0.95, "votes": None}, Accept("small")),  # 0.5 + 0.25 = the cut
        ({"conf": 0.95, "votes": math.nan}, Accept("small")),
        ({"conf": 0.95, "votes": -1}, Accept("small")),
        ({"conf": 0.6, "votes": 0.3}, Accept("small")),  # 0.25 + 0.5
        ({"conf": None, "votes": 0.9}, Call("large")),  # 0.125 + 0.5
        ({"conf": 7, "votes": 7}, Call("large")),  # 0.125 + 0.25
        ({"fused": 0.75}, Accept("small")),
        ({"fused": math.nextafter(0.75, 0)}, Call("large")),
        ({"fused": None}, Call("large")),
        ({"fused": 1.5}, Call("large")),
        ({"fused": 0.1, "conf": 0.95, "votes": 0.9}, Call("large")),  # what is given is not made again
    ],
)
def test_a_scorecard_small_enough_to_add_up_by_hand(given: Any, action: Action) -> None:
    policy = by_hand()
    assert policy.decide({"small": given}) == action
    assert explain(policy, {"small": given}).action == action


@pytest.mark.parametrize("given", [{"conf": "0.9", "votes": 0.1}, {"conf": 0.9, "votes": [1]}, {"fused": "high"}])
def test_what_is_no_number_is_refused_by_the_name_of_the_reading(given: dict[str, Any]) -> None:
    (name,) = (name for name, value in given.items() if not isinstance(value, float))
    for decided in (by_hand().decide, lambda readings: explain(by_hand(), readings)):
        with pytest.raises(TypeError, match=f"the reading '{name}' of 'small' is .*, not a number or None"):
            decided({"small": given})


def test_an_episode_is_asked_for_each_input_in_turn() -> None:
    episode = Episode(by_hand())
    assert episode.answered() == Verify("small", "conf")
    assert episode.read(0.95) == Verify("small", "votes")
    assert episode.read(0.9) == Accept("small")
    assert Episode(by_hand()).answered({"votes": 0.9, "conf": 0.95}) == Accept("small")


def test_points_that_add_up_to_more_than_one_are_one_and_not_missing() -> None:
    """Points are rounded one by one: three thirds may be 1.0002."""
    third = tuple(Points(name, (0.5,), (0.0, 0.3334), 0.0) for name in "abc")
    assert fused_score(third, [0.9, 0.9, 0.9]) == 1.0
    readings = tuple(Reading(name, 0.0, (), (0, 0)) for name in "abc")
    tier = Tier("small", 1.0, (*readings, Reading("fused", 0.0, (), (0, 0), third)))
    policy = replace(by_hand(), tiers=(tier, Tier("large", 4.0)))
    assert policy.decide({"small": dict.fromkeys("abc", 0.9)}) == Accept("small")


def test_a_score_counts_readings_from_0_to_1_and_takes_all_others_for_missing() -> None:
    card = (Points("conf", (0.5,), (0.25, 0.5), 0.0),)
    told = (-5e-324, 0.0, 0.5, 1.0, math.nextafter(1.0, 2.0), 1.5, math.nan)
    assert [fused_score(card, [confidence]) for confidence in told] == [0.0, 0.25, 0.5, 0.5, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="zip"):
        fused_score(card, [])


# ----------------------------------------------------------------------------------------- against the plain loop


@st.composite
def fused_cascades(draw: st.DrawFn) -> tuple[Tier, ...]:
    """1 to 3 tiers, each with 1 to 3 readings and perhaps one that is fused of some of them, at any place after."""

    def points(reading: str) -> Points:
        cuts = tuple(draw(cut_lists))
        return Points(reading, cuts, tuple(draw(shares) for _ in (*cuts, None)), draw(shares))

    def tier(name: str) -> Tier:
        inputs = draw(st.lists(names, min_size=1, max_size=3, unique=True))
        readings = [Reading(reading, 0.0, (), (0, 0)) for reading in inputs]
        chosen = draw(st.lists(st.sampled_from(inputs), max_size=3, unique=True))
        if chosen:
            last = max(inputs.index(reading) for reading in chosen)
            fused = Reading("fused reading", 0.0, (0.5,), (1, 2, 3), tuple(points(reading) for reading in chosen))
            readings.insert(draw(st.integers(last + 1, len(inputs))), fused)
        return Tier(name, 1.0, tuple(readings))

    return tuple(tier(name) for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)))


def plain_action(nodes: Sequence[Node], root: int, tiers: Sequence[Tier], readings: Mapping[str, Any]) -> Action:
    """The next action, from the contract alone: a score that is not given is added up from what is."""
    listed = {(tier.name, reading.name): reading for tier in tiers for reading in tier.readings}
    first = {tier.name: tier.readings[0].name for tier in tiers if tier.readings}
    seen: dict[tuple[str, str], Any] = {}
    for tier, given_ in readings.items():
        by_name = given_ if isinstance(given_, Mapping) else {first[tier]: given_}
        seen.update({(tier, name): confidence for name, confidence in by_name.items()})
    node = nodes[root]
    while not isinstance(node, Stop):
        if node.tier not in readings:
            return Call(node.tier)
        if isinstance(node, Ask):
            node = nodes[node.then]
            continue
        if (node.tier, node.reading) in seen:
            number = as_number(seen[node.tier, node.reading])
        elif parts := listed[node.tier, node.reading].parts:
            number = 0.0
            for part in parts:
                if (node.tier, part.reading) not in seen:
                    return Verify(node.tier, part.reading)
                confidence = as_number(seen[node.tier, part.reading])
                below = 0 if confidence is None else sum(cut <= confidence for cut in part.cuts)
                number += part.missing if confidence is None else part.points[below]
            number = min(number, 1.0)
        else:
            return Verify(node.tier, node.reading)
        branch = None if number is None else sum(cut <= number for cut in node.cuts)
        node = nodes[node.missing if branch is None else node.then[branch]]
    return node.action


def same_action(policy: Policy, readings: Mapping[str, Any]) -> None:
    """Every root walks as the plain loop does; `decide` and `explain` agree at the root in use."""
    linked = compile_graph(policy.nodes, policy.tiers)
    for at, vertex in enumerate(policy.vertices):
        alone = replace(policy, point=OperatingPoint(at, at, 0.0))
        for context, root in ((None, vertex.root), *vertex.context_roots.items()):
            try:
                expected = plain_action(policy.nodes, root, policy.tiers, readings)
            except TypeError:
                with pytest.raises(TypeError):
                    walk(linked[root], readings)
            else:
                assert walk(linked[root], readings) == expected
                assert explain(alone, readings, context=context).action == expected


@examples(150)
@given(data=st.data())
def test_a_walk_with_fused_readings_takes_the_same_action_as_the_plain_loop(data: st.DataObject) -> None:
    policy = data.draw(policies(fused_cascades()))
    same_action(policy, data.draw(told(policy.tiers, confidences(policy.nodes))))


@examples(50)
@given(data=st.data())
def test_what_is_no_number_is_refused_where_a_score_needs_it_and_nowhere_else(data: st.DataObject) -> None:
    policy = data.draw(policies(fused_cascades()))
    same_action(policy, data.draw(told(policy.tiers, confidences(policy.nodes) | nonsense)))


@examples(50)
@given(parts=fused_cascades(), data=st.data())
def test_the_order_of_the_parts_only_changes_what_is_asked_for_first(
    parts: tuple[Tier, ...], data: st.DataObject
) -> None:
    """On a grid of 1/16 sums are exact, so that the score is the same in any order."""
    for tier in parts:
        for reading in tier.readings:
            exact = tuple(
                replace(p, points=tuple(math.floor(16 * x) / 16 for x in p.points), missing=0.0) for p in reading.parts
            )
            confidence = {part.reading: data.draw(shares) for part in exact}
            scores = {
                fused_score(order, [confidence[part.reading] for part in order]) for order in (exact, exact[::-1])
            }
            assert len(scores) == 1


# ------------------------------------------------------------------------------------------------------ explaining


def test_an_explanation_shows_the_score_its_interval_and_what_is_believed_there() -> None:
    told_of = explain(by_hand(), {"small": {"conf": 0.95, "votes": 0.9}})
    (look,) = told_of.looks
    assert (look.tier, look.reading, look.confidence, look.low, look.high) == ("small", "fused", 1.0, 0.75, None)
    assert look.belief == BELIEFS[2]
    assert told_of.quality == {"small": 0.95, "large": 0.9}
    assert told_of.worth == {"accept small": 0.95, "call large": 0.6}
    assert "fused of small is 1, in the interval fused >= 0.75" in str(told_of)
    low = explain(by_hand(), {"small": {"conf": 0.1, "votes": None}}).looks[0]
    assert (low.confidence, low.low, low.high, low.belief) == (0.25, None, 0.5, BELIEFS[0])


def test_before_every_input_is_read_there_is_nothing_to_look_at() -> None:
    told_of = explain(by_hand(), {"small": {"conf": 0.95}})
    assert (told_of.action, told_of.looks, told_of.quality) == (Verify("small", "votes"), (), {})


# -------------------------------------------------------------------------------------------------------- the file


@examples(50)
@given(policies(fused_cascades()))
def test_a_policy_with_fused_readings_comes_back_equal_and_is_written_again_byte_for_byte(policy: Policy) -> None:
    text = dump_policy(policy)
    back = parse_policy(text.encode())
    assert back == policy
    assert dump_policy(back) == text
    assert policy_id(back) == policy_id(policy) == json.loads(text)["id"]
    assert parse_policy(sealed(json.loads(text))) == policy


def test_the_file_says_all_that_another_reader_needs_to_add_up_the_score() -> None:
    document = json.loads(dump_policy(by_hand()))
    *inputs, fused = document["tiers"][0]["readings"]
    assert [set(reading) for reading in inputs] == [{"name", "price", "cuts", "counts"}] * 2
    assert fused["parts"] == [
        {"of": "conf", "cuts": [0.5, 0.9], "points": [0.0, 0.25, 0.5], "missing": 0.125},
        {"of": "votes", "cuts": [0.25], "points": [0.0, 0.5], "missing": 0.25},
    ]


def test_whole_numbers_in_points_leave_the_id_as_it_is() -> None:
    def policy(zero: float, one: float) -> Policy:
        card = (Points("conf", (zero, one), (zero, -zero, one), one),)
        readings = (SMALL.readings[0], Reading("fused", 0.0, (), (0, 0), card))
        return replace(by_hand(), tiers=(Tier("small", 1.0, readings), Tier("large", 4.0)))

    assert dump_policy(policy(0, 1)) == dump_policy(policy(0.0, 1.0))


@pytest.mark.parametrize(
    "change",
    [
        lambda conf: replace(conf, cuts=(0.5, 0.8)),
        lambda conf: replace(conf, points=(0.0, 0.25, 0.4)),
        lambda conf: replace(conf, missing=0.0),
        lambda conf: replace(conf, reading="votes"),
    ],
    ids=["a cut", "a point", "the points of a missing reading", "the reading"],
)
def test_the_id_changes_with(change: Callable[[Points], Points]) -> None:
    def policy(*parts: Points) -> Policy:
        readings = (*SMALL.readings[:2], replace(SMALL.readings[2], parts=parts))
        return replace(by_hand(), tiers=(replace(SMALL, readings=readings), Tier("large", 4.0)))

    assert policy_id(policy(change(CONF))) != policy_id(policy(CONF))
    assert len({policy_id(policy(*order)) for order in ((CONF, VOTES), (VOTES, CONF))}) == 2


FUSED = ("tiers", 0, "readings", 2)
PART = (*FUSED, "parts", 1)
MALFORMED: dict[str, tuple[str, Callable[[Document], None], str]] = {
    "no parts": ("E_SCHEMA", changed(*FUSED, "parts", to=[]), "tiers[0].readings[2].parts"),
    "parts that are null": ("E_TYPE", changed(*FUSED, "parts", to=None), "tiers[0].readings[2].parts"),
    "parts that are no list": ("E_TYPE", changed(*FUSED, "parts", to={}), "tiers[0].readings[2].parts"),
    "a part that is no object": ("E_TYPE", changed(*PART, to=0.5), "tiers[0].readings[2].parts[1]"),
    "an unknown reading": ("E_SCHEMA", changed(*PART, "of", to="judge"), "tiers[0].readings[2].parts[1].of"),
    "itself": ("E_SCHEMA", changed(*PART, "of", to="fused"), "tiers[0].readings[2].parts[1].of"),
    "a reading of no name": ("E_TYPE", changed(*PART, "of", to=1), "tiers[0].readings[2].parts[1].of"),
    "a reading twice": ("E_SCHEMA", changed(*PART, "of", to="conf"), "tiers[0].readings[2].parts"),
    "cuts that fall": ("E_RANGE", changed(*FUSED, "parts", 0, "cuts", to=[0.9, 0.5]), "parts[0].cuts"),
    "cuts that stand still": ("E_RANGE", changed(*FUSED, "parts", 0, "cuts", to=[0.5, 0.5]), "parts[0].cuts"),
    "a cut above 1": ("E_RANGE", changed(*PART, "cuts", to=[1.5]), "parts[1].cuts"),
    "a cut that is no number": ("E_TYPE", changed(*PART, "cuts", to=["0.5"]), "parts[1].cuts"),
    "a point too few": ("E_SCHEMA", changed(*PART, "points", to=[0.5]), "parts[1].points"),
    "a point too many": ("E_SCHEMA", changed(*PART, "points", to=[0.0, 0.5, 0.5]), "parts[1].points"),
    "a negative point": ("E_RANGE", changed(*PART, "points", to=[-0.1, 0.5]), "parts[1].points"),
    "a point above 1": ("E_RANGE", changed(*PART, "points", to=[0.0, 1.1]), "parts[1].points"),
    "a point that is no number": ("E_TYPE", changed(*PART, "points", to=[0.0, True]), "parts[1].points"),
    "missing below 0": ("E_RANGE", changed(*PART, "missing", to=-0.5), "parts[1].missing"),
    "missing that is null": ("E_TYPE", changed(*PART, "missing", to=None), "parts[1].missing"),
    "an unknown key": ("E_SCHEMA", changed(*PART, "colour", to="red"), "parts[1].colour"),
    **{
        f"no {key}": ("E_SCHEMA", without(*PART, key), f"parts[1].{key}") for key in ("of", "cuts", "points", "missing")
    },
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_fused_reading_is_refused_for(what: str) -> None:
    code, change, place = MALFORMED[what]
    document = json.loads(dump_policy(by_hand()))
    change(document)
    error = refusal(sealed(document))
    assert (error.code, place in error.place) == (code, True), str(error)


def test_a_part_must_stand_before_what_is_made_of_it() -> None:
    conf, votes, fused = SMALL.readings
    tier = replace(SMALL, readings=(conf, fused, votes))
    error = refusal(dump_policy(replace(by_hand(), tiers=(tier, Tier("large", 4.0)))).encode())
    assert (error.code, error.place) == ("E_SCHEMA", "tiers[0].readings[1].parts[1].of")


def test_a_part_that_is_itself_fused_is_refused() -> None:
    again = Reading("again", 0.0, (), (0, 0), (Points("fused", (0.5,), (0.0, 1.0), 0.0),))
    tier = replace(SMALL, readings=(*SMALL.readings, again))
    error = refusal(dump_policy(replace(by_hand(), tiers=(tier, Tier("large", 4.0)))).encode())
    assert (error.code, error.place) == ("E_SCHEMA", "tiers[0].readings[3].parts[0].of")
    assert "'fused'" in error.message


def test_another_tier_s_reading_is_no_part() -> None:
    conf, _, fused = SMALL.readings
    large = Tier("large", 4.0, (conf, replace(fused, parts=(VOTES,))))
    error = refusal(dump_policy(replace(by_hand(), tiers=(SMALL, large))).encode())
    assert (error.code, error.place) == ("E_SCHEMA", "tiers[1].readings[1].parts[0].of")


def test_a_file_without_fused_readings_has_no_word_of_them() -> None:
    golden = Path(__file__).resolve().parents[1] / "golden" / "policy.json"
    policy = load_policy(golden)
    assert dump_policy(policy) == golden.read_text("utf-8")
    assert not [reading for tier in policy.tiers for reading in tier.readings if reading.parts]
    assert '"parts"' not in golden.read_text("utf-8")


def test_a_score_of_numbers_of_any_kind_is_that_of_floats() -> None:
    for conf, votes in [(1, 0), (np.float32(0.5), np.int64(1)), (1, np.float64(0.25))]:
        plain = fused_score((CONF, VOTES), [float(conf), float(votes)])
        (look,) = explain(by_hand(), {"small": {"conf": conf, "votes": votes}}).looks
        assert look.confidence == plain
