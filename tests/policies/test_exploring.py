"""A fair share of requests is explored, the same ones everywhere, and none of them is answered otherwise."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaverify.policies.actions import Accept, Call
from metaverify.policies.decision_log import DecisionLog
from metaverify.policies.exploration import Exploration
from metaverify.policies.guards import Guard, TokenBucket
from metaverify.policies.routed import Routed
from metaverify.policies.router import Failure, Reply, Router

from .strategies import examples, policies
from .test_guards import HIGH, LOW, MIDDLE, cascade
from .test_router import Callables, worlds

keys = st.text(max_size=20) | st.binary(max_size=20) | st.integers()


# Which requests -------------------------------------------------------------------------------------------------------


def drawn(key: str | bytes | int, salt: str) -> Fraction:
    """A number in [0, 1) that is this request's, by the definition in words: a keyed hash of its id."""
    raw = key if isinstance(key, bytes) else str(key).encode()
    keyed = blake2b(b"explore " + salt.encode("utf-8", "surrogatepass")).digest()
    return Fraction(int(blake2b(raw, digest_size=7, key=keyed).hexdigest(), 16), 2**56)


@examples(300)
@given(key=keys, salt=st.text(max_size=8) | st.just("\ud800"), rate=st.floats(0.0, 1.0))
def test_a_request_is_explored_where_the_hash_of_its_id_lies_below_the_rate(key: Any, salt: str, rate: float) -> None:
    here = drawn(key, salt)
    near = float(here)
    for each in (rate, math.nextafter(near, 0.0), near, math.nextafter(near, 1.0)):
        assert Exploration(each, salt).explores(key) == (here < Fraction(each))


def test_none_is_explored_at_0_and_all_are_at_1() -> None:
    assert not any(Exploration(0.0).explores(key) for key in range(2000))
    assert all(Exploration(1.0).explores(key) for key in range(2000))


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.97])
def test_the_share_is_the_rate_and_another_salt_picks_other_requests(rate: float) -> None:
    n = 20_000
    first, second = (
        [Exploration(rate, salt).explores(f"request {key}") for key in range(n)] for salt in ("", "another")
    )
    sigma = math.sqrt(rate * (1 - rate) / n)
    for explored in (first, second):
        assert abs(sum(explored) / n - rate) < 4 * sigma
    both = sum(a and b for a, b in zip(first, second, strict=True)) / n
    assert abs(both - rate**2) < 4 * math.sqrt(rate**2 * (1 - rate**2) / n)


def test_a_higher_rate_explores_what_a_lower_one_did() -> None:
    some, more = ({key for key in range(3000) if Exploration(rate).explores(key)} for rate in (0.1, 0.3))
    assert some < more


def test_an_id_is_the_same_as_text_number_and_bytes() -> None:
    half = Exploration(0.5)
    for key in range(200):
        assert half.explores(key) == half.explores(str(key)) == half.explores(str(key).encode())


def test_another_process_explores_the_same_requests() -> None:
    code = (
        "from metaverify.policies.exploration import Exploration as E;"
        "print([key for key in range(500) if E(0.1, 's').explores(key)])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert json.loads(told) == [key for key in range(500) if Exploration(0.1, "s").explores(key)]


@pytest.mark.parametrize("rate", [-1e-9, 1.0000001, 2, math.nan, math.inf])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"^rate is .*; give the share of requests to be explored, in \[0, 1\]$"):
        Exploration(rate)


# What becomes of them -------------------------------------------------------------------------------------------------


def call(tier: str, confidence: float) -> Reply:
    return Reply(f"by {tier}", {"conf": confidence} if tier == "small" else {})


def told(routed: Routed) -> list[tuple[Any, str, float | None]]:
    return [(step.action, step.reason, step.propensity) for step in routed.steps]


