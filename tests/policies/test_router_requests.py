"""What a request may want of a router: its own budget, and an answer that is passed on while it arrives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.actions import Accept, Call
from metaverify.policies.exploration import Exploration
from metaverify.policies.guards import Guard, TokenBucket
from metaverify.policies.monitor import Monitor
from metaverify.policies.policy import BudgetError
from metaverify.policies.router import Failure, Look, Reply, Router

from .strategies import examples, policies
from .test_guards import HIGH, LOW, MIDDLE, cascade
from .test_router import Callables, doubted, worlds


@examples(80)
@given(data=st.data())
def test_a_request_with_a_budget_is_routed_as_by_the_policy_with_its_dial_there(data: st.DataObject) -> None:
    policy = data.draw(policies(votes=True, outages=True))
    world = data.draw(worlds(policy))
    costs = [vertex.cost for vertex in policy.vertices]
    budget = data.draw(st.floats(costs[0], costs[-1] * 1.5 + 1.0))
    failing = frozenset(data.draw(st.sets(st.sampled_from([tier.name for tier in policy.tiers]), max_size=2)))
    key = data.draw(st.integers() | st.text())
    without = data.draw(st.sets(st.sampled_from([tier.name for tier in policy.tiers]), max_size=1))
    asked, turned = Callables(world, failing), Callables(world, failing)
    one = Router(policy, asked.call, asked.verify).route("?", key=key, budget=budget, without=without)
    other = Router(policy.at(budget=budget), turned.call, turned.verify).route("?", key=key, without=without)
    assert asked.bought == turned.bought
    assert (one.answer, one.tier, one.steps, one.vertex) == (other.answer, other.tier, other.steps, other.vertex)
    assert one.snapshot.policy is policy


@pytest.mark.parametrize(("budget", "vertex"), [(1.0, LOW), (4.0, MIDDLE), (6.0, HIGH), (100.0, HIGH)])
def test_the_next_request_has_the_dial_where_it_was(budget: float, vertex: int) -> None:
    router = Router(cascade(), doubted, lambda *_: Look(0.1))
    assert [router.route("?", budget=budget).vertex, router.route("?").vertex] == [vertex, HIGH]


@pytest.mark.parametrize("budget", [0.5, -1.0, float("nan")])
def test_a_budget_that_is_not_on_the_dial_is_refused_and_nothing_is_bought(budget: float) -> None:
    bucket, sold = TokenBucket(0.0, 20.0), Callables({})
    router = Router(cascade(), sold.call, guard=Guard(bucket=bucket))
    with pytest.raises(BudgetError, match="is below 1, the cost of the cheapest policy"):
        router.route("?", budget=budget)
    assert (sold.bought, bucket.level) == ([], 20.0)


def test_however_many_budgets_there_are_few_are_kept() -> None:
    router = Router(cascade(), doubted, lambda *_: Look(0.1))
    routed = [router.route("?", key=1, budget=1.0 + at / 100) for at in range(200)]
    assert [r.vertex for r in routed] == [cascade().at(budget=1.0 + at / 100).arm(1) for at in range(200)]
    assert len(router._plan._turned) <= 64


def test_what_a_request_with_a_budget_of_its_own_costs_is_held_to_that() -> None:
    def half(tier: str, request: Any) -> Reply:
        return Reply(tier, {"conf": 0.9 if request % 2 else 0.1} if tier == "small" else {})

    for own, drifts in [(6.0, False), (None, True)]:  # the dearest graph costs 6 in the mean, the cheapest 1
        monitor = Monitor()
        router = Router(cascade(low=LOW, high=LOW), half if own else dear, lambda *_: Look(0.1), monitor=monitor)
        for request in range(1000):
            router.route(request, budget=own)
        assert any(drift.kind == "cost" for drift in monitor.recalibrate) is drifts


def dear(tier: str, _: Any) -> Reply:
    return Reply(tier, {"conf": 0.9}, cost=6.0)


@examples(80)
@given(data=st.data())
def test_an_answer_is_final_where_the_policy_accepts_it_without_a_look(data: st.DataObject) -> None:
    policy = data.draw(policies(votes=True))
    sold, final = Callables(data.draw(worlds(policy))), []

    def last(tier: str, request: Any) -> Reply:
        final.append(tier)
        return sold.call(tier, request)

    routed = Router(policy, sold.call, sold.verify, final=last).route("?", key=1)
    # Answers bring no readings here, so one that is accepted as soon as it came was accepted unread.
    *_, before, end = [None, *(step.action for step in routed.steps)]
    unread = isinstance(end, Accept) and before == Call(end.tier)
    assert final == ([routed.tier] if unread else [])


def told(*finals: str) -> tuple[Router, list[str]]:
    """A router that fails where it is asked for these tiers' final answers, and what it was asked for so."""
    asked: list[str] = []

    def final(tier: str, _: object) -> Reply:
        asked.append(tier)
        if tier in finals:
            raise Failure("down", 0.0)
        return Reply(f"{tier}, finally", {"conf": 0.9})

    return Router(cascade(), doubted, final=final), asked


def test_an_answer_that_is_read_is_not_final_whatever_comes_with_it() -> None:
    router, asked = told()
    routed = router.route("?")
    assert (routed.answer, asked) == ("large, finally", ["large"])
    assert asyncio.run(router.aroute("?")).answer == "large, finally"


def test_a_final_answer_that_fails_is_gone_round_as_any_other() -> None:
    router, asked = told("large")
    routed = router.route("?")
    assert (routed.answer, routed.reasons, asked) == ("small", ("down", "unanswered"), ["large"])


def test_a_fallback_is_final_and_what_is_explored_is_not() -> None:
    final: list[str] = []

    def call(tier: str, _: object) -> Reply:
        raise Failure("down", 0.0)

    def last(tier: str, _: object) -> Reply:
        final.append(tier)
        if tier == "small":
            raise Failure("down", 0.0)
        return Reply(tier)

    low = cascade(low=LOW, high=LOW)  # accepts small unread
    assert Router(low, call, final=last).route("?").answer == "large"
    assert final == ["small", "large"]
    explored = Router(low, doubted, final=lambda tier, _: Reply(f"final {tier}"), exploration=Exploration(1.0))
    routed = explored.route("?", key=1)
    assert (routed.answer, routed.steps[1].action, routed.steps[1].reason) == (
        "final small",
        Call("large"),
        "explored",
    )
