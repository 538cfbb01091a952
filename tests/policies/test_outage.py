"""A policy that was solved for an outage decides in it as its file says, and otherwise as if it had not been."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metaverify.policies.actions import Accept, Call
from metaverify.policies.decision_log import decision_lines
from metaverify.policies.episode import Episode, EpisodeError
from metaverify.policies.file import load_policy
from metaverify.policies.graph import Ask, GraphError, Read, Stop, compact
from metaverify.policies.guards import Guard, TokenBucket
from metaverify.policies.monitor import Monitor
from metaverify.policies.policy import OperatingPoint, Outage, Policy, Vertex
from metaverify.policies.routed import Routed
from metaverify.policies.router import Failure, Look, Reply, Router
from metaverify.policies.tiers import Reading, Tier

from .plain import plain_action
from .strategies import cascades, confidences, examples, policies, told
from .test_store import Clock

GOLDEN = load_policy(Path(__file__).resolve().parents[1] / "golden" / "outages.json")
LOW, HIGH = (replace(GOLDEN, point=OperatingPoint(at, at, 0.0)) for at in (0, 1))


def without_contexts(policy: Policy) -> Policy:
    def pooled(vertex: Vertex) -> Vertex:
        return replace(vertex, context_roots={}, outages=tuple(replace(o, context_roots={}) for o in vertex.outages))

    return replace(policy, vertices=tuple(map(pooled, policy.vertices)), context=())


PLAIN = without_contexts(LOW)


def bare(policy: Policy) -> Policy:
    """The policy as it would be had it not been solved for any outage."""
    nodes, place = compact(policy.nodes, [r for v in policy.vertices for r in (v.root, *v.context_roots.values())])
    kept = [replace(v, beliefs={}, outages=()).moved(place) for v in policy.vertices]
    return replace(policy, nodes=nodes, vertices=tuple(kept))


def covering(policy: Policy, down: frozenset[str]) -> int | None:
    """Which of a vertex' outages is the smallest that has all of these tiers."""
    sizes = {
        at: len(outage.without) for at, outage in enumerate(policy.vertices[0].outages) if down <= {*outage.without}
    }
    return min(sizes, key=lambda at: (sizes[at], at), default=None)


# ------------------------------------------------------------------------------------------------------- deciding


@examples(30)
@given(data=st.data())
def test_a_policy_decides_from_the_root_of_the_smallest_outage_that_has_all_tiers_that_are_down(
    data: st.DataObject,
) -> None:
    policy = data.draw(policies(cascades(votes=True, least=2), outages=True))
    assume(policy.vertices[0].outages)
    of = data.draw(st.sampled_from(policy.vertices[0].outages)).without
    down = data.draw(st.sets(st.sampled_from(of), min_size=1).map(frozenset))
    at = covering(policy, down)
    assert at is not None
    readings = data.draw(told(policy.tiers, confidences(policy.nodes)))
    context = data.draw(st.none() | st.sampled_from(["?", *policy.vertices[0].context_roots]))
    key = data.draw(st.integers() | st.text())
    outage = policy.vertices[policy.arm(key)].outages[at]
    first = {tier.name: tier.readings[0].name for tier in policy.tiers if tier.readings}
    votes = {(tier.name, r.name): r.votes for tier in policy.tiers for r in tier.readings if r.votes}
    root = outage.context_roots.get(context or "", outage.root)
    try:
        wanted: Any = plain_action(policy.nodes, root, first, readings, votes)
    except TypeError:
        wanted = TypeError
    try:
        found: Any = policy.without(*down).decide(readings, context=context, key=key)
    except TypeError:
        found = TypeError
    assert found == wanted
    assert not isinstance(found, Call) or found.tier not in outage.without


@examples(40)
@given(data=st.data())
def test_while_nothing_is_down_a_policy_decides_as_if_no_outage_had_been_thought_of(data: st.DataObject) -> None:
    policy = data.draw(policies(outages=True))
    readings = data.draw(told(policy.tiers, st.floats(0.0, 1.0)))
    context = data.draw(st.none() | st.sampled_from(["?", *policy.vertices[0].context_roots]))
    key = data.draw(st.integers())
    assert policy.without() is policy
    assert policy.decide(readings, context=context, key=key) == bare(policy).decide(readings, context=context, key=key)


