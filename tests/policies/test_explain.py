"""An explanation is of the decision that is made: its walk, what was known at its end, and what that was worth."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.fitting.fit import fit
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.copula import Copula
from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.episode import Episode
from metaverify.policies.explain import Explanation, action_json, action_text, explain, interval_text, unknown_readings
from metaverify.policies.file import load_policy
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.policies.policy import Belief, OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Reading, Tier
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.worlds import independent, shared_difficulty, token_prices

from .plain import as_number
from .strategies import confidences, examples, nonsense, policies, tallies, told

SMALL, LARGE = (
    Tier("small", 1.0, (Reading("conf", 0.0, (), (0, 0)), Reading("judge", 0.5, (), (0, 0)))),
    Tier("large", 9),
)
BELIEFS = {
    1: (
        Belief(0.2, (0.1, 0.6), (0.12, 0.15)),
        Belief(0.5, (0.5, 0.7), (0.53, 0.25)),
        Belief(0.25, (0.9, 0.95), (None, 0.5)),
        Belief(0.05, (0.4, 0.7), (None, 0.41)),
    )
}
POLICY = Policy(
    tiers=(SMALL, LARGE),
    nodes=(
        Ask("small", 1),
        Read("small", "conf", (0.3, 0.7), (3, 2, 5), 3),
        Read("small", "judge", (0.5,), (3, 5), 5),
        Ask("large", 4),
        Stop(Accept("large")),
        Stop(Accept("small")),
    ),
    vertices=(Vertex(0.05, 4.0, 0.8, 0, {}, BELIEFS), Vertex(0.01, 9.5, 0.9, 0, {}, BELIEFS)),
    point=OperatingPoint(0, 0, 0.0, 4.0),
)


def steps(policy: Policy, root: int, readings: Mapping[str, Any]) -> list[tuple[int, int, float | None]]:
    """The read nodes that a request has passed: (node, outcome, confidence), by the contract's loop."""
    first = {tier.name: tier.readings[0].name for tier in policy.tiers if tier.readings}
    passed: list[tuple[int, int, float | None]] = []
    at = root
    while not isinstance(node := policy.nodes[at], Stop) and node.tier in readings:
        given_ = readings[node.tier]
        by_name = given_ if isinstance(given_, Mapping) else {first.get(node.tier, ""): given_}
        if isinstance(node, Ask):
            at = node.then
        elif node.reading not in by_name:
            break
        else:
            confidence = as_number(by_name[node.reading])
            outcome = len(node.then) if confidence is None else sum(cut <= confidence for cut in node.cuts)
            passed.append((at, outcome, confidence))
            at = node.missing if confidence is None else node.then[outcome]
    return passed


def root_of(policy: Policy, context: str | None, key: Any) -> int:
    vertex = policy.vertices[policy.arm(key)]
    return vertex.root if context is None else vertex.context_roots.get(context, vertex.root)


# -------------------------------------------------------------------------------------------- any policy at all


@examples(100)
@given(data=st.data())
def test_the_action_explained_is_the_action_decided(data: st.DataObject) -> None:
    policy = data.draw(policies(votes=True))
    readings = data.draw(told(policy.tiers, confidences(policy.nodes)))
    known = {
        "context": data.draw(st.sampled_from([None, "never seen", *policy.vertices[0].context_roots])),
        "key": data.draw(st.integers(0, 9)),
    }
    assert explain(policy, readings, **known).action == policy.decide(readings, **known)


@examples(60)
@given(data=st.data())
def test_what_decide_refuses_explain_refuses_alike(data: st.DataObject) -> None:
    policy = data.draw(policies(votes=True))
    readings = data.draw(told(policy.tiers, confidences(policy.nodes) | nonsense, tallies | nonsense))
    if data.draw(st.booleans()):
        readings["a tier that nobody has"] = 0.5
    key = data.draw(st.none() | st.integers(0, 9))
    try:
        action = policy.decide(readings, key=key)
    except (TypeError, ValueError) as refusal:
        with pytest.raises(type(refusal), match=re.escape(str(refusal))):
            explain(policy, readings, key=key)
    else:
        assert explain(policy, readings, key=key).action == action


@examples(100)
@given(data=st.data())
def test_the_looks_are_the_readings_passed_in_order_each_within_its_interval(data: st.DataObject) -> None:
    policy = data.draw(policies())
    readings = data.draw(told(policy.tiers, confidences(policy.nodes)))
    context = data.draw(st.sampled_from([None, *policy.vertices[0].context_roots]))
    explanation = explain(policy, readings, context=context, key=1)
    passed = steps(policy, root_of(policy, context, 1), readings)
    assert len(explanation.looks) == len(passed)
    for look, (at, outcome, confidence) in zip(explanation.looks, passed, strict=True):
        node = policy.nodes[at]
        assert isinstance(node, Read)
        assert (look.tier, look.reading, look.confidence) == (node.tier, node.reading, confidence)
        bounds = (None, *node.cuts, None)
        assert (look.low, look.high) == ((None, None) if confidence is None else bounds[outcome : outcome + 2])
        assert confidence is None or (look.low or 0.0) <= confidence
        assert confidence is None or look.high is None or confidence < look.high
        beliefs = policy.vertices[explanation.vertex].beliefs.get(at)
        assert look.belief == (None if beliefs is None else beliefs[outcome])