def test_once_the_answer_is_settled_every_other_tier_is_called_and_the_answer_stays() -> None:
    router = Router(cascade(low=MIDDLE, high=MIDDLE), call, exploration=Exploration(1.0))
    sure = router.route(0.9, key=1)
    assert (sure.answer, sure.tier, sure.cost) == ("by small", "small", 11.0)
    assert told(sure) == [
        (Call("small"), "", 1.0),
        (Call("large"), "explored", 1.0),
        (Accept("small"), "", 1.0),
    ]
    assert sure.unseen == {}
    doubted = Router(cascade(), call, exploration=Exploration(1.0)).route(0.1, key=1)
    assert told(doubted) == [(Call("small"), "", 1.0), (Call("large"), "", 1.0), (Accept("large"), "", 1.0)]


def test_a_request_that_is_not_explored_says_how_likely_what_it_did_not_call_was() -> None:
    exploration = Exploration(0.25)
    router = Router(cascade(low=LOW, high=LOW), call, exploration=exploration)
    seen = set()
    for key in range(40):
        routed, explored = router.route(0.9, key=key), exploration.explores(key)
        calls = [(step.action, step.propensity) for step in routed.steps if isinstance(step.action, Call)]
        assert calls == [(Call("small"), 1.0), *([(Call("large"), 0.25)] if explored else [])]
        assert routed.unseen == ({} if explored else {"large": 0.25})
        seen.add(explored)
    assert seen == {False, True}


def test_at_rate_0_a_router_is_as_without_and_needs_no_id() -> None:
    plain, never = (Router(cascade(), call, exploration=each) for each in (None, Exploration(0.0)))
    for confidence in (0.1, 0.9):
        assert told(never.route(confidence)) == told(plain.route(confidence))
        assert never.route(confidence).unseen == plain.route(confidence).unseen == {}
    with pytest.raises(ValueError, match="requests are explored by their ids: pass key=<the request's id>"):
        Router(cascade(), call, exploration=Exploration(0.5)).route(0.1)


def test_two_graphs_leave_the_chance_of_a_call_to_the_graph_that_is_followed() -> None:
    """Without exploration a call has the chance of the graphs that would make it; with it that given the graph."""
    policy = cascade(0.25, LOW, HIGH)
    router = Router(policy, call, exploration=Exploration(0.5))
    met = set()
    for key in range(60):
        routed = router.route(0.1, key=key)
        chances = {step.action: step.propensity for step in routed.steps if isinstance(step.action, Call)}
        high = policy.arm(key) == HIGH
        if high:
            assert chances == {Call("small"): 1.0, Call("large"): 1.0}
        elif Exploration(0.5).explores(key):
            assert chances == {Call("small"): 1.0, Call("large"): 0.5}
        else:
            assert (chances, routed.unseen) == ({Call("small"): 1.0}, {"large": 0.5})
        assert routed.steps[-1].propensity == (0.25 if high else 0.75)
        met.add((high, Exploration(0.5).explores(key)))
    assert len(met) == 4


def test_what_is_bought_in_place_of_a_tier_that_failed_is_answered_and_not_explored() -> None:
    def fails(tier: str, confidence: float) -> Reply:
        if tier == "small":
            raise Failure("down", 0.5)
        return call(tier, confidence)

    routed = Router(cascade(low=LOW, high=LOW), fails, exploration=Exploration(1.0)).route(0.9, key=1)
    assert [(action, why) for action, why, _ in told(routed)] == [
        (Call("small"), "down"),
        (Call("large"), "fallback"),
        (Accept("large"), ""),
    ]
    assert routed.answer == "by large"


def test_a_tier_that_fails_while_explored_is_paid_for_and_changes_nothing_else() -> None:
    def fails(tier: str, confidence: float) -> Reply:
        if tier == "large":
            raise Failure("down", 3.0)
        return call(tier, confidence)

    exploration = Exploration(0.5)
    key = next(key for key in range(99) if exploration.explores(key))
    routed = Router(cascade(low=LOW, high=LOW), fails, exploration=exploration).route(0.9, key=key)
    assert told(routed) == [(Call("small"), "", 1.0), (Call("large"), "down", 0.5), (Accept("small"), "", 1.0)]
    assert (routed.answer, routed.cost, routed.unseen) == ("by small", 4.0, {"large": 0.5})