@examples(15)
@given(data=st.data())
def test_tiers_may_fail_one_after_another(data: st.DataObject) -> None:
    policy = data.draw(policies(cascades(least=3), outages=True))
    assume(any(len(outage.without) > 1 for outage in policy.vertices[0].outages))
    of = data.draw(st.sampled_from([o.without for o in policy.vertices[0].outages if len(o.without) > 1]))
    first, *others = data.draw(st.permutations(of))
    assert policy.without(first).without(*others) == policy.without(*of) == policy.without(*of).without(first)
    assert policy.without(*of).point == policy.point
    assert all(policy.without(*of).arm(key) == policy.arm(key) for key in range(20))


def test_an_outage_that_was_not_solved_for_is_refused() -> None:
    with pytest.raises(ValueError, match=r"without medium\+small: .* \(it was for large, large\+small, medium\)"):
        GOLDEN.without("medium", "small")
    with pytest.raises(ValueError, match=r"without 'lagre', which is not one .* did you mean 'large'\?"):
        GOLDEN.without("lagre")
    (vertex, *_), tiers = GOLDEN.vertices, GOLDEN.tiers
    nodes, place = compact(GOLDEN.nodes, [vertex.root, *vertex.context_roots.values()])
    alone = Policy(tiers, nodes, (replace(vertex, outages=()).moved(place),), OperatingPoint(0, 0, 0.0))
    words = (
        "without large: the policy was not solved for that outage (it was for none); `metaverify fit --outages` does it"
    )
    for policy in (bare(GOLDEN), alone):
        with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
            policy.without("large")
    words = "without 'x', which is not one of the tiers small, medium, large"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        GOLDEN.without("x")


def test_what_was_found_while_all_tiers_were_up_is_not_said_of_an_outage() -> None:
    believing = replace(GOLDEN, evidence={"rows": 100}, provenance={"seed": 1})
    assert believing.without("large").evidence == {}
    assert believing.without("large").provenance == {"seed": 1}
    assert believing.without().evidence == {"rows": 100}
    for before, after in zip(GOLDEN.vertices, GOLDEN.without("large").vertices, strict=True):
        assert (after.price, after.cost, after.quality) == (before.price, before.cost, before.quality)
        assert [outage.without for outage in after.outages] == [("large",), ("large", "small")]


def test_a_graph_that_calls_what_is_down_is_none() -> None:
    nodes = (Ask("small", 1), Stop(Accept("small")))
    vertex = Vertex(0.0, 1.0, 0.5, 0, outages=(Outage(("small",), 0),))
    tiers = (Tier("small", 1.0, (Reading("conf", 0.0, (0.5,), (5, 5, 0)),)), Tier("large", 2.0))
    with pytest.raises(GraphError, match=r"vertices\[0\]\.outages\[0\]: calls 'small'"):
        Policy(tiers, nodes, (vertex,), OperatingPoint(0, 0, 0.0))
    deeper = (
        Ask("small", 2),
        Ask("small", 4),
        Read("small", "conf", (0.5,), (3, 4), 3),
        Ask("large", 5),
        Stop(Accept("small")),
        Stop(Accept("large")),
    )
    for down in (Outage(("large",), 0, {"code": 1}), Outage(("large",), 1, {"code": 0})):
        vertex = Vertex(0.0, 1.0, 0.5, 0, {"code": 1}, outages=(Outage(("large",), 1, {"code": 1}), down))
        with pytest.raises(GraphError, match=r"^vertices\[0\]\.outages\[1\]: calls 'large', without which it is to do"):
            Policy(tiers, deeper, (vertex,), OperatingPoint(0, 0, 0.0))


# ------------------------------------------------------------------------------------------------------- episodes


def test_an_episode_goes_on_without_the_tier_that_failed_and_with_all_that_is_known() -> None:
    episode = Episode(HIGH)
    assert episode.answered({"conf": 0.6}) == Call("large")
    assert episode.failed() == Call("medium")
    assert (episode.without, episode.readings) == ({"large"}, {"small": {"conf": 0.6}})
    assert episode.answered() == Accept("medium")
    assert episode.steps == (Call("small"), Call("large"), Call("medium"))


def test_what_was_read_before_the_outage_decides_in_it() -> None:
    episode = Episode(LOW)
    assert episode.answered({"conf": 0.4}) == Call("large")
    assert episode.failed() == Call("medium")
    in_hand = Episode(HIGH)
    assert in_hand.answered({"conf": 0.74}) == Call("large")
    assert in_hand.failed() == Call("medium")  # of the dearer graph, whose cut is higher


