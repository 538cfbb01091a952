"""What may be spent is a bound and not a hope."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.actions import Abstain, Accept
from metaverify.policies.file import load_policy
from metaverify.policies.graph import Ask, Graph, Poll, Read, Stop, Tally
from metaverify.policies.guards import Allowance, Guard, TokenBucket, as_cost, dearest_path, dearest_prices
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.router import Failure, Look, Reply, Router
from metaverify.policies.tiers import Points, Reading, Tier

from .strategies import examples, policies
from .test_store import Clock

LOW, MIDDLE, HIGH = 0, 1, 2
GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def cascade(share: float = 0.0, low: int = HIGH, high: int = HIGH) -> Policy:
    """Small for 1, a judge of it for .5, large for 10: accept small; judge the doubted; escalate the doubted."""
    nodes: Graph = (
        Ask("small", 8),
        Ask("small", 3),
        Ask("small", 4),
        Read("small", "conf", (0.5,), (5, 8), 5),
        Read("small", "conf", (0.5,), (6, 8), 6),
        Read("small", "judge", (0.3,), (6, 8), 8),
        Ask("large", 7),
        Stop(Accept("large")),
        Stop(Accept("small")),
    )
    conf, judge = Reading("conf", 0.0, (0.5,), (50, 45, 5)), Reading("judge", 0.5, (0.3,), (30, 70, 0))
    vertices = tuple(Vertex(0.0, cost, 0.6 + cost / 100, root) for cost, root in ((1.0, 0), (4.0, 1), (6.0, 2)))
    return Policy(
        (Tier("small", 1.0, (conf, judge)), Tier("large", 10.0)), nodes, vertices, OperatingPoint(low, high, share)
    )


def test_the_dearest_path_of_each_graph_is_as_counted_by_hand() -> None:
    policy = cascade()
    ahead = dearest_path(policy, dearest_prices(policy))
    assert [ahead[vertex.root] for vertex in policy.vertices] == [1.0, 11.5, 11.0]
    dearer = dearest_path(policy, dearest_prices(policy, {"large": 30.0, ("small", "judge"): 2.0, "small": 0.5}))
    assert [dearer[vertex.root] for vertex in policy.vertices] == [1.0, 33.0, 31.0]


def test_votes_cost_as_many_as_are_asked_for() -> None:
    poll = Poll("small", "votes", (Tally((1,), (2, None)), Tally((), (2,))), 2)
    vertex = Vertex(0.0, 1.0, 0.5, 0)
    tier = Tier("small", 1.0, (Reading("votes", 2.0, (0.5,), (1, 1, 0), votes=8),))
    policy = Policy((tier,), (Ask("small", 1), poll, Stop(Accept("small"))), (vertex,), OperatingPoint(0, 0, 0.0))
    assert dearest_path(policy, dearest_prices(policy))[0] == 1.0 + 2 * 0.25


@examples(60)
@given(data=st.data())
def test_no_walk_costs_more_than_the_dearest_path(data: st.DataObject) -> None:
    policy = data.draw(policies(votes=True))
    context = data.draw(st.none() | st.sampled_from(["?", *policy.vertices[0].context_roots]))
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    votes = {(tier.name, r.name) for tier in policy.tiers for r in tier.readings if r.votes}

    def verify(tier: str, reading: str, *_: object) -> Look:
        return Look(rng.random() < 0.5 if (tier, reading) in votes else rng.random())

    routed = Router(policy, lambda tier, _: Reply(tier), verify).route("?", key=1, context=context)
    vertex = policy.vertices[routed.vertex]
    root = vertex.root if context is None else vertex.context_roots.get(context, vertex.root)
    bound = dearest_path(policy, dearest_prices(policy))[root]
    assert routed.cost <= bound * (1 + 1e-9)


def test_a_price_that_nobody_pays_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'lagre'.*'small', .*'large'"):
        dearest_prices(cascade(), {"lagre": 3.0})


@pytest.mark.parametrize("amount", [-1.0, math.nan, math.inf])
def test_bounds_that_are_none_are_refused(amount: float) -> None:
    with pytest.raises(ValueError, match="finite amounts"):
        TokenBucket(amount, 1.0)
    with pytest.raises(ValueError, match="finite amounts"):
        TokenBucket(1.0, amount)
    with pytest.raises(ValueError, match="'large'"):
        Guard(dearest={"large": amount})
    if amount != math.inf:
        with pytest.raises(ValueError, match="cap is"):
            Guard(cap=amount)


def test_a_bucket_gives_what_flowed_in_and_takes_back_what_was_not_spent() -> None:
    clock = Clock()
    bucket = TokenBucket(2.0, 10.0, clock)
    assert bucket.take(10.0)
    assert not bucket.take(1e-9)
    clock.now = 3.0
    assert bucket.level == 6.0
    assert not bucket.take(7.0)
    assert bucket.take(5.0)
    bucket.settle(5.0, 2.0)
    assert bucket.level == 4.0
    bucket.settle(0.0, 9.0)  # more than was taken is owed
    assert bucket.level == -5.0
    clock.now = 5.5
    assert bucket.level == 0.0
    clock.now = 1e9
    assert bucket.level == 10.0  # and no more


def test_time_that_goes_back_pays_nothing_twice() -> None:
    clock = Clock()
    bucket = TokenBucket(1.0, 10.0, clock)
    assert bucket.take(10.0)
    for now, level in ((4.0, 4.0), (0.0, 4.0), (4.0, 4.0), (5.0, 5.0)):
        clock.now = now
        assert bucket.level == level


def test_a_debt_is_kept_however_large_until_it_is_forgiven() -> None:
    clock = Clock()
    bucket = TokenBucket(100.0, 500.0, clock)
    costs = iter([1e15])
    policy = cascade(low=LOW, high=LOW)
    router = Router(policy, lambda tier, _: Reply(tier, {}, next(costs, None)), guard=Guard(bucket=bucket))
    assert router.route("?").cost == 1e15  # for all that is known it was spent
    clock.now = 30 * 86400.0
    assert bucket.level == 500.0 - 1e15 + 30 * 86400 * 100
    assert router.route("?").reasons == ("budget",)
    bucket.reset()
    assert bucket.level == 500.0
    assert router.route("?").answer == "small"
    clock.now = 0.0
    bucket.reset()
    assert bucket.level == 500.0
    assert bucket.take(500.0)
    clock.now = 30 * 86400.0 + 1.0
    assert bucket.level == 100.0  # nothing flowed in while the clock was back


def test_an_amount_is_a_finite_number_that_can_be_reckoned_with() -> None:
    assert [as_cost(told) for told in (0, 1e100, 0.5, 7)] == [0.0, 1e100, 0.5, 7.0]
    assert [as_cost(told) for told in (None, -5e-324, math.nextafter(1e100, math.inf), math.inf)] == [None] * 4


def test_bounds_of_nothing_are_bounds_where_they_make_sense() -> None:
    assert not TokenBucket(0.0, 1.0, Clock()).take(1.5)
    assert Guard(dearest={"small": 0.0, "large": 0.5}).dearest == {"small": 0.0, "large": 0.5}
    with pytest.raises(ValueError, match=r"rate 1.0 and burst 0.0: give finite amounts, the burst above 0"):
        TokenBucket(1.0, 0.0)
    with pytest.raises(ValueError, match=r"cap is 0.0; give the most that a request may cost, above 0"):
        Guard(cap=0.0)


def test_what_is_bought_beyond_what_was_set_aside_is_taken_out_one_by_one_and_settled_once() -> None:
    bucket = TokenBucket(0.0, 10.0, Clock())
    allowance = Allowance(Guard(bucket=bucket))
    assert allowance.admit(2.0)
    assert allowance.refusal(2.0) == ""
    assert bucket.level == 8.0
    allowance.spent = 2.0
    assert allowance.refusal(3.0) == ""
    assert bucket.level == 5.0
    allowance.spent = 5.0
    assert allowance.refusal(4.0) == ""
    assert bucket.level == 1.0
    assert allowance.refusal(6.0) == "budget"
    allowance.close()
    assert bucket.level == 5.0
    allowance.spent = 6.0  # a call that nobody waited for any more
    allowance.close()
    assert bucket.level == 4.0
    allowance.close()
    assert bucket.level == 4.0


def test_what_is_not_admitted_has_nothing_set_aside() -> None:
    bucket = TokenBucket(0.0, 10.0, Clock())
    allowance = Allowance(Guard(bucket=bucket))
    assert not allowance.admit(11.0)
    allowance.close()
    assert bucket.level == 10.0
    assert Allowance(Guard(cap=3.0, bucket=bucket)).admit(11.0)  # the cap is the most that it can cost
    assert bucket.level == 7.0


def test_the_bounds_hold_to_the_last_digit_and_no_further() -> None:
    capped = Allowance(Guard(cap=1.0))
    assert [capped.refusal(price) for price in (1.0, 1.0 * (1 + 1e-12), 1.0 + 3e-12)] == ["", "", "cap"]
    indebted = TokenBucket(0.0, 1.0, Clock())
    indebted.settle(0.0, 5.0)
    poor = Allowance(Guard(bucket=indebted))
    assert poor.refusal(0.0) == ""  # what costs nothing needs nothing
    assert poor.refusal(1e-13) == "budget"
    exact = TokenBucket(0.0, 1.0, Clock())
    rich = Allowance(Guard(bucket=exact))
    assert rich.admit(1.0)
    assert rich.refusal(1.0 + 1e-13) == ""  # sums of prices that are what was set aside to the last digit
    assert rich.refusal(1.0 + 1e-9) == "budget"


def test_what_can_be_bought_is_listed_with_its_dearest_price() -> None:
    prices = dearest_prices(load_policy(GOLDEN / "votes.json"), {"large": 12.0, ("small", "self_verify"): 0.125})
    assert prices == {"small": 1.0, ("small", "self_verify"): 0.25, "large": 12.0}  # of five votes for 1.25 one
    signals = load_policy(GOLDEN / "signals.json")
    assert {name for name in dearest_prices(signals) if isinstance(name, str)} == {
        tier.name for tier in signals.tiers if tier.answer
    }
    with pytest.raises(
        ValueError, match=r"'lagre', which the policy does not buy; it knows 'small', \('small', 'conf'\)"
    ):
        dearest_prices(cascade(), {"lagre": 3.0})


def test_a_plain_read_of_votes_costs_them_all_and_a_score_costs_its_parts() -> None:
    readings = (Reading("votes", 2.0, (0.5,), (1, 1, 0), votes=4), Reading("conf", 0.25, (), (1, 0)))
    readings += (Reading("paid", 0.125, (), (1, 0)),)
    parts = tuple(Points(name, (), (0.5,), 0.0) for name in ("conf", "paid"))
    tier = Tier("small", 1.0, (*readings, Reading("score", 0.0625, (0.5,), (1, 1, 0), parts)))
    nodes = (Ask("small", 2), Ask("small", 3))
    nodes += (
        Read("small", "votes", (0.5,), (4, 4), 4),
        Read("small", "score", (0.5,), (4, 4), 4),
        Stop(Accept("small")),
    )
    vertices = (Vertex(0.0, 1.0, 0.5, 0), Vertex(0.0, 2.0, 0.6, 1))
    policy = Policy((tier,), nodes, vertices, OperatingPoint(0, 0, 0.0))
    assert dearest_path(policy, dearest_prices(policy)) == (3.0, 1.4375, 2.0, 0.4375, 0.0)


def router(guard: Guard, confidence: float, policy: Policy | None = None, **costs: float) -> Router:
    return Router(
        policy or cascade(),
        lambda tier, _: Reply(tier, {"conf": confidence} if tier == "small" else {}, costs.get(tier)),
        lambda *_: Look(confidence),
        guard=guard,
    )


def test_a_request_below_its_cap_goes_on_as_ever() -> None:
    capped, free = (router(guard, 0.1).route("?") for guard in (Guard(cap=11.0), Guard()))
    assert (capped.answer, capped.steps, capped.cost) == (free.answer, free.steps, 11.0)


def test_a_request_at_its_cap_returns_the_answer_in_hand() -> None:
    routed = router(Guard(cap=10.99), 0.1).route("?")
    assert (routed.answer, routed.cost, routed.reasons) == ("small", 1.0, ("cap", "unanswered"))


def test_a_reading_above_the_cap_is_missing() -> None:
    routed = router(Guard(cap=1.2), 0.1, cascade(low=MIDDLE, high=MIDDLE)).route("?")
    assert (routed.answer, routed.cost, routed.reasons) == ("small", 1.0, ("cap",))


def test_a_cap_below_every_tier_ends_without_an_answer_or_with_the_cheapest() -> None:
    closed = router(Guard(cap=0.5), 0.1).route("?")
    assert (closed.action, closed.answer, closed.cost) == (Abstain(), None, 0.0)
    opened = router(Guard(cap=0.5, fail_open=True), 0.1).route("?")
    assert (opened.answer, opened.cost, opened.reasons[-1]) == ("small", 1.0, "fallback")


def test_a_request_that_could_exceed_the_bucket_takes_a_cheaper_graph() -> None:
    clock = Clock()
    bucket = TokenBucket(1.0, 11.2, clock)
    route = router(Guard(bucket=bucket), 0.1).route
    assert (route("?").vertex, bucket.level) == (HIGH, pytest.approx(0.2))
    clock.now = 1.0
    moved = route("?")
    assert (moved.vertex, moved.answer, moved.steps[0].propensity) == (LOW, "small", None)
    refused = route("?")
    assert (refused.action, refused.steps[-1].reason, refused.cost) == (Abstain(), "budget", 0.0)


def test_what_fails_open_is_owed() -> None:
    clock = Clock()
    bucket = TokenBucket(1.0, 0.5, clock)
    routed = router(Guard(bucket=bucket, fail_open=True), 0.1).route("?")
    assert (routed.answer, routed.cost, bucket.level) == ("small", 1.0, -0.5)


def test_what_a_failed_call_may_have_cost_is_spent() -> None:
    clock = Clock()
    bucket = TokenBucket(1.0, 100.0, clock)

    def call(tier: str, _: object) -> Reply:
        if tier == "large":
            raise ConnectionError
        return Reply(tier, {"conf": 0.1})

    Router(cascade(), call, guard=Guard(bucket=bucket, dearest={"large": 30.0})).route("?")
    assert bucket.level == 100.0 - 1.0 - 30.0


def stream(seed: int, requests: int) -> None:
    """One stream of traffic, random in everything, after each request of which the bound is checked."""
    rng = random.Random(seed)
    clock = Clock()
    rate, burst = rng.choice([0.1, 1.0, 5.0]), rng.choice([1.0, 12.0, 60.0])
    bucket = TokenBucket(rate, burst, clock)
    cap = rng.choice([math.inf, 11.0, 3.0])
    failing, doubt = rng.choice([0.0, 0.3]), rng.choice([0.0, 0.5, 1.0])  # 1: every confidence begs for the dearest
    point = rng.choice([(0.5, LOW, HIGH), (0.0, HIGH, HIGH), (0.3, MIDDLE, HIGH)])
    paid = 0.0

    def buy(most: float, make: Any) -> Any:
        nonlocal paid
        cost = most * rng.choice([1.0, rng.random()])
        if rng.random() < failing:
            told = rng.choice([cost, None])
            paid += most if told is None else told  # at worst
            raise Failure("down", told)
        paid += cost
        return make(cost)

    def call(tier: str, _: object) -> Any:
        confidence = rng.random() if rng.random() > doubt else rng.choice([0.0, math.nan])
        most = {"small": 2.0, "large": 25.0}[tier]
        return buy(most, lambda cost: Reply(tier, {"conf": confidence} if tier == "small" else {}, cost))

    def verify(*_: object) -> Any:
        return buy(0.5, lambda cost: Look(0.0, cost))

    guard = Guard(cap, bucket, {"small": 2.0, "large": 25.0})
    route = Router(cascade(*point), call, verify, guard=guard).route
    top = 0.0
    for request in range(requests):
        clock.now += rng.choice([0.0, 0.0, rng.expovariate(1.0), -rng.random(), 30.0 * (rng.random() < 0.02)])
        top = max(top, clock.now)
        before = paid
        routed = route("?", key=request)
        assert routed.cost == pytest.approx(paid - before, abs=1e-9)
        assert paid - before <= cap * (1 + 1e-9)
        assert paid <= rate * top + burst + 1e-9 * (1.0 + paid)


@pytest.mark.parametrize(
    "streams", [range(40), pytest.param(range(1000), marks=pytest.mark.slow, id="a thousand streams")]
)
def test_spend_never_exceeds_rate_times_time_plus_burst(streams: range) -> None:
    for seed in streams:
        stream(seed, 150)


def test_a_signal_s_handler_may_look_at_a_bucket_that_its_thread_is_changing() -> None:
    levels: list[float] = []
    handling = False

    def clock() -> float:  # which is asked under the lock
        nonlocal handling
        if handling:
            handling = False
            levels.append(bucket.level)
        return 0.0

    bucket = TokenBucket(1.0, 5.0, clock)
    handling = True
    assert bucket.take(2.0)
    assert levels == [5.0]
    assert bucket.level == 3.0