@examples(60)
@given(data=st.data())
def test_what_is_known_is_the_belief_of_the_last_look(data: st.DataObject) -> None:
    policy = data.draw(policies(votes=True))
    readings = data.draw(told(policy.tiers, confidences(policy.nodes)))
    explanation = explain(policy, readings, key=1)
    belief = explanation.looks[-1].belief if explanation.looks else None
    if belief is None:
        assert explanation.quality == explanation.worth == {}
        return
    names = [tier.name for tier in policy.tiers]
    quality = {t.name: q for t, q in zip(policy.tiers, belief.quality, strict=True) if t.answer}
    assert explanation.quality == quality
    worth = {f"accept {name}": value for name, value in quality.items() if name in readings}
    if policy.abstain is not None:
        worth["abstain"] = policy.abstain
    for name, value in zip(names, belief.worth, strict=True):
        if value is not None:
            start = "call" if name in quality else "read"
            worth[f"read on at {name}" if name in readings else f"{start} {name}"] = value
    assert explanation.worth == worth


@examples(30)
@given(data=st.data())
def test_the_share_is_the_part_of_requests_that_follow_the_same_graph(data: st.DataObject) -> None:
    policy = data.draw(policies())
    mixed = replace(policy, point=OperatingPoint(0, min(1, len(policy.vertices) - 1), data.draw(st.floats(0.0, 1.0))))
    taken = {}
    for key in range(40):
        explanation = explain(mixed, {}, key=key)
        assert explanation.vertex == mixed.arm(key)
        assert explanation.price == mixed.vertices[explanation.vertex].price
        taken[explanation.vertex] = explanation.share
    if len(taken) == 2:
        assert sum(taken.values()) == pytest.approx(1.0)
        assert taken[1] == mixed.point.share
    elif mixed.point.low == mixed.point.high:
        assert taken == {0: 1.0}


@examples(40)
@given(data=st.data())
def test_an_explanation_has_a_text_and_is_plain_json(data: st.DataObject) -> None:
    policy = data.draw(policies(votes=True))
    readings = data.draw(told(policy.tiers, confidences(policy.nodes)))
    explanation = explain(policy, readings, key=1)
    assert str(explanation).startswith(action_text(explanation.action))
    again = json.loads(json.dumps(explanation.to_json(), allow_nan=False))
    assert again["action"] == action_json(explanation.action)
    assert [look["confidence"] for look in again["looks"]] == [look.confidence for look in explanation.looks]
    assert again["worth"] == explanation.worth


# ------------------------------------------------------------------------------------------------- by hand


def test_an_explanation_in_words() -> None:
    assert str(explain(POLICY, {"small": 0.42})) == (
        "read judge of small\n"
        "  conf of small is 0.42, in the interval 0.3 <= conf < 0.7\n"
        "  expected quality of each answer, for queries like this: small 0.500, large 0.700\n"
        "  worth of each action (quality less price x cost to come): "
        "accept small 0.500, read on at small 0.530, call large 0.250\n"
        "  graph 0, followed by all requests, pays 0.05 of quality per unit cost\n"
        "  certificate: none"
    )


@pytest.mark.parametrize(("worth", "rival"), [(0.901, "call large"), (0.9, None), (0.899, None)])
def test_an_action_that_looks_worse_than_another_is_explained(worth: float, rival: str | None) -> None:
    row = replace(BELIEFS[1][2], worth=(None, worth))
    beliefs = {1: (*BELIEFS[1][:2], row, BELIEFS[1][3])}
    policy = replace(POLICY, vertices=tuple(replace(vertex, beliefs=beliefs) for vertex in POLICY.vertices))
    explanation = explain(policy, {"small": 0.8})
    assert explanation.action == Accept("small")
    assert explanation.worth == {"accept small": 0.9, "call large": worth}
    assert explanation.rival == rival
    assert ("call large looks better here" in str(explanation)) is (rival is not None)


def test_a_missing_reading_in_words() -> None:
    lines = str(explain(POLICY, {"small": None})).splitlines()
    assert lines[:2] == ["call large", "  conf of small is missing"]


VOTES = load_policy(Path(__file__).resolve().parents[1] / "golden" / "votes.json")