def test_where_no_graph_was_solved_for_the_outage_the_tier_has_answered_and_nothing_can_be_read() -> None:
    episode = Episode(LOW)
    assert episode.answered({"conf": 0.1}) == Call("large")
    assert episode.failed() == Call("medium")
    assert episode.failed() == Accept("medium")  # large and medium at once is not in the file
    assert (episode.without, episode.readings["medium"]) == ({"large"}, {})


def test_where_the_outage_reads_what_is_no_number_nothing_changes() -> None:
    """In the graph before nobody looked at it."""
    nodes = (
        Ask("small", 1),
        Ask("large", 5),
        Ask("small", 3),
        Read("small", "conf", (0.5,), (4, 6), 4),
        Ask("medium", 7),
        Stop(Accept("large")),
        Stop(Accept("small")),
        Stop(Accept("medium")),
    )
    vertex = Vertex(0.0, 1.0, 0.5, 0, outages=(Outage(("large",), 2),))
    episode = Episode(replace(PLAIN, nodes=nodes, vertices=(vertex,)))
    assert episode.answered({"conf": "nonsense"}) == Call("large")  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="'conf' of 'small' is 'nonsense'"):
        episode.failed()
    assert (episode.action, episode.without, episode.steps) == (Call("large"), frozenset(), (Call("small"),))
    assert episode.answered() == Accept("large")


def test_failing_is_not_heard_where_no_call_is_pending() -> None:
    episode = Episode(LOW)
    assert episode.answered({"conf": 0.9}) == Accept("small")
    with pytest.raises(EpisodeError, match="no call is awaited"):
        episode.failed()
    assert (episode.action, episode.without) == (Accept("small"), frozenset())


# -------------------------------------------------------------------------------------------------------- routers


def routed(policy: Policy, failing: tuple[str, ...] = (), conf: float = 0.1, **options: Any) -> Routed:
    without = options.pop("without", ())

    def call(tier: str, _: object) -> Reply:
        if tier in failing:
            raise Failure("rate limit", 0.0)
        return Reply(tier, {"conf": conf} if tier == "small" else {})

    return Router(policy, call, **options).route("?", key=7, without=without)


def test_a_router_takes_the_graph_of_the_outage_and_says_so() -> None:
    found = routed(LOW, ("large",))
    assert (found.answer, found.cost, found.reasons, found.without) == ("medium", 5.0, ("rate limit",), ("large",))
    assert [step.without for step in found.steps] == [(), (), ("large",), ("large",)]
    assert [line["without"] for line in decision_lines(found, 0.0)] == [[], [], ["large"], ["large"]]
    both = routed(LOW, ("large", "small"))
    assert (both.answer, both.reasons) == ("medium", ("rate limit",))  # as one where large need not be called
    assert both.without == ("small",)


def test_a_tier_that_is_known_to_be_down_is_not_called_and_costs_nothing() -> None:
    found = routed(LOW, without=("large", "no tier of this policy"))
    assert [type(step.action) for step in found.steps] == [Call, Call, Accept]
    assert (found.answer, found.cost, found.reasons, found.without) == ("medium", 5.0, (), ("large",))
    unsolved = routed(bare(LOW), without=("large",))
    assert (unsolved.answer, unsolved.cost, unsolved.reasons) == ("small", 1.0, ("known down", "unanswered"))
    assert unsolved.without == ()
    assert routed(LOW, without="large") == found
    alone = routed(LOW, without=("large", "medium"))  # solved for each of them, and not for both
    assert (alone.answer, alone.reasons, alone.without) == (
        "small",
        ("known down", "known down", "unanswered"),
        ("large",),
    )
    assert routed(LOW, without=("large", "medium", "small")).action.__class__.__name__ == "Abstain"


def test_what_a_cap_forbids_is_an_outage_too() -> None:
    found = routed(LOW, guard=Guard(cap=6.0))
    assert (found.answer, found.cost, found.reasons, found.without) == ("medium", 5.0, ("cap",), ("large",))