@pytest.mark.parametrize(("cap", "bucket", "reason"), [(10.0, 100.0, "cap"), (100.0, 10.0, "budget")])
def test_a_guard_bounds_what_is_explored(cap: float, bucket: float, reason: str) -> None:
    purse = TokenBucket(0.0, bucket, clock=lambda: 0.0)
    router = Router(cascade(low=LOW, high=LOW), call, guard=Guard(cap, purse), exploration=Exploration(1.0))
    routed = router.route(0.9, key=1)
    assert [(action, why) for action, why, _ in told(routed)] == [
        (Call("small"), ""),
        (Call("large"), reason),
        (Accept("small"), ""),
    ]
    assert routed.cost == 1.0
    assert purse.level == bucket - 1.0


def test_what_exploring_cost_is_taken_out_of_the_bucket() -> None:
    purse = TokenBucket(0.0, 50.0, clock=lambda: 0.0)
    router = Router(cascade(low=LOW, high=LOW), call, guard=Guard(bucket=purse), exploration=Exploration(1.0))
    assert router.route(0.9, key=1).cost == 11.0
    assert purse.level == 39.0


def test_a_request_that_a_guard_moved_says_nothing_of_chances() -> None:
    purse = TokenBucket(0.0, 5.0, clock=lambda: 0.0)
    router = Router(cascade(), call, guard=Guard(bucket=purse), exploration=Exploration(0.5))
    routed = router.route(0.1, key=next(key for key in range(99) if not Exploration(0.5).explores(key)))
    assert routed.vertex == LOW
    assert routed.unseen == {}
    assert {step.propensity for step in routed.steps} == {None}


def test_what_is_known_to_be_down_is_not_explored() -> None:
    routed = Router(cascade(low=LOW, high=LOW), call, exploration=Exploration(1.0)).route(0.9, key=1, without=["large"])
    assert [(action, why) for action, why, _ in told(routed)] == [(Call("small"), ""), (Accept("small"), "")]
    assert routed.unseen == {"large": 1.0}


@examples(80)
@given(data=st.data(), key=st.integers(0, 10**6))
def test_exploring_changes_neither_the_answer_nor_what_led_to_it(data: st.DataObject, key: int) -> None:
    """Against the same router that does not explore, in worlds where nothing fails."""
    policy = data.draw(policies(votes=True))
    world = data.draw(worlds(policy))
    ends, sold = [], []
    for exploration in (None, Exploration(1.0)):
        sold.append(Callables(world))
        ends.append(Router(policy, sold[-1].call, sold[-1].verify, exploration=exploration).route("?", key=key))
    plain, explored = ends
    assert (explored.answer, explored.tier, explored.vertex) == (plain.answer, plain.tier, plain.vertex)
    assert sold[1].bought[: len(sold[0].bought)] == sold[0].bought
    more = [action.tier for action in sold[1].bought[len(sold[0].bought) :] if isinstance(action, Call)]
    called = {action.tier for action in sold[0].bought if isinstance(action, Call)}
    assert more == [tier.name for tier in policy.tiers if tier.answer and tier.name not in called]
    assert explored.reasons == (*plain.reasons, *["explored"] * len(more))
    assert explored.unseen == {}


def test_the_decision_log_has_what_was_explored_and_the_chances(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.jsonl") as log:
        router = Router(cascade(low=LOW, high=LOW), call, log=log, exploration=Exploration(0.5))
        for key in range(8):
            router.route(0.9, key=key)
    steps = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    explored = {str(step["key"]) for step in steps if step["reason"] == "explored"}
    assert explored == {str(key) for key in range(8) if Exploration(0.5).explores(key)}
    assert 0 < len(explored) < 8
    for step in steps:
        if step["action"] == "accept":
            assert step.get("unseen", {}) == ({} if str(step["key"]) in explored else {"large": 0.5})