@pytest.mark.parametrize(
    ("votes", "share", "worth", "words"),
    [
        ((1, 1), 0.95, {"accept small": 0.5, "read on at small": 0.75, "call large": 0.5}, "1 of 1 yes"),
        ((0, 2), 0.15, {"accept small": 0.25, "call large": 0.5}, "0 of 2 yes"),
        ((3, 3), 0.4, {"accept small": 0.875, "call large": 0.5}, "3 of 3 yes"),
        ((2, 4), 0.25, {"accept small": 0.5, "read on at small": 0.625, "call large": 0.5}, "2 of 4 yes"),
        (None, 0.05, {"accept small": 0.5, "call large": 0.5}, "missing"),
    ],
)
def test_votes_are_explained_by_their_tally(votes: Any, share: float, worth: dict[str, float], words: str) -> None:
    explanation = explain(VOTES, {"small": {"self_verify": votes}})
    (look,) = explanation.looks
    assert (look.votes, look.belief.share if look.belief else None) == (votes, share)
    assert explanation.worth == worth
    assert f"\n  self_verify of small is {words}\n" in str(explanation)
    assert explain(VOTES, {"small": {"self_verify": (0, 0)}}).looks == ()


def test_before_anything_was_read_there_is_nothing_to_believe() -> None:
    for readings in ({}, {"small": {}}):
        explanation = explain(POLICY, readings)
        assert (explanation.looks, explanation.quality, explanation.worth) == ((), {}, {})


def test_a_mixture_says_how_many_requests_are_treated_so() -> None:
    mixed = replace(POLICY, point=OperatingPoint(0, 1, 0.25, 5.0))
    texts = {explain(mixed, {}, key=key).vertex: str(explain(mixed, {}, key=key)) for key in range(40)}
    assert "followed by 75.0% of requests, pays 0.05 " in texts[0]
    assert "followed by 25.0% of requests, pays 0.01 " in texts[1]


@pytest.mark.parametrize("narrow", [np.float32, np.float16])
def test_a_narrow_float_is_explained_as_it_is_decided(narrow: Any) -> None:
    for cut in (0.3, 0.7):
        explanation = explain(POLICY, {"small": narrow(cut)})
        assert explanation.action == POLICY.decide({"small": narrow(cut)})
        (look,) = explanation.looks
        assert look.confidence is not None
        assert (look.low or 0.0) <= look.confidence < (look.high or math.inf)


ACTIONS: list[tuple[Action, dict[str, str], str]] = [
    (Call("a"), {"action": "call", "tier": "a"}, "call a"),
    (Verify("a", "r"), {"action": "verify", "tier": "a", "reading": "r"}, "read r of a"),
    (Accept("a"), {"action": "accept", "tier": "a"}, "accept the answer of a"),
    (Abstain(), {"action": "abstain"}, "abstain"),
]


@pytest.mark.parametrize(("action", "plain", "words"), ACTIONS, ids=lambda value: str(value))
def test_every_action_has_plain_types_and_words(action: Action, plain: dict[str, str], words: str) -> None:
    assert action_json(action) == plain
    assert action_text(action) == words


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (None, None, "any conf"),
        (None, 0.5, "conf < 0.5"),
        (0.5, None, "conf >= 0.5"),
        (0.25, 0.5, "0.25 <= conf < 0.5"),
        (0.0, 1.0, "0.0 <= conf < 1.0"),
    ],
)
def test_an_interval_in_words(low: float | None, high: float | None, words: str) -> None:
    assert interval_text("conf", low, high) == words


def test_an_interval_in_words_keeps_every_figure_of_its_cuts() -> None:
    low, high = 0.9845314, 0.99999985
    words = interval_text("conf", low, high).split()
    assert (float(words[0]), float(words[-1])) == (low, high)


# ------------------------------------------------------------------------------------------------ fitted policies


@pytest.fixture(scope="module")
def log() -> ReplayLog:
    return shared_difficulty(3, 5, missing=0.05).draw(600, 1)


def walked(policy: Policy, log: ReplayLog) -> list[tuple[dict[str, Any], Explanation]]:
    """Explanations at every step of every query's episode in a log whose readings come with the answers."""
    found = []
    for row in range(len(log)):
        episode = Episode(policy, key=row)
        while not episode.done:
            assert isinstance(episode.action, Call)
            reading = log.tier(episode.action.tier).readings[0]
            episode.answered({reading.name: float(reading.confidence[row])})
            found.append((episode.readings, explain(policy, episode.readings, key=row)))
            assert found[-1][1].action == episode.action
    return found


def worth_taken(action: Action, readings: Mapping[str, Any], worth: Mapping[str, float]) -> float:
    match action:
        case Accept(tier):
            return worth[f"accept {tier}"]
        case Abstain():
            return worth["abstain"]
        case Call(tier) | Verify(tier, _):
            return worth[f"{'read on at' if tier in readings else 'call'} {tier}"]