def test_what_is_set_aside_for_a_request_is_what_it_can_cost_in_the_outage() -> None:
    levels: list[float] = []
    bucket = TokenBucket(1.0, 100.0, Clock())

    def call(tier: str, _: object) -> Reply:
        levels.append(bucket.level)
        return Reply(tier, {"conf": 0.1})

    router = Router(LOW, call, guard=Guard(bucket=bucket))
    assert router.route("?").answer == "large"
    assert router.route("?", without=("large",)).answer == "medium"
    assert levels == [100.0 - 21.0, 100.0 - 21.0, 79.0 - 5.0, 79.0 - 5.0]


@pytest.mark.parametrize("conf", [0.1, 0.6, 0.9])
def test_the_propensity_of_a_step_in_an_outage_is_that_of_the_graphs_that_would_have_come_to_it(conf: float) -> None:
    for arm in (0, 1):
        key = next(key for key in range(100) if GOLDEN.arm(key) == arm)
        router = Router(GOLDEN, lambda tier, _: Reply(tier, {"conf": conf} if tier == "small" else {}))
        found = router.route("?", key=key, without=("large",))
        assert found.vertex == arm
        agree = (conf >= 0.5) == (conf >= 0.75)
        assert found.steps[-1].propensity == (1.0 if agree else 0.5)


def test_after_a_failure_propensities_go_on_in_the_outage() -> None:
    policy = replace(GOLDEN, point=replace(GOLDEN.point, share=0.25))
    for arm in (0, 1):
        key = next(key for key in range(100) if policy.arm(key) == arm)

        def call(tier: str, _: object) -> Reply:
            if tier == "large":
                raise Failure("down", 0.0)
            return Reply(tier, {"conf": 0.3} if tier == "small" else {})

        found = Router(policy, call).route("?", key=key)
        assert [step.propensity for step in found.steps] == [1.0] * 4
        assert found.without == ("large",)


def test_asyncio_does_the_same() -> None:
    async def call(tier: str, _: object) -> Reply:
        await asyncio.sleep(0)
        if tier == "large":
            raise Failure("rate limit", 0.0)
        return Reply(tier, {"conf": 0.1} if tier == "small" else {})

    assert asyncio.run(Router(LOW, call).aroute("?", key=7)) == routed(LOW, ("large",))
    assert asyncio.run(Router(LOW, call).aroute("?", key=7, without=("large",))) == routed(LOW, without=("large",))


@examples(40)
@given(data=st.data())
def test_a_router_told_of_an_outage_does_what_the_policy_without_the_tiers_does(data: st.DataObject) -> None:
    policy = data.draw(policies(cascades(least=2), outages=True))
    assume(policy.vertices[0].outages)
    down = data.draw(st.sampled_from(policy.vertices[0].outages)).without
    values = data.draw(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5))
    key = data.draw(st.integers())
    called: list[str] = []

    def call(tier: str, _: object) -> Reply:
        called.append(tier)
        return Reply(tier)

    def verify(tier: str, reading: str, _: object, answers: Mapping[str, Any]) -> Look:
        return Look(values[(len(tier) + len(reading) + len(answers)) % len(values)])

    found = Router(policy, call, verify).route("?", key=key, without=down)
    assert found == replace(
        Router(policy.without(*down), call, verify).route("?", key=key),
        snapshot=found.snapshot,
        steps=found.steps,
    )
    assert not {*called} & {*down}
    assert {step.without for step in found.steps} == {down}


def test_a_monitor_counts_outages_and_takes_them_for_no_drift() -> None:
    monitor = Monitor()
    router = Router(PLAIN, lambda tier, _: Reply(tier, {"conf": 0.9} if tier == "small" else {}, 50.0), monitor=monitor)
    for _ in range(3000):
        router.route("?", without=("large",))
    assert monitor.report()["outages"] == {"large": 3000}
    assert 'metaverify_outages_total{without="large"} 3000' in monitor.prometheus()
    assert monitor.recalibrate == ()
    assert json.loads(json.dumps(monitor.report()))["readings"] == {}
    for _ in range(3000):
        router.route("?")
    assert {drift.kind for drift in monitor.recalibrate} == {"reading", "cost"}


def test_readings_of_before_a_failure_are_compared_and_what_is_read_in_the_outage_is_not() -> None:
    monitor = Monitor()
    for _ in range(50):
        routed(PLAIN, ("large",), monitor=monitor)
    assert monitor.report()["readings"] == {"small.conf": [50, 0, 0, 0]}