@pytest.mark.parametrize(
    ("learner", "goal"),
    [
        (TableLearner(Copula(), bins=5), {"budget": 5.0}),
        (TableLearner(Copula(), bins=5), {"price": 0.02}),
        (TableLearner(Copula(), bins=5, slack=0.0), {"budget": 6.0}),
        (TableLearner(Copula(), bins=5, abstain=0.6), {"budget": 3.0}),
    ],
    ids=["budget", "price", "exact", "abstain"],
)
def test_the_action_taken_is_worth_the_most_up_to_the_slack(
    log: ReplayLog, learner: TableLearner, goal: dict[str, float]
) -> None:
    policy = fit(log, learner=learner, folds=3, compare=False, **goal).policy
    rounding = 1e-3  # beliefs are kept to three digits
    checked = 0
    for readings, explanation in walked(policy, log):
        if not explanation.worth or explanation.looks[-1].belief.share < 2e-3:  # rarer states may lose more
            continue
        taken = worth_taken(explanation.action, readings, explanation.worth)
        assert max(explanation.worth.values()) <= taken + 4 * learner.slack + rounding
        checked += 1
    assert checked > len(log) // 2


def test_prices_that_vary_do_not_change_what_the_best_action_is() -> None:
    log = token_prices(3, 5).draw(600, 2)
    policy = fit(log, budget=5.0, learner=TableLearner(bins=5, slack=0.0), folds=3, compare=False).policy
    checked = 0
    for readings, explanation in walked(policy, log):
        if explanation.worth:  # empty before anything was read
            taken = worth_taken(explanation.action, readings, explanation.worth)
            assert max(explanation.worth.values()) <= taken + 1e-3
            checked += 1
    assert checked > len(log) // 2


def test_with_the_dial_turned_away_what_is_told_still_fits_the_action() -> None:
    """The file keeps the beliefs of the graphs in use; the nodes that others share with them were valued for those."""
    log = independent(3, 5).draw(600, 0)
    policy = fit(log, budget=5.0, learner=TableLearner(bins=5), folds=3, compare=False).policy
    for vertex in policy.vertices:
        for readings, explanation in walked(policy.at(price=vertex.price), log.take(np.arange(0, len(log), 3))):
            if explanation.worth and explanation.looks[-1].belief.share >= 2e-3:
                taken = worth_taken(explanation.action, readings, explanation.worth)
                assert max(explanation.worth.values()) <= taken + 0.02, str(explanation)


@pytest.mark.parametrize(("votes", "row"), [((2, 2), 1), ((1, 2), 0), ((3, 4), 1), ((1, 1), None), (None, 2)])
def test_votes_that_are_all_asked_for_are_explained_once_they_are_in(votes: Any, row: int | None) -> None:
    tier = Tier("small", 1.0, (Reading("votes", 2.0, (0.75,), (1, 1, 0), votes=2),))
    nodes = (Ask("small", 1), Read("small", "votes", (0.75,), (2, 3), 2), Stop(Abstain()), Stop(Accept("small")))
    beliefs = tuple(Belief(share, (quality,), (None,)) for share, quality in ((0.5, 0.2), (0.4, 0.9), (0.1, 0.4)))
    vertex = Vertex(0.0, 3.0, 0.5, 0, {}, {1: beliefs})
    policy = Policy((tier,), nodes, (vertex,), OperatingPoint(0, 0, 0.0), abstain=0.3)
    explanation = explain(policy, {"small": {"votes": votes}})
    assert [look.belief for look in explanation.looks] == [None if row is None else beliefs[row]]
    assert explanation.action == {0: Abstain(), 1: Accept("small"), 2: Abstain(), None: Verify("small", "votes")}[row]


def test_readings_that_a_policy_does_not_know_are_told_with_the_nearest() -> None:
    tiers = (Tier("small", 1.0, (Reading("sure", 0.0, (0.5,), (1, 1, 0)),)), Tier("large", 4.0))
    nodes = (Ask("small", 1), Stop(Accept("small")))
    policy = Policy(tiers, nodes, (Vertex(0.0, 1.0, 0.5, 0),), OperatingPoint(0, 0, 0.0))
    assert unknown_readings(policy, {"small": {"sure": 0.3}, "large": {}}) == []
    said = unknown_readings(policy, {"small": {"sur": 0.3, "sure": 0.2}, "large": {"sure": None}})
    assert said == [
        "reading 'sur' of 'small' is not one that the policy knows (sure), and changes nothing; did you mean 'sure'?",
        "reading 'sure' of 'large' is not one that the policy knows (none), and changes nothing",
    ]
